//! The scripts of a jobs folder: loaded, checked, hashed, and swapped as one immutable snapshot.
//!
//! Holds sources and metadata only, so it crosses threads; each executor thread compiles for itself. What fails its
//! checks never replaces what runs: the good version stays, and the fault is shown. A run keeps the `Arc<Script>` that it
//! began with to its end.

mod circles;
mod folder;
mod gate;
mod tested;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rhai::{AST, Engine, OptimizationLevel, Position};
use tokio::sync::watch as signal;

use self::folder::{Contents, STANDS_STILL};
use self::gate::Verdicts;
pub use self::gate::{Candidate, Gate, Objection};
pub use self::tested::TestFile;
use super::calls::{self, Found, Functions, Reach, Subject};
use super::diagnostics::{Fault, near};
use super::services::templates::Templates;
use super::{engine, metadata};
use crate::job::spec::Allow;
use crate::job::time::SystemClock;
use crate::job::{Clock, JobName, JobType, PayloadSchema, Timestamp, Version};

/// A reload waits this long for files that are being written.
const SETTLES: Duration = Duration::from_secs(5);

/// One version of one job script, with all it needs to run.
#[derive(Debug)]
pub struct Script {
    pub job_type: JobType,
    /// `NAME.rhai`.
    pub file: String,
    pub source: Arc<str>,
    /// Every module it imports, directly or through others: path without `.rhai` → source.
    pub modules: BTreeMap<String, Arc<str>>,
    pub templates: Arc<Templates>,
    /// The function of a test file that is called, in place of `run(job)`.
    pub test: Option<String>,
    schema: PayloadSchema,
}

impl Script {
    #[must_use]
    pub fn schema(&self) -> &PayloadSchema {
        &self.schema
    }

    /// The text of the script's own file or of one of its modules.
    #[must_use]
    pub fn source_of(&self, file: &str) -> Option<&str> {
        if file == self.file {
            return Some(&self.source);
        }
        self.modules.get(file.strip_suffix(".rhai")?).map(AsRef::as_ref)
    }
}

/// A version that did not pass its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub name: JobName,
    pub version: Version,
    /// The error cards of all its faults.
    pub reason: String,
    pub at: Timestamp,
}

/// A fault, with the text of the file it is in.
pub type Located = (Fault, Arc<str>);

/// What is live now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub scripts: BTreeMap<JobName, Arc<Script>>,
    pub refused: Vec<Refused>,
    /// The files `NAME.test.rhai`, by name, or what is wrong with them.
    pub tests: BTreeMap<JobName, Result<Arc<TestFile>, Vec<Located>>>,
    /// Every fault in the folder, scripts, modules and templates alike, with the text of the file it is in.
    pub faults: Vec<Located>,
    /// What is worth a look and keeps nothing from running.
    pub warnings: Vec<Located>,
}

