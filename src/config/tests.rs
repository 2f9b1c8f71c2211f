//! The whole configuration: defaults, faults all at once, masking, and `.env.example` against the table.

use std::fmt::Write as _;

use super::*;

const MACHINE: Machine = Machine { cores: 2, max_map_count: Some(65530) };

fn map(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
    vars.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()
}

fn config(vars: &[(&str, &str)]) -> Config {
    Config::from_map_on(&map(vars), &MACHINE).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The faults without the heading, one a line.
fn faults(vars: &[(&str, &str)]) -> Vec<String> {
    let errors = Config::from_map_on(&map(vars), &MACHINE).expect_err("faults");
    errors.faults.iter().map(ToString::to_string).collect()
}

fn entry(id: &str) -> String {
    ApiKey::new(id, "rm_key", [Scope::Read].into()).unwrap().to_string()
}

#[test]
fn defaults() {
    let config = config(&[]);
    assert_eq!(config.app_env, AppEnv::Local);
    assert_eq!((config.host.to_string().as_str(), config.port), ("127.0.0.1", 8080));
    assert_eq!(config.broker, BrokerUrl::Sqlite { path: "data/ryemill.db".into(), sync_normal: false });
    assert_eq!((config.jobs_dir, config.data_dir), ("jobs".into(), "data".into()));
    assert!(config.watch);
    assert_eq!((config.worker_concurrency, config.worker_threads), (1000, 2));
    assert!(config.worker_queues.is_empty() && config.worker_addr.is_none());
    assert_eq!((config.lease, config.shutdown_grace), (Duration::from_secs(30), Duration::from_secs(20)));
    assert!(config.api_keys.is_empty() && config.api_key.is_none());
    assert_eq!(config.api_url.expose(), "http://127.0.0.1:8080");
    assert_eq!((config.max_body, config.max_batch), (1 << 20, 16 << 20));
    assert_eq!((config.max_pending, config.retain_bytes), (1_000_000, 1 << 30));
    assert_eq!(config.mailer, Mailer::File("data/outbox".into()));
    assert_eq!(config.mail_from, "ryemill@localhost");
    assert_eq!(config.files_dir, PathBuf::from("data/files"));
    assert!(config.databases.is_empty() && config.secrets.is_empty() && config.http_allow_private.is_empty());
    assert_eq!((config.log_level.as_str(), config.log_format), ("info", LogFormat::Auto));
    assert_eq!((config.log_dir, config.log_keep_files), (Some("logs".into()), 14));
    assert!(!config.allow_eviction);
    assert_eq!(config.limits, Limits::default());
    assert!(config.warnings.is_empty());
}

#[test]
fn production_neither_watches_nor_picks_a_log_folder() {
    let production = config(&[("APP_ENV", "production")]);
    assert!(!production.watch);
    assert_eq!(production.log_dir, None);
    let chosen = config(&[("APP_ENV", "production"), ("WATCH", "yes"), ("LOG_DIR", "/var/log/ryemill")]);
    assert!(chosen.watch);
    assert_eq!(chosen.log_dir, Some("/var/log/ryemill".into()));
    assert_eq!(config(&[("LOG_DIR", "")]).log_dir, None);
}

#[test]
fn the_text_of_every_default_means_the_default() {
    let text = |preset| match preset {
        Preset::Value(text) | Preset::Derived(text) | Preset::ByEnvironment { local: text, .. } => Some(text),
        Preset::Unset => None,
    };
    let set: Vec<_> = VARIABLES.iter().filter_map(|v| text(v.default).map(|text| (v.name, text))).collect();
    assert_eq!(config(&set), config(&[]));
    let production = |preset| match preset {
        Preset::ByEnvironment { production, .. } => Some(production),
        other => text(other),
    };
    let mut set: Vec<_> = VARIABLES.iter().filter_map(|v| production(v.default).map(|text| (v.name, text))).collect();
    set.retain(|(name, _)| *name != "APP_ENV");
    set.push(("APP_ENV", "production"));
    assert_eq!(config(&set), config(&[("APP_ENV", "production")]));
}

#[test]
fn given_values_are_used() {
    let config = config(&[
        ("HOST", "0.0.0.0"),
        ("PORT", " 9000 "),
        ("REDIS_URL", "redis://cache:6379/1"),
        ("DATA_DIR", "/var/lib/ryemill"),
        ("WORKER_THREADS", "4"),
        ("WORKER_ADDR", "127.0.0.1:9100"),
        ("LEASE", "3s"),
        ("API_KEYS", &format!("{}, {}", entry("a"), entry("b"))),
        ("API_KEY", "rm_a_key"),
        ("DATABASE_SALES_2_URL", "sqlite:sales.db"),
        ("SECRET_STRIPE_KEY", "sk_live_12345"),
        ("ALLOW_EVICTION", "YES"),
        ("MAX_PAYLOAD", "2MiB"),
        ("MAX_TREE_DEPTH", "0"),
        ("WORKER_CONCURRENCY", ""),
    ]);
    assert_eq!(config.port, 9000);
    assert_eq!(config.api_url.expose(), "http://127.0.0.1:9000");
    assert_eq!(config.broker, BrokerUrl::Redis { url: CredentialUrl::new("redis://cache:6379/1".into()) });
    assert_eq!(config.mailer, Mailer::File("/var/lib/ryemill/outbox".into()));
    assert_eq!(config.files_dir, PathBuf::from("/var/lib/ryemill/files"));
    assert_eq!(config.worker_threads, 4);
    assert_eq!(config.worker_addr, "127.0.0.1:9100".parse().ok());
    assert_eq!(config.lease, Duration::from_secs(3));
    assert_eq!(config.api_keys.iter().map(ApiKey::id).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.databases["sales_2"], DatabaseUrl::Sqlite { path: "sales.db".into() });
    assert_eq!(config.secrets["stripe_key"].expose(), "sk_live_12345");
    assert!(config.allow_eviction);
    assert_eq!(config.limits, Limits { max_payload: 2 << 20, max_tree_depth: 0, ..Limits::default() });
    assert_eq!(config.worker_concurrency, 1000);
}

#[test]
fn the_broker_follows_data_dir_unless_told_otherwise() {
    let at = |vars: &[(&str, &str)]| config(vars).broker;
    let sqlite = |path: &str| BrokerUrl::Sqlite { path: path.into(), sync_normal: false };
    assert_eq!(at(&[("DATA_DIR", "d")]), sqlite("d/ryemill.db"));
    assert_eq!(at(&[("DATA_DIR", "d"), ("BROKER_URL", "sqlite:x.db")]), sqlite("x.db"));
    assert_eq!(at(&[("REDIS_URL", "not used"), ("BROKER_URL", "sqlite:x.db")]), sqlite("x.db"));
}

#[test]
fn all_faults_are_listed_at_once_and_no_secret() {
    let found = faults(&[
        ("APP_ENV", "staging"),
        ("HOST", "http://x"),
        ("PORT", "80\n80"),
        ("BROKER_URL", "redis://user:hunter22@/0"),
        ("WATCH", "maybe"),
        ("WORKER_CONCURRENCY", "21844"),
        ("WORKER_THREADS", "0"),
        ("WORKER_QUEUES", "mail:0"),
        ("WORKER_ADDR", "9100"),
        ("LEASE", "999ms"),
        ("SHUTDOWN_GRACE", "20"),
        ("API_KEYS", "rm_ops_hunter22,ops:hunter22:admin"),
        ("API_KEYS_FILE", "/nowhere/keys"),
        ("API_URL", "ftp://u:hunter22@x"),
        ("MAX_BODY", "2GiB"),
        ("MAX_PENDING", "-1"),
        ("MAILER_URL", "smtp//u:hunter22@x"),
        ("MAIL_FROM", "nobody"),
        ("FILES_URL", "s3://key:hunter22@bucket"),
        ("DATABASE_SALES_URL", "mysql://u:hunter22@x/sales"),
        ("DATABASE_lower_URL", "sqlite:x.db"),
        ("SECRET_SHORT", "hunter2"),
        ("SECRET_", "hunter22"),
        ("HTTP_ALLOW_PRIVATE", "10.0.0.0/8,lan"),
        ("LOG_LEVEL", "inof"),
        ("LOG_FORMAT", "xml"),
        ("LOG_KEEP_FILES", "1"),
        ("MAX_DEPTH", "101"),
        ("LOG_LINE", "255"),
        ("MAX_FILES_BYTES", "1GB"),
    ]);
    assert!(!found.concat().contains("hunter2"), "{found:#?}");
    insta::assert_snapshot!(found.join("\n"), @r"
    APP_ENV=staging: it is neither; accepted: local or production
    HOST=http://x: it is neither an IP address nor a host name; accepted: an IP address or a host name, without a port
    PORT=80\n80: it is not a whole number; accepted: a whole number from 0 to 65535
    BROKER_URL=redis://***@/0: empty host; accepted: sqlite:PATH, sqlite:PATH?sync=normal, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, redis-cluster://HOST,HOST or redis-sentinel://HOST,HOST/MASTER
    WATCH=maybe: it is neither; accepted: yes or no
    WORKER_CONCURRENCY=21844: 21844 runs need more memory maps than vm.max_map_count=65530 allows; accepted: at most 21843, or a larger limit: sysctl -w vm.max_map_count=65532
    WORKER_THREADS=0: it is not a number in that range; accepted: a whole number from 1 to 1024
    WORKER_QUEUES=mail:0: the weight of mail is not a number from 1 to 1000; accepted: queues with weights from 1 to 1000, such as mail:3,default:1; blank for all
    WORKER_ADDR=9100: it is not an IP address and a port; accepted: IP:PORT, such as 127.0.0.1:8081 or [::1]:8081
    LEASE=999ms: it is out of range; accepted: from 1s to 1h, such as 250ms, 2s, 5m, 1h, 1d
    SHUTDOWN_GRACE=20: it has no unit; accepted: from 0s to 1d, such as 250ms, 2s, 5m, 1h, 1d
    API_KEYS=***: entry 1: it is a key; only its entry with the hash belongs here; accepted: ID:SHA256-HEX-OF-THE-KEY:SCOPES, such as ops:9f86…0a08:submit+read (`ryemill keys new` prints one)
    API_KEYS=***: entry 2: the hash is not of 64 hexadecimal digits; accepted: ID:SHA256-HEX-OF-THE-KEY:SCOPES, such as ops:9f86…0a08:submit+read (`ryemill keys new` prints one)
    API_KEYS_FILE=/nowhere/keys: it cannot be read: No such file or directory (os error 2); accepted: a readable file
    API_URL=ftp://***@x: the scheme is not supported; accepted: http://HOST:PORT or https://HOST
    MAX_BODY=2GiB: it is out of range; accepted: from 1 to 1GiB, such as 1048576, 512KiB, 64MiB, 1GiB
    MAX_PENDING=-1: it is not a whole number; accepted: a whole number from 1 to 9223372036854775807
    MAILER_URL=***: the scheme is not supported; accepted: smtp://USER:PASSWORD@HOST:PORT, smtps://… or file:FOLDER
    MAIL_FROM=nobody: it is not a mail address; accepted: an address such as jobs@example.com, or Name <address>
    FILES_URL=s3://***@bucket: the scheme is not supported; accepted: file:FOLDER
    DATABASE_lower_URL=sqlite:x.db: the name in it is not usable; accepted: a name of A-Z, 0-9 and _
    DATABASE_SALES_URL=mysql://***@x/sales: the scheme is not supported; accepted: sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME
    SECRET_=***: the name in it is not usable; accepted: a name of A-Z, 0-9 and _
    SECRET_SHORT=***: it has fewer than 8 characters; accepted: a secret of 8 characters or more
    HTTP_ALLOW_PRIVATE=10.0.0.0/8,lan: entry 2 is not a network; accepted: networks or addresses, such as 10.1.0.0/16,127.0.0.1,fd00::/8; blank for none
    LOG_LEVEL=inof: `inof` is not a level; accepted: error, warn, info, debug, trace or off; by module: info,ryemill=debug
    LOG_FORMAT=xml: it is none of them; accepted: json, pretty or auto
    LOG_KEEP_FILES=1: it is out of range; accepted: a whole number from 2 to 3650
    MAX_DEPTH=101: it is out of range; accepted: a whole number from 1 to 100
    LOG_LINE=255: it is out of range; accepted: from 256 to 1GiB, such as 1048576, 512KiB, 64MiB, 1GiB
    MAX_FILES_BYTES=1GB: `GB` is not a unit, did you mean `GiB`?; accepted: a whole number of bytes, or with a unit: 1048576, 512KiB, 64MiB, 1GiB
    ");
}

#[test]
fn a_machine_that_maps_too_few_stacks_is_a_fault_even_for_the_default() {
    let small = Machine { cores: 1, max_map_count: Some(2999) };
    let errors = Config::from_map_on(&map(&[]), &small).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "1 fault in the configuration:\n  WORKER_CONCURRENCY: 1000 runs need more memory maps than \
         vm.max_map_count=2999 allows; accepted: at most 999, or a larger limit: sysctl -w vm.max_map_count=3000"
    );
    let enough = Machine { cores: 1, max_map_count: Some(3000) };
    assert!(Config::from_map_on(&map(&[]), &enough).is_ok());
    assert!(Config::from_map_on(&map(&[]), &Machine { cores: 1, max_map_count: None }).is_ok());
    assert!(Machine::detect().cores > 0);
}

#[test]
fn without_keys_only_this_machine_reaches_the_server() {
    let fault = "HOST=0.0.0.0: other machines can reach it and there is no API key; accepted: 127.0.0.1, ::1 or \
                 localhost; any address once API_KEYS or API_KEYS_FILE is set";
    assert_eq!(faults(&[("HOST", "0.0.0.0")]), [fault]);
    assert_eq!(faults(&[("HOST", "0.0.0.0"), ("API_KEYS", " , ")]), [fault]);
    config(&[("HOST", "0.0.0.0"), ("API_KEYS", &entry("a"))]);
    config(&[("HOST", "::1")]);
    // One fault for a broken key, not a second one for the host.
    assert_eq!(faults(&[("HOST", "0.0.0.0"), ("API_KEYS", "x")]).len(), 1);
}

#[test]
fn keys_come_from_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let path = path.to_str().unwrap();
    std::fs::write(path, format!("# keys\n{} # the first\n\n  {}\n", entry("b"), entry("c"))).unwrap();
    let found = config(&[("HOST", "0.0.0.0"), ("API_KEYS", &entry("a")), ("API_KEYS_FILE", path)]);
    assert_eq!(found.api_keys.iter().map(ApiKey::id).collect::<Vec<_>>(), ["a", "b", "c"]);
    std::fs::write(path, format!("{}\n{}\nhunter22\n", entry("b"), entry("a"))).unwrap();
    let found = faults(&[("API_KEYS", &entry("a")), ("API_KEYS_FILE", path)]);
    let start = format!("API_KEYS_FILE={}: line ", fault::shown(path));
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with(&format!("{start}2: the id a is there already; accepted: ID:")), "{}", found[0]);
    assert!(found[1].starts_with(&format!("{start}3: it has 1 parts between colons, not 3")), "{}", found[1]);
}

