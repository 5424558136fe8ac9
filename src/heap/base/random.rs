//! Random numbers for choices, and the secrets of a process.

use crate::base::config::PRESET;
use crate::base::lock::Held;
use crate::base::places::places;
use crate::base::platform::Platform;
use crate::base::size_class::TABLE;
use crate::base::zeroed::Zeroed;
use core::array;
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

/// Sixteen bytes from what differs between processes without the kernel's help: where things lie.
/// `somewhere` is an address in the program.
pub fn weak_seed(somewhere: usize) -> [u64; 2] {
    let local = 0u8;
    let stack = (&raw const local).addr() as u64;
    [
        stack.rotate_left(17) ^ somewhere as u64,
        stack.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ]
}

/// Unpredictable numbers, drawn under the lock before the first heap is attached or the first large
/// block made, and fixed from then on. On cache lines of their own: each free of another thread's
/// block reads them, and must not find them with the lock's last holder.
#[repr(align(64))]
pub struct Secrets {
    /// Canaries, one for each size class, then one for large blocks; as many as tables have
    /// entries.
    canaries: [Cell<u8>; TABLE],
    /// Key of the hash of addresses, see `guard`.
    keys: [Cell<u64>; 2],
    /// State of the generator of unimportant choices.
    seed: Cell<u64>,
    ready: Cell<bool>,
}

// SAFETY: `draw` and `random` are called under the lock; what the others read is fixed before
// another thread has a heap, or a block, to ask for.
unsafe impl Sync for Secrets {}

// SAFETY: cells of numbers; not drawn yet.
unsafe impl Zeroed for Secrets {}

impl Secrets {
    /// Where its fields are: canaries, keys.
    pub const FIELDS: [usize; 2] = places!(Secrets: canaries, keys);

    /// Draws the secrets from sixteen random bytes, or twice as many, once.
    pub fn draw(&self, _: &Held, random: impl Fn() -> [u64; 2]) {
        if self.ready.replace(true) {
            return;
        }
        let [a, b] = random();
        self.seed.set(a ^ b.rotate_left(32));
        for canary in &self.canaries {
            canary.set(canary_byte(next_random(&self.seed)));
        }
        if PRESET.has_guards() {
            let [a, b] = random();
            self.keys[0].set(a);
            self.keys[1].set(b);
        }
    }

    /// A random number, for unimportant choices.
    pub fn random(&self, _: &Held) -> u64 {
        next_random(&self.seed)
    }

    /// The canary of `class`, for presets without guards.
    pub fn class_canary(&self, class: usize) -> u8 {
        self.canaries[class % TABLE].get()
    }

    /// In presets that have guards: eight bytes, which stand for `address` and no other. They are
    /// its SipHash-1-3 (Aumasson, Bernstein 2012) under a key of
    /// 128 bits, so guards that a program shows tell nothing of those of other addresses.
    ///
    /// The upper bit of each byte is set: no NUL of a string and no ASCII text passes for a guard,
    /// however few of the bytes there is room for. That leaves 7 bits of a byte and 56 of a word:
    /// whoever must guess is right once in 128 times for each byte. (To replace the byte 0 alone
    /// would leave the best guess as good as that, and let text pass.)
    #[inline(never)]
    pub fn guard(&self, address: usize) -> u64 {
        let key = [self.keys[0].get(), self.keys[1].get()];
        hash(key, address as u64) | u64::from_ne_bytes([0x80; 8])
    }
}

/// The guard byte at `place`, in bytes from any multiple of 8: each byte has its own place, so a
/// part of a guard may stand where there is no room for all of it.
#[inline(always)]
pub fn guard_byte(guard: u64, place: usize) -> u8 {
    (guard >> (place % 8 * 8)) as u8
}

/// The canary that the upper bits of a random number pick: odd, above 0x80, and not 0xff, so that
/// no NUL, no ASCII text, no even byte and no -1 passes for it. Any other byte, 63 of them, does
/// with probability 1/63.
fn canary_byte(random: u64) -> u8 {
    (0x81 + 2 * (((random >> 32) * CANARIES) >> 32)) as u8
}

/// Number of different canaries.
const CANARIES: u64 = 63;

/// Generators that each owner of one has: one, or none where the preset asks for no choices.
pub const GENERATORS: usize = PRESET.random_slots as usize;

/// Bytes that ChaCha makes at a time, the key that they are made of, and the rest in numbers.
const OUTPUT: usize = 256;
const KEY: usize = 32;
const NUMBERS: usize = (OUTPUT - KEY) / 2;

/// Outputs of a generator before the kernel is asked for a new key: 224 KiB, about 57,000 pairs of
/// malloc and free.
const OUTPUTS: u32 = 1024;

