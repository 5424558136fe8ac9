//! The heap of byssal: all of the allocator's logic, no exported C symbol, so that tests never
//! replace their own malloc.
//!
//! # Layers, each using only those below it
//!
//! ```text
//! alloc free remote_free resize        malloc, free, the same of others' blocks, realloc,
//!   aligned                            aligned_alloc
//! thread fork dump                     heaps of threads; what a fork leaves; dump
//! refill ring guard                    slots at hand, where more come from, ends of slots
//! group nest                           groups of slots in nests or runs
//! large large_cache zero               blocks with mappings of their own, or with no bytes
//! settle                               what lay unused for a while goes back
//! provider grow                        runs of pages from chunks, under the one lock; chunks
//! pointer heap parking remote outgoing wild pointer to slot; a heap's state; frees from elsewhere
//! chunk windows meta slot size_class   layouts: map, where chunks are, masks, records, strides
//! lock pages sync fault config         the system, atomics, the one stop, every knob
//! ```
//!
//! `process::Process` is everything there is one of. The system underneath is `pages::Platform`:
//! musl and the libraries in `src/abi`, a mock in `mock.rs`.
//!
//! # One malloc, one free
//!
//! ```text
//! malloc(n)  alloc.rs: class by table → oldest slot in the class's ring (ring.rs) → verify the
//!            end it had → place the block in the slot, write record and guards (slot.rs, guard.rs)
//!            ring low → a slot of the current group (`Class::avail`) → none left: refill.rs:
//!            masks of groups → frees of other threads → new group
//!            (group.rs → nest.rs or provider.rs → the system)
//! free(p)    pointer.rs: window → chunk's map → meta → slot number → record: a live block's
//!            start, or a fault → ring.rs: clear the record's offset, enter the ring
//!            ring full → the slot, verified at once, goes to its group's mask (refill.rs), or, until
//!            the ring is verified in whole, its oldest
//!            another heap's → remote_free.rs: verify the end, clear the record, keep the slot's
//!            bit with those of its group (outgoing.rs); many go to the owner at once (remote.rs)
//! ```
//!
//! # Design
//!
//! Memory is organised as in musl's mallocng: groups of up to 32 slots of one of 48 size classes,
//! masks for their state, metadata out of band, whole pages given back. What differs:
//!
//! - **Heaps own groups.** A thread works on its own heap with plain loads and stores; frees by
//!   another thread are one atomic operation on the group for several slots. Heaps outlive
//!   threads: parked when the thread exits, adopted by the next one.
//! - **Nothing about a block lies beside it.** Its offset and end stand in a record of one or two
//!   bytes in the group's cache line (`slot.rs`). What an overflow reaches is a guard byte. Free
//!   judges every pointer by out-of-band state alone: the record, which it clears.
//! - **A ring of freed slots before the masks** (`ring.rs`). It delays reuse, and it is what makes
//!   random replacement in a large heap cheap. Its entries hold addresses, and a class's line all
//!   that malloc and free need to know of it: of the tables only malloc's sizes are read.
//!
//! ## Where a slot's size is kept, and when its end is checked: measured
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
//! | no guard at all | .94 to 1.04 | .91 | .76 to .84 |
//! | tail in the slot, ring of freed slots | .96 | .86 | .81 |
//! | record, ring, batches of 8 | 1.45 | .59 | .71 |
//! | **record, ring, checked when leaving it** | 1.16 | **.50** | **.58** |
//!
//! So the blocking load of a slot's end is half of the cost on cold objects, but only once the
//! other half is gone: with every slot of a class in the masks a heap at 97 % occupancy refilled
//! after 1.5 mallocs. The record costs up to a sixth on a hot pair against the tail; it keeps 15 of
//! 16 bytes usable instead of 12, cannot be replayed from a neighbour, and is not reached by an
//! overflow.
//! The `hardened` preset checks at the free itself.
//!
//! ## Bound on external fragmentation
//!
//! A heap makes a group of a class only when it has no free slot of that class: none in the ring,
//! in a mask, or in its mailbox. The new group has at most as many slots as
//! there are (or 512 bytes' worth), at most 32. Empty groups are released once there are more
//! bytes in them than 256 KiB and a 32nd of the heap's, or than a sixteenth if that is more. A
//! ring and the current group keep further groups alive, up to 17 a class, but with the last live
//! block of a class that holds more than 16 KiB they let go. Hence, with `live(h,c)` the blocks of
//! class c in heap h and `peak(h,c)` their maximum so far:
//!
//! ```text
//! slots(h,c)          <= 2 peak(h,c) + 32               (it never expands before)
//! groups in use(h,c)  <= live(h,c) + 17                 (the others are empty)
//! bytes in slots(h)   <= 16/15 (sum over c of min(slots, 32 groups in use) * stride(c)
//!                               + 256 KiB + a group)
//! ```
//!
//! The worst program, one survivor in each group, thus holds up to 32 slots for each live block (16 above
//! 1024 bytes, 128 KiB at most), and never more than about the sum of its classes' peaks. On top
//! come 64 bytes a group, for the smallest group an eighth, and in each nest up to 16 spare cells of
//! 64 bytes; in each heap a partly used nest of 32 KiB for each 16 that had no fitting hole; the rounding of sizes, at most a quarter; and pages not yet given
//! back: 256 KiB and a sixteenth of those in use for the process; in each heap a quarter of what is
//! in use, but at least 512 KiB in free slots of 336 bytes and more, and 128 KiB in its nests (these
//! two and the 256 KiB of empty groups divided by the number of heaps, at most by 16); for
//! heaps whose threads ended 512 KiB together, as they were left (256 KiB each at most, until the
//! next threads adopt them or memory is out); for large blocks a cache of 640 KiB and a twelfth of
//! the live bytes, or what was unmapped and soon wanted again: never more than was live then, and
//! half as much with each large block freed after the second in a row. These go back at the next
//! free above the limit (a few frees later at most, of pages in free slots a sixteenth beyond the
//! share of 512 KiB). A program may purge each kind once in 50 ms
//! only, or when half of what was in use at the last purge is gone: what it frees in between waits
//! for its next frees, and pages in free slots wait as long as refills in between find less than
//! that free;
//! of the process's pages no more than 4 MiB and a quarter of those in use. And of each chunk that went
//! a page of memory and 20 KiB of addresses stay, until it is used again (`grow.rs`).
//!
//! These are limits at any moment. Of the process's pages and of large mappings, those that lie
//! unused from one look at the clock to the next go back altogether (`settle.rs`): looks come with
//! every 256th refill of a heap or 16th free of a large block, at least 250 ms apart.
//!
//! What other threads freed counts as free once the owner has collected it: when its other sources
//! are dry, and at every 32nd refill. An owner that sleeps, or lives from its rings alone, leaves
//! it where it is: never more than the peak before. Nor can it be collected before it is told: of
//! the slots to 672 bytes that a thread freed of other heaps it holds back at most 256 KiB,
//! divided by the number of heaps (at most by 16), and a slot, in at most 64 groups of at most
//! 21 KiB. It tells at the next free beyond that, at every 32nd refill of its own, when it is out
//! of memory, and when it exits. A thread that sleeps keeps no more than that back.
//!
//! ## Constant cost of a small process
//!
//! The state of the process is a static of 75 KiB of zeros. The first allocation touches: what is
//! counted under the lock, and right behind it the leaf of the windows of the first chunk, on the
//! page where libc's variables end if the program is not moved (static, not PIE); the first heap's
//! own page, with the classes of blocks to 400 bytes and more; and a page of the empty heap (read
//! only, not dirtied).
//! The first chunk lies behind the program break and grows in place: a call that asks for the break,
//! and two mappings, of 20 KiB and of 64 KiB. It dirties one page for header, map and first metas together, and then the
//! data, where the first groups of eight classes share a page. Programs that never free keep
//! musl's bump allocator and pay nothing. `make bench` prints the sums beside mallocng's.
#![cfg_attr(not(any(test, loom, feature = "model")), no_std)]

