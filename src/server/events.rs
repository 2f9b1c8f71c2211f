//! `GET /v1/jobs/{id}/events`: a job's life as server-sent events, until it has ended. `state` and `done` carry the job,
//! `progress` the progress, `log` a log line; only log lines have ids, which are their `seq`, so `Last-Event-ID` goes on
//! after the last line that a client has seen.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::params::{NoQuery, PathParams};
use super::problem::{Answer, Problem};
use super::view::JobView;
use super::wait::Seen;
use super::{App, Shared, jobs};
use crate::broker::Topic;
use crate::job::{Job, JobId};

/// Events that wait for a slow client.
const BUFFER: usize = 64;
/// Log lines that are read at once.
const LINES: usize = 100;
/// Between two looks at the log, at least.
const PAUSE: Duration = Duration::from_millis(50);
/// A change that nobody was woken for is seen after this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub async fn stream(State(app): Shared, path: PathParams, _: NoQuery, headers: HeaderMap) -> Answer<Response> {
    let id = path.job()?;
    let after = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default().parse()) {
        None => 0,
        Some(Ok(seq)) => seq,
        Some(Err(_)) => {
            return Err(Problem::malformed("Last-Event-ID must be the id of a `log` event, a whole number"));
        }
    };
    jobs::existing(&app, id).await?;
    let (events, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let gone = events.clone();
        let told = Teller { app: app.clone(), id, events, log_after: after }.tell();
        tokio::select! {
            _ = told => {}
            () = gone.closed() => {}
            () = app.shutdown.requested() => {}
        }
    });
    let events = Sse::new(ReceiverStream::new(receiver));
    Ok(events.keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// Tells one client of one job.
struct Teller {
    app: Arc<App>,
    id: JobId,
    events: mpsc::Sender<Result<Event, axum::Error>>,
    log_after: u64,
}

/// The client is gone, or the job, or the broker: the stream ends, and the client comes back for the rest.
struct Over;

impl Teller {
    async fn tell(mut self) -> Result<(), Over> {
        let mut following = self.app.waiting.follow(self.id);
        let mut changes = self.app.broker.changes(Topic::Jobs);
        let mut told: Option<Arc<Job>> = None;
        let mut job = Arc::new(jobs::existing(&self.app, self.id).await.map_err(|_| Over)?);
        loop {
            changes.borrow_and_update();
            let before = told.as_deref();
            let state = |job: &Job| (job.state, job.attempt, job.lost);
            let moved = before.is_none_or(|before| state(before) != state(&job) || before.reason != job.reason);
            // What led to an end is told before the end.
            if moved && !job.state.is_terminal() {
                self.send("state", &JobView::from(&*job)).await?;
            }
            if let Some(progress) = &job.progress
                && before.is_none_or(|before| before.progress.as_ref() != Some(progress))
            {
                self.send("progress", progress).await?;
            }
            // After the look at the job: a job that has ended has logged all its lines.
            self.send_log().await?;
            if job.state.is_terminal() {
                self.send("state", &JobView::from(&*job)).await?;
                return self.send("done", &JobView::from(&*job)).await;
            }
            told = Some(job.clone());
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                found = following.changed() => found.map_err(|_| Over)?,
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match &*following.borrow_and_update() {
                Seen::NotYet => {}
                Seen::Job(now) => job = now.clone(),
                Seen::Gone => return Err(Over),
            }
        }
    }

    async fn send_log(&mut self) -> Result<(), Over> {
        loop {
            let logs = self.app.broker.logs(self.id, self.log_after, LINES).await.map_err(|_| Over)?.ok_or(Over)?;
            for line in &logs.lines {
                let event = Event::default().event("log").id(line.seq.to_string()).json_data(line).map_err(|_| Over)?;
                self.events.send(Ok(event)).await.map_err(|_| Over)?;
                self.log_after = line.seq;
            }
            if logs.lines.len() < LINES {
                return Ok(());
            }
        }
    }

    async fn send(&self, name: &str, data: &impl Serialize) -> Result<(), Over> {
        let event = Event::default().event(name).json_data(data).map_err(|_| Over)?;
        self.events.send(Ok(event)).await.map_err(|_| Over)
    }
}
