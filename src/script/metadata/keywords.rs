//! Keywords of JSON Schema that are misspelt. A validator takes them for notes of the author and checks nothing, so nobody
//! would ever hear of them.

use super::{Kind, Literal, Report};
use crate::script::diagnostics::near;

/// Keywords whose value is a schema.
const SCHEMA: [&str; 11] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// … an array of schemas.
const SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// … a map of schemas, by names of the author's.
const NAMED: [&str; 4] = ["$defs", "dependentSchemas", "patternProperties", "properties"];
/// The others of JSON Schema 2020-12.
const OTHER: [&str; 36] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
];

/// Warns of what is near to a keyword, in a schema and in all schemas within it.
pub fn check(schema: &Literal, report: &mut Report) {
    let Kind::Map(entries) = &schema.value else { return };
    for (key, at, value) in entries {
        let key = key.as_str();
        match &value.value {
            _ if SCHEMA.contains(&key) => check(value, report),
            Kind::Array(schemas) if SCHEMAS.contains(&key) => schemas.iter().for_each(|schema| check(schema, report)),
            Kind::Map(named) if NAMED.contains(&key) => named.iter().for_each(|(.., schema)| check(schema, report)),
            _ if SCHEMAS.contains(&key) || NAMED.contains(&key) || OTHER.contains(&key) => {}
            _ => {
                let known = SCHEMA.into_iter().chain(SCHEMAS).chain(NAMED).chain(OTHER);
                // What is near to none is a note of the author's.
                if let Some(hint) = near(key, known) {
                    report.warn(*at, format!("`{key}` is no keyword of JSON Schema and checks nothing"), hint);
                }
            }
        }
    }
}
