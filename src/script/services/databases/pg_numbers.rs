//! Which numbers of a JSON text a float does not hold: PostgreSQL keeps every digit of them, a script cannot.

/// The first number with a point or an exponent whose digits a float would change; trailing zeros are no digits.
pub fn inexact(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                let number = &json[at..end];
                if number.contains(['.', 'e', 'E']) && !is_exact(number) {
                    return Some(number);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// Behind the string that begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn is_exact(number: &str) -> bool {
    // What is beyond all floats is told elsewhere.
    number.parse::<f64>().is_ok_and(|float| float.is_infinite() || value_of(&format!("{float:e}")) == value_of(number))
}

/// The digits from the first to the last that is not 0, and the power of ten of the first.
fn value_of(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let length = |text: usize| i64::try_from(text).unwrap_or(i64::MAX);
    // An exponent that does not fit is that of no float.
    let power = exponent.trim_start_matches('+').parse::<i64>().unwrap_or(i64::MAX);
    (significant.to_owned(), power.saturating_add(length(whole.len()) - 1 - length(leading)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_holds_what_its_shortest_form_says() {
        for exact in
            ["1.5", "0.1", "-2.50", "1e2", "100.00e-2", "0.0", "-0.0", "1E+3", "5e-324", "1.7976931348623157e308"]
        {
            assert_eq!(inexact(exact), None, "{exact}");
        }
        for lossy in ["0.1234567890123456789", "9007199254740993.0", "1e-400", "3.3333333333333333333"] {
            assert_eq!(inexact(lossy), Some(lossy), "{lossy}");
        }
    }

    #[test]
    fn only_numbers_count() {
        let json = r#"{"0.1234567890123456789": "\"3.14159265358979323846\\", "n": [9007199254740993, 1.5, null], "x": 0.30000000000000000001}"#;
        assert_eq!(inexact(json), Some("0.30000000000000000001"));
        assert_eq!(inexact(r#"["1.00000000000000000001", "\""#), None);
    }
}