#[test]
fn debug_shows_no_secret() {
    let config = config(&[
        ("BROKER_URL", "redis://u:hunter22@host"),
        ("API_KEYS", &entry("ops")),
        ("API_KEY", "rm_ops_hunter22"),
        ("API_URL", "http://u:hunter22@host"),
        ("MAILER_URL", "smtp://u:hunter22@host"),
        ("SECRET_X", "hunter22"),
    ]);
    let shown = format!("{config:?} {config:#?}");
    assert!(!shown.contains("hunter22"), "{shown}");
    assert!(shown.contains("redis://***@host"), "{shown}");
}

#[test]
fn probable_mistakes_are_warnings() {
    assert_eq!(
        config(&[("LOG_LVL", "debug"), ("PATH", "/bin"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]).warnings,
        [
            "LOG_LVL is not a variable of Ryemill; did you mean LOG_LEVEL?",
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build exports no traces"
        ]
    );
}

#[test]
fn faults_say_which_file_a_value_is_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env.local"), "PORT=x\nBROKEN\n").unwrap();
    std::fs::write(dir.path().join(".env"), "PORT=y\nLEASE=0s\n").unwrap();
    let environment = Environment::read(dir.path(), [("WATCH".into(), "perhaps".into())].into_iter());
    let errors = Config::from_environment(environment, &MACHINE).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "4 faults in the configuration:\n  \
         .env.local:2: the line cannot be read; accepted: NAME=value; a value with spaces, quotes, $, # or \\ goes in \
         single quotes: NAME='value'\n  \
         PORT=x (.env.local): it is not a whole number; accepted: a whole number from 0 to 65535\n  \
         WATCH=perhaps (environment): it is neither; accepted: yes or no\n  \
         LEASE=0s (.env): it is out of range; accepted: from 1s to 1h, such as 250ms, 2s, 5m, 1h, 1d"
    );
}

