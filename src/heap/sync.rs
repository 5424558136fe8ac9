//! Atomics from `core`, or from `loom` when the models run. Switched here and nowhere else.

#[cfg(not(loom))]
pub use core::sync::atomic::{fence, AtomicPtr, AtomicU16, AtomicU32, AtomicU8, AtomicUsize};

#[cfg(loom)]
pub use loom::sync::atomic::{fence, AtomicPtr, AtomicU16, AtomicU32, AtomicU8, AtomicUsize};

pub use core::sync::atomic::Ordering;
