/* A block freed by another thread, then by its owner. */
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
	pthread_t thread;
	CHECK(!pthread_create(&thread, NULL, release, hide(p)));
	CHECK(!pthread_join(thread, NULL));
	arm();
	free(hide(p));
	return 0;
}
