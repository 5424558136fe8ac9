//! From the copy of an allocator's state to what is seen of the heap: groups, slots, large blocks.
//!
//! A damaged heap is what this is for: each list has an end, each number is a guess until it fits,
//! and what does not fit is told and left out.

use std::collections::{HashMap, HashSet};

use byssal_heap::base::config::{CLASSES, GRANULE, RUN_PAGE};
use byssal_heap::inspect::format::{self, Places, ACTIVE, CELL, CURRENT, ORPHANED};

use crate::look::memory::ADDRESS_BITS;
use crate::look::snapshot::{Problems, Snapshot};
use crate::look::view::{Chunk, Extent, ExtentKind, Group, Heap, Slot};

/// Bits of a group's tag, see `layout/group.rs`: state, slots less one, class, owner.
const TAG: [(u32, u32); 4] = [(0, 3), (3, 5), (8, 8), (16, 16)];

/// A slot by the address of its group's state and its number.
type SlotName = (u64, usize);

/// A heap with what its thread has at hand.
pub struct Owner {
    /// What is seen of it.
    pub heap: Heap,
    /// The thread that it tells of.
    pub thread: u32,
    /// `Life` of its mailbox.
    pub life: u32,
    body: u64,
}

/// All that was found.
#[derive(Default)]
pub struct Walk {
    /// The heaps, in the order of their numbers.
    pub owners: Vec<Owner>,
    /// See `View`.
    pub groups: Vec<Group>,
    /// See `View`.
    pub extents: Vec<Extent>,
    /// See `View`.
    pub chunks: Vec<Chunk>,
    /// What does not fit.
    pub problems: Problems,
    ready: HashSet<SlotName>,
    quarantine: HashSet<SlotName>,
    /// By group, of heaps of living processes and of those that a fork left.
    deferred: [HashMap<u64, Vec<u32>>; 2],
    /// Bytes of all extents.
    extent_bytes: u64,
    /// Heaps that a fork left, and that may have deferred anything.
    heirs: usize,
}

