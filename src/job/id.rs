//! Names and ids, checked when they are made: a value that exists is valid.
//!
//! A job id is a UUIDv7 whose last 16 bits are the CRC16 of the queue name, so an id alone finds its queue.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a name or an id was refused. The text says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {expected}")]
pub struct InvalidName {
    pub what: &'static str,
    pub given: String,
    pub expected: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// # Errors
            /// When the text is not of the accepted form; the error says which that is.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, given: shorten(text), expected: $expected })
                }
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_type!(
    /// A job type's name, which is its script's file name without `.rhai`.
    JobName,
    "job name",
    "it must match [a-z][a-z0-9_]{0,63}",
    |text| is_name(text, |c| c == b'_')
);

name_type!(
    /// A queue's name.
    QueueName,
    "queue name",
    "it must match [a-z][a-z0-9_-]{0,63}",
    |text| is_name(text, |c| c == b'_' || c == b'-')
);

name_type!(
    /// The caller's id of a request: it goes from the HTTP header through job, logs and outgoing calls.
    RequestId,
    "request id",
    "it must match [A-Za-z0-9._-]{1,64}",
    is_token
);

name_type!(
    /// One worker process. New at each process start, and after a lost lease: an id never comes back to life.
    WorkerId,
    "worker id",
    "it must match [A-Za-z0-9._-]{1,64}",
    is_token
);

name_type!(
    /// A script's version: the first 16 hex digits of the SHA-256 over its source and the modules it imports.
    Version,
    "version",
    "it must match [A-Za-z0-9._-]{1,64}",
    is_token
);

fn is_name(text: &str, extra: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z'))
        && bytes.len() <= 64
        && bytes.iter().all(|&c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra(c))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// At most 80 characters of what was given, so an error never repeats a megabyte.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl RequestId {
    /// A fresh id for a request that brought none.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7().simple().to_string().into())
    }
}

impl WorkerId {
    /// A fresh id.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("w-{}", Uuid::now_v7().simple()).into())
    }
}

impl Version {
    /// The version of the given parts, in their order.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // The length goes in too, so that moving a byte from one part to the next changes the version.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hex = data_encoding::HEXLOWER.encode(&hash.finalize()[..8]);
        Self(hex.into())
    }
}

/// The fence of one run: fresh at each claim, carried by every later change of that run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RunToken(pub i64);

impl RunToken {
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// Names one claim of a worker: the tokens of its runs follow from it, so that a claim made again gives the same ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClaimTicket(pub u64);

impl ClaimTicket {
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The token of the `n`th run.
    #[must_use]
    pub fn token(self, n: usize) -> RunToken {
        // SplitMix64 (Steele, Lea, Flood 2014): another number for each of 2^64, so two runs of a claim never share one.
        let mut z = self.0.wrapping_add((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RunToken((z ^ (z >> 31)).cast_signed())
    }
}

/// One job. Text form: a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id for a job of `queue`.
    #[must_use]
    pub fn new(queue: &QueueName) -> Self {
        Self(with_queue(Uuid::now_v7().into_bytes(), queue))
    }

    /// The id of a parent's child: the same inputs give the same id, so a parent that runs again finds its first
    /// child instead of making a second. `call` is the ordinal of the call or the caller's `unique_key`.
    #[must_use]
    pub fn derived(parent: JobId, call: &str, name: &JobName, payload: &str, queue: &QueueName) -> Self {
        let mut hash = Sha256::new();
        hash.update(parent.0.as_bytes());
        for part in [call, name.as_str(), payload] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        // The parent's time keeps ids roughly in order of creation; the rest is the digest.
        bytes[..6].copy_from_slice(&parent.0.as_bytes()[..6]);
        bytes[6..].copy_from_slice(&digest[..10]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(with_queue(bytes, queue))
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// CRC16 of the queue this id was made for.
    #[must_use]
    pub fn queue_code(&self) -> u16 {
        let bytes = self.0.as_bytes();
        u16::from_be_bytes([bytes[14], bytes[15]])
    }
}

fn with_queue(mut bytes: [u8; 16], queue: &QueueName) -> Uuid {
    bytes[14..].copy_from_slice(&crc16(queue.as_str().as_bytes()).to_be_bytes());
    Uuid::from_bytes(bytes)
}

/// CRC16/XMODEM, the one that Redis Cluster uses for its slots (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, &byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidName {
            what: "job id",
            given: shorten(text),
            expected: "it must be a UUID such as 019388a4-9c5e-7b1a-8000-00000000a1b2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    #[test]
    fn names_accept_only_their_form() {
        for good in ["a", "send_email", "a1_b2"] {
            assert!(JobName::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "A", "1a", "_a", "a-b", "a.b", "a/b", "a\n", "é", long.as_str()] {
            assert!(JobName::new(bad).is_err(), "{bad}");
        }
        assert!(QueueName::new("high-mail").is_ok());
        for bad in ["", "a b", "a\nb", "a\"", &"x".repeat(65)] {
            assert!(RequestId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_never_repeats_a_long_name() {
        let error = JobName::new(&"é".repeat(10_000)).unwrap_err();
        assert!(error.to_string().chars().count() < 200);
    }

    #[test]
    fn crc16_is_the_one_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn an_id_carries_its_queue_and_is_a_uuid_v7() {
        let id = JobId::new(&queue("mail"));
        assert_eq!(id.queue_code(), crc16(b"mail"));
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
    }

    #[test]
    fn a_derived_id_depends_on_every_input_and_nothing_else() {
        let parent = JobId::new(&queue("default"));
        let email = JobName::new("email").unwrap();
        let first = JobId::derived(parent, "1", &email, "{}", &queue("mail"));
        assert_eq!(first, JobId::derived(parent, "1", &email, "{}", &queue("mail")));
        assert_eq!(first.0.get_version_num(), 7);
        assert_ne!(first, JobId::derived(parent, "2", &email, "{}", &queue("mail")));
        assert_ne!(first, JobId::derived(parent, "1", &email, "[]", &queue("mail")));
        let other = JobName::new("report").unwrap();
        assert_ne!(first, JobId::derived(parent, "1", &other, "{}", &queue("mail")));
        assert_ne!(first, JobId::derived(JobId::new(&queue("default")), "1", &email, "{}", &queue("mail")));
    }

    #[test]
    fn a_version_tells_its_parts_apart() {
        assert_eq!(Version::of(&[b"ab", b"c"]), Version::of(&[b"ab", b"c"]));
        assert_ne!(Version::of(&[b"ab", b"c"]), Version::of(&[b"a", b"bc"]));
    }
}
