//! `ryemill submit NAME`: a job to the API, followed to its end when asked.

use serde_json::{Value, json};

use super::client::Client;
use super::follow::{Happening, follow};
use super::{Failure, Outcome, SubmitArgs, payload, say, setup};
use crate::config::Config;
use crate::job::{Job, LogLevel, State};
use crate::script::diagnostics::error_card;

pub fn run(config: &Config, args: &SubmitArgs) -> Outcome {
    let client = Client::new(config)?;
    setup::runtime()?.block_on(async {
        let body = body(&client, args).await?;
        let job = client.submit(body, args.idempotency_key.as_deref()).await?;
        let id = job.id.to_string();
        if !args.follow {
            say(&if args.json { shown(&job) } else { format!("{id} {}", job.state) });
            return Ok(());
        }
        if !args.json {
            say(&format!("{id} {}", job.state));
        }
        let ended = follow(&client, &id, |happening| {
            if !args.json {
                tell(&happening);
            }
        })
        .await?;
        if args.json {
            say(&shown(&ended));
        } else {
            say(&told(&ended));
        }
        if ended.state == State::Succeeded { Ok(()) } else { Err(Failure::Said) }
    })
}

async fn body(client: &Client, args: &SubmitArgs) -> Result<String, Failure> {
    let example = if args.payload.example {
        let job_type: Value = client.get(&format!("/v1/job-types/{}", args.name)).await?;
        job_type["examples"].get(0).map(ToString::to_string)
    } else {
        None
    };
    let payload = payload(&args.payload, || Ok(example))?;
    let mut body = json!({ "name": args.name });
    if let Some(delay) = &args.delay {
        body["delay"] = json!(delay);
    }
    if let Some(priority) = args.priority {
        body["priority"] = json!(priority);
    }
    if !args.tags.is_empty() {
        body["tags"] = json!(args.tags);
    }
    // The payload goes as it was written: a detour through a value could change its numbers.
    let head = body.to_string();
    Ok(format!("{},\"payload\":{payload}}}", head.trim_end_matches('}')))
}

fn tell(happening: &Happening) {
    match happening {
        Happening::State(job) => {
            let reason = job.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            say(&format!("      {}{reason}", job.state));
        }
        Happening::Progress(progress) => say(&format!("{:>4.0}% {}", progress.percent, progress.message)),
        Happening::Log(line) => {
            let fields = line.fields.as_ref().map_or(String::new(), |fields| format!(" {}", fields.get()));
            say(&format!("{:>5} {}{fields}", LogLevel::as_str(line.level), line.message));
        }
    }
}

/// How a job ended, for people.
pub(super) fn told(job: &Job) -> String {
    let plural = if job.attempt == 1 { "" } else { "s" };
    let mut text = format!("{} after {} attempt{plural}", job.state, job.attempt);
    for file in &job.files {
        text.push_str(&format!("\n file {} ({} bytes)", file.name, file.size));
    }
    if let Some(result) = &job.result {
        text.push_str(&format!("\nresult {}", result.get()));
    }
    if let Some(error) = &job.error {
        text.push_str(&format!("\n{}", error_card(error)));
    }
    text
}

fn shown(job: &Job) -> String {
    serde_json::to_string(job).unwrap_or_default()
}
