/* Two threads free the same block at the same time; VARIANT 1: neither is the owner. */
#include "misuse.h"

static volatile int waiting;

static void *race(void *p)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&waiting, __ATOMIC_ACQUIRE) < 2)
		if (sysconf(_SC_NPROCESSORS_ONLN) < 2) sched_yield();
	free(p);
	return NULL;
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	pthread_t thread[2];
	int others = variant ? 2 : 1;
	arm(CALL);
	for (int i = 0; i < others; i++) CHECK(!pthread_create(&thread[i], NULL, race, hide(p)));
	if (others == 1) race(hide(p));
	for (int i = 0; i < others; i++) CHECK(!pthread_join(thread[i], NULL));
	finish();
}
