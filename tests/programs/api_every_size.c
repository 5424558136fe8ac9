/* Every size up to 20,000 and many up to 1.2 MB: aligned, separate, whole. */
#include "check.h"

enum { LIVE = 24 };
static struct { unsigned char *p; size_t n; } live[LIVE];
static size_t turn;

static void one(size_t n)
{
	size_t slot = turn++ % LIVE;
	if (live[slot].p) {
		VERIFY(live[slot].p, live[slot].n, live[slot].n);
		free(live[slot].p);
	}
	unsigned char *p = malloc(n);
	CHECK2(p, n, 0);
	CHECK2(aligned(p, 16), p, n);
	fill(p, n, n);
	live[slot].p = p;
	live[slot].n = n;
}

int main(void)
{
	for (size_t n = 0; n < 20000; n++) one(n);
	for (size_t n = 20000; n < 140000; n += 61) one(n);
	for (size_t n = 140000; n < 1200000; n += 11003) one(n);
	/* Around the boundaries that allocators like to have. */
	for (size_t edge = 64; edge <= 1 << 20; edge <<= 1)
		for (size_t n = edge - 40; n <= edge + 40; n += edge < 40000 ? 1 : 5) one(n);
	for (size_t slot = 0; slot < LIVE; slot++) {
		VERIFY(live[slot].p, live[slot].n, live[slot].n);
		free(live[slot].p);
	}
	return 0;
}
