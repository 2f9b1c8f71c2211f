//! The table of every variable: the one source for defaults, for what is masked, for `.env.example` and for
//! noticing misspelt names. How a value is parsed is not here.

/// A variable that Ryemill reads.
#[derive(Debug)]
pub struct Variable {
    /// The name; `<NAME>` stands for a part that the operator chooses.
    pub name: &'static str,
    pub default: Preset,
    pub secrecy: Secrecy,
    /// Meaning, unit and range, for the operator.
    pub doc: &'static str,
}

/// What holds when a variable is unset or blank.
#[derive(Debug, Clone, Copy)]
pub enum Preset {
    /// This text, parsed like a given one.
    Value(&'static str),
    /// One of these by `APP_ENV`.
    ByEnvironment { local: &'static str, production: &'static str },
    /// Worked out from other variables or the machine; the text is what that comes to with nothing set.
    Derived(&'static str),
    /// Nothing.
    Unset,
}

/// What of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    Open,
    /// A URL: shown without user, password and query.
    Url,
    /// Nothing of it.
    Secret,
}

const fn open(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default: Preset::Value(default), secrecy: Secrecy::Open, doc }
}

const fn with(name: &'static str, default: Preset, secrecy: Secrecy, doc: &'static str) -> Variable {
    Variable { name, default, secrecy, doc }
}

