//! Every knob, in one place, and the two presets. Relations are asserted at compile time.

/// Granularity and alignment of every block, in bytes.
pub const UNIT: usize = 16;

/// Number of size classes of slots.
pub const CLASSES: usize = 48;

/// Slots of a group at most: one bit each in a 32-bit mask.
pub const MAX_SLOTS: usize = 32;

/// log2 of the chunk size: 4 MiB on 64-bit targets, 1 MiB on 32-bit ones. The small-constants
/// build makes chunks run out after a few groups, so that tests reach the rare paths.
pub const CHUNK_SHIFT: u32 = if cfg!(small_constants) {
    18
} else if usize::BITS == 64 {
    22
} else {
    20
};

/// Size and alignment of a chunk in bytes.
pub const CHUNK: usize = 1 << CHUNK_SHIFT;

/// Bits of a user-space address.
pub const ADDRESS_BITS: u32 = if usize::BITS == 32 {
    32
} else if cfg!(target_arch = "x86_64") {
    47
} else {
    48
};

/// Bytes of one entry of a chunk's map. Groups start and end at multiples of it.
pub const GRANULE: usize = 512;

/// Bytes of one bit of a chunk's run bitmap. The system's page may be larger (it is known at run
/// time only): then purging rounds inwards.
pub const RUN_PAGE: usize = 4096;

/// Bytes of a nest: the run that a heap cuts into groups of up to `NEST_GROUP_MAX` bytes.
pub const NEST: usize = GRANULE * 64;

/// Largest group that lives in a nest, in bytes.
pub const NEST_GROUP_MAX: usize = if cfg!(small_constants) { 2048 } else { 8192 };

/// Largest group in bytes, unless a single slot is larger.
pub const GROUP_MAX: usize = 128 * 1024;

/// Bytes that the first group of a class takes, if a slot fits.
pub const FIRST_GROUP: usize = 512;

/// Bytes in empty groups that a heap may keep for the next burst, plus half of one in
/// `1 << RETAINED_SHIFT` of those in its groups, or one in as many if that is more.
pub const RETAINED_BYTES: usize = if cfg!(small_constants) {
    4 << 10
} else {
    256 << 10
};
/// See `RETAINED_BYTES`.
pub const RETAINED_SHIFT: u32 = 4;

/// Heaps that share what they may keep for later; more keep as much each.
pub const MAX_SHARES: usize = 16;

/// Bytes that heaps without a thread may keep together, so that the next threads find them as they
/// were left: for programs that start a thread for each request. One heap keeps half at most.
pub const WARM_BYTES: usize = if cfg!(small_constants) {
    16 << 10
} else {
    512 << 10
};

/// A class with more bytes than this in its groups empties its ring with its last live block.
pub const KEEP_CLASS: usize = if cfg!(small_constants) {
    1 << 10
} else {
    16 << 10
};

/// Dirty free pages (of `RUN_PAGE`) that may wait before they are given back, plus one in
/// `1 << DIRTY_SHIFT` of those in use.
pub const DIRTY_PAGES: usize = if cfg!(small_constants) { 4 } else { 64 };
/// Those beyond go back even when the last purge was just now, unless a quarter of the pages in
/// use is more.
pub const DIRTY_MOST: usize = 1024;
/// See `DIRTY_PAGES`.
pub const DIRTY_SHIFT: u32 = 4;

/// Bytes in free slots of at least `IDLE_STRIDE` that a heap may hold before it gives their pages
/// back, unless a quarter of the bytes in use is more.
pub const IDLE_BYTES: usize = if cfg!(small_constants) {
    64 << 10
} else {
    512 << 10
};
/// See `IDLE_BYTES`.
pub const IDLE_STRIDE: usize = 336;

/// Milliseconds between purges of one kind, unless half of what was in use at the last one is gone:
/// a program that frees and allocates the same memory again and again pays for its pages once in
/// this time only.
pub const PURGE_PAUSE: u32 = 50;
/// Frees above a limit that do not look at the clock after one that came too early.
pub const PURGE_SKIP: u32 = 15;

/// Freed large mappings kept for reuse: entries, and bytes (plus one in `LARGE_CACHE_SHARE` of
/// the live ones).
pub const LARGE_CACHE_ENTRIES: usize = if PRESET.large_delay < 32 {
    32
} else {
    PRESET.large_delay as usize
};
/// See `LARGE_CACHE_ENTRIES`. Inaccessible mappings are addresses only.
pub const LARGE_CACHE_BYTES: usize = if !PRESET.seal_freed_large {
    640 << 10
} else if usize::BITS == 64 {
    1 << 30
} else {
    32 << 20
};
/// See `LARGE_CACHE_BYTES`.
pub const LARGE_CACHE_SHARE: usize = 12;
/// A cached mapping goes back after this many further frees of large blocks.
pub const LARGE_CACHE_AGE: u32 = if PRESET.large_delay < 32 {
    64
} else {
    PRESET.large_delay
};