/// A cryptographic generator of choices, hardened preset only: numbers of ChaCha8 (Bernstein 2008),
/// made 112 at a time. Whoever sees choices can foretell no others.
///
/// The first bytes of each output are the key of the next (fast key erasure, Bernstein 2017), so
/// what lies in memory does not tell choices of the past. Every so many outputs the kernel's bytes
/// come in addition. Zero memory is a generator that takes all of its key from the system.
pub struct Generator {
    /// Key of the next output.
    key: Cell<[u64; KEY / 8]>,
    /// The last output. Its first `left` numbers were not used yet.
    numbers: [Cell<u16>; NUMBERS],
    left: Cell<u32>,
    /// Outputs before the kernel is asked again.
    outputs: Cell<u32>,
    /// `Platform::thread_number` at the last output.
    thread: Cell<u32>,
}

// SAFETY: cells of numbers; there are none left, and no key.
unsafe impl Zeroed for Generator {}

impl Generator {
    /// A number below `bound`, which is at most 65536. Each is as likely as any other, up to one
    /// in 65536.
    #[inline(always)]
    pub fn below(&self, bound: usize, platform: &impl Platform) -> usize {
        debug_assert!(bound <= 1 << 16);
        // In the child of a fork no number may serve that is left for the parent.
        if self.left.get() == 0 || self.thread.get() != platform.thread_number() {
            self.refill(platform);
        }
        let left = self.left.get().wrapping_sub(1);
        self.left.set(left);
        let number = self.numbers.get(left as usize).map_or(0, Cell::get);
        (number as usize * bound) >> 16
    }

    /// A key for another generator, or for a hash.
    pub fn draw<const WORDS: usize>(&self, platform: &impl Platform) -> [u64; WORDS] {
        let number = |_| self.below(1 << 16, platform) as u64;
        array::from_fn(|_| (0..4).map(number).fold(0, |word, part| word << 16 | part))
    }

    /// Begins anew with a key that another generator drew.
    pub fn start(&self, key: [u64; KEY / 8]) {
        self.key.set(key);
        self.left.set(0);
        self.outputs.set(OUTPUTS);
    }

    /// Lets nothing of what a fork's parent will choose serve in the child.
    pub fn forget(&self) {
        self.left.set(0);
        self.outputs.set(0);
    }

    /// Makes the next output.
    #[cold]
    #[inline(never)]
    pub fn refill(&self, platform: &impl Platform) {
        let mut key = self.key.get();
        if self.outputs.get() == 0 {
            self.outputs.set(OUTPUTS);
            let other = platform.entropy().unwrap_or_else(|| {
                let [a, b] = platform.random();
                let here = (&raw const *self).addr() as u64;
                [a, b, here, platform.clock().into()]
            });
            key = array::from_fn(|word| key[word] ^ other[word]);
        }
        self.outputs.set(self.outputs.get() - 1);
        // A fork is told by the thread's number, where there is no other sign of it.
        let thread = platform.thread_number();
        self.thread.set(thread);
        key[0] ^= thread as u64;
        let output = expand(key);
        self.key.set(array::from_fn(|word| output[word]));
        for (index, number) in self.numbers.iter().enumerate() {
            number.set((output[KEY / 8 + index / 4] >> (index % 4 * 16)) as u16);
        }
        self.left.set(NUMBERS as u32);
    }
}

/// SipHash-1-3 of one word.
#[cfg(feature = "hardened")]
#[inline(always)]
fn hash(key: [u64; 2], word: u64) -> u64 {
    siphasher::sip::SipHasher13::new_with_keys(key[0], key[1]).hash(&word.to_le_bytes())
}

/// The first output of ChaCha8 under a key.
#[cfg(feature = "hardened")]
#[inline(always)]
fn expand(key: [u64; KEY / 8]) -> [u64; OUTPUT / 8] {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut seed = [0; KEY];
    for (byte, place) in seed.iter_mut().zip(0..) {
        *byte = key[place / 8].to_le_bytes()[place % 8];
    }
    let mut generator = rand_chacha::ChaCha8Rng::from_seed(seed);
    array::from_fn(|_| generator.next_u64())
}

/// The default preset asks for no hash.
#[cfg(not(feature = "hardened"))]
fn hash(_: [u64; 2], _: u64) -> u64 {
    unreachable!()
}

