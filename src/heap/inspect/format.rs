//! What a dump of a heap says, line by line: for `dump.rs`, which reads the heap from inside, and
//! for `byssal look`, which reads it from outside.
//!
//! ```text
//! byssal-dump 1 preset=default heaps=1
//! heap id=1 life=active idle=0
//! class heap=1 class=3 stride=64 slots=8 groups=1 queued=0 empty=0
//! group heap=1 class=3 base=0x7f0000075000 bytes=512 state=current slots=La....ff
//! run base=0x7f0000080000 pages=1 bytes=4096
//! large base=0x7f0000100000 mapped=204800 bytes=200000
//! total groups=1 live=2 runs=1 large=1 live_bytes=204160 used=32768 dirty=0 cached=0
//! ```
//!
//! Numbers are bytes unless named otherwise. Letters of slots, from the first on: `L` live, `a`
//! ready to be handed out, `f` freed, `r` freed by another thread, `h` freed by one that defers it
//! still, `q` in quarantine, `.` never used, `?` more than one of these or none: the heap is broken.

use crate::base::config::UNIT;
use crate::base::size_class::{stride, FIRST_WIDE};
use crate::exchange::mailbox::Life;
use crate::layout::group::State;
use crate::layout::record::{narrow_tail, narrow_units, wide_read, wide_tail};
use core::fmt::{self, Display};

/// Bytes of a cell: the state of a group or of a span, or the record of a large block.
pub const CELL: usize = crate::layout::chunk::CELL;

/// `Life` of a heap that a thread has.
pub const ACTIVE: u32 = Life::Active as u32;

/// `Life` of a heap whose thread a fork left behind.
pub const ORPHANED: u32 = Life::Orphaned as u32;

/// `State` of the group that its class takes slots from.
pub const CURRENT: u32 = State::Current as u32;

/// The state of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotState {
    /// It holds a block.
    Live,
    /// In its group's mask.
    Freed,
    /// In its group's mask of other threads' frees.
    Remote,
    /// Among another thread's deferred frees.
    Deferred,
    /// At hand for malloc.
    Avail,
    /// In quarantine.
    Quarantine,
    /// Never handed out.
    Unused,
}

impl SlotState {
    /// Its letter in a dump.
    pub fn letter(self) -> char {
        match self {
            SlotState::Live => 'L',
            SlotState::Freed => 'f',
            SlotState::Remote => 'r',
            SlotState::Deferred => 'h',
            SlotState::Avail => 'a',
            SlotState::Quarantine => 'q',
            SlotState::Unused => '.',
        }
    }
}

/// The places that can tell of a slot, and whether each does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// Its record tells of a block.
    pub live: bool,
    /// Its group's mask of free slots.
    pub freed: bool,
    /// Its group's mask of other threads' frees.
    pub remote: bool,
    /// The class's slots at hand, of the current group.
    pub avail: bool,
    /// The class's reuse queue.
    pub ready: bool,
    /// The heap's quarantine.
    pub quarantine: bool,
    /// How many heaps' threads freed the slot and have not sent it yet, of living heaps and of those
    /// that a fork left behind.
    pub deferred: [usize; 2],
    /// Its record, as wide as it is.
    pub record: u16,
}

impl Places {
    /// The state that they tell; Err if not exactly one does.
    pub fn state(&self) -> Result<SlotState, &'static str> {
        let places = [
            (self.live, SlotState::Live),
            (self.freed, SlotState::Freed),
            (self.remote, SlotState::Remote),
            (self.avail, SlotState::Avail),
            (self.ready, SlotState::Avail),
            (self.quarantine, SlotState::Quarantine),
        ];
        let mut found = places.into_iter().filter(|&(is_here, _)| is_here);
        let (place, other) = (found.next(), found.next());
        // A fork lost what a thread deferred that stayed behind.
        let deferred = match self.deferred {
            [0, lost] => place.is_none() && lost > 0,
            [1, _] => true,
            _ => return Err("one thread defers the free of a slot"),
        };
        let state = match (place, deferred) {
            (None, true) => SlotState::Deferred,
            (Some((_, state)), false) if other.is_none() => state,
            _ => return Err("each slot is live or in exactly one place"),
        };
        let masked = self.freed || self.avail;
        if masked && !Mark::is(self.record) {
            return Err("the record of a slot in a mask is a mark");
        }
        let unused = masked && Mark::of(self.record) == Some(Mark::Unused);
        Ok(if unused { SlotState::Unused } else { state })
    }
}

/// What the record of a slot in a mask tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It was used.
    Used,
    /// Its pages were given back.
    Purged,
    /// It was never handed out.
    Unused,
}

impl Mark {
    /// What a record tells, if it is a mark.
    pub fn of(record: u16) -> Option<Mark> {
        use crate::layout::record::{NEW, PURGED, USED, ZERO};
        match u8::try_from(record).ok()? {
            USED => Some(Mark::Used),
            PURGED => Some(Mark::Purged),
            NEW | ZERO => Some(Mark::Unused),
            _ => None,
        }
    }

