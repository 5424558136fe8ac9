/* A small process that has done its work: allocates argv[1] blocks of mixed sizes to 1024 bytes and writes
 * all of each, frees argv[2] of them in another order, tells that by a line, and waits until its input
 * ends. Uses no stdio, which would allocate. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 10000, STEP = 7919 };

int main(int argc, char **argv)
{
	static char *blocks[MOST];
	if (argc != 3) return 2;
	unsigned count = atoi(argv[1]), freed = atoi(argv[2]), seed = 1;
	if (count > MOST || freed > count) return 2;
	for (unsigned i = 0; i < count; i++) {
		seed = seed * 1103515245 + 12345;
		size_t size = 1 + (seed >> 16) % 1024;
		blocks[i] = malloc(size);
		if (!blocks[i]) return 1;
		memset(blocks[i], 1, size);
	}
	/* A prime that divides no count: each block once. */
	for (unsigned i = 0; i < freed; i++) free(blocks[(unsigned long long)i * STEP % count]);
	write(1, "\n", 1);
	char end;
	return read(0, &end, 1) < 0;
}
