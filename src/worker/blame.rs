//! Blame after a crash: the file behind this process's notes of who is on a CPU (`script/notes`), and the files that dead
//! processes left in the same folder.
//!
//! A process holds the lock of its file for life, so a file whose lock can be had belongs to nobody alive: ids of
//! processes are used again, locks are not. A clean end removes the file. Knows files, not what becomes of the runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::broker::Run;
use crate::script::notes::{self, Notes};

/// In `DATA_DIR`.
const FOLDER: &str = "on-cpu";
/// Far more than a file of notes has.
const MAX_BYTES: u64 = 16 << 20;

/// The files of notes, as one worker process sees them.
pub struct Blame {
    folder: PathBuf,
    /// This process's own, while it is there.
    own: Mutex<Option<Own>>,
    /// Names of files that could not be dealt with; they are spoken of once.
    hopeless: Mutex<BTreeSet<OsString>>,
}

struct Own {
    name: OsString,
    /// Has the lock.
    _file: File,
}

/// A file that a process left behind when it died. Others leave it alone while this is there.
#[derive(Debug)]
pub struct LeftFile {
    path: PathBuf,
    _locked: File,
    pub pid: u64,
    /// What was on a CPU then.
    pub runs: Vec<Run>,
}

impl Blame {
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join(FOLDER), own: Mutex::default(), hopeless: Mutex::default() }
    }

    /// This process's notes, for so many executor threads. Without a file the worker works all the same: what is lost at
    /// its crash is then charged to nobody.
    #[must_use]
    pub fn notes(&self, threads: usize) -> Arc<Notes> {
        let made = self.make().and_then(|(own, file)| {
            let notes = Notes::in_file(&file, threads);
            if notes.is_err() {
                let _ = fs::remove_file(self.folder.join(&own)); // or a later sweep does
            }
            Ok((Own { name: own, _file: file }, notes?))
        });
        match made {
            Ok((own, notes)) => {
                *lock(&self.own) = Some(own);
                notes
            }
            Err(error) => {
                let folder = self.folder.display();
                warn!("no file can be made in {folder}, so a crash of this worker cannot be charged to a job: {error}");
                Notes::in_memory(threads)
            }
        }
    }

    /// A new empty file that is locked.
    fn make(&self) -> io::Result<(OsString, File)> {
        fs::create_dir_all(&self.folder)?;
        loop {
            let name = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
            let path = self.folder.join(&name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            file.lock()?;
            // Between these two another worker may have taken it for left behind, and removed it.
            if file.metadata()?.nlink() > 0 {
                return Ok((name.into(), file));
            }
        }
    }

    /// The process ends cleanly: nobody is to blame.
    pub fn end(&self) {
        if let Some(own) = lock(&self.own).take()
            && let Err(error) = fs::remove_file(self.folder.join(&own.name))
        {
            warn!("the file {} in {} is still there: {error}", own.name.display(), self.folder.display());
        }
    }

    /// The files that dead processes left. Those that say nothing are removed here.
    #[must_use]
    pub fn left(&self) -> Vec<LeftFile> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.give_up(FOLDER.into(), &error);
                return Vec::new();
            }
        };
        let own = lock(&self.own).as_ref().map(|own| own.name.clone());
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name())).filter(|name| Some(name) != own.as_ref());
        let mut left = Vec::new();
        for name in names {
            match self.look(&name) {
                Ok(Some(file)) => left.push(file),
                Ok(None) => {}
                // Another worker was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.give_up(name, &error),
            }
        }
        left
    }

    /// The file of that name, when a dead process left it and it names a run.
    fn look(&self, name: &OsString) -> io::Result<Option<LeftFile>> {
        if lock(&self.hopeless).contains(name) {
            return Ok(None);
        }
        let path = self.folder.join(name);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let left = notes::read(&bytes);
        let runs: Vec<Run> = left.iter().flat_map(|left| &left.on_cpu).map(run).collect();
        if let Some(left) = left
            && !runs.is_empty()
        {
            return Ok(Some(LeftFile { path, _locked: file, pid: left.pid, runs }));
        }
        // An empty one is from a process that died, or is about to find out, before it wrote its first note.
        if notes::read(&bytes).is_none() && !bytes.is_empty() {
            warn!("{} is no file of notes that can be read: it is removed", path.display());
        }
        fs::remove_file(&path)?;
        Ok(None)
    }

    fn give_up(&self, name: OsString, error: &io::Error) {
        let path = self.folder.join(&name);
        if lock(&self.hopeless).insert(name) {
            warn!("{} cannot be read or removed, it is left alone: {error}", path.display());
        }
    }
}

