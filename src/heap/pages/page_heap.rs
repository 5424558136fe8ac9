//! The page heap: what the lock protects of chunks and pages.

use crate::base::config::{CHUNK, RUN_PAGE, SPAN};
use crate::base::decay::Kept;
use crate::base::lock::Held;
use crate::base::platform::Platform;
use crate::base::random::{Generator, Secrets, GENERATORS};
use crate::layout::chunk::{Chunk, Header, MAP_END};
use crate::layout::pagemap::Pagemap;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

/// What everybody may use without the lock.
#[repr(C)]
pub struct System<P> {
    /// The system underneath. Its lock is written with what it protects, and lies next to it.
    pub platform: P,
    /// Canaries and seeds.
    pub secrets: Secrets,
    /// Where chunks are, or were: their maps stay, see `grow.rs`.
    pub pagemap: Pagemap,
}

/// Run pages of a span, which starts at a multiple of as many.
pub const SPAN_PAGES: usize = SPAN / RUN_PAGE;

/// A search for a run, of which the page heap remembers where to begin: its number.
#[derive(Clone, Copy)]
pub struct Search(pub usize);

impl Search {
    /// The longest run that has a search of its own, in run pages.
    const LONGEST: usize = 32;
    /// That for the place of a span.
    const SPAN: usize = Search::LONGEST + 1;
    /// How many there are, with that for no page.
    pub const COUNT: usize = Search::SPAN + 1;

    /// The one for the most that a run of `pages` at a multiple of `align` needs.
    pub fn of(pages: usize, align: usize) -> Search {
        if pages >= SPAN_PAGES && align >= SPAN_PAGES {
            return Search(Search::SPAN);
        }
        Search(pages.min(Search::LONGEST))
    }

    /// What it is for: pages, and their alignment.
    pub fn needs(self) -> (usize, usize) {
        if self.0 == Search::SPAN {
            (SPAN_PAGES, SPAN_PAGES)
        } else {
            (self.0, 1)
        }
    }
}

/// Unused mappings that are remembered when the system refuses to take them back.
const OWED: usize = 8;

/// Chunks and their pages. Whoever borrows it holds the lock.
pub struct PageHeap {
    /// Proof of that.
    pub held: Held,
    /// The first chunk, in the order of their making.
    pub chunks: Option<&'static Chunk>,
    /// The last one.
    pub last: Option<&'static Chunk>,
    /// By the number of a search: no chunk before this one has what it is for. Those for more pages
    /// begin no earlier.
    pub roomy: [Option<&'static Chunk>; Search::COUNT],
    /// Number of the last chunk in the order of their making.
    pub sequence: usize,
    /// Chunks that have memory without any use but header and map, and could give it back.
    pub idle_chunks: usize,
    /// Run pages in use.
    pub used_pages: usize,
    /// Free run pages that are not zero.
    pub dirty: Kept,
    /// Those that the system would not take back last time, or that share its pages.
    pub stuck_pages: usize,
    /// When what lay unused was looked at last, in milliseconds.
    pub decayed: u32,
    /// Unused mappings that the system refused to take back (start, length), and their number.
    owed: [(usize, usize); OWED],
    owed_count: usize,
    /// Whether the system had no memory for the last mapping, see `Pages::map_at`.
    pub no_memory: bool,
    /// Where the next chunk may go, see `Pages::next_window`; 0 before the first.
    pub next_window: usize,
    /// For choices under the lock, and the keys of the heaps' generators.
    pub generator: [Generator; GENERATORS],
    /// Where the mappings of large blocks begin, and where the next one ends at the highest, see
    /// `Pages::wish_apart`; 0 before the first.
    pub apart_top: usize,
    pub apart_next: usize,
    /// Memory for heaps and their tables, see `Pages::metadata`.
    pub pool: *mut u8,
    /// Bytes left there.
    pub pool_left: usize,
}

/// The page heap in the hands of the lock's holder, with the system underneath.
pub struct Pages<'a, P> {
    /// What needs no lock.
    pub system: &'a System<P>,
    /// What does.
    pub state: &'a mut PageHeap,
}

impl<P> Deref for Pages<'_, P> {
    type Target = PageHeap;
    fn deref(&self) -> &PageHeap {
        self.state
    }
}

impl<P> DerefMut for Pages<'_, P> {
    fn deref_mut(&mut self) -> &mut PageHeap {
        self.state
    }
}

/// A run of pages in a chunk.
#[derive(Clone, Copy)]
pub struct Run {
    /// The chunk.
    pub chunk: &'static Chunk,
    /// First run page in the chunk.
    pub page: usize,
    /// Number of run pages.
    pub pages: usize,
    /// Whether all bytes are zero.
    pub fresh: bool,
}

impl Run {
    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.chunk.at(self.page * RUN_PAGE)
    }
}

