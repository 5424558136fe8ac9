//! Atomics from `core`, from `loom` when the models run, or counting ones (`src/count`). Switched
//! here and nowhere else.

#[cfg(all(feature = "count", not(loom)))]
pub use {
    byssal_count::atomics::{fence, AtomicPtr, AtomicU16, AtomicU32, AtomicUsize},
    core::sync::atomic::AtomicU8,
};

#[cfg(not(any(feature = "count", loom)))]
pub use core::sync::atomic::{fence, AtomicPtr, AtomicU16, AtomicU32, AtomicU8, AtomicUsize};

#[cfg(loom)]
pub use loom::sync::atomic::{fence, AtomicPtr, AtomicU16, AtomicU32, AtomicU8, AtomicUsize};

pub use core::sync::atomic::{compiler_fence, Ordering};

/// A number that threads tell each other, of which nothing depends but when something is done: it
/// orders nothing, one of two changes at a time may get lost, and the models do not ask which.
pub struct Guess(core::sync::atomic::AtomicUsize);

impl Guess {
    /// 0.
    #[cfg(loom)]
    pub const ZERO: Guess = Guess(core::sync::atomic::AtomicUsize::new(0));

    /// The number.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Notes that an event of `src/count` happened; nothing at all without the feature `count`.
#[cfg(all(feature = "count", not(loom)))]
#[doc(hidden)]
#[macro_export]
macro_rules! note {
    ($event:ident) => {
        $crate::count::note($crate::count::Event::$event)
    };
}

/// Notes nothing: the feature `count` is off.
#[cfg(not(all(feature = "count", not(loom))))]
#[doc(hidden)]
#[macro_export]
macro_rules! note {
    ($event:ident) => {};
}

#[cfg(not(loom))]
use core::cell::UnsafeCell;
#[cfg(loom)]
use loom::cell::UnsafeCell;

/// A full fence right behind an atomic exchange that succeeded. On x86 the exchange is one: a
/// locked instruction orders all loads and stores around it (Intel SDM 3A, 9.2.2). The models run
/// with the fence.
pub fn fence_behind_exchange() {
    #[cfg(all(not(loom), any(target_arch = "x86_64", target_arch = "x86")))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(not(loom), any(target_arch = "x86_64", target_arch = "x86"))))]
    fence(Ordering::SeqCst);
}

/// Stores a number, behind all that was written before (release). loongarch64 has no such store:
/// its compiler makes a swap of it, which waits for more than a fence does.
#[inline(always)]
pub fn publish(cell: &AtomicU32, value: u32) {
    if cfg!(target_arch = "loongarch64") {
        fence(Ordering::Release);
        cell.store(value, Ordering::Relaxed);
    } else {
        cell.store(value, Ordering::Release);
    }
}

/// `value`. The compiler does not look at it before the program comes here: for conditions that are
/// to be tested last.
#[inline(always)]
pub fn seldom(value: usize) -> usize {
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
    {
        let mut value = value;
        // SAFETY: no instruction.
        unsafe {
            core::arch::asm!("/* {} */", inout(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(miri))))]
    value
}

/// The atomic byte `index + AT` bytes behind the address `base`, of memory whose provenance was
/// exposed; relaxed. On x86_64 in one instruction: the compiler widens what an atomic load gave
/// with another one. (Not on x32, whose addresses fill half a register.)
///
/// # Safety
/// It is there.
#[cfg(not(loom))]
#[inline(always)]
pub unsafe fn read_byte<const AT: usize>(base: usize, index: usize) -> usize {
    #[cfg(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(miri, tsan))
    ))]
    {
        let value;
        // SAFETY: reads what the caller says is there.
        unsafe {
            core::arch::asm!("movzx {:e}, byte ptr [{} + {} + {}]",
                out(reg) value, in(reg) base, in(reg) index, const AT,
                options(pure, readonly, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(miri, tsan))
    )))]
    // SAFETY: the caller says that it is there.
    unsafe {
        &*core::ptr::with_exposed_provenance::<AtomicU8>(base.wrapping_add(index.wrapping_add(AT)))
    }
    .load(Ordering::Relaxed)
    .into()
}

/// The atomic pair of bytes `2 * index + AT` bytes behind the address `base`, read as `read_byte`
/// reads one.
///
/// # Safety
/// It is there, aligned.
#[cfg(not(loom))]
#[inline(always)]
pub unsafe fn read_pair<const AT: usize>(base: usize, index: usize) -> usize {
    #[cfg(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(miri, tsan))
    ))]
    {
        let value;
        // SAFETY: reads what the caller says is there.
        unsafe {
            core::arch::asm!("movzx {:e}, word ptr [{} + 2*{} + {}]",
                out(reg) value, in(reg) base, in(reg) index, const AT,
                options(pure, readonly, nostack, preserves_flags));
        }
        value
    }
    #[cfg(not(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(miri, tsan))
    )))]
    // SAFETY: the caller says that it is there.
    unsafe {
        &*core::ptr::with_exposed_provenance::<AtomicU16>(
            base.wrapping_add((2 * index).wrapping_add(AT)),
        )
    }
    .load(Ordering::Relaxed)
    .into()
}

/// A field without a synchronisation of its own, as a lock or a protocol says who may use it.
/// Under loom two uses that nothing orders are found.
#[repr(transparent)]
pub struct Plain<T>(UnsafeCell<T>);

impl<T: Copy> Plain<T> {
    /// With a first value.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Plain(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    /// The caller may read the field: nobody writes it meanwhile.
    #[inline(always)]
    pub unsafe fn get(&self) -> T {
        // SAFETY: the caller says that nobody writes the field meanwhile.
        unsafe {
            #[cfg(not(loom))]
            return *self.0.get();
            #[cfg(loom)]
            return self.0.with(|value| *value);
        }
    }

    /// Sets the value.
    ///
    /// # Safety
    /// The caller alone may use the field.
    #[inline(always)]
    pub unsafe fn set(&self, value: T) {
        // SAFETY: the caller says that nobody else uses the field.
        unsafe {
            #[cfg(not(loom))]
            self.0.get().write(value);
            #[cfg(loom)]
            self.0.with_mut(|old| *old = value);
        }
    }
}
