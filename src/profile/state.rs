//! The profile of a process.

use crate::chance::Chance;
use crate::filter::{self, Filter};
use crate::live::{Block, Live};
use crate::sites::Sites;

/// What a freed block was, for who finds that it is not freed after all.
pub type Sample = Block;

/// What is known of the process's heap. Its caller has a lock.
pub struct State {
    pub(crate) chance: Chance,
    pub(crate) sites: Sites,
    live: Live,
    /// Samples that were taken.
    pub(crate) samples: u64,
    /// Samples whose stack found no room.
    pub(crate) without_stack: u64,
    /// Samples for which there was no room among the live ones, or none at all.
    pub(crate) forgotten: u64,
}

impl State {
    /// A profile without samples.
    pub const fn new(mean: u64, seed: u64) -> Self {
        State {
            chance: Chance::new(mean, seed),
            sites: Sites::new(),
            live: Live::new(),
            samples: 0,
            without_stack: 0,
            forgotten: 0,
        }
    }

    /// Bytes that a thread may allocate until its next sample.
    pub fn distance(&mut self) -> usize {
        self.chance.distance()
    }

    /// Notes that a block was allocated and is a sample. `stack` has the innermost address first.
    pub fn allocated(&mut self, filters: &[Filter; 2], block: Sample, stack: &[usize]) {
        self.samples += 1;
        let Some(site) = self.sites.number(stack) else {
            self.forgotten += 1;
            return;
        };
        if site == crate::sites::OTHER {
            self.without_stack += 1;
        }
        let weight = self.chance.weight(block.size);
        if let Some(site) = self.sites.get(site) {
            site.allocated.add(block.size, weight);
        }
        self.restore(filters, Sample { site, ..block });
    }

    /// Notes a block as live, which was not freed after all.
    pub fn restore(&mut self, filters: &[Filter; 2], block: Sample) {
        // A block that was here before has been freed unseen.
        let _ = self.freed(filters, block.address);
        if !self.live.add(block) {
            self.forgotten += 1;
            return;
        }
        let weight = self.chance.weight(block.size);
        if let Some(site) = self.sites.get(block.site) {
            site.live.add(block.size, weight);
        }
        filters[0].add(filter::page(block.address));
        filters[1].add(filter::block(block.address));
    }

    /// Notes that the block at `address` is freed, if it is a sample.
    pub fn freed(&mut self, filters: &[Filter; 2], address: usize) -> Option<Sample> {
        let block = self.live.remove(address)?;
        let weight = self.chance.weight(block.size);
        if let Some(site) = self.sites.get(block.site) {
            site.live.remove(block.size, weight);
        }
        filters[0].remove(filter::page(address));
        filters[1].remove(filter::block(address));
        Some(block)
    }

    /// Forgets all samples, in the child of a fork, whose own they are not.
    pub fn reset(&mut self, filters: &[Filter; 2], seed: u64) {
        for block in self.live.all() {
            filters[0].remove(filter::page(block.address));
            filters[1].remove(filter::block(block.address));
        }
        *self = State::new(self.chance.mean(), seed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn block(address: usize, size: usize) -> Sample {
        Sample {
            address,
            size,
            site: 0,
        }
    }

    /// Objects, bytes and samples that are live at all sites.
    fn live(state: &State) -> (f64, f64, u64) {
        state.sites.all().iter().fold((0.0, 0.0, 0), |sum, site| {
            let live = site.live;
            (
                sum.0 + live.objects,
                sum.1 + live.bytes,
                sum.2 + live.samples,
            )
        })
    }

    #[test]
    fn all_and_live_are_told_apart() {
        let filters = Box::new([Filter::new(), Filter::new()]);
        let mut state = State::new(1, 0);
        for i in 1..=100 {
            state.allocated(&filters, block(4096 * i, i), &[i % 2]);
        }
        for i in 1..=40 {
            assert!(filters[0].has(filter::page(4096 * i)));
            assert_eq!(state.freed(&filters, 4096 * i).unwrap().size, i);
            assert!(!filters[0].has(filter::page(4096 * i)));
            assert!(state.freed(&filters, 4096 * i).is_none());
        }
        assert_eq!(live(&state), (60.0, (41..=100).sum::<usize>() as f64, 60));
        let all: f64 = state.sites.all().iter().map(|s| s.allocated.bytes).sum();
        assert_eq!(all, 5050.0);
        state.reset(&filters, 0);
        assert_eq!(live(&state), (0.0, 0.0, 0));
        assert!((0..filter::ENTRIES).all(|i| !filters[0].has(i) && !filters[1].has(i)));
    }

    #[test]
    fn an_address_that_comes_again_was_freed() {
        let filters = Box::new([Filter::new(), Filter::new()]);
        let mut state = State::new(1, 0);
        state.allocated(&filters, block(64, 10), &[1]);
        state.allocated(&filters, block(64, 30), &[2]);
        assert_eq!(live(&state), (1.0, 30.0, 1));
        let freed = state.freed(&filters, 64).unwrap();
        state.restore(&filters, freed);
        assert_eq!(live(&state), (1.0, 30.0, 1));
    }
}
