//! Groups that others freed whole while their owner sleeps.

use super::*;
use crate::base::config::{CLASSES, GRANULE, PRESET, RUN_PAGE, SPAN};
use crate::exchange::abandoned::Keeper;
use crate::exchange::mailbox::is_aside;
use crate::heap::orphans;
use crate::layout::chunk::{Chunk, GRANULES};
use crate::layout::group::{Group, State};
use crate::mock::{Call, Plan};
use std::ptr;
use std::sync::atomic::Ordering;

/// A process in which one thread made blocks and sleeps, and another one runs.
struct Asleep {
    process: Boxed,
    owner: &'static Heap,
    blocks: Vec<Live>,
}

impl Asleep {
    /// So many blocks of `n` bytes, in a new process.
    fn new(n: usize, count: usize) -> Asleep {
        Asleep::in_process(Boxed::new(true), n, count)
    }

    /// The same, by the thread that runs.
    fn in_process(process: Boxed, n: usize, count: usize) -> Asleep {
        let blocks = (0..count)
            .map(|i| Live::new(process.malloc(n), n, i as u8 | 1))
            .collect();
        let owner = switch(&process, None);
        // The other thread has a heap, and a block in it.
        process.malloc(1);
        Asleep {
            process,
            owner,
            blocks,
        }
    }

    /// The other thread frees the blocks that `which` says, and keeps no free to itself.
    fn free(&mut self, which: impl Fn(usize) -> bool) {
        let blocks = std::mem::take(&mut self.blocks);
        for (index, block) in blocks.into_iter().enumerate() {
            block.verify();
            if which(index) {
                // SAFETY: live.
                unsafe { self.process.free(block.at) };
            } else {
                self.blocks.push(block);
            }
        }
        self.process.mine().flush();
    }

    /// Bytes of whole pages in the owner's groups, and those of them that are gone.
    fn pages(&self) -> (usize, usize) {
        let (mut all, mut gone) = (0, 0);
        let locked = self.process.heaps.memory.lock();
        for chunk in locked.pages.each_chunk() {
            let own = |granule| {
                let group = chunk.cell(chunk.cell_at(granule));
                group.owner() == self.owner.id() && group.class() < CLASSES
            };
            let each = RUN_PAGE / GRANULE;
            for page in (0..GRANULES).step_by(each) {
                if (page..page + each).all(own) {
                    all += RUN_PAGE;
                    gone += is_gone(chunk.at(page * GRANULE)) as usize * RUN_PAGE;
                }
            }
        }
        (all, gone)
    }

    /// Bytes of groups aside.
    fn bytes_aside(&self) -> usize {
        let locked = self.process.heaps.memory.lock();
        let aside = self.owner.mail.0.aside(&locked.pages.held);
        aside.map(|group| group.bytes()).sum()
    }

    /// The owner wakes up.
    fn wake(&self) {
        switch(&self.process, Some(self.owner));
    }
}

/// Whether the system has no page there.
fn is_gone(at: *mut u8) -> bool {
    let mut resident = 0;
    // SAFETY: one page, and a byte for it.
    let asked = unsafe { libc::mincore(at.cast(), RUN_PAGE, &raw mut resident) };
    asked == 0 && resident & 1 == 0
}

/// Whether the machine can tell of a page of the mock system alone.
fn has_short_pages() -> bool {
    // SAFETY: no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize <= RUN_PAGE }
}

/// Lengths of blocks: in groups of half a page, of no whole granules in a page, of two pages, of
/// many, of the longest slots.
const LENGTHS: [usize; 6] = [40, 90, 200, 1000, 5000, 100_000];

