//! Follows one job over its event stream, and comes back when the stream is cut.

use std::time::Duration;

use futures_util::StreamExt;

use super::Failure;
use super::client::Client;
use crate::job::{Job, LogLine, Progress};

/// How often a cut stream is taken up again before giving up.
const TRIES: usize = 10;

/// What happens to a followed job.
pub enum Happening {
    State(Box<Job>),
    Progress(Progress),
    Log(LogLine),
}

/// Tells `tell` what happens to a job until it has ended; answers it as it ended.
pub async fn follow(client: &Client, id: &str, mut tell: impl FnMut(Happening)) -> Result<Job, Failure> {
    let mut after = 0;
    for _ in 0..TRIES {
        let mut stream = client.events(id, after).await?.bytes_stream();
        let mut text = Vec::new();
        while let Some(Ok(bytes)) = stream.next().await {
            text.extend_from_slice(&bytes);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                match read(&event)? {
                    Some(Event::Done(job)) => return Ok(*job),
                    Some(Event::Happening(happening)) => {
                        if let Happening::Log(line) = &happening {
                            after = line.seq;
                        }
                        tell(happening);
                    }
                    None => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Err(Failure::Failed(format!("the event stream of job {id} was cut {TRIES} times")))
}

enum Event {
    Happening(Happening),
    Done(Box<Job>),
}

/// One event of the stream; none for a comment.
fn read(event: &[u8]) -> Result<Option<Event>, Failure> {
    let text = String::from_utf8_lossy(event);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim_start().to_owned())
    };
    let (Some(kind), Some(data)) = (field("event"), field("data")) else { return Ok(None) };
    let wrong = |error: serde_json::Error| Failure::Failed(format!("an event {kind:?} makes no sense: {error}"));
    Ok(Some(match kind.as_str() {
        "done" => Event::Done(serde_json::from_str(&data).map_err(wrong)?),
        "state" => Event::Happening(Happening::State(serde_json::from_str(&data).map_err(wrong)?)),
        "progress" => Event::Happening(Happening::Progress(serde_json::from_str(&data).map_err(wrong)?)),
        "log" => Event::Happening(Happening::Log(serde_json::from_str(&data).map_err(wrong)?)),
        _ => return Ok(None),
    }))
}
