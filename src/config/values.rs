//! Single values that are more than a number: address to listen on, queues with weights, networks, log level and
//! format. Each parser says what is wrong; what is accepted stands beside it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::job::QueueName;

/// Where the server listens: an IP address or a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

pub(super) const HOST_FORMS: &str = "an IP address or a host name, without a port";

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self::Name(text.into()))
        } else {
            Err("it is neither an IP address nor a host name".into())
        }
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable by others: what it
    /// resolves to may change.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.to_canonical().is_loopback(),
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// How a client on this machine reaches a server that listens here.
    pub(super) fn local_url(&self, port: u16) -> String {
        match self {
            Self::Ip(ip) if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
            Self::Ip(ip) => format!("http://{}", SocketAddr::new(*ip, port)),
            Self::Name(name) => format!("http://{name}:{port}"),
        }
    }
}

/// The text to bind to, together with a port.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A queue that a worker serves. Of all runs it starts while every queue has work, `weight` of the sum of all
/// weights are from this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedQueue {
    pub name: QueueName,
    pub weight: u32,
}

pub(super) const QUEUES_FORM: &str = "queues with weights from 1 to 1000, such as mail:3,default:1; blank for all";

pub(super) fn queues(text: &str) -> Result<Vec<WeightedQueue>, String> {
    let mut queues: Vec<WeightedQueue> = Vec::new();
    for entry in entries(text) {
        let (name, weight) = entry.split_once(':').unwrap_or((entry, "1"));
        let name = QueueName::new(name.trim()).map_err(|error| error.to_string())?;
        let weight = weight.trim().parse().ok().filter(|weight| (1..=1000).contains(weight));
        let weight = weight.ok_or_else(|| format!("the weight of {name} is not a number from 1 to 1000"))?;
        if queues.iter().any(|queue| queue.name == name) {
            return Err(format!("{name} is there twice"));
        }
        queues.push(WeightedQueue { name, weight });
    }
    Ok(queues)
}

pub(super) const NETWORKS_FORM: &str = "networks or addresses, such as 10.1.0.0/16,127.0.0.1,fd00::/8; blank for none";

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |(index, entry): (usize, &str)| {
        let address = || entry.parse::<IpAddr>().map(IpNet::from);
        entry.parse().or_else(|_| address()).map_err(|_| format!("entry {} is not a network", index + 1))
    };
    entries(text).enumerate().map(parse).collect()
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// How log lines look on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
    /// Pretty on a terminal, else JSON.
    Auto,
}

impl LogFormat {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            "auto" => Ok(Self::Auto),
            _ => Err("it is none of them".into()),
        }
    }

    #[must_use]
    pub fn is_pretty(self, on_terminal: bool) -> bool {
        match self {
            Self::Json => false,
            Self::Pretty => true,
            Self::Auto => on_terminal,
        }
    }
}

pub(super) const LOG_LEVEL_FORM: &str = "error, warn, info, debug, trace or off; by module: info,ryemill=debug";

/// Stricter than the filter itself, which takes the misspelt level `inof` for a module and then logs nothing else.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    if let Some(word) = entries(text).find(|part| !part.contains(['=', '[']) && part.parse::<LevelFilter>().is_err()) {
        return Err(format!("`{}` is not a level", super::fault::shown(word)));
    }
    EnvFilter::builder().parse(text).map_err(|error| super::fault::shown(&error.to_string()))?;
    Ok(text.into())
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') { Err("it holds a NUL character".into()) } else { Ok(text.into()) }
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|threads| (1..=1024).contains(threads))
        .ok_or_else(|| "it is not a number in that range".into())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is not an IP address and a port".into())
}

pub(super) fn mailbox(text: &str) -> Result<String, String> {
    let mailbox: Result<lettre::message::Mailbox, _> = text.parse();
    mailbox.map(|_| text.into()).map_err(|_| "it is not a mail address".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_which_of_them_are_this_machine_only() {
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"] {
            assert!(Host::parse(loopback).unwrap().is_loopback(), "{loopback}");
        }
        for open in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "jobs.example", "localhost.example", "0", "127.1"]
        {
            assert!(!Host::parse(open).unwrap().is_loopback(), "{open}");
        }
        for wrong in ["127.0.0.1:80", "http://x", "a b", "a..b", "", "-\n", &"a".repeat(64)] {
            assert!(Host::parse(wrong).is_err(), "{wrong}");
        }
        let local = |host| Host::parse(host).unwrap().local_url(80);
        assert_eq!(
            ["127.0.0.1", "0.0.0.0", "::", "::1", "10.0.0.1", "x.example"].map(local),
            ["127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:80", "[::1]:80", "10.0.0.1:80", "x.example:80"]
                .map(|place| format!("http://{place}"))
        );
    }

    #[test]
    fn weighted_queues() {
        let read = |text| queues(text).map(|all| all.iter().map(|q| format!("{}={}", q.name, q.weight)).collect());
        assert_eq!(read("mail:3, default:1"), Ok(vec!["mail=3".into(), "default=1".into()]));
        assert_eq!(read("mail"), Ok(vec![String::from("mail=1")]));
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("mail:0"), Err("the weight of mail is not a number from 1 to 1000".into()));
        assert_eq!(read("mail:x"), Err("the weight of mail is not a number from 1 to 1000".into()));
        assert_eq!(read("mail:1,mail:2"), Err("mail is there twice".into()));
        assert_eq!(read("Mail:1"), Err("queue name \"Mail\" is not valid: it must match [a-z][a-z0-9_-]{0,63}".into()));
    }

    #[test]
    fn private_networks() {
        let networks_of = |text| networks(text).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            networks_of("10.1.0.0/16, 127.0.0.1,fd00::/8"),
            Ok(vec!["10.1.0.0/16".into(), "127.0.0.1/32".into(), "fd00::/8".into()])
        );
        assert_eq!(networks_of(""), Ok(vec![]));
        assert_eq!(networks_of("10.0.0.0/8,10.0.0.0/33"), Err("entry 2 is not a network".into()));
    }

    #[test]
    fn log_levels() {
        for text in ["info", "WARN", "off", "info,ryemill=debug", "warn,hyper=off", "ryemill[run{id=1}]=trace"] {
            assert_eq!(log_level(text), Ok(text.into()));
        }
        assert_eq!(log_level("inof"), Err("`inof` is not a level".into()));
        assert_eq!(log_level("info,ryemill"), Err("`ryemill` is not a level".into()));
        assert!(log_level("ryemill=loud").is_err());
    }

    #[test]
    fn senders() {
        for text in ["ryemill@localhost", "Rye Mill <jobs@example.com>"] {
            assert_eq!(mailbox(text), Ok(text.into()));
        }
        assert!(mailbox("nobody").is_err());
        assert!(mailbox("a@b\r\nBcc: c@d").is_err());
    }
}
