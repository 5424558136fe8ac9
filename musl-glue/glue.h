/* The contract between the Rust core of byssal and musl, in both directions.
 *
 * Everything here has hidden visibility: nothing of it is seen outside libc.
 * The Rust view of this header is src/abi/src/glue_bindings.rs (made by bindgen, committed,
 * proved current by `make check`). The list of global names is musl-glue/exports.txt.
 */
#ifndef BYSSAL_GLUE_H
#define BYSSAL_GLUE_H

#include <stddef.h>

/* bindgen leaves out what is hidden, hence the way round. */
#ifndef BYSSAL_BINDGEN
#pragma GCC visibility push(hidden)
#endif

/* ---- Core to musl: defined in Rust, called by musl ------------------------------------- */

/* Strong definitions of what src/malloc of musl 1.2.2 and later expects. */
void *__libc_malloc_impl(size_t n);
void __libc_free(void *p);
void *__libc_realloc(void *p, size_t n);

/* 1 when the block p, fresh from malloc in this thread, is known to be all zero. */
int __malloc_allzerop(void *p);

/* Around fork, only called while the process is threaded: -1 before, 0 parent, 1 child. */
void __malloc_atfork(int who);

/* Called by an exiting thread, with signals blocked, after its TSD destructors. */
void __malloc_thread_exit(void);

/* Called by exit after all handlers that the program registered, before destructors. */
void __malloc_process_exit(void);

/* ---- Core to the thin C members (each an object of its own) ------------- */

/* aligned_alloc without the question whether malloc was replaced. Sets errno on failure. */
void *__byssal_aligned_alloc(size_t align, size_t n);

/* Bytes usable at p, at least the size asked for; traps when p is not a live block. */
size_t __byssal_usable_size(void *p);

/* ---- Glue to core: defined in glue.c, called by Rust ------------------------------------ */

/* Private anonymous memory of len bytes; NULL on failure. hint is a wish, not an order. */
void *__byssal_map(void *hint, size_t len);

/* 0 on success, another number otherwise, for all of these; errno stays. */
int __byssal_unmap(void *addr, size_t len);
/* Contents may go: the next read of these pages gives zeros. */
int __byssal_purge(void *addr, size_t len);
/* Makes these pages inaccessible; contents go. */
int __byssal_close(void *addr, size_t len);

/* mremap, which may move; NULL on failure. */
void *__byssal_remap(void *addr, size_t old_len, size_t new_len);

/* The program break: __byssal_break(0) tells it; otherwise tries to move it to want.
 * Returns the break that holds afterwards. */
size_t __byssal_break(size_t want);

/* Page size in bytes. */
size_t __byssal_page_size(void);

/* Sixteen bytes from the kernel's AT_RANDOM into out; 0 when there is none. */
int __byssal_random(unsigned char *out);

/* 32 bytes that the kernel draws for this call into out, without waiting; 0 when it refuses. */
int __byssal_entropy(unsigned char *out);

/* The calling thread's number, which is another one in the child of a fork. */
unsigned __byssal_thread_number(void);

/* musl's own lock; does nothing while the process has a single thread. */
void __byssal_lock(void);
/* 1 if it took the lock, or need not; 0 when somebody has it. */
int __byssal_try_lock(void);
void __byssal_unlock(void);
/* After fork, in the child: the lock is free again. */
void __byssal_reset_lock(void);

/* 1 while other threads can exist, 0 while there is only this one. */
int __byssal_threaded(void);

/* Milliseconds of a clock that only goes on, coarse to a few of them. Where the system refuses to
 * tell the time, each question counts as some milliseconds. */
unsigned __byssal_clock(void);

/* Address of this thread's errno. */
int *__byssal_errno(void);

#ifndef BYSSAL_BINDGEN
#pragma GCC visibility pop
#endif

#endif
