//! API keys as the server knows them: an id, the SHA-256 hash of the whole key, and what it may do. The key itself,
//! `rm_<id>_<secret>`, is shown once when it is made and stored nowhere.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Submit,
    Read,
    Admin,
}

impl Scope {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "submit" => Ok(Self::Submit),
            "read" => Ok(Self::Read),
            "admin" => Ok(Self::Admin),
            _ => Err("a scope is neither submit, read nor admin".into()),
        }
    }
}

/// One key that the server accepts. `Display` gives the entry for `API_KEYS`: `<id>:<hash>:<scopes>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    id: String,
    hash: [u8; 32],
    scopes: BTreeSet<Scope>,
}

pub(super) const ENTRY_FORM: &str =
    "ID:SHA256-HEX-OF-THE-KEY:SCOPES, such as ops:9f86…0a08:submit+read (`ryemill keys new` prints one)";

impl ApiKey {
    /// The entry for a new key.
    ///
    /// # Errors
    /// When the id is not of 1 to 32 letters, digits or `-`, or when there is no scope.
    pub fn new(id: &str, key: &str, scopes: BTreeSet<Scope>) -> Result<Self, String> {
        // No `_`, so that `rm_<id>_<secret>` can be taken apart.
        if !(1..=32).contains(&id.len()) || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err("the id is not of 1 to 32 letters, digits or `-`".into());
        }
        if scopes.is_empty() {
            return Err("it has no scope".into());
        }
        Ok(Self { id: id.into(), hash: Sha256::digest(key.as_bytes()).into(), scopes })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn scopes(&self) -> &BTreeSet<Scope> {
        &self.scopes
    }

    /// Whether this is the presented key. Takes the same time wherever the two differ.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        hash.ct_eq(&self.hash).into()
    }

    /// Reads an entry. Faults quote nothing of it: people paste the key itself here.
    pub(super) fn from_entry(entry: &str) -> Result<Self, String> {
        if entry.starts_with("rm_") {
            return Err("it is a key; only its entry with the hash belongs here".into());
        }
        let parts: Vec<&str> = entry.split(':').collect();
        let [id, hash, scopes] = parts[..] else {
            return Err(format!("it has {} parts between colons, not 3", parts.len()));
        };
        let hash = HEXLOWER_PERMISSIVE
            .decode(hash.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or("the hash is not of 64 hexadecimal digits")?;
        let scopes = scopes.split('+').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { hash, ..Self::new(id, "", scopes)? })
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        write!(f, "{}:{}:{}", self.id, HEXLOWER_PERMISSIVE.encode(&self.hash), scopes.join("+"))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_and_knows_its_key() {
        let key = ApiKey::new("ops", "rm_ops_s3cret", BTreeSet::from([Scope::Read, Scope::Submit])).unwrap();
        let entry = key.to_string();
        assert_eq!(entry, "ops:da5c6d13f26cc70fbdcfb1f1db15f8fc75acb68d49553bf4c2fc9bb4eda8c751:submit+read");
        let read = ApiKey::from_entry(&entry).unwrap();
        assert_eq!(read, key);
        assert!(read.matches("rm_ops_s3cret"));
        assert!(!read.matches("rm_ops_s3creT"));
        assert_eq!(format!("{read:?}"), "ApiKey { id: \"ops\", scopes: {Submit, Read}, .. }");
    }

    #[test]
    fn faults_quote_nothing_of_the_entry() {
        let hash = "0".repeat(64);
        for (entry, fault) in [
            ("rm_ops_s3cret".to_owned(), "it is a key; only its entry with the hash belongs here"),
            ("s3cret".into(), "it has 1 parts between colons, not 3"),
            (format!("ops:{hash}"), "it has 2 parts between colons, not 3"),
            (format!("ops:{}:read", &hash[1..]), "the hash is not of 64 hexadecimal digits"),
            (format!("ops:{hash}:reed"), "a scope is neither submit, read nor admin"),
            (format!("ops:{hash}:"), "a scope is neither submit, read nor admin"),
            (format!("o_s:{hash}:read"), "the id is not of 1 to 32 letters, digits or `-`"),
            (format!(":{hash}:read"), "the id is not of 1 to 32 letters, digits or `-`"),
        ] {
            assert_eq!(ApiKey::from_entry(&entry).unwrap_err(), fault);
        }
    }
}
