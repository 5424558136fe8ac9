//! Memory of another program: of a process that runs, or in a core.

use crate::error::Result;

/// Bits of an address, of any machine.
pub const ADDRESS_BITS: u32 = 52;

/// A range of addresses that a program may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its first address.
    pub start: u64,
    /// The first one behind it.
    pub end: u64,
    /// Whether it is a file's, so that variables of programs and libraries may lie there.
    pub is_file: bool,
}

/// A thread, as its own system numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its number, in the innermost namespace.
    pub number: u32,
    /// Its name; a core has none.
    pub name: String,
    /// Whether it is the one that the process began with.
    pub is_first: bool,
}

/// A program whose memory can be read.
pub trait Memory {
    /// Reads the bytes from `at` on, as far as there are any: how many.
    fn read(&self, at: u64, into: &mut [u8]) -> usize;

    /// What the program may write, those of files first.
    ///
    /// # Errors
    /// When it is gone.
    fn regions(&self) -> Result<Vec<Region>>;

    /// Its threads.
    fn threads(&self) -> Vec<Thread>;

    /// What it is, for people.
    fn name(&self) -> String;

    /// The signal that ended it, if one did.
    fn signal(&self) -> Option<i32> {
        None
    }

    /// So many bytes from `at` on; None if there are fewer.
    fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        (self.read(at, &mut bytes) == len).then_some(bytes)
    }
}
