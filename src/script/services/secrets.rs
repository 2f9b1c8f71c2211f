//! The operator's secrets: handing one out by name, and masking all of them in any text that leaves a run.
//!
//! Knows which values there are, not who may read them: that is the script's `allow.secrets`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shorter values are not masked, they would blank out ordinary text. The configuration refuses them as secrets.
const MIN_LENGTH: usize = 8;

/// Values by lower-case name.
#[derive(Debug)]
pub struct Secrets {
    values: BTreeMap<String, String>,
}

impl Secrets {
    /// `values` by name; case does not matter.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self { values: values.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect() }
    }

    /// The value of the secret `name`, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_ascii_lowercase()).map(String::as_str)
    }
}

/// Finds secrets in text: as they are, escaped in JSON, in base64 and percent-encoded.
#[derive(Debug)]
pub struct Masker {
    /// `None` without secrets.
    finder: Option<AhoCorasick>,
}

impl Masker {
    /// # Errors
    /// When the secrets are too many or too long to search for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let forms: BTreeSet<String> =
            secrets.into_iter().filter(|secret| secret.len() >= MIN_LENGTH).flat_map(forms).collect();
        if forms.is_empty() {
            return Ok(Self { finder: None });
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&forms)
            .map_err(|error| format!("the secrets cannot be masked: {error}"))?;
        Ok(Self { finder: Some(finder) })
    }

    /// `text` with every secret replaced by [`MASK`].
    #[must_use]
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(finder) = &self.finder else { return text.into() };
        let mut matches = finder.find_iter(text).peekable();
        if matches.peek().is_none() {
            return text.into();
        }
        let mut masked = String::with_capacity(text.len());
        let mut from = 0;
        for found in matches {
            masked.push_str(&text[from..found.start()]);
            masked.push_str(MASK);
            from = found.end();
        }
        masked.push_str(&text[from..]);
        masked.into()
    }

    /// The same for JSON text, which stays JSON: strings and keys are masked within, a number that is a secret
    /// becomes the string [`MASK`]. Text that is not JSON is masked as text.
    #[must_use]
    pub fn mask_json<'t>(&self, json: &'t str) -> Cow<'t, str> {
        if !self.finder.as_ref().is_some_and(|finder| finder.is_match(json)) {
            return json.into();
        }
        match serde_json::from_str(json) {
            Ok(value) => self.masked_value(value).to_string().into(),
            Err(_) => self.mask(json),
        }
    }

    fn masked_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.mask(&text).into_owned()),
            Value::Number(number) if self.mask(&number.to_string()) != number.to_string() => MASK.into(),
            Value::Array(items) => items.into_iter().map(|item| self.masked_value(item)).collect(),
            Value::Object(entries) => entries
                .into_iter()
                .map(|(key, value)| (self.mask(&key).into_owned(), self.masked_value(value)))
                .collect(),
            plain => plain,
        }
    }
}

/// What percent encoders leave as it is: RFC 3986, the forms of HTML, and ECMAScript's `encodeURIComponent`.
const KEPT: [&AsciiSet; 3] = {
    const COMMON: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
    const RFC: &AsciiSet = &COMMON.remove(b'~');
    const FORM: &AsciiSet = &COMMON.remove(b'*');
    const SCRIPT: &AsciiSet = &RFC.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');
    [RFC, FORM, SCRIPT]
};

fn forms(secret: &str) -> Vec<String> {
    let json = Value::from(secret).to_string();
    let mut forms = vec![secret.to_owned(), json[1..json.len() - 1].to_owned()];
    for kept in KEPT {
        let upper = utf8_percent_encode(secret, kept).to_string();
        let lower = lower_hex(&upper);
        forms.extend([upper.replace("%20", "+"), lower.replace("%20", "+"), upper, lower]);
    }
    forms.extend((0..3).flat_map(|offset| inner_base64(secret.as_bytes(), offset)));
    // A form of a few characters would hide innocent text.
    forms.retain(|form| form.len() >= MIN_LENGTH);
    forms
}

