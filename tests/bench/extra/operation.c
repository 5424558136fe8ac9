/* argv[1] times the operation argv[2], of blocks of argv[3] bytes. For counting instructions: two runs,
 * their difference, divided. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 500, LIST = 2000, STEPS = 128 };

/* Where each block is written down: the compiler must make it. */
static void *volatile seen;

static void usable(long count, size_t size)
{
	void *block = malloc(size);
	for (long i = 0; i < count; i++) seen = (void *)malloc_usable_size(block);
}

/* To sizes of one class, to and fro. */
static void resize(long count, size_t size)
{
	void *block = malloc(size);
	for (long i = 0; i < count; i++) seen = block = realloc(block, size - i % 4);
}

/* By 16 bytes at a time. */
static void grow(long count, size_t size)
{
	(void)size;
	for (long i = 0; i < count; i++) {
		char *block = NULL;
		for (size_t n = 1; n <= STEPS; n++) seen = block = realloc(block, 16 * n);
		free(block);
	}
}

static void clear(long count, size_t size)
{
	for (long i = 0; i < count; i++) free(seen = calloc(1, size));
}

static void align(long count, size_t size)
{
	for (long i = 0; i < count; i++) free(seen = aligned_alloc(64, size));
}

static void nothing(long count, size_t size)
{
	(void)size;
	seen = NULL;
	for (long i = 0; i < count; i++) free(seen);
}

static void batch(long count, size_t size)
{
	static void *blocks[BATCH];
	for (long i = 0; i < count; i++) {
		for (int n = 0; n < BATCH; n++) blocks[n] = malloc(size);
		for (int n = 0; n < BATCH; n++) free(blocks[n]);
	}
}

/* Blocks of 16 to 127 bytes, the last one first. */
static void list(long count, size_t size)
{
	(void)size;
	for (long i = 0; i < count; i++) {
		void **head = NULL;
		for (size_t n = 0; n < LIST; n++) {
			void **block = malloc(16 + n * 11 % 112);
			*block = head;
			head = block;
		}
		while (head) {
			void **next = *head;
			free(head);
			head = next;
		}
	}
}

static const struct {
	const char *name;
	void (*run)(long, size_t);
} operations[] = {
	{"usable", usable}, {"resize", resize}, {"grow", grow}, {"calloc", clear},
	{"aligned", align}, {"null", nothing}, {"batch", batch}, {"list", list},
};

int main(int argc, char **argv)
{
	if (argc < 4) return 2;
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (!strcmp(argv[2], operations[i].name)) {
			operations[i].run(atol(argv[1]), strtoul(argv[3], NULL, 10));
			return 0;
		}
	return 2;
}