/// The default preset has no generator.
#[cfg(not(feature = "hardened"))]
fn expand(_: [u64; KEY / 8]) -> [u64; OUTPUT / 8] {
    unreachable!()
}

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
        let before: Vec<_> = (0..TABLE).map(canaries).collect();
        assert!(before
            .iter()
            .all(|&canary| canary > 0x80 && canary % 2 == 1));
        secrets.draw(&held, || panic!("asked for more"));
        assert!((0..TABLE).map(canaries).eq(before));
        let (one, other) = (secrets.random(&held), secrets.random(&held));
        assert!(one != other && one != 0 && other != 0);
    }

    #[cfg(feature = "hardened")]
    mod hardened {
        use super::*;
        use crate::mock::Mock;
        use std::sync::atomic::Ordering;

        #[test]
        fn the_hash_is_the_reference_implementation_s() {
            // Key 00 to 0f and message 00 to 07, in SipHash's test vectors for 1-3.
            let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
            assert_eq!(hash(key, 0x0706_0504_0302_0100), 0x3690_9511_8d29_9a8e);
        }

        #[test]
        fn the_cipher_is_chacha8() {
            // Key and nonce of zeros, in the test vectors of the eSTREAM project.
            let bytes: Vec<u8> = (expand([0; 4])[..4].iter())
                .flat_map(|word| word.to_le_bytes())
                .collect();
            let expected = [
                0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09,
                0xa5, 0xa1, 0x2c, 0x84, 0x0e, 0xc3, 0xce, 0x9a, 0x7f, 0x3b, 0x18, 0x1b, 0xe1, 0x88,
                0xef, 0x71, 0x1a, 0x1e,
            ];
            assert_eq!(bytes, expected);
        }

        #[test]
        fn guards_differ_and_hold_neither_text_nor_nul() {
            // SAFETY: there is one thread that knows of these secrets.
            let (held, secrets) = (unsafe { Held::new() }, Secrets::ZERO);
            secrets.draw(&held, || [3, 4]);
            let mut seen = std::collections::BTreeSet::new();
            for address in (0x1000..0x11000).step_by(8) {
                let guard = secrets.guard(address);
                assert!(guard.to_ne_bytes().iter().all(|&byte| byte >= 0x80));
                assert!(seen.insert(guard), "two addresses have one guard");
                let bytes = guard.to_le_bytes();
                assert!((0..24).all(|place| guard_byte(guard, place) == bytes[place % 8]));
            }
            // Each bit that is free is set in about half of them.
            for bit in (0..64).filter(|bit| bit % 8 != 7) {
                let set = seen.iter().filter(|&&guard| guard & 1 << bit != 0).count();
                assert!((3800..4400).contains(&set), "bit {bit}: {set} of 8192");
            }
        }

        /// The next choices of a generator.
        fn choices(generator: &Generator, system: &Mock) -> Vec<usize> {
            let next = |_| generator.below(1 << 16, system);
            (0..2 * NUMBERS).map(next).collect()
        }

        /// How many of them agree.
        fn agree(one: &[usize], other: &[usize]) -> usize {
            one.iter().zip(other).filter(|(a, b)| a == b).count()
        }

        /// As a fork copies it.
        fn copy(generator: &Generator) -> Generator {
            // SAFETY: cells of numbers, which nobody uses meanwhile.
            unsafe { std::ptr::from_ref(generator).read() }
        }

        #[test]
        fn choices_are_even() {
            let (generator, system) = (Generator::ZERO, Mock::new(false));
            for bound in [1, 2, 3, 31, 128] {
                let mut seen = vec![0; bound];
                (0..bound * 400).for_each(|_| seen[generator.below(bound, &system)] += 1);
                assert!(
                    seen.iter().all(|count| (300..500).contains(count)),
                    "{seen:?}"
                );
            }
        }

        #[test]
        fn the_child_of_a_fork_chooses_otherwise() {
            let (generator, system) = (Generator::ZERO, Mock::new(false));
            for _ in 0..50 {
                generator.below(2, &system);
            }
            let (told, untold, unchanged) = (copy(&generator), copy(&generator), copy(&generator));
            let parent = choices(&generator, &system);
            assert_eq!(choices(&unchanged, &system), parent, "the copy is one");
            told.forget();
            assert!(agree(&choices(&told, &system), &parent) < 4);
            Mock::number(7);
            let child = choices(&untold, &system);
            Mock::number(0);
            assert!(agree(&child, &parent) < 4);
            // Nor does a child whose kernel refuses, once time has gone by.
            let mute = copy(&generator);
            let parent = choices(&generator, &system);
            mute.forget();
            system.mute.store(true, Ordering::Relaxed);
            assert!(agree(&choices(&mute, &system), &parent) < 4);
        }

        #[test]
        fn the_kernel_is_asked_now_and_then() {
            let (generator, system) = (Generator::ZERO, Mock::new(false));
            let asked = || system.drawn.load(Ordering::Relaxed);
            for round in 1..4 {
                (0..NUMBERS * OUTPUTS as usize).for_each(|_| {
                    generator.below(9, &system);
                });
                assert_eq!(asked(), round);
            }
            let other = Generator::ZERO;
            other.start(generator.draw(&system));
            other.below(9, &system);
            assert_eq!(asked(), 4, "a key that another drew needs no kernel");
        }
    }
}