fn lower_hex(percent: &str) -> String {
    let mut out = String::with_capacity(percent.len());
    let mut digits = 0;
    for c in percent.chars() {
        out.push(if digits > 0 { c.to_ascii_lowercase() } else { c });
        digits = if c == '%' { 2 } else { usize::saturating_sub(digits, 1) };
    }
    out
}

/// How `secret` looks inside the base64 of a longer text that has `offset` bytes (mod 3) before it: without the
/// characters at both ends that depend on the neighbours.
fn inner_base64(secret: &[u8], offset: usize) -> [String; 2] {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let start = (offset * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    [&BASE64_NOPAD, &BASE64URL_NOPAD].map(|encoding| encoding.encode(&padded)[start..end].to_owned())
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL};

    use super::*;

    const KEY: &str = "s3cr3t+/key?with \"all\"\\ 😀~";

    fn masker() -> Masker {
        Masker::new([KEY, "12345678", "short"]).unwrap()
    }

    #[test]
    fn every_form_is_masked_wherever_it_stands() {
        let found = masker();
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "xy", "xyz"] {
                let text = format!("{before}{KEY}{after}");
                for encoded in [BASE64.encode(text.as_bytes()), BASE64URL.encode(text.as_bytes())] {
                    let clean = found.mask(&encoded);
                    assert!(clean.contains(MASK), "{text}: {encoded}");
                    // At most three characters are left on either side of what stood around the secret.
                    assert!(clean.len() <= MASK.len() + 2 * (before.len() + after.len()) + 12, "{clean}");
                }
                assert_eq!(found.mask(&text), format!("{before}{MASK}{after}"));
            }
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        assert_eq!(found.mask(query.append_pair("k", KEY).append_pair("l", "1").finish().as_str()), "k=***&l=1");
        for kept in KEPT {
            let percent = utf8_percent_encode(KEY, kept).to_string();
            assert_eq!(found.mask(&format!("?k={percent}&l=1")), "?k=***&l=1");
            assert_eq!(found.mask(&format!("?k={}", lower_hex(&percent))), "?k=***");
        }
        assert_eq!(found.mask(&serde_json::json!({ "k": KEY }).to_string()), r#"{"k":"***"}"#);
    }

    #[test]
    fn json_stays_json() {
        let found = masker();
        let json =
            serde_json::json!({ "text": format!("key {KEY}!"), KEY: 1, "n": [12_345_678, 1.5, null] }).to_string();
        let clean: Value = serde_json::from_str(&found.mask_json(&json)).unwrap();
        assert_eq!(clean, serde_json::json!({ "text": "key ***!", "***": 1, "n": ["***", 1.5, null] }));
    }

    #[test]
    fn other_text_is_not_touched() {
        let found = masker();
        for text in ["", "short", "1234567", "s3cr3t+/key?with", "{\"a\":1}"] {
            assert!(matches!(found.mask(text), Cow::Borrowed(same) if same == text), "{text}");
            assert!(matches!(found.mask_json(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        let none = Masker::new([]).unwrap();
        assert_eq!(none.mask("12345678"), "12345678");
    }

    #[test]
    fn of_overlapping_secrets_the_longest_goes() {
        let found = Masker::new(["password", "password-and-more"]).unwrap();
        assert_eq!(found.mask("password-and-more password"), "*** ***");
    }

    #[test]
    fn a_secret_is_found_in_any_case_of_its_name() {
        let secrets = Secrets::new(BTreeMap::from([("API_KEY".to_owned(), KEY.to_owned())]));
        assert_eq!(secrets.get("api_key"), Some(KEY));
        assert_eq!(secrets.get("Api_Key"), Some(KEY));
        assert_eq!(secrets.get("api"), None);
    }
}