impl PageHeap {
    /// What the lock protects of a chunk.
    #[inline(always)]
    pub fn header(&self, chunk: &'static Chunk) -> &'static Header {
        chunk.header(&self.held)
    }

    /// The chunks, in the order of their making.
    #[cfg(any(test, feature = "model", feature = "dump", feature = "stats"))]
    pub fn each_chunk(&self) -> impl Iterator<Item = &'static Chunk> + '_ {
        core::iter::successors(self.chunks, |chunk| self.header(chunk).next.get())
    }

    /// So many dirty pages are in use or gone.
    pub fn forget_dirty(&mut self, pages: usize) {
        self.dirty.sub(pages);
        self.dirty.note_least();
        self.stuck_pages = self.stuck_pages.min(self.dirty.amount());
    }

    /// A chunk has a free run of `pages` that was not there before.
    pub fn found_room(&mut self, chunk: &'static Chunk, pages: usize) {
        let sequence = |chunk: &'static Chunk| chunk.header(&self.held).sequence.get();
        let later = |roomy: Option<&'static Chunk>| {
            roomy.is_none_or(|roomy| sequence(roomy) > sequence(chunk))
        };
        let [lengths @ .., span] = &mut self.roomy;
        for roomy in lengths.iter_mut().take(pages + 1).rev() {
            if !later(*roomy) {
                // Nor do those for fewer pages begin later.
                break;
            }
            *roomy = Some(chunk);
        }
        if pages >= SPAN_PAGES && later(*span) {
            *span = Some(chunk);
        }
    }

    /// Has searches that begin at a chunk without room begin behind it: this one, and those for
    /// more.
    pub fn pass(&mut self, search: Search, chunk: &'static Chunk) {
        let header = chunk.header(&self.held);
        let is_first =
            |roomy: Option<&'static Chunk>| roomy.is_some_and(|first| ptr::eq(first, chunk));
        if !is_first(self.roomy[search.0]) {
            return;
        }
        for (number, roomy) in self.roomy.iter_mut().enumerate().skip(search.0) {
            let (pages, align) = Search(number).needs();
            if is_first(*roomy) && !header.may_have(pages, align) {
                *roomy = header.next.get();
            }
        }
    }

    /// No more bytes than these could come back by giving up all pages that are kept.
    pub fn retained(&self) -> usize {
        (self.used_pages + self.dirty.amount()) * RUN_PAGE + self.idle_chunks * CHUNK
    }
}

impl<'a, P: Platform> Pages<'a, P> {
    /// The system underneath.
    pub fn platform(&self) -> &'a P {
        &self.system.platform
    }

    /// Draws the secrets, once: before the first heap is attached or the first large block made.
    #[cold]
    #[inline(never)]
    pub fn draw_secrets(&mut self) {
        let random = || match self.generator.first() {
            Some(generator) => generator.draw(self.platform()),
            None => self.platform().random(),
        };
        self.system.secrets.draw(&self.held, random);
    }

    /// A random number below `bound`, which is at most 65536. Nobody can foretell it in presets
    /// with generators.
    pub fn choose(&self, bound: usize) -> usize {
        match self.generator.first() {
            Some(generator) => generator.below(bound, self.platform()),
            None => ((self.system.secrets.random(&self.held) >> 48) as usize * bound) >> 16,
        }
    }

    /// Whether nothing of the chunk is in use, and it has memory to give back.
    pub fn is_idle(&self, chunk: &'static Chunk) -> bool {
        let header = self.header(chunk);
        let cells = header.cells_open.get() as usize;
        header.used_pages.get() == 0
            && header.cells.get() == 0
            && !header.stays.get()
            && (header.open > header.data || cells >= MAP_END + self.platform().page_size())
    }

    /// Whether `count` refused `give_back`s could be remembered: asked before whatever may need
    /// them. Where the system takes nothing back, little is asked of it.
    pub fn may_owe(&mut self, count: usize) -> bool {
        if self.owed_count + count > OWED {
            self.retry_owed();
        }
        self.owed_count + count <= OWED
    }

    /// Unmaps [at, at+len), for which `may_owe` said yes. If the system refuses (at its limit of
    /// mappings, say) it is offered again later.
    ///
    /// # Safety
    /// The range came from `map` or `remap`, and nothing uses it any more.
    pub unsafe fn give_back(&mut self, at: NonNull<u8>, len: usize) {
        // SAFETY: the caller gives the range up.
        if !unsafe { self.platform().unmap(at, len) } {
            let last = self.owed_count;
            self.owed[last] = (at.as_ptr().expose_provenance(), len);
            self.owed_count += 1;
        }
    }

    /// Offers the system again what it refused to take back.
    pub fn retry_owed(&mut self) {
        while self.owed_count > 0 {
            let (at, len) = self.owed[self.owed_count - 1];
            let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(at)) else {
                return;
            };
            // SAFETY: what is owed is a mapping of ours that nothing uses.
            if !unsafe { self.platform().unmap(at, len) } {
                return;
            }
            self.owed_count -= 1;
        }
    }
}
