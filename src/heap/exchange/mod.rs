//! Layer 2: the protocols by which heaps exchange freed slots and heaps change their threads.
//!
//! It offers, generic over groups and heaps so that the models of `loom_models.rs` run what ships:
//!
//! - [`mailbox`]: frees by threads that do not own the group, and who may work on a heap;
//! - [`deferred`]: what a thread freed of other heaps and has not sent yet;
//! - [`abandoned`]: heaps whose threads ended, until another thread reclaims them.
//!
//! It uses layer 1 (`base`) only.

pub mod abandoned;
pub mod deferred;
pub mod mailbox;
