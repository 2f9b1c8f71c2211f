//! Who is on a CPU now, noted where it outlives the process: each executor thread notes the run that it resumes, each
//! blocking thread the run that it computes for. Knows the notes and their form, not whose file they are in, nor what
//! becomes of them after a crash (`worker/blame.rs`).
//!
//! A note is a few plain stores into mapped memory. Its first word, written last, is a checksum of the others, so a note
//! that a crash left half-written is none. The words are in this machine's byte order: the file never leaves it.

mod map;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use self::map::Map;
use crate::job::{JobId, QueueName, RunToken};

/// What a file of notes begins with; the last character is the version of the form.
const MAGIC: u64 = u64::from_be_bytes(*b"RYENOTE1");
/// Words of the head and of each slot: a pair of cache lines, so that threads do not share one.
const SLOT: usize = 16;
/// Words of a note: checksum, job id (2), token, length of the queue's name, its bytes (8).
const NOTE: usize = 13;
/// Words of a boot id.
const BOOT: usize = 2;
/// Blocking threads that can have a note at once; a runtime has no more of them by itself.
const BLOCKING: usize = 512;

/// One run as it is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note([u64; NOTE]);

/// A run that was on a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub job: JobId,
    pub queue: QueueName,
    pub token: RunToken,
}

impl Note {
    #[must_use]
    pub fn new(job: JobId, queue: &QueueName, token: RunToken) -> Self {
        let name = queue.as_str().as_bytes();
        let mut words = [0; NOTE];
        put(&mut words[1..3], job.as_bytes());
        words[3] = token.0.cast_unsigned();
        words[4] = name.len() as u64;
        put(&mut words[5..], name);
        words[0] = seal(&words);
        Self(words)
    }

    /// None when nothing, or only a part of a note, is there.
    fn read(self) -> Option<Noted> {
        let Self(words) = self;
        if words[0] != seal(&words) {
            return None;
        }
        let mut job = [0; 16];
        take(&words[1..3], &mut job);
        let mut name = [0; (NOTE - 5) * 8];
        take(&words[5..], &mut name);
        let name = name.get(..usize::try_from(words[4]).ok()?)?;
        let queue = QueueName::new(std::str::from_utf8(name).ok()?).ok()?;
        Some(Noted { job: JobId::from_bytes(job), queue, token: RunToken(words[3].cast_signed()) })
    }
}

/// The checksum of a note; never 0, which is what an empty slot begins with.
fn seal(words: &[u64; NOTE]) -> u64 {
    // FNV-1a over words.
    let hash = words[1..]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29));
    hash | 1
}

fn put(words: &mut [u64], bytes: &[u8]) {
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(whole);
    }
}

fn take(words: &[u64], bytes: &mut [u8]) {
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
}

#[derive(Debug)]
enum Words {
    Mapped(Map),
    Memory(Box<[AtomicU64]>),
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(words) => words,
        }
    }
}

/// The notes of one process.
#[derive(Debug)]
pub struct Notes {
    words: Words,
    /// Slots of blocking threads that nobody has now.
    free: Mutex<Vec<usize>>,
}

impl Notes {
    /// Notes of so many executor threads that are in `file`, which must be empty and this process's alone.
    ///
    /// # Errors
    /// When the file cannot be written or mapped.
    pub fn in_file(file: &File, threads: usize) -> io::Result<Arc<Self>> {
        let words = (1 + threads + BLOCKING) * SLOT;
        let mut head = [0; SLOT];
        (head[0], head[1], head[2]) = (MAGIC, words as u64, std::process::id().into());
        head[3..3 + BOOT].copy_from_slice(&boot_id());
        let mut bytes = vec![0; words * 8];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(head) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        // Written and not only made longer: a mapped byte that the disk has no room for would kill the process.
        let mut writer = file;
        writer.write_all(&bytes)?;
        Ok(Self::over(Words::Mapped(Map::of(file, words)?), threads))
    }

    /// Notes that nobody reads.
    #[must_use]
    pub fn in_memory(threads: usize) -> Arc<Self> {
        let words = (1 + threads + BLOCKING) * SLOT;
        Self::over(Words::Memory((0..words).map(|_| AtomicU64::new(0)).collect()), threads)
    }

