//! What is wrong with the configuration, for people: every fault at once, each with the variable, what was given
//! (masked where it could be a secret), what is wrong with it and what is accepted.

use std::fmt;

/// One variable that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable, or the file when it is the file that cannot be read.
    pub subject: String,
    /// What was given, already masked and escaped; `None` when it is missing or when the fault is not its value.
    pub given: Option<String>,
    /// Where the value came from: `.env.local`, or `environment`.
    pub origin: Option<String>,
    pub problem: String,
    pub accepted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(given) = &self.given {
            write!(f, "={given}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}; accepted: {}", self.problem, self.accepted)
    }
}

/// All faults of a configuration. Displays as a list, one fault a line, without a line end after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.faults.len() == 1 { "" } else { "s" };
        write!(f, "{} fault{plural} in the configuration:", self.faults.len())?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A given text for one line of an error: control characters escaped, cut at 80 characters.
pub(super) fn shown(text: &str) -> String {
    let escaped: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() { escaped + "…" } else { escaped }
}
