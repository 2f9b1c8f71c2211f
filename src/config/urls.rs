//! URLs of what Ryemill uses: broker, databases, mail, files. They are taken apart here, so that whoever connects
//! gets typed parts and a fault is reported at start. Nothing is opened.
//!
//! Faults name no part of the given text: it may hold a password.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::secret::{CredentialUrl, Secret};

/// Where jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerUrl {
    /// The embedded broker: a file, made when it is missing.
    Sqlite {
        path: PathBuf,
        /// `?sync=normal`: a commit is not flushed to the disk, a power cut may lose the last ones.
        sync_normal: bool,
    },
    /// One server: `redis://` or `rediss://`.
    Redis { url: CredentialUrl },
    /// A cluster: the first nodes to ask, each as a `redis://` URL with the credentials.
    RedisCluster { nodes: Vec<CredentialUrl> },
    /// A master found through sentinels, each a `redis://` URL without credentials.
    RedisSentinel { sentinels: Vec<String>, master: String, credentials: Option<Credentials> },
}

/// User and password for the master behind sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Secret,
}

/// How mail leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mailer {
    /// A mail server: `smtp://` or `smtps://`.
    Smtp(CredentialUrl),
    /// A folder that receives one `.eml` file for each mail.
    File(PathBuf),
}

/// A database that scripts may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite {
        path: PathBuf,
    },
    /// A server: `postgres://`.
    Postgres {
        url: CredentialUrl,
    },
}

pub(super) const BROKER_FORMS: &str = "sqlite:PATH, sqlite:PATH?sync=normal, redis://HOST:PORT/DB, \
    rediss://HOST:PORT/DB, redis-cluster://HOST,HOST or redis-sentinel://HOST,HOST/MASTER";
pub(super) const REDIS_FORMS: &str = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB, redis-cluster://HOST,HOST or \
    redis-sentinel://HOST,HOST/MASTER";
pub(super) const MAILER_FORMS: &str = "smtp://USER:PASSWORD@HOST:PORT, smtps://… or file:FOLDER";
pub(super) const FILES_FORMS: &str = "file:FOLDER";
pub(super) const DATABASE_FORMS: &str = "sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME";

pub(super) fn broker(text: &str) -> Result<BrokerUrl, String> {
    match scheme(text)? {
        "sqlite" => {
            let (path, sync) = match sqlite_file(text)? {
                (path, None) => (path, None),
                (path, Some(query)) => match query.split_once('=') {
                    Some(("sync", level)) => (path, Some(level)),
                    _ => return Err("the only option of sqlite is `sync`".into()),
                },
            };
            let sync_normal = match sync {
                None | Some("full") => false,
                Some("normal") => true,
                Some(_) => return Err("`sync` is neither `full` nor `normal`".into()),
            };
            Ok(BrokerUrl::Sqlite { path, sync_normal })
        }
        _ => redis(text),
    }
}

pub(super) fn redis(text: &str) -> Result<BrokerUrl, String> {
    match scheme(text)? {
        "redis" | "rediss" => {
            let url = parse_with_host(text)?;
            let database = url.path().trim_start_matches('/');
            if !database.is_empty() && database.parse::<u16>().is_err() {
                return Err("the path is not a database number".into());
            }
            Ok(BrokerUrl::Redis { url: CredentialUrl::new(text.into()) })
        }
        "redis-cluster" => {
            let parts = ManyHosts::of(text)?;
            if !matches!(parts.path, "" | "/") {
                return Err("a cluster has no path and no database number".into());
            }
            let user = parts.userinfo.map(|user| format!("{user}@")).unwrap_or_default();
            let node = |host: &str| Ok(CredentialUrl::new(host_url(&user, host, 6379)?));
            Ok(BrokerUrl::RedisCluster { nodes: parts.hosts.map(node).collect::<Result<_, String>>()? })
        }
        "redis-sentinel" => {
            let parts = ManyHosts::of(text)?;
            let master = parts.path.trim_start_matches('/');
            if master.is_empty() || !master.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
                return Err("the name of the master is missing, or not of letters, digits and `-_.:`".into());
            }
            let credentials = parts.credentials()?;
            let sentinels = parts.hosts.map(|host| host_url("", host, 26379)).collect::<Result<_, String>>()?;
            Ok(BrokerUrl::RedisSentinel { sentinels, master: master.into(), credentials })
        }
        _ => Err("the scheme is not supported".into()),
    }
}

