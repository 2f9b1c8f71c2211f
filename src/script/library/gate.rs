//! The last word before a new version goes live, and the rule for sets: what was edited together with a shared module goes
//! live together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Refused, Script, Snapshot, TestFile};
use crate::job::time::SystemClock;
use crate::job::{Clock, JobName, Version};
use crate::script::diagnostics::Fault;

/// What a gate is asked about.
pub struct Candidate<'a> {
    /// All as it would be.
    pub snapshot: &'a Arc<Snapshot>,
    pub script: &'a Arc<Script>,
    /// The version that is live.
    pub before: Option<&'a Arc<Script>>,
    pub tests: Option<&'a TestFile>,
}

/// Says whether a version that passed its checks may go live. Called on a thread that may block.
pub trait Gate: Send + Sync {
    /// # Errors
    /// Why it may not.
    fn admit(&self, candidate: &Candidate<'_>) -> Result<(), Objection>;
}

/// Why a version may not go live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    pub reason: String,
    /// It could not be judged now: it is asked about again at the next look, with nothing changed.
    pub for_now: bool,
}

impl From<String> for Objection {
    fn from(reason: String) -> Self {
        Self { reason, for_now: false }
    }
}

/// What was said of a version and its tests, so that it is not asked at each look.
#[derive(Default)]
pub struct Verdicts(BTreeMap<JobName, Verdict>);

/// On a version with the text of its tests.
struct Verdict {
    version: Version,
    tests: Option<Arc<str>>,
    said: Result<(), Objection>,
}

impl Verdict {
    fn is_open(&self) -> bool {
        self.said.as_ref().is_err_and(|objection| objection.for_now)
    }
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verdicts")
    }
}

impl Verdicts {
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Whether something could not be judged, so that another look is worth it though nothing has changed.
    pub fn is_open(&self) -> bool {
        self.0.values().any(Verdict::is_open)
    }

    /// Takes back what the gate does not admit, and what belongs together with it.
    pub fn judge(
        &mut self,
        gate: Option<&dyn Gate>,
        mut next: Snapshot,
        before: &Snapshot,
        files: &BTreeMap<String, Arc<str>>,
    ) -> Snapshot {
        if let Some(gate) = gate {
            let whole = Arc::new(next.clone());
            for name in new_ones(&next, before) {
                let script = &whole.scripts[&name];
                if let Err(objection) = self.ask(gate, &whole, script, before) {
                    refuse(&mut next, before, &name, &objection.reason);
                }
            }
        }
        together(&mut next, before, files);
        next
    }

    fn ask(
        &mut self,
        gate: &dyn Gate,
        snapshot: &Arc<Snapshot>,
        script: &Arc<Script>,
        before: &Snapshot,
    ) -> Result<(), Objection> {
        let name = &script.job_type.name;
        let (tests, text) = match snapshot.tests.get(name) {
            None => (None, None),
            Some(Ok(file)) => (Some(&**file), Some(Arc::clone(&file.source))),
            Some(Err(faults)) => {
                let cards: Vec<String> =
                    faults.iter().map(|(fault, source)| Fault::card(fault, source, false)).collect();
                return Err(format!("its tests have faults:\n{}", cards.join("\n")).into());
            }
        };
        let version = &script.job_type.version;
        if let Some(known) = self.0.get(name)
            && known.version == *version
            && known.tests == text
            && !known.is_open()
        {
            return known.said.clone();
        }
        let candidate = Candidate { snapshot, script, before: before.scripts.get(name), tests };
        let said = gate.admit(&candidate);
        let verdict = Verdict { version: version.clone(), tests: text, said: said.clone() };
        self.0.insert(name.clone(), verdict);
        said
    }
}

/// Scripts that would go live with another version than before.
fn new_ones(next: &Snapshot, before: &Snapshot) -> Vec<JobName> {
    let version = |snapshot: &Snapshot, name| snapshot.scripts.get(name).map(|script| script.job_type.version.clone());
    next.scripts.keys().filter(|name| version(next, name) != version(before, name)).cloned().collect()
}

/// The version before stays; where there is none, there is none.
fn refuse(next: &mut Snapshot, before: &Snapshot, name: &JobName, reason: &str) {
    let Some(script) = next.scripts.remove(name) else { return };
    if let Some(old) = before.scripts.get(name) {
        next.scripts.insert(name.clone(), Arc::clone(old));
    }
    let version = script.job_type.version.clone();
    let earlier =
        before.refused.iter().find(|known| known.name == *name && known.version == version && known.reason == reason);
    let new = || Refused { name: name.clone(), version, reason: reason.to_owned(), at: SystemClock.now() };
    next.refused.push(earlier.cloned().unwrap_or_else(new));
}

/// A changed module that one of its importers cannot take is taken by none of them.
fn together(next: &mut Snapshot, before: &Snapshot, files: &BTreeMap<String, Arc<str>>) {
    loop {
        let mut changed: BTreeMap<String, JobName> = BTreeMap::new();
        for refused in &next.refused {
            let Some(old) = before.scripts.get(&refused.name) else { continue };
            for (path, text) in &old.modules {
                if files.get(&format!("{path}.rhai")) != Some(text) {
                    changed.entry(path.clone()).or_insert_with(|| refused.name.clone());
                }
            }
        }
        let held: BTreeSet<(JobName, String)> = new_ones(next, before)
            .into_iter()
            .filter_map(|name| {
                let path = next.scripts[&name].modules.keys().find(|path| changed.contains_key(*path))?;
                let reason = format!(
                    "it goes live together with `{}`, which was refused: both import {path}.rhai, which has changed",
                    changed[path]
                );
                Some((name, reason))
            })
            .collect();
        if held.is_empty() {
            return;
        }
        for (name, reason) in held {
            refuse(next, before, &name, &reason);
        }
    }
}