    fn over(words: Words, threads: usize) -> Arc<Self> {
        let free = Mutex::new((threads..threads + BLOCKING).rev().collect());
        Arc::new(Self { words, free })
    }

    /// The seat of the executor thread with this number, to be taken on that thread.
    #[must_use]
    pub fn seat(self: &Arc<Self>, thread: usize) -> Seat {
        HERE.set(Some((Arc::clone(self), thread)));
        Seat { notes: Arc::clone(self), slot: thread }
    }

    fn slot(&self, number: usize) -> &[AtomicU64] {
        &self.words[(1 + number) * SLOT..][..NOTE]
    }

    fn set(&self, number: usize, note: &Note) {
        let slot = self.slot(number);
        slot[0].store(0, Ordering::Relaxed);
        // Nothing of the new note before the old one is void, and its seal after all of it.
        fence(Ordering::Release);
        for (word, value) in slot[1..].iter().zip(&note.0[1..]) {
            word.store(*value, Ordering::Relaxed);
        }
        slot[0].store(note.0[0], Ordering::Release);
    }

    fn clear(&self, number: usize) {
        self.slot(number)[0].store(0, Ordering::Release);
    }
}

/// Where one executor thread makes its notes.
#[derive(Debug)]
pub struct Seat {
    notes: Arc<Notes>,
    slot: usize,
}

impl Seat {
    /// This run is on the thread from now on.
    pub fn set(&self, note: &Note) {
        self.notes.set(self.slot, note);
    }

    /// No run is.
    pub fn clear(&self) {
        self.notes.clear(self.slot);
    }
}

thread_local! {
    /// The notes and the slot of this executor thread.
    static HERE: RefCell<Option<(Arc<Notes>, usize)>> = const { RefCell::new(None) };
}

/// The run that a host call is made for, taken along to the blocking thread that does its work.
#[derive(Clone, Debug)]
pub struct Errand(Option<(Arc<Notes>, Note)>);

impl Errand {
    /// For the run that is on this thread now, if one is.
    #[must_use]
    pub fn here() -> Self {
        Self(HERE.with_borrow(|here| {
            let (notes, slot) = here.as_ref()?;
            let slot = notes.slot(*slot);
            let note = Note(std::array::from_fn(|word| slot[word].load(Ordering::Relaxed)));
            (note.0[0] != 0).then(|| (Arc::clone(notes), note))
        }))
    }

    /// Notes the run until the guard is dropped.
    pub fn begin(&self) -> Working<'_> {
        let slot = self.0.as_ref().and_then(|(notes, note)| {
            let slot = notes.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            notes.set(slot, note);
            Some((&**notes, slot))
        });
        Working(slot)
    }
}

/// A run is being worked for.
#[derive(Debug)]
#[must_use = "the note is there as long as this is"]
pub struct Working<'a>(Option<(&'a Notes, usize)>);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let Some((notes, slot)) = self.0 {
            notes.clear(slot);
            notes.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}

/// What a process left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub pid: u64,
    /// The runs that were on a CPU. None when the machine has been started anew since: then it may have taken the process
    /// down with it, and what the disk has need not be the last that was noted.
    pub on_cpu: Vec<Noted>,
}

/// Reads a file of notes; none when it is not one, or not whole.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Left> {
    let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let (head, slots) = words.split_at_checked(SLOT)?;
    if head[0] != MAGIC || head[1] != words.len() as u64 {
        return None;
    }
    let same_boot = head[3..3 + BOOT] == boot_id();
    let notes = slots.chunks_exact(SLOT).filter_map(|slot| Note(*slot.first_chunk()?).read());
    Some(Left { pid: head[2], on_cpu: if same_boot { notes.collect() } else { Vec::new() } })
}

