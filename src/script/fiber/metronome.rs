//! The beat that time slices are cut by: a thread that alarms the threads of scripts while fibers run, so that an operation
//! asks "is it time to look at the clock?" by a comparison that it makes anyway, instead of a clock reading of 25 ns.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::script::account::{self, ALARM};

/// How often it beats.
const BEAT: Duration = Duration::from_micros(500);
/// How many beats it goes on when nothing runs, so that a steady trickle of jobs does not start and stop it.
const LINGER: u32 = 40;

/// The count of all metronomes of the process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The count now.
#[must_use]
pub fn beat() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

/// What the thread shares with those who play.
#[derive(Debug, Default)]
struct Playing {
    running: AtomicUsize,
    /// What is set at every beat, of each thread.
    floors: Mutex<Vec<&'static AtomicUsize>>,
    parked: AtomicBool,
    stopped: AtomicBool,
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Metronome {
    playing: Arc<Playing>,
    thread: Option<JoinHandle<()>>,
}

impl Metronome {
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let playing = Arc::new(Playing::default());
        let shared = Arc::clone(&playing);
        let thread = thread::Builder::new().name("metronome".into()).spawn(move || keep_time(&shared))?;
        Ok(Self { playing, thread: Some(thread) })
    }

    /// This thread is to hear the beat from now on. To be called before it plays.
    pub fn listen(&self) {
        self.playing.floors.lock().unwrap_or_else(PoisonError::into_inner).push(account::floor());
    }

    /// A thread is about to run fibers: the metronome beats until the guard is dropped.
    #[must_use]
    pub fn playing(&self) -> Guard<'_> {
        // SeqCst on both sides: either the metronome sees this count before it parks, or this sees it parked.
        self.playing.running.fetch_add(1, Ordering::SeqCst);
        if self.playing.parked.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Guard(&self.playing)
    }
}

/// Keeps the metronome beating.
#[derive(Debug)]
pub struct Guard<'a>(&'a Playing);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Metronome {
    fn drop(&mut self) {
        self.playing.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it cannot panic: it only counts
        }
    }
}

fn keep_time(playing: &Playing) {
    let mut idle = 0;
    while !playing.stopped.load(Ordering::SeqCst) {
        if playing.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle > LINGER {
            playing.parked.store(true, Ordering::SeqCst);
            if playing.running.load(Ordering::SeqCst) == 0 && !playing.stopped.load(Ordering::SeqCst) {
                thread::park();
            }
            playing.parked.store(false, Ordering::SeqCst);
            idle = 0;
            continue;
        }
        thread::sleep(BEAT);
        // Counted before the alarm: who ends the alarm and then reads the count misses none.
        COUNT.fetch_add(1, Ordering::SeqCst);
        for floor in playing.floors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            floor.store(ALARM, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_while_somebody_plays_and_again_after_a_pause() {
        let metronome = Metronome::start().unwrap();
        for _ in 0..2 {
            let playing = metronome.playing();
            let before = beat();
            while beat() == before {
                thread::yield_now();
            }
            drop(playing);
            while !metronome.playing.parked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn it_alarms_a_thread_that_listens_at_every_beat() {
        let metronome = Metronome::start().unwrap();
        metronome.listen();
        let floor = account::floor();
        let _playing = metronome.playing();
        for _ in 0..3 {
            floor.store(0, Ordering::SeqCst);
            while floor.load(Ordering::SeqCst) != ALARM {
                thread::yield_now();
            }
        }
    }
}