/// A jobs folder, live.
pub struct Library {
    dir: PathBuf,
    live: ArcSwap<Snapshot>,
    contents: Mutex<(Contents, Verdicts)>,
    gate: OnceLock<Box<dyn Gate>>,
    changes: signal::Sender<u64>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Library {
    /// Loads a folder. Faults of scripts are no error: see [`Snapshot::faults`].
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn load(dir: &Path) -> std::io::Result<Arc<Self>> {
        let contents = Contents::read(dir)?;
        let snapshot = build(&contents, &Snapshot::default());
        Ok(Arc::new(Self {
            dir: std::path::absolute(dir)?,
            live: ArcSwap::from_pointee(snapshot),
            contents: Mutex::new((contents, Verdicts::default())),
            gate: OnceLock::new(),
            changes: signal::Sender::new(0),
        }))
    }

    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// Counts the swaps.
    #[must_use]
    pub fn changes(&self) -> signal::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks at the folder and takes what has stood still long enough; `renamed` files are taken at once. Answers
    /// whether something is still moving, so that another look is worth it soon.
    ///
    /// # Errors
    /// When the folder cannot be read; what is live stays.
    pub fn look(&self, now: Instant, renamed: &BTreeSet<String>) -> std::io::Result<bool> {
        self.take(now, renamed, false)
    }

    /// Has what passed its checks judged by `gate` before it goes live. Set once; what is live already stays, until
    /// [`Self::judge_start`].
    pub fn judge_by(&self, gate: Box<dyn Gate>) {
        // Only the first one counts.
        let _ = self.gate.set(gate);
    }

    /// Looks until nothing moves any more, and asks the gate again about what it has refused. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read; what is live stays.
    pub fn reload(&self) -> std::io::Result<()> {
        let until = Instant::now() + SETTLES;
        let mut again = true;
        while self.take(Instant::now(), &BTreeSet::new(), std::mem::take(&mut again))? && Instant::now() < until {
            std::thread::sleep(STANDS_STILL / 2);
        }
        Ok(())
    }

    fn take(&self, now: Instant, renamed: &BTreeSet<String>, again: bool) -> std::io::Result<bool> {
        let mut locked = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, verdicts) = &mut *locked;
        let changed = contents.look(&self.dir, now, renamed)?;
        if again {
            verdicts.forget();
        }
        if changed || again || verdicts.is_open() {
            let before = self.live.load_full();
            let next = build(contents, &before);
            let next = verdicts.judge(self.gate(), next, &before, &contents.accepted);
            report(&before, &next);
            self.live.store(Arc::new(next));
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(contents.is_moving())
    }

    /// Has the gate judge what was loaded at the start as well, but for the versions that were `known` before: those went
    /// live once. What is refused is not there, since there is no version before. Answers whether all could be judged. Blocks.
    pub fn judge_start(&self, known: &BTreeMap<JobName, Version>) -> bool {
        let mut locked = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, verdicts) = &mut *locked;
        let loaded = self.live.load_full();
        let mut before = Snapshot::clone(&loaded);
        before.scripts.retain(|name, script| known.get(name) == Some(&script.job_type.version));
        let next = verdicts.judge(self.gate(), Snapshot::clone(&loaded), &before, &contents.accepted);
        report(&before, &next);
        self.live.store(Arc::new(next));
        self.changes.send_modify(|count| *count += 1);
        !verdicts.is_open()
    }

    fn gate(&self) -> Option<&dyn Gate> {
        self.gate.get().map(AsRef::as_ref)
    }
}

/// Says what a swap changed.
fn report(before: &Snapshot, after: &Snapshot) {
    for (name, script) in &after.scripts {
        let old = before.scripts.get(name).map(|old| &old.job_type.version);
        if old != Some(&script.job_type.version) {
            tracing::info!(job_name = %name, script_version = %script.job_type.version, "script loaded");
        }
    }
    for name in before.scripts.keys().filter(|name| !after.scripts.contains_key(*name)) {
        tracing::warn!(job_name = %name, "script removed: its jobs wait until it is back");
    }
    for refused in after.refused.iter().filter(|refused| !before.refused.contains(refused)) {
        tracing::error!(
            job_name = %refused.name, script_version = %refused.version,
            "script refused, {}:\n{}",
            if after.scripts.contains_key(&refused.name) { "the version before stays live" } else { "its jobs wait" },
            refused.reason
        );
    }
}

/// Everything about one build of a snapshot.
struct Build<'a> {
    files: &'a BTreeMap<String, Arc<str>>,
    /// Without optimisation, so that places are exact.
    checker: Engine,
    /// As executor threads have it.
    engine: Engine,
    /// Module path → what it imports, or its faults.
    modules: BTreeMap<String, Result<Vec<String>, Vec<Fault>>>,
    /// Module path → what others may call of it, and what it reaches.
    callable: BTreeMap<String, Functions>,
    reach: BTreeMap<String, Reach>,
    faults: Vec<Located>,
    warnings: Vec<Located>,
}

