//! Whether two script values are the same, and where they first differ.

use rhai::{Array, Blob, Dynamic, Map};

/// Nesting that is looked into; what is deeper counts as equal by its text.
const MAX_DEPTH: usize = 64;

/// Where `left` and `right` differ: the path to the first difference, empty for the values themselves. None when they
/// are the same. Integers and floats are the same when their numbers are.
pub fn difference(left: &Dynamic, right: &Dynamic) -> Option<String> {
    differ(left, right, 0)
}

fn differ(left: &Dynamic, right: &Dynamic, depth: usize) -> Option<String> {
    if depth < MAX_DEPTH {
        if let (Some(left), Some(right)) = (left.read_lock::<Map>(), right.read_lock::<Map>()) {
            let keys = left.keys().chain(right.keys());
            return keys.into_iter().find_map(|key| {
                let inner = match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => differ(left, right, depth + 1)?,
                    _ => String::new(),
                };
                Some(format!(".{key}{inner}"))
            });
        }
        if let (Some(left), Some(right)) = (left.read_lock::<Array>(), right.read_lock::<Array>()) {
            return (0..left.len().max(right.len())).find_map(|index| {
                let inner = match (left.get(index), right.get(index)) {
                    (Some(left), Some(right)) => differ(left, right, depth + 1)?,
                    _ => String::new(),
                };
                Some(format!("[{index}]{inner}"))
            });
        }
        if let (Some(left), Some(right)) = (left.read_lock::<Blob>(), right.read_lock::<Blob>()) {
            return (*left != *right).then(String::new);
        }
    }
    (!same_scalar(left, right)).then(String::new)
}

#[expect(clippy::cast_precision_loss, reason = "as Rhai compares an integer with a float")]
fn same_scalar(left: &Dynamic, right: &Dynamic) -> bool {
    match (left.as_int(), right.as_int(), left.as_float(), right.as_float()) {
        (Ok(left), Ok(right), ..) => left == right,
        (_, _, Ok(left), Ok(right)) => left.to_bits() == right.to_bits() || (left - right).abs() == 0.0,
        (Ok(int), _, _, Ok(float)) | (_, Ok(int), Ok(float), _) => (int as f64 - float).abs() == 0.0,
        _ => left.type_name() == right.type_name() && left.to_string() == right.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rhai::Engine;

    use super::*;

    fn of(left: &str, right: &str) -> Option<String> {
        let engine = Engine::new();
        difference(&engine.eval(left).unwrap(), &engine.eval(right).unwrap())
    }

    #[test]
    fn the_first_difference_is_told() {
        assert_eq!(of("#{ a: [1, #{ b: 2 }] }", "#{ a: [1, #{ b: 2.0 }] }"), None);
        assert_eq!(of("#{ a: [1, #{ b: 2 }] }", "#{ a: [1, #{ b: 3 }] }").as_deref(), Some(".a[1].b"));
        assert_eq!(of("[1]", "[1, 2]").as_deref(), Some("[1]"));
        assert_eq!(of("#{}", "#{ x: () }").as_deref(), Some(".x"));
        for (left, right) in [("1", "2"), ("1", "\"1\""), ("()", "0"), ("'a'", "\"a\""), ("true", "false")] {
            assert_eq!(of(left, right).as_deref(), Some(""), "{left} {right}");
        }
    }
}
