//! Whether the engine is just about to make text of an interpolated value, where a run must not be ended.
//!
//! Rhai answers every error of that call, the end of the run included, by printing the value itself, at its full length and
//! past the account: a few kilobytes of array that share one string become gigabytes. So the call is let through; the
//! functions of [`text`](super::text) know by themselves when to stop, and the next operation ends the run. Rhai does not
//! tell `on_progress` what it is called for, but the return addresses on the stack do.
#![expect(unsafe_code, reason = "reading return addresses needs the unwinder of the C runtime")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;
use std::sync::OnceLock;

use rhai::{Dynamic, Engine, OptimizationLevel};

/// How many callers of `on_progress` are looked at. The place is about eight up.
const CALLERS: usize = 20;

type Callers = [usize; CALLERS];

/// The place in Rhai that calls `to_string` for an interpolated value; `None` if it cannot be told.
static PLACE: OnceLock<Option<usize>> = OnceLock::new();

/// Finds the place, once per process, by making Rhai call from there: it is the first caller that another call does not
/// have.
pub(super) fn prepare() {
    PLACE.get_or_init(|| {
        let interpolating = callers_at_last_operation("let a = []; `${a}`");
        let calling = callers_at_last_operation("let a = []; to_string(a)");
        interpolating.into_iter().find(|caller| !calling.contains(caller))
    });
}

/// Whether this is called by `on_progress` for the call that makes text of an interpolated value.
pub fn is_interpolating() -> bool {
    matches!(PLACE.get(), Some(Some(place)) if callers().contains(place))
}

fn callers_at_last_operation(script: &str) -> Callers {
    let last = Rc::new(Cell::new([0; CALLERS]));
    let note = Rc::clone(&last);
    let mut engine = Engine::new();
    engine.set_optimization_level(OptimizationLevel::None);
    engine.on_progress(move |_| {
        note.set(callers());
        None
    });
    // Fails only if Rhai does: then there are no callers.
    let _ = engine.eval::<Dynamic>(script);
    last.get()
}

/// The return addresses above this call, the nearest first, 0 where there are no more.
#[inline(never)]
fn callers() -> Callers {
    struct Found {
        callers: Callers,
        count: usize,
    }

    extern "C" fn note(context: *mut c_void, found: *mut c_void) -> c_int {
        const PROCEED: c_int = 0;
        const STOP: c_int = 4;
        // SAFETY: `found` is the pointer given below, to a local that outlives the walk and is not used meanwhile.
        let found = unsafe { &mut *found.cast::<Found>() };
        let Some(caller) = found.callers.get_mut(found.count) else {
            return STOP;
        };
        // SAFETY: `context` is what the unwinder gave to this callback.
        *caller = unsafe { _Unwind_GetIP(context) };
        found.count += 1;
        PROCEED
    }

    let mut found = Found { callers: [0; CALLERS], count: 0 };
    // SAFETY: the callback has the expected type and does not unwind; the walk reads unwind tables, which exist since
    // panics unwind, and ends at the fiber's root at the latest, or when the callback says so.
    unsafe { _Unwind_Backtrace(note, (&raw mut found).cast()) };
    found.callers
}

// The unwinder that the standard library links for panics.
unsafe extern "C" {
    fn _Unwind_Backtrace(note: extern "C" fn(*mut c_void, *mut c_void) -> c_int, found: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}
