//! byssal's heap.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod config;
#[cfg(not(loom))]
pub mod fault;
pub mod sync;
pub mod remote;

#[cfg(not(loom))]
mod aligned;
#[cfg(not(loom))]
mod alloc;
#[cfg(not(loom))]
mod chunk;
#[cfg(not(loom))]
mod donate;
#[cfg(not(loom))]
mod free;
#[cfg(not(loom))]
mod group;
#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
mod large;
#[cfg(not(loom))]
mod meta;
#[cfg(not(loom))]
mod nest;
#[cfg(not(loom))]
pub mod pages;
#[cfg(not(loom))]
mod pointer;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod provider;
#[cfg(not(loom))]
mod refill;
#[cfg(not(loom))]
mod resize;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
pub mod size_class;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod thread;

#[cfg(all(test, not(loom)))]
mod mock;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, loom))]
mod loom_models;
