//! `ryemill keys new`: an API key, and the entry that makes a server accept it.

use std::collections::BTreeSet;

use super::{Failure, Outcome, say};
use crate::config::Scope;
use crate::server;

pub fn new(id: &str, scopes: &[String]) -> Outcome {
    let scopes = scopes
        .iter()
        .map(|scope| scope.trim().parse::<Scope>().map_err(Failure::Usage))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let (key, entry) = server::new_key(id, scopes).map_err(Failure::Usage)?;
    say(&format!(
        "The key, for clients (shown once, stored nowhere):\n\n  {key}\n\n\
         The entry, for API_KEYS of the server:\n\n  {entry}"
    ));
    Ok(())
}
