/* A few blocks of every size class, cold: the first blocks of all classes must not cost a page or
 * more each, and all stay apart. */
#include "check.h"

enum { MOST = 1200, EACH = 3 };
static struct { unsigned char *p; size_t n; } block[MOST * EACH];

int main(void)
{
	/* Touch the table first, so that it does not count. */
	memset(block, 0, sizeof block);
	size_t start = resident_bytes(), count = 0, bytes = 0;
	for (size_t n = 1; n < 9000; n += 1 + n / 16) {
		for (int i = 0; i < EACH; i++) {
			CHECK(count < COUNT(block));
			block[count].n = n;
			CHECK(block[count].p = malloc(n));
			fill(block[count].p, n, count);
			bytes += n;
			count++;
		}
	}
	size_t used = over(resident_bytes(), start);
	CHECK2(used < 2 * bytes + MB, used, bytes);
	for (size_t i = 0; i < count; i++) VERIFY(block[i].p, block[i].n, i);
	/* Free one of each, then allocate others into the holes. */
	for (size_t i = 0; i < count; i += EACH) free(block[i].p);
	for (size_t i = 0; i < count; i += EACH) {
		block[i].n = block[i].n * 9 / 10;
		CHECK(block[i].p = malloc(block[i].n));
		fill(block[i].p, block[i].n, i + 1000000);
	}
	for (size_t i = 0; i < count; i++)
		VERIFY(block[i].p, block[i].n, i % EACH ? i : i + 1000000);
	for (size_t i = 0; i < count; i++) free(block[(i * 7919) % count].p);
	return 0;
}
