//! What lies unused goes back by time; what is in use does not. Large blocks find mappings again.

use super::*;
use crate::base::config::{
    DECAY_PAUSE, KEEP, LARGE_MOST, LARGE_ROW, LARGE_TURNS, PRESET, PURGE_PAUSE, RUN_PAGE, SPAN,
};
use crate::base::platform::Platform;
use crate::base::size_class::MAX_SMALL;
use crate::mock::{Call, Plan};
use crate::model::Summary;
use crate::pages::extent::KEPT_BYTES;
use crate::pages::large::MOST_APART;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

fn asked(process: &Boxed, call: Call) -> usize {
    process.platform().asked[call as usize].load(Ordering::Relaxed)
}

/// Inaccessible pages before a large block and behind it.
fn guards_of(process: &Boxed, block: *mut u8) -> [u8; 2] {
    let locked = process.heaps.memory.lock();
    let extent = locked.large.find(block).expect("a large block");
    extent.guards.get()
}

/// A process whose clock stands.
fn frozen() -> Boxed {
    let process = Boxed::new(false);
    process.platform().frozen.store(true, Ordering::Relaxed);
    process
}

/// A process like that, whose mappings lie where it wishes. One at a time: the secrets of tests are
/// alike, so they wish for addresses close by.
fn hearing() -> (MutexGuard<'static, ()>, Boxed) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = frozen();
    process.platform().hears.store(true, Ordering::Relaxed);
    (alone, process)
}

