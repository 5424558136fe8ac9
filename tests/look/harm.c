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

int main(int argc, char **argv)
{
	char *blocks[64];
	CHECK(argc > 1);
	size_t more = argc > 2 ? (size_t)atoi(argv[2]) : 0;
	for (int i = 0; i < 64; i++) CHECK(blocks[i] = malloc(100));
	char *block = blocks[20];
	if (!strcmp(argv[1], "large")) CHECK(block = malloc(300000));
	size_t size = block == blocks[20] ? 100 : 300000;
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