/// Blocks of `n` bytes that take 4 MiB.
fn many(n: usize) -> usize {
    (4 << 20) / n
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn pages_go_back_while_the_owner_sleeps() {
    if !has_short_pages() {
        return println!("skipped: the machine's pages are longer than the mock's");
    }
    for n in LENGTHS {
        let mut asleep = Asleep::new(n, many(n));
        asleep.free(|_| true);
        asleep.process.verify();
        let (all, gone) = asleep.pages();
        assert!(all > 3 << 20, "{n}: {all}");
        // But for those of the first groups, which share their pages with other classes', and what
        // may wait.
        assert!(all - gone <= all / 4, "{n}: {gone} of {all} bytes are gone");
        asleep.wake();
        asleep.process.mine().trim();
        let end = asleep.process.verify();
        assert!(end.used_bytes < 1 << 20, "{n}: {end:?}");
        assert_eq!(asleep.bytes_aside(), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no pages")]
fn in_any_order() {
    if !has_short_pages() {
        return println!("skipped: the machine's pages are longer than the mock's");
    }
    for n in LENGTHS {
        let mut asleep = Asleep::new(n, many(n));
        // All groups are listed long before the first one is complete.
        for part in 0..7 {
            asleep.free(|index| (index * 5 + part) % 7 == 0 || part == 6);
        }
        asleep.process.verify();
        let (all, gone) = asleep.pages();
        assert!(all - gone <= all / 3, "{n}: {gone} of {all} bytes are gone");
    }
}

/// What is put aside serves its owner again, and nothing else changes.
#[test]
fn the_owner_finds_its_slots() {
    for n in if cfg!(miri) { &LENGTHS[4..5] } else { &LENGTHS } {
        let count = few(many(*n), 10);
        let mut asleep = Asleep::new(*n, count);
        // One in a hundred stays, and its group.
        asleep.free(|index| index % 100 != 0);
        assert!(asleep.bytes_aside() > 0 || *n < 100, "{n}");
        asleep.process.verify();
        asleep.wake();
        let mine = asleep.process.mine();
        let used = asleep.process.verify().used_bytes;
        assert!(mine.collect());
        assert!(!mine.collect() && asleep.bytes_aside() == 0);
        asleep.process.verify();
        let again: Vec<_> = (0..count)
            .map(|i| Live::new(asleep.process.calloc(*n), *n, i as u8))
            .collect();
        asleep.blocks.iter().chain(&again).for_each(Live::verify);
        let now = asleep.process.verify().used_bytes;
        assert!(now <= used + used / 8, "{n}: {now} after {used}");
    }
}

#[test]
fn an_owner_that_exits_leaves_nothing_aside() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    asleep.free(|index| index != 7);
    assert!(asleep.bytes_aside() > 0);
    let other = switch(&asleep.process, Some(asleep.owner));
    asleep.process.thread_exit();
    switch(&asleep.process, Some(other));
    let end = asleep.process.verify();
    assert_eq!((asleep.bytes_aside(), end.live), (0, 2));
    assert!(end.used_bytes < 256 << 10, "{end:?}");
}

/// In the child of a fork the owner is not there, and its groups go by their records.
#[test]
fn a_fork_leaves_nothing_aside() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    asleep.free(|index| index != 7);
    assert!(asleep.bytes_aside() > 0);
    fork(&asleep.process);
    asleep.process.verify();
    asleep.free(|_| true);
    let end = asleep.process.verify();
    assert_eq!(end.live, 1);
    assert!(end.used_bytes < 256 << 10, "{end:?}");
}

/// A thread that ends stays behind in the parent of a fork, before it looks into the mailbox of the
/// heap that it left: the child does so.
#[test]
fn a_fork_leaves_nothing_in_the_mailbox_of_an_abandoned_heap() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    asleep.free(|index| index % 64 != 0);
    let process = &asleep.process;
    assert!(process
        .heaps
        .with_abandoned(|abandoned| abandoned.enter(asleep.owner, 0)));
    assert!(asleep.bytes_aside() > 0);
    fork(process);
    assert!(asleep.owner.mail.0.is_empty());
    process.verify();
    asleep.free(|_| true);
    let end = asleep.process.verify();
    assert_eq!(end.live, 1);
    assert!(end.used_bytes < 256 << 10, "{end:?}");
}

/// Where the child uses the numbers of orphaned heaps anew, a heap begins with nothing aside.
#[test]
fn a_heap_that_was_orphaned_begins_with_nothing_aside() {
    let process = Boxed::new(true);
    // The first orphan takes over what others have, and stays one.
    process.malloc(1);
    switch(&process, None);
    let mut asleep = Asleep::in_process(process, 5000, few(many(5000), 20));
    asleep.free(|_| true);
    assert!(asleep.bytes_aside() > 0);
    let process = &asleep.process;
    fork(process);
    orphans::bury(&process.heaps, &mut process.heaps.memory.lock());
    switch(process, None);
    process.malloc(1);
    assert!(ptr::eq(process.mine().heap(), asleep.owner));
    assert_eq!(asleep.bytes_aside(), 0);
    process.verify();
}

#[test]
fn a_system_that_keeps_the_pages_changes_nothing_else() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    *asleep.process.platform().plan.lock().unwrap() = Plan {
        only: 1 << Call::Purge as u32,
        skip: 0,
        refuse: usize::MAX,
    };
    asleep.free(|_| true);
    let refused = asleep.process.platform().refused[Call::Purge as usize].load(Ordering::Relaxed);
    assert!(refused > 0 && asleep.bytes_aside() > 0);
    asleep.wake();
    let again = Live::new(asleep.process.malloc(5000), 5000, 1);
    again.verify();
    assert_eq!(asleep.process.verify().live, 2);
}

