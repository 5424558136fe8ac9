/* argv[1] pairs of malloc and free of argv[2] bytes (64), or of mixed sizes in random order if that
 * is no number. For counting instructions: two runs, their difference, divided. */
#include <stdlib.h>

int main(int argc, char **argv)
{
	static char *kept[64];
	long count = argc > 1 ? atol(argv[1]) : 0;
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
	unsigned seed = 1;
	if (!size) {
		for (long i = 0; i < count; i++) {
			seed = seed * 1103515245 + 12345;
			unsigned place = seed >> 26;
			free(kept[place]);
			kept[place] = malloc(1 + (seed >> 12) % 1024);
			*kept[place] = 1;
		}
	} else {
		for (long i = 0; i < count; i++) {
			char *volatile block = malloc(size);
			*block = 1;
			free(block);
		}
	}
	return 0;
}
