//! Blocks of this very program, whose global allocator is byssal: where they lie, what they hold,
//! how they grow, and what a fork makes of them.

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

/// A live block, all of whose bytes are `byte`.
struct Block {
    at: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Block {
    fn new(size: usize, align: usize, byte: u8) -> Block {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is not 0, and the block is this one's.
        let at = unsafe {
            let at = alloc(layout);
            assert!(!at.is_null());
            at.write_bytes(byte, size);
            at
        };
        let block = Block { at, layout, byte };
        block.check(size);
        block
    }

    /// Of zeros, which the allocator sees to.
    fn zeroed(size: usize, align: usize) -> Block {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is not 0.
        let at = unsafe { alloc_zeroed(layout) };
        assert!(!at.is_null());
        let block = Block {
            at,
            layout,
            byte: 0,
        };
        block.check(size);
        block
    }

    /// The block is where it should be, and holds what it should in its first bytes.
    fn check(&self, bytes: usize) {
        assert_eq!(self.at.addr() % self.layout.align(), 0, "{:?}", self.layout);
        // SAFETY: live, of at least so many bytes.
        let held = unsafe { std::slice::from_raw_parts(self.at, bytes) };
        // One comparison of memory: tests run unoptimised.
        let same = held[0] == self.byte && held[1..] == held[..bytes - 1];
        assert!(
            same,
            "{:?} holds something else than {}",
            self.layout, self.byte
        );
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: live, made with this layout, and not of size 0 afterwards.
        unsafe {
            self.at = realloc(self.at, self.layout, size);
            assert!(!self.at.is_null());
            let least = size.min(self.layout.size());
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            self.check(least);
            self.at.write_bytes(self.byte, size);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check(self.layout.size());
        // SAFETY: live, and made with this layout.
        unsafe { dealloc(self.at, self.layout) };
    }
}

/// splitmix64, from a fixed seed: the same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// Mostly small.
    fn size(&mut self) -> usize {
        let most = [64, 700, 9000, 131_100, 700_000][[0, 0, 0, 1, 1, 2, 3, 4][self.below(8)]];
        1 + self.below(most)
    }
}

#[test]
fn whose_heap_serves() {
    let expected = std::env::var_os("BYSSAL_EXPECT_LIBCS").is_some();
    assert_eq!(byssal::is_libcs(), expected);
}

#[test]
fn alignments_from_1_to_64_kib() {
    for shift in 0..=16 {
        let align = 1 << shift;
        for size in [
            1, 15, 16, 17, 100, 671, 672, 4095, 4096, 5000, 70_000, 131_056, 300_000,
        ] {
            let mut blocks: Vec<Block> = (0..5).map(|byte| Block::new(size, align, byte)).collect();
            blocks.push(Block::zeroed(size, align));
            for block in &mut blocks {
                for new in [size + 1, 2 * size, size.div_ceil(2), 3 * size, size] {
                    block.resize(new);
                }
            }
        }
    }
}

#[test]
fn zeros_where_other_bytes_were() {
    for size in [1, 40, 700, 5000, 40_000, 140_000, 900_000] {
        for align in [1, 16, 64, 4096, 65_536] {
            for _ in 0..20 {
                drop(Block::new(size, align, 0xa5));
                drop(Block::zeroed(size, align));
            }
        }
    }
}

/// Random steps, each block's contents being the model of it.
fn steps(seed: u64, count: usize) {
    let mut numbers = Numbers(seed);
    let mut blocks: Vec<Block> = Vec::new();
    for step in 0..count {
        let which = numbers.below(blocks.len().max(1));
        match numbers.below(8) {
            0..=2 if blocks.len() < 300 => {
                // Mostly what malloc's way gives.
                let align = [1, 8, 8, 16, 16, 64, 4096, 16_384][numbers.below(8)];
                blocks.push(Block::new(numbers.size(), align, step as u8));
            }
            3 if blocks.len() < 300 => blocks.push(Block::zeroed(numbers.size(), 8)),
            4 | 5 if !blocks.is_empty() => {
                let size = numbers.size();
                blocks[which].resize(size);
            }
            _ if !blocks.is_empty() => drop(blocks.swap_remove(which)),
            _ => {}
        }
    }
}

#[test]
fn random_steps_by_several_threads() {
    thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || steps(seed, if cfg!(debug_assertions) { 4000 } else { 40_000 }));
        }
    });
}

#[test]
fn a_block_that_grows_moves_seldom() {
    // By the least step each time, 20,000 times. Of a class's slots it moves through a few, as a
    // block stands far back in its slot.
    let mut block = Block::new(1, 1, 7);
    let (mut moved, mut at) = (0, block.at);
    for size in 2..20_000 {
        block.resize(size);
        moved += (block.at != at) as usize;
        at = block.at;
    }
    assert!(moved < 500, "moved {moved} times");
}

#[test]
fn frees_keep_errno() {
    for size in [10, 1000, 100_000, 500_000, 5_000_000] {
        let block = Block::new(size, 8, 1);
        // SAFETY: this thread's errno.
        let errno = unsafe {
            *libc::__errno_location() = 77;
            dealloc(block.at, block.layout);
            *libc::__errno_location()
        };
        assert_eq!(errno, 77, "{size}");
        std::mem::forget(block);
    }
}

#[test]
fn a_fork_among_busy_threads() {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 10..13 {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    steps(seed, 300);
                }
            });
        }
        for round in 0..40 {
            let kept = Block::new(100 + round, 8, 5);
            // SAFETY: the child calls nothing but the allocator and _exit.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork");
            if child == 0 {
                // SAFETY: a child that hangs, on a lock that a lost thread holds, ends so.
                unsafe { libc::alarm(60) };
                let more: Vec<Block> = (1..200).map(|n| Block::new(n * 50, 8, n as u8)).collect();
                drop(kept);
                drop(more);
                // SAFETY: ends the child, without the test's own destructors.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: waits for the child.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child's end in round {round}");
        }
        over.store(true, Relaxed);
    });
}
