//! Random numbers for choices, and the secrets of a process.

use crate::base::config::{CLASSES, PRESET};
use crate::base::lock::Held;
use crate::base::zeroed::Zeroed;
use core::cell::Cell;

/// splitmix64 (Steele, Lea, Flood 2014): a full-period mix of a counter, for choices that need
/// not withstand an attacker who sees its outputs.
pub fn next_random(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Unpredictable numbers, drawn under the lock before the first heap is attached or the first large
/// block made, and fixed from then on. On cache lines of their own: each free of another thread's
/// block reads them, and must not find them with the lock's last holder.
#[repr(align(64))]
pub struct Secrets {
    /// Canaries, one for each size class, then one for large blocks.
    canaries: [Cell<u8>; CLASSES + 1],
    /// For canaries that depend on their address: what is added, then a factor.
    keys: [Cell<u64>; 2],
    /// State of the generator of unimportant choices.
    seed: Cell<u64>,
    ready: Cell<bool>,
}

// SAFETY: `draw` and `draw_seed` are called under the lock; what the others read is fixed before
// another thread has a heap, or a block, to ask for.
unsafe impl Sync for Secrets {}

// SAFETY: cells of numbers; not drawn yet.
unsafe impl Zeroed for Secrets {}

impl Secrets {
    /// Draws the secrets from sixteen random bytes, once.
    pub fn draw(&self, _: &Held, random: impl FnOnce() -> [u64; 2]) {
        if self.ready.replace(true) {
            return;
        }
        let [a, b] = random();
        self.seed.set(a ^ b.rotate_left(32));
        for canary in &self.canaries {
            canary.set(canary_byte(next_random(&self.seed)));
        }
        self.keys[0].set(next_random(&self.seed));
        self.keys[1].set(next_random(&self.seed) | 1);
    }

    /// A seed, not 0, for a new heap's choices.
    pub fn draw_seed(&self, _: &Held) -> u64 {
        next_random(&self.seed) | 1
    }

    /// The canary of `class`, for presets whose canaries do not depend on their addresses.
    pub fn class_canary(&self, class: usize) -> u8 {
        self.canaries[class % (CLASSES + 1)].get()
    }

    /// The canary at `address`, given that of its class.
    #[inline(always)]
    pub fn canary(&self, of_class: u8, address: usize) -> u8 {
        if !PRESET.canary_by_address {
            return of_class;
        }
        // Multiply-shift hashing (Dietzfelbinger et al. 1997) with a secret factor: the canaries of
        // two addresses tell little about a third.
        let sum = (address as u64).wrapping_add(self.keys[0].get());
        canary_byte(sum.wrapping_mul(self.keys[1].get()))
    }
}

/// The canary that the upper bits of a random number pick: odd, above 0x80, and not 0xff, so that
/// no NUL, no ASCII text, no even byte and no -1 passes for it. Any other byte, 63 of them, does
/// with probability 1/63.
fn canary_byte(random: u64) -> u8 {
    (0x81 + 2 * (((random >> 32) * CANARIES) >> 32)) as u8
}

/// Number of different canaries.
const CANARIES: u64 = 63;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn canaries_are_odd_above_ascii_and_not_all_ones() {
        assert_eq!(canary_byte(0), 0x81);
        assert_eq!(canary_byte(u64::MAX), 0xfd);
        let mut seen = [0u32; 256];
        let seed = Cell::new(1);
        for _ in 0..100 * CANARIES {
            seen[canary_byte(next_random(&seed)) as usize] += 1;
        }
        for (byte, &count) in seen.iter().enumerate() {
            let allowed = byte >= 0x81 && byte % 2 == 1 && byte != 0xff;
            assert_eq!(count > 0, allowed, "{byte:#x} came {count} times");
        }
    }

    #[test]
    fn secrets_are_drawn_once() {
        // SAFETY: there is one thread that knows of these secrets.
        let (held, secrets) = (unsafe { Held::new() }, Secrets::ZERO);
        secrets.draw(&held, || [1, 2]);
        let canaries = |class| secrets.class_canary(class);
        let before: Vec<_> = (0..=CLASSES).map(canaries).collect();
        assert!(before
            .iter()
            .all(|&canary| canary > 0x80 && canary % 2 == 1));
        secrets.draw(&held, || panic!("asked for more"));
        assert!((0..=CLASSES).map(canaries).eq(before));
        let (one, other) = (secrets.draw_seed(&held), secrets.draw_seed(&held));
        assert!(one != other && one != 0 && other != 0);
    }
}
