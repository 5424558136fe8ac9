/* What a process keeps after a peak. Allocates a small live set, then about 250 MiB of blocks of
 * 16 bytes to 1 MiB, frees them (all, or 99 of 100 if argv[1] is "scattered"), works for a second
 * on a thousand small blocks, and prints in KiB: live, resident at the peak, resident at the end,
 * freed; the faults of the second come along. Live are the blocks and what the program was before
 * the first of them: its tables (2.5 MiB, touched first), code and libraries. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 160000, LIVE = 4000, SMALL = 1000 };
static char *blocks[BLOCKS], *live[LIVE], *small[SMALL];
static size_t sizes[BLOCKS], small_sizes[SMALL];
static unsigned seed = 1;

static unsigned next(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 8;
}

static size_t size(void)
{
	unsigned kind = next() % 1000;
	if (kind < 900) return 16 + next() % 1008;
	if (kind < 999) return 1024 + next() % 8192;
	return 65536 + next() % (1 << 20);
}

static char *get(size_t n)
{
	char *p = malloc(n);
	if (!p) exit(2);
	memset(p, 1, n);
	return p;
}

static long resident(void)
{
	char text[128] = { 0 };
	int fd = open("/proc/self/statm", O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) exit(3);
	close(fd);
	char *second = strchr(text, ' ');
	return strtol(second, 0, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	int scattered = argc > 1 && !strcmp(argv[1], "scattered");
	/* Through a pointer that the compiler does not see through: the pages must be there. */
	char *volatile tables[] = { (char *)blocks, (char *)sizes, (char *)live, (char *)small };
	size_t lengths[] = { sizeof blocks, sizeof sizes, sizeof live, sizeof small };
	for (int i = 0; i < 4; i++) memset(tables[i], 0, lengths[i]);
	size_t kept = (size_t)resident() * 1024, freed = 0;
	for (int i = 0; i < LIVE; i++) {
		size_t n = 16 + next() % 1008;
		live[i] = get(n);
		kept += n;
	}
	for (int i = 0; i < BLOCKS; i++) blocks[i] = get(sizes[i] = size());
	long peak = resident();
	for (int i = 0; i < BLOCKS; i++) {
		if (scattered && i % 100 == 0) {
			kept += sizes[i];
			continue;
		}
		free(blocks[i]);
		freed += sizes[i];
	}
	for (double end = now() + 1; now() < end;) {
		for (int i = 0; i < 1000; i++) {
			unsigned place = next() % SMALL;
			free(small[place]);
			kept -= small_sizes[place];
			kept += small_sizes[place] = 16 + next() % 240;
			small[place] = get(small_sizes[place]);
		}
	}
	printf("%zu %ld %ld %zu\n", kept / 1024, peak, resident(), freed / 1024);
	return 0;
}