/// A block whose group is aside is as dead as any other.
#[test]
fn misuse_of_blocks_in_groups_aside() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    let blocks: Vec<_> = asleep.blocks.iter().map(|block| block.at).collect();
    let slot = asleep.process.find(blocks[0]).expect("live");
    asleep.free(|_| true);
    assert!(asleep.bytes_aside() > 0);
    let process = &asleep.process;
    // SAFETY: the misuse under test, here and below.
    let free = |block| faults("double", || unsafe { process.free(block) });
    assert!(blocks.iter().all(|&block| free(block)));
    // One that passed all its checks before the first free.
    assert!(faults("double", || process
        .heaps
        .send(slot.group, slot.bit())));
    asleep.wake();
    assert!(free(blocks[0]), "its owner, before it collects");
    // SAFETY: likewise.
    assert!(faults("", || unsafe {
        process.realloc(blocks[1], 10);
    }));
}

/// A double free that raced with the owner's makes a group look complete that is not.
#[test]
fn a_group_with_a_block_is_not_put_aside() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    let block = asleep.blocks.pop().expect("some");
    let slot = asleep.process.find(block.at).expect("live");
    asleep.free(|_| true);
    let before = asleep.bytes_aside();
    // The slot's block lives, as the owner made a new one in it.
    asleep.process.heaps.send(slot.group, slot.bit());
    asleep.process.heaps.put_aside(asleep.owner, usize::MAX);
    let locked = asleep.process.heaps.memory.lock();
    assert!(!is_aside(slot.group, &locked.pages.held));
    drop(locked);
    assert!(asleep.bytes_aside() >= before);
    block.verify();
    asleep.wake();
    assert!(faults("double", || {
        asleep.process.mine().collect();
    }));
}

/// The same, while the owner has the slot in a mask, or makes a block of it once its group is
/// aside.
#[test]
fn a_group_with_a_slot_of_its_owner_keeps_its_pages() {
    for current in [false, true] {
        let mut asleep = Asleep::new(200, few(many(200), 120));
        let block = asleep.blocks.remove(asleep.blocks.len() / 2);
        let slot = asleep.process.find(block.at).expect("live");
        // A block of another group in the same span, which is freed last of all.
        let span = |group: &'static Group| {
            (
                Chunk::of(group).address(),
                group.first_granule() * GRANULE / SPAN,
            )
        };
        let is_near = |other: &Live| {
            let other = asleep.process.find(other.at).expect("live").group;
            !ptr::eq(other, slot.group) && span(other) == span(slot.group)
        };
        let near = asleep.blocks.iter().position(is_near).expect("several");
        let last = asleep.blocks.remove(near);
        let other = switch(&asleep.process, Some(asleep.owner));
        // SAFETY: live.
        unsafe { asleep.process.free(block.at) };
        asleep.process.mine().empty_quarantine();
        asleep.process.mine().spill(slot.class);
        asleep.process.mine().retire(slot.class);
        while current && !slot.group.is(State::Current) {
            assert!(asleep.process.mine().refill(slot.class));
        }
        switch(&asleep.process, Some(other));
        asleep.free(|_| true);
        asleep.process.heaps.send(slot.group, slot.bit());
        asleep.process.heaps.put_aside(asleep.owner, usize::MAX);
        let locked = asleep.process.heaps.memory.lock();
        // What the owner has of its current group does not show.
        assert_eq!(is_aside(slot.group, &locked.pages.held), current);
        drop(locked);
        asleep.wake();
        let again = current.then(|| Live::new(asleep.process.malloc(200), 200, 9));
        switch(&asleep.process, Some(other));
        // SAFETY: live.
        unsafe { asleep.process.free(last.at) };
        asleep.process.mine().flush();
        asleep.process.heaps.put_aside(asleep.owner, usize::MAX);
        again.iter().for_each(Live::verify);
        asleep.wake();
        assert!(faults("double", || {
            asleep.process.mine().collect();
        }));
    }
}

/// Where freed memory is kept clear, what was written to it is found before its pages go.
#[test]
fn a_stray_write_is_found_before_the_pages_go() {
    let mut asleep = Asleep::new(5000, few(many(5000), 20));
    let stray = asleep.blocks[3].at;
    asleep.free(|index| index < 4);
    // SAFETY: the misuse under test: memory of the process that holds no block.
    unsafe { stray.add(1000).write(1) };
    let found = faults("write", || asleep.free(|_| true));
    assert_eq!(found, PRESET.zero_on_free);
}
