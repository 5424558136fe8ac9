//! A span: a run of 64 granules that a heap cuts into small groups.

use crate::layout::group::Group;
use crate::layout::kind::Kind;
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{compiler_fence, Ordering};

/// The state of a span, in a cell. All of it belongs to the owner, and to whoever has the lock when
/// the owner was orphaned by a fork.
#[repr(C, align(64))]
pub struct Span {
    /// The next one in the heap's list of spans with room, a circle; None outside.
    pub next: Cell<Option<&'static Span>>,
    /// The one before it in that list; None outside.
    pub prev: Cell<Option<&'static Span>>,
    /// Granules that belong to groups.
    pub used: Cell<u64>,
    /// Granules that were ever used since their pages were zero.
    pub dirty: Cell<u64>,
    /// Its reserve: free cells of the chunk for groups that come.
    pub cells: Cell<Option<&'static Group>>,
    /// First granule of the span in its chunk. Fixed.
    pub base: Cell<u16>,
    /// Number of the owning heap. Fixed.
    pub owner: Cell<u16>,
    /// What its chunk is for. Fixed.
    pub kind: Cell<Kind>,
    /// Whether it stands in the heap's list.
    pub listed: Cell<bool>,
    /// Length of `cells`.
    pub spare: Cell<u8>,
    /// The bytes left of the cell. Without a field they would be padding, which nobody may write
    /// while a function has a reference to the span, as one does that returns its cell.
    rest: Cell<MaybeUninit<[u8; 64 - 3 * size_of::<usize>() - 23]>>,
}

impl Span {
    /// Makes a span without groups and without a reserve of a cell that is the caller's.
    pub fn write(cell: &'static Group, base: u16, owner: u16, kind: Kind) -> &'static Span {
        // SAFETY: a cell has 64 bytes and is aligned to them, nobody uses it as a group until it
        // is returned, and all of the span is written before it is looked at.
        unsafe {
            let at = core::ptr::from_ref(cell).cast_mut().cast::<Span>();
            at.write(Span {
                next: Cell::new(None),
                prev: Cell::new(None),
                used: Cell::new(0),
                dirty: Cell::new(0),
                cells: Cell::new(None),
                base: Cell::new(base),
                owner: Cell::new(owner),
                kind: Cell::new(kind),
                listed: Cell::new(false),
                spare: Cell::new(0),
                rest: Cell::new(MaybeUninit::uninit()),
            });
            &*at
        }
    }

    /// Takes the first cell of the reserve out of it: the map leads to it now. The child of a fork
    /// must find each cell in the map or in the reserve: hence the order, see `heap/orphans.rs`.
    pub fn pop(&self) {
        compiler_fence(Ordering::SeqCst);
        self.cells.set(self.cells.get().and_then(Group::next));
        compiler_fence(Ordering::SeqCst);
        // What a fork left behind may count one too few.
        self.spare.set(self.spare.get().wrapping_sub(1));
    }

    /// Puts the cell of a group that goes, which is in no list, into the reserve: the map does not
    /// lead to it for long.
    #[inline(always)]
    pub fn push(&self, cell: &'static Group) {
        cell.set_next(self.cells.get());
        compiler_fence(Ordering::SeqCst);
        self.cells.set(Some(cell));
        compiler_fence(Ordering::SeqCst);
        self.spare.set(self.spare.get().wrapping_add(1));
    }

    /// Whether `cell` is in the reserve.
    pub fn has_spare(&self, cell: &Group) -> bool {
        let mut spare = self.cells.get();
        while let Some(here) = spare {
            if core::ptr::eq(here, cell) {
                return true;
            }
            spare = here.next();
        }
        false
    }
}

const _: () = assert!(size_of::<Span>() == size_of::<Group>());