pub mod config;
#[cfg(all(feature = "count", not(loom)))]
pub use byssal_count as count;
#[cfg(not(loom))]
pub mod fault;
pub mod lock;
pub mod outgoing;
pub mod parking;
pub mod remote;
pub mod sync;

#[cfg(not(loom))]
mod aligned;
#[cfg(not(loom))]
mod alloc;
#[cfg(not(loom))]
mod chunk;
#[cfg(all(any(test, feature = "dump"), not(loom)))]
mod dump;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod free;
#[cfg(not(loom))]
mod group;
#[cfg(not(loom))]
mod grow;
#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
mod large;
#[cfg(not(loom))]
mod large_cache;
#[cfg(not(loom))]
mod meta;
#[cfg(not(loom))]
mod nest;
#[cfg(not(loom))]
pub mod pages;
#[cfg(not(loom))]
mod pointer;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod provider;
#[cfg(not(loom))]
mod refill;
#[cfg(not(loom))]
mod remote_free;
#[cfg(not(loom))]
mod resize;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod settle;
#[cfg(not(loom))]
pub mod size_class;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod thread;
#[cfg(not(loom))]
mod windows;
#[cfg(not(loom))]
mod zero;

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod mock;
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod model;
#[cfg(all(test, not(loom)))]
mod tests;
