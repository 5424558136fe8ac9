//! Steps that misuse the heap: each must stop with its fault.

use super::run::{Block, Model};
use super::{Op, Step};
use crate::base::config::{CLASSES, PRESET, REUSE_QUEUE, RUN_PAGE};
use crate::base::size_class::MAX_SMALL;
use crate::mock::expecting;

/// What a block freed before may be called: its group may be gone.
const STALE: &[&str] = &["double free", "invalid pointer"];

impl Model<'_> {
    /// Runs an action that must stop, with one of these faults.
    fn expect(&mut self, names: &[&str], what: Step, action: impl FnOnce()) {
        let fault = expecting(action);
        let named = fault
            .as_ref()
            .is_some_and(|text| names.iter().any(|name| text.contains(name)));
        assert!(named, "{what:?} ended in {fault:?} instead of {names:?}");
        self.report.faults += 1;
    }

    pub(super) fn misuse(&mut self, step: &Step) {
        let (which, n) = (step.which as usize, step.n as usize);
        match step.op {
            Op::DoubleFree => self.double_free(step, which),
            Op::StaleFree => self.stale(step, which, n),
            Op::Interior => self.interior(step, which, n),
            Op::Before => self.before(step, which, n),
            Op::Wild => self.wild(step, which, n),
            Op::WrongSize => self.wrong_size(step, which, n),
            Op::WriteAfterFree => self.write_after_free(which, n),
            Op::Overflow => self.overflow(step, which, n),
            _ => unreachable!("{step:?} is no misuse"),
        }
    }

    /// Whether the block stands in a slot of the current thread's own heap, and malloc of its
    /// size takes slots of its class.
    fn is_own_slot(&self, block: &Block) -> bool {
        let process = self.process;
        block.align <= 16
            && block.asked <= MAX_SMALL
            && block.live.n <= MAX_SMALL
            && !process.mine().is_empty()
            && block.heap == process.word()
    }

    fn double_free(&mut self, step: &Step, which: usize) {
        let Some(block) = self.take(which) else {
            return;
        };
        let (process, at) = (self.process, block.live.at);
        // SAFETY: live; then the misuse under test.
        unsafe {
            process.free(at);
            // The last live block of a class may take its group along.
            let names = STALE;
            self.expect(names, *step, || process.free(at));
        }
        self.remember(&block);
    }

    fn stale(&mut self, step: &Step, which: usize, n: usize) {
        let Some(&address) = self.freed.get(which % self.freed.len().max(1)) else {
            return;
        };
        if self.is_live(address) {
            return;
        }
        let (process, at) = (self.process, address as *mut u8);
        // SAFETY: the misuse under test.
        self.expect(STALE, *step, || unsafe {
            match n % 4 {
                0 => _ = process.realloc(at, n),
                1 => _ = process.usable_size(at),
                2 => process.free_sized(at, n),
                _ => process.free(at),
            }
        });
    }

    fn interior(&mut self, step: &Step, which: usize, n: usize) {
        let Some(&block) = self.blocks.get(which % self.blocks.len().max(1)) else {
            return;
        };
        if block.live.n < 2 {
            return;
        }
        // Half of them at a multiple of 16.
        let step_by = if n % 2 == 0 && block.live.n > 16 {
            16
        } else {
            1
        };
        let inside = 1 + n % (block.live.n.div_ceil(step_by) - 1);
        let bad = block.live.at.wrapping_add(inside * step_by);
        let process = self.process;
        // SAFETY: the misuse under test.
        self.expect(&STALE[1..], *step, || unsafe { process.free(bad) });
    }

    fn before(&mut self, step: &Step, which: usize, n: usize) {
        let Some(&block) = self.blocks.get(which % self.blocks.len().max(1)) else {
            return;
        };
        let bad = block.live.at.wrapping_sub(1 + n);
        if self.is_live(bad as usize) || bad.is_null() {
            return;
        }
        let process = self.process;
        // SAFETY: the misuse under test.
        self.expect(STALE, *step, || unsafe { process.free(bad) });
    }

    fn wild(&mut self, step: &Step, which: usize, n: usize) {
        let mut local = [0u64; 8];
        let address = match which % 5 {
            0 => local.as_mut_ptr() as usize + n % 64,
            1 => 1 + n,
            2 => usize::MAX - n,
            // No address that a program can have, where words are long enough.
            3 => (1u64 << 47) as usize | n,
            // Its heap, or null, which free takes for no block, of a thread that has none.
            _ => (self.process.word()).wrapping_add(n),
        };
        if self.is_live(address) || address == 0 {
            return;
        }
        let process = self.process;
        // SAFETY: the misuse under test.
        self.expect(STALE, *step, || unsafe { process.free(address as *mut u8) });
    }

    fn wrong_size(&mut self, step: &Step, which: usize, n: usize) {
        let Some(&block) = self.blocks.get(which % self.blocks.len().max(1)) else {
            return;
        };
        let (process, at, usable) = (self.process, block.live.at, block.live.n);
        // A block may stand by chance where a greater alignment than it was asked for would be
        // right: the least one that is wrong for this address. 0, no alignment, if there is none.
        let lowest_bit = at.addr() & at.addr().wrapping_neg();
        let (align, size) = match n % 4 {
            0 => (1, usable + 1 + n),
            1 => (3, block.asked),
            2 => (lowest_bit.wrapping_mul(2), block.asked),
            _ => (1, usable + 1),
        };
        // SAFETY: the misuse under test.
        let free = || unsafe {
            if align == 1 {
                process.free_sized(at, size)
            } else {
                process.free_aligned_sized(at, align, size)
            }
        };
        self.expect(&["size mismatch"], *step, free);
    }

    /// The default preset does not look for it, and nothing of the heap's lies there to be hurt.
    fn write_after_free(&mut self, which: usize, n: usize) {
        self.plenty();
        let Some(block) = self.take(which) else {
            return;
        };
        let own = self.is_own_slot(&block) && block.live.n > 0;
        let (process, at) = (self.process, block.live.at);
        // SAFETY: live; while its group lives, so does the memory of a freed slot.
        unsafe {
            process.free(at);
            self.remember(&block);
            let group = process.group_at(at);
            if !own || group.is_none_or(|group| group.class() >= CLASSES) {
                return;
            }
            at.add(n % block.live.n).write(0x41);
        }
        if !PRESET.zero_on_free {
            return;
        }
        self.over = true;
        // When the slot's turn comes is up to chance; no other fault may come of it.
        let fault = expecting(|| self.churn(block.asked, 40 * REUSE_QUEUE));
        if let Some(text) = fault {
            assert!(text.contains("write after free"), "{text}");
            self.report.faults += 1;
        }
    }

    fn overflow(&mut self, step: &Step, which: usize, n: usize) {
        self.plenty();
        let Some(block) = self.take(which) else {
            return;
        };
        let usable = block.live.n;
        let aligned = block.align > 16 && !PRESET.has_guard_pages();
        let mapped = usable > MAX_SMALL && PRESET.has_guard_pages();
        let whole = usable % RUN_PAGE == 0 && (aligned || mapped);
        if whole || usable == 0 {
            // Whole pages have no tail, and blocks of no bytes no memory. Back into the list.
            self.put(block);
            return;
        }
        self.over = true;
        let own = self.is_own_slot(&block);
        let (process, at) = (self.process, block.live.at);
        // SAFETY: live; the byte behind it is its canary. The rest is the misuse under test.
        let overflow = || unsafe {
            let guard = at.add(usable);
            guard.write(guard.read() ^ (1 | n as u8));
            let more = if own && n % 2 == 0 {
                REUSE_QUEUE + 1
            } else {
                0
            };
            let more: Vec<_> = (0..more).map(|_| process.malloc(block.asked)).collect();
            process.free(at);
            if !own {
                return process.process_exit();
            }
            // By as many frees as the reuse queue holds, or mallocs.
            more.into_iter().for_each(|other| process.free(other));
            self.churn(block.asked, (n % 2) * (REUSE_QUEUE + 1));
        };
        let fault = expecting(overflow);
        let named = fault.as_ref().is_some_and(|text| text.contains("overflow"));
        assert!(named, "{step:?} ended in {fault:?}: {:?}", block.live);
        self.report.faults += 1;
    }

    /// Mallocs and frees of one size.
    fn churn(&self, n: usize, times: usize) {
        for _ in 0..times {
            // SAFETY: live.
            unsafe { self.process.free(self.process.malloc(n)) };
        }
    }
}
