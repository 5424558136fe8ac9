/* Its first thread ends; another one loses a block of 100 bytes each millisecond, so many in all.
 *
 *     alone BLOCKS
 */
#include "../programs/check.h"
#include <pthread.h>

static void *work(void *argument)
{
	/* Without a free, musl puts its bump allocator into a static program. */
	free(malloc(1));
	CHECK(write(1, "ready\n", 6) == 6);
	for (int i = 0; i < atoi(argument); i++) {
		void *volatile block = malloc(100);
		CHECK(block);
		usleep(1000);
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	CHECK(argc > 1);
	free(malloc(1));
	CHECK(pthread_create(&thread, 0, work, argv[1]) == 0);
	pthread_exit(0);
}