fn build(contents: &Contents, before: &Snapshot) -> Snapshot {
    let files = &contents.accepted;
    let mut checker = engine::build();
    checker.set_optimization_level(OptimizationLevel::None);
    let mut build = Build {
        files,
        checker,
        engine: engine::build(),
        modules: BTreeMap::new(),
        callable: BTreeMap::new(),
        reach: BTreeMap::new(),
        faults: Vec::new(),
        warnings: Vec::new(),
    };
    build.read_modules();
    let templates = build.read_templates(before);
    let mut next = Snapshot::default();
    for (file, source) in files.iter().filter(|(file, _)| !file.contains('/')) {
        let Some(stem) = file.strip_suffix(".rhai") else { continue };
        if let Some(name) = stem.strip_suffix(".test").and_then(|name| JobName::new(name).ok()) {
            let read = build.read_test(name.clone(), file, source, &templates);
            next.tests.insert(name, read.map(Arc::new).map_err(|faults| build.with_sources(faults)));
            continue;
        }
        let name = match JobName::new(stem) {
            Ok(name) => name,
            Err(error) => {
                let fault = Fault::new(file, Position::NONE, error.to_string());
                build.faults.push((fault, Arc::clone(source)));
                continue;
            }
        };
        let old = before.scripts.get(&name);
        match build.read_script(&name, file, source, &templates) {
            Ok(script) => {
                next.scripts.insert(name, script);
            }
            Err((version, faults)) => {
                let earlier = before.refused.iter().find(|known| known.name == name && known.version == version);
                next.refused.push(earlier.cloned().unwrap_or_else(|| Refused {
                    name: name.clone(),
                    version,
                    reason: build.cards(&faults),
                    at: SystemClock.now(),
                }));
                build.add_faults(faults);
                // The good version stays, with the templates of now.
                next.scripts.extend(old.map(|old| (name, Arc::clone(old))));
            }
        }
    }
    build.add_left_out(contents, &mut next);
    for name in next.tests.keys().filter(|name| !files.contains_key(&format!("{name}.rhai"))) {
        let file = format!("{name}.test.rhai");
        let fault = Fault::new(&file, Position::NONE, format!("there is no {name}.rhai that these tests are of"));
        build.warnings.push((fault, build.source(&file)));
    }
    next.faults = build.faults;
    next.warnings = build.warnings;
    next
}

