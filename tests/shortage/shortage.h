/* What the workloads of tests/shortage share: blocks that verify themselves, the marks between
 * which inject.c refuses calls, and what must be so when memory is back. */
#include "../programs/check.h"
#include <sys/syscall.h>

/* Begin (1) and end (0) of what may fail; inject.c watches for the address. */
static void mark(int armed, size_t nulls)
{
	int saved = errno;
	syscall(SYS_madvise, 0x5ca1ab1e000, nulls, armed);
	errno = saved;
}

enum { MOST = 2000 };
typedef struct { unsigned char *p; size_t n; uint64_t seed; } Block;
static Block block[MOST];
static size_t count;
static size_t nulls;
static size_t mapped_before;

/* The result of an allocation: kept, or null with ENOMEM. */
static MAYBE_UNUSED void keep(Block *b, void *p, size_t n, uint64_t seed)
{
	b->p = p;
	b->n = n;
	b->seed = seed;
	if (p) {
		fill(p, n, seed);
		return;
	}
	CHECK2(errno == ENOMEM, n, errno);
	__atomic_fetch_add(&nulls, 1, __ATOMIC_RELAXED);
}

static MAYBE_UNUSED void take(size_t n)
{
	CHECK(count < MOST);
	errno = 0;
	int zero = count % 5 == 0;
	void *p = zero ? calloc(1, n) : malloc(n);
	if (p && zero) CHECK(all_zero(p, n));
	keep(&block[count], p, n, count);
	if (p) count++;
}

static MAYBE_UNUSED void take_aligned(size_t align, size_t n)
{
	CHECK(count < MOST);
	errno = 0;
	void *p = aligned_alloc(align, n);
	CHECK(aligned(p, align));
	keep(&block[count], p, n, count);
	if (p) count++;
}

static MAYBE_UNUSED void drop(size_t i)
{
	if (!count) return;
	Block *b = &block[i % count];
	VERIFY(b->p, b->n, b->seed);
	errno = 4321;
	free(b->p);
	CHECK2(errno == 4321, b->n, errno);
	*b = block[--count];
}

static MAYBE_UNUSED void resize(size_t i, size_t n)
{
	if (!count) return;
	Block *b = &block[i % count];
	errno = 0;
	unsigned char *p = realloc(b->p, n);
	if (!p) {
		CHECK2(errno == ENOMEM, n, errno);
		__atomic_fetch_add(&nulls, 1, __ATOMIC_RELAXED);
		VERIFY(b->p, b->n, b->seed);
		return;
	}
	VERIFY(p, n < b->n ? n : b->n, b->seed);
	b->p = p;
	b->n = n;
	fill(p, n, b->seed);
}

static MAYBE_UNUSED void begin(void)
{
	memset(block, 0, sizeof block);
	mapped_before = mapped_bytes();
	mark(1, 0);
}

/* Memory is back: live blocks are whole, every size can be had, and what is freed goes back but
 * for a few chunks. */
static MAYBE_UNUSED void end(void)
{
	mark(0, nulls);
	for (size_t i = 0; i < count; i++) VERIFY(block[i].p, block[i].n, block[i].seed);
	size_t before = nulls;
	for (size_t n = 1; n < 3 * MB; n += n / 3 + 1) take(n);
	take_aligned(64, 1000);
	take_aligned(65536, 100000);
	CHECK2(nulls == before, nulls, before);
	while (count) drop(count / 2);
	for (int i = 0; i < 4; i++) {
		take(300 * KB);
		drop(0);
	}
	CHECK2(over(mapped_bytes(), mapped_before) < 24 * MB, mapped_bytes(), mapped_before);
}