/// Every variable, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    open(
        "APP_ENV",
        "local",
        "local or production. Picks the files that are read: .env.local or .env.production, then .env; the process \
         environment wins over both, the first file over the second. Read from the process environment only.",
    ),
    open(
        "HOST",
        "127.0.0.1",
        "Address the server listens on. Anything but a loopback address needs API_KEYS or API_KEYS_FILE.",
    ),
    open("PORT", "8080", "Port the server listens on; 0 takes a free one."),
    with(
        "BROKER_URL",
        Preset::Derived("sqlite:data/ryemill.db"),
        Secrecy::Url,
        "Where jobs are kept: sqlite:PATH, redis://HOST:PORT/DB, rediss:// (TLS), redis-cluster://HOST,HOST or \
         redis-sentinel://HOST,HOST/MASTER. sqlite:PATH?sync=normal is faster and may lose the last accepted jobs at \
         a power cut. Default: ryemill.db in DATA_DIR.",
    ),
    with("REDIS_URL", Preset::Unset, Secrecy::Url, "Read when BROKER_URL is unset, for hosts that provide it."),
    open("JOBS_DIR", "jobs", "Folder of the job scripts."),
    open("DATA_DIR", "data", "Folder for what Ryemill keeps on this machine."),
    with(
        "WATCH",
        Preset::ByEnvironment { local: "yes", production: "no" },
        Secrecy::Open,
        "yes or no: load scripts again when their files change. Without it a worker takes them at its start.",
    ),
    open(
        "WORKER_CONCURRENCY",
        "1000",
        "Runs that a worker has at the same time. At most a third of vm.max_map_count, since each run maps a stack.",
    ),
    with(
        "WORKER_THREADS",
        Preset::Derived(""),
        Secrecy::Open,
        "Threads of a worker that execute scripts. Default: one for each CPU.",
    ),
    open(
        "WORKER_QUEUES",
        "",
        "Queues that a worker serves, with weights: mail:3,default:1 takes three from mail for one from default. \
         A weight is 1 to 1000, without one it is 1. Blank: all queues, equally.",
    ),
    with(
        "WORKER_ADDR",
        Preset::Unset,
        Secrecy::Open,
        "IP:PORT where a worker answers /healthz, /readyz and /metrics. Blank: nowhere.",
    ),
    open("LEASE", "30s", "How long a worker may be silent before its runs start again elsewhere; 1s to 1h."),
    open("SHUTDOWN_GRACE", "20s", "What runs get to finish after SIGTERM before they are handed back; 0s to 1d."),
    with(
        "API_KEYS",
        Preset::Unset,
        Secrecy::Secret,
        "Keys that may call the API, comma separated: ID:SHA256-HEX-OF-THE-KEY:SCOPES, scopes being submit, read and \
         admin joined by +. `ryemill keys new` makes a key and its entry. Without keys the server is open to this \
         machine only.",
    ),
    with("API_KEYS_FILE", Preset::Unset, Secrecy::Open, "File with more such entries, one a line; # begins a comment."),
    with(
        "API_URL",
        Preset::Derived("http://127.0.0.1:8080"),
        Secrecy::Url,
        "Where the commands submit and jobs find the server. Default: this machine at PORT.",
    ),
    with("API_KEY", Preset::Unset, Secrecy::Secret, "The key that these commands send, when the server wants one."),
    open("MAX_BODY", "1MiB", "Largest request body; 1 to 1GiB."),
    open("MAX_BATCH", "16MiB", "Largest body of POST /v1/jobs/batch; 1 to 1GiB."),
    open(
        "MAX_PENDING",
        "1000000",
        "Queued and scheduled jobs in all, at least 1; above it submits are answered with 429.",
    ),
    open(
        "RETAIN_BYTES",
        "1GiB",
        "Ended jobs kept in each queue, by their encoded size; above it the oldest are removed.",
    ),
    with(
        "MAILER_URL",
        Preset::Derived("file:data/outbox"),
        Secrecy::Url,
        "How mail leaves: smtp://USER:PASSWORD@HOST:PORT (with ?tls=required or ?tls=opportunistic), smtps:// (TLS from \
         the start) or file:FOLDER, which writes .eml files. Default: outbox in DATA_DIR.",
    ),
    open("MAIL_FROM", "ryemill@localhost", "Sender of mail that names none: an address or 'Name <address>'."),
    with(
        "FILES_URL",
        Preset::Derived("file:data/files"),
        Secrecy::Url,
        "Where the files of jobs are kept: file:FOLDER, shared by server and workers. Default: files in DATA_DIR.",
    ),
    with(
        "DATABASE_<NAME>_URL",
        Preset::Unset,
        Secrecy::Url,
        "A database for scripts, which call it by NAME in any case: sqlite:PATH or \
         postgres://USER:PASSWORD@HOST:PORT/NAME. NAME is of A-Z, 0-9 and _.",
    ),
    with(
        "SECRET_<NAME>",
        Preset::Unset,
        Secrecy::Secret,
        "A secret for scripts that allow it, which call it by NAME in any case; at least 8 characters.",
    ),
    open(
        "HTTP_ALLOW_PRIVATE",
        "",
        "Private networks that scripts may call over HTTP, comma separated: 10.1.0.0/16,127.0.0.1. Blank: none.",
    ),
    open("LOG_LEVEL", "info", "error, warn, info, debug, trace or off; by module: info,ryemill=debug,hyper=warn."),
    open(
        "LOG_FORMAT",
        "auto",
        "Log on the console: json, pretty, or auto: pretty on a terminal, else json. NO_COLOR takes the colours off.",
    ),
    with(
        "LOG_DIR",
        Preset::ByEnvironment { local: "logs", production: "" },
        Secrecy::Open,
        "Folder of the daily log files, always JSON; in production choose one outside the checkout. Blank: no files.",
    ),
    open("LOG_KEEP_FILES", "14", "Daily files kept for each role (server, worker, dev); 2 to 3650."),
    open(
        "ALLOW_EVICTION",
        "no",
        "yes or no: start on a Redis that may evict keys, which loses jobs when memory is full.",
    ),
    with(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        Preset::Unset,
        Secrecy::Url,
        "Collector for traces. This build exports none: setting it gives a warning.",
    ),
    open("MAX_DEPTH", "64", "Nesting of JSON in payloads and results; 1 to 100."),
    open("MAX_PAYLOAD", "1MiB", "Payload of a job; 1 to 1GiB."),
    open("MAX_RESULT", "1MiB", "Result of a job; 1 to 1GiB."),
    open("MAX_THROWN", "64KiB", "Value thrown by a script; 1 to 1GiB."),
    open("LOG_RATE", "1000", "Log lines a second of one run; 1 to 1000000."),
    open("LOG_BYTES", "8MiB", "Log kept for one job, the oldest lines go first; 1 to 1GiB."),
    open("LOG_LINE", "16KiB", "One log line of a job; 256 to 1GiB."),
    open("PROGRESS_RATE", "10", "Progress reports a second of one run that are stored; 1 to 1000."),
    open("MAX_FILES", "100", "Files of one job; 0 to 100000."),
    open("MAX_FILES_BYTES", "1GiB", "All files of one job together."),
    open("MAX_CHILDREN", "1000", "Jobs that one run may submit; 0 to 1000000."),
    open("MAX_TREE_DEPTH", "16", "Generations of jobs submitted by jobs; 0 to 1000."),
];

