//! What a block is: aligned, apart, usable, of the size asked for.

use super::*;
use crate::base::config::{CLASSES, LARGE_LONG, LARGE_TURNS, PRESET};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, NARROW_SLOTS};

/// Not one page of the static in libc stands in the file.
#[test]
#[cfg_attr(miri, ignore = "Miri leaves the padding of a static uninitialised")]
fn a_new_process_is_zero() {
    use crate::allocator::Allocator;
    use core::ptr::NonNull;
    struct Nothing;
    // SAFETY: never used.
    unsafe impl Platform for Nothing {
        const BREAK_ROOM: usize = 0;
        fn page_size(&self) -> usize {
            4096
        }
        fn map(&self, _: usize, _: usize) -> Option<NonNull<u8>> {
            None
        }
        unsafe fn unmap(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn purge(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn close(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn remap(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
            None
        }
        fn program_break(&self) -> usize {
            0
        }
        fn clock(&self) -> u32 {
            0
        }
        fn move_break(&self, _: usize) -> bool {
            false
        }
        fn random(&self) -> [u64; 2] {
            [0; 2]
        }
        fn entropy(&self) -> Option<[u64; 4]> {
            None
        }
        fn thread_number(&self) -> u32 {
            0
        }
        fn lock(&self) {}
        fn try_lock(&self) -> bool {
            true
        }
        fn unlock(&self) {}
        unsafe fn reset_lock(&self) {}
        fn threaded(&self) -> bool {
            false
        }
        fn heap_field(&self) -> usize {
            0
        }
        fn set_heap_field(&self, _: usize) {}
        fn tell_exit(&self) -> bool {
            false
        }
        fn frees_often(&self) -> bool {
            false
        }
        fn first_heap(&self) {}
        fn out_of_memory(&self) {}
    }
    static PROCESS: Allocator<Nothing> = Allocator::new(Nothing);
    let start = (&raw const PROCESS).cast::<u8>();
    // SAFETY: the static's own bytes; padding of a static is zero where its value is.
    let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<Allocator<Nothing>>()) };
    assert!(bytes.iter().all(|&byte| byte == 0));
    // The same made at run time, which is what a tool that counts lines sees. It needs a stack.
    let stack = std::thread::Builder::new().stack_size(16 * size_of::<Allocator<Nothing>>());
    let made = stack.spawn(|| Allocator::new(Nothing).mine().is_empty());
    assert!(made.expect("a thread").join().expect("no panic"));
}

#[test]
pub(super) fn blocks_of_every_size_are_aligned_apart_and_usable() {
    let process = Boxed::new(true);
    let mut live = Vec::new();
    let step = if cfg!(miri) { 61 } else { 1 };
    for n in (0..3000).chain((3000..300_000).step_by(997)).step_by(step) {
        let block = Live::new(process.malloc(n), n, n as u8);
        assert!(process.usable_size(block.at) >= n);
        live.push(block);
    }
    process.verify();
    for block in live {
        block.verify();
        // SAFETY: live.
        unsafe { process.free(block.at) };
    }
    let end = process.verify();
    assert_eq!((end.live, end.large, end.live_bytes), (0, 0, 0));
}

#[test]
fn a_freed_slot_is_not_handed_out_at_once() {
    let process = Boxed::new(true);
    let first = process.malloc(40);
    // SAFETY: live.
    unsafe { process.free(first) };
    assert_ne!(process.malloc(40), first);
}

#[test]
pub(super) fn aligned_blocks_are_aligned_and_cheap() {
    let process = Boxed::new(true);
    for shift in (4..=24).step_by(if cfg!(miri) { 12 } else { 1 }) {
        let align = 1usize << shift;
        for n in [
            0,
            1,
            15,
            100,
            align - 1,
            align,
            align + 1,
            3 * align / 2,
            5000,
        ] {
            let block = Live::new(process.aligned_alloc(align, n), n, 7);
            assert_eq!(block.at as usize % align, 0, "align {align} n {n}");
            assert!(process.usable_size(block.at) >= n);
            block.verify();
            process.verify();
            // SAFETY: live; the interior is the misuse under test.
            unsafe {
                if n > 16 {
                    assert!(faults("invalid", || process.free(block.at.add(16))));
                }
                process.free(block.at);
                assert!(
                    faults("", || process.free(block.at)),
                    "double free at {align}, {n}"
                );
            }
        }
    }
    let before = process.verify().used_bytes;
    let pages: Vec<_> = (0..100)
        .map(|_| process.aligned_alloc(4096, 4096))
        .collect();
    // The hardened preset pays another page for a canary.
    let each = if PRESET.has_guard_pages() { 8192 } else { 4096 };
    assert_eq!(process.verify().used_bytes - before, 100 * each);
    for page in pages {
        // SAFETY: live.
        unsafe { process.free(page) };
    }
    assert_eq!(process.verify().live_bytes, 0);
}

/// Wherever in a run of inaccessible pages the next group of such blocks begins.
#[test]
pub(super) fn blocks_of_no_bytes_are_aligned_up_to_a_page() {
    for groups in (0..300).step_by(if cfg!(miri) { 119 } else { 7 }) {
        let process = Boxed::new(true);
        let page = process.platform().page_size();
        for _ in 0..groups * NARROW_SLOTS {
            assert!(!process.malloc(0).is_null());
        }
        let block = process.aligned_alloc(page, 0);
        assert!(!block.is_null(), "behind {groups} groups");
        assert_eq!(block.addr() % page, 0, "behind {groups} groups");
    }
}

#[test]
fn sizes_are_checked_by_free_sized() {
    for n in [0, 10, 100, 700, 5000, 200_000] {
        let process = Boxed::new(true);
        let p = process.malloc(n);
        // SAFETY: the misuse under test, then a right free.
        unsafe {
            assert!(faults("size", || process.free_sized(p, n + 1)), "{n}");
            assert!(
                n == 0 || faults("size", || process.free_sized(p, n - 1)),
                "{n}"
            );
            process.free_sized(p, n);
            let q = process.aligned_alloc(64, n);
            // More than the address happens to be aligned to.
            let align = 2 << q.addr().trailing_zeros();
            assert!(
                faults("size", || process.free_aligned_sized(q, align, n)),
                "{n}"
            );
            process.free_aligned_sized(q, 64, n);
        }
        assert_eq!(process.verify().live_bytes, 0);
    }
}

/// A tail can be longer than a record can tell: what it tells is then a longer block.
#[test]
fn sizes_of_another_class_are_found_where_the_record_was_rounded() {
    let process = Boxed::new(true);
    for (class, other) in [
        (class_of(170), 1),
        (class_of(5000), 7),
        (class_of(5000), 4000),
    ] {
        let asked = stride(class) - PRESET.guard;
        let kept = stride(class - 1) - PRESET.guard + 1;
        let p = process.malloc(asked);
        // SAFETY: live; then the misuse under test, and a right free.
        unsafe {
            assert_eq!(process.realloc(p, kept), p, "in place");
            assert!(faults("size", || process.free_sized(p, other)), "{other}");
            process.free_sized(p, kept);
            let q = process.aligned_alloc(64, kept);
            assert!(
                faults("size", || process.free_aligned_sized(q, 64, other)),
                "{other}"
            );
            process.free_aligned_sized(q, 64, kept);
        }
    }
    assert_eq!(process.verify().live_bytes, 0);
}

/// What aligned_alloc and realloc within the slot leave is freed by its size, whatever it is.
#[test]
fn every_aligned_block_is_freed_by_its_size() {
    let process = Boxed::new(true);
    let mut resized = 0;
    let classes = few(CLASSES, 8);
    for class in (1..CLASSES).step_by(CLASSES / classes) {
        let most = stride(class) - PRESET.guard;
        let least = stride(class - 1) - PRESET.guard + 1;
        for align in (5..12).map(|bits| 1 << bits) {
            for n in [least, least + 30, most] {
                let p = process.aligned_alloc(align, most);
                // SAFETY: live, and of this size and alignment unless it moved.
                unsafe {
                    let q = process.realloc(p, n);
                    resized += usize::from(q == p && n < most);
                    process.free_aligned_sized(q, if q == p { align } else { 1 }, n);
                    process.free_aligned_sized(process.aligned_alloc(align, n), align, n);
                }
            }
        }
    }
    assert!(resized > classes, "{resized}");
    assert_eq!(process.verify().live_bytes, 0);
}

/// The size is not what realloc looks at first.
#[test]
fn a_resize_beyond_all_bounds_finds_what_is_no_block() {
    let process = Boxed::new(true);
    // SAFETY: the misuse under test.
    let resize = |p| assert!(unsafe { process.realloc(p, usize::MAX) }.is_null());
    for n in [100, 200_000] {
        let (p, live) = (process.malloc(n), process.malloc(n));
        // SAFETY: live; then the misuse under test.
        unsafe {
            process.free(p);
            assert!(faults("free", || resize(p)), "{n}");
            let inside = live.wrapping_add(16);
            assert!(faults("invalid", || resize(inside)), "{n}");
            assert!(process.realloc(live, usize::MAX).is_null(), "{n}");
            process.free(live);
        }
    }
}

/// A buffer that grows byte by byte is resized oftenest while it is long: while its mapping holds
/// it that is one look under the lock, and nothing is asked of the system.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn large_blocks_are_resized_within_their_mapping_at_little_cost() {
    use std::sync::atomic::Ordering::Relaxed;
    let process = Boxed::new(true);
    let page = process.platform().page_size();
    // So many pages, however long.
    let (from, long) = (page * 92 + page / 2, page * 100);
    // SAFETY: live blocks, used within their sizes.
    unsafe {
        // The block takes the freed mapping of another as it is, if it is not sealed. That is kept,
        // as it is wanted again and again.
        for _ in 0..LARGE_TURNS + 2 {
            process.free(process.malloc(long));
        }
        let block = process.malloc(from);
        let to = if PRESET.has_guard_pages() { from } else { long };
        let to = (to | (page - 1)) - 1;
        let (calls, locks) = (
            process.platform().calls.load(Relaxed),
            &process.platform().locks,
        );
        for n in (from..to).chain((to - 4000..=to).rev()) {
            let before = locks.load(Relaxed);
            assert_eq!(process.realloc(block, n), block, "{n} bytes");
            assert_eq!(locks.load(Relaxed), before + 1, "{n} bytes");
            block.add(n - 1).write(1);
        }
        let before = locks.load(Relaxed);
        assert_eq!(process.usable_size(block), to - 4000);
        assert_eq!(locks.load(Relaxed), before + 1);
        assert_eq!(process.platform().calls.load(Relaxed), calls);
        process.free(block);
        // Once more where the pages are so long that the memory goes without the lock.
        let leaving = locks.load(Relaxed) - before - 2;
        assert!(leaving == 0 || leaving == 1 && long >= LARGE_LONG);
    }
    process.verify();
}
