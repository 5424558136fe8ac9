//! Layer 3: where things lie, and what is written down about them.
//!
//! It offers the records of slots ([`record`]), their guards ([`guard`]), the state of a group
//! ([`group`]), live and free slots as values ([`slot`]), spans ([`span`]), chunks ([`chunk`]) of
//! a kind ([`kind`]) with their maps and bitmaps ([`bitmap`]), and where chunks are ([`pagemap`]).
//! Together they are the one way from a pointer to what it points at: pagemap → chunk's map →
//! group → record. It uses layers 1 and 2.

pub mod bitmap;
pub mod chunk;
pub mod group;
pub mod guard;
pub mod kind;
pub mod pagemap;
pub mod record;
pub mod slot;
pub mod span;
