//! What the allocator asks of the system: pages, a lock, the thread's heap, randomness, errno.
//!
//! One implementation for musl, one for the libraries (both in `src/abi`), one for tests.

use core::ptr::NonNull;

/// The system under the heap.
///
/// # Safety
/// Memory given by `map` must be private to the caller, zero, and stay until `unmap`. `lock` must
/// exclude other threads and order memory, or may do nothing while there is a single thread.
/// `heap_field` must be per thread and start as zero in each thread.
pub unsafe trait Platform: Sync {
    /// Bytes behind the program break that are left to whoever moves it.
    const BREAK_ROOM: usize;

    /// Whether calls that few programs make often have short ways of their own, too, for more text.
    const SHORTCUTS: bool = true;

    /// Size of the system's page in bytes, a power of two of at least 4096.
    fn page_size(&self) -> usize;

    /// Fresh zero memory of `len` bytes (a multiple of the page size), at `hint` if that is free
    /// and elsewhere otherwise. None when the system has no more.
    fn map(&self, hint: usize, len: usize) -> Option<NonNull<u8>>;

    /// Gives [at, at+len) back. False when the system refuses (it may, at its limit of mappings):
    /// then the memory is as before.
    ///
    /// # Safety
    /// The range came from `map` or `remap` and nothing uses it any more.
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> bool;

    /// Gives the physical pages of [at, at+len) back; the next read sees zeros. False: contents
    /// are as before.
    ///
    /// # Safety
    /// The range came from `map` or the break, and its contents are not needed.
    unsafe fn purge(&self, at: NonNull<u8>, len: usize) -> bool;

    /// Makes [at, at+len) inaccessible; the contents go. False: all is as before.
    ///
    /// # Safety
    /// The range came from `map` or the break, and nobody uses it.
    unsafe fn close(&self, at: NonNull<u8>, len: usize) -> bool;

    /// Resizes a mapping, keeping its contents, and moves it if need be. None: unchanged.
    ///
    /// # Safety
    /// [at, at+old) is one mapping from `map`; after success only the new place is valid.
    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>>;

    /// The end of the program's data segment; 0 where there is none.
    fn program_break(&self) -> usize;

    /// Moves the break up to `to`. False: it stays, as it always does where others move it.
    fn move_break(&self, to: usize) -> bool;

    /// Sixteen unpredictable bytes, fixed for the life of the process; weaker ones if the system
    /// gives none.
    fn random(&self) -> [u64; 2];

    /// 32 bytes that the kernel draws for this call alone. None where it refuses, or has not
    /// gathered enough yet.
    fn entropy(&self) -> Option<[u64; 4]>;

    /// A number that the child of a fork does not have in common with the thread that it was forked
    /// from, in a process that `after_fork_child` may not be called in; 0 where it always is.
    fn thread_number(&self) -> u32;

    /// The system's number of the calling thread, for people who look at a heap. That of a thread
    /// that forked may be its child's, too.
    fn thread_id(&self) -> u32 {
        self.thread_number()
    }

    /// Milliseconds of a clock that only goes on, coarse to a few of them; wraps around. Where the
    /// system refuses to tell the time, each question counts as some milliseconds: what waits for
    /// time to go by must not wait for ever. It may leap once, when the refusals begin.
    fn clock(&self) -> u32;

    /// Takes the one lock under the heaps.
    fn lock(&self);

    /// Takes it if nobody has it. Whether it did.
    fn try_lock(&self) -> bool;

    /// Releases it.
    fn unlock(&self);

    /// In the child of a fork: nobody holds the lock.
    ///
    /// # Safety
    /// Only one thread exists.
    unsafe fn reset_lock(&self);

    /// Whether other threads may exist.
    fn threaded(&self) -> bool;

    /// The word that this thread keeps for the allocator; zero in a new thread.
    fn heap_field(&self) -> usize;

    /// The sum of `base` and that word, wrapping: some systems form it in one instruction.
    #[inline(always)]
    fn add_heap_field(&self, base: usize) -> usize {
        base.wrapping_add(self.heap_field())
    }

    /// Sets that word.
    fn set_heap_field(&self, value: usize);

    /// Sees to it that `Allocator::thread_exit` runs in this thread's last moments. False: it is
    /// too late for that, or the system refuses.
    fn tell_exit(&self) -> bool;

    /// Whether a thread without a heap is to get one, because it frees the blocks of others again
    /// and again and is not in its last moments.
    fn frees_often(&self) -> bool;

    /// Called once, when the process gets its first heap: the platform sees to it that
    /// `Allocator::process_exit` runs when the program ends by exit.
    fn first_heap(&self);

    /// Sets errno to ENOMEM.
    fn out_of_memory(&self);
}
