//! Stacks for fibers: a large virtual reserve of which a run usually touches a few pages.
//!
//! Scripts are stopped at [`SCRIPT_LIMIT`]; below it lies the native reserve, because dropping, cloning or printing a
//! deeply nested value recurses in Rust without asking anybody, and how deep it can go is bounded only by the
//! memory a run may hold. Knows nothing of scripts.
#![expect(unsafe_code, reason = "stacks are mapped by hand: no crate maps them without commit and gives pages back")]

use std::cell::RefCell;
use std::io;
use std::num::NonZeroUsize;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::{Stack, StackPointer};

/// How deep a script may go, in bytes from the stack's base. A call level of a script takes 16 KB as a rule and
/// 33 KB at worst (measured over eleven shapes of nesting).
pub const SCRIPT_LIMIT: usize = 2 << 20;

/// The reserve is this many times the memory of the run: a level of nesting holds 32 bytes or more and costs under 128
/// bytes of native stack to drop (measured: values nested up to 64 MiB end cleanly on 128 MiB and die on 64).
const RESERVE_FACTOR: usize = 4;

/// No stack is smaller, whatever the memory: host functions need room too.
const SMALLEST: usize = 16 << 20;

/// What a stack keeps when it goes back to the pool; the pages beyond are returned to the system.
const KEPT: usize = 64 << 10;

/// Idle stacks kept per size and thread.
const POOLED: usize = 256;

const PAGE: usize = 4096;

/// The size of the stack for a run that may hold `memory` bytes.
#[must_use]
pub fn size_for(memory: u64) -> usize {
    let memory = usize::try_from(memory).unwrap_or(usize::MAX / (2 * RESERVE_FACTOR));
    // Powers of two: scripts with similar limits share their stacks.
    memory.saturating_mul(RESERVE_FACTOR).clamp(SMALLEST, 1 << 40).next_power_of_two()
}

/// Where the stack of whoever calls ends now.
#[inline]
pub fn stack_pointer() -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let here: usize;
        // SAFETY: reads a register, and nothing else.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags));
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("mov {}, sp", out(reg) here, options(nomem, nostack, preserves_flags));
        }
        here
    }
    // Elsewhere the address of a local will do, though its caller then needs a frame.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let here = 0u8;
        ptr::from_ref(&here) as usize
    }
}

/// A mapped stack: `limit` … guard page … usable … `base`.
pub struct FiberStack {
    base: NonZeroUsize,
    limit: NonZeroUsize,
}

impl FiberStack {
    fn map(size: usize) -> io::Result<Self> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches no memory of ours.
        let low = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if low == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // From here on `Drop` unmaps.
        let (Some(limit), Some(base)) = (NonZeroUsize::new(low as usize), NonZeroUsize::new(low as usize + size))
        else {
            return Err(io::Error::other("the kernel mapped a stack at address 0"));
        };
        let stack = Self { base, limit };
        // SAFETY: the first page of the mapping just made.
        if unsafe { libc::mprotect(low, PAGE, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn size(&self) -> usize {
        self.base.get() - self.limit.get()
    }

    /// The address below which a script is stopped.
    pub fn script_limit(&self) -> usize {
        self.base.get() - SCRIPT_LIMIT
    }

    /// Gives the pages below the first [`KEPT`] bytes back to the system.
    fn trim(&self) {
        let from = self.limit.get() + PAGE;
        let len = self.size() - PAGE - KEPT;
        // SAFETY: the range lies inside our own mapping, and no frame is on it: the fiber has ended.
        unsafe { libc::madvise(from as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

impl Drop for FiberStack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole; whoever ran on it is done, since the coroutine owned this value.
        unsafe { libc::munmap(self.limit.get() as *mut libc::c_void, self.size()) };
    }
}

// SAFETY: base and limit are the ends of a page-aligned mapping that lives as long as the value; its lowest page
// is a guard page; it is far larger than the minimum.
unsafe impl Stack for FiberStack {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// Idle stacks of one executor thread.
#[derive(Clone, Default)]
pub struct StackPool(Rc<RefCell<Vec<Idle>>>);

/// Those of one size; there are few sizes, since they are powers of two.
struct Idle {
    size: usize,
    stacks: Vec<FiberStack>,
}

impl StackPool {
    /// A stack for a run that may hold `memory` bytes.
    ///
    /// # Errors
    /// When the kernel gives no more mappings (`vm.max_map_count`) or addresses.
    pub fn take(&self, memory: u64) -> io::Result<FiberStack> {
        let size = size_for(memory);
        let idle = self.0.borrow_mut().iter_mut().find(|idle| idle.size == size).and_then(|idle| idle.stacks.pop());
        idle.map_or_else(|| FiberStack::map(size), Ok)
    }

    /// Takes a stack back. `went_deep`: whether the run may have touched more than the first [`KEPT`] bytes.
    pub fn give_back(&self, stack: FiberStack, went_deep: bool) {
        if went_deep {
            stack.trim();
        }
        let mut pools = self.0.borrow_mut();
        match pools.iter_mut().find(|idle| idle.size == stack.size()) {
            Some(idle) if idle.stacks.len() >= POOLED => {}
            Some(idle) => idle.stacks.push(stack),
            None => pools.push(Idle { size: stack.size(), stacks: vec![stack] }),
        }
    }
}

/// Whether a run that reached down to `lowest` and held `peak` bytes at most may have touched pages that are worth
/// giving back: native recursion goes as deep as values are nested, and those need memory.
#[must_use]
pub fn went_deep(stack: &FiberStack, lowest: usize, peak: usize) -> bool {
    stack.base.get().saturating_sub(lowest) > KEPT / 2 || peak > KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_grows_with_the_memory() {
        assert_eq!(size_for(0), SMALLEST);
        assert_eq!(size_for(64 << 20), 256 << 20);
        assert_eq!(size_for(100 << 20), 512 << 20);
        assert!(size_for(u64::MAX).is_power_of_two());
    }

    #[test]
    fn a_stack_comes_back_from_the_pool() {
        let pool = StackPool::default();
        let stack = pool.take(64 << 20).unwrap();
        let base = stack.base();
        pool.give_back(stack, true);
        assert_eq!(pool.take(64 << 20).unwrap().base(), base);
    }

    #[test]
    fn an_impossible_stack_is_an_error() {
        assert!(FiberStack::map(1 << 60).is_err());
    }
}
