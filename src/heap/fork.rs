//! fork in a process with threads: the provider lock is held over it, and in the child the other
//! threads' heaps are dead.
//!
//! A dead heap's rings, queues and masks, of freed slots and of granules, may be torn: its thread
//! may have been in mid-update. They are never looked at again. What can be trusted is what only
//! changes under the lock (chunks, which runs and nests there are, groups in runs), and of what
//! that thread wrote alone:
//!
//! - each slot's record, one byte or two, which tells whether the slot holds a block that somebody
//!   may free;
//! - the map, and the reserves of nests (`nest.rs`). The child sees of each thread what it did up
//!   to some instruction, and nothing behind that: the system write-protects the pages, and a thread
//!   that does not know of it yet writes to pages that the child has, until it does. So a cell that
//!   a map entry leads to describes a group, perhaps one that is only partly entered, without a
//!   block; and a cell of a nest is in the map, in the reserve, or (one of them) in both.
//!
//! So in the child every free into a dead heap takes the lock, and a group goes back as soon as none
//! of its records tells of a block, a nest as soon as its part of the map is empty. Groups without
//! a block from the start go back with the first of these, or when the child
//! would otherwise need another chunk: not at the fork, as that would cost a child that only execs.
//!
//! What a fork loses: in a heap that lives on in the child, the group of a remote free that was
//! caught between setting its bit and listing the group (at most one for each thread that is not
//! there any more), the slot of a free caught before its bit, and the slots that such a thread held
//! back (`outgoing.rs`); blocks that a thread had and nobody else knows of; of each dead heap its
//! struct and its number, until there are many such: then one of them takes all groups over, at the
//! fork, while no other thread can look at an owner, and the others become new heaps. A program whose
//! children fork again and again, each with threads, runs out of neither.

use crate::chunk::{Chunk, GRANULES};
use crate::config::{GRANULE, MOST_DEAD, NEST, NEST_GROUP_MAX, PRESET};
use crate::fault::{Fault, Found};
use crate::group::bytes_of;
use crate::meta::{Meta, State, CLASS_RUN};
use crate::pages::Platform;
use crate::parking::leave_behind;
use crate::pointer::{Slot, Untrusted};
use crate::process::Process;
use crate::provider::Locked;
use crate::remote::Node;
use crate::sync::Ordering;

impl<P: Platform> Process<P> {
    /// Before a fork in a process with threads: the provider's state is at rest.
    pub fn before_fork(&self) {
        self.platform.lock();
    }

    /// After it, in the parent.
    pub fn after_fork_parent(&self) {
        self.platform.unlock();
    }

    /// After it, in the child: the other threads' heaps stay as they were, for good.
    ///
    /// # Safety
    /// The only thread, right after the fork.
    pub unsafe fn after_fork_child(&self) {
        // SAFETY: by contract.
        unsafe {
            self.platform.reset_lock();
            let own = self.heap();
            let locked = self.lock();
            let mut dead = 0;
            for id in 1..=locked.provider.heaps {
                let heap = self.heap_by_id(id as u16);
                if heap != own {
                    leave_behind(heap);
                    dead += (*heap).mail.0.is_dead() as usize;
                }
            }
            locked.provider.abandoned |= dead > 0;
            drop(locked);
            // Before their groups go: they stand in this heap's table no more.
            if !self.is_empty_heap(own) {
                self.tell_all(own);
            }
            if dead > MOST_DEAD {
                self.lock().bury();
            }
        }
    }

    /// Frees a block of a dead heap.
    ///
    /// # Safety
    /// The program does not use the block any more; the owner of its group is dead.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_abandoned(&self, slot: &Slot) {
        let block = slot.block();
        self.locked(|locked| {
            // Once more, as records of dead heaps are cleared under the lock only: of two frees of
            // the same block that race, the second finds none, or, if the group has gone by then, one
            // that a living heap made in its place.
            let found = Untrusted::new(block).find(self);
            // SAFETY: the group of a live block lives.
            let slot = found.filter(|slot| unsafe { self.is_orphan(slot.meta) });
            let slot = slot.ok_or(Found(Fault::DoubleFree, block.addr()))?;
            // SAFETY: a dead heap's group changes under the lock only; by contract the block dies.
            unsafe {
                self.check_around(&slot)?;
                slot.clear_record();
                self.clear_freed(&slot);
                (*slot.meta).mask().add(slot.bit());
                if self.is_abandoned(slot.meta) {
                    locked.release_abandoned(slot.meta);
                    // A child that frees what others made means to stay.
                    locked.release_all_abandoned();
                }
            }
            Ok(())
        })
    }

    /// Whether a group belongs to a dead heap and holds no block.
    ///
    /// # Safety
    /// The group lives, in a chunk; provider lock.
    unsafe fn is_abandoned(&self, meta: *mut Meta) -> bool {
        // SAFETY: by contract; owners of groups in chunks are heaps.
        unsafe {
            self.is_orphan(meta)
                && (0..(*meta).capacity()).all(|index| !self.holds_block(meta, index))
        }
    }
}