impl Walk {
    /// Walks all of it.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut walk = Walk::default();
        for (index, &heap) in snapshot.heaps.iter().enumerate() {
            walk.enter_heap(snapshot, index as u16 + 1, heap);
        }
        for &chunk in &snapshot.chunks {
            walk.enter_chunk(snapshot, chunk);
        }
        walk.enter_extents(snapshot);
        walk
    }

    fn enter_heap(&mut self, snapshot: &Snapshot, id: u16, at: u64) {
        let numbers = snapshot.found.numbers;
        let [body, life, _] = numbers.heap.map(u64::from);
        let [heap_of, thread, .., idle, idle_spans, _] = numbers.body.map(u64::from);
        let life = snapshot.u32(at + life).unwrap_or(0);
        let body = snapshot.word(at + body).unwrap_or(0);
        let word = |place: u64| snapshot.word(body + place).unwrap_or(0);
        let is_unset = body == 0 || word(heap_of) == 0;
        let mut heap = Heap {
            id,
            life: format::life(life).to_owned(),
            idle: word(idle),
            idle_spans: word(idle_spans) * GRANULE as u64,
            ..Heap::default()
        };
        if body != 0 {
            heap.deferred = self.enter_deferred(snapshot, body, life == ORPHANED, is_unset);
        }
        if life == ORPHANED {
            self.heirs += usize::from(is_unset);
        } else if body != 0 {
            self.enter_queues(snapshot, id, body);
        }
        self.owners.push(Owner {
            heap,
            thread: snapshot.u32(body + thread).unwrap_or(0),
            life,
            body,
        });
    }

    /// Enters what a heap's thread deferred; how many slots.
    fn enter_deferred(
        &mut self,
        snapshot: &Snapshot,
        body: u64,
        is_orphaned: bool,
        is_unset: bool,
    ) -> u64 {
        let [entries, count, size, node, bits] = snapshot.found.numbers.deferred.map(u64::from);
        let start = body + u64::from(snapshot.found.numbers.body[2]) + entries;
        let mut slots = 0;
        for entry in (0..count).map(|index| start + index * size) {
            let group = snapshot.word(entry + node).unwrap_or(0);
            let bits = snapshot.u32(entry + bits).unwrap_or(0);
            if group == 0 || bits == 0 || is_unset {
                continue;
            }
            let by_group = &mut self.deferred[usize::from(is_orphaned)];
            by_group.entry(group).or_default().push(bits);
            slots += u64::from(bits.count_ones());
        }
        slots
    }

    /// Enters the slots in a heap's reuse queues and in its quarantine.
    fn enter_queues(&mut self, snapshot: &Snapshot, id: u16, body: u64) {
        let numbers = snapshot.found.numbers;
        let [head, tail, .., starts, places, _] = numbers.class.map(u64::from);
        let word = snapshot.word_size();
        let room = (places - starts) / word;
        for class in 0..CLASSES {
            let at = snapshot.class(body, class);
            let [head, tail] = [head, tail].map(|place| snapshot.u32(at + place).unwrap_or(0));
            let count = u64::from(tail.wrapping_sub(head));
            if count > room {
                self.problems.add(format!(
                    "heap {id}, class {class}: {count} slots in a queue of {room}"
                ));
                continue;
            }
            for position in (0..count).map(|i| (u64::from(head) + i) % room) {
                let start = snapshot.word(at + starts + position * word).unwrap_or(0);
                let place = snapshot.u32(at + places + position * 4).unwrap_or(0);
                self.ready.insert(slot_name(class, start, place));
            }
        }
        let [start, place, size] = numbers.entry.map(u64::from);
        let [.., quarantine, _, _, _, room] = numbers.body.map(u64::from);
        for entry in (0..room).map(|index| body + quarantine + index * size) {
            let start = snapshot.word(entry + start).unwrap_or(0);
            let place = snapshot.u32(entry + place).unwrap_or(0);
            if start != 0 {
                // The class is that of the group.
                let (cell, _) = slot_name(0, start, place);
                let class = self.group_tag(snapshot, cell)[2] as usize;
                self.quarantine.insert(slot_name(class, start, place));
            }
        }
    }

    /// State, slots less one, class and owner of the group whose state is at `cell`.
    fn group_tag(&self, snapshot: &Snapshot, cell: u64) -> [u32; 4] {
        let tag = snapshot.u32(cell + u64::from(snapshot.found.numbers.group[3]));
        let tag = tag.unwrap_or(0);
        TAG.map(|(shift, bits)| tag >> shift & ((1u64 << bits) - 1) as u32)
    }

    fn enter_chunk(&mut self, snapshot: &Snapshot, base: u64) {
        let numbers = snapshot.found.numbers;
        let [_, cells, data, open, used, dirty, _, map] = numbers.chunk.map(u64::from);
        let size = 1u64 << numbers.chunk_shift;
        let [cells, data, open] =
            [cells, data, open].map(|place| u64::from(snapshot.u32(base + place).unwrap_or(0)));
        if data > open || open > size || data % RUN_PAGE as u64 != 0 {
            self.problems
                .add(format!("chunk {base:#x}: data from {data:#x} to {open:#x}"));
            return;
        }
        let words = (size / RUN_PAGE as u64).div_ceil(64);
        let bits = |place: u64| {
            let word = |index| snapshot.u64(base + place + index * 8).unwrap_or(0);
            (0..words).map(word).collect::<Vec<_>>()
        };
        self.chunks.push(Chunk {
            base,
            cells,
            data,
            open,
            used: bits(used),
            dirty: bits(dirty),
        });
        let mut last = 0;
        for granule in data / GRANULE as u64..open / GRANULE as u64 {
            let number = snapshot.u16(base + map + granule * 2).unwrap_or(0);
            if number != 0 && number != last {
                self.enter_group(snapshot, base, base + u64::from(number) * CELL as u64);
            }
            last = number;
        }
    }

    fn enter_group(&mut self, snapshot: &Snapshot, chunk: u64, cell: u64) {
        let numbers = snapshot.found.numbers;
        let [state, less, class, owner] = self.group_tag(snapshot, cell);
        if class as usize >= CLASSES {
            return;
        }
        let [freed, remote, minus, _, records] = numbers.group.map(u64::from);
        let [freed, remote, minus] =
            [freed, remote, minus].map(|place| snapshot.u32(cell + place).unwrap_or(0));
        let size = 1u64 << numbers.chunk_shift;
        let mut group = Group {
            chunk: self.chunks.len() - 1,
            cell,
            heap: owner as u16,
            class: class as usize,
            base: chunk + u64::from(minus.wrapping_neg()) % size,
            state,
            slots: Vec::with_capacity(less as usize + 1),
        };
        let narrow = format::is_narrow(group.class);
        for index in 0..=less as usize {
            let at = cell + records + (index << u32::from(!narrow)) as u64;
            let record = if narrow {
                snapshot.u8(at).map(u16::from)
            } else {
                snapshot.u16(at)
            };
            let record = record.unwrap_or(0);
            let masks = [freed, remote].map(|mask| mask & 1 << index != 0);
            let state = self.slot_state(snapshot, &group, index, record, masks);
            group.slots.push(Slot { state, record });
        }
        self.groups.push(group);
    }

    /// As `Allocator::slot_state` of the heap's dump.
    fn slot_state(
        &self,
        snapshot: &Snapshot,
        group: &Group,
        index: usize,
        record: u16,
        [freed, remote]: [bool; 2],
    ) -> Option<format::SlotState> {
        let owner = group.heap.checked_sub(1);
        let owner = owner.and_then(|index| self.owners.get(usize::from(index)));
        let live = format::block(group.class, record).is_some();
        if owner.is_some_and(|owner| owner.life == ORPHANED) {
            return Some(if live {
                format::SlotState::Live
            } else {
                format::SlotState::Freed
            });
        }
        let name = (group.cell, index);
        let holders = |by_group: &HashMap<u64, Vec<u32>>| {
            let held = by_group.get(&group.cell).into_iter().flatten();
            held.filter(|&&bits| bits & 1 << index != 0).count()
        };
        let places = Places {
            live,
            freed,
            remote,
            avail: group.state == CURRENT
                && owner.is_some_and(|owner| owner.avail(snapshot, group.class) & 1 << index != 0),
            ready: self.ready.contains(&name),
            quarantine: self.quarantine.contains(&name),
            deferred: [
                holders(&self.deferred[0]),
                holders(&self.deferred[1]) + self.heirs,
            ],
            record,
        };
        places.state().ok()
    }

    fn enter_extents(&mut self, snapshot: &Snapshot) {
        let numbers = snapshot.found.numbers;
        let [first, _, live, kept, _, refused, first_count] = numbers.large.map(u64::from);
        let state = snapshot.found.state;
        let word = snapshot.word_size();
        let [more, more_count] = snapshot.further_buckets();
        let (buckets, count) = if more == 0 {
            (state + first, first_count)
        } else {
            (more, more_count)
        };
        let mut seen = HashSet::new();
        for bucket in (0..count).map(|index| buckets + index * word) {
            let Some(at) = snapshot.word(bucket) else {
                break;
            };
            self.enter_chain(snapshot, at, ExtentKind::Live, &mut seen);
        }
        let live = snapshot.word(state + live).unwrap_or(0);
        if live != seen.len() as u64 {
            self.problems.add(format!(
                "{live} large blocks are counted, {} found",
                seen.len()
            ));
        }
        // A dump has those in runs first.
        self.extents.sort_by_key(|extent| !extent.is_run);
        for (list, kind) in [(kept, ExtentKind::Kept), (refused, ExtentKind::Refused)] {
            let at = snapshot.word(state + list).unwrap_or(0);
            self.enter_chain(snapshot, at, kind, &mut seen);
        }
    }

    fn enter_chain(
        &mut self,
        snapshot: &Snapshot,
        mut at: u64,
        kind: ExtentKind,
        seen: &mut HashSet<u64>,
    ) {
        let [next, base, len, bytes, is_run] = snapshot.found.numbers.extent.map(u64::from);
        while at != 0 {
            let word = |place: u64| snapshot.word(at + place);
            let (Some(base), Some(len), Some(bytes)) = (word(base), word(len), word(bytes)) else {
                self.problems
                    .add(format!("the record of a large block is not at {at:#x}"));
                return;
            };
            if !seen.insert(at) {
                self.problems.add(format!(
                    "two lists lead to the record of a large block at {at:#x}"
                ));
                return;
            }
            // They do not overlap, so all together fit into the addresses that there are.
            let end = (base + len).max(self.extent_bytes + len);
            if end >> ADDRESS_BITS != 0 || len == 0 || bytes > len {
                self.problems.add(format!(
                    "a large block of {bytes} bytes in {len} at {base:#x}"
                ));
            } else {
                self.extent_bytes += len;
                self.extents.push(Extent {
                    base,
                    len,
                    bytes,
                    is_run: snapshot.u8(at + is_run).unwrap_or(0) != 0,
                    kind,
                });
            }
            at = word(next).unwrap_or(0);
        }
    }
}