/// `.env.example` as the table says it should be.
fn example() -> String {
    let mut text = String::from(
        "# Every variable of Ryemill with its default. Copy this file to .env.local (or .env.production, or .env for\n\
         # both) and take the # away from what you change. A value with spaces, quotes, $, # or \\ goes in single\n\
         # quotes. Durations: 250ms 2s 5m 1h 1d. Sizes: 1048576 512KiB 64MiB 1GiB. A blank value means the default.\n",
    );
    for variable in VARIABLES {
        text.push('\n');
        let mut doc = String::from(variable.doc);
        let default = match variable.default {
            Preset::Value(text) | Preset::Derived(text) => text,
            Preset::ByEnvironment { local, production } => {
                let production = if production.is_empty() { "blank" } else { production };
                write!(doc, " In production: {production}.").unwrap();
                local
            }
            Preset::Unset => "",
        };
        let mut line = String::from("#");
        for word in doc.split(' ') {
            if line.len() + 1 + word.len() > 110 {
                text += &line;
                text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line += word;
        }
        writeln!(text, "{line}\n#{}={default}", variable.name).unwrap();
    }
    text
}

/// `UPDATE_ENV_EXAMPLE=1 cargo test env_example` writes the file from the table.
#[test]
fn env_example_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example");
    if std::env::var_os("UPDATE_ENV_EXAMPLE").is_some() {
        std::fs::write(&path, example()).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap();
    assert_eq!(file, example(), "run: UPDATE_ENV_EXAMPLE=1 cargo test env_example");
}

#[test]
fn env_example_with_every_line_taken_in_means_the_defaults() {
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    let setting = |line: &str| {
        let line = line.strip_prefix('#')?;
        (!line.starts_with(' ') && !line.contains('<')).then(|| line.to_owned())
    };
    let lines: Vec<String> = file.lines().filter_map(setting).collect();
    assert_eq!(lines.len(), VARIABLES.len() - 2, "all but the two families");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), lines.join("\n")).unwrap();
    let environment = Environment::read(dir.path(), std::iter::empty());
    assert_eq!(Config::from_environment(environment, &MACHINE), Ok(config(&[])));
}
