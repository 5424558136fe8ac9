//! What is seen of a heap: plain numbers, for people, programs and pictures.

use std::collections::BTreeMap;

use byssal_heap::inspect::format::{self, Mark, SlotState};
use serde::{Deserialize, Serialize};

/// Version of the JSON text: it changes when a field changes its meaning or goes.
pub const FORMAT: u32 = 1;

/// A heap, as it was at a moment.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct View {
    /// `FORMAT`.
    pub format: u32,
    /// What was looked at.
    pub program: String,
    /// The signal that ended the program, of a core.
    pub signal: Option<i32>,
    /// Microseconds for which the process was stopped, from the first thread's stop on.
    pub stopped: u64,
    /// Whether nothing changed meanwhile. If not, numbers may contradict each other.
    pub at_rest: bool,
    /// The preset of the allocator.
    pub preset: String,
    /// Bytes of an address.
    pub word: u16,
    /// Sums over all.
    pub totals: Totals,
    /// Memory that holds no block, in bytes, by why it is there.
    pub retained: Retained,
    /// By size class: those that have groups.
    pub classes: Vec<Class>,
    /// The heaps.
    pub heaps: Vec<Heap>,
    /// The ten largest blocks, largest first.
    pub largest: Vec<Block>,
    /// The fault that stopped the program.
    pub fault: Option<Fault>,
    /// What cannot be so in a sound heap, or could not be read.
    pub problems: Vec<String>,
    /// The groups, in the order of a dump.
    #[serde(skip)]
    pub groups: Vec<Group>,
    /// Large blocks in their order in a dump, then freed mappings.
    #[serde(skip)]
    pub extents: Vec<Extent>,
    /// The chunks.
    #[serde(skip)]
    pub chunks: Vec<Chunk>,
}

/// Sums; bytes unless named otherwise.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Totals {
    /// Blocks, number.
    pub blocks: u64,
    /// Blocks in slots, number, those of no bytes among them.
    pub small_blocks: u64,
    /// Large blocks in pages of chunks, number.
    pub runs: u64,
    /// Large blocks in mappings, number.
    pub mappings: u64,
    /// What the program asked for.
    pub live: u64,
    /// What of it lies in slots.
    pub small_live: u64,
    /// Slots that hold blocks, whole.
    pub live_slots: u64,
    /// Groups, number.
    pub groups: u64,
    /// Groups, whole.
    pub group_bytes: u64,
    /// Pages of chunks in use.
    pub used_pages: u64,
    /// Mappings of large blocks.
    pub mapped: u64,
    /// Slots of which no state, or more than one, can be told: number. A thread that is stopped in the
    /// middle of a malloc or a free has one in hand.
    pub unclear: u64,
}

/// Memory that holds no block, in bytes.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Retained {
    /// Slots in reuse queues and those at hand for malloc.
    pub ready: u64,
    /// Free slots in the masks of groups that hold blocks.
    pub freed: u64,
    /// Slots that were never handed out, likewise.
    pub unused: u64,
    /// Groups whose slots are all in their masks.
    pub empty_groups: u64,
    /// Slots that other threads freed, not yet collected by their owner.
    pub remote: u64,
    /// Slots that other threads freed and have not sent yet.
    pub deferred: u64,
    /// Slots in quarantine.
    pub quarantine: u64,
    /// Of all slots above, those whose pages went back to the system.
    pub purged: u64,
    /// Granules of spans that no group uses.
    pub spans: u64,
    /// Free pages of chunks that hold memory.
    pub pages: u64,
    /// Mappings of freed large blocks that wait for the next.
    pub mappings: u64,
    /// Mappings that the system refused to take back.
    pub refused: u64,
    /// What is behind blocks in their slots and pages.
    pub slack: u64,
    /// The allocator's own state: headers, maps, cells, heaps.
    pub metadata: u64,
}

impl Retained {
    /// Bytes that hold neither blocks nor metadata, without those whose pages went back.
    pub fn sum(&self) -> u64 {
        // They may come from a file, in which anything may stand.
        let sum = |parts: &[u64]| parts.iter().copied().fold(0, u64::saturating_add);
        let slots = sum(&[
            self.ready,
            self.freed,
            self.unused,
            self.empty_groups,
            self.remote,
            self.deferred,
            self.quarantine,
        ]);
        let slots = slots.saturating_sub(self.purged);
        sum(&[slots, self.spans, self.pages, self.mappings, self.refused])
    }
}

