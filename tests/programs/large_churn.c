/* Large blocks come and go: contents are right, a cache of freed mappings stays bounded, and
 * sizes that shift do not make the address space grow without end. */
#include "check.h"

enum { LIVE = 40 };
static struct { unsigned char *p; size_t n; } live[LIVE];

static void mark(unsigned char *p, size_t n, uint64_t seed)
{
	fill(p, 512, seed);
	fill(p + n / 2, 512, seed + 1);
	fill(p + n - 512, 512, seed + 2);
}

static void verify(unsigned char *p, size_t n, uint64_t seed)
{
	VERIFY(p, 512, seed);
	VERIFY(p + n / 2, 512, seed + 1);
	VERIFY(p + n - 512, 512, seed + 2);
}

int main(void)
{
	Random r = random_from(2);
	size_t mapped, resident, now_mapped, now_resident;
	free(malloc(10));
	read_statm(&mapped, &resident);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 6000; i++) {
			size_t slot = below(&r, LIVE);
			unsigned char *p = live[slot].p;
			if (p) verify(p, live[slot].n, slot);
			free(p);
			size_t n = 132000 + below(&r, below(&r, 10) ? 400000 : 6000000);
			int zero = below(&r, 6) == 0 && n < 600000;
			CHECK(p = zero ? calloc(1, n) : malloc(n));
			if (zero) CHECK(all_zero(p, n));
			/* Some blocks are dirty all over. */
			if (below(&r, 10) == 0) memset(p, 0xdd, n);
			mark(p, n, slot);
			live[slot].p = p;
			live[slot].n = n;
		}
		size_t live_bytes = 0;
		for (size_t slot = 0; slot < LIVE; slot++) live_bytes += live[slot].n;
		read_statm(&now_mapped, &now_resident);
		CHECK2(over(now_mapped, mapped) < 4 * live_bytes + 256 * MB, now_mapped, live_bytes);
		for (size_t slot = 0; slot < LIVE; slot++) {
			verify(live[slot].p, live[slot].n, slot);
			free(live[slot].p);
			live[slot].p = NULL;
		}
		read_statm(&now_mapped, &now_resident);
		CHECK2(over(now_resident, resident) < 40 * MB, now_resident, resident);
		CHECK2(over(now_mapped, mapped) < 256 * MB, now_mapped, mapped);
	}
	return 0;
}
