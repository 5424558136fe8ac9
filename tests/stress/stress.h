/* What the stress programs share: blocks that tell who made them, a pool through which threads hand
 * them to each other, and the bound on what is left in memory when all of them are freed. */
#ifndef STRESS_H
#define STRESS_H

#include "../programs/check.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MOST_THREADS = 256, POOL = 4096 };

/* ---- Blocks ------------------------------------------------------------------------------ */

/* Stands at the start of each block; the rest is the pattern of the seed. Whoever frees a block
 * verifies all of it. */
typedef struct {
	uint64_t seed, sum;
	uint32_t owner, n;
} Block;

static atomic_size_t live_bytes, peak_bytes;
static atomic_ulong made, freed, freed_by_others;

static MAYBE_UNUSED uint64_t sum_of(const Block *b)
{
	return mix(b->seed ^ mix(b->owner) ^ mix((uint64_t)b->n << 32) ^ (uintptr_t)b);
}

/* Most blocks are small; now and then a large one if `large` says so. */
static MAYBE_UNUSED Block *make_block(uint32_t owner, Random *r, int large)
{
	size_t n = large ? random_size(r) : below(r, 8) ? below(r, 500) : below(r, 8000);
	n += sizeof(Block);
	int kind = (int)below(r, 16);
	Block *b = kind == 0 ? calloc(1, n) : kind == 1 ? aligned_alloc(64, n) : malloc(n);
	CHECK(b);
	if (kind == 0) CHECK(all_zero(b, n));
	if (kind == 2) CHECK(b = realloc(b, n = n + n / 2));
	b->seed = next_random(r);
	b->owner = owner;
	b->n = (uint32_t)n;
	b->sum = sum_of(b);
	fill(b + 1, n - sizeof *b, b->seed);
	size_t live = atomic_fetch_add_explicit(&live_bytes, n, memory_order_relaxed) + n;
	size_t peak = atomic_load_explicit(&peak_bytes, memory_order_relaxed);
	while (live > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, live)) {}
	atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
	return b;
}

static MAYBE_UNUSED void verify_block(const Block *b)
{
	CHECK2(b->sum == sum_of(b), b->owner, b->n);
	VERIFY(b + 1, b->n - sizeof *b, b->seed);
}

static MAYBE_UNUSED void free_block(Block *b, uint32_t me)
{
	if (!b) return;
	verify_block(b);
	CHECK(malloc_usable_size(b) >= b->n);
	atomic_fetch_sub_explicit(&live_bytes, b->n, memory_order_relaxed);
	atomic_fetch_add_explicit(&freed, 1, memory_order_relaxed);
	if (b->owner != me) atomic_fetch_add_explicit(&freed_by_others, 1, memory_order_relaxed);
	/* Nobody may find it valid again. */
	b->sum = ~b->sum;
	free(b);
}

/* ---- The pool: a block is in it only while it is whole ------------------------------------ */

static _Atomic(Block *) pool[POOL];

static MAYBE_UNUSED Block *swap_in(Random *r, Block *b)
{
	return atomic_exchange(&pool[below(r, POOL)], b);
}

static MAYBE_UNUSED void drain_pool(uint32_t me, size_t from, size_t step)
{
	for (size_t i = from; i < POOL; i += step) free_block(atomic_exchange(&pool[i], NULL), me);
}

/* ---- Threads ----------------------------------------------------------------------------- */

/* Small stacks: 256 threads must fit anywhere. */
static MAYBE_UNUSED void start_thread(pthread_t *thread, void *(*run)(void *), uintptr_t number)
{
	pthread_attr_t attributes;
	CHECK(!pthread_attr_init(&attributes));
	CHECK(!pthread_attr_setstacksize(&attributes, 128 * KB));
	CHECK(!pthread_create(thread, &attributes, run, (void *)number));
	CHECK(!pthread_attr_destroy(&attributes));
}

/* ---- Footprint --------------------------------------------------------------------------- */

static size_t start_bytes;
/* For tests of these tests, on an allocator that gives nothing back: last argument "unbounded". */
static int unbounded;

/* What may stay in memory once every block is freed and every thread but this one has gone, above
 * what there was at the start. From src/heap/base/config.rs and the bound in src/heap/lib.rs:
 *   large blocks: cache 1 MiB; pages not yet given back: 512 KiB, once a purge is due;
 *   this thread's heap: free slots of 8 KiB and more 512 KiB; of shorter classes the current group
 *   and one kept empty group each, 2 * sum of 32 (16) strides, below 2 MiB;
 *   each other heap: its struct, below 16 KiB, as it is abandoned; and the libc's, which may keep
 *   the stack of a thread that has gone: 48 KiB;
 *   state of groups: at most 1/8 of what their slots held at the peak (64 bytes for 512). */
static MAYBE_UNUSED size_t bound_at_rest(size_t threads)
{
	return 4 * MB + threads * 64 * KB + atomic_load(&peak_bytes) / 8;
}

static MAYBE_UNUSED void say_field(char *line, size_t most, const char *name, uint64_t value)
{
	append(line, most, " ");
	append(line, most, name);
	append(line, most, "=");
	append_number(line, most, value);
}

/* Prints the counts, and checks them and the footprint. */
static MAYBE_UNUSED void at_rest(const char *program, size_t threads)
{
	let_pages_go();
	size_t left = over(private_bytes(), start_bytes), bound = bound_at_rest(threads);
	char line[400] = "";
#if defined ON_MUSL && defined ON_STATIC
	append(line, sizeof line, "musl-static ");
#elif defined ON_MUSL
	append(line, sizeof line, "musl-dynamic ");
#else
	append(line, sizeof line, "preload ");
#endif
	append(line, sizeof line, program);
	say_field(line, sizeof line, "threads", threads);
	say_field(line, sizeof line, "blocks", atomic_load(&made));
	say_field(line, sizeof line, "freed_by_others", atomic_load(&freed_by_others));
	say_field(line, sizeof line, "peak", atomic_load(&peak_bytes));
	say_field(line, sizeof line, "left", left);
	say_field(line, sizeof line, "bound", bound);
	append(line, sizeof line, "\n");
	say_to(1, line);
	CHECK2(atomic_load(&made) == atomic_load(&freed), atomic_load(&made), atomic_load(&freed));
	CHECK(atomic_load(&live_bytes) == 0);
	CHECK2(left <= bound || unbounded, left, bound);
}

/* Argument `index` as a number. */
static MAYBE_UNUSED size_t number_argument(int argc, char **argv, int index)
{
	CHECK2(argc > index, argc, index);
	return strtoul(argv[index], NULL, 10);
}

static MAYBE_UNUSED size_t threads_argument(int argc, char **argv)
{
	size_t threads = number_argument(argc, argv, 1);
	CHECK(threads >= 1 && threads <= MOST_THREADS);
	unbounded = !strcmp(argv[argc - 1], "unbounded");
	start_bytes = private_bytes();
	return threads;
}

#endif
