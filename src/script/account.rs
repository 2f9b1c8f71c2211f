//! The account of a script run: how many bytes it holds, with the allocator that counts them, and what else is counted at every
//! operation.
//!
//! Every allocation of the process goes through [`CountingAllocator`]; while a fiber runs, its [`Account`]
//! is the *current* one of the thread and is charged. The allocator only counts: it never refuses and never
//! panics. Ending a run that is over its limit is the business of whoever asks [`Account::verdict`] (the
//! fiber, between two operations) or [`reserve`] (a native function, before it allocates). This file knows
//! nothing of fibers, jobs or engines.
#![expect(
    unsafe_code,
    reason = "a global allocator is an unsafe trait, and the current account is a raw pointer so that \
              counting costs one thread-local load"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mimalloc::MiMalloc;
use rhai::{Dynamic, EvalAltResult, Position};

thread_local! {
    /// The account charged now, null for none. Owns one strong count of its `Rc`, so it never dangles.
    /// Const-initialised and without a destructor: usable from the first to the last allocation of a thread.
    static CURRENT: Cell<*const Account> = const { Cell::new(ptr::null()) };
    /// What every operation touches.
    static HOT: Hot = const { Hot { operations: Cell::new(0), floor: Cell::new(&NO_FLOOR) } };
}

struct Hot {
    /// Of the current account, while it is that.
    operations: Cell<u64>,
    /// The thread's floor; see [`floor`].
    floor: Cell<&'static AtomicUsize>,
}

/// Of a thread that nobody alarms: no stack comes so low.
static NO_FLOOR: AtomicUsize = AtomicUsize::new(0);

/// Above every stack: the watcher looks at the next operation.
pub const ALARM: usize = usize::MAX;

/// The address that this thread's stack must not fall below without the watcher of the run looking: the lowest that was
/// seen, or [`ALARM`]. Any thread may set that; it is one word with the stack's so that an operation compares once.
/// Made once for a thread, and never freed.
pub fn floor() -> &'static AtomicUsize {
    HOT.with(|hot| {
        if ptr::eq(hot.floor.get(), &raw const NO_FLOOR) {
            hot.floor.set(Box::leak(Box::new(AtomicUsize::new(ALARM))));
        }
        hot.floor.get()
    })
}

/// What one run has used: bytes, against a limit; operations; how deep its stack went.
///
/// A freed byte is subtracted from the account that is current at that moment, whoever allocated it; the
/// count never goes below zero. Two rules follow for code that runs on a fiber: values that leave it (log
/// lines, messages to other threads) are built under [`uncharged`], and buffers that come to it from other
/// threads are entered with [`adopt`].
#[derive(Debug)]
pub struct Account {
    used: Cell<usize>,
    peak: Cell<usize>,
    limit: usize,
    /// Set the first time the account is found over, or about to be: the run ends for that reason.
    verdict: Cell<Option<OverMemory>>,
    /// Up to when it was last current.
    operations: Cell<u64>,
    /// The lowest address of the stack that was seen.
    lowest: Cell<usize>,
}

/// Why a run ended: it held, or asked for, more than its limit. Bytes.
///
/// Travels as the value of [`EvalAltResult::ErrorTerminated`], which a script cannot catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverMemory {
    /// Bytes a function was about to allocate; 0 when the limit was found exceeded between two operations.
    pub wanted: usize,
    /// Bytes held at that moment.
    pub used: usize,
    /// Bytes allowed.
    pub limit: usize,
}

impl fmt::Display for OverMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, used, limit } = self;
        match wanted {
            0 => write!(f, "{used} bytes in use, the limit is {limit} bytes"),
            _ => write!(f, "{wanted} more bytes needed with {used} in use, the limit is {limit} bytes"),
        }
    }
}

