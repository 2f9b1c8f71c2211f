//! What a new version of a script must pass before it goes live here: its own tests, and the payloads of jobs that already
//! wait for it.

use futures_util::FutureExt;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::broker::{Filter, SharedBroker};
use crate::job::{Job, State, schema};
use crate::script::diagnostics::error_card;
use crate::script::library::{Candidate, Gate, Objection};
use crate::script::testing::{TestOptions, run_test};

/// Waiting jobs that are looked at, of each state.
const SAMPLE: usize = 100;

pub struct ReloadGate {
    pub broker: SharedBroker,
    pub tests: TestOptions,
}

impl Gate for ReloadGate {
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), Objection> {
        if let Some(file) = candidate.tests {
            for test in &file.tests {
                let end = run_test(candidate.snapshot, file, test, &self.tests);
                if let Some(error) = end.failure {
                    return Err(format!("its test {test} fails:\n{}", error_card(&error)).into());
                }
            }
        }
        let spec = &candidate.script.job_type.spec;
        let same_schema = candidate.before.is_some_and(|before| before.job_type.spec.schema == spec.schema);
        if same_schema { Ok(()) } else { self.takes_what_waits(candidate) }
    }
}

impl ReloadGate {
    /// Jobs that were accepted must not fail because their script was edited since.
    fn takes_what_waits(&self, candidate: &Candidate<'_>) -> Result<(), Objection> {
        let name = &candidate.script.job_type.name;
        let mut waiting: Vec<Job> = Vec::new();
        for state in [State::Queued, State::Scheduled] {
            let filter = Filter { state: Some(state), name: Some(name.clone()), limit: SAMPLE, ..Filter::default() };
            let listed = Handle::block_on(&self.tests.runtime, self.broker.list(&filter).boxed());
            let page = listed.map_err(|problem| Objection {
                reason: format!("the jobs that wait for it could not be looked at: {problem}"),
                for_now: true,
            })?;
            waiting.extend(page.jobs);
        }
        let unfit = |job: &Job| {
            let payload: Value = serde_json::from_str(job.payload.get()).ok()?;
            let faults = candidate.script.schema().faults(&payload);
            (!faults.is_empty()).then(|| (job.id, schema::list(&faults)))
        };
        let faults: Vec<_> = waiting.iter().filter_map(unfit).collect();
        match faults.first() {
            None => Ok(()),
            Some((id, why)) => Err(format!(
                "its payload schema does not take {} of the {} waiting jobs that were looked at, such as {id}: {why}",
                faults.len(),
                waiting.len()
            )
            .into()),
        }
    }
}