impl LeftFile {
    /// What it says has been dealt with.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            // Harmless: the runs that it names are over.
            warn!("{} is still there: {error}", self.path.display());
        }
    }
}

fn run(noted: &notes::Noted) -> Run {
    Run { job: noted.job, queue: noted.queue.clone(), token: noted.token }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::job::{JobId, QueueName, RunToken};
    use crate::script::notes::Note;

    fn some_run() -> Run {
        let queue = QueueName::new("mail").unwrap();
        Run { job: JobId::new(&queue), token: RunToken::random(), queue }
    }

    fn files(dir: &TempDir) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.path().join(FOLDER)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn plant(dir: &TempDir, name: &str, content: &[u8]) {
        let folder = dir.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), content).unwrap();
    }

    /// What a process leaves that dies on this run: its file, without its lock.
    fn die_on(dir: &TempDir, run: &Run) {
        let die = || {
            let dying = Blame::new(dir.path());
            let seat = dying.notes(2).seat(1);
            seat.set(&Note::new(run.job, &run.queue, run.token));
        };
        // A thread of its own, since a thread keeps the notes that it has a seat in.
        std::thread::scope(|scope| scope.spawn(die).join().unwrap());
    }

    #[test]
    fn what_a_dead_process_left_is_found_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = some_run();
        die_on(&dir, &run);
        let alive = Blame::new(dir.path());
        for _ in 0..2 {
            let left = alive.left();
            assert_eq!((left.len(), &left[0].runs), (1, &vec![run.clone()]));
            assert_eq!(left[0].pid, u64::from(std::process::id()));
        }
        alive.left().into_iter().for_each(LeftFile::remove);
        assert!(alive.left().is_empty() && files(&dir).is_empty());
    }

    #[test]
    fn the_file_of_a_live_process_belongs_to_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Blame::new(dir.path()), Blame::new(dir.path()));
        let (notes, run) = (one.notes(1), some_run());
        let _others = other.notes(1);
        notes.seat(0).set(&Note::new(run.job, &run.queue, run.token));
        for blame in [&one, &other, &Blame::new(dir.path())] {
            assert!(blame.left().is_empty());
        }
        assert_eq!(files(&dir).len(), 2);
        one.end();
        other.end();
        assert!(files(&dir).is_empty(), "a clean end leaves nothing");
    }

    #[test]
    fn two_that_look_do_not_both_find_it() {
        let dir = tempfile::tempdir().unwrap();
        die_on(&dir, &some_run());
        let (one, other) = (Blame::new(dir.path()), Blame::new(dir.path()));
        let found = one.left();
        assert_eq!((found.len(), other.left().len()), (1, 0));
        drop(found);
        assert_eq!(other.left().len(), 1, "the first one did not get to the end");
    }

    #[test]
    fn what_names_no_run_is_removed_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Blame::new(dir.path()).notes(1));
        plant(&dir, "empty", b"");
        plant(&dir, "garbage", &[7; 5000]);
        plant(&dir, "short", &fs::read(&files(&dir)[0]).unwrap()[..1000]);
        let run = some_run();
        die_on(&dir, &run);
        let alive = Blame::new(dir.path());
        let left = alive.left();
        assert_eq!((left.len(), &left[0].runs), (1, &vec![run]));
        assert_eq!(files(&dir).len(), 1);
    }

    #[test]
    fn what_cannot_be_dealt_with_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(FOLDER).join("a-folder")).unwrap();
        let run = some_run();
        die_on(&dir, &run);
        let alive = Blame::new(dir.path());
        for _ in 0..2 {
            assert_eq!(alive.left().len(), 1);
            assert_eq!(alive.hopeless.lock().unwrap().len(), 1);
        }
    }

    #[test]
    fn without_a_folder_the_worker_works_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FOLDER), "in the way").unwrap();
        let blame = Blame::new(dir.path());
        let run = some_run();
        blame.notes(1).seat(0).set(&Note::new(run.job, &run.queue, run.token));
        assert!(blame.left().is_empty());
        blame.end();
        assert!(Blame::new(&dir.path().join("nowhere")).left().is_empty());
    }
}
