//! What lies in a jobs folder, and which of it has stood still long enough to be taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file written in place is taken when it has not changed for this long: an editor may still be writing.
pub const STANDS_STILL: Duration = Duration::from_millis(100);
/// Larger files are no scripts. Bytes.
const MAX_FILE: u64 = 1 << 20;
/// Folders within folders.
const MAX_DEPTH: usize = 8;

/// Accepted contents, and the ones that still move.
#[derive(Debug, Default)]
pub struct Contents {
    /// Path below the folder → text.
    pub accepted: BTreeMap<String, Arc<str>>,
    /// What was seen last and since when; none: the file is gone.
    moving: BTreeMap<String, (Option<Arc<str>>, Instant)>,
    /// Files that are left out, and why: a place in the text, when the reason has one.
    pub left_out: BTreeMap<String, LeftOut>,
    /// The same at the look before, so that it is said once.
    left_out_before: BTreeMap<String, LeftOut>,
}

/// Why a file is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub why: String,
    /// Its text, as far as there is one: what is no UTF-8 is replaced.
    pub text: Option<Arc<str>>,
    /// Line and column, from 1.
    pub place: Option<(usize, usize)>,
}

impl From<&str> for LeftOut {
    fn from(why: &str) -> Self {
        Self { why: why.to_owned(), text: None, place: None }
    }
}

impl Contents {
    /// The folder as it is, taken whole.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut contents = Self::default();
        contents.accepted = contents.on_disk(dir)?;
        Ok(contents)
    }

    /// Compares the folder with what was accepted; answers whether something new was.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn look(&mut self, dir: &Path, now: Instant, renamed: &BTreeSet<String>) -> io::Result<bool> {
        let disk = self.on_disk(dir)?;
        let names: BTreeSet<String> = disk.keys().chain(self.accepted.keys()).cloned().collect();
        let mut changed = self.left_out != self.left_out_before;
        for name in names {
            let seen = disk.get(&name);
            if seen == self.accepted.get(&name) {
                self.moving.remove(&name);
                continue;
            }
            let still = match self.moving.get(&name) {
                Some((before, since)) if before.as_ref() == seen => now.duration_since(*since) >= STANDS_STILL,
                _ => {
                    self.moving.insert(name.clone(), (seen.cloned(), now));
                    false
                }
            };
            if still || (seen.is_some() && renamed.contains(&name)) {
                self.moving.remove(&name);
                match seen {
                    Some(text) => self.accepted.insert(name, Arc::clone(text)),
                    None => self.accepted.remove(&name),
                };
                changed = true;
            }
        }
        Ok(changed)
    }

    pub fn is_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    /// Scripts at the top, modules below `lib/`, templates below `templates/`.
    fn on_disk(&mut self, dir: &Path) -> io::Result<BTreeMap<String, Arc<str>>> {
        // Resolved each time: the folder itself may be a link that a deploy swaps.
        let root = fs::canonicalize(dir)?;
        self.left_out_before = std::mem::take(&mut self.left_out);
        let mut found = BTreeMap::new();
        self.walk(&root, &root, "", 0, &mut found)?;
        Ok(found)
    }

    fn walk(
        &mut self,
        root: &Path,
        dir: &Path,
        prefix: &str,
        depth: usize,
        found: &mut BTreeMap<String, Arc<str>>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{prefix}{name}");
            // A file may vanish between the listing and the look: then it is gone, not an error.
            let Ok(real) = fs::canonicalize(entry.path()) else { continue };
            if !real.starts_with(root) {
                self.leave_out(path, "it is a link that leads out of the jobs folder".into());
                continue;
            }
            let Ok(info) = fs::metadata(&real) else { continue };
            if info.is_dir() {
                if depth < MAX_DEPTH && (depth > 0 || name == "lib" || name == "templates") {
                    self.walk(root, &real, &format!("{path}/"), depth + 1, found)?;
                }
            } else if is_ours(&path) {
                match read_text(&real, info.len()) {
                    Ok(text) => {
                        found.insert(path, text);
                    }
                    Err(why) => {
                        self.leave_out(path.clone(), why);
                        // What was good stays, rather than look deleted.
                        found.extend(self.accepted.get(&path).map(|text| (path, Arc::clone(text))));
                    }
                }
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, path: String, why: LeftOut) {
        if self.left_out_before.get(&path) != Some(&why) {
            tracing::error!("jobs/{path} is left out: {}", why.why);
        }
        self.left_out.insert(path, why);
    }
}

fn is_ours(path: &str) -> bool {
    if path.starts_with("templates/") {
        return true;
    }
    let is_script = Path::new(path).extension().is_some_and(|extension| extension == "rhai");
    is_script && if path.starts_with("lib/") { !path.ends_with(".test.rhai") } else { !path.contains('/') }
}

fn read_text(path: &Path, size: u64) -> Result<Arc<str>, LeftOut> {
    if size > MAX_FILE {
        let why = format!("the file has {size} bytes, and the most is {MAX_FILE}");
        return Err(LeftOut { why, text: None, place: None });
    }
    let bytes = fs::read(path).map_err(|error| LeftOut::from(format!("it cannot be read: {error}").as_str()))?;
    match String::from_utf8(bytes) {
        // Some editors begin files with a mark that is no part of the text.
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).into()),
        Err(error) => {
            let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
            let text = String::from_utf8_lossy(error.as_bytes()).into();
            let why = "the file is not UTF-8: here is a byte that is no text".to_owned();
            Err(LeftOut { why, text: Some(text), place: Some((line, column)) })
        }
    }
}
