//! Addresses that no script may reach, in every spelling and by every way around, and requests that carry another.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use url::Url;

use super::probe;
use super::server::Server;

/// Hosts as they stand in URLs. `PORT` is a server on 127.0.0.1.
const PRIVATE: &[&str] = &[
    // Loopback: plain, short, decimal, octal, hexadecimal, mixed, padded, with a dot at the end, encoded, in other digits.
    "127.0.0.1:PORT",
    "127.0.0.2:PORT",
    "127.255.255.254",
    "127.1:PORT",
    "127.0.1:PORT",
    "2130706433:PORT",
    "017700000001:PORT",
    "0x7f000001:PORT",
    "0X7F.0.0.1:PORT",
    "0x7f.1:PORT",
    "0177.0.0.1:PORT",
    "0177.0x0.0.01:PORT",
    "127.0.0.0x1:PORT",
    "0000000177.00000.0.1:PORT",
    "127.0.0.1.:PORT",
    "%31%32%37.0.0.1:PORT",
    "127%2e0%2E0.1:PORT",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1:PORT",
    "\u{2460}\u{2461}\u{2466}.0.0.1:PORT",
    "127\u{3002}0\u{ff0e}0\u{ff61}1:PORT",
    "127.0.0.\u{ad}1:PORT",
    // All of this machine.
    "0.0.0.0:PORT",
    "0:PORT",
    "0x0:PORT",
    "00.00:PORT",
    "[::]:PORT",
    "[::1]:PORT",
    "[0:0:0:0:0:0:0:1]:PORT",
    "[0000::0001]:PORT",
    // IPv4 within IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo.
    "[::ffff:127.0.0.1]:PORT",
    "[::ffff:7f00:1]:PORT",
    "[0:0:0:0:0:FFFF:7F00:0001]:PORT",
    "[::ffff:0.0.0.0]:PORT",
    "[::ffff:169.254.169.254]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]:PORT",
    "[::ffff:0:127.0.0.1]:PORT",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::10.0.0.1]",
    "[2002:7f00:1::1]",
    "[2002:a9fe:a9fe::]",
    "[2002:c0a8:101::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    // Metadata services.
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[fd00:ec2::254]",
    "[fe80::a9fe:a9fe]",
    // Private and special networks, at their ends.
    "10.0.0.0",
    "10.255.255.255",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.0.1",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "[fc00::1]",
    "[fdff:ffff::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[3fff::1]",
    "[5f00::1]",
    // Names of this machine.
    "localhost:PORT",
    "LOCALHOST:PORT",
    "%6cocalhost:PORT",
    "\u{24db}ocalhost:PORT",
];

/// What is no address at all, or has more in it than one.
const MALFORMED: &[&str] = &[
    "127.0.0.256",
    "127.0.0.1.1",
    "4294967296",
    "0x100000000",
    "08.0.0.1",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[::ffff:127.0.0.1",
    "[127.0.0.1]",
    "[::1]x",
    "127.0.0.1:99999",
    "127.0.0.1:+80",
    "exa mple.com",
    "a<b",
    "xn--a-\u{ff0f}",
];

fn written(host: &str, server: &Server) -> String {
    format!("http://{}/reached", host.replace("PORT", &server.port.to_string()))
}

/// Names of this machine, and those of `/etc/hosts`, whose addresses are all private.
fn names_of_this_machine() -> Vec<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let mut names: Vec<String> = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split_whitespace().skip(1))
        .map(str::to_owned)
        .collect();
    names.extend(std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned()));
    names.retain(|name| Url::parse(&format!("http://{name}/")).is_ok());
    names
}

/// Whether a name with a dot at its end is known without a DNS server is up to the machine.
#[test]
fn a_dot_at_the_end_opens_nothing() {
    let server = Server::start();
    let url = written("localhost.:PORT", &server);
    let said = probe(&server, &["localhost"], &[], &json!({ "a": get(&url) }));
    assert!(said["a"]["kind"] == "denied" || said["a"]["kind"] == "host.http", "{}", said["a"]);
    assert_eq!(server.asked(), Vec::<String>::new());
    server.stop();
}

