/* A freed slot is not handed out at once while others of its class are free. (With a single free
 * slot in the class, it is taken again rather than growing the heap.) */
#include "check.h"

int main(void)
{
	for (size_t n = 1; n <= 2000; n += 1 + n / 8) {
		/* A warm class: some live neighbours. */
		void *live[40];
		for (size_t i = 0; i < COUNT(live); i++) CHECK(live[i] = malloc(n));
		for (size_t i = 0; i < COUNT(live); i += 4) {
			free(live[i]);
			live[i] = NULL;
		}
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
		/* Now and then the last available slot is the one that was just freed. */
		CHECK2(same <= 130, n, same);
		for (size_t i = 0; i < COUNT(live); i++) free(live[i]);
	}
	return 0;
}
