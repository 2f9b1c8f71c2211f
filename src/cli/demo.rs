//! `ryemill demo`: `dev` for one shot. Submits the example of every script through HTTP, follows them with progress bars,
//! shows what they made, and ends with 0 only if all succeeded.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::Client;
use super::follow::{Happening, follow};
use super::{Failure, Outcome, sample, say, setup, submit};
use crate::config::{BrokerUrl, Config, Mailer};
use crate::job::{Job, State};
use crate::server;
use crate::telemetry::metrics::Metrics;

/// How long scripts may take to become known to the server.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

pub fn run(mut config: Config) -> Outcome {
    let place = alone(&mut config)?;
    let _logs = setup::logging(&config, "demo")?;
    sample::provide(&mut config)?;
    setup::runtime()?.block_on(async {
        let shutdown = setup::shutdown()?;
        let (broker, metrics) = (setup::broker(&config).await?, Arc::new(Metrics::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Failure::Failed(format!("no port can be had on loopback: {error}")))?;
        let address =
            listener.local_addr().map_err(|error| Failure::Failed(format!("the listener has no address: {error}")))?;
        let state = setup::server_state(&config, Arc::clone(&broker), Arc::clone(&metrics))?;
        let worker = setup::worker(&config, broker, metrics, &shutdown).await?;
        let names: Vec<(String, Vec<Value>)> = worker
            .library
            .snapshot()
            .scripts
            .values()
            .map(|script| (script.job_type.name.to_string(), script.job_type.spec.examples.clone()))
            .collect();
        let faults = worker.library.snapshot().faults.len();
        let serve = server::run(listener, state, shutdown.clone());
        let work = worker.run(shutdown.clone());
        let show = async {
            let client = Client::to(&format!("http://{address}"), None)?;
            let ended = show(&client, &names, &place, &config.files_dir).await;
            shutdown.request();
            ended
        };
        let ((), work, show) = tokio::join!(serve, work, show);
        work?;
        show?;
        if faults > 0 {
            return Err(Failure::Failed(format!("{faults} faults in the scripts: run `ryemill check`")));
        }
        Ok(())
    })
}

/// Points everything to a folder of the demo's own, made new, so that no other queue and no mail server is touched.
fn alone(config: &mut Config) -> Result<PathBuf, Failure> {
    let place = config.data_dir.join("demo");
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::Failed(format!("{} cannot be cleared: {error}", place.display())));
        }
        _ => {}
    }
    fs::create_dir_all(&place)
        .map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", place.display())))?;
    config.data_dir.clone_from(&place);
    config.broker = BrokerUrl::Sqlite { path: place.join("ryemill.db"), sync_normal: false };
    config.files_dir = place.join("files");
    config.mailer = Mailer::File(place.join("outbox"));
    config.api_keys.clear();
    config.databases.clear();
    config.worker_addr = None;
    config.watch = false;
    // The progress bars are the demo's output; its log is in its folder.
    config.log_dir = Some(place.join("logs"));
    config.log_level = "warn".to_owned();
    Ok(place)
}

async fn show(client: &Client, scripts: &[(String, Vec<Value>)], place: &Path, files: &Path) -> Outcome {
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:>10} {bar:30} {percent:>3}% {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut runs = Vec::new();
    for (name, examples) in scripts {
        known(client, name).await?;
        for example in examples {
            let bar = bars.add(ProgressBar::new(100)).with_style(style.clone()).with_prefix(name.clone());
            bar.tick();
            let body = json!({ "name": name, "payload": example, "tags": ["demo"] }).to_string();
            let job = client.submit(body, None).await?;
            runs.push(watch(client, job, bar));
        }
    }
    let mut jobs = Vec::new();
    for ended in futures_util::future::join_all(runs).await {
        jobs.push(ended?);
    }
    children(client, &mut jobs).await?;
    for job in &jobs {
        say(&format!("\n{} {}: {}", job.name, job.id, submit::told(job)));
        for file in &job.files {
            say(&format!("      {}", files.join(job.id.to_string()).join(&file.name).display()));
        }
    }
    for mail in listing(&place.join("outbox")) {
        say(&format!(" mail {}", mail.display()));
    }
    let failed = jobs.iter().filter(|job| job.state != State::Succeeded).count();
    say(&format!("\n{} jobs, {failed} did not succeed", jobs.len()));
    match (jobs.len(), failed) {
        (0, _) => Err(Failure::Failed("no script has an example: there was nothing to show".into())),
        (_, 0) => Ok(()),
        _ => Err(Failure::Said),
    }
}

/// Waits until the server knows a type: its worker publishes it when it starts.
async fn known(client: &Client, name: &str) -> Outcome {
    let deadline = tokio::time::Instant::now() + KNOWN_WITHIN;
    loop {
        match client.get::<Value>(&format!("/v1/job-types/{name}")).await {
            Ok(_) => return Ok(()),
            Err(failure) if tokio::time::Instant::now() > deadline => return Err(failure),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn watch(client: &Client, job: Job, bar: ProgressBar) -> Result<Job, Failure> {
    let ended = follow(client, &job.id.to_string(), |happening| match happening {
        Happening::Progress(progress) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
            bar.set_position(progress.percent as u64);
            bar.set_message(progress.message);
        }
        Happening::Log(line) => bar.set_message(line.message),
        Happening::State(_) => {}
    })
    .await?;
    bar.set_position(100);
    bar.finish_with_message(ended.state.as_str());
    Ok(ended)
}

/// Adds the jobs that the shown ones submitted, when they have ended.
async fn children(client: &Client, jobs: &mut Vec<Job>) -> Outcome {
    let mut known: BTreeSet<_> = jobs.iter().map(|job| job.id).collect();
    loop {
        let page: Value = client.get("/v1/jobs?limit=1000").await?;
        let mut found = false;
        for id in page["jobs"].as_array().into_iter().flatten().filter_map(|job| job["id"].as_str()) {
            let Ok(parsed) = id.parse() else { continue };
            if known.insert(parsed) {
                found = true;
                jobs.push(client.get(&format!("/v1/jobs/{id}?wait=60s")).await?);
            }
        }
        if !found {
            return Ok(());
        }
    }
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}
