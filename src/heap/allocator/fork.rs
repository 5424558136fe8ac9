//! fork in a process with threads: the lock is held over it, and in the child the other threads'
//! heaps are orphaned.

use crate::allocator::Allocator;
use crate::base::config::{MOST_HEAPS, PRESET};
use crate::base::platform::Platform;
use crate::base::random::Generator;
use crate::exchange::abandoned::{collect_abandoned, leave_behind};
use crate::exchange::mailbox::Life;
use crate::heap::heap::Heap;
use crate::heap::orphans;
use crate::pages::memory::Locked;
use core::ptr;

/// The child of a fork uses the numbers of orphaned heaps anew once there are more than this.
pub(crate) const MOST_ORPHANS: usize = MOST_HEAPS / 16;

impl<P: Platform> Allocator<P> {
    /// Before a fork in a process with threads: what the lock protects is at rest.
    pub fn before_fork(&self) {
        self.platform().lock();
    }

    /// After it, in the parent.
    pub fn after_fork_parent(&self) {
        self.platform().unlock();
    }

    /// After it, in the child: the other threads' heaps stay as they were, for good.
    ///
    /// # Safety
    /// The only thread, right after the fork.
    pub unsafe fn after_fork_child(&self) {
        // SAFETY: there is one thread.
        unsafe { self.platform().reset_lock() };
        let own = self.mine();
        let mut locked = self.heaps.memory.lock();
        let mut orphans = 0;
        for heap in self.heaps.each().filter(|heap| !ptr::eq(*heap, own.heap())) {
            leave_behind(heap);
            orphans += heap.mail.0.is_orphaned() as usize;
        }
        self.heaps.roster(&mut locked).orphans |= orphans > 0;
        self.choose_anew(&locked);
        locked.free_leaving();
        drop(locked);
        // Before their groups go: they stand among this heap's deferred frees no more.
        if !own.is_empty() {
            own.flush();
        }
        // Whoever was to look into the mailbox of an abandoned heap next may not be here.
        let waits = |heap: &&Heap| heap.mail.0.is(Life::Abandoned) && !heap.mail.0.is_empty();
        for heap in self.heaps.each().filter(waits) {
            collect_abandoned(&self.heaps, heap);
        }
        if orphans > MOST_ORPHANS {
            orphans::bury(&self.heaps, &mut self.heaps.memory.lock());
        }
    }

    /// Sees to it that a fork's child chooses otherwise than its parent. The kernel is asked now
    /// where it is sure to be wanted: the child may soon be in a sandbox that refuses.
    fn choose_anew(&self, locked: &Locked<'_, P>) {
        if !PRESET.random_slots {
            return;
        }
        // Orphaned heaps choose no more before they are set up again.
        let in_use = |heap: &&Heap| !heap.mail.0.is_orphaned() && !heap.is_unset();
        (self.heaps.each().filter(in_use)).for_each(Heap::forget_choices);
        locked.pages.generator.iter().for_each(Generator::forget);
        let own = Some(self.mine()).filter(|own| !own.is_empty());
        let own = own.iter().flat_map(|own| &own.generator);
        for generator in locked.pages.generator.iter().chain(own) {
            generator.refill(self.platform());
        }
    }
}
