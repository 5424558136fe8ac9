//! `stats` sums up what the heap holds, by size class. Other threads may be at work meanwhile.

use crate::allocator::Allocator;
use crate::base::config::{CLASSES, PRESET, RUN_PAGE};
use crate::base::platform::Platform;
use crate::base::size_class::{class_of, stride, MAX_SMALL};
use crate::exchange::mailbox::Node;
use crate::inspect::format;
use crate::inspect::groups::each_group;
use crate::layout::group::{rounded, Group};
use crate::layout::record::{PURGED, ZERO};
use crate::pages::memory::Locked;
use core::convert::Infallible;

/// What blocks of one kind take. All but the number of blocks are bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Blocks that the program holds.
    pub blocks: usize,
    /// Bytes of these, as they were asked for (a few are rounded up by some bytes).
    pub live: usize,
    /// Bytes that were used and are kept for later: free slots, or freed large blocks. Mostly they
    /// take memory.
    pub retained: usize,
    /// Bytes of address space that all of it has: live blocks with what they were rounded up by,
    /// free slots, and slots that were never used or whose pages went back to the system.
    pub mapped: usize,
}

impl Usage {
    /// Adds another kind's.
    fn add(&mut self, other: Usage) {
        self.blocks += other.blocks;
        self.live += other.live;
        self.retained += other.retained;
        self.mapped += other.mapped;
    }
}

/// What the heap of a process holds, of all its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    classes: [Usage; CLASSES],
    large: Usage,
    rest: Usage,
}

impl Stats {
    /// The size classes, from the smallest on: bytes of a slot, and what its blocks take.
    pub fn classes(&self) -> impl Iterator<Item = (usize, Usage)> + '_ {
        let of = |(class, &usage)| (stride(class), usage);
        self.classes.iter().enumerate().map(of)
    }

    /// What the blocks of the class take that a block of `bytes` bytes is of, or those that are
    /// larger than all classes.
    pub fn class_of(&self, bytes: usize) -> Usage {
        if bytes > MAX_SMALL {
            return self.large;
        }
        self.classes[class_of(bytes)]
    }

    /// Blocks larger than all classes: each has pages of its own. What is retained are freed ones.
    pub fn large(&self) -> Usage {
        self.large
    }

    /// Memory that holds no block: free pages (retained are those that were used), and the
    /// allocator's own records of pages and slots.
    pub fn rest(&self) -> Usage {
        self.rest
    }

    /// The sum of all.
    pub fn total(&self) -> Usage {
        let mut total = Usage::default();
        let all = self.classes.iter().chain([&self.large, &self.rest]);
        all.for_each(|&usage| total.add(usage));
        total
    }
}

impl<P: Platform> Allocator<P> {
    /// Sums up what the heap holds. Allocates nothing; takes the lock, and time for each slot there
    /// is. What other threads change meanwhile counts as before, as after, or, of a group of slots
    /// that comes or goes just then, in part.
    pub fn stats(&self) -> Stats {
        let locked = self.heaps.memory.lock();
        let mut stats = Stats {
            classes: [Usage::default(); CLASSES],
            large: Usage::default(),
            rest: Usage::default(),
        };
        let in_runs = stats.add_large(&locked);
        let mut chunks = 0;
        for chunk in locked.pages.each_chunk() {
            let header = locked.pages.header(chunk);
            let (data, open) = (header.data.get() as usize, header.open.get() as usize);
            chunks += header.cells_open.get() as usize + open - data;
        }
        let Ok(()) = each_group(&locked, |group| {
            stats.add_group(group, self.avail(group));
            Ok::<_, Infallible>(())
        });
        let groups: usize = stats.classes.iter().map(|class| class.mapped).sum();
        stats.rest.mapped = chunks.saturating_sub(groups + in_runs);
        stats.rest.retained = locked.pages.dirty.amount() * RUN_PAGE;
        stats
    }
}

impl Stats {
    /// Adds the large blocks, live and kept; bytes of runs among them, which lie in chunks.
    fn add_large<P: Platform>(&mut self, locked: &Locked<'_, P>) -> usize {
        let large = &mut self.large;
        let mut in_runs = 0;
        locked.large.each(|_, len, n, is_run| {
            large.blocks += 1;
            large.live += n;
            large.mapped += len;
            in_runs += if is_run { len } else { 0 };
        });
        let kept = locked.large.kept_bytes();
        large.mapped += kept;
        large.retained += if PRESET.seal_freed_large { 0 } else { kept };
        in_runs
    }

    /// Adds a group's slots. All of a group is atomic, and whatever stands in it a number that is
    /// only added up: its owner may be making, using or releasing it.
    /// `avail` are slots that malloc may take and that are in no mask of the group.
    fn add_group(&mut self, group: &'static Group, avail: u32) {
        let (class, slots) = (group.class(), group.capacity());
        let Some(usage) = self.classes.get_mut(class) else {
            return;
        };
        let stride = stride(class);
        usage.mapped += rounded(slots * stride);
        let in_mask = group.freed() | avail | group.mask().peek();
        let guards = group.guard_slots();
        for index in 0..slots {
            let record = group.record(index);
            if let Some((_, length)) = format::block(class, record) {
                usage.blocks += 1;
                usage.live += length;
                continue;
            }
            // In a mask the record is a mark.
            let has_no_pages = [PURGED, ZERO].map(u16::from).contains(&record);
            if guards >> index & 1 == 0 && !(in_mask >> index & 1 != 0 && has_no_pages) {
                usage.retained += stride;
            }
        }
    }
}
