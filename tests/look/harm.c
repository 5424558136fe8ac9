/* One misuse, then the end by byssal's trap.
 *
 *     harm overflow BYTES | large BYTES | twice | inside | wild
 */
#include "../programs/check.h"
#include <stdio.h>

static void *hide(void *volatile p)
{
	return p;
}

enum { BLOCKS = 64 };

static int has(char **blocks, char *block)
{
	for (int i = 0; i < BLOCKS; i++)
		if (blocks[i] == block) return 1;
	return 0;
}

/* A block with three others behind it at equal steps: they lie in one group, in any preset's order,
 * so that a reader can follow what was written over them. */
static char *before_three(char **blocks)
{
	for (int i = 0; i < BLOCKS; i++)
		for (int step = 1; step <= 128; step++) {
			char *block = blocks[i];
			int behind = 1;
			while (behind <= 3 && has(blocks, block + behind * step)) behind++;
			if (behind > 3) return block;
		}
	CHECK(!"a block with three others behind it");
	return 0;
}

int main(int argc, char **argv)
{
	char *blocks[BLOCKS];
	CHECK(argc > 1);
	size_t more = argc > 2 ? (size_t)atoi(argv[2]) : 0;
	for (int i = 0; i < BLOCKS; i++) CHECK(blocks[i] = malloc(100));
	char *block = before_three(blocks);
	size_t size = 100;
	if (!strcmp(argv[1], "large")) CHECK(block = malloc(size = 300000));
	printf("at %p\n", (void *)block);
	fflush(stdout);
	if (!strcmp(argv[1], "twice")) free(hide(block));
	if (!strcmp(argv[1], "inside")) block += 16;
	if (!strcmp(argv[1], "wild")) block = (char *)&argc;
	if (more) memset(hide(block), 'A', size + more);
	free(hide(block));
	/* Where the check comes at the slot's reuse. */
	for (int i = 0; i < 1000; i++) free(hide(malloc(100)));
}
