//! A file's bytes as memory: what is stored here is in the file, also when the process is gone the next moment.
//! Knows nothing of what the words mean.
#![expect(
    unsafe_code,
    reason = "the standard library has no shared mapping, and a call of the system per note costs too much"
)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// The first words of a file. Whoever has the file must not cut it shorter meanwhile.
#[derive(Debug)]
pub struct Map {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the words are atomic, and the mapping is unmapped only when nobody has it any more.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// # Errors
    /// When the file is shorter than that, or cannot be mapped.
    pub fn of(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words * size_of::<AtomicU64>();
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than what is to be mapped"));
        }
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, words }),
            None => Err(io::Error::other("the kernel mapped a file at address 0")),
        }
    }
}

impl Deref for Map {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, starts at a page, and lives as long as this value. Any bits are a valid
        // word; all accesses of this process are atomic, and no other process writes into the file.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole; the slices that were lent ended before.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file_while_it_is_mapped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64).unwrap();
        let map = Map::of(file.as_file(), 8).unwrap();
        assert_eq!(map.len(), 8);
        map[7].store(u64::from_ne_bytes(*b"survives"), Ordering::Release);
        assert_eq!(&std::fs::read(file.path()).unwrap()[56..], b"survives");
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(63).unwrap();
        assert!(Map::of(&file, 8).is_err());
    }
}
