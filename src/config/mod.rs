//! Environment → validated [`Config`], with all faults listed at once ([`ConfigErrors`]) and no secret in any of them.
//!
//! [`Config::load`] gathers the variables (process environment, then `.env.local` or `.env.production`, then `.env`),
//! [`Config::from_map`] turns them into values. [`VARIABLES`] is the table that defaults, masking and `.env.example`
//! come from. Knows the domain's limits and units, and nothing of who uses a value.

mod api_keys;
mod env_files;
mod fault;
mod reader;
mod secret;
mod urls;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::job::Limits;

pub use api_keys::{ApiKey, Scope};
pub use fault::{ConfigErrors, Fault};
pub use secret::{CredentialUrl, Secret, mask_url};
pub use urls::{BrokerUrl, Credentials, DatabaseUrl, Mailer};
pub use values::{Host, LogFormat, WeightedQueue};
pub use variables::{Preset, Secrecy, VARIABLES, Variable};

use env_files::Environment;
use reader::Reader;
use variables::Family;

/// Which of the two sets of defaults and env files is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    Local,
    Production,
}

impl AppEnv {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "production" => Ok(Self::Production),
            _ => Err("it is neither".into()),
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Production => "production",
        }
    }

    fn env_file(self) -> &'static str {
        match self {
            Self::Local => ".env.local",
            Self::Production => ".env.production",
        }
    }
}

impl fmt::Display for AppEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything the environment says, valid. Its `Debug` shows no secret. The variable of each field has its name in
/// capitals unless the field says another; meanings and defaults are in [`VARIABLES`].
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub app_env: AppEnv,
    pub host: Host,
    pub port: u16,
    /// `BROKER_URL`, else `REDIS_URL`, else the embedded broker in `data_dir`.
    pub broker: BrokerUrl,
    pub jobs_dir: PathBuf,
    pub data_dir: PathBuf,
    pub watch: bool,
    pub worker_concurrency: usize,
    pub worker_threads: usize,
    /// Empty: all queues, equally.
    pub worker_queues: Vec<WeightedQueue>,
    pub worker_addr: Option<SocketAddr>,
    pub lease: Duration,
    pub shutdown_grace: Duration,
    /// `API_KEYS` and the entries of `API_KEYS_FILE`. Never empty when `host` is not loopback.
    pub api_keys: Vec<ApiKey>,
    /// Without a slash at the end.
    pub api_url: CredentialUrl,
    pub api_key: Option<Secret>,
    /// Bytes.
    pub max_body: usize,
    /// Bytes.
    pub max_batch: usize,
    /// Jobs.
    pub max_pending: u64,
    /// Bytes for each queue.
    pub retain_bytes: u64,
    /// `MAILER_URL`.
    pub mailer: Mailer,
    /// An address or `Name <address>`.
    pub mail_from: String,
    /// `FILES_URL`.
    pub files_dir: PathBuf,
    /// `DATABASE_<NAME>_URL`, by the name in lower case.
    pub databases: BTreeMap<String, DatabaseUrl>,
    /// `SECRET_<NAME>`, by the name in lower case.
    pub secrets: BTreeMap<String, Secret>,
    pub http_allow_private: Vec<IpNet>,
    /// Directives of `tracing_subscriber::EnvFilter`, checked.
    pub log_level: String,
    pub log_format: LogFormat,
    pub log_dir: Option<PathBuf>,
    pub log_keep_files: usize,
    pub allow_eviction: bool,
    pub limits: Limits,
    /// What is probably a mistake but no fault: misspelt names and the like. For the log at start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the process environment and the env files of the working directory.
    ///
    /// # Errors
    /// All faults of all variables and files.
    pub fn load() -> Result<Self, ConfigErrors> {
        Self::from_environment(Environment::read(Path::new(""), std::env::vars_os()), &Machine::detect())
    }

    /// The configuration that these variables describe. Neither the environment nor an env file is read; the one
    /// file that is opened is `API_KEYS_FILE`, and the machine is asked for its CPUs and its map limit.
    ///
    /// # Errors
    /// All faults of all variables.
    pub fn from_map(vars: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        Self::from_map_on(vars, &Machine::detect())
    }

    fn from_environment(environment: Environment, machine: &Machine) -> Result<Self, ConfigErrors> {
        let result = Self::from_map_on(&environment.vars, machine);
        let mut faults = environment.faults;
        match result {
            Ok(mut config) if faults.is_empty() => {
                config.warnings.extend(environment.warnings);
                return Ok(config);
            }
            Ok(_) => {}
            Err(errors) => faults.extend(errors.faults.into_iter().map(|mut fault| {
                fault.origin = environment.origins.get(&fault.subject).map(|origin| String::from(*origin));
                fault
            })),
        }
        Err(ConfigErrors { faults })
    }

    fn from_map_on(vars: &BTreeMap<String, String>, machine: &Machine) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(vars);
        let r = &mut reader;
        let data_dir = r.value("DATA_DIR", "a folder", values::path);
        let host = r.value("HOST", values::HOST_FORMS, Host::parse);
        let port = r.number("PORT", 0..=u16::MAX);
        let api_url = r.optional("API_URL", "http://HOST:PORT or https://HOST", urls::api);
        let mailer = r.optional("MAILER_URL", urls::MAILER_FORMS, urls::mailer);
        let files_dir = r.optional("FILES_URL", urls::FILES_FORMS, urls::files);
        let config = Self {
            app_env: r.app_env(),
            api_url: api_url.unwrap_or_else(|| CredentialUrl::new(host.local_url(port))),
            host,
            port,
            broker: broker(r, &data_dir),
            jobs_dir: r.value("JOBS_DIR", "a folder", values::path),
            watch: r.yes_or_no("WATCH"),
            worker_concurrency: concurrency(r, machine),
            worker_threads: r
                .optional("WORKER_THREADS", "a whole number from 1 to 1024", values::threads)
                .unwrap_or(machine.cores),
            worker_queues: r.value("WORKER_QUEUES", values::QUEUES_FORM, values::queues),
            worker_addr: r.optional("WORKER_ADDR", "IP:PORT, such as 127.0.0.1:8081 or [::1]:8081", values::address),
            lease: r.duration("LEASE", Duration::from_secs(1)..=Duration::from_hours(1)),
            shutdown_grace: r.duration("SHUTDOWN_GRACE", Duration::ZERO..=Duration::from_hours(24)),
            api_keys: api_keys(r),
            api_key: r.given("API_KEY").map(|key| Secret::new(key.into())),
            max_body: r.size("MAX_BODY", 1),
            max_batch: r.size("MAX_BATCH", 1),
            max_pending: r.number("MAX_PENDING", 1..=i64::MAX.unsigned_abs()),
            retain_bytes: r.disk_size("RETAIN_BYTES"),
            mailer: mailer.unwrap_or_else(|| Mailer::File(data_dir.join("outbox"))),
            mail_from: r.value("MAIL_FROM", "an address such as jobs@example.com, or Name <address>", values::mailbox),
            files_dir: files_dir.unwrap_or_else(|| data_dir.join("files")),
            databases: databases(r, vars),
            secrets: secrets(r, vars),
            http_allow_private: r.value("HTTP_ALLOW_PRIVATE", values::NETWORKS_FORM, values::networks),
            log_level: r.value("LOG_LEVEL", values::LOG_LEVEL_FORM, values::log_level),
            log_format: r.value("LOG_FORMAT", "json, pretty or auto", LogFormat::parse),
            log_dir: Some(r.text_or_blank("LOG_DIR")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            log_keep_files: r.number("LOG_KEEP_FILES", 2..=3650),
            allow_eviction: r.yes_or_no("ALLOW_EVICTION"),
            limits: limits(r),
            warnings: warnings(vars),
            data_dir,
        };
        check_exposure(r, &config);
        reader.into_faults().map_or(Ok(config), Err)
    }
}