impl Build<'_> {
    fn source(&self, file: &str) -> Arc<str> {
        self.files.get(file).cloned().unwrap_or_else(|| "".into())
    }

    fn with_sources(&self, faults: Vec<Fault>) -> Vec<Located> {
        faults
            .into_iter()
            .map(|fault| (self.source(&fault.file), fault))
            .map(|(source, fault)| (fault, source))
            .collect()
    }

    fn add_faults(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            let source = self.source(&fault.file);
            if !self.faults.iter().any(|(known, _)| *known == fault) {
                self.faults.push((fault, source));
            }
        }
    }

    /// Files that could not be read as text. What has no good version is no job type, and says why.
    fn add_left_out(&mut self, contents: &Contents, next: &mut Snapshot) {
        for (file, out) in &contents.left_out {
            let place = out.place.and_then(|(line, column)| Some((line.try_into().ok()?, column.try_into().ok()?)));
            let at = place.map_or(Position::NONE, |(line, column)| Position::new(line, column));
            let (fault, source) = (Fault::new(file, at, out.why.clone()), out.text.clone().unwrap_or_default());
            let name = file.strip_suffix(".rhai").and_then(|stem| JobName::new(stem).ok());
            if let Some(name) = name.filter(|_| !contents.accepted.contains_key(file)) {
                let reason = fault.card(&source, false);
                let version = Version::of(&[reason.as_bytes()]);
                next.refused.push(Refused { name, version, reason, at: SystemClock.now() });
            }
            self.faults.push((fault, source));
        }
    }

    fn cards(&self, faults: &[Fault]) -> String {
        faults.iter().map(|fault| fault.card(&self.source(&fault.file), false)).collect::<Vec<_>>().join("\n")
    }

    /// Compiles without optimising; the AST is for reading only.
    fn parse(&self, file: &str, source: &str) -> Result<AST, Vec<Fault>> {
        if source.trim().is_empty() {
            return Err(vec![Fault::new(file, Position::NONE, "the file is empty")]);
        }
        engine::compile(&self.checker, file, source).map_err(|error| vec![Fault::parse(file, source, &error)])
    }

    fn read_modules(&mut self) {
        let files = self.files.iter().filter(|(file, _)| file.starts_with("lib/") && file.ends_with(".rhai"));
        let path = |file: &str| file.trim_end_matches(".rhai").to_owned();
        let parsed: Vec<_> = files.map(|(file, source)| (file, self.parse(file, source))).collect();
        for (file, ast) in parsed.iter().filter_map(|(file, ast)| Some((file, ast.as_ref().ok()?))) {
            self.callable.insert(path(file), calls::functions_of(ast));
            self.reach.insert(path(file), Reach::of(ast));
        }
        let circles = circles::faults(&parsed);
        let mut modules = BTreeMap::new();
        let mut warnings = Vec::new();
        for (file, ast) in parsed {
            let imports = ast.and_then(|ast| {
                let mut faults = metadata::check_module(file, &ast).err().unwrap_or_default();
                let found = self.calls(file, &self.files[file], &ast, false);
                faults.extend(found.faults);
                warnings.extend(found.warnings);
                let (imports, more) = metadata::imports(file, &ast);
                faults.extend(more);
                faults.extend(circles.iter().filter(|fault| fault.file == *file).cloned());
                if faults.is_empty() { Ok(imports.into_iter().map(|(path, _)| path).collect()) } else { Err(faults) }
            });
            modules.insert(path(file), imports);
        }
        let faults = modules.values().filter_map(|read| read.as_ref().err()).flatten().cloned().collect();
        self.modules = modules;
        self.add_faults(faults);
        let warnings = self.with_sources(warnings);
        self.warnings.extend(warnings);
    }

    fn calls(&self, file: &str, source: &str, ast: &AST, is_test: bool) -> Found {
        Subject { file, source, ast, modules: &self.callable, is_test }.look()
    }

    /// The templates of now, or the ones before when a template of now does not compile.
    fn read_templates(&mut self, before: &Snapshot) -> Arc<Templates> {
        let sources: BTreeMap<String, Arc<str>> = self
            .files
            .iter()
            .filter_map(|(file, source)| Some((file.strip_prefix("templates/")?.to_owned(), Arc::clone(source))))
            .collect();
        match Templates::new(sources) {
            Ok(templates) => Arc::new(templates),
            Err(errors) => {
                let faults = errors
                    .into_iter()
                    .map(|error| {
                        let at = error.line.and_then(|line| u16::try_from(line).ok());
                        let at = at.map_or(Position::NONE, |line| Position::new(line, 1));
                        Fault::new(&format!("templates/{}", error.name), at, error.message)
                    })
                    .collect();
                self.add_faults(faults);
                before.scripts.values().next().map_or_else(Arc::default, |script| Arc::clone(&script.templates))
            }
        }
    }

    /// One script, checked; on a fault its version, so that it can be named, and all its faults.
    fn read_script(
        &mut self,
        name: &JobName,
        file: &str,
        source: &Arc<str>,
        templates: &Arc<Templates>,
    ) -> Result<Arc<Script>, (Version, Vec<Fault>)> {
        let alone = || Version::of(&[source.as_bytes()]);
        let ast = self.parse(file, source).map_err(|faults| (alone(), faults))?;
        let mut faults = Vec::new();
        let (imports, more) = metadata::imports(file, &ast);
        faults.extend(more);
        let modules = self.closure(file, &imports, &mut faults);
        let mut parts = vec![source.as_bytes()];
        parts.extend(modules.iter().flat_map(|(path, source)| [path.as_bytes(), source.as_bytes()]));
        let version = Version::of(&parts);
        let said = metadata::read(file, source, &ast);
        let spec = said.spec.unwrap_or_else(|more| {
            faults.extend(more);
            crate::job::JobSpec::default()
        });
        let found = self.calls(file, source, &ast, false);
        faults.extend(found.faults);
        let warnings = said.warnings.into_iter().chain(found.warnings);
        self.warnings.extend(warnings.map(|fault| (fault, Arc::clone(source))));
        let reach = Reach::of(&ast);
        faults.extend(reach.outside(file, &spec.allow));
        self.warn_of_reach(file, &reach, modules.keys(), &spec.allow);
        // What threads will compile must compile: the optimiser finds faults of its own.
        if let (true, Err(error)) = (faults.is_empty(), engine::compile(&self.engine, file, source)) {
            faults.push(Fault::parse(file, source, &error));
        }
        let of_modules = modules.keys().filter_map(|path| self.reach.get(path));
        let reaches: Vec<&Reach> = of_modules.chain([&reach]).collect();
        for (key, entry) in Reach::unused(&reaches, &spec.allow) {
            let at = metadata::place_of_entry(&ast, key, &entry);
            let fault = Fault::new(file, at, format!("`{entry}` in `allow.{key}` is not used"));
            self.warnings.push((
                fault.with_hint("what a script does not need it should not be able to reach"),
                Arc::clone(source),
            ));
        }
        let schema = PayloadSchema::compile(&spec.schema);
        match schema {
            Ok(schema) if faults.is_empty() => Ok(Arc::new(Script {
                job_type: JobType { name: name.clone(), version, description: description(ast.doc()), spec },
                file: file.to_owned(),
                source: Arc::clone(source),
                modules,
                templates: Arc::clone(templates),
                test: None,
                schema,
            })),
            Ok(_) | Err(_) => Err((version, faults)),
        }
    }

    /// What may be meant for others: what a module reaches, of which this script may not use all, and child jobs that
    /// other workers may know.
    fn warn_of_reach<'b>(
        &mut self,
        file: &str,
        reach: &Reach,
        modules: impl Iterator<Item = &'b String>,
        allow: &Allow,
    ) {
        let known: Vec<&str> = self.files.keys().filter_map(|file| file.strip_suffix(".rhai")).collect();
        let mut warnings = reach.unknown_jobs(file, &known);
        for (path, reach) in modules.filter_map(|path| Some((path, self.reach.get(path)?))) {
            for mut fault in reach.outside(&format!("{path}.rhai"), allow) {
                fault.message = fault.message.replace("the script's", &format!("{file}'s"));
                warnings.push(fault);
            }
        }
        let located = self.with_sources(warnings);
        self.warnings.extend(located);
    }

    /// All modules that a script needs. A module that is not there or is faulty is a fault of the script too.
    fn closure(
        &self,
        file: &str,
        imports: &[(String, Position)],
        faults: &mut Vec<Fault>,
    ) -> BTreeMap<String, Arc<str>> {
        let mut found = BTreeMap::new();
        for (path, at) in imports {
            let mut open = vec![path.clone()];
            while let Some(path) = open.pop() {
                if found.contains_key(&path) {
                    continue;
                }
                match self.modules.get(&path) {
                    Some(Ok(imports)) => {
                        found.insert(path.clone(), self.source(&format!("{path}.rhai")));
                        open.extend(imports.iter().cloned());
                    }
                    Some(Err(theirs)) => {
                        let new: Vec<Fault> = theirs.iter().filter(|fault| !faults.contains(fault)).cloned().collect();
                        faults.extend(new);
                    }
                    None => {
                        let mut fault = Fault::new(file, *at, format!("there is no module `{path}`"));
                        fault.hint = near(&path, self.modules.keys().map(String::as_str))
                            .or_else(|| Some(format!("it would be the file jobs/{path}.rhai")));
                        faults.push(fault);
                    }
                }
            }
        }
        found
    }
}

/// The `//!` text without its marks.
fn description(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests;
