//! Every knob, in one place, and the two presets. Relations are asserted at compile time.
//!
//! The small-constants build (`--cfg small_constants`) makes chunks run out after a few groups, and
//! what is kept small, so that tests reach the rare paths.

// The structure, which formats, masks and tables rely on: not to be turned.

/// Granularity and alignment of every block, in bytes.
pub const UNIT: usize = 16;
/// Number of size classes of slots.
pub const CLASSES: usize = 48;
/// Bits of an address that the pagemap has room for. Linux gives a program no address beyond,
/// unless it wishes for one: 47 bits on x86_64, ppc64le and loongarch64, 48 on aarch64 (where there
/// are 52, too), 42 on s390x before a process has 4 TiB, 40 or 48 on mips64, 38 or 47 on riscv64,
/// but see `Pages::next_window`. Beyond, no chunk is made, and no pointer leads to one
/// (`pagemap.rs`). Miri counts its addresses up from 0, and clears a short pagemap sooner.
pub const ADDRESS_BITS: u32 = if usize::BITS == 32 {
    32
} else if cfg!(miri) {
    36
} else if cfg!(target_arch = "x86_64") {
    47
} else {
    48
};
/// Bytes of one entry of a chunk's map. Groups start and end at multiples of it.
pub const GRANULE: usize = 512;
/// Bytes of one bit of a chunk's bitmaps of pages. The system's page may be larger (it is known at
/// run time only): then purging rounds inwards.
pub const RUN_PAGE: usize = 4096;
/// Bytes of a span: the run that a heap cuts into small groups, one bit of a mask a granule.
pub const SPAN: usize = GRANULE * 64;
/// Size and alignment of a chunk in bytes.
pub const CHUNK: usize = 1 << CHUNK_SHIFT;

// The knobs.

/// log2 of the chunk size: 4 MiB on 64-bit targets, 1 MiB on 32-bit ones.
pub const CHUNK_SHIFT: u32 = if cfg!(small_constants) {
    18
} else if usize::BITS == 64 {
    22
} else {
    20
};

/// Bytes of the largest group that lies in a span; larger ones have runs of pages of their own.
pub const SPAN_GROUP_MAX: usize = if cfg!(small_constants) { 2048 } else { 8192 };

/// Bytes of the largest group, unless a single slot is larger.
pub const GROUP_MAX: usize = 128 * 1024;

/// Bytes that the first group of a class takes, if a slot fits.
pub const FIRST_GROUP: usize = 512;

/// Bytes that may be kept for the next burst, for each kind of memory that is: dirty free pages
/// and deferred frees of this; free slots twice as much, free granules of spans half as much; empty
/// groups and heaps without a thread four times as much, large mappings ten times. What each heap
/// keeps of a kind is its share, see `KEEP_SHARES`; where much is in use a part of that may be kept
/// instead. Half on 32 bits: many such machines have 32 MiB of memory for all processes.
pub const KEEP: usize = if cfg!(small_constants) {
    8 << 10
} else if usize::BITS == 64 {
    64 << 10
} else {
    32 << 10
};

/// Heaps that share what each may keep; more keep as much each.
pub const KEEP_SHARES: usize = 16;

/// A class of which the program had more bytes than this empties its reuse queue with its last live
/// block. With an eighth of it, that block asks whether the heap should settle.
pub const KEEP_CLASS: usize = if cfg!(small_constants) {
    1 << 10
} else {
    16 << 10
};

/// Bytes of the shortest slots whose pages go back while they are free.
pub const PURGE_STRIDE: usize = 336;

/// Milliseconds between purges of one kind, see `decay.rs`.
pub const PURGE_PAUSE: u32 = 50;

/// Milliseconds after which what lay unused all the while goes back, see `decay.rs`.
pub const DECAY_PAUSE: u32 = 250;

/// Refills of a heap between two looks at the clock.
pub const DECAY_REFILLS: u32 = if cfg!(small_constants) { 32 } else { 256 };

/// Freed slots that a class holds ready in the order of their freeing, see `class.rs`.
pub const REUSE_QUEUE: usize = if cfg!(small_constants) { 4 } else { 16 };

/// Groups of other heaps whose freed slots a thread defers before it sends them to their owners.
pub const DEFERRED: usize = if cfg!(any(small_constants, loom)) {
    2
} else {
    64
};

/// Freed large mappings that are kept at most.
pub const LARGE_KEPT: usize = PRESET.large_delay as usize;

/// How often a large block must be freed and wanted again before its memory may stay accessible
/// when it is freed, see `extent.rs`. For one of `LARGE_LONG` bytes or more, whose pages cost more
/// than the calls, once is enough.
pub const LARGE_TURNS: usize = 8;