/// What of the machine bounds the configuration.
struct Machine {
    cores: usize,
    /// `vm.max_map_count`; `None` where the system has no such limit.
    max_map_count: Option<usize>,
}

impl Machine {
    fn detect() -> Self {
        let map_count = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            max_map_count: map_count.and_then(|text| text.trim().parse().ok()),
        }
    }
}

fn broker(r: &mut Reader<'_>, data_dir: &Path) -> BrokerUrl {
    let given = if r.given("BROKER_URL").is_some() {
        r.optional("BROKER_URL", urls::BROKER_FORMS, urls::broker)
    } else {
        r.optional("REDIS_URL", urls::REDIS_FORMS, urls::redis)
    };
    given.unwrap_or_else(|| BrokerUrl::Sqlite { path: data_dir.join("ryemill.db"), sync_normal: false })
}

/// Each run's stack takes two maps and the process needs some itself, so a third of the limit is safe.
fn concurrency(r: &mut Reader<'_>, machine: &Machine) -> usize {
    let asked = r.number("WORKER_CONCURRENCY", 1..=1_000_000);
    if let Some(max_map_count) = machine.max_map_count
        && asked > max_map_count / 3
    {
        let most = max_map_count / 3;
        r.fault(
            "WORKER_CONCURRENCY",
            format!("{asked} runs need more memory maps than vm.max_map_count={max_map_count} allows"),
            format!("at most {most}, or a larger limit: sysctl -w vm.max_map_count={}", asked.saturating_mul(3)),
        );
    }
    asked
}

