/* A block freed twice, with VARIANT random operations in between. If its address was given out again
 * the second free is of a live block; the trial says so and does nothing. */
#include "misuse.h"

static char *live[16];

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	Random random = random_from(report->trial + 1);
	free(hide(p));
	for (long i = 0; i < variant; i++) {
		size_t k = below(&random, COUNT(live)), n = below(&random, 4) ? random_size(&random) : size;
		free(live[k]);
		CHECK(live[k] = malloc(n));
	}
	for (size_t i = 0; i < COUNT(live); i++)
		if (live[i] == p) {
			saw(REUSED);
			leave();
		}
	arm(CALL);
	free(hide(p));
	finish();
}
