//! What the host functions stand on, in plain Rust: HTTP, mail, databases, templates, secrets. Shared by all runs of
//! the process; knows neither engine nor fiber.
//!
//! All of them work on one runtime that is not the executor threads': connections in a pool outlive the run that
//! opened them, and what they hold is not that run's memory.

pub mod databases;
pub mod edge;
pub mod http;
pub mod mail;
pub mod net_guard;
pub mod patterns;
mod reply;
pub mod secrets;
pub mod sheets;
pub mod templates;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use url::Url;

use self::databases::Databases;
use self::edge::Edge;
use self::http::Http;
use self::mail::Mail;
use self::net_guard::AddressGuard;
use self::patterns::Patterns;
pub use self::reply::Reply;
use self::secrets::{Masker, Secrets};
use super::notes::Errand;
use super::ports::{HostError, HostResult};
use crate::config::{DatabaseUrl, Mailer, Secret};
use crate::job::ErrorKind;

/// What the operator configured for scripts; the fields of the same names in [`Config`](crate::config::Config).
#[derive(Clone, Debug)]
pub struct ServicesOptions {
    pub mailer: Mailer,
    pub mail_from: String,
    pub databases: BTreeMap<String, DatabaseUrl>,
    pub secrets: BTreeMap<String, Secret>,
    pub http_allow_private: Vec<IpNet>,
}

impl Default for ServicesOptions {
    /// No databases and no secrets; mail goes into `data/outbox`.
    fn default() -> Self {
        Self {
            mailer: Mailer::File("data/outbox".into()),
            mail_from: "ryemill@localhost".to_owned(),
            databases: BTreeMap::new(),
            secrets: BTreeMap::new(),
            http_allow_private: Vec::new(),
        }
    }
}

/// Shared by all runs of a process.
#[derive(Debug)]
pub struct Services {
    pub http: Http,
    pub mail: Mail,
    pub databases: Databases,
    pub secrets: Secrets,
    pub patterns: Patterns,
    /// Every secret, for what leaves a run as log, error or result.
    pub masker: Masker,
    runtime: Handle,
}

impl Services {
    /// Opens nothing yet. The work is done on `runtime`, which must live as long as runs do.
    ///
    /// # Errors
    /// When the mailer or the secrets cannot be used.
    pub fn new(options: ServicesOptions, runtime: &Handle) -> Result<Self, String> {
        let masker = {
            let secrets = options.secrets.values().map(|secret| Cow::Borrowed(secret.expose()));
            let databases = options.databases.values().filter_map(|database| match database {
                DatabaseUrl::Postgres { url } => password(url.expose()),
                DatabaseUrl::Sqlite { .. } => None,
            });
            let all: Vec<_> = secrets.chain(mail_password(&options.mailer)).chain(databases).collect();
            Masker::new(all.iter().map(AsRef::as_ref))?
        };
        let from = &options.mail_from;
        let mail = match options.mailer {
            Mailer::Smtp(url) => Mail::smtp(url.expose(), from, runtime.clone())?,
            Mailer::File(folder) => Mail::folder(folder, from, runtime.clone())?,
        };
        let secrets = options.secrets.into_iter().map(|(name, secret)| (name, secret.expose().to_owned()));
        Ok(Self {
            http: Http::new(AddressGuard::new(&options.http_allow_private), runtime.clone()),
            mail,
            databases: Databases::new(options.databases, runtime.clone())?,
            secrets: Secrets::new(secrets.collect()),
            patterns: Patterns::default(),
            masker,
            runtime: runtime.clone(),
        })
    }

    /// Has every call that would leave the process answered by `edge`.
    #[must_use]
    pub fn with_edge(mut self, edge: &Arc<dyn Edge>) -> Self {
        self.http.answer_by(Arc::clone(edge));
        self.mail.answer_by(Arc::clone(edge));
        self.databases.answer_by(Arc::clone(edge));
        self
    }

    /// Begins `work` on a blocking thread. It is not broken off; nobody may listen any more when it ends.
    pub fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> HostResult<T> + Send + 'static) -> Reply<T> {
        let errand = Errand::here();
        let work = move || {
            let _working = errand.begin();
            work()
        };
        Reply::of(&self.runtime, async move { joined(tokio::task::spawn_blocking(work).await) })
    }

    /// Begins `work` on a blocking thread. It is given a question to ask now and then: whether the reply is still waited
    /// for.
    pub fn compute_while_wanted<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn() -> bool) -> HostResult<T> + Send + 'static,
    ) -> Reply<T> {
        let errand = Errand::here();
        Reply::of(&self.runtime, async move {
            let stop = StopOnDrop::default();
            let stopped = Arc::clone(&stop.0);
            let task = tokio::task::spawn_blocking(move || {
                let _working = errand.begin();
                work(&|| !stopped.load(Ordering::Relaxed))
            });
            joined(task.await)
        })
    }

    /// Begins `work` on the services' runtime; dropping the reply drops it.
    pub fn elsewhere<T: Send + 'static>(&self, work: BoxFuture<'static, HostResult<T>>) -> Reply<T> {
        Reply::of(&self.runtime, work)
    }
}

/// Set when nobody waits for a call any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A mail server may repeat it in an error.
fn mail_password(mailer: &Mailer) -> Option<Cow<'static, str>> {
    let Mailer::Smtp(url) = mailer else { return None };
    password(url.expose())
}

fn password(url: &str) -> Option<Cow<'static, str>> {
    let url = Url::parse(url).ok()?;
    let decoded = percent_decode_str(url.password()?).decode_utf8().ok()?;
    Some(decoded.into_owned().into())
}

/// The answer of work on a blocking thread; its panic goes on here.
fn joined<T>(result: Result<HostResult<T>, JoinError>) -> HostResult<T> {
    result.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(HostError::new(ErrorKind::Panic, "the process is shutting down", true)),
    })
}
