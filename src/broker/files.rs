//! The files that jobs save: `<root>/<job id>/<name>`, on a directory that server and workers share.
//! Holds contents only. Which files a job has, and under which sums, is in its record; nothing here reads records.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use crate::job::{FileInfo, JobId};

/// The name of a job's file, checked when made: it can never lead out of the job's directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileName(String);

/// Bytes.
const MAX_NAME: usize = 128;
/// Begins the names of files that are still being written. No [`FileName`] does.
const TEMPORARY: &str = ".tmp-";

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "file name {given:?} is not valid: it must be 1 to 128 characters of A-Z a-z 0-9 . _ - and space, and begin with a letter or digit"
    )]
    BadName { given: String },
    #[error("the job has no file {0}")]
    NotFound(FileName),
    /// The disk's own words name paths of this machine: for logs, not for callers.
    #[error("the file store failed: cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

type Result<T> = std::result::Result<T, FileError>;

impl FileName {
    /// # Errors
    /// When the name is not of the accepted form; the error says which that is.
    pub fn new(name: &str) -> Result<Self> {
        let bytes = name.as_bytes();
        let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= MAX_NAME
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b' '));
        if good {
            Ok(Self(name.to_owned()))
        } else {
            Err(FileError::BadName { given: name.chars().take(80).collect() })
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By the ending; `application/octet-stream` where that tells nothing.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        crate::job::record::content_type(&self.0)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The shared directory. A clone is the same store.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: PathBuf,
}

/// A file that is whole on disk but not in place yet. Dropped without [`commit`](Self::commit) it is removed.
///
/// The two steps are there for the fence: stage (slow), record the file under the run's token, and commit only when the
/// broker took it, so that a run whose lease is lost never replaces what the current one saved.
#[derive(Debug)]
pub struct StagedFile {
    info: FileInfo,
    temporary: PathBuf,
    place: PathBuf,
    committed: bool,
}

impl FileStore {
    /// Opens the store at `root`, making the directory when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        std::fs::create_dir_all(&root).map_err(failed("make the directory", &root))?;
        Ok(Self { root })
    }

    /// Writes a file aside, flushed to the disk. Its `content_type` is by the name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn stage(&self, job: JobId, name: &FileName, content: Vec<u8>) -> Result<StagedFile> {
        let directory = self.directory(job);
        let temporary = directory.join(format!("{TEMPORARY}{}", uuid::Uuid::now_v7().simple()));
        let size = content.len() as u64;
        // Made before the file is, so that it goes whatever step fails or is cancelled.
        let mut staged = StagedFile {
            info: FileInfo {
                name: name.to_string(),
                size,
                content_type: name.content_type().to_owned(),
                sha256: String::new(),
            },
            place: directory.join(name.as_str()),
            temporary: temporary.clone(),
            committed: false,
        };
        tokio::fs::create_dir_all(&directory).await.map_err(failed("make the directory", &directory))?;
        let mut file = tokio::fs::File::create_new(&temporary).await.map_err(failed("create", &temporary))?;
        let written = async {
            file.write_all(&content).await?;
            file.flush().await?;
            file.sync_all().await
        };
        written.await.map_err(failed("write", &temporary))?;
        staged.info.sha256 = spawn_blocking(move || HEXLOWER.encode(&Sha256::digest(&content)))
            .await
            .map_err(|error| failed("sum up", &temporary)(io::Error::other(error)))?;
        Ok(staged)
    }

    /// # Errors
    /// `NotFound`, or when the disk refuses.
    pub async fn read(&self, job: JobId, name: &FileName) -> Result<Vec<u8>> {
        let path = self.directory(job).join(name.as_str());
        tokio::fs::read(&path).await.map_err(|error| missing_or(error, name, "read", &path))
    }

    /// Opens a file for streaming, with its size in bytes as it is now.
    ///
    /// # Errors
    /// `NotFound`, or when the disk refuses.
    pub async fn open_file(&self, job: JobId, name: &FileName) -> Result<(tokio::fs::File, u64)> {
        let path = self.directory(job).join(name.as_str());
        let opened = async {
            let file = tokio::fs::File::open(&path).await?;
            let size = file.metadata().await?.len();
            Ok((file, size))
        };
        opened.await.map_err(|error| missing_or(error, name, "open", &path))
    }

    /// Removes all files of a job. A job without files is fine.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn remove_job(&self, job: JobId) -> Result<()> {
        let directory = self.directory(job);
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &directory)(error)),
            _ => Ok(()),
        }
    }

    fn directory(&self, job: JobId) -> PathBuf {
        self.root.join(job.to_string())
    }
}