pub(super) fn mailer(text: &str) -> Result<Mailer, String> {
    match scheme(text)? {
        "file" => Ok(Mailer::File(folder(text)?)),
        "smtp" | "smtps" => {
            let url = parse_with_host(text)?;
            for (name, value) in url.query_pairs() {
                if name != "tls" || !matches!(&*value, "required" | "opportunistic") {
                    return Err("the only options are `tls=required` and `tls=opportunistic`".into());
                }
                if url.scheme() == "smtps" {
                    return Err("`tls` is for smtp://, smtps:// always uses TLS".into());
                }
            }
            Ok(Mailer::Smtp(CredentialUrl::new(text.into())))
        }
        _ => Err("the scheme is not supported".into()),
    }
}

pub(super) fn files(text: &str) -> Result<PathBuf, String> {
    match scheme(text)? {
        "file" => folder(text),
        _ => Err("the scheme is not supported".into()),
    }
}

impl DatabaseUrl {
    /// From the form that the environment has.
    ///
    /// # Errors
    /// Any other form; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        database(text)
    }
}

pub(super) fn database(text: &str) -> Result<DatabaseUrl, String> {
    match scheme(text)? {
        "sqlite" => match sqlite_file(text)? {
            (path, None) => Ok(DatabaseUrl::Sqlite { path }),
            (_, Some(_)) => Err("a database has no options".into()),
        },
        "postgres" | "postgresql" => {
            let url = Url::parse(text).map_err(|error| error.to_string())?;
            if url.query_pairs().any(|(name, _)| name == "password") {
                return Err("the password goes before the @, where it is masked".into());
            }
            Ok(DatabaseUrl::Postgres { url: CredentialUrl::new(text.into()) })
        }
        _ => Err("the scheme is not supported".into()),
    }
}

/// The server's own address for clients: http or https, without a slash at the end, so that paths append to it.
pub(super) fn api(text: &str) -> Result<CredentialUrl, String> {
    match scheme(text)? {
        "http" | "https" => {
            let url = parse_with_host(text)?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err("it has a query or a fragment".into());
            }
            Ok(CredentialUrl::new(text.trim_end_matches('/').into()))
        }
        _ => Err("the scheme is not supported".into()),
    }
}

fn scheme(text: &str) -> Result<&str, String> {
    text.split_once(':').map(|(scheme, _)| scheme).ok_or_else(|| String::from("it has no scheme"))
}

/// `url` takes `redis:/host` for a path; what connects to a server needs a host.
fn parse_with_host(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.host_str().is_none_or(str::is_empty) { Err("it has no host".into()) } else { Ok(url) }
}

/// Path and query of `sqlite:PATH?QUERY`. As with other users of such URLs, `sqlite://x` is the relative path `x`
/// and `sqlite:///x` the absolute one.
fn sqlite_file(text: &str) -> Result<(PathBuf, Option<&str>), String> {
    let rest = text.strip_prefix("sqlite:").unwrap_or(text);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    match path {
        "" => Err("it has no path".into()),
        ":memory:" => Err("a database in memory cannot be shared between processes".into()),
        _ if path.ends_with('/') => Err("it names a folder, not a file".into()),
        _ => Ok((path.into(), query)),
    }
}

/// Path of `file:FOLDER`. `file://x/y` would make `x` a host, which is rarely what was meant.
fn folder(text: &str) -> Result<PathBuf, String> {
    let rest = text.strip_prefix("file:").unwrap_or(text);
    match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        Some(_) => Err("after file:// comes a host; write file:FOLDER or file:///ABSOLUTE/FOLDER".into()),
        None if rest.is_empty() => Err("it has no path".into()),
        None => Ok(rest.into()),
    }
}

/// `scheme://userinfo@host,host/path`, which no URL parser takes.
struct ManyHosts<'a> {
    userinfo: Option<&'a str>,
    hosts: std::str::Split<'a, char>,
    path: &'a str,
}

impl<'a> ManyHosts<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let rest = text.split_once("://").ok_or("it has no host")?.1;
        if rest.contains(['?', '#']) {
            return Err("it has a query or a fragment".into());
        }
        let (userinfo, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let slash = place.find('/').unwrap_or(place.len());
        let (hosts, path) = place.split_at(slash);
        Ok(Self { userinfo, hosts: hosts.split(','), path })
    }

    fn credentials(&self) -> Result<Option<Credentials>, String> {
        let Some(userinfo) = self.userinfo else { return Ok(None) };
        let url = Url::parse(&format!("redis://{userinfo}@host")).map_err(|error| error.to_string())?;
        let decoded = |part| match percent_decode_str(part).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(String::from("user or password is not UTF-8")),
        };
        let password = url.password().ok_or("the user has no password")?;
        let username = Some(url.username()).filter(|name| !name.is_empty()).map(decoded).transpose()?;
        Ok(Some(Credentials { username, password: Secret::new(decoded(password)?) }))
    }
}

