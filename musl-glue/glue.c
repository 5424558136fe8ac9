/* What byssal needs from musl's inside: pages, lock, thread state, randomness, errno.
 * Compiled within the musl tree, as src/malloc/byssal/glue.c. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "atomic.h"
#include "libc.h"
#include "lock.h"
#include "pthread_impl.h"
#include "syscall.h"
#include "glue.h"
#include "core.h" /* refuses a machine without a core; BYSSAL_CHOOSES */

/* The core takes the page for a constant on these, see src/abi/src/musl.rs. */
#if defined(__x86_64__) || defined(__i386__) || defined(__s390x__)
_Static_assert(PAGESIZE == 4096, "the core was made for pages of 4096 bytes");
#endif

static volatile int lock[1];

static void *map(void *addr, size_t len, int prot, int flags)
{
	int saved = errno;
	void *p = __mmap(addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	errno = saved;
	return p == MAP_FAILED ? 0 : p;
}

void *__byssal_map(void *hint, size_t len)
{
	return map(hint, len, PROT_READ | PROT_WRITE, 0);
}

/* A new mapping in the old one's place, not mprotect: filters that let mallocng work know it. */
int __byssal_close(void *addr, size_t len)
{
	return !map(addr, len, PROT_NONE, MAP_FIXED);
}

int __byssal_unmap(void *addr, size_t len)
{
	int saved = errno;
	int result = __munmap(addr, len);
	errno = saved;
	return result;
}

/* The rest by system calls: libc's functions would only set errno. (Its munmap waits for others.) */

int __byssal_purge(void *addr, size_t len)
{
	return __syscall(SYS_madvise, addr, len, MADV_DONTNEED);
}

void *__byssal_remap(void *addr, size_t old_len, size_t new_len)
{
	unsigned long p = __syscall(SYS_mremap, addr, old_len, new_len, MREMAP_MAYMOVE);
	return p > -4096ul ? 0 : (void *)p;
}

size_t __byssal_break(size_t want)
{
	return (size_t)__syscall(SYS_brk, want);
}

size_t __byssal_page_size(void)
{
	return PAGE_SIZE;
}

int __byssal_random(unsigned char *out)
{
	size_t *aux = libc.auxv;
	if (!aux) return 0;
	for (; aux[0]; aux += 2) {
		if (aux[0] != AT_RANDOM) continue;
		if (!aux[1]) return 0;
		memcpy(out, (void *)aux[1], 16);
		return 1;
	}
	return 0;
}

#ifdef BYSSAL_CHOOSES
int __byssal_entropy(unsigned char *out)
{
	enum { NONBLOCK = 1 };
	return __syscall(SYS_getrandom, out, 32, NONBLOCK) == 32;
}
#endif

unsigned __byssal_thread_number(void)
{
	return __pthread_self()->tid;
}

void __byssal_lock(void)
{
	LOCK(lock);
}

/* As musl's __lock (src/thread/__lock.c) at its first try: held, and one that uses it. */
int __byssal_try_lock(void)
{
	return !libc.need_locks || !a_cas(lock, 0, INT_MIN + 1);
}

void __byssal_unlock(void)
{
	UNLOCK(lock);
}

void __byssal_reset_lock(void)
{
	lock[0] = 0;
}

int __byssal_threaded(void)
{
	return libc.need_locks != 0;
}

/* By libc's own function: it asks the vdso first, which no filter of system calls sees. Where a
 * filter refuses the call behind it, each question counts as 10 ms. */
unsigned __byssal_clock(void)
{
	static volatile int refusals;
	struct timespec now;
	int saved = errno;
	int refused = __clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	errno = saved;
	if (refused) return 10u * (unsigned)a_fetch_add(&refusals, 1);
	return (unsigned)now.tv_sec * 1000u + (unsigned)now.tv_nsec / 1000000u;
}

int *__byssal_errno(void)
{
	return &errno;
}
