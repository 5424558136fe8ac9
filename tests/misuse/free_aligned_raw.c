/* Where an aligned allocation might begin underneath is freed, instead of what was returned. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	char *p[40];
	for (size_t i = 0; i < COUNT(p); i++) {
		CHECK(p[i] = aligned_alloc(1024, size));
		touch(p[i], 0x22);
	}
	arm(CALL);
	free(hide(p[20] - 16));
	finish();
}
