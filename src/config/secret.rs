//! Values that must not be shown: their `Debug` and `Display` print a mask, the text itself only comes out
//! through a method whose name says so. Knows nothing of where a value came from.

use std::fmt;

const MASK: &str = "***";

/// A secret for scripts or an API key: prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself, for the call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A URL that may carry a user and a password: prints with both masked.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialUrl(String);

impl CredentialUrl {
    #[must_use]
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL with its credentials, for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.0))
    }
}

impl fmt::Debug for CredentialUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL with everything masked that could be a credential. It must hold for broken URLs too, since those are
/// what error messages quote: so nothing is parsed, all before the last `@` goes, and the query of anything but a
/// local path goes. Without an `@` only what reads as scheme, host, port and path is shown.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else {
        // Not a URL at all; it could be a lone password.
        return MASK.into();
    };
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return MASK.into();
    }
    let slashes = if rest.starts_with("//") { "//" } else { "" };
    let shown_rest = match rest.rsplit_once('@') {
        Some((_, place)) => format!("{MASK}@{}", without_query(place)),
        None if matches!(scheme, "sqlite" | "file") => return url.into(),
        // `redis://:password` with the host forgotten.
        None if url::Url::parse(url).is_ok_and(|parsed| parsed.has_host()) => {
            without_query(rest.trim_start_matches('/'))
        }
        None => MASK.into(),
    };
    format!("{scheme}:{slashes}{shown_rest}")
}

fn without_query(place: &str) -> String {
    match place.split_once(['?', '#']) {
        Some((path, _)) => format!("{path}?{MASK}"),
        None => place.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_a_mask() {
        let secret = Secret::new("correct horse".into());
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "correct horse");
    }

    #[test]
    fn credentials_of_urls_are_masked() {
        for (url, masked) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://user:p4ss@host:6379/0", "redis://***@host:6379/0"),
            ("redis://:p@ss@host", "redis://***@host"),
            ("redis-cluster://u:p4ss@a:1,b:2", "redis-cluster://***@a:1,b:2"),
            ("redis-sentinel://a,b/main", "redis-sentinel://a,b/main"),
            ("smtps://me@mail.example:p4ss@mail.example", "smtps://***@mail.example"),
            ("postgres://host/db?user=u&password=p4ss", "postgres://host/db?***"),
            ("postgres://u:p4ss@host/db?password=p4ss", "postgres://***@host/db?***"),
            ("sqlite:data/x.db?snyc=normal", "sqlite:data/x.db?snyc=normal"),
            ("redis:/u:p4ss@host", "redis:***@host"),
            ("redis://:p4ss", "redis://***"),
            ("redis:p4ss", "redis:***"),
            ("p4ss", "***"),
            ("p4 ss:x", "***"),
        ] {
            let shown = CredentialUrl::new(url.into());
            assert_eq!(format!("{shown}"), masked, "{url}");
            assert_eq!(format!("{shown:?}"), masked, "{url}");
        }
    }
}
