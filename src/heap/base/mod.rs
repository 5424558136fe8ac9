//! Layer 1: what everything else stands on.
//!
//! It offers the knobs ([`config`]), the named faults and the one way to stop ([`fault`]), atomics
//! of `core` or of `loom` ([`sync`]), a lock ([`lock`]), the system as a contract ([`platform`]),
//! when what is kept for later goes back ([`decay`]), random numbers ([`random`]), the size classes
//! ([`size_class`]), values that begin as zero memory ([`zeroed`]), and where fields lie ([`places`]).
//! It uses nothing but `core`.

pub mod config;
#[cfg(not(loom))]
pub mod decay;
#[cfg(not(loom))]
pub mod fault;
pub mod lock;
pub mod places;
#[cfg(not(loom))]
pub mod platform;
#[cfg(not(loom))]
pub mod random;
#[cfg(not(loom))]
pub mod size_class;
pub mod sync;
pub mod zeroed;