fn get(url: &str) -> Value {
    json!({ "url": url, "timeout": "60s" })
}

#[test]
fn no_spelling_of_a_private_address_is_reached() {
    let server = Server::start();
    let mut urls: Vec<String> = PRIVATE.iter().map(|host| written(host, &server)).collect();
    urls.extend(names_of_this_machine().iter().map(|name| written(&format!("{name}:PORT"), &server)));
    urls.extend(urls.clone().iter().map(|url| url.replace("http://", "http://user:word@")));
    // Each is on the script's list: what counts is where it leads.
    let hosts: Vec<String> = urls.iter().map(|url| Url::parse(url).unwrap().host_str().unwrap().to_owned()).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let calls: Map<String, Value> = urls.iter().map(|url| (url.clone(), get(url))).collect();
    for opened in ["", "192.168.77.0/24,fd77::/16"] {
        let said = probe(&server, &hosts, &[("HTTP_ALLOW_PRIVATE", opened)], &calls.clone().into());
        let refused = |said: &Value| {
            let message = said["message"].as_str().unwrap_or_default();
            said["kind"] == "denied" && message.contains("is not a public address (")
        };
        let wrong: Vec<_> = said.iter().filter(|(_, said)| !refused(said)).collect();
        assert!(wrong.is_empty() && said.len() == calls.len(), "{wrong:#?}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    server.stop();
}

#[test]
fn what_is_no_address_is_refused_with_a_reason() {
    let server = Server::start();
    let mut calls: Map<String, Value> =
        MALFORMED.iter().map(|host| ((*host).to_owned(), get(&written(host, &server)))).collect();
    for url in [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:70/_x",
        "data:text/plain,x",
        "unix:/run/x",
        "ws://127.0.0.1/",
        "javascript:1",
        "http+unix://%2frun%2fx/",
        "blob:http://127.0.0.1/x",
    ] {
        calls.insert(url.to_owned(), get(url));
    }
    let said = probe(&server, &["127.0.0.1"], &[("HTTP_ALLOW_PRIVATE", "127.0.0.1")], &calls.into());
    let refused = |(name, said): &(&String, &Value)| {
        let (kind, message) = (said["kind"].as_str().unwrap(), said["message"].as_str().unwrap_or_default());
        let expected = if MALFORMED.contains(&name.as_str()) {
            ("host.http", "is not a URL such as https://example.com/path: ")
        } else {
            ("denied", "is not a scheme that scripts may use")
        };
        kind == expected.0 && message.contains(expected.1)
    };
    let wrong: Vec<_> = said.iter().filter(|entry| !refused(entry)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(server.asked(), Vec::<String>::new());
    server.stop();
}

#[test]
fn the_operator_opens_one_network_and_no_other() {
    let (server, other) = (Server::on("127.0.0.2:0"), Server::start());
    let open = format!("http://127.0.0.2:{}/reached", server.port);
    let mapped = format!("http://[::ffff:127.0.0.2]:{}/reached", server.port);
    let calls = json!({
        "open": get(&open), "mapped": get(&mapped), "beside": get(&written("127.0.0.1:PORT", &other)),
        "name": get(&written("localhost:PORT", &other)), "far": get("http://127.0.0.3/"), "six": get("http://[::1]/"),
    });
    let allow = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "localhost", "::1", "::ffff:7f00:2"];
    let said = probe(&server, &allow, &[("HTTP_ALLOW_PRIVATE", "127.0.0.2/32")], &calls);
    assert_eq!(said["open"]["status"], 200, "{}", said["open"]);
    for closed in ["beside", "name", "far", "six"] {
        assert_eq!(said[closed]["kind"], "denied", "{closed}: {}", said[closed]);
    }
    // Whether the machine has IPv6 at all is not for this test.
    assert_ne!(said["mapped"]["kind"], "denied", "{}", said["mapped"]);
    assert_eq!(other.asked(), Vec::<String>::new());
    server.stop();
    other.stop();
}

#[test]
fn each_hop_of_a_redirect_is_checked_like_the_first() {
    let server = Server::start();
    let port = server.port;
    let places = BTreeMap::from([
        (format!("http://127.0.0.2:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        (format!("http://2130706434:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        (format!("//0177.0.0.2:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        (format!("http://u:p@127.0.0.2:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        (format!("https://127.0.0.2:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        (format!("/to?302,http://127.0.0.2:{port}/reached"), "127.0.0.2 is not a public address (loopback)"),
        ("http://10.0.0.1/reached".to_owned(), "10.0.0.1 is not a public address (private)"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "may not reach 169.254.169.254"),
        (format!("http://[::ffff:127.0.0.1]:{port}/reached"), "may not reach [::ffff:7f00:1]"),
        (format!("http://localhost:{port}/reached"), "may not reach localhost"),
        ("http://other.test/".to_owned(), "may not reach other.test"),
        ("//other.test".to_owned(), "may not reach other.test"),
        ("\\\\other.test".to_owned(), "may not reach other.test"),
        ("http://127.0.0.1@other.test/".to_owned(), "may not reach other.test"),
        ("http://127.0.0.1.other.test/".to_owned(), "may not reach 127.0.0.1.other.test"),
        ("file:///etc/passwd".to_owned(), "`file:` is not a scheme that scripts may use"),
        ("ftp://127.0.0.1/".to_owned(), "`ftp:` is not a scheme that scripts may use"),
        ("gopher://127.0.0.1/".to_owned(), "`gopher:` is not a scheme that scripts may use"),
        ("data:text/plain,x".to_owned(), "`data:` is not a scheme that scripts may use"),
        ("http://127.0.0.256/".to_owned(), "redirects to something that is no URL"),
        ("http://".to_owned(), "redirects to something that is no URL"),
        (String::new(), "redirects more than 10 times"),
    ]);
    let mut calls = Map::new();
    for status in [301, 302, 303, 307, 308] {
        for location in places.keys().map(String::as_str).chain(["/echo", "echo?x#y", "http:echo", "?300,"]) {
            let url = format!("{}/to?{status},{location}", server.base());
            // Beyond `#` nothing is sent.
            calls.insert(format!("{status} {location}"), get(&url.replace('#', "%23")));
        }
    }
    let allow = ["127.0.0.1", "127.0.0.2", "10.0.0.1"];
    let said = probe(&server, &allow, &[("HTTP_ALLOW_PRIVATE", "127.0.0.1")], &calls.into());
    let mut wrong = Vec::new();
    for (name, said) in &said {
        let location = name.split_once(' ').unwrap().1;
        let fits = match places.get(location) {
            Some(message) => {
                let kind = if message.starts_with("redirects") { "host.http" } else { "denied" };
                said["kind"] == kind && said["message"].as_str().is_some_and(|text| text.contains(message))
            }
            None if location == "?300," => said["status"] == 300,
            None => said["status"] == 200,
        };
        if !fits {
            wrong.push(format!("{name}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!server.asked().iter().any(|line| line.contains(" /reached")), "{:?}", server.asked());
    server.stop();
}

#[test]
fn no_part_of_a_request_carries_another() {
    let server = Server::start();
    let url = format!("{}/echo", server.base());
    let mut calls = Map::new();
    for (index, evil) in
        ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0", "\u{7f}", "\u{1b}", "a\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"]
            .iter()
            .enumerate()
    {
        let mut call = |part: &str, call: Value| calls.insert(format!("{part} {index}"), call);
        call("value", json!({ "url": url, "headers": { "X-A": evil } }));
        call("values", json!({ "url": url, "headers": { "X-A": ["1", format!("1{evil}")] } }));
        call("name", json!({ "url": url, "headers": { format!("X-A{evil}"): "1" } }));
        call("path", json!({ "url": format!("{url}{evil}") }));
        call("before", json!({ "url": format!("{evil}{url}") }));
        call("host", json!({ "url": url.replace("127", &format!("127{evil}")) }));
        call("user", json!({ "url": url.replace("127", &format!("u{evil}:p@127")) }));
        call("method", json!({ "url": url, "method": format!("GET{evil}") }));
        call(
            "type",
            json!({ "url": url, "method": "POST", "body": "x", "headers": { "Content-Type": format!("a{evil}") } }),
        );
    }
    for name in
        ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Proxy-Authorization", "X A", "X:", ""]
    {
        calls.insert(format!("own {name}"), json!({ "url": url, "headers": { name: "1" } }));
    }
    let count = calls.len();
    let said = probe(&server, &["127.0.0.1"], &[("HTTP_ALLOW_PRIVATE", "127.0.0.1")], &calls.into());
    let reasons = [
        "has a line break or another control character",
        "has characters that are not allowed",
        "is set by the connection",
    ];
    let refused = |said: &Value| {
        said["kind"] == "host.http"
            && said["message"].as_str().is_some_and(|text| reasons.iter().any(|reason| text.contains(reason)))
    };
    let wrong: Vec<_> = said.iter().filter(|(_, said)| !refused(said)).collect();
    assert!(wrong.is_empty() && said.len() == count, "{wrong:#?}");
    assert_eq!(server.asked(), Vec::<String>::new());

    // Encoded, it is data.
    let evil = "\r\nX-Evil: 1\0";
    let calls = json!({
        "query": { "url": url, "query": { "a\r\n": evil } }, "form": { "url": url, "method": "POST", "form": { "a": evil } },
        "body": { "url": url, "method": "POST", "body": evil }, "encoded": { "url": format!("{url}?%0d%0aX-Evil:%201") },
        "user": { "url": url.replace("127", "u%0d%0aX-Evil:1@127") },
    });
    let said = probe(&server, &["127.0.0.1"], &[("HTTP_ALLOW_PRIVATE", "127.0.0.1")], &calls);
    for (name, said) in &said {
        let request = said["body"].as_str().unwrap_or_else(|| panic!("{name}: {said}"));
        let (head, _) = request.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.to_ascii_lowercase().starts_with("x-evil")), "{name}: {head}");
    }
    server.stop();
}

#[test]
fn a_proxy_of_the_environment_is_no_way_around() {
    let (server, proxy) = (Server::start(), Server::start());
    let at = proxy.base();
    let mut settings = vec![("HTTP_ALLOW_PRIVATE", "127.0.0.1")];
    settings.extend(
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .map(|name| (name, at.as_str())),
    );
    let calls = json!({
        "open": get(&format!("{}/echo", server.base())), "closed": get("http://10.0.0.1/"), "name": get("http://no-such-name.invalid/"),
        "tls": get(&format!("https://127.0.0.1:{}/", server.port)),
    });
    let said = probe(&server, &["127.0.0.1", "10.0.0.1", "no-such-name.invalid"], &settings, &calls);
    assert!(
        said["open"]["body"].as_str().is_some_and(|body| body.starts_with("GET /echo HTTP/1.1")),
        "{}",
        said["open"]
    );
    assert_eq!(said["closed"]["kind"], "denied", "{}", said["closed"]);
    assert_eq!(said["name"]["kind"], "host.http", "{}", said["name"]);
    assert_eq!(said["tls"]["kind"], "host.http", "{}", said["tls"]);
    assert_eq!(proxy.asked(), Vec::<String>::new());
    server.stop();
    proxy.stop();
}
