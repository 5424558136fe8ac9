//! Values that begin as zero memory: a static one takes no room in the file, and what a process
//! does not use of it stays untouched.

use core::mem::MaybeUninit;

/// A type whose first value is zero memory.
///
/// # Safety
/// Zero bytes are a valid value: integers, cells and atomics of such, pointers, and references or
/// lists only behind an `Option`.
pub unsafe trait Zeroed: Sized {
    /// That value.
    // Each use is a value of its own, as meant.
    #[allow(clippy::declare_interior_mutable_const)]
    const ZERO: Self = {
        // SAFETY: the implementor says that zero bytes are a value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    };
}
