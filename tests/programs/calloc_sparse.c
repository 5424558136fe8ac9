/* calloc of 256 MB touches next to nothing, also after such memory was dirty. */
#include "check.h"

#define N (256 * MB)

int main(void)
{
	for (int round = 0; round < 3; round++) {
		size_t start = resident_bytes();
		unsigned char *p = calloc(N / 16, 16);
		CHECK(p);
		size_t used = over(resident_bytes(), start);
		CHECK2(used < MB, used, round);
		for (size_t i = 0; i < N; i += N / 97) {
			CHECK(p[i] == 0);
			p[i] = 1;
		}
		used = over(resident_bytes(), start);
		CHECK2(used < MB + 100 * page_bytes(), used, round);
		if (round == 1) memset(p, 0x55, 20 * MB);
		free(p);
		/* A smaller one in between, dirty. */
		CHECK(p = malloc(20 * MB));
		memset(p, 0xaa, 20 * MB);
		free(p);
		CHECK(p = calloc(1, 20 * MB));
		CHECK(all_zero(p, 20 * MB));
		free(p);
	}
	/* One of 1 MB each, many times: mostly untouched. */
	size_t start = resident_bytes();
	unsigned char *many[100];
	for (size_t i = 0; i < COUNT(many); i++) {
		CHECK(many[i] = calloc(1, MB));
		many[i][i * 1000] = 1;
	}
	/* A cached dirty mapping or two may have been cleared by hand. */
	size_t used = over(resident_bytes(), start);
	CHECK2(used < 40 * MB, used, 0);
	for (size_t i = 0; i < COUNT(many); i++) free(many[i]);
	return 0;
}
