/* Large blocks come and go: contents are right, and both memory and addresses stay in proportion
 * to what is live, though sizes shift. Freed mappings that are kept for reuse hold no more than
 * what was live at most (src/heap/pages/extent.rs: what was missed, which is less than what is
 * live). The hardened preset keeps none for reuse, but the addresses of 512 freed blocks
 * (large_delay), without memory: the last 256, and of those before them as many at random, which
 * may be half as long again as the last ones. */
#include "check.h"

enum { LIVE = 40, DELAY = 512 };
static struct { unsigned char *p; size_t n; } live[LIVE];
static size_t live_bytes, most_live;
/* Chunks of 4 MiB for records and small blocks, and what the libc itself maps. */
static const size_t OTHER = 16 * MB;

/* Bytes of the mappings of the last DELAY freed blocks. */
static size_t freed[DELAY], frees, freed_bytes;

/* Addresses that wait, in bytes, at most. */
static size_t waits(int hardened)
{
	return hardened ? freed_bytes / 2 * 3 : 0;
}

/* Frees a block and keeps the counts. Its mapping has a page for what is left of it, and hardened
 * 16 inaccessible pages before and behind it, at most. */
static void drop(size_t slot)
{
	if (!live[slot].p) return;
	size_t *oldest = &freed[frees++ % DELAY], page = page_bytes();
	live_bytes -= live[slot].n;
	freed_bytes -= *oldest;
	freed_bytes += *oldest = live[slot].n + 33 * page;
	free(live[slot].p);
	live[slot].p = NULL;
}

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
	int hardened = is_hardened();
	size_t mapped, resident, now_mapped, now_resident, waiting;
	free(malloc(10));
	read_statm(&mapped, &resident);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 6000; i++) {
			size_t slot = below(&r, LIVE);
			unsigned char *p = live[slot].p;
			if (p) verify(p, live[slot].n, slot);
			drop(slot);
			size_t n = 132000 + below(&r, below(&r, 10) ? 400000 : 6000000);
			int zero = below(&r, 6) == 0 && n < 600000;
			CHECK(p = zero ? calloc(1, n) : malloc(n));
			if (zero) CHECK(all_zero(p, n));
			/* Some blocks are dirty all over. */
			if (below(&r, 10) == 0) memset(p, 0xdd, n);
			mark(p, n, slot);
			live[slot].p = p;
			live[slot].n = n;
			live_bytes += n;
			if (live_bytes > most_live) most_live = live_bytes;
		}
		read_statm(&now_mapped, &now_resident);
		waiting = waits(hardened);
		CHECK2(over(now_mapped, mapped) < 2 * most_live + waiting + OTHER, now_mapped, waiting);
		CHECK2(over(now_resident, resident) < 2 * most_live + OTHER, now_resident, most_live);
		for (size_t slot = 0; slot < LIVE; slot++) {
			verify(live[slot].p, live[slot].n, slot);
			drop(slot);
		}
		read_statm(&now_mapped, &now_resident);
		waiting = waits(hardened);
		CHECK2(over(now_mapped, mapped) < waiting + OTHER, now_mapped, waiting);
		CHECK2(over(now_resident, resident) < OTHER, now_resident, resident);
	}
	return 0;
}
