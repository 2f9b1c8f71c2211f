//! Where scripts may connect to: which hosts a script names in `allow.hosts`, and which addresses no script reaches
//! unless the operator opened them with `HTTP_ALLOW_PRIVATE`.
//!
//! The two are separate: a name on the script's list that resolves to a private address is refused, or any DNS entry
//! would be a door into the operator's network. Knows no HTTP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use url::Host;

/// Every address that is not for the public internet, by the IANA registries of special-purpose addresses
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, …/iana-ipv6-special-registry).
const CLOSED: [(&str, &str); 28] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by providers"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local, cloud metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("2001::/23", "protocol assignments, tunnels"),
    ("2001:db8::/32", "documentation"),
    ("2620:4f:8000::/48", "delegated"),
    ("3fff::/20", "documentation"),
    // All that is left outside 2000::/3 is not assigned to anybody.
    ("::/3", "reserved"),
    ("4000::/2", "reserved"),
    ("8000::/1", "reserved"),
];

/// An address that scripts may not connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not a public address ({range}); the operator can open it with HTTP_ALLOW_PRIVATE")]
pub struct ClosedAddress {
    pub address: IpAddr,
    range: &'static str,
}

/// The addresses that are open: the public ones and the operator's exceptions.
#[derive(Clone, Debug)]
pub struct AddressGuard {
    opened: Arc<[IpNet]>,
    closed: Arc<[(IpNet, &'static str)]>,
}

impl AddressGuard {
    #[must_use]
    pub fn new(opened: &[IpNet]) -> Self {
        let closed = CLOSED.iter().filter_map(|(net, name)| Some((net.parse().ok()?, *name))).collect();
        Self { opened: opened.into(), closed }
    }

    /// # Errors
    /// When the address, or the IPv4 address that it carries, is not public and not opened by the operator.
    pub fn check(&self, address: IpAddr) -> Result<(), ClosedAddress> {
        // `::ffff:10.0.0.1` and its like reach the IPv4 address inside; so that one is judged.
        let judged = carried_v4(address).map_or(address, IpAddr::V4);
        if self.opened.iter().any(|net| net.contains(&judged)) {
            return Ok(());
        }
        match self.closed.iter().find(|(net, _)| net.contains(&judged)) {
            Some((_, range)) => Err(ClosedAddress { address, range }),
            None => Ok(()),
        }
    }

    /// The open ones among the addresses of a name.
    ///
    /// # Errors
    /// The first closed address, when there is no open one.
    pub fn filter(&self, addresses: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, ClosedAddress> {
        let mut refused = None;
        let mut open = Vec::new();
        for address in addresses {
            match self.check(address.ip()) {
                Ok(()) => open.push(address),
                Err(closed) => refused = refused.or(Some(closed)),
            }
        }
        match refused {
            Some(closed) if open.is_empty() => Err(closed),
            _ => Ok(open),
        }
    }
}

/// The IPv4 address that packets to this address end up at: mapped, compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match v6.segments() {
        _ if v6 == Ipv6Addr::LOCALHOST || v6 == Ipv6Addr::UNSPECIFIED => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// One entry of `allow.hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// Lower case, without a dot at the end; for IPv6 without brackets.
    host: String,
    /// Matches what is below `host`, and not `host` itself.
    below: bool,
    /// `None`: any port.
    port: Option<u16>,
}

/// Why a text is no [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a host: write api.example.com, api.example.com:8443, *.example.com or [::1]:8080")]
pub struct InvalidHost {
    given: String,
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost { given: text.chars().take(80).collect() };
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bare_v6 = rest.parse::<Ipv6Addr>().is_ok();
        let (host, port) = match rest.rsplit_once(':') {
            // The last colon of `[::1]` is part of the address.
            Some((host, port)) if !bare_v6 && !port.ends_with(']') => {
                // `parse` alone would take a sign.
                if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(invalid());
                }
                (host, Some(port.parse().map_err(|_| invalid())?))
            }
            _ => (rest, None),
        };
        let parsed = match host.strip_suffix('.') {
            _ if bare_v6 => Host::parse(&format!("[{host}]")),
            Some(name) => Host::parse(name),
            None => Host::parse(host),
        };
        match parsed.map_err(|_| invalid())? {
            Host::Domain(name) if !name.contains('*') => Ok(Self { host: name, below, port }),
            Host::Ipv4(ip) if !below => Ok(Self { host: ip.to_string(), below, port }),
            Host::Ipv6(ip) if !below => Ok(Self { host: ip.to_string(), below, port }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            f.write_str("*.")?;
        }
        match (self.host.contains(':'), self.port) {
            (true, Some(_)) => write!(f, "[{}]", self.host)?,
            _ => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl HostPattern {
    /// Whether a URL's host, as `url` gives it, and its port are meant.
    #[must_use]
    pub fn matches(&self, host: &Host<&str>, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        match host {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                if self.below {
                    name.strip_suffix(self.host.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                } else {
                    name == self.host
                }
            }
            Host::Ipv4(ip) => !self.below && self.host == ip.to_string(),
            Host::Ipv6(ip) => !self.below && self.host == ip.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn every_range_is_written_right() {
        assert_eq!(AddressGuard::new(&[]).closed.len(), CLOSED.len());
    }

    #[test]
    fn only_public_addresses_are_open() {
        let guard = AddressGuard::new(&[]);
        for closed in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "3fff::1",
            "100::1",
            "4000::1",
            "8000::1",
            "fd00:ec2::254",
        ] {
            let refused = guard.check(closed.parse().unwrap());
            assert!(refused.is_err(), "{closed}");
        }
        for open in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.167.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(guard.check(open.parse().unwrap()), Ok(()), "{open}");
        }
    }

    #[test]
    fn the_operator_opens_networks_in_every_disguise() {
        let guard = AddressGuard::new(&["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for open in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::1"] {
            assert_eq!(guard.check(open.parse().unwrap()), Ok(()), "{open}");
        }
        for closed in ["10.2.0.1", "127.0.0.1", "fc00::1"] {
            assert!(guard.check(closed.parse().unwrap()).is_err(), "{closed}");
        }
    }

    #[test]
    fn a_name_with_an_open_address_loses_its_closed_ones() {
        let guard = AddressGuard::new(&[]);
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        assert_eq!(guard.filter([at("10.0.0.1"), at("1.1.1.1")].into_iter()), Ok(vec![at("1.1.1.1")]));
        let refused = guard.filter([at("10.0.0.1"), at("::1")].into_iter()).unwrap_err();
        assert_eq!(refused.address, at("10.0.0.1").ip());
        assert!(refused.to_string().contains("HTTP_ALLOW_PRIVATE"));
        assert_eq!(guard.filter(std::iter::empty()), Ok(vec![]));
    }

    #[test]
    fn host_patterns_match_hosts_of_urls() {
        for (pattern, url, expected) in [
            ("api.example.com", "https://api.example.com/x", true),
            ("api.example.com", "https://API.Example.com./x", true),
            ("API.Example.com", "https://api.example.com:8443", true),
            ("api.example.com", "https://api.example.com.evil.net", false),
            ("api.example.com", "https://evilapi.example.com", false),
            ("api.example.com:8443", "https://api.example.com:8443", true),
            ("api.example.com:8443", "https://api.example.com", false),
            ("api.example.com:443", "https://api.example.com", true),
            ("*.example.com", "https://a.example.com", true),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://badexample.com", false),
            ("*.Example.COM.", "https://A.example.com./", true),
            ("*.example.com:8443", "https://a.example.com:8443", true),
            ("*.example.com:8443", "https://a.example.com", false),
            ("*.example.com", "https://a.example.com.evil.net", false),
            ("*.example.com", "https://a.example.com@evil.net", false),
            ("api.example.com", "https://api.example.com@evil.net/", false),
            ("api.example.com", "https://evil.net/api.example.com", false),
            ("api.example.com", "https://user:pw@api.example.com/", true),
            ("api.example.com", "https://%61pi.example.com/", true),
            ("api.example.com", "https://api\u{3002}example\u{ff0e}com/", true),
            ("api.example.com:80", "http://api.example.com", true),
            ("api.example.com:80", "https://api.example.com", false),
            ("api.example.com.", "https://api.example.com", true),
            ("*.bücher.example", "https://a.xn--bcher-kva.example", true),
            ("XN--BCHER-KVA.example", "https://BÜCHER.example", true),
            ("bücher.example", "https://xn--bcher-kva.example", true),
            ("127.0.0.1", "http://2130706433/", true),
            ("127.0.0.1", "http://0177.0.0.1/", true),
            ("127.0.0.1:80", "http://127.0.0.1", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("::1", "http://[0:0::1]:9", true),
            ("::1", "http://[::ffff:127.0.0.1]", false),
            ("localhost", "http://localhost:8080", true),
        ] {
            let parsed: HostPattern = pattern.parse().unwrap();
            let url = Url::parse(url).unwrap();
            let matched = parsed.matches(&url.host().unwrap(), url.port_or_known_default().unwrap());
            assert_eq!(matched, expected, "{pattern} {url}");
            assert_eq!(parsed.to_string().parse::<HostPattern>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_host_is_no_pattern() {
        for wrong in [
            "",
            "*",
            "*.",
            "https://x",
            "a b",
            "x:",
            "x:99999",
            "x:http",
            "x:+80",
            "x:0x50",
            "*.*.com",
            "a.*.com",
            "*.1.2.3.4",
            "x/y",
            "[::1",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }
}
