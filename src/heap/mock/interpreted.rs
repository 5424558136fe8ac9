//! The mock's memory under Miri, which knows mappings only in part: allocations of the interpreter.
//!
//! What a real system would make inaccessible becomes uninitialised here, so that Miri reports a
//! read of it (not a write). A mapping with a page beyond its end in another allocation does not
//! exist: no two allocations touch.

use core::ptr::{self, NonNull};
use std::alloc::{alloc, dealloc, Layout};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// An allocation of which the heap may give parts back.
struct Allocation {
    /// Its bytes, without the one that keeps the next allocation away.
    len: usize,
    /// How many of them the heap has not given back.
    held: usize,
}

/// Every allocation by its address.
static ALLOCATIONS: Mutex<BTreeMap<usize, Allocation>> = Mutex::new(BTreeMap::new());

/// Memory for `len` bytes, and a byte that keeps the next one away.
fn layout(len: usize) -> Layout {
    Layout::from_size_align(len + 1, 4096).unwrap()
}

/// Makes [at, at + len) uninitialised.
///
/// # Safety
/// The range lies in one allocation, and nobody uses it.
unsafe fn empty(at: usize, len: usize) {
    let nothing = Box::<[u8]>::new_uninit_slice(len);
    let to = ptr::with_exposed_provenance_mut(at);
    // SAFETY: the range is in one allocation, which was exposed, and is not used by others.
    unsafe { ptr::copy_nonoverlapping(nothing.as_ptr(), to, len) };
}

/// `len` bytes of zeros. Where, is the interpreter's choice.
pub fn map(_hint: usize, len: usize) -> Option<NonNull<u8>> {
    let at = reserve(0, len)?;
    // SAFETY: a new allocation of as many bytes.
    unsafe { at.as_ptr().write_bytes(0, len) };
    Some(at)
}

/// `len` bytes of addresses without contents. Where, is the interpreter's choice.
pub fn reserve(_hint: usize, len: usize) -> Option<NonNull<u8>> {
    // SAFETY: the size is not 0.
    let at = NonNull::new(unsafe { alloc(layout(len)) })?;
    let allocation = Allocation { len, held: len };
    let address = at.as_ptr().expose_provenance();
    ALLOCATIONS.lock().unwrap().insert(address, allocation);
    Some(at)
}

/// Puts zeros at [at, at + len).
///
/// # Safety
/// The range is part of what `reserve` gave, and nobody uses it.
pub unsafe fn open(at: usize, len: usize) -> bool {
    // SAFETY: the range has memory here even while it counts as closed.
    unsafe { purge(at, len) }
}

/// Takes the contents of [at, at + len) away, and keeps its addresses.
///
/// # Safety
/// The range is part of what `reserve`, `map` or `remap` gave, and nobody uses it.
pub unsafe fn shut(at: usize, len: usize) -> bool {
    // SAFETY: the range is part of one allocation, since no two of them touch.
    unsafe { empty(at, len) };
    true
}

/// Makes [at, at + len) zeros.
///
/// # Safety
/// The range has memory, and nobody needs what it holds.
pub unsafe fn purge(at: usize, len: usize) -> bool {
    // SAFETY: the range is in one allocation, which was exposed, and nobody needs what it holds.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(at).write_bytes(0, len) };
    true
}

/// Gives [at, at + len) back. The allocation goes with its last byte.
///
/// # Safety
/// The range is part of what `reserve`, `map` or `remap` gave, and nobody uses it.
pub unsafe fn unmap(at: usize, len: usize) -> bool {
    let mut allocations = ALLOCATIONS.lock().unwrap();
    let (&start, allocation) = allocations.range_mut(..=at).next_back().unwrap();
    assert!(at + len <= start + allocation.len, "unmap of two mappings");
    allocation.held -= len;
    if allocation.held > 0 {
        // SAFETY: the range is part of an allocation, and the caller says that nobody uses it.
        unsafe { empty(at, len) };
        return true;
    }
    let layout = layout(allocation.len);
    allocations.remove(&start);
    // SAFETY: the allocation was made with this layout, and all of it was given back.
    unsafe { dealloc(ptr::with_exposed_provenance_mut(start), layout) };
    true
}

/// Moves a mapping to one of another size.
///
/// # Safety
/// [at, at + old) is one mapping that `map` or `remap` gave, and only what this gives is used then.
pub unsafe fn remap(at: usize, old: usize, new: usize) -> Option<NonNull<u8>> {
    let moved = map(0, new)?;
    let from = ptr::with_exposed_provenance::<u8>(at);
    // SAFETY: both have so many bytes, and the caller uses the first no more.
    unsafe {
        ptr::copy_nonoverlapping(from, moved.as_ptr(), old.min(new));
        unmap(at, old);
    }
    Some(moved)
}