/// Milliseconds after which what lay unused all the while goes back, see `settle.rs`.
pub const SETTLE_PAUSE: u32 = 250;
/// Refills of a heap, and frees of large blocks, between two looks at the clock.
pub const SETTLE_REFILLS: u32 = if cfg!(small_constants) { 32 } else { 256 };
/// See `SETTLE_REFILLS`.
pub const SETTLE_FREES: u32 = 16;

/// Freed slots that a class holds ready in order of their freeing, see `ring.rs`.
pub const RING: usize = if cfg!(small_constants) { 4 } else { 16 };

/// Groups of other heaps whose freed slots a thread collects before it tells their owners.
pub const OUTGOING: usize = if cfg!(any(small_constants, loom)) {
    2
} else {
    64
};

/// Heaps at most, numbered from 1 on.
pub const MOST_HEAPS: usize = if cfg!(small_constants) { 64 } else { 0xfffe };
/// The child of a fork uses the numbers of dead heaps anew once there are more such than this.
pub const MOST_DEAD: usize = MOST_HEAPS / 16;

/// Bytes of slots that all threads together hold back like that; see `MAX_SHARES`.
pub const OUTGOING_BYTES: usize = if cfg!(small_constants) {
    1 << 10
} else {
    256 << 10
};

/// What differs between the presets.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name, for people.
    pub name: &'static str,
    /// Check a slot's end at the free itself, instead of when the slot leaves its ring.
    pub check_at_free: bool,
    /// Guard bytes depend on their address as well as on the class.
    pub guard_by_address: bool,
    /// Clear a block when it is freed, and verify at reuse that it still is clear.
    pub zero_on_free: bool,
    /// Hand out the free slots of a group in random order.
    pub random_slots: bool,
    /// Freed slots that wait in line before they count as free.
    pub quarantine: usize,
    /// A guard before each block, too, where its slot has room or the neighbour's end is there.
    pub front_guard: bool,
    /// Blocks of no bytes are inaccessible.
    pub seal_zero_size: bool,
    /// Frees of large blocks that one's addresses wait for before they are used again.
    pub large_delay: u32,
    /// An inaccessible page behind each large block.
    pub guard_pages: bool,
    /// Cached freed large blocks are inaccessible.
    pub seal_freed_large: bool,
}

/// Strict at the price of mallocng's memory and mimalloc's time.
pub const DEFAULT: Preset = Preset {
    name: "default",
    check_at_free: false,
    guard_by_address: false,
    zero_on_free: false,
    random_slots: false,
    quarantine: 0,
    front_guard: false,
    seal_zero_size: false,
    large_delay: 0,
    guard_pages: false,
    seal_freed_large: false,
};

/// As strict as hardened_malloc.
pub const HARDENED: Preset = Preset {
    name: "hardened",
    check_at_free: true,
    guard_by_address: true,
    zero_on_free: true,
    random_slots: true,
    quarantine: if cfg!(small_constants) { 4 } else { 128 },
    front_guard: true,
    seal_zero_size: true,
    large_delay: if cfg!(small_constants) { 4 } else { 512 },
    guard_pages: true,
    seal_freed_large: true,
};

/// The preset of this build.
pub const PRESET: Preset = if cfg!(feature = "hardened") {
    HARDENED
} else {
    DEFAULT
};

/// Room for the quarantine in each heap (at least one, for a valid array).
pub const QUARANTINE: usize = if PRESET.quarantine == 0 {
    1
} else {
    PRESET.quarantine
};

const _: () = {
    assert!(CHUNK / GRANULE <= 1 << 16, "a granule's number fits u16");
    assert!(NEST / GRANULE == 64, "one bit a granule in a nest's mask");
    assert!(NEST_GROUP_MAX <= NEST / 4);
    assert!(NEST % RUN_PAGE == 0 && CHUNK % NEST == 0);
    assert!(FIRST_GROUP % GRANULE == 0 || FIRST_GROUP == GRANULE);
    assert!(RUN_PAGE % GRANULE == 0 && GRANULE % UNIT == 0);
    assert!(ADDRESS_BITS > CHUNK_SHIFT);
    assert!(OUTGOING.is_power_of_two(), "a place is a few bits");
    assert!(
        MOST_HEAPS < u16::MAX as usize,
        "no heap has the number of NOBODY"
    );
};
