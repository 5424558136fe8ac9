//! At the end of the process: freed slots that still wait in the reuse queues of other threads'
//! heaps. Their threads may be at work, and nobody stops them.
//!
//! Memory that a look may read stays, as chunks go under the lock only, which is held; that the
//! slot is still the heap's, and which record is its, the map says, whatever the queue showed.

use crate::base::config::{CLASSES, PRESET};
use crate::base::fault::{was_found, Fault, Found};
use crate::base::platform::Platform;
use crate::base::size_class::stride;
use crate::heap::heap::{Heap, Heaps};
use crate::layout::slot::is_tail;
use crate::pages::memory::Locked;
use core::cell::Cell;
use core::ptr;

/// Classes and slots looked at: 1000 heaps with all their queues full would be ten times as many.
/// They take about 10 ms.
const LOOKS: usize = 1 << 16;

impl<P: Platform> Heaps<P> {
    /// Verifies the tails of slots in the reuse queues of all heaps but `own`, and of no more than
    /// `LOOKS`. Where the preset verifies at the free there is nothing left to do.
    pub fn verify_others(&self, _: &Locked<'_, P>, own: &Heap) -> Result<(), Found> {
        if PRESET.check_at_free || was_found() {
            return Ok(());
        }
        let looks = Cell::new(0);
        // What a fork left may be torn.
        let others = self
            .each()
            .filter(|heap| !ptr::eq(*heap, own) && !heap.mail.0.is_orphaned());
        for heap in others {
            for class in 0..CLASSES {
                heap.watch(class, |start| {
                    looks.set(looks.get() + 1);
                    self.look_at(heap, class, start)
                })?;
                looks.set(looks.get() + 1);
            }
            if looks.get() > LOOKS {
                break;
            }
        }
        Ok(())
    }

    /// Err if at `start` there is a slot of the heap and class, by the map and its record without a
    /// block, whose tail does not stand.
    fn look_at(&self, heap: &Heap, class: usize, start: *mut u8) -> Result<(), Found> {
        let system = &self.memory.system;
        let Some(chunk) = system.pagemap.any_chunk(start.addr()) else {
            return Ok(());
        };
        let (group, stride) = (chunk.group_at(start.addr()), stride(class));
        let distance = group.distance(start.addr());
        let index = distance / stride;
        let is_slot = group.class() == class
            && group.owner() == heap.id()
            && distance % stride == 0
            && index < group.capacity();
        if !is_slot {
            return Ok(());
        }
        let tail = group.freed_tail(index);
        let Some(tail) = tail.filter(|tail| (1..=stride).contains(tail)) else {
            return Ok(());
        };
        let byte = |at: usize| {
            // SAFETY: the byte lies in a slot of a group that was in the map, whose pages stay
            // while the lock is held. Volatile: the slot may be the program's by now.
            unsafe { start.wrapping_add(at).read_volatile() }
        };
        let (end, canary) = (stride - tail, system.secrets.class_canary(class));
        if !is_tail(byte(end), byte(stride - 1), tail, canary) {
            return Err(Found(Fault::Overflow, start.addr() + end));
        }
        Ok(())
    }
}
