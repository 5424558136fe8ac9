/* A process that allocates little pays little. (Pages of the libc's file that the first call brings
 * in are not counted: they are shared.) */
#include "check.h"

int main(void)
{
	size_t start = private_bytes();
	char *p = malloc(100);
	CHECK(p);
	memset(p, 1, 100);
	free(p);
	size_t one = over(private_bytes(), start);
	CHECK2(one <= 80 * KB + 4 * page_bytes(), one, start);
	static void *block[1000];
	memset(block, 0, sizeof block);
	size_t before = private_bytes(), bytes = 0;
	Random r = random_from(6);
	for (size_t i = 0; i < COUNT(block); i++) {
		size_t n = below(&r, below(&r, 20) ? 300 : 3000);
		CHECK(block[i] = malloc(n));
		fill(block[i], n, i);
		bytes += n;
	}
	size_t used = over(private_bytes(), before);
	CHECK2(used < bytes * 3 / 2 + 256 * KB, used, bytes);
	for (size_t i = 0; i < COUNT(block); i++) free(block[i]);
	return 0;
}