/// A size class, over all heaps.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Class {
    /// Its number.
    pub class: usize,
    /// Bytes of a slot.
    pub stride: u64,
    /// Groups.
    pub groups: u64,
    /// Slots.
    pub slots: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the blocks.
    pub live: u64,
    /// Free slots whose pages are there, in bytes.
    pub retained: u64,
}

/// A thread's heap.
#[derive(Debug, Default, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Heap {
    /// Its number.
    pub id: u16,
    /// Active, parked (its thread has ended), dead (a fork left it), or unused.
    pub life: String,
    /// The thread that has it.
    pub thread: Option<u32>,
    /// Its name, where it can be told.
    pub thread_name: Option<String>,
    /// Blocks in its groups.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub live: u64,
    /// Bytes of its groups.
    pub group_bytes: u64,
    /// Of these, groups without a block.
    pub empty_bytes: u64,
    /// Bytes of free slots whose pages could go back, and are there.
    pub idle: u64,
    /// The same of granules in its spans.
    pub idle_spans: u64,
    /// Slots of other heaps that its thread freed and has not sent.
    pub deferred: u64,
}

/// A block.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// A group of slots.
#[derive(Debug, Clone)]
pub struct Group {
    /// Number of its chunk in `View::chunks`; those of one stand together.
    pub chunk: usize,
    /// Address of its state.
    pub cell: u64,
    /// Number of the owning heap.
    pub heap: u16,
    /// Size class.
    pub class: usize,
    /// First byte.
    pub base: u64,
    /// What it is to its heap, see `format::group_state`.
    pub state: u32,
    /// Its slots.
    pub slots: Vec<Slot>,
}

/// A slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// None if no place, or more than one, tells of it.
    pub state: Option<SlotState>,
    /// See `record.rs` of the heap.
    pub record: u16,
}

impl Group {
    /// Bytes of a slot.
    pub fn stride(&self) -> u64 {
        byssal_heap::base::size_class::stride(self.class) as u64
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        format::group_bytes(self.class, self.slots.len()) as u64
    }

    /// Address of a slot.
    pub fn slot(&self, index: usize) -> u64 {
        self.base + index as u64 * self.stride()
    }

    /// The block in a slot.
    pub fn block(&self, index: usize) -> Option<Block> {
        let slot = self.slots.get(index)?;
        if slot.state != Some(SlotState::Live) {
            return None;
        }
        let (offset, length) = format::block(self.class, slot.record)?;
        Some(Block {
            address: self.slot(index) + offset as u64,
            bytes: length as u64,
        })
    }

    /// Whether none of its slots holds a block, or waits to be free.
    pub fn is_empty(&self) -> bool {
        let masked = |slot: &Slot| matches!(slot.state, Some(SlotState::Freed | SlotState::Unused));
        self.slots.iter().all(masked)
    }
}

impl Slot {
    /// Whether its pages went back to the system.
    pub fn is_purged(&self) -> bool {
        self.state != Some(SlotState::Live) && Mark::of(self.record) == Some(Mark::Purged)
    }
}

/// The memory of a large block, or of one that was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub base: u64,
    /// Bytes of memory.
    pub len: u64,
    /// Bytes of the block; of a freed one those that it had.
    pub bytes: u64,
    /// Whether it lies in pages of a chunk.
    pub is_run: bool,
    /// What it is.
    pub kind: ExtentKind,
}

/// What the memory of a large block is to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// A live block's.
    Live,
    /// Kept for the next one.
    Kept,
    /// The system would not take it back.
    Refused,
}

/// A chunk. Offsets are bytes from its start.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// First byte.
    pub base: u64,
    /// End of cells that have memory.
    pub cells: u64,
    /// Where data starts.
    pub data: u64,
    /// Up to where it has memory.
    pub open: u64,
    /// A bit for each page: whether it is in use.
    pub used: Vec<u64>,
    /// A bit for each free page that is not zero.
    pub dirty: Vec<u64>,
}

/// A fault, and what lies around the address that it names.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Fault {
    /// See docs/faults.md.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// The pointer, or the byte that was written.
    pub address: u64,
    /// What the address is, in a sentence.
    pub place: String,
    /// The slots from the one before on, or the large block: each in a sentence.
    pub neighbours: Vec<String>,
    /// How far the damage reaches, if any is seen.
    pub damage: Option<String>,
}

impl View {
    /// The classes by number.
    pub fn by_class(&self) -> BTreeMap<usize, Class> {
        self.classes
            .iter()
            .map(|class| (class.class, *class))
            .collect()
    }
}