fn api_keys(r: &mut Reader<'_>) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    let mut add = |r: &mut Reader<'_>, name: &str, place: String, entry: &str| {
        let problem = match ApiKey::from_entry(entry) {
            Ok(key) if keys.iter().any(|known| known.id() == key.id()) => {
                format!("{place}: the id {} is there already", key.id())
            }
            Ok(key) => return keys.push(key),
            Err(problem) => format!("{place}: {problem}"),
        };
        r.fault(name, problem, api_keys::ENTRY_FORM);
    };
    let entries = r.given("API_KEYS").unwrap_or_default().split(',').map(str::trim);
    for (index, entry) in entries.enumerate().filter(|(_, entry)| !entry.is_empty()) {
        add(r, "API_KEYS", format!("entry {}", index + 1), entry);
    }
    if let Some(path) = r.given("API_KEYS_FILE") {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
                for (index, entry) in lines.enumerate().filter(|(_, entry)| !entry.is_empty()) {
                    add(r, "API_KEYS_FILE", format!("line {}", index + 1), entry);
                }
            }
            Err(error) => r.fault("API_KEYS_FILE", format!("it cannot be read: {error}"), "a readable file"),
        }
    }
    keys
}

/// The variables of a family with the part of the name that was chosen, lower case. A name that scripts could not
/// tell from another one is a fault.
fn family<'a>(
    r: &mut Reader<'_>,
    vars: &'a BTreeMap<String, String>,
    pick: impl Fn(Family<'a>) -> Option<&'a str>,
) -> Vec<(&'a str, String)> {
    let mut found = Vec::new();
    for variable in vars.keys() {
        let Some(name) = variables::family(variable).and_then(&pick) else { continue };
        if !name.is_empty() && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_') {
            found.push((variable.as_str(), name.to_ascii_lowercase()));
        } else {
            r.fault(variable, "the name in it is not usable", "a name of A-Z, 0-9 and _");
        }
    }
    found
}

fn databases(r: &mut Reader<'_>, vars: &BTreeMap<String, String>) -> BTreeMap<String, DatabaseUrl> {
    let names = family(r, vars, |family| if let Family::Database(name) = family { Some(name) } else { None });
    let mut databases = BTreeMap::new();
    for (variable, name) in names {
        match urls::database(vars[variable].trim()) {
            Ok(url) => drop(databases.insert(name, url)),
            Err(problem) => r.fault(variable, problem, urls::DATABASE_FORMS),
        }
    }
    databases
}

fn secrets(r: &mut Reader<'_>, vars: &BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    // Shorter ones could not be masked in logs without masking half the log.
    const SHORTEST: usize = 8;
    let names = family(r, vars, |family| if let Family::Secret(name) = family { Some(name) } else { None });
    let mut secrets = BTreeMap::new();
    for (variable, name) in names {
        let value = &vars[variable];
        if value.chars().count() < SHORTEST {
            r.fault(variable, format!("it has fewer than {SHORTEST} characters"), "a secret of 8 characters or more");
        } else {
            secrets.insert(name, Secret::new(value.clone()));
        }
    }
    secrets
}

fn limits(r: &mut Reader<'_>) -> Limits {
    Limits {
        // The JSON parser itself stops at 128, and the request around a payload takes some.
        max_depth: r.number("MAX_DEPTH", 1..=100),
        max_payload: r.size("MAX_PAYLOAD", 1),
        max_result: r.size("MAX_RESULT", 1),
        max_thrown: r.size("MAX_THROWN", 1),
        log_rate: r.number("LOG_RATE", 1..=1_000_000),
        log_bytes: r.size("LOG_BYTES", 1),
        log_line: r.size("LOG_LINE", 256),
        progress_rate: r.number("PROGRESS_RATE", 1..=1000),
        max_files: r.number("MAX_FILES", 0..=100_000),
        max_files_bytes: r.disk_size("MAX_FILES_BYTES"),
        max_children: r.number("MAX_CHILDREN", 0..=1_000_000),
        max_tree_depth: r.number("MAX_TREE_DEPTH", 0..=1000),
    }
}

/// Without keys anybody who reaches the server may run jobs, so then only this machine may reach it.
fn check_exposure(r: &mut Reader<'_>, config: &Config) {
    // Keys that were given but are faulty are reported already.
    if config.api_keys.is_empty()
        && !config.host.is_loopback()
        && !["API_KEYS", "API_KEYS_FILE"].iter().any(|name| r.has_fault(name))
    {
        r.fault(
            "HOST",
            "other machines can reach it and there is no API key",
            "127.0.0.1, ::1 or localhost; any address once API_KEYS or API_KEYS_FILE is set",
        );
    }
}

fn warnings(vars: &BTreeMap<String, String>) -> Vec<String> {
    let misspelt = vars.keys().filter_map(|name| {
        variables::meant(name).map(|known| format!("{name} is not a variable of Ryemill; did you mean {known}?"))
    });
    let tracing = vars
        .get("OTEL_EXPORTER_OTLP_ENDPOINT")
        .filter(|endpoint| !endpoint.trim().is_empty())
        .map(|_| "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build exports no traces".into());
    misspelt.chain(tracing).collect()
}

#[cfg(test)]
mod tests;
