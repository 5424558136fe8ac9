//! `dump` prints every slot of a heap. It needs a process at rest, as `inspect.rs` does.

use crate::config::{CLASSES, PRESET};
use crate::group::bytes_of;
use crate::heap::Heap;
use crate::inspect::SlotState;
use crate::meta::{Meta, State};
use crate::pages::Platform;
use crate::process::Process;
use crate::size_class::stride;
use crate::sync::Ordering;
use core::fmt::{self, Write};

impl<P: Platform> Process<P> {
    /// Prints every heap, class, group, slot, run and large block, one line each:
    ///
    /// ```text
    /// byssal-dump 1 preset=default heaps=1
    /// heap id=1 life=active idle=0
    /// class heap=1 class=3 stride=64 slots=8 groups=1 queued=0 empty=0
    /// group heap=1 class=3 base=0x7f0000075000 bytes=512 state=current slots=La....ff
    /// run base=0x7f0000080000 pages=1 bytes=4096
    /// large base=0x7f0000100000 mapped=204800 bytes=200000
    /// total groups=1 live=2 runs=1 large=1 live_bytes=204160 used=32768 dirty=0 cached=0
    /// ```
    ///
    /// Numbers are bytes unless named otherwise. Letters of slots, from the first on: `L` live,
    /// `a` ready to be handed out, `f` freed, `r` freed by another thread, `h` the same, but the
    /// thread has not told yet, `q` in quarantine, `.` never used.
    pub fn dump(&self, out: &mut dyn Write) -> fmt::Result {
        let mut locked = self.lock();
        let heaps = locked.provider.heaps;
        writeln!(out, "byssal-dump 1 preset={} heaps={heaps}", PRESET.name)?;
        for id in 1..=heaps {
            let mut groups = [0; CLASSES];
            // SAFETY: groups given by the walk are alive.
            let _ = locked.each_group(|meta| unsafe {
                let own = (*meta).owner.load(Ordering::Relaxed) as usize == id;
                groups[(*meta).class as usize] += own as u32;
                Ok(())
            });
            // SAFETY: heaps live for ever.
            unsafe { dump_heap(out, self.heap_by_id(id as u16), &groups)? };
        }
        let mut result = Ok(());
        // SAFETY: groups and runs given by the walk are alive.
        let _ = locked.each_group(|meta| unsafe {
            result = result.and_then(|()| self.dump_group(out, meta));
            Ok(())
        });
        result?;
        let mut result = Ok(());
        locked.each_run_block(|base, pages, n| {
            result =
                result.and_then(|()| writeln!(out, "run base={base:p} pages={pages} bytes={n}"));
        });
        result?;
        let mut result = Ok(());
        locked.each_large(|base, len, n| {
            result =
                result.and_then(|()| writeln!(out, "large base={base:p} mapped={len} bytes={n}"));
        });
        result?;
        drop(locked);
        match self.check() {
            Ok(s) => {
                writeln!(
                out,
                "total groups={} live={} runs={} large={} live_bytes={} used={} dirty={} cached={}",
                s.groups, s.live, s.runs, s.large, s.live_bytes, s.used_bytes, s.dirty_bytes,
                s.cached_bytes
            )
            }
            Err(broken) => writeln!(out, "broken {broken}"),
        }
    }

    /// Prints a group.
    ///
    /// # Safety
    /// The group is alive, the process at rest.
    unsafe fn dump_group(&self, out: &mut dyn Write, meta: *mut Meta) -> fmt::Result {
        // SAFETY: by contract.
        unsafe {
            let state = if (*meta).is(State::Current) {
                "current"
            } else if (*meta).is(State::Queued) {
                "queued"
            } else {
                "detached"
            };
            write!(
                out,
                "group heap={} class={} base={:p} bytes={} state={state} slots=",
                (*meta).owner.load(Ordering::Relaxed),
                (*meta).class,
                Meta::base_of(meta),
                bytes_of(meta),
            )?;
            for index in 0..(*meta).capacity() {
                let letter = self.slot_state(meta, index).map_or('?', SlotState::letter);
                out.write_char(letter)?;
            }
            out.write_char('\n')
        }
    }
}

/// Prints a heap and its classes, of which it has so many groups.
///
/// # Safety
/// The heap lives, the process is at rest.
unsafe fn dump_heap(out: &mut dyn Write, heap: *mut Heap, groups: &[u32; CLASSES]) -> fmt::Result {
    // SAFETY: by contract.
    unsafe {
        let life = ["unused", "active", "parked", "dead"][(*heap).mail.0.life() as usize & 3];
        writeln!(
            out,
            "heap id={} life={life} idle={}",
            (*heap).id,
            (*heap).idle
        )?;
        for (class, &groups) in groups.iter().enumerate() {
            let state = &(&(*heap).classes)[class];
            if groups == 0 {
                continue;
            }
            writeln!(
                out,
                "class heap={} class={class} stride={} slots={} groups={} queued={} empty={}",
                (*heap).id,
                stride(class),
                (&(*heap).slots)[class],
                groups,
                state.queued,
                state.empty,
            )?;
        }
    }
    Ok(())
}
