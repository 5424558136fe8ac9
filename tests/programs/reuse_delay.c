/* A freed slot is not handed out at once: the next block of the size lies elsewhere. */
#include "check.h"

int main(void)
{
	for (size_t n = 1; n <= 2000; n += 1 + n / 8) {
		/* A warm class: some live neighbours. */
		void *live[40];
		for (size_t i = 0; i < COUNT(live); i++) CHECK(live[i] = malloc(n));
		size_t same = 0;
		for (int i = 0; i < 400; i++) {
			char *p = malloc(n);
			CHECK(p);
			uintptr_t address = (uintptr_t)p;
			free(p);
			char *q = malloc(n);
			CHECK(q);
			same += (uintptr_t)q == address;
			free(q);
		}
		CHECK2(same == 0, n, same);
		for (size_t i = 0; i < COUNT(live); i++) free(live[i]);
	}
	return 0;
}