/// Which start of which machine this is; zeros where the kernel does not say.
fn boot_id() -> [u64; BOOT] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut words = [0; BOOT];
    if let Ok(id) = uuid::Uuid::parse_str(text.trim()) {
        put(&mut words, id.as_bytes());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::NamedTempFile;

    use super::*;

    const THREADS: usize = 2;

    fn noted(queue: &str) -> Noted {
        let queue = QueueName::new(queue).unwrap();
        Noted { job: JobId::new(&queue), token: RunToken::random(), queue }
    }

    fn note(noted: &Noted) -> Note {
        Note::new(noted.job, &noted.queue, noted.token)
    }

    fn file() -> (NamedTempFile, Arc<Notes>) {
        let file = NamedTempFile::new().unwrap();
        let notes = Notes::in_file(file.as_file(), THREADS).unwrap();
        (file, notes)
    }

    fn on_cpu(file: &NamedTempFile) -> Vec<Noted> {
        let left = read(&fs::read(file.path()).unwrap()).expect("it is a file of notes");
        assert_eq!(left.pid, u64::from(std::process::id()));
        left.on_cpu
    }

    #[test]
    fn the_file_names_the_runs_that_are_on_a_cpu_and_no_other() {
        let (file, notes) = file();
        assert_eq!(on_cpu(&file), []);
        let (one, other) = (noted("a"), noted(&"q".repeat(64)));
        let (first, second) = (notes.seat(0), notes.seat(1));
        first.set(&note(&other));
        first.set(&note(&one));
        second.set(&note(&other));
        assert_eq!(on_cpu(&file), [one, other.clone()]);
        first.clear();
        assert_eq!(on_cpu(&file), [other]);
        second.clear();
        assert_eq!(on_cpu(&file), []);
    }

    #[test]
    fn what_is_computed_elsewhere_is_noted_while_it_is_computed() {
        let (file, notes) = file();
        let (one, other) = (noted("one"), noted("other"));
        let seat = notes.seat(0);
        seat.set(&note(&one));
        let errand = Errand::here();
        seat.set(&note(&other));
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let _twice = errand.begin();
                let _working = errand.begin();
                on_cpu(&file)
            });
            assert_eq!(working.join().unwrap(), [other.clone(), one.clone(), one]);
        });
        assert_eq!(on_cpu(&file), [other], "the work is over");
        seat.clear();
        assert!(Errand::here().0.is_none(), "no run is on this thread");
        std::thread::spawn(|| assert!(Errand::here().0.is_none(), "no executor thread")).join().unwrap();
    }

    #[test]
    fn more_work_than_slots_goes_on_without_notes() {
        let (file, notes) = file();
        let seat = notes.seat(0);
        seat.set(&note(&noted("one")));
        let errand = Errand::here();
        seat.clear();
        let working: Vec<Working<'_>> = (0..=BLOCKING).map(|_| errand.begin()).collect();
        assert_eq!(on_cpu(&file).len(), BLOCKING);
        drop(working);
        assert_eq!(on_cpu(&file), []);
        assert_eq!(notes.free.lock().unwrap().len(), BLOCKING);
    }

    #[test]
    fn a_note_that_is_not_whole_is_none() {
        let whole = note(&noted("some-queue"));
        for word in 0..NOTE {
            let mut words = whole.0;
            words[word] ^= 1 << (word * 5);
            assert_eq!(Note(words).read(), None, "word {word}");
        }
        let old = note(&noted("some-queue"));
        for written in 1..NOTE {
            let mut words = old.0;
            words[0] = 0;
            words[1..written].copy_from_slice(&whole.0[1..written]);
            assert_eq!(Note(words).read(), None, "after {written} words");
        }
        assert_eq!(Note([0; NOTE]).read(), None);
        let mut nonsense = [u64::MAX; NOTE];
        nonsense[0] = seal(&nonsense);
        assert_eq!(Note(nonsense).read(), None, "a checksum does not make sense of it");
    }

    #[test]
    fn what_is_no_file_of_notes_is_not_read() {
        let (file, _notes) = file();
        let whole = fs::read(file.path()).unwrap();
        assert!(read(&whole).is_some());
        assert!(read(&whole[..whole.len() - 8]).is_none(), "cut short");
        let mut older = whole.clone();
        older[..8].copy_from_slice(&(MAGIC - 1).to_ne_bytes());
        for bytes in [&older[..], &[], b"garbage", &[0; 4096], &[255; 4096], &vec![7; whole.len()]] {
            assert!(read(bytes).is_none());
        }
    }

    #[test]
    fn after_a_new_start_of_the_machine_nobody_is_to_blame() {
        let (file, notes) = file();
        notes.seat(0).set(&note(&noted("a")));
        let mut bytes = fs::read(file.path()).unwrap();
        assert_eq!(read(&bytes).unwrap().on_cpu.len(), 1);
        bytes[24] ^= 1;
        assert_eq!(read(&bytes).unwrap().on_cpu, []);
    }
}
