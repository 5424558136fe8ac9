/* What the synthetic programs share: a random sequence of their own, blocks that carry what they
 * should hold, and what each prints: a checksum, which must be the same under every allocator,
 * and how many operations (pairs of malloc and free, or calls) it did. */
#ifndef BENCH_H
#define BENCH_H

#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last member of what a thread writes, in an array with that of others: no cache line, and no
 * pair of lines that processors fetch together, has parts of two threads'. Otherwise the time would
 * tell where the array happened to lie. */
#define APART char apart[128]

static inline void fail(const char *what)
{
	fprintf(stderr, "wrong: %s\n", what);
	exit(1);
}

/* A linear congruential generator whose upper bits are mixed: short, and the same everywhere. */
static inline uint32_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((*state ^ *state >> 22) >> 29);
}

static inline uint32_t below(uint64_t *state, uint32_t limit)
{
	return (uint32_t)((uint64_t)draw(state) * limit >> 32);
}

/* Sizes whose logarithm is evenly spread between those of low and high; high is at least low. */
static inline size_t log_size(uint64_t *state, size_t low, size_t high)
{
	unsigned steps = 0;
	while (low << (steps + 1) <= high) steps++;
	size_t base = low << below(state, steps + 1);
	size_t room = base < high - base ? base : high - base;
	return base + below(state, (uint32_t)room + 1);
}

static inline uint64_t mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
	return sum ^ sum >> 32;
}

static inline void *checked(void *p)
{
	if (!p) fail("out of memory");
	return p;
}

/* A block knows its size and tag, and ends in a byte of the tag. At least 8 bytes. */
struct block {
	uint32_t size, tag;
};

static inline struct block *block_mark(void *p, size_t size, uint32_t tag)
{
	struct block *b = checked(p);
	b->size = (uint32_t)size;
	b->tag = tag;
	if (size > sizeof *b) ((uint8_t *)b)[size - 1] = (uint8_t)tag;
	return b;
}

static inline struct block *block_new(size_t size, uint32_t tag)
{
	return block_mark(malloc(size), size, tag);
}

/* The tag of a block whose end still fits it. */
static inline uint32_t block_tag(const struct block *b)
{
	if (b->size > sizeof *b && ((const uint8_t *)b)[b->size - 1] != (uint8_t)b->tag)
		fail("a block's end");
	return b->tag;
}

static inline uint32_t block_free(struct block *b)
{
	uint32_t tag = block_tag(b);
	free(b);
	return tag;
}

static inline long argument(int argc, char **argv, int index, long fallback)
{
	return argc > index ? strtol(argv[index], NULL, 10) : fallback;
}

/* Runs body in threads 0..count-1, each given its own item of an array; waits for all. */
static inline void in_threads(int count, void *(*body)(void *), void *items, size_t item)
{
	pthread_t *threads = checked(malloc(sizeof *threads * (size_t)count));
	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, body, (char *)items + item * (size_t)i))
			fail("pthread_create");
	for (int i = 0; i < count; i++)
		if (pthread_join(threads[i], NULL)) fail("pthread_join");
	free(threads);
}

static inline int report(const char *name, uint64_t checksum, uint64_t operations)
{
	printf("%s checksum=%016" PRIx64 "\nops=%" PRIu64 "\n", name, checksum, operations);
	return fflush(stdout) ? 1 : 0;
}

#endif