impl<P: Platform> Locked<'_, P> {
    /// Has one dead heap take over what all have, and makes the others ready for new threads.
    ///
    /// # Safety
    /// The only thread, right after the fork: nobody else may have read an owner.
    #[cold]
    unsafe fn bury(&mut self) {
        // SAFETY: heaps live for ever, and dead ones are nobody's.
        unsafe {
            self.provider.parked.forget_dead();
            self.provider.heir = 0;
            for id in 1..=self.provider.heaps as u16 {
                let heap = self.process.heap_by_id(id);
                if !(*heap).mail.0.is_dead() {
                    continue;
                }
                // For `heap_for_thread`, which clears it: not here, as the child may only exec.
                (*heap).seed = 0;
                if self.provider.heir == 0 {
                    self.provider.heir = id;
                    self.provider.abandoned = true;
                    self.release_all_abandoned();
                } else {
                    self.provider.parked.enter_empty(heap);
                }
            }
            self.provider.heir = 0;
        }
    }

    /// Releases every group that holds no block and every empty nest of heaps that a fork left
    /// behind, once after the fork. Whether there was something to do. What stays goes to the heir,
    /// if there is one.
    pub(crate) fn release_all_abandoned(&mut self) -> bool {
        if !core::mem::replace(&mut self.provider.abandoned, false) {
            return false;
        }
        let mut chunk = self.provider.chunks;
        // SAFETY: chunks in the list stay there, whatever is released.
        unsafe {
            while !chunk.is_null() {
                self.release_abandoned_in(chunk);
                chunk = (*chunk).next;
            }
        }
        true
    }

    /// The same for one chunk.
    ///
    /// # Safety
    /// The chunk is in the list.
    unsafe fn release_abandoned_in(&mut self, chunk: *mut Chunk) {
        let mut granule = 0;
        while granule < GRANULES {
            // SAFETY: by contract; metas that a map leads to are alive.
            unsafe {
                let cell = Chunk::entry(chunk, granule).load(Ordering::Relaxed);
                let meta = chunk.cast::<Meta>().add(cell as usize);
                granule += 1;
                if cell == 0 || (*meta).class >= CLASS_RUN {
                    continue;
                }
                granule = (*meta).first_granule() + bytes_of(meta) / GRANULE;
                if self.process.is_abandoned(meta) {
                    self.release_abandoned(meta);
                } else if self.provider.heir != 0 && self.process.is_orphan(meta) {
                    // Relaxed: there is one thread.
                    (*meta).owner.store(self.provider.heir, Ordering::Relaxed);
                }
            }
        }
        for first in (0..GRANULES).step_by(NEST / GRANULE) {
            // SAFETY: as above.
            unsafe { self.release_vacant(chunk, first) };
        }
    }

    /// Releases a group without a block, whose heap is dead.
    ///
    /// # Safety
    /// No slot holds a block.
    unsafe fn release_abandoned(&mut self, meta: *mut Meta) {
        // SAFETY: by contract.
        unsafe {
            let bytes = bytes_of(meta);
            if PRESET.zero_on_free {
                // A block that was just being made or freed may have left guards.
                Meta::base_of(meta).write_bytes(0, bytes);
            }
            if bytes > NEST_GROUP_MAX {
                return self.return_group_run(meta, bytes);
            }
            let (chunk, first) = (Chunk::around(meta), (*meta).first_granule());
            let nest = Chunk::nest_at(chunk, first);
            (*meta).set(State::Free);
            Chunk::enter(chunk, first, bytes / GRANULE, 0);
            // The thread that is not here may have come to that.
            let mut spare = (*nest).cells;
            while !spare.is_null() && spare != meta {
                spare = (*spare).next;
            }
            if spare.is_null() {
                (*nest).push(meta);
            }
            self.release_vacant(chunk, first);
        }
    }

    /// Releases the nest around a granule if a dead heap has one there, without a group.
    ///
    /// # Safety
    /// The chunk is in the list.
    unsafe fn release_vacant(&mut self, chunk: *mut Chunk, granule: usize) {
        // SAFETY: by contract; owners of nests are heaps, and heaps live for ever.
        unsafe {
            if Chunk::nest(chunk, granule).load(Ordering::Relaxed) == 0 {
                return;
            }
            let nest = Chunk::nest_at(chunk, granule);
            let base = (*nest).base as usize;
            let leads_nowhere = |granule| Chunk::entry(chunk, granule).load(Ordering::Relaxed) == 0;
            if !(*self.process.heap_by_id((*nest).owner)).mail.0.is_dead() {
                return;
            }
            if (base..base + NEST / GRANULE).all(leads_nowhere) {
                self.return_nest(nest);
            } else if self.provider.heir != 0 {
                (*nest).owner = self.provider.heir;
            }
        }
    }
}
