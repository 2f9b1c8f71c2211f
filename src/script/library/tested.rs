//! Test files: `NAME.test.rhai` beside `NAME.rhai`. They are never job types; each of their `fn test_…()` is run as if it
//! were a job of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhai::Position;
use serde_json::Value;

use super::{Build, Script};
use crate::job::{JobName, JobSpec, JobType, PayloadSchema, Version};
use crate::script::diagnostics::Fault;
use crate::script::metadata;
use crate::script::services::templates::Templates;

/// Bytes that a test may hold: the results of its jobs too.
const MEMORY: u64 = 256 << 20;

/// One test file that compiles.
#[derive(Debug)]
pub struct TestFile {
    /// The job that it is about.
    pub name: JobName,
    /// `NAME.test.rhai`.
    pub file: String,
    pub source: Arc<str>,
    /// Its test functions, in the order of the file.
    pub tests: Vec<String>,
    modules: BTreeMap<String, Arc<str>>,
    templates: Arc<Templates>,
}

impl TestFile {
    /// One of its tests as a script.
    ///
    /// # Panics
    /// Never: `true` is a schema.
    #[must_use]
    pub fn script(&self, test: &str, timeout: Duration) -> Arc<Script> {
        let spec = JobSpec { timeout, memory: MEMORY, max_attempts: 1, ..JobSpec::default() };
        let version = Version::of(&[self.source.as_bytes(), test.as_bytes()]);
        Arc::new(Script {
            job_type: JobType { name: self.name.clone(), version, description: String::new(), spec },
            file: self.file.clone(),
            source: Arc::clone(&self.source),
            modules: self.modules.clone(),
            templates: Arc::clone(&self.templates),
            test: Some(test.to_owned()),
            schema: PayloadSchema::compile(&Value::Bool(true)).expect("a schema"),
        })
    }
}

impl Build<'_> {
    pub(super) fn read_test(
        &self,
        name: JobName,
        file: &str,
        source: &Arc<str>,
        templates: &Arc<Templates>,
    ) -> Result<TestFile, Vec<Fault>> {
        let ast = self.parse(file, source)?;
        let mut faults = metadata::check_test(file, &ast).err().unwrap_or_default();
        faults.extend(self.calls(file, source, &ast, true).faults);
        let (imports, more) = metadata::imports(file, &ast);
        faults.extend(more);
        let modules = self.closure(file, &imports, &mut faults);
        let mut tests = Vec::new();
        for function in ast.iter_functions().filter(|function| function.name.starts_with("test_")) {
            if function.params.is_empty() {
                tests.push(function.name.to_owned());
            } else {
                let message = format!("`fn {}` has parameters, which nobody gives to a test", function.name);
                faults.push(Fault::new(file, metadata::place_of(source, function.name), message));
            }
        }
        tests.sort_by_key(|test| source.find(&format!("fn {test}(")));
        if tests.is_empty() && faults.is_empty() {
            let fault = Fault::new(file, Position::NONE, "there is no test in this file");
            faults.push(fault.with_hint("a test is a function such as `fn test_sends_mail() { … }`"));
        }
        if !faults.is_empty() {
            faults.sort_by_key(|fault| (fault.line, fault.column));
            return Err(faults);
        }
        let (file, source) = (file.to_owned(), Arc::clone(source));
        Ok(TestFile { name, file, source, tests, modules, templates: Arc::clone(templates) })
    }
}