impl StagedFile {
    /// What belongs into the job's record.
    #[must_use]
    pub fn info(&self) -> &FileInfo {
        &self.info
    }

    /// Puts the file in its place, in one step and for good: who reads meanwhile gets the old one or the new one, whole.
    ///
    /// # Errors
    /// When the disk refuses; the old file is then still there.
    pub async fn commit(mut self) -> Result<FileInfo> {
        tokio::fs::rename(&self.temporary, &self.place).await.map_err(failed("put in place", &self.place))?;
        self.committed = true;
        let directory = self.place.parent().map(Path::to_owned).unwrap_or_default();
        let flushed = async { tokio::fs::File::open(&directory).await?.sync_all().await };
        flushed.await.map_err(failed("flush", &directory))?;
        Ok(self.info.clone())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing to tell anybody if it fails: the job's directory goes with the job.
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

fn missing_or(error: io::Error, name: &FileName, action: &'static str, path: &Path) -> FileError {
    if error.kind() == io::ErrorKind::NotFound {
        FileError::NotFound(name.clone())
    } else {
        failed(action, path)(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::QueueName;

    fn job() -> JobId {
        JobId::new(&QueueName::new("default").unwrap())
    }

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for good in ["a", "report 2026-11.csv", "A..b", "x".repeat(128).as_str()] {
            assert!(FileName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "../a", "a/b", "a\\b", "a\0", "a\n", " a", "-a", "é", &"x".repeat(129)] {
            let error = FileName::new(bad).unwrap_err().to_string();
            assert!(error.contains("must be 1 to 128 characters"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_committed_file_is_read_back_with_its_sum() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path().join("files")).unwrap();
        let job = job();
        let staged = store.stage(job, &name("a.csv"), b"abc".to_vec()).await.unwrap();
        assert!(matches!(store.read(job, &name("a.csv")).await, Err(FileError::NotFound(_))));
        let info = staged.commit().await.unwrap();
        assert_eq!((info.size, info.content_type.as_str()), (3, "text/csv; charset=utf-8"));
        assert_eq!(info.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(store.read(job, &name("a.csv")).await.unwrap(), b"abc");
        assert_eq!(store.open_file(job, &name("a.csv")).await.unwrap().1, 3);
        assert_eq!(std::fs::read_dir(dir.path().join("files").join(job.to_string())).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_not_committed_leaves_the_old_one_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let job = job();
        store.stage(job, &name("a"), b"old".to_vec()).await.unwrap().commit().await.unwrap();
        drop(store.stage(job, &name("a"), b"new".to_vec()).await.unwrap());
        assert_eq!(store.read(job, &name("a")).await.unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path().join(job.to_string())).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn removing_a_job_takes_its_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let (one, other) = (job(), job());
        for job in [one, other] {
            store.stage(job, &name("a"), b"x".to_vec()).await.unwrap().commit().await.unwrap();
        }
        store.remove_job(one).await.unwrap();
        store.remove_job(one).await.unwrap();
        assert!(matches!(store.read(one, &name("a")).await, Err(FileError::NotFound(_))));
        assert_eq!(store.read(other, &name("a")).await.unwrap(), b"x");
    }
}