impl Owner {
    /// Slots of the current group of a class that malloc may take.
    fn avail(&self, snapshot: &Snapshot, class: usize) -> u32 {
        let [_, _, avail, ..] = snapshot.found.numbers.class.map(u64::from);
        let at = snapshot.class(self.body, class) + avail;
        snapshot.u32(at).unwrap_or(0)
    }

    /// Whether a thread works on it.
    pub fn is_active(&self) -> bool {
        self.life == ACTIVE
    }

    /// What a dump's line says of a class beside its groups: slots, groups in the queue, empty ones.
    pub fn class_numbers(&self, snapshot: &Snapshot, class: usize) -> [u32; 3] {
        let numbers = snapshot.found.numbers;
        let [_, _, _, queued, empty, ..] = numbers.class.map(u64::from);
        let [.., slots, _, _, _] = numbers.body.map(u64::from);
        let slots = self.body + slots + class as u64 * 4;
        let at = snapshot.class(self.body, class);
        [slots, at + queued, at + empty].map(|at| snapshot.u32(at).unwrap_or(0))
    }
}

/// The slot that an entry of a queue stands for: its first byte, and where its record lies from
/// there, see `layout/slot.rs`.
fn slot_name(class: usize, start: u64, place: u32) -> SlotName {
    let place = start.wrapping_add_signed(i64::from(place as i32));
    let cell = place & !(CELL as u64 - 1);
    let index = if format::is_narrow(class) {
        place % 32
    } else {
        place / 2 % 16
    };
    (cell, index as usize)
}
