//! Arrays in mappings of their own.

use core::ptr::NonNull;
use core::slice;

/// Types for which all bytes zero are a value, and which need no drop.
///
/// # Safety
/// Both hold.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for usize {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}

/// An array of zeros at first, of a length that only grows.
pub struct Array<T: Plain> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its memory, and `T` is plain data.
unsafe impl<T: Plain + Send> Send for Array<T> {}

impl<T: Plain> Array<T> {
    /// The array of no elements, which holds no memory.
    pub const fn new() -> Self {
        Array {
            at: NonNull::dangling(),
            len: 0,
        }
    }

    /// An array of `len` zeros; `None` when the system refuses the memory.
    pub fn zeros(len: usize) -> Option<Self> {
        let at = system::map(len.checked_mul(size_of::<T>())?)?.cast();
        Some(Array { at, len })
    }

    /// Makes it `len` elements long, if it is shorter: the new ones are zeros. `false` when the
    /// system refuses the memory; then it is as it was.
    #[must_use]
    pub fn grow(&mut self, len: usize) -> bool {
        if len <= self.len {
            return true;
        }
        let Some(mut new) = Self::zeros(len) else {
            return false;
        };
        new[..self.len].copy_from_slice(self);
        *self = new;
        true
    }
}

impl<T: Plain> Drop for Array<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the array's own mapping, of that many bytes.
            unsafe { system::unmap(self.at.cast(), self.len * size_of::<T>()) }
        }
    }
}

impl<T: Plain> core::ops::Deref for Array<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements lie there, zeros or written; none lie at a dangling pointer.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Plain> core::ops::DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the array is borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

#[cfg(not(any(test, not(feature = "library"))))]
mod system {
    use core::ffi::c_void;
    use core::ptr::NonNull;

    extern "C" {
        fn byssal_profile_map(len: usize) -> *mut c_void;
        fn munmap(at: *mut c_void, len: usize) -> i32;
    }

    /// Zeros at a multiple of the page size.
    pub fn map(len: usize) -> Option<NonNull<u8>> {
        // SAFETY: a new private mapping; null when it is refused.
        NonNull::new(unsafe { byssal_profile_map(len) }.cast())
    }

    /// # Safety
    /// What `map` gave for that length, and nobody uses it any more.
    pub unsafe fn unmap(at: NonNull<u8>, len: usize) {
        // SAFETY: by this function's contract.
        unsafe { munmap(at.as_ptr().cast(), len) };
    }
}

/// In tests, memory of the test's own allocator.
#[cfg(any(test, not(feature = "library")))]
mod system {
    extern crate alloc;

    use alloc::alloc::{alloc_zeroed, dealloc, Layout};
    use core::ptr::NonNull;

    const ALIGN: usize = 64;

    pub fn map(len: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(len, ALIGN).ok()?;
        if len == 0 {
            return None;
        }
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// What `map` gave for that length, and nobody uses it any more.
    pub unsafe fn unmap(at: NonNull<u8>, len: usize) {
        if let Ok(layout) = Layout::from_size_align(len, ALIGN) {
            // SAFETY: by this function's contract.
            unsafe { dealloc(at.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_zeros() {
        let mut array = Array::<u32>::new();
        assert_eq!(array.len(), 0);
        assert!(array.grow(3));
        array.copy_from_slice(&[1, 2, 3]);
        assert!(array.grow(100) && array.grow(50));
        assert_eq!(array.len(), 100);
        assert_eq!(array[..4], [1, 2, 3, 0]);
    }

    #[test]
    fn refuses_what_the_system_does() {
        let mut array = Array::<usize>::new();
        assert!(!array.grow(usize::MAX / 4));
        assert_eq!(array.len(), 0);
    }
}