    fn is(record: u16) -> bool {
        Mark::of(record).is_some()
    }
}

/// Whether records of a class, or of blocks of no bytes, are of one byte; else they are of two.
pub fn is_narrow(class: usize) -> bool {
    !(FIRST_WIDE..crate::base::config::CLASSES).contains(&class)
}

/// Where the block of a slot of `class` lies in it, and its length, if the record tells of one.
pub fn block(class: usize, record: u16) -> Option<(usize, usize)> {
    let stride = stride(class);
    let (offset, tail) = if is_narrow(class) {
        let units = narrow_units(record as u8).checked_sub(1)?;
        (units as usize * UNIT, narrow_tail(record as u8))
    } else {
        let place = wide_read(stride, record)?;
        (place.offset, place.tail)
    };
    // A damaged record may tell of more than there is.
    Some((offset, stride.saturating_sub(offset + tail)))
}

/// Bytes of the tail that stands behind the block that a slot of `class` holds, or held last if it is
/// in a reuse queue.
pub fn tail(class: usize, record: u16) -> usize {
    if is_narrow(class) {
        narrow_tail(record as u8)
    } else {
        wide_tail(record)
    }
}

/// Bytes of a group of so many slots.
pub fn group_bytes(class: usize, slots: usize) -> usize {
    crate::layout::group::rounded(slots * stride(class))
}

/// What a heap is to threads, by the number of its `Life`.
pub fn life(number: u32) -> &'static str {
    const LIVES: [(Life, &str); 5] = [
        (Life::Unused, "unused"),
        (Life::Active, "active"),
        (Life::Abandoned, "parked"),
        (Life::Claimed, "parked"),
        (Life::Orphaned, "dead"),
    ];
    let life = LIVES.iter().find(|(life, _)| *life as u32 == number);
    life.map_or("unused", |(_, name)| name)
}

/// What a group is to its heap, by the number of its `State`.
pub fn group_state(number: u32) -> &'static str {
    if number == State::Current as u32 {
        "current"
    } else if number == State::Queued as u32 {
        "queued"
    } else {
        "detached"
    }
}

/// A line of a dump, but for the letters of a group's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The first one.
    Head { preset: &'static str, heaps: usize },
    /// A heap.
    Heap {
        id: u16,
        life: &'static str,
        idle: usize,
    },
    /// A class of a heap that has groups.
    Class {
        heap: u16,
        class: usize,
        slots: u32,
        groups: u32,
        queued: u32,
        empty: u32,
    },
    /// A group; its slots' letters follow.
    Group {
        heap: u16,
        class: usize,
        base: usize,
        bytes: usize,
        state: &'static str,
    },
    /// A large block in a run of pages.
    Run {
        base: usize,
        pages: usize,
        bytes: usize,
    },
    /// A large block in a mapping.
    Large {
        base: usize,
        mapped: usize,
        bytes: usize,
    },
    /// The last one.
    Total(Total),
}

/// What the last line of a dump tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Groups of size classes.
    pub groups: usize,
    /// Blocks in slots, those of no bytes among them.
    pub live: usize,
    /// Large blocks in runs of pages.
    pub runs: usize,
    /// Large blocks in mappings.
    pub large: usize,
    /// Bytes of all blocks.
    pub live_bytes: usize,
    /// Bytes of pages of chunks in use.
    pub used: usize,
    /// Bytes of free pages of chunks that hold memory.
    pub dirty: usize,
    /// Bytes of freed mappings that are kept.
    pub cached: usize,
}

impl Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Head { preset, heaps } => {
                write!(out, "byssal-dump 1 preset={preset} heaps={heaps}")
            }
            Line::Heap { id, life, idle } => write!(out, "heap id={id} life={life} idle={idle}"),
            Line::Class {
                heap,
                class,
                slots,
                groups,
                queued,
                empty,
            } => write!(
                out,
                "class heap={heap} class={class} stride={} slots={slots} groups={groups} \
                 queued={queued} empty={empty}",
                stride(*class),
            ),
            Line::Group {
                heap,
                class,
                base,
                bytes,
                state,
            } => write!(
                out,
                "group heap={heap} class={class} base={base:#x} bytes={bytes} state={state} slots="
            ),
            Line::Run { base, pages, bytes } => {
                write!(out, "run base={base:#x} pages={pages} bytes={bytes}")
            }
            Line::Large {
                base,
                mapped,
                bytes,
            } => {
                write!(out, "large base={base:#x} mapped={mapped} bytes={bytes}")
            }
            Line::Total(total) => write!(
                out,
                "total groups={} live={} runs={} large={} live_bytes={} used={} dirty={} cached={}",
                total.groups,
                total.live,
                total.runs,
                total.large,
                total.live_bytes,
                total.used,
                total.dirty,
                total.cached,
            ),
        }
    }
}
