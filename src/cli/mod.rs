//! The command line: one file per command. Only here are configuration, broker, server and worker wired together.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod check;
mod client;
mod definitions;
mod demo;
mod dev;
mod doctor;
mod follow;
mod keys;
mod new;
mod run;
mod sample;
mod server;
mod setup;
mod submit;
mod test;
mod worker;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// Background jobs that are scripts.
#[derive(Parser, Debug)]
#[command(name = "ryemill", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve the HTTP API.
    Server,
    /// Run jobs.
    Worker,
    /// Serve and run jobs in one process, with scripts taken live as you edit them.
    Dev,
    /// Run the example of every script once, show what they made, and end.
    Demo,
    /// Check scripts: syntax, metadata, examples, imports. Nothing is run.
    Check {
        /// A jobs folder, one file in it, or the name of a job; `JOBS_DIR` when absent.
        path: Option<PathBuf>,
        /// Faults as JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Run one script here and now, without a broker.
    Run(RunArgs),
    /// Run the tests of scripts: each `fn test_…()` of `NAME.test.rhai`.
    Test(TestArgs),
    /// Make a script and its tests from a template.
    New {
        /// The job's name: `email` for jobs/email.rhai.
        name: String,
    },
    /// Write what scripts can call as definition files for the Rhai language server.
    Definitions {
        /// Where they go.
        #[arg(default_value = "definitions")]
        folder: PathBuf,
        /// As JSON to standard output instead, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Look at all that Ryemill stands on: configuration, broker, scripts, process manager.
    Doctor(DoctorArgs),
    /// Submit a job to the API.
    Submit(SubmitArgs),
    /// Make API keys.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
}

#[derive(Args, Debug)]
struct DoctorArgs {
    /// Hold every record, index and count of the broker against the others, too. Reads every job; work goes on meanwhile.
    #[arg(long)]
    fsck: bool,
    /// And mend what disagrees.
    #[arg(long, requires = "fsck")]
    repair: bool,
    /// What was found as JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The job's name: `email` for jobs/email.rhai.
    name: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Run it again whenever something in the jobs folder changes, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// The report of the run as JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct TestArgs {
    /// One job (`email`) or one test (`email::test_sends_mail`); all when absent.
    name: Option<String>,
    /// How long one test may take: 500ms, 10s, 1m …
    #[arg(long, default_value = "10s")]
    timeout: String,
    /// The results as JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
struct PayloadArgs {
    /// JSON, or @FILE, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: Option<String>,
    /// The script's first example.
    #[arg(long)]
    example: bool,
}

#[derive(Args, Debug)]
struct SubmitArgs {
    /// The job's name.
    name: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Start it later: 10s, 5m, 1h …
    #[arg(long)]
    delay: Option<String>,
    /// 0 to 9; 9 goes first.
    #[arg(long)]
    priority: Option<u8>,
    /// A tag; may be given several times.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// The same key and payload again answer the first job.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Show its log and progress until it has ended; the exit code is 0 when it succeeded.
    #[arg(long)]
    follow: bool,
    /// The job as JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum KeysCommand {
    /// Make a key: it is shown once, with the entry for `API_KEYS`.
    New {
        /// What the key is called in logs: letters, digits and `-`.
        #[arg(long, default_value = "key")]
        id: String,
        /// submit, read, admin; several with commas.
        #[arg(long, value_delimiter = ',', default_value = "submit,read")]
        scopes: Vec<String>,
    },
}

/// How a command failed.
#[derive(Debug)]
enum Failure {
    /// What was asked for did not work; exit code 1.
    Failed(String),
    /// The command line or the configuration is wrong; exit code 2.
    Usage(String),
    /// Everything was said already; exit code 1.
    Said,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

type Outcome = Result<(), Failure>;

impl Cli {
    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        // Nobody else sets one: TLS has the one provider that is built in.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let outcome = match self.command {
            Command::Server => with_config(server::run),
            Command::Worker => with_config(worker::run),
            Command::Dev => with_config(dev::run),
            Command::Demo => with_config(demo::run),
            Command::Check { path, json } => with_config(|config| check::run(&config, path, json)),
            Command::Run(args) => with_config(|config| run::run(config, &args)),
            Command::Test(args) => with_config(|config| test::run(&config, &args)),
            Command::New { name } => with_config(|config| new::run(&config, &name)),
            Command::Definitions { folder, json } => definitions::run(&folder, json),
            Command::Doctor(args) => doctor::run(&args),
            Command::Submit(args) => with_config(|config| submit::run(&config, &args)),
            Command::Keys { command: KeysCommand::New { id, scopes } } => keys::new(&id, &scopes),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Said) => ExitCode::from(1),
            Err(Failure::Failed(why)) => {
                eprintln!("ryemill: {why}");
                ExitCode::from(1)
            }
            Err(Failure::Usage(why)) => {
                eprintln!("ryemill: {why}");
                ExitCode::from(2)
            }
        }
    }
}

fn with_config(command: impl FnOnce(Config) -> Outcome) -> Outcome {
    command(Config::load().map_err(|faults| Failure::Usage(faults.to_string()))?)
}

/// Prints to standard output; a reader that has gone away is no fault of ours.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The payload that the arguments name; `example` looks one up.
fn payload(args: &PayloadArgs, example: impl FnOnce() -> Result<Option<String>, Failure>) -> Result<String, Failure> {
    let text = match (&args.payload, args.example) {
        (None, true) => {
            return example()?.ok_or_else(|| Failure::Usage("the script has no `examples` in its `const JOB`".into()));
        }
        (None, false) => "{}".to_owned(),
        (Some(given), _) => match given.strip_prefix('@') {
            None if given != "-" => given.clone(),
            None | Some("-") => std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::Usage(format!("standard input cannot be read: {error}")))?,
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("the payload file {file} cannot be read: {error}")))?,
        },
    };
    serde_json::from_str::<&serde_json::value::RawValue>(&text)
        .map_err(|error| Failure::Usage(format!("the payload is not JSON: {error}")))?;
    Ok(text)
}
