//! Programs that were not written for this benchmark, running work of their own.

use crate::catalogue::Real;

/// All of them.
pub fn programs() -> Vec<Real> {
    Vec::new()
}
