/* Loses a block of 100 bytes each millisecond, for so many of them, then ends. */
#include "../programs/check.h"
#include <stdio.h>

int main(int argc, char **argv)
{
	CHECK(argc > 1);
	CHECK(write(1, "ready\n", 6) == 6);
	for (int i = 0; i < atoi(argv[1]); i++) {
		void *volatile block = malloc(100);
		CHECK(block);
		usleep(1000);
	}
}
