//! Templates of a jobs folder.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of templates that compiled.
#[derive(Debug, Default)]
pub struct Templates {}

/// Why a template does not compile.
#[derive(Debug, Clone)]
pub struct TemplateFault {
    pub name: String,
    pub line: Option<usize>,
    pub message: String,
}

impl Templates {
    /// # Errors
    /// One fault per template that does not compile.
    pub fn new(_sources: BTreeMap<String, Arc<str>>) -> Result<Self, Vec<TemplateFault>> {
        Ok(Self {})
    }
}
