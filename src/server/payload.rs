//! A payload's JSON text, looked at before any value is built from it: its depth, and numbers that a script could not
//! hold. Takes text that is JSON already; knows no schema.

use std::ops::Range;

use crate::job::PayloadFault;

/// One step from the payload to the place that is looked at.
enum Step {
    Item(usize),
    /// Where the member's name stands in the text, quotes included; and whether the next string is a name.
    Member {
        name: Range<usize>,
        name_next: bool,
    },
}

/// The first place where `text` is nested deeper than `max_depth` (a scalar has depth 0) or has a number that does not
/// fit: integers must fit an `i64`, others a finite `f64`.
pub fn first_fault(text: &str, max_depth: usize) -> Option<PayloadFault> {
    let bytes = text.as_bytes();
    let mut path: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b'{' => path.push(Step::Member { name: 0..0, name_next: true }),
            b'[' => path.push(Step::Item(0)),
            b'}' | b']' => {
                path.pop();
            }
            b',' => match path.last_mut() {
                Some(Step::Item(index)) => *index += 1,
                Some(Step::Member { name_next, .. }) => *name_next = true,
                None => {}
            },
            b'"' => {
                at = end_of_string(bytes, at);
                if let Some(Step::Member { name, name_next: name_next @ true }) = path.last_mut() {
                    (*name, *name_next) = (begin..at, false);
                }
            }
            b'-' | b'0'..=b'9' => {
                at = bytes[at..]
                    .iter()
                    .position(|c| !matches!(c, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                    .map_or(bytes.len(), |length| at + length);
                if let Some(message) = number_fault(&text[begin..at]) {
                    return Some(PayloadFault { pointer: pointer(text, &path), message });
                }
            }
            _ => {}
        }
        if path.len() > max_depth {
            path.pop();
            let message = format!("nested too deeply: at most {max_depth} levels of arrays and objects are accepted");
            return Some(PayloadFault { pointer: pointer(text, &path), message });
        }
    }
    None
}

/// Just after the closing quote of the string whose inside begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn number_fault(number: &str) -> Option<String> {
    if number.contains(['.', 'e', 'E']) {
        let fits = number.parse::<f64>().is_ok_and(f64::is_finite);
        return (!fits).then(|| "the number is out of range: it must fit a 64-bit float".to_owned());
    }
    number.parse::<i64>().is_err().then(|| {
        format!("the integer is out of range: it must be from {} to {}; send it as a string", i64::MIN, i64::MAX)
    })
}

/// RFC 6901.
fn pointer(text: &str, path: &[Step]) -> String {
    let mut pointer = String::new();
    for step in path {
        pointer.push('/');
        match step {
            Step::Item(index) => pointer.push_str(&index.to_string()),
            Step::Member { name, .. } => {
                let name: String = serde_json::from_str(&text[name.clone()]).unwrap_or_default();
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pointer_of(text: &str) -> Option<String> {
        first_fault(text, 4).map(|fault| fault.pointer)
    }

    #[test]
    fn integers_outside_64_bits_are_found_where_they_stand() {
        assert_eq!(pointer_of(r#"{"a": [1, {"b/c~": 9223372036854775808}]}"#).as_deref(), Some("/a/1/b~1c~0"));
        assert_eq!(pointer_of("-9223372036854775809").as_deref(), Some(""));
        assert_eq!(pointer_of(r#"[0, {"x":1,"y\"":"9e999"}, 1e999]"#).as_deref(), Some("/2"));
        for fine in
            ["9223372036854775807", "-9223372036854775808", "-0", "1e300", "12345678901234567890.0", "\"1e999\""]
        {
            assert_eq!(pointer_of(fine), None, "{fine}");
        }
    }

    #[test]
    fn depth_is_counted_as_nesting() {
        assert_eq!(pointer_of("[[[[1]]]]"), None);
        assert_eq!(pointer_of(r#"[0,{"a":[[[]]]}]"#).as_deref(), Some("/1/a/0/0"));
        assert_eq!(pointer_of(r#""[[[[[[""#), None);
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(first_fault(&deep, 64).is_some());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(|n| json!(n)),
            ".*".prop_map(|text| json!(text)),
            any::<bool>().prop_map(|b| json!(b)),
            Just(json!(u64::MAX)),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The pointer leads, by another implementation, to a number that does not fit; and without one there is none.
        #[test]
        fn the_pointer_leads_to_the_fault(value in any_json()) {
            fn has_big(value: &Value) -> bool {
                match value {
                    Value::Number(number) => number.as_i64().is_none(),
                    Value::Array(items) => items.iter().any(has_big),
                    Value::Object(members) => members.values().any(has_big),
                    _ => false,
                }
            }
            match first_fault(&value.to_string(), 64) {
                Some(fault) => prop_assert_eq!(value.pointer(&fault.pointer), Some(&json!(u64::MAX))),
                None => prop_assert!(!has_big(&value)),
            }
        }
    }
}