/// `redis://user@host:port` for one entry of a host list.
fn host_url(user: &str, host: &str, default_port: u16) -> Result<String, String> {
    let url = parse_with_host(&format!("redis://{user}{host}"))?;
    let port = url.port().unwrap_or(default_port);
    Ok(format!("redis://{user}{}:{port}", url.host_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(path: &str, sync_normal: bool) -> BrokerUrl {
        BrokerUrl::Sqlite { path: path.into(), sync_normal }
    }

    #[test]
    fn brokers() {
        assert_eq!(broker("sqlite:data/x.db"), Ok(sqlite("data/x.db", false)));
        assert_eq!(broker("sqlite:/data/x.db?sync=normal"), Ok(sqlite("/data/x.db", true)));
        assert_eq!(broker("sqlite://x.db?sync=full"), Ok(sqlite("x.db", false)));
        assert_eq!(broker("sqlite:///x.db"), Ok(sqlite("/x.db", false)));
        for url in ["redis://localhost", "rediss://user:p4ss@[::1]:6380/3"] {
            assert_eq!(broker(url), Ok(BrokerUrl::Redis { url: CredentialUrl::new(url.into()) }));
        }
        let nodes = ["redis://u:p4ss@a:6379", "redis://u:p4ss@b:7000"].map(|url| CredentialUrl::new(url.into()));
        assert_eq!(broker("redis-cluster://u:p4ss@a,b:7000"), Ok(BrokerUrl::RedisCluster { nodes: nodes.into() }));
        assert_eq!(
            broker("redis-sentinel://:p%40ss@a,b:7000/main"),
            Ok(BrokerUrl::RedisSentinel {
                sentinels: vec!["redis://a:26379".into(), "redis://b:7000".into()],
                master: "main".into(),
                credentials: Some(Credentials { username: None, password: Secret::new("p@ss".into()) }),
            })
        );
    }

    #[test]
    fn broker_faults_name_no_part_of_the_url() {
        for (text, fault) in [
            ("p4ss", "it has no scheme"),
            ("mysql://u:p4ss@host", "the scheme is not supported"),
            ("sqlite:", "it has no path"),
            ("sqlite::memory:", "a database in memory cannot be shared between processes"),
            ("sqlite:data/", "it names a folder, not a file"),
            ("sqlite:x?snyc=normal", "the only option of sqlite is `sync`"),
            ("sqlite:x?sync=off", "`sync` is neither `full` nor `normal`"),
            ("redis:/host", "it has no host"),
            ("redis://:p4ss", "empty host"),
            ("redis://host/p4ss", "the path is not a database number"),
            ("redis-cluster://", "it has no host"),
            ("redis-cluster:a,b", "it has no host"),
            ("redis-cluster://a,,b", "it has no host"),
            ("redis-cluster://a/1", "a cluster has no path and no database number"),
            ("redis-sentinel://a,b", "the name of the master is missing, or not of letters, digits and `-_.:`"),
            ("redis-sentinel://p4ss@a/main", "the user has no password"),
        ] {
            assert_eq!(broker(text), Err(fault.into()), "{text}");
        }
    }

    #[test]
    fn mail_files_databases_and_the_api() {
        assert_eq!(mailer("file:data/outbox"), Ok(Mailer::File("data/outbox".into())));
        assert_eq!(mailer("file:///var/outbox"), Ok(Mailer::File("/var/outbox".into())));
        for url in ["smtp://localhost:1025", "smtps://u:p4ss@mail.example", "smtp://u:p4ss@mail.example?tls=required"] {
            assert_eq!(mailer(url), Ok(Mailer::Smtp(CredentialUrl::new(url.into()))));
        }
        assert!(mailer("file://data/outbox").unwrap_err().starts_with("after file:// comes a host"));
        assert_eq!(mailer("smtp:host"), Err("it has no host".into()));
        assert!(mailer("smtp://host?tsl=required").is_err());
        assert!(mailer("smtps://host?tls=required").is_err());
        assert_eq!(files("file:files"), Ok("files".into()));
        assert_eq!(files("s3://bucket"), Err("the scheme is not supported".into()));
        assert_eq!(database("sqlite:jobs/sales.db"), Ok(DatabaseUrl::Sqlite { path: "jobs/sales.db".into() }));
        assert_eq!(database("sqlite:x.db?mode=ro"), Err("a database has no options".into()));
        let server = database("postgres://u:p4ss@host/db").unwrap();
        assert!(!format!("{server:?}").contains("p4ss"), "{server:?}");
        assert!(database("postgres://u@host/db?password=p4ss").unwrap_err().contains("before the @"));
        assert_eq!(database("mysql://u:p4ss@host/db"), Err("the scheme is not supported".into()));
        assert_eq!(api("https://jobs.example/base/").unwrap().expose(), "https://jobs.example/base");
        assert!(api("jobs.example:80").is_err());
        assert!(api("http://jobs.example/?x=1").is_err());
    }
}