/// Time goes by, and small blocks come and go, so that refills look at the clock.
fn work(process: &Boxed, milliseconds: u32) -> Summary {
    process.platform().pass(milliseconds);
    for _ in 0..40 {
        let live: Vec<_> = (0..400).map(|_| process.malloc(100)).collect();
        for block in live {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
    }
    process.verify()
}

/// A pair of malloc and free of `n` bytes, written all over.
fn pair(process: &Boxed, n: usize) {
    let block = process.malloc(n);
    // SAFETY: live and n bytes long.
    unsafe {
        block.write_bytes(1, n);
        process.free(block);
    }
}

/// Frees a block of `n` bytes and wants it again, until its mapping is kept, however little may be
/// kept of what nobody asks for.
fn want_again(process: &Boxed, n: usize) {
    for _ in 0..=LARGE_TURNS + 1 {
        pair(process, n);
    }
    assert!(process.verify().cached_bytes >= n);
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn what_lay_unused_for_a_while_goes_back() {
    let process = frozen();
    // So that the heap does not settle meanwhile.
    let held: Vec<_> = (0..2000).map(|_| process.malloc(100)).collect();
    work(&process, DECAY_PAUSE);
    let start = work(&process, DECAY_PAUSE);
    // Pages, less than what may wait for ever, and a mapping.
    let n = KEEP / 2 - 2000;
    let live: Vec<_> = (0..2).map(|_| process.aligned_alloc(8192, n)).collect();
    for block in live {
        // SAFETY: live and as long.
        unsafe {
            block.write_bytes(1, n);
            process.free(block);
        }
    }
    want_again(&process, 300_000);
    let before = work(&process, DECAY_PAUSE - 1);
    assert!(before.cached_bytes >= 300_000, "{before:?}");
    // The first look sees that they were in use since the one before, the second that not.
    work(&process, 1);
    let after = work(&process, DECAY_PAUSE);
    if !PRESET.seal_freed_large {
        assert_eq!(after.cached_bytes, 0, "{after:?}");
    }
    // (With small constants pages hardly wait at all.)
    assert!(
        cfg!(small_constants) || before.dirty_bytes > start.dirty_bytes + KEEP / 4 * 3,
        "{start:?} {before:?}"
    );
    let few = KEEP / 4 + SPAN;
    assert!(
        after.dirty_bytes <= start.dirty_bytes + few,
        "{after:?}, {start:?}"
    );
    // What went stays away, at the price of few calls.
    let purges = asked(&process, Call::Purge);
    for _ in 0..8 {
        work(&process, DECAY_PAUSE);
    }
    let calls = asked(&process, Call::Purge) - purges;
    assert!(cfg!(small_constants) || calls <= 8 * 16, "{calls}");
    for block in held {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
}

/// Builds up `count` blocks of up to a KiB, frees all, and tells what is held then: bytes of runs
/// in use, spans with what they keep among them, and of dirty free pages.
fn build_and_drop(process: &Boxed, count: usize) -> usize {
    let live: Vec<_> = (0..count)
        .map(|i| process.malloc(i * 7919 % 1024 + 1))
        .collect();
    for i in 0..count {
        // SAFETY: live; 7919 is a prime, which divides no count here: each block once.
        unsafe { process.free(live[i * 7919 % count]) };
    }
    let summary = process.verify();
    summary.used_bytes + summary.dirty_bytes
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
#[cfg_attr(
    feature = "hardened",
    ignore = "quarantine holds groups of all classes"
)]
fn a_heap_settles_when_little_is_left() {
    for count in [200, 1000, 5000] {
        let process = frozen();
        for round in 0..20 {
            process.platform().pass(PURGE_PAUSE);
            let held = build_and_drop(&process, count);
            assert!(held <= 8 * SPAN, "{count}, round {round}: {held}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn a_heap_that_is_built_up_again_and_again_settles_once_in_a_pause() {
    let process = frozen();
    let rounds = |count: usize| {
        process.platform().pass(PURGE_PAUSE);
        let before = asked(&process, Call::Purge);
        (0..count).for_each(|_| _ = build_and_drop(&process, 1000));
        asked(&process, Call::Purge) - before
    };
    rounds(2);
    let (few, many) = (rounds(2), rounds(50));
    assert!(few > 0 && many <= 2 * few + 8, "{few}, {many}");
}

#[test]
#[cfg_attr(feature = "hardened", ignore = "quarantine takes slots")]
#[cfg_attr(small_constants, ignore = "each is more than may be kept")]
fn two_long_blocks_in_turn_leave_each_other_s_slot() {
    let process = frozen();
    let both = || [20_000, 50_000].map(|n| pair(&process, n));
    (0..4).for_each(|_| _ = both());
    let before = process.mine().refills.get();
    (0..100).for_each(|_| _ = both());
    let refills = process.mine().refills.get() - before;
    assert!(refills < 8, "{refills}");
}

#[test]
#[cfg_attr(
    feature = "hardened",
    ignore = "quarantine holds groups of all classes"
)]
fn a_buffer_that_grows_leaves_no_slot_in_each_class() {
    let process = frozen();
    let mut block = process.malloc(1000);
    let mut n = 1000;
    while n < MAX_SMALL {
        // SAFETY: live.
        block = unsafe { process.realloc(block, n) };
        n += n / 8;
    }
    // The sum of a slot of each long class is 900 KiB.
    let used = process.verify().used_bytes;
    assert!(used <= 3 * MAX_SMALL, "{used}");
    // SAFETY: live.
    unsafe { process.free(block) };
}

#[test]
fn what_is_in_use_stays() {
    let process = frozen();
    want_again(&process, 400_000);
    let unmaps = asked(&process, Call::Unmap);
    for _ in 0..8 {
        // A look at the clock needs a few frees.
        for _ in 0..64 {
            process.platform().pass(DECAY_PAUSE / 16);
            pair(&process, 400_000);
        }
    }
    // The hardened preset lets addresses wait.
    if !PRESET.seal_freed_large {
        assert_eq!(asked(&process, Call::Unmap), unmaps);
    }
}

/// Where mappings went back too early, as much is kept from then on, whatever the budget.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn a_repeated_pair_keeps_its_mapping_until_it_stops() {
    if PRESET.has_guard_pages() {
        return println!("skipped: the preset lets addresses wait");
    }
    for n in [900_000, 3_000_000, 30_000_000] {
        let process = frozen();
        want_again(&process, n);
        let (maps, unmaps) = (asked(&process, Call::Map), asked(&process, Call::Unmap));
        for _ in 0..100 {
            pair(&process, n);
        }
        assert_eq!(asked(&process, Call::Map), maps, "{n}");
        assert_eq!(asked(&process, Call::Unmap), unmaps, "{n}");
        assert!(process.verify().cached_bytes > n);
        for _ in 0..3 {
            work(&process, DECAY_PAUSE);
        }
        assert_eq!(process.verify().cached_bytes, 0, "{n}");
        // Forgotten, too: what is freed once is not kept.
        pair(&process, n);
        assert_eq!(process.verify().cached_bytes, 0, "{n}");
    }
}

/// Whether the byte may be read.
#[cfg(not(miri))]
fn is_accessible(at: *mut u8) -> bool {
    // SAFETY: the system reads it, and a byte out of reach is an error.
    unsafe {
        let file = libc::memfd_create(c"byte".as_ptr(), 0);
        let written = libc::write(file, at.cast(), 1);
        libc::close(file);
        written == 1
    }
}

/// What a stale pointer meets: nothing at all, until the program turned the size over and over.
#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
#[cfg(not(miri))]
fn a_freed_block_is_out_of_reach_until_a_churn_earns_a_grace() {
    if PRESET.seal_freed_large {
        return println!("skipped: the preset gives no grace");
    }
    for (n, turns) in [(200_000, LARGE_TURNS), (3_000_000, 1)] {
        let process = frozen();
        let free = |block| {
            // SAFETY: live.
            unsafe { process.free(block) };
            process.verify().cached_bytes
        };
        for turn in 0..turns + 3 {
            let kept = free(process.malloc(n));
            assert_eq!(kept > 0, turn >= turns, "{n}: turn {turn}");
        }
        // As much as was wanted again, not all that comes.
        let two = [process.malloc(n), process.malloc(n)];
        assert!(two.map(free)[1] < 2 * n, "{n}");
        let gone = |&block: &*mut u8| !process.platform().is_mapped(block);
        assert!(two.iter().any(gone), "{n}");
        // A program that frees and frees begins anew.
        let many: Vec<_> = (0..=LARGE_ROW).map(|_| process.malloc(n)).collect();
        assert_eq!(many.into_iter().map(free).last(), Some(0), "{n}");
        assert_eq!(free(process.malloc(n)) > 0, turns == 1, "{n}");
    }
}

/// Blocks in mappings of their own lie apart, for nothing: each call that maps one says where.
#[test]
#[cfg_attr(not(target_pointer_width = "64"), ignore = "no addresses to spare")]
#[cfg(not(miri))]
fn around_a_large_block_nothing_is_mapped() {
    let (_alone, process) = hearing();
    let page = process.platform().page_size();
    let warm = process.malloc(200_000);
    let calls = asked(&process, Call::Map);
    let is_mapped = |at| process.platform().is_mapped(at);
    let blocks: Vec<_> = (0..64)
        .map(|i| process.malloc(150_000 + 5000 * i))
        .collect();
    if !PRESET.has_guard_pages() {
        assert!(
            asked(&process, Call::Map) < calls + 64 + 10,
            "a call each, and tables"
        );
    }
    let mut addresses: Vec<_> = blocks.iter().map(|block| block.addr()).collect();
    addresses.sort_unstable();
    assert!(addresses
        .windows(2)
        .all(|two| two[1] - two[0] > 150_000 + (1 << 20)));
    for &block in &blocks {
        let end = block
            .wrapping_add(process.usable_size(block) | (page - 1))
            .wrapping_add(1);
        let [front, back] = guards_of(&process, block).map(|pages| pages as usize * page);
        let before = block.wrapping_sub(front + (1 << 20));
        assert!(!is_mapped(before) && !is_mapped(end.wrapping_add(back + (1 << 19))));
        if !PRESET.has_guard_pages() {
            assert!(!is_mapped(block.wrapping_sub(page)) && !is_mapped(end));
        }
    }
    // What an alignment asks to be mapped more is counted, too.
    let aligned: Vec<_> = (0..8)
        .map(|_| process.aligned_alloc(1 << 20, 200_000))
        .collect();
    for &block in &aligned {
        let [front, back] = guards_of(&process, block).map(|pages| pages as usize * page);
        let end = block
            .wrapping_add(200_000 + page)
            .map_addr(|at| at & !(page - 1));
        assert!(!is_mapped(block.wrapping_sub(front + (1 << 19))));
        assert!(!is_mapped(end.wrapping_add(back + (1 << 19))));
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // A freed address is not used soon: a stale pointer faults although others came.
    for &block in &blocks {
        // SAFETY: live.
        unsafe { process.free(block) };
        // In no freed mapping: it is longer by pages.
        let other = process.malloc(600_000);
        assert!(!addresses.contains(&other.addr()));
        // SAFETY: live.
        unsafe { process.free(other) };
        assert!(PRESET.seal_freed_large || !is_mapped(block) || process.verify().cached_bytes > 0);
    }
    // SAFETY: live.
    unsafe { process.free(warm) };
    process.verify();
}

/// The system counts a large block between inaccessible pages as three mappings: few of very many
/// have such pages, and the others the canary that they need then, even if they are whole pages.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn inaccessible_pages_are_bounded() {
    if !PRESET.has_guard_pages() {
        return println!("skipped: the preset has none");
    }
    let process = frozen();
    let page = process.platform().page_size();
    let n = (MAX_SMALL + 1).next_multiple_of(page);
    let make = |_| process.malloc(n);
    let blocks: Vec<_> = (0..MOST_APART).map(make).collect();
    let is_guarded = |block: &*mut u8| guards_of(&process, *block) != [0; 2];
    assert!(blocks.iter().all(is_guarded));
    let further: Vec<_> = (0..3).map(make).collect();
    assert!(!further.iter().any(is_guarded));
    let calls = asked(&process, Call::Map);
    let block = process.malloc(n);
    assert_eq!(asked(&process, Call::Map), calls + 1, "nothing is closed");
    // SAFETY: live, and the misuse under test.
    unsafe {
        block.add(n).write(1);
        assert!(faults("overflow", || process.free(block)));
        block.add(n).write(0);
        let long = process.realloc(block, 3 * n);
        assert!(!is_guarded(&long));
        long.add(3 * n).write(1);
        assert!(faults("overflow", || process.free(long)));
        long.add(3 * n).write(0);
        let short = process.realloc(long, n + 1);
        assert_eq!(short, long);
        process.free(short);
        // One less with such pages: the next one has them.
        process.free(blocks[0]);
        assert!(is_guarded(&process.malloc(n)) && !is_guarded(&process.malloc(n)));
    }
    for &block in blocks[1..].iter().chain(&further) {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    process.verify();
}

/// Mappings that the system refused to take back serve again, though malloc looks at few of them:
/// each time at others, and at all when the system has nothing else.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn a_mapping_that_was_refused_is_found_in_its_turn() {
    if PRESET.seal_freed_large {
        return println!("skipped: the preset gives none of these again");
    }
    for is_short in [false, true] {
        let process = frozen();
        let set = |plan| *process.platform().plan.lock().unwrap() = plan;
        let only = |call| Plan {
            only: 1 << call as u32,
            skip: 0,
            refuse: usize::MAX,
        };
        let (n, long) = (MAX_SMALL + 1, 4 * MAX_SMALL);
        let mut blocks: Vec<_> = (0..200).map(|_| process.malloc(n)).collect();
        let sought = process.malloc(long);
        blocks.insert(100, sought);
        set(only(Call::Unmap));
        for block in blocks {
            // SAFETY: live.
            unsafe { process.free(block) };
        }
        assert_eq!(process.heaps.memory.lock().large.refused.count.get(), 201);
        if is_short {
            set(only(Call::Map));
        }
        let found = (1..).find(|_| process.malloc(long) == sought).unwrap();
        println!("found by malloc {found}");
        assert!(if is_short {
            found == 1
        } else {
            (2..=4).contains(&found)
        });
        process.verify();
    }
}

/// The first byte behind a large block is a NUL, so that a string without an end ends there; it and
/// those that follow are watched. What of them becomes the block's is clear.
#[test]
pub(super) fn large_blocks_have_a_nul_and_a_guard_behind_them() {
    let process = frozen();
    let page = process.platform().page_size();
    let whole = usize::next_multiple_of(200_000, page);
    for (n, watched) in [(150_001, 16), (200_000, 16), (whole - 3, 3), (whole - 1, 1)] {
        let room = n.next_multiple_of(page) - n;
        let block = process.malloc(n);
        let end = block.wrapping_add(n);
        // SAFETY: all within the block's pages; the misuse under test is undone.
        unsafe {
            assert_eq!(end.read() == 0, room > 1, "{n}");
            for at in (0..room.min(watched)).map(|offset| end.add(offset)) {
                at.write(at.read() ^ 1);
                assert!(faults("overflow", || process.free(block)), "{n}");
                at.write(at.read() ^ 1);
            }
            block.write_bytes(1, n);
            let block = process.realloc(block, n - 2000);
            let block = process.realloc(block, n);
            let back = std::slice::from_raw_parts(block.add(n - 2000), 2000);
            assert!(crate::model::is_all(back, 0), "{n}");
            process.free(block);
        }
    }
    process.verify();
}

/// In the hardened preset a block in whole pages stands between inaccessible pages, too.
#[test]
#[cfg(not(miri))]
fn hardened_blocks_have_guards_on_both_sides() {
    if !PRESET.has_guard_pages() {
        return println!("skipped: the default preset has none");
    }
    let process = frozen();
    let mut widths = std::collections::BTreeSet::new();
    let page = process.platform().page_size();
    let whole = usize::next_multiple_of(200_000, page);
    for n in [200_000, whole - 8, whole, whole - 100] {
        let block = process.aligned_alloc(page, n);
        let locked = process.heaps.memory.lock();
        let extent = locked.large.find(block).expect("a large block");
        widths.extend(extent.guards.get());
        assert!(extent.guards.get().iter().all(|&n| n > 0));
        assert_eq!(extent.len.get(), n.next_multiple_of(page));
        drop(locked);
        let end = n.next_multiple_of(page);
        assert!(is_accessible(block) && is_accessible(block.wrapping_add(end - 1)));
        for at in [block.wrapping_sub(1), block.wrapping_add(end)] {
            assert!(!is_accessible(at), "{n}");
        }
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    // With few addresses long pages stand alone.
    let alone = usize::BITS < 64 && page > RUN_PAGE;
    assert!(alone || widths.len() > 4, "{widths:?}");
    process.verify();
}

/// Heaps and tables of the hardened preset lie far apart between inaccessible pages.
#[test]
#[cfg_attr(not(target_pointer_width = "64"), ignore = "no addresses to spare")]
#[cfg(not(miri))]
fn hardened_tables_lie_far_apart() {
    if !PRESET.has_guard_pages() {
        return println!("skipped: the default preset has them side by side");
    }
    let (_alone, process) = hearing();
    let page = process.platform().page_size();
    let small = process.malloc(100);
    let mut locked = process.heaps.memory.lock();
    let tables = [(); 8].map(|_| locked.pages.metadata(100_000, 64).expect("memory"));
    drop(locked);
    for table in tables {
        assert!(is_accessible(table) && is_accessible(table.wrapping_add(99_999)));
        assert!(!is_accessible(table.wrapping_sub(1)));
        let end = table.wrapping_add(usize::next_multiple_of(100_000, page));
        assert!(!is_accessible(end));
    }
    let mut all: Vec<_> = tables.iter().map(|at| at.addr()).collect();
    all.push(small.addr());
    all.sort_unstable();
    let ways: std::collections::BTreeSet<_> = all.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        ways.len() == 8 && *ways.first().expect("eight") > 1 << 20,
        "{ways:?}"
    );
}

/// A hardened block that grows moves between inaccessible pages, and gives the others back.
#[test]
pub(super) fn guarded_blocks_grow_and_shrink() {
    let (_alone, process) = hearing();
    pair(&process, 150_000);
    process.mine().trim();
    let mapped = process.platform().mapped();
    let mut block = process.malloc(150_000);
    let sizes = [
        1 << 20,
        3 << 20,
        7 << 20,
        2 << 20,
        2 << 21,
        1 << 18,
        9 << 20,
    ];
    let mut before = 150_000;
    let mut without_front = 0;
    // SAFETY: live blocks, used within their sizes.
    unsafe {
        block.write_bytes(7, before);
        for n in sizes {
            block = process.realloc(block, n);
            let kept = std::slice::from_raw_parts(block, n.min(before));
            assert!(crate::model::is_all(kept, 7), "{n}");
            block.write_bytes(7, n);
            before = n;
            process.verify();
            let [front, back] = guards_of(&process, block);
            assert_eq!(back > 0, PRESET.has_guard_pages(), "{n}");
            without_front += (front == 0) as usize;
        }
        process.free(block);
    }
    // Before a block that moved there are none where another test has taken the addresses, and they
    // are missing still when it shrinks.
    let taken = process.platform().unheard.load(Ordering::Relaxed);
    let most = if PRESET.has_guard_pages() {
        2 * taken
    } else {
        sizes.len()
    };
    assert!(
        without_front <= most,
        "{without_front} without a guard, {taken} wishes unheard"
    );
    process.mine().trim();
    process.verify();
    assert_eq!(process.platform().mapped(), mapped);
}

/// Addresses of freed blocks wait in the hardened preset, and leave in no order.
#[test]
fn freed_addresses_wait_and_leave_at_random() {
    if !PRESET.seal_freed_large {
        return println!("skipped: nothing waits in the default preset");
    }
    // So that no address serves twice, where there are addresses to spare.
    let (_alone, process) = hearing();
    let len = usize::next_multiple_of(150_000, process.platform().page_size());
    // Where addresses are few these end it.
    let delay = (PRESET.large_delay as usize).min(KEPT_BYTES / len);
    let is_kept = |at: usize| {
        let locked = process.heaps.memory.lock();
        let block = std::ptr::without_provenance_mut(at);
        locked.large.was_freed(process.platform(), block)
    };
    let freed: Vec<_> = (0..3 * delay)
        .map(|_| {
            let block = process.malloc(150_000);
            // SAFETY: live.
            unsafe { process.free(block) };
            block.addr()
        })
        .collect();
    let kept: Vec<_> = freed.iter().map(|&at| is_kept(at)).collect();
    let count = process.heaps.memory.lock().large.kept.count.get();
    assert_eq!(count, delay);
    assert!(kept[3 * delay - delay / 2..].iter().all(|&kept| kept));
    assert!(
        cfg!(small_constants) || kept[..2 * delay].contains(&true),
        "in order"
    );
    process.verify();
}

/// Addresses that wait are a share of those there are: fewer, once the system refused memory.
#[test]
#[cfg(not(miri))]
fn freed_addresses_that_wait_are_bounded() {
    if !PRESET.seal_freed_large {
        return println!("skipped: nothing waits in the default preset");
    }
    for (is_short, most) in [(false, KEPT_BYTES), (true, KEPT_BYTES.min(32 << 20))] {
        let process = frozen();
        pair(&process, 150_000);
        process.mine().trim();
        let mapped = process.platform().mapped();
        process.heaps.memory.lock().large.is_short = is_short;
        for n in [140_000, 1 << 20, 5 << 20] {
            for _ in 0..2 * PRESET.large_delay {
                // SAFETY: live.
                unsafe { process.free(process.malloc(n)) };
            }
            let waits = process.verify().cached_bytes;
            assert!(waits <= most, "{waits} bytes");
            // With inaccessible pages, which are a half of the shortest blocks at most.
            let more = process.platform().mapped() - mapped;
            assert!(more <= most / 2 * 3 + (1 << 20), "{more} bytes");
        }
        process.platform().calls_left.store(0, Ordering::Relaxed);
        assert!(process.malloc(5 << 20).is_null());
        assert!(process.heaps.memory.lock().large.is_short);
    }
}

/// However often it is wanted again: nothing but further calls would give it back, and the program
/// may make none that does.
#[test]
fn a_very_long_block_earns_no_grace() {
    if PRESET.seal_freed_large {
        return println!("skipped: the preset gives no grace");
    }
    let process = frozen();
    for n in [LARGE_MOST - 4096, LARGE_MOST, 2 * LARGE_MOST] {
        for _ in 0..3 {
            // SAFETY: live.
            unsafe { process.free(process.malloc(n)) };
        }
        let kept = process.verify().cached_bytes;
        assert_eq!(kept > 0, n < LARGE_MOST, "{n}");
        // Then all is to be earned anew.
        let many: Vec<_> = (0..=LARGE_ROW).map(|_| process.malloc(n / 8)).collect();
        // SAFETY: live.
        many.into_iter()
            .for_each(|block| unsafe { process.free(block) });
    }
}

/// A mapping in grace goes when others are freed and wanted, and it is not.
#[test]
fn a_grace_ends_with_further_frees() {
    if PRESET.seal_freed_large {
        return println!("skipped: the preset gives no grace");
    }
    // Else both may lie side by side, and are joined.
    let (_alone, process) = hearing();
    // So that as much may be kept.
    want_again(&process, 3_000_000);
    let live = process.malloc(3_000_000);
    let long = process.malloc(900_000);
    // On 32 bits, where nothing is wished for, the next mapping would lie below.
    let page = process.platform().page_size();
    let below = process.platform().map(long.addr() - page, page);
    assert!(below.is_some(), "it lies between");
    pair(&process, 200_000);
    // SAFETY: live.
    unsafe { process.free(long) };
    let both = process.verify().cached_bytes;
    assert!(both > 1_100_000, "{both}");
    for _ in 0..PRESET.large_delay {
        pair(&process, 900_000);
    }
    let after = process.verify().cached_bytes;
    assert!(after > 900_000 && after < 1_100_000, "{after}");
    // SAFETY: live.
    unsafe { process.free(live) };
    process.verify();
}

/// What a shrinking realloc gives up has no memory any more.
#[test]
#[cfg(not(miri))]
fn the_end_of_a_shrunk_block_is_out_of_reach() {
    let process = frozen();
    let page = process.platform().page_size();
    let is_mapped = |at| process.platform().is_mapped(at);
    let block = process.malloc(900_000);
    // SAFETY: live, and resized in their places.
    unsafe {
        assert_eq!(process.realloc(block, 500_000), block);
        assert!(is_mapped(block.add(499_999)));
        let behind = if PRESET.has_guard_pages() { 16 } else { 0 };
        let end = usize::next_multiple_of(500_000, page) + page * behind;
        assert!(end >= 900_000 || !is_mapped(block.add(end)));
        // It becomes a block of a size class, and the mapping goes.
        let small = process.realloc(block, 5000);
        assert_ne!(small, block);
        assert!(PRESET.seal_freed_large || !is_mapped(block));
        process.free(small);
    }
    process.verify();
}

#[test]
fn a_kept_mapping_is_cut_and_joined() {
    if PRESET.has_guard_pages() {
        return println!("skipped: inaccessible pages stand behind whole mappings");
    }
    let process = frozen();
    // So that much may be kept while blocks are freed in a row.
    let live = process.malloc(60_000_000);
    want_again(&process, 2_000_000);
    let maps = asked(&process, Call::Map);
    let cached = process.verify().cached_bytes;
    let three = [600_000, 500_000, 400_000].map(|n| process.malloc(n));
    for block in three {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    assert_eq!(
        process.verify().cached_bytes,
        cached,
        "cut, and joined again"
    );
    pair(&process, 1_900_000);
    assert_eq!(asked(&process, Call::Remap), 0, "malloc moves no mapping");
    assert_eq!(
        asked(&process, Call::Map),
        maps,
        "all of it served by one mapping"
    );
    // A second free of a block whose mapping was joined is still named.
    let twice = process.malloc(600_000);
    // SAFETY: live; the second free stops.
    unsafe {
        process.free(twice);
        assert!(faults("double", || process.free(twice)));
        process.free(live);
    }
    process.verify();
}

#[test]
fn calloc_of_a_used_mapping_gets_zeros() {
    let process = frozen();
    for n in [300_000, 600_000, 6_000_000] {
        for _ in 0..4 {
            pair(&process, n);
            let block = process.malloc(n);
            if process.is_zero(block) {
                // SAFETY: live and n bytes long.
                let bytes = unsafe { std::slice::from_raw_parts(block, n) };
                assert!(crate::model::is_all(bytes, 0), "{n}");
            }
            // SAFETY: live; its canary must stand.
            unsafe { process.free(block) };
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn a_freed_table_of_callocs_waits_without_pages() {
    if PRESET.seal_freed_large {
        println!("skipped: the preset empties all freed mappings");
        return;
    }
    let process = frozen();
    let n = 600_000;
    let pages = n / 4096;
    let resident = |block: *mut u8| {
        let mut seen = vec![0u8; pages];
        // SAFETY: asks about a mapping, live or kept, of as many pages.
        let told = unsafe { libc::mincore(block.cast(), pages * 4096, seen.as_mut_ptr()) };
        assert_eq!(told, 0);
        seen.iter().filter(|&&page| page & 1 != 0).count()
    };
    want_again(&process, n);
    let table = process.malloc(n);
    assert!(process.is_zero(table));
    // SAFETY: live and n bytes long; then it is gone.
    unsafe {
        table.write_bytes(1, n);
        assert_eq!(resident(table), pages);
        process.free(table);
    }
    assert_eq!(resident(table), 0, "the next calloc would take new pages");
    let purges = asked(&process, Call::Purge);
    let again = process.malloc(n);
    assert_eq!(again, table);
    assert!(process.is_zero(again));
    assert_eq!(asked(&process, Call::Purge), purges, "it is zero already");
    // SAFETY: live.
    unsafe { process.free(again) };
    // What was malloc's keeps its pages.
    pair(&process, n);
    assert_eq!(resident(table), pages);
    process.verify();
}