impl Account {
    /// An account that may hold `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            used: Cell::new(0),
            peak: Cell::new(0),
            limit,
            verdict: Cell::new(None),
            operations: Cell::new(0),
            lowest: Cell::new(usize::MAX),
        })
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// The most bytes ever held at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak.get()
    }

    /// Bytes allowed.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        if ptr::eq(CURRENT.get(), self) { HOT.with(|hot| hot.operations.get()) } else { self.operations.get() }
    }

    /// The lowest address of the stack that was seen; all of them when none was.
    #[must_use]
    pub fn lowest(&self) -> usize {
        self.lowest.get()
    }

    /// Takes note of how deep the stack is, and ends the alarm. To be called before the watcher looks: what comes while it
    /// does is an alarm again. For the account that is current.
    pub fn reach(&self, depth: usize) {
        self.lowest.set(self.lowest.get().min(depth));
        HOT.with(|hot| hot.floor.get().swap(self.lowest.get(), Ordering::SeqCst));
    }

    /// Why the run must end, `None` while it may go on: more than the limit is held, or a [`reserve`] was refused.
    /// To be asked between operations, and once more when the script has returned.
    ///
    /// The first verdict stays, even if memory is freed: Rhai passes an error inside a callback on as one that
    /// `try` can catch, and some of its functions swallow errors; the run must end all the same.
    #[must_use]
    pub fn verdict(&self) -> Option<OverMemory> {
        self.verdict.get().or_else(|| self.check(0).err())
    }

    /// Runs `f` with this account as the current one of the thread, then restores the one before it, also
    /// when `f` panics. On a fiber, `f` must not suspend: charge around the resume, not inside it.
    pub fn charge<R>(self: &Rc<Self>, f: impl FnOnce() -> R) -> R {
        let _restore = Restore(swap_current(Some(Rc::clone(self))));
        f()
    }

    fn grow(&self, bytes: usize) {
        let used = self.used.get().saturating_add(bytes);
        self.used.set(used);
        if used > self.peak.get() {
            self.peak.set(used);
        }
        if used > self.limit {
            // What is freed again within one operation is forgiven: the watcher looks when that is over.
            alarm();
        }
    }

    fn shrink(&self, bytes: usize) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }

    /// Whether `bytes` more fit; if not, that becomes the verdict.
    fn check(&self, bytes: usize) -> Result<(), OverMemory> {
        if self.fits(bytes) {
            return Ok(());
        }
        let over = self.verdict.get().unwrap_or(OverMemory { wanted: bytes, used: self.used.get(), limit: self.limit });
        self.verdict.set(Some(over));
        alarm();
        Err(over)
    }

    fn fits(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit
    }
}

/// Counts an operation of the run that is charged now. Answers whether its watcher has nothing to look at: the stack is
/// above the thread's [`floor`]. Seven machine instructions and the way there and back, since a script's every step pays
/// for them.
#[inline]
pub fn goes_on(depth: impl FnOnce() -> usize) -> bool {
    HOT.with(|hot| {
        hot.operations.set(hot.operations.get() + 1);
        depth() >= hot.floor.get().load(Ordering::Relaxed)
    })
}

/// Has the watcher of this thread's run look at the next operation.
pub fn alarm() {
    HOT.with(|hot| {
        if !ptr::eq(hot.floor.get(), &raw const NO_FLOOR) {
            hot.floor.get().store(ALARM, Ordering::Relaxed);
        }
    });
}

/// Runs `f` with no account current: for what is allocated on a fiber but handed to the rest of the process,
/// which would otherwise stay charged for ever. On a fiber, `f` must not suspend.
pub fn uncharged<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore(swap_current(None));
    f()
}

/// Makes `next` the current account of this thread and returns the one before it.
pub fn swap_current(next: Option<Rc<Account>>) -> Option<Rc<Account>> {
    let operations = next.as_ref().map_or(0, |next| {
        // How low the stack of the next one was is its own: its watcher tells at its first operation.
        floor().store(ALARM, Ordering::Relaxed);
        next.operations.get()
    });
    let next = next.map_or(ptr::null(), Rc::into_raw);
    let previous = CURRENT.replace(next);
    let operations = HOT.with(|hot| hot.operations.replace(operations));
    if previous.is_null() {
        return None;
    }
    // SAFETY: a non-null `CURRENT` came from `Rc::into_raw` above, on this thread, and owns that strong count;
    // it was just replaced, so the count is taken back exactly once.
    let previous = unsafe { Rc::from_raw(previous) };
    previous.operations.set(operations);
    Some(previous)
}

/// Enters `bytes` that another thread allocated and the running script now owns.
pub fn adopt(bytes: usize) {
    with_current(|account| account.grow(bytes));
}

/// Whether the current account cannot take `bytes` more; `false` when none is current.
#[must_use]
pub fn would_exceed(bytes: usize) -> bool {
    with_current(|account| !account.fits(bytes)).unwrap_or(false)
}

/// Asks the current account for room, to be called *before* allocating. Nothing is charged: the allocation
/// itself will be. `reserve(0)` asks whether the account is over already. `Ok` when no account is current.
///
/// # Errors
/// [`EvalAltResult::ErrorTerminated`] carrying [`OverMemory`] when `bytes` more would exceed the limit. It
/// cannot be caught by the script, and the account's [`verdict`](Account::verdict) stays over from then on.
pub fn reserve(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    match with_current(|account| account.check(bytes)) {
        None | Some(Ok(())) => Ok(()),
        Some(Err(over)) => Err(EvalAltResult::ErrorTerminated(Dynamic::from(over), Position::NONE).into()),
    }
}

