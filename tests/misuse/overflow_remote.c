/* One byte past the end; another thread frees the block, the owner goes on. */
#include "misuse.h"
#include <pthread.h>

static void *release(void *p)
{
	free(p);
	return NULL;
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = malloc_usable_size(p);
	pthread_t thread;
	arm();
	((char *)hide(p))[n] = 0x40; /* even: differs from every guard */
	CHECK(!pthread_create(&thread, NULL, release, p));
	CHECK(!pthread_join(thread, NULL));
	more_frees();
	return 0;
}
