//! Layer 5: the heap of a thread, and what heaps share.
//!
//! It offers [`heap::Heaps`], which has all heaps of a process, and [`heap::MyHeap`], the right to
//! work on one, with what its owner does: take slots and put blocks into them ([`take`]), put freed
//! slots back ([`put_back`]), refill a class ([`refill`]) from queues of groups ([`class`]), from
//! other threads' frees ([`remote`], [`aside`]) and from new groups ([`groups`]) in spans ([`spans`]); give
//! back what lies idle ([`idle`], [`rest`]); look at what is free ([`sweep`]), and at the queues of
//! others at exit ([`exit`]); and
//! what a fork left without a thread ([`orphans`]).
//! It uses layers 1 to 4.

mod aside;
pub mod class;
mod exit;
pub mod groups;
#[allow(clippy::module_inception)]
pub mod heap;
pub mod idle;
pub mod orphans;
pub mod put_back;
mod refill;
pub mod remote;
pub mod rest;
pub mod spans;
mod sweep;
pub mod take;
