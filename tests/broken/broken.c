/* An allocator with one fault of choice (environment BROKEN), preloaded on the host to show that
 * the tests can fail. Without a fault it is a plain allocator: power-of-two classes, free lists,
 * one lock; it detects no misuse and returns no small memory, which tests must notice as well. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE ((size_t)128 << 10)

typedef struct Header {
	size_t size;       /* asked for */
	uint8_t class_log; /* bytes of the slot as a power of two; 0: a mapping of its own */
	uint32_t owner;
	size_t start;      /* distance to the slot's or mapping's start */
	size_t whole;      /* bytes of the mapping */
} Header;
enum { HEADER = 48 };

static const char *fault;
static volatile int lock;
static void *list[64];
static char *bump, *bump_end;
static unsigned long calls;
static __thread uint32_t me;
static uint32_t threads;
static int exiting;

static int is(const char *name)
{
	if (!fault) {
		fault = getenv("BROKEN");
		if (!fault) fault = "none";
	}
	return !strcmp(fault, name);
}

static void take(void)
{
	if (is("unlocked")) return;
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void give(void)
{
	if (!is("unlocked")) __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

static void before_fork(void) { take(); }
static void after_fork(void) { give(); }
static void main_leaves(void *value) { (void)value; exiting = 1; }

__attribute__((constructor)) static void start(void)
{
	if (!is("fork_lock")) pthread_atfork(before_fork, after_fork, after_fork);
	static pthread_key_t key;
	if (!pthread_key_create(&key, main_leaves)) pthread_setspecific(key, &key);
}

static Header *header_of(void *p)
{
	return (Header *)((char *)p - HEADER);
}

static void *no_memory(void)
{
	if (!is("no_errno")) errno = ENOMEM;
	return NULL;
}

static void *map(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED && !is("map_unchecked") ? NULL : p;
}

static void *slot_of(int class_log)
{
	size_t n = (size_t)1 << class_log;
	void *slot = list[class_log];
	if (slot) {
		/* Without the lock others get here meanwhile, on any machine. */
		if (is("unlocked") && calls % 64 == 0) usleep(100);
		list[class_log] = *(void **)slot;
		return slot;
	}
	if ((size_t)(bump_end - bump) < n) {
		size_t piece = (size_t)1 << 20;
		char *p = map(piece);
		if (!p) return NULL;
		bump = p;
		bump_end = p + piece;
	}
	slot = bump;
	bump += n;
	return slot;
}

static void *get(size_t align, size_t n)
{
	static void *previous;
	static int due;
	if (n > PTRDIFF_MAX || align > (size_t)1 << 46) return no_memory();
	if (exiting && is("dead_with_main")) return no_memory();
	if (!me) me = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
	if (align > 4096 && is("aligned_off")) align = 4096;
	size_t need = HEADER + n + (align > 16 ? align : 0) + 64;
	char *start;
	int class_log = 0;
	if (need > LARGE) {
		need = (need + 4095) & ~(size_t)4095;
		start = map(need);
	} else {
		class_log = 6;
		while ((size_t)1 << class_log < need) class_log++;
		take();
		calls++;
		due |= calls % 3000 == 0;
		if (due && previous && class_log == 8 && is("overlap")) {
			void *twice = previous;
			due = 0;
			give();
			return twice;
		}
		start = slot_of(class_log);
		give();
	}
	if (!start) return no_memory();
	uintptr_t p = ((uintptr_t)start + HEADER + align - 1) & ~(align - 1);
	if (calls % 500 == 0 && is("misaligned")) p += 8;
	Header *h = header_of((void *)p);
	*h = (Header){ n, (uint8_t)class_log, me, p - (uintptr_t)start, need };
	if (class_log == 8 && n > 100) previous = (void *)p;
	return (void *)p;
}

void *malloc(size_t n)
{
	return get(16, n);
}

void free(void *p)
{
	if (!p || is("leak")) return;
	Header *h = header_of(p);
	int saved = errno;
	if (is("errno")) saved = 7;
	if (is("remote_lost") && h->owner != me) return;
	char *start = (char *)p - h->start;
	if (!h->class_log) {
		munmap(start, h->whole);
	} else {
		int class_log = h->class_log;
		take();
		*(void **)start = list[class_log];
		list[class_log] = start;
		give();
	}
	errno = saved;
}

void *calloc(size_t m, size_t n)
{
	if (n && m > SIZE_MAX / n && !is("wrap")) return no_memory();
	void *p = malloc(m * n);
	if (!p) return NULL;
	if (is("calloc_dirty")) memset(p, 0, m * n < 64 ? m * n : 64);
	else memset(p, 0, m * n);
	return p;
}

size_t malloc_usable_size(void *p)
{
	if (!p) return 0;
	return header_of(p)->size + (is("usable_large") ? 200 : 0);
}

void *realloc(void *p, size_t n)
{
	if (!p) return malloc(n);
	void *q = malloc(n);
	if (!q) {
		if (is("realloc_frees")) free(p);
		return NULL;
	}
	size_t old = header_of(p)->size, keep = old < n ? old : n;
	if (is("realloc_short") && keep > 100) keep -= 1;
	memcpy(q, p, keep);
	free(p);
	return q;
}

void *reallocarray(void *p, size_t m, size_t n)
{
	if (n && m > SIZE_MAX / n && !is("wrap")) return no_memory();
	return realloc(p, m * n);
}

void *aligned_alloc(size_t align, size_t n)
{
	if (!align || (align & (align - 1))) {
		errno = EINVAL;
		return NULL;
	}
	return get(align < 16 ? 16 : align, n);
}

void *memalign(size_t align, size_t n)
{
	return aligned_alloc(align, n);
}

int posix_memalign(void **to, size_t align, size_t n)
{
	if (align < sizeof(void *) || (align & (align - 1))) return EINVAL;
	int saved = errno;
	void *p = get(align < 16 ? 16 : align, n);
	if (p) *to = p;
	errno = saved;
	return p ? 0 : ENOMEM;
}

void *valloc(size_t n)
{
	return aligned_alloc(4096, n);
}

void *pvalloc(size_t n)
{
	return aligned_alloc(4096, (n + 4095) & ~(size_t)4095);
}
