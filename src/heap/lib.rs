//! The heap of byssal: all of the allocator's logic, no exported C symbol, so that tests never
//! replace their own malloc.
//!
//! # Layers, from the lowest up: each folder uses only those above it in this list
//!
//! 1. `base/` — knobs, named faults, atomics, the lock, the system as a contract, decay,
//!    randomness, size classes
//! 2. `exchange/` — the protocols between heaps: mailbox, deferred frees, abandoned heaps
//! 3. `layout/` — records, groups, slots, spans, chunks, the pagemap: the one way from a pointer to
//!    what it points at
//! 4. `pages/` — memory under the one lock: chunks, runs of pages, large blocks, blocks of no bytes
//! 5. `heap/` — a thread's heap: reuse queues, masks, groups, spans, refill, remote frees
//! 6. `allocator/` — malloc, free, realloc, threads, fork: its page has the call tree
//! 7. `inspect/` — where what lies, for those who look from outside; the dump of a heap, which the
//!    libraries ship, and the sums by size class that the Rust crate has: musl has neither
//!
//! `make check` proves it (`src/tool/tests/layers/`). Beside the layers stand, for tests,
//! `mock.rs`, `model/` and `tests/`. The system underneath is `base::platform::Platform`: musl and
//! the libraries in `src/abi`, the Rust crate in `src/rust`, a mock in `mock.rs`.
//!
//! # Values that prove something
//!
//! What has one of these in hand is safe code; its constructor holds the reasoning:
//!
//! - `heap::MyHeap`: the right to work on a heap, its thread's or a claimant's (`exchange::Claim`);
//! - `pages::Locked`, `base::Held`: the lock is held, and with it everything under it is in hand;
//! - `layout::LiveSlot`: the record tells of a live block that starts exactly there;
//! - `layout::FreeSlot`: a slot that is the holder's to write, with its record;
//! - `layout::MyGroup`: a group whose masks and state are the holder's to write;
//! - `&'static Group`, `Span`, `Chunk`: cells whose memory stays while something leads to them. All
//!   of a group is atomic: a stale pointer may lead any thread to it.
//!
//! # Design
//!
//! Memory is organised as in musl's mallocng: groups of up to 32 slots of one of 48 size classes,
//! masks for their state, metadata out of band, whole pages given back. What differs:
//!
//! - **Heaps own groups.** A thread works on its own heap with plain loads and stores; frees by
//!   another thread are one atomic operation on the group for several slots. Heaps outlive
//!   threads: abandoned when the thread exits, reclaimed by the next one. Of many that hold
//!   nothing only 128 bytes each stay.
//! - **Nothing about a block lies beside it.** Its offset and tail stand in a record of one or two
//!   bytes in the group's cache line (`record.rs`). What an overflow reaches is a canary. Free
//!   judges every pointer by out-of-band state alone: the record, which it clears.
//! - **A reuse queue of freed slots before the masks** (`class.rs`). It delays reuse, and it is
//!   what makes random replacement in a large heap cheap. Its entries hold addresses, and a class's
//!   line all that malloc and free need to know of it: of the tables only malloc's sizes are read.
//!
//! ## Where a slot's size is kept, and when its tail is checked: measured
//!
//! A throw-away prototype compared, for random replacement in 100,000 live objects of 16 to 1024
//! bytes, for 1 million of 16 to 256, and for a lone pair of 64 bytes (medians of paired runs, as
//! ratio to a tail of four bytes in the slot that is checked at free, 2-core VM):
//!
//! | | 64-byte pair | 100k live | 1M live |
//! |---|---|---|---|
//! | tail in the slot, checked at free | 1 | 1 | 1 |
//! | record out of band, checked at free | 1.10 to 1.14 | 1.05 | 1.07 |
//! | the same, checks put off in batches of 8 | 1.23 | .96 | .88 to 1.07 |
//! | no canary at all | .94 to 1.04 | .91 | .76 to .84 |
//! | tail in the slot, reuse queue | .96 | .86 | .81 |
//! | record, queue, batches of 8 | 1.45 | .59 | .71 |
//! | **record, queue, checked when leaving it** | 1.16 | **.50** | **.58** |
//!
//! So the blocking load of a slot's tail is half of the cost on cold objects, but only once the
//! other half is gone: with every slot of a class in the masks a heap at 97 % occupancy refilled
//! after 1.5 mallocs. The record costs up to a sixth on a hot pair against the tail; it keeps 15 of
//! 16 bytes usable instead of 12, cannot be replayed from a neighbour, and is not reached by an
//! overflow.
//! The `hardened` preset checks at the free itself.
//!
//! ## Bound on external fragmentation
//!
//! A heap makes a group of a class only when it has no free slot of that class: none in the queue,
//! in a mask, or in its mailbox. The new group has at most as many slots as there are (or 512
//! bytes' worth), at most 32. Empty groups are released once there are more bytes in them than 256
//! KiB and a 32nd of the heap's, or than a sixteenth if that is more. A reuse queue and the current
//! group keep further groups alive, up to 17 a class, but with the last live block of a class of
//! which more than 16 KiB were in use they let go. So do those of all classes without a live block
//! before a slot of more than 8 KiB takes new pages, if they have more than 128 KiB, and when the
//! heap settles: with the last live block of a class of which more than 2 KiB were in use, if a
//! quarter of the heap's bytes or less is live then. Hence, with `live(h,c)` the blocks of class c
//! in heap h and `peak(h,c)` their maximum so far:
//!
//! ```text
//! slots(h,c)          <= 2 peak(h,c) + 32               (it never expands before)
//! groups in use(h,c)  <= live(h,c) + 17                 (the others are empty)
//! bytes in slots(h)   <= 16/15 (sum over c of min(slots, 32 groups in use) * stride(c)
//!                               + 256 KiB + a group)
//! ```
//!
//! The worst program, one survivor in each group, thus holds up to 32 slots for each live block (16
//! above 1024 bytes, 128 KiB at most), and never more than about the sum of its classes' peaks. On
//! top come 64 bytes a group, for the smallest group an eighth, and in each span up to 16 spare
//! cells of 64 bytes; in each heap a partly used span of 32 KiB for each 16 that had no fitting
//! hole; the rounding of sizes, at most a quarter; and pages not yet given back: 64 KiB and a
//! sixteenth of those in use for the process; in each heap a quarter of what is in use, but at
//! least 128 KiB in free slots of 336 bytes and more, and 32 KiB in its spans (these two and the
//! 256 KiB of empty groups divided by the number of heaps, at most by 16); for heaps whose threads
//! ended 256 KiB together, with 16 KiB for each body, as they were left (128 KiB each at most,
//! until the next threads reclaim them or memory is out); for large blocks a cache of 640 KiB and a
//! twelfth of the live bytes, or what was unmapped and soon wanted again: never more than was live
//! then, and half as much with each large block freed after the second in a row. These go back at
//! the next free above the limit (a few frees later at most, of pages in free slots a sixteenth
//! beyond that). A program may purge each kind once in 50 ms only, or when a quarter of what was in
//! use at the last purge is gone: what it frees in between waits for its next frees, and pages in
//! free slots wait as long as refills in between find less than that free; of the process's pages
//! no more than 4 MiB and a quarter of those in use. And of each chunk that went a page of memory
//! and 20 KiB of addresses stay, until it is used again (`grow.rs`).
//!
//! On 32 bits all that is kept of 64 KiB, or a multiple or a part of that, is half as much.
//!
//! These are limits at any moment. A heap that settles gives back what it keeps of each kind, and
//! the process's dirty pages, where that is more than what is live in it: as often as a purge may
//! be. The class that went last keeps what it may. Of the process's pages and of large mappings,
//! those that lie unused from one look at the clock to the next go back altogether (`decay.rs`):
//! looks come with every 256th refill of a heap or 16th free of a large block, at least 250 ms
//! apart.
//!
//! What other threads freed counts as free once the owner has collected it: when its other sources
//! are dry, at every 32nd refill, and, once groups of an eighth of what its heap holds have come
//! back, at its next free of a block of its own (`Heap::ask`). Then it lets go of all that holds no
//! block any more, however little that is. For an owner that sleeps, groups of which others freed
//! all slots wait until they are 256 KiB (divided by the number of heaps, at most by 16) and that
//! eighth; then their pages go back (`heap/aside.rs`), but for those that they share with other
//! groups. The free slots of all other groups stay as they are: never more than the peak before. Nor
//! can it be collected before it is sent: of the slots to 672 bytes that a thread freed of other
//! heaps it defers at most 64 KiB, divided by the number of heaps (at most by 16), and a slot, in
//! at most 64 groups of at most 21 KiB. It flushes at the next free beyond that, at every 32nd
//! refill of its own, when it is out of memory, and when it exits. A thread that sleeps defers no
//! more than that.
//!
//! ## Constant cost of a small process
//!
//! The state of the process is a static of 77 KiB of zeros. The first allocation touches: what is
//! counted under the lock, and right behind it the leaf of the pagemap for the first chunk, on the
//! page where libc's variables end if the program is not moved (static, not PIE); the first heap's
//! own page, with the classes of blocks to 160 bytes and more; and a page of the empty heap (read
//! only, not dirtied).
//! The first chunk lies behind the program break and grows in place: a call that asks for the
//! break, and two mappings, of 20 KiB and of 64 KiB. It dirties one page for header, map and first
//! cells together, and then the data, where the first groups of eight classes share a page.
//! On 32 bits, with chunks of 1 MiB, the static has 32 KiB, its 4 KiB of pagemap tell of all
//! addresses, and the first mapping has 8 KiB; as many pages are touched. Where the system's pages
//! are longer than 4 KiB, mappings are multiples of them, and what shares a page with something in
//! use stays.
//! Programs that never free keep musl's bump allocator and pay nothing. `make bench` prints the
//! sums beside mallocng's.
#![cfg_attr(not(any(test, loom, feature = "model")), no_std)]

pub mod base;
pub mod exchange;
#[cfg(all(feature = "count", not(loom)))]
pub use byssal_count as count;

#[cfg(not(loom))]
pub mod allocator;
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod pages;

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod mock;
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod model;
#[cfg(all(test, not(loom)))]
mod tests;