/// Puts an account back as the current one when a scope ends, by return or by unwinding.
struct Restore(Option<Rc<Account>>);

impl Drop for Restore {
    fn drop(&mut self) {
        drop(swap_current(self.0.take()));
    }
}

#[inline]
fn with_current<R>(f: impl FnOnce(&Account) -> R) -> Option<R> {
    CURRENT
        .try_with(|current| {
            // SAFETY: null, or kept alive by the strong count that `CURRENT` owns. `f` is only ever code of this
            // file that touches cells: it does not replace `CURRENT` while the reference lives.
            unsafe { current.get().as_ref() }.map(f)
        })
        .ok()
        .flatten()
}

/// mimalloc, counting into the thread's current [`Account`].
pub struct CountingAllocator;

// SAFETY: each method forwards its arguments unchanged to `MiMalloc`, a correct global allocator, and returns
// its answer unchanged. Counting touches only cells: it neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let block = unsafe { MiMalloc.alloc(layout) };
        grown(block, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let block = unsafe { MiMalloc.alloc_zeroed(layout) };
        grown(block, layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { MiMalloc.dealloc(block, layout) };
        with_current(|account| account.shrink(layout.size()));
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let block = unsafe { MiMalloc.realloc(block, layout, new_size) };
        if !block.is_null() {
            with_current(|account| match new_size.checked_sub(layout.size()) {
                Some(more) => account.grow(more),
                None => account.shrink(layout.size() - new_size),
            });
        }
        block
    }
}

// SAFETY: declared as in mimalloc.h; any thread may call it at any time.
unsafe extern "C" {
    /// Of mimalloc; `force` purges what is free now instead of later.
    safe fn mi_collect(force: bool);
}

/// Gives the memory that is free back to the system. mimalloc does so by itself, but only while somebody allocates: a
/// thread that goes to sleep after a large run would keep all of it.
pub fn give_back() {
    mi_collect(true);
}

