//! The mock's memory: pages of the real system.

use core::ptr::NonNull;

/// Ordinary memory.
const OPEN: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps `len` bytes with this protection: at `at` whatever is there, if `fixed`, and otherwise
/// there or elsewhere.
fn map_as(at: usize, len: usize, protection: i32, fixed: bool) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let flags = flags | if fixed { libc::MAP_FIXED } else { 0 };
    // SAFETY: a fresh private mapping, or one in place of what `open` and `shut` are told is ours.
    let at = unsafe { libc::mmap(at as *mut _, len, protection, flags, -1, 0) };
    (at != libc::MAP_FAILED).then(|| NonNull::new(at.cast()).unwrap())
}

/// `len` bytes of zeros, at `hint` if nothing is there.
pub fn map(hint: usize, len: usize) -> Option<NonNull<u8>> {
    map_as(hint, len, OPEN, false)
}

/// `len` bytes of addresses without memory, at `hint` if nothing is there.
pub fn reserve(hint: usize, len: usize) -> Option<NonNull<u8>> {
    map_as(hint, len, libc::PROT_NONE, false)
}

/// Puts zeros at [at, at + len).
///
/// # Safety
/// The range is part of what `reserve` gave, and nobody uses it.
pub unsafe fn open(at: usize, len: usize) -> bool {
    map_as(at, len, OPEN, true).is_some()
}

/// Takes the memory of [at, at + len) away, and keeps its addresses.
///
/// # Safety
/// The range is part of what `reserve`, `map` or `remap` gave, and nobody uses it.
pub unsafe fn shut(at: usize, len: usize) -> bool {
    map_as(at, len, libc::PROT_NONE, true).is_some()
}

/// Makes [at, at + len) zeros.
///
/// # Safety
/// The range has memory, and nobody needs what it holds.
pub unsafe fn purge(at: usize, len: usize) -> bool {
    // SAFETY: the caller needs nothing of what the pages hold.
    unsafe { libc::madvise(at as *mut _, len, libc::MADV_DONTNEED) == 0 }
}

/// Gives [at, at + len) back.
///
/// # Safety
/// The range is part of what `reserve`, `map` or `remap` gave, and nobody uses it.
pub unsafe fn unmap(at: usize, len: usize) -> bool {
    // SAFETY: the caller says that nobody uses the mapping.
    unsafe { libc::munmap(at as *mut _, len) == 0 }
}

/// Resizes a mapping and may move it.
///
/// # Safety
/// [at, at + old) is one mapping that `map` or `remap` gave, and only what this gives is used then.
pub unsafe fn remap(at: usize, old: usize, new: usize) -> Option<NonNull<u8>> {
    // SAFETY: the caller knows of no other pointer to the mapping.
    let moved = unsafe { libc::mremap(at as *mut _, old, new, libc::MREMAP_MAYMOVE) };
    (moved != libc::MAP_FAILED).then(|| NonNull::new(moved.cast()).unwrap())
}
