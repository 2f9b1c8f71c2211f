//! The sample database of the shipped report job: made from `sample/schema.sql` in the jobs folder when it is not there.

use std::fs;
use std::path::Path;

use super::Failure;
use crate::config::{Config, DatabaseUrl};

/// The name that scripts use.
const NAME: &str = "sample";

/// Makes the sample database known to scripts, and fills it first if need be. A database of that name that is
/// configured is left alone, and a jobs folder without the SQL has none.
pub fn provide(config: &mut Config) -> Result<(), Failure> {
    let source = config.jobs_dir.join("sample/schema.sql");
    if config.databases.contains_key(NAME) || !source.exists() {
        return Ok(());
    }
    let path = config.data_dir.join("sample.db");
    if !path.exists() {
        make(&source, &path).map_err(|error| {
            Failure::Failed(format!("the sample database cannot be made from {}: {error:#}", source.display()))
        })?;
    }
    config.databases.insert(NAME.to_owned(), DatabaseUrl::Sqlite { path });
    Ok(())
}

/// Under another name first: whoever looks sees all of it or nothing.
fn make(source: &Path, path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("db.{}", std::process::id()));
    let database = rusqlite::Connection::open(&unfinished)?;
    database.execute_batch(&fs::read_to_string(source)?)?;
    database.close().map_err(|(_, error)| error)?;
    fs::rename(&unfinished, path)?;
    Ok(())
}