/// Counts a fresh block, unless the allocation failed.
#[inline]
fn grown(block: *mut u8, bytes: usize) -> *mut u8 {
    if !block.is_null() {
        with_current(|account| account.grow(bytes));
    }
    block
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const KB: usize = 1024;

    #[test]
    fn counts_only_what_is_allocated_while_it_is_current() {
        let account = Account::new(100 * KB);
        let _before: Vec<u8> = Vec::with_capacity(KB);
        let held: Vec<u8> = account.charge(|| Vec::with_capacity(10 * KB));
        let _after: Vec<u8> = Vec::with_capacity(KB);
        assert_eq!(account.used(), 10 * KB);

        account.charge(|| drop(held));
        assert_eq!(account.used(), 0);
        assert_eq!(account.peak(), 10 * KB);
    }

    #[test]
    fn nested_accounts_are_charged_apart_and_restored() {
        let (outer, inner) = (Account::new(KB), Account::new(KB));
        outer.charge(|| {
            let a: Vec<u8> = Vec::with_capacity(100);
            let b: Vec<u8> = inner.charge(|| Vec::with_capacity(200));
            let c: Vec<u8> = uncharged(|| Vec::with_capacity(400));
            let d: Vec<u8> = Vec::with_capacity(800);
            assert_eq!((outer.used(), inner.used()), (900, 200));
            std::mem::forget((a, b, c, d));
        });
        assert!(swap_current(None).is_none());
    }

    #[test]
    fn operations_are_those_of_the_account_that_is_current() {
        let (outer, inner) = (Account::new(KB), Account::new(KB));
        let operate = || goes_on(|| usize::MAX);
        outer.charge(|| {
            operate();
            inner.charge(|| {
                operate();
                operate();
                assert_eq!((outer.operations(), inner.operations()), (1, 2));
            });
            uncharged(operate);
            operate();
            assert_eq!(outer.operations(), 2);
        });
        assert_eq!((outer.operations(), inner.operations()), (2, 2));
    }

    #[test]
    fn the_watcher_looks_at_first_and_below_the_floor() {
        let account = Account::new(KB);
        account.charge(|| {
            assert!(!goes_on(|| 50), "it is new");
            account.reach(50);
            assert!(goes_on(|| 50) && goes_on(|| 51) && !goes_on(|| 49));
            uncharged(|| ());
            assert!(!goes_on(|| 50), "another was current");
            account.reach(60);
            assert!(goes_on(|| 50), "the lowest one counts");
        });
    }

    #[test]
    fn an_unwind_restores_the_account_before_it() {
        let (outer, inner) = (Account::new(KB), Account::new(KB));
        outer.charge(|| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                inner.charge(|| std::panic::resume_unwind(Box::new(())));
            }));
            assert!(caught.is_err());
            let before = outer.used();
            let held: Vec<u8> = Vec::with_capacity(64);
            assert_eq!(outer.used() - before, 64);
            drop(held);
        });
    }

    #[test]
    fn growing_and_shrinking_in_place_is_counted() {
        let account = Account::new(100 * KB);
        account.charge(|| {
            let mut bytes: Vec<u8> = Vec::with_capacity(KB);
            bytes.reserve_exact(4 * KB);
            assert_eq!(account.used(), 4 * KB);
            bytes.shrink_to(2 * KB);
            assert_eq!(account.used(), 2 * KB);
            let zeroed = vec![0_u8; KB];
            assert_eq!(account.used(), 3 * KB);
            drop((bytes, zeroed));
            assert_eq!(account.used(), 0);
        });
    }

    #[test]
    fn never_below_zero() {
        let account = Account::new(KB);
        let foreign: Vec<u8> = Vec::with_capacity(10 * KB);
        account.charge(|| drop(foreign));
        assert_eq!(account.used(), 0);
        account.charge(|| {
            let mut foreign: Vec<u8> = uncharged(|| Vec::with_capacity(10 * KB));
            foreign.shrink_to(1);
            assert_eq!(account.used(), 0);
        });
    }

    #[test]
    fn another_thread_frees_without_touching_the_account() {
        let account = Account::new(100 * KB);
        let sent: Vec<u8> = account.charge(|| Vec::with_capacity(10 * KB));
        std::thread::spawn(move || drop(sent)).join().expect("the thread ends");
        assert_eq!(account.used(), 10 * KB);
    }

    #[test]
    fn adopted_bytes_are_given_back_when_freed() {
        let account = Account::new(100 * KB);
        let received: Vec<u8> = Vec::with_capacity(10 * KB);
        account.charge(|| {
            adopt(received.capacity());
            assert_eq!(account.used(), 10 * KB);
            drop(received);
            assert_eq!(account.used(), 0);
        });
    }

    #[test]
    fn the_allocator_does_not_refuse_but_the_account_is_over() {
        let account = Account::new(KB);
        let held: Vec<u8> = account.charge(|| {
            account.reach(50);
            assert!(goes_on(|| 50));
            let held = Vec::with_capacity(KB + 1);
            assert!(would_exceed(0) && !goes_on(|| 50));
            held
        });
        let verdict = Some(OverMemory { wanted: 0, used: KB + 1, limit: KB });
        assert_eq!(account.verdict(), verdict);
        account.charge(|| drop(held));
        assert_eq!(account.verdict(), verdict, "freeing memory does not undo it");
    }

    #[test]
    fn reserve_refuses_before_allocating_and_stays_refused() {
        let account = Account::new(KB);
        account.charge(|| {
            account.reach(50);
            assert!(reserve(0).is_ok() && reserve(KB).is_ok());
            assert!(!would_exceed(KB) && would_exceed(KB + 1));
            assert!(goes_on(|| 50));

            let error = reserve(usize::MAX).expect_err("over the limit");
            let EvalAltResult::ErrorTerminated(token, _) = *error else {
                panic!("a catchable error: {error}");
            };
            let wanted = OverMemory { wanted: usize::MAX, used: 0, limit: KB };
            assert_eq!(token.try_cast::<OverMemory>(), Some(wanted));
            assert_eq!(account.verdict(), Some(wanted));
            assert!(!goes_on(|| 50));
        });
    }

    #[test]
    fn without_an_account_everything_is_allowed() {
        assert!(reserve(usize::MAX).is_ok());
        assert!(!would_exceed(usize::MAX));
    }

    #[test]
    fn a_suspended_scope_cannot_leave_a_dangling_account() {
        // What a fiber that suspends inside `charge` does: scopes end in the wrong order.
        let first = Restore(swap_current(Some(Account::new(KB))));
        let second = Restore(swap_current(Some(Account::new(KB))));
        drop(first);
        drop(second);
        let _still_alive: Vec<u8> = Vec::with_capacity(64);
        drop(swap_current(None));
    }
}
