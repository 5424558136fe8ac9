//! Kinds of chunks: what may lie beside what.

use crate::base::config::PRESET;

/// What a chunk is for: groups of one class, where the preset keeps them apart, or anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// Anything that is no group of a class kept apart.
    pub const COMMON: Kind = Kind(0);

    /// For groups of a class.
    pub fn of_class(class: usize) -> Kind {
        if PRESET.classes_apart {
            Kind(class as u8 + 1)
        } else {
            Kind::COMMON
        }
    }

    /// Whether what is of one kind may lie with what is of the other.
    #[inline(always)]
    pub fn suits(self, other: Kind) -> bool {
        !PRESET.classes_apart || self == other
    }
}