/// The entry for a name, also for one that belongs to a family such as `SECRET_<NAME>`.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.get(position(name)?)
}

/// Where in the table it is.
pub(super) fn position(name: &str) -> Option<usize> {
    let entry = match family(name) {
        Some(Family::Database(_)) => "DATABASE_<NAME>_URL",
        Some(Family::Secret(_)) => "SECRET_<NAME>",
        None => name,
    };
    VARIABLES.iter().position(|variable| variable.name == entry)
}

/// A name made by the operator, with the part that was chosen.
pub(super) enum Family<'a> {
    Database(&'a str),
    Secret(&'a str),
}

pub(super) fn family(name: &str) -> Option<Family<'_>> {
    let database = name.strip_prefix("DATABASE_").and_then(|rest| rest.strip_suffix("_URL"));
    database.map(Family::Database).or_else(|| name.strip_prefix("SECRET_").map(Family::Secret))
}

/// For a name that is not in the table: the entry its writer probably meant. Strict, because the process
/// environment is full of names that are none of our business.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    if find(name).is_some() {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    if let Some(variable) = find(&upper) {
        return Some(variable.name);
    }
    let near = |a: &str, b: &str| strsim::damerau_levenshtein(a, b) <= 1 + usize::from(b.len() >= 8);
    let fixed = VARIABLES.iter().filter(|variable| !variable.name.contains('<'));
    fixed.map(|variable| variable.name).find(|known| near(&upper, known)).or_else(|| {
        let (first, rest) = upper.split_once('_')?;
        if near(first, "DATABASE") && (first != "DATABASE" || !rest.is_empty()) {
            Some("DATABASE_<NAME>_URL")
        } else {
            near(first, "SECRET").then_some("SECRET_<NAME>")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_noticed() {
        for (given, known) in [
            ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
            ("BROKER_ULR", "BROKER_URL"),
            ("API_KEYZ", "API_KEYS"),
            ("JOB_DIR", "JOBS_DIR"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("LOG_LVL", "LOG_LEVEL"),
            ("port", "PORT"),
            ("PROT", "PORT"),
            ("DATABASE_URL", "DATABASE_<NAME>_URL"),
            ("DATABASE_SALES", "DATABASE_<NAME>_URL"),
            ("DATABSE_SALES_URL", "DATABASE_<NAME>_URL"),
            ("SECRETS_STRIPE", "SECRET_<NAME>"),
            ("SERCET_STRIPE", "SECRET_<NAME>"),
        ] {
            assert_eq!(meant(given), Some(known), "{given}");
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "PATH",
            "HOME",
            "USER",
            "SHELL",
            "LANG",
            "LC_ALL",
            "TERM",
            "PWD",
            "OLDPWD",
            "LOGNAME",
            "MAIL",
            "HOSTNAME",
            "HOSTTYPE",
            "TZ",
            "EDITOR",
            "DISPLAY",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "CARGO_HOME",
            "NODE_ENV",
            "PM2_HOME",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "NOTIFY_SOCKET",
            "SSH_AUTH_SOCK",
            "XDG_DATA_DIRS",
            "http_proxy",
            "NO_PROXY",
            "NO_COLOR",
            "_",
            "SHLVL",
            "npm_config_cache",
            "PS1",
            "AWS_SECRET_ACCESS_KEY",
            "JOBS",
            "WORKERS",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        let mut names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
