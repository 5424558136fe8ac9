//! Medians, spreads and geometric means. The arithmetic is statrs's; here stands what is taken.

use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, Max, Min, OrderStatistics, Statistics};

/// The middle of some samples, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Quartiles; with few samples they are close to the extremes.
    pub low: f64,
    pub high: f64,
}

/// `None` without samples.
pub fn summary(samples: &[f64]) -> Option<Summary> {
    if samples.is_empty() {
        return None;
    }
    let mut data = Data::new(samples.to_vec());
    Some(Summary {
        median: data.median(),
        min: data.min(),
        max: data.max(),
        low: data.lower_quartile(),
        high: data.upper_quartile(),
    })
}

pub fn median(samples: &[f64]) -> Option<f64> {
    summary(samples).map(|s| s.median)
}

/// Of positive values; what is not positive (a time too short to be seen) is left out by the
/// caller, who says so.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().geometric_mean())
}

/// Whether the ranges of two sets of samples lie apart: then the change is not noise alone.
pub fn apart(a: &Summary, b: &Summary) -> bool {
    a.max < b.min || b.max < a.min
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        let s = summary(&[3.0, 1.0, 100.0]).expect("three samples");
        assert_eq!((s.median, s.min, s.max), (3.0, 1.0, 100.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn one_sample_is_its_own_spread() {
        let s = summary(&[7.0]).expect("a sample");
        assert_eq!((s.low, s.median, s.high), (7.0, 7.0, 7.0));
    }

    #[test]
    fn twice_and_half_cancel_out() {
        let mean = geometric_mean(&[2.0, 0.5]).expect("two values");
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn ranges_that_touch_are_not_apart() {
        let range = |a, b| summary(&[a, b]).expect("two samples");
        assert!(apart(&range(1.0, 2.0), &range(2.5, 3.0)));
        assert!(!apart(&range(1.0, 2.0), &range(2.0, 3.0)));
    }
}
