//! The job types as the server knows them: the live version of each, with its schema compiled once. Looks at the
//! broker when types change, each second, and at once when a type is asked for that it does not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::problem::{Answer, Code, Problem, cut};
use crate::broker::{self, SharedBroker, Topic};
use crate::job::{JobType, PayloadSchema};
use crate::shutdown::Shutdown;

/// The live version of one type.
pub struct LiveType {
    pub job_type: JobType,
    schema: Result<PayloadSchema, String>,
}

impl LiveType {
    fn new(job_type: JobType) -> Self {
        let schema = PayloadSchema::compile(&job_type.spec.schema).map_err(|error| error.to_string());
        Self { job_type, schema }
    }

    /// Fails only when a worker published what its own check would have refused.
    pub fn schema(&self) -> Answer<&PayloadSchema> {
        self.schema.as_ref().map_err(|error| {
            Problem::internal(format!("the schema of {} {}: {error}", self.job_type.name, self.job_type.version))
        })
    }
}

pub struct Catalog {
    broker: SharedBroker,
    known: ArcSwap<Known>,
    looking: Mutex<()>,
}

struct Known {
    types: HashMap<String, Arc<LiveType>>,
    /// When the look that found them began; none before the first.
    as_of: Option<Instant>,
}

/// Between two looks without a reason.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at least, however often the broker wakes us: a wake-up may be about something else.
const PAUSE: Duration = Duration::from_millis(50);

impl Catalog {
    pub fn new(broker: SharedBroker) -> Self {
        let known = Known { types: HashMap::new(), as_of: None };
        Self { broker, known: ArcSwap::from_pointee(known), looking: Mutex::new(()) }
    }

    /// The live version of a type; 404 with near names when there is none.
    pub async fn live(&self, name: &str) -> Answer<Arc<LiveType>> {
        if let Some(live) = self.known.load().types.get(name) {
            return Ok(live.clone());
        }
        self.look(Instant::now()).await?;
        let known = self.known.load();
        known.types.get(name).cloned().ok_or_else(|| unknown(name, known.types.keys().map(String::as_str)))
    }

    /// Looks at the broker, unless somebody else began to do so after `since`.
    async fn look(&self, since: Instant) -> broker::Result<()> {
        let _alone = self.looking.lock().await;
        let known = self.known.load();
        if known.as_of.is_some_and(|as_of| as_of >= since) {
            return Ok(());
        }
        let as_of = Some(Instant::now());
        let types = self.broker.job_types().await?.into_iter().map(|info| {
            let job_type = info.job_type;
            let same = known.types.get(job_type.name.as_str()).filter(|live| live.job_type.version == job_type.version);
            (job_type.name.to_string(), same.cloned().unwrap_or_else(|| Arc::new(LiveType::new(job_type))))
        });
        self.known.store(Arc::new(Known { types: types.collect(), as_of }));
        Ok(())
    }

    /// Looks again and again until `shutdown`.
    pub async fn keep_fresh(&self, shutdown: &Shutdown) {
        let mut changes = self.broker.changes(Topic::JobTypes);
        let mut failing = false;
        loop {
            changes.borrow_and_update();
            let looked = self.look(Instant::now()).await;
            match &looked {
                Err(error) if !failing => tracing::warn!(%error, "cannot read the job types"),
                _ => {}
            }
            failing = looked.is_err();
            let again = async {
                tokio::time::sleep(PAUSE).await;
                drop(tokio::time::timeout(LOOK_EVERY, changes.changed()).await);
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = again => {}
            }
        }
    }
}

/// The answer for a name that no type has.
pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let mut near: Vec<(f64, &str)> = known
        .map(|other| (strsim::jaro_winkler(&name.to_ascii_lowercase(), other), other))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let near: Vec<String> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let hint = if near.is_empty() {
        "GET /v1/job-types lists those there are".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Problem::new(Code::UnknownJobType, format!("there is no job type `{}`; {hint}", cut(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_answered_with_near_names() {
        let known = || ["email", "report", "long_task"].into_iter();
        assert!(unknown("emial", known()).detail.ends_with("did you mean `email`?"));
        assert!(unknown("Report", known()).detail.ends_with("did you mean `report`?"));
        assert!(unknown("zzz", known()).detail.ends_with("lists those there are"));
        assert!(unknown(&"x".repeat(100_000), known()).detail.len() < 700);
    }
}
