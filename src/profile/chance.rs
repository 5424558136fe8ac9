//! Distances between samples, and what a sample stands for.

/// The random numbers of one process, and the mean distance.
pub struct Chance {
    mean: u64,
    random: u64,
}

impl Chance {
    /// The greatest mean, in bytes: an exponential distance of it fits into 63 bits.
    pub const MOST: u64 = 1 << 50;

    /// Samples that are `mean` bytes apart in the mean; with 1 each block is a sample.
    pub const fn new(mean: u64, seed: u64) -> Self {
        let mean = if mean == 0 { 1 } else { mean };
        Chance {
            mean: if mean > Self::MOST { Self::MOST } else { mean },
            random: seed,
        }
    }

    /// The mean distance in bytes.
    pub fn mean(&self) -> u64 {
        self.mean
    }

    /// The next of 2^64 pseudorandom numbers: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes that pass until the one that is sampled: exponentially distributed, rounded down. So
    /// of `n` bytes one is sampled just if `n` is more than the distance.
    pub fn distance(&mut self) -> usize {
        if self.mean == 1 {
            return 0;
        }
        // In (0, 1], in steps of 2^-53.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let distance = -libm::log(uniform) * self.mean as f64;
        // Saturates: on 32 bits a distance may be more than there is memory.
        distance as usize
    }

    /// How many blocks of `size` bytes a sample of them stands for: one over the probability
    /// that a block is a sample. At least 1.
    pub fn weight(&self, size: usize) -> f64 {
        if self.mean == 1 {
            return 1.0;
        }
        -1.0 / libm::expm1(-(size.max(1) as f64) / self.mean as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean of the distances, and of how many blocks of a size are estimated: a sum of a million
    /// independent terms is within 5.5 standard errors of its mean but for 4 in 100 million times;
    /// the seed is fixed.
    #[test]
    fn distances_have_their_mean() {
        const TIMES: u32 = 1_000_000;
        let mut chance = Chance::new(4096, 1);
        let sum: f64 = (0..TIMES).map(|_| chance.distance() as f64).sum();
        // Rounding down takes half a byte.
        let off = sum / f64::from(TIMES) + 0.5 - 4096.0;
        assert!(off.abs() < 5.5 * 4096.0 / 1000.0, "{off}");
    }

    #[test]
    fn estimates_have_no_bias() {
        const TIMES: u32 = 1_000_000;
        for size in [1, 100, 4096, 10_000, 100_000] {
            let mut chance = Chance::new(4096, 7);
            let mut limit = chance.distance();
            let mut estimate = 0.0;
            for _ in 0..TIMES {
                if size > limit {
                    estimate += chance.weight(size);
                    limit = chance.distance();
                } else {
                    limit -= size;
                }
            }
            // Of one block: variance w^2 p - 1 = w - 1.
            let deviation = (f64::from(TIMES) * (chance.weight(size) - 1.0)).sqrt();
            let off = (estimate - f64::from(TIMES)).abs();
            assert!(
                off <= 5.5 * deviation + 1e-6,
                "{size}: {off} of {deviation}"
            );
        }
    }

    #[test]
    fn with_a_mean_of_1_all_are_samples() {
        let mut chance = Chance::new(0, 3);
        assert_eq!((chance.distance(), chance.distance()), (0, 0));
        assert_eq!(chance.weight(1), 1.0);
        assert_eq!(Chance::new(u64::MAX, 0).mean(), Chance::MOST);
    }
}
