//! A payload schema, compiled once per version. JSON Schema 2020-12 without network: only local `$ref`s resolve.

use jsonschema::ValidationError;
use serde::Serialize;
use serde_json::Value;

/// One place where a payload does not fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PayloadFault {
    /// JSON Pointer (RFC 6901) into the payload; empty for the payload itself.
    pub pointer: String,
    pub message: String,
}

/// A schema that cannot be used. The text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(String);

/// A compiled schema.
#[derive(Debug)]
pub struct PayloadSchema(jsonschema::Validator);

/// More faults than this are not listed: the first ones tell what is wrong.
const MAX_FAULTS: usize = 20;
/// A fault's text is cut here, so that a bad megabyte is not answered with a megabyte. Bytes.
const MAX_MESSAGE: usize = 300;

impl PayloadSchema {
    /// # Errors
    /// When `schema` is no JSON Schema, or refers to another document.
    pub fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        build(schema).map(Self).map_err(|error| {
            let at = error.instance_path().to_string();
            let place = if at.is_empty() { String::new() } else { format!(" at {at}") };
            InvalidSchema(format!("the payload schema is not valid{place}: {}", cut(&error.to_string())))
        })
    }

    /// Everything that is wrong with a schema, with the place in it; empty when it compiles.
    #[must_use]
    pub fn faults_of(schema: &Value) -> Vec<PayloadFault> {
        let fault = |error: &ValidationError<'_>| PayloadFault {
            pointer: error.instance_path().to_string(),
            message: cut(&error.to_string()),
        };
        let meta = jsonschema::draft202012::meta::validator();
        let found: Vec<PayloadFault> = meta.iter_errors(schema).take(MAX_FAULTS).map(|error| fault(&error)).collect();
        if !found.is_empty() {
            return found;
        }
        build(schema).err().iter().map(fault).collect()
    }

    /// Where `payload` does not fit; empty when it does.
    #[must_use]
    pub fn faults(&self, payload: &Value) -> Vec<PayloadFault> {
        // The whole is much cheaper to check than to explain, and nearly every payload fits.
        if self.0.is_valid(payload) {
            return Vec::new();
        }
        self.0
            .iter_errors(payload)
            .take(MAX_FAULTS)
            .map(|error| PayloadFault { pointer: error.instance_path().to_string(), message: cut(&error.to_string()) })
            .collect()
    }
}

fn build(schema: &Value) -> Result<jsonschema::Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        // Linear time: a pattern comes from the script, the text from the caller.
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
}

/// Faults in one line.
#[must_use]
pub fn list(faults: &[PayloadFault]) -> String {
    let fault = |fault: &PayloadFault| {
        let place = if fault.pointer.is_empty() { "the payload" } else { fault.pointer.as_str() };
        format!("{place}: {}", fault.message)
    };
    faults.iter().map(fault).collect::<Vec<_>>().join("; ")
}

fn cut(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let end = (0..=MAX_MESSAGE).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn email_schema() -> PayloadSchema {
        PayloadSchema::compile(&json!({
            "type": "object", "required": ["to"], "additionalProperties": false,
            "properties": { "to": { "type": "string", "format": "email" }, "n": { "type": "integer" } },
        }))
        .unwrap()
    }

    #[test]
    fn a_fault_says_where_and_what() {
        assert!(email_schema().faults(&json!({ "to": "ada@example.com" })).is_empty());
        let faults = email_schema().faults(&json!({ "to": "nobody", "n": "1" }));
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(faults.len(), 2);
        assert!(pointers.contains(&"/to") && pointers.contains(&"/n"), "{faults:?}");
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        assert!(PayloadSchema::compile(&json!({ "type": "objekt" })).is_err());
        assert!(PayloadSchema::compile(&json!({ "pattern": "(a" })).is_err());
    }

    #[test]
    fn every_fault_of_a_schema_has_its_place() {
        let faults = PayloadSchema::faults_of(&json!({
            "type": "objekt", "properties": { "a/b": { "minimum": "1" } }, "required": "a",
        }));
        let mut pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/properties/a~1b/minimum", "/required", "/type"]);
        assert!(PayloadSchema::faults_of(&json!({ "type": "object" })).is_empty());
        assert_eq!(PayloadSchema::faults_of(&json!({ "$ref": "#/$defs/nope" })).len(), 1);
    }

    #[test]
    fn another_document_is_never_fetched() {
        let remote = json!({ "$ref": "http://169.254.169.254/schema.json" });
        assert!(PayloadSchema::compile(&remote).is_err());
        let file = json!({ "$ref": "file:///etc/passwd" });
        assert!(PayloadSchema::compile(&file).is_err());
    }

    #[test]
    fn a_local_ref_resolves() {
        let schema = PayloadSchema::compile(&json!({
            "$ref": "#/$defs/name", "$defs": { "name": { "type": "string" } },
        }))
        .unwrap();
        assert!(schema.faults(&json!("x")).is_empty());
        assert_eq!(schema.faults(&json!(1)).len(), 1);
    }

    #[test]
    fn a_huge_value_is_not_answered_whole() {
        let faults = email_schema().faults(&json!({ "to": "x".repeat(100_000) }));
        assert!(faults[0].message.len() < 400);
    }
}
