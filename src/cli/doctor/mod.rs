//! `ryemill doctor`: looks at all that Ryemill stands on, one line each: ok, warning or wrong, what, and what to do.
//!
//! Every check runs, whatever the ones before it found. Exit code 0: nothing is wrong; 1: something is; 2: the configuration
//! is, and then nothing else can be looked at.

mod place;
mod probe;
mod records;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use super::{DoctorArgs, Failure, Outcome, say, setup};
use crate::broker::redis::{Namespace, RedisBroker};
use crate::broker::{BrokerError, Level, Note, SharedBroker};
use crate::config::{BrokerUrl, Config, ConfigErrors};
use crate::job::time::SystemClock;
use crate::job::{Clock, Timestamp};

/// For each check of the broker.
const PATIENCE: Duration = Duration::from_secs(30);
/// A difference of clocks that is worth a word.
const SKEW: Duration = Duration::from_secs(1);
/// The clock is read this often; the quickest answer tells best.
const PINGS: usize = 5;

pub fn run(args: &DoctorArgs) -> Outcome {
    let mut report = Report { json: args.json, notes: Vec::new() };
    let config = match Config::load() {
        Ok(config) => config,
        Err(faults) => return report.unusable(&faults),
    };
    report.add(place::configuration(&config));
    setup::runtime()?.block_on(async {
        match broker(&config).await {
            Ok(broker) => {
                look(&broker, &mut report).await;
                if args.fsck {
                    report.add(records::check(&broker, args.repair).await);
                }
            }
            Err(why) => report.add([Note::wrong("broker", why, "see BROKER_URL")]),
        }
    });
    report.add([place::scripts(&config), place::files(&config)]);
    report.add(place::pm2(&config));
    report.end()
}

/// What was found so far; texts are printed at once.
struct Report {
    json: bool,
    notes: Vec<Note>,
}

impl Report {
    fn add(&mut self, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            if !self.json {
                let advice = note.advice.as_ref().map_or(String::new(), |advice| format!(" → {advice}"));
                say(&format!("{:<8} {:<12} {}{advice}", word(note.level), note.subject, note.what));
            }
            self.notes.push(note);
        }
    }

    fn unusable(mut self, faults: &ConfigErrors) -> Outcome {
        self.add(faults.faults.iter().map(|fault| {
            Note::wrong("configuration", fault.to_string(), "until it is right nothing else can be looked at")
        }));
        if self.json {
            self.print();
        }
        Err(Failure::Usage("the configuration cannot be used".into()))
    }

    fn print(&self) {
        say(&json!({ "ok": self.wrong() == 0, "checks": self.notes }).to_string());
    }

    fn wrong(&self) -> usize {
        self.notes.iter().filter(|note| note.level == Level::Wrong).count()
    }

    fn end(self) -> Outcome {
        let (wrong, of) = (self.wrong(), self.notes.len());
        let warnings = self.notes.iter().filter(|note| note.level == Level::Warning).count();
        if self.json {
            self.print();
        } else {
            say(&format!("\n{of} checks: {wrong} wrong, {warnings} warnings"));
        }
        if wrong == 0 { Ok(()) } else { Err(Failure::Said) }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Wrong => "wrong",
    }
}

/// The broker as it is: a Redis that the other commands refuse is looked at all the same.
async fn broker(config: &Config) -> Result<SharedBroker, String> {
    let why = |failure| match failure {
        Failure::Failed(why) | Failure::Usage(why) => why,
        Failure::Said => String::new(),
    };
    if matches!(config.broker, BrokerUrl::Sqlite { .. }) {
        return setup::broker(config).await.map_err(why);
    }
    let target = setup::redis(config).map_err(|error| error.to_string())?;
    Ok(Arc::new(RedisBroker::unchecked(target, Namespace::default(), config.allow_eviction)))
}

/// All that the broker itself can tell.
async fn look(broker: &SharedBroker, report: &mut Report) {
    let (clock, notes) = tokio::join!(in_time("clock", clock(broker)), in_time("broker", broker.examine()));
    report.add(clock.into_iter().chain(notes));
    report.add(in_time("round trip", async { Ok(vec![probe::run(&**broker).await?]) }).await);
}

/// The notes of a check, or the note that it could not be made.
async fn in_time(subject: &str, check: impl Future<Output = Result<Vec<Note>, BrokerError>>) -> Vec<Note> {
    match timeout(PATIENCE, check).await {
        Ok(Ok(notes)) => notes,
        Ok(Err(error)) => vec![Note::wrong(subject, error.to_string(), advice(&error))],
        Err(_) => vec![Note::wrong(
            subject,
            format!("no answer within {} s", PATIENCE.as_secs()),
            "look whether the broker is overloaded or its disk hangs",
        )],
    }
}

fn advice(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::Full(_) => "make room in the broker",
        BrokerError::Damaged(_) => "`ryemill doctor --fsck` names what is damaged",
        _ => "look whether the broker of BROKER_URL runs and can be reached from here",
    }
}

/// The broker's clock beside this machine's, which is read halfway through the round trip.
async fn clock(broker: &SharedBroker) -> Result<Vec<Note>, BrokerError> {
    let mut best: Option<(Duration, Timestamp, Timestamp)> = None;
    for _ in 0..PINGS {
        let (before, sent) = (SystemClock.now(), Instant::now());
        let shown = broker.ping().await?;
        let took = sent.elapsed();
        if best.is_none_or(|(quickest, ..)| took < quickest) {
            best = Some((took, shown, before.plus(took / 2)));
        }
    }
    // Made at least once.
    let Some((took, shown, here)) = best else { return Ok(Vec::new()) };
    let (skew, side) = if shown >= here { (shown.since(here), "ahead of") } else { (here.since(shown), "behind") };
    let what = format!("the broker's is {} ms {side} this machine's (round trip {})", skew.as_millis(), ms(took));
    Ok(vec![if skew > SKEW + took {
        Note::warning(
            "clock",
            what,
            "keep both machines' clocks right (NTP): times of jobs are the broker's, times of log lines the worker's",
        )
    } else {
        Note::ok("clock", what)
    }])
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