/// Bytes of a large block from which on one turn is enough, see `LARGE_TURNS`.
pub const LARGE_LONG: usize = 1 << 20;

/// Bytes of the longest freed mapping that may stay accessible: nothing but further calls brings a
/// look at the clock, and a program may make none that does. glibc never keeps more, either
/// (`DEFAULT_MMAP_THRESHOLD_MAX`).
pub const LARGE_MOST: usize = 32 << 20;

/// Frees of large blocks in a row after which all of that begins anew.
pub const LARGE_ROW: u32 = 8;

/// Heaps at most, numbered from 1 on.
pub const MOST_HEAPS: usize = if cfg!(small_constants) { 64 } else { 0xfffe };

/// What differs between the presets.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name, for people.
    pub name: &'static str,
    /// Verify a block's canaries at the free itself, instead of when its slot leaves the reuse
    /// queue.
    pub check_at_free: bool,
    /// Bytes behind each block at least: 1 holds a canary; with 8 a guard stands in all bytes
    /// around it, see `layout/guard.rs`.
    pub guard: usize,
    /// Clear a block when it is freed, and verify at reuse that it still is clear.
    pub zero_on_free: bool,
    /// Hand out the free slots of a group in random order.
    pub random_slots: bool,
    /// Of groups with so many slots or more, every so many-th slot is a guard slot, which is never
    /// handed out and must stay clear. 0, or 8, 16 or 32.
    pub guard_slot_every: usize,
    /// Each class has chunks of its own, at random distances: no overflow leads from one class to
    /// another.
    pub classes_apart: bool,
    /// Freed slots that wait in quarantine before they count as free.
    pub quarantine: usize,
    /// Frees of large blocks after which the mapping of one goes back at the latest. Where freed
    /// ones are inaccessible, as many addresses wait, each for half as many frees or more.
    pub large_delay: u32,
    /// Inaccessible pages before and behind each large block: a random number from 1 to this one;
    /// and heaps and tables far from all else between such. 0: neither.
    pub guard_pages: usize,
    /// Freed large blocks that are kept are inaccessible.
    pub seal_freed_large: bool,
}

impl Preset {
    /// Whether guards stand around blocks, instead of canaries behind them.
    pub const fn has_guards(&self) -> bool {
        self.guard > 1
    }

    /// Whether inaccessible pages stand around large blocks.
    pub const fn has_guard_pages(&self) -> bool {
        self.guard_pages != 0
    }
}

/// Strict at the price of mallocng's memory and mimalloc's time.
pub const DEFAULT: Preset = Preset {
    name: "default",
    check_at_free: false,
    guard: 1,
    zero_on_free: false,
    random_slots: false,
    guard_slot_every: 0,
    classes_apart: false,
    quarantine: 0,
    large_delay: 32,
    guard_pages: 0,
    seal_freed_large: false,
};

/// As strict as hardened_malloc.
pub const HARDENED: Preset = Preset {
    name: "hardened",
    check_at_free: true,
    guard: 8,
    zero_on_free: true,
    random_slots: true,
    guard_slot_every: 16,
    classes_apart: true,
    quarantine: if cfg!(small_constants) { 4 } else { 128 },
    large_delay: if cfg!(small_constants) { 4 } else { 512 },
    guard_pages: 16,
    seal_freed_large: true,
};

/// The preset of this build.
pub const PRESET: Preset = if cfg!(feature = "hardened") {
    HARDENED
} else {
    DEFAULT
};

const _: () = {
    assert!(PRESET.guard == 1 || PRESET.guard == 8);
    assert!(
        PRESET.guard_pages <= u8::MAX as usize,
        "see `Extent::guards`"
    );
    assert!(CHUNK / GRANULE <= 1 << 16, "a granule's number fits u16");
    assert!(SPAN / GRANULE == 64, "one bit a granule in a span's mask");
    assert!(SPAN_GROUP_MAX <= SPAN / 4);
    assert!(SPAN % RUN_PAGE == 0 && CHUNK % SPAN == 0);
    assert!(FIRST_GROUP % GRANULE == 0);
    assert!(RUN_PAGE % GRANULE == 0 && GRANULE % UNIT == 0);
    assert!(ADDRESS_BITS > CHUNK_SHIFT);
    assert!(DEFERRED.is_power_of_two(), "a place is a few bits");
    assert!(REUSE_QUEUE.is_power_of_two(), "positions wrap around");
    assert!(
        MOST_HEAPS < u16::MAX as usize,
        "no heap has the number of NOBODY"
    );
};
