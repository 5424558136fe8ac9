/* A byte of text is written past the end, and the process ends; nothing looks at the block until
 * then. VARIANT 0: it is live, the main thread's; 1: live, of a thread that still is; 2: freed by
 * that thread; 3: freed by its thread, which has ended; 4: freed, and another thread calls exit. */
#include "misuse.h"

static volatile int done;

static void overflow(char *p)
{
	arm(ACCESS);
	((char *)hide(p))[size] = 'A';
	at(EXIT);
}

static void *work(void *unused)
{
	char *p = malloc(size);
	CHECK(p);
	touch(p, 0x11);
	overflow(p);
	if (variant >= 2) free(hide(p));
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
	while (variant < 3) pause();
	return unused;
}

static void *end(void *unused)
{
	(void)unused;
	exit(0);
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	pthread_t thread;
	if (variant == 0 || variant == 4) {
		overflow(p);
		if (!variant) exit(0);
		free(hide(p));
		CHECK(!pthread_create(&thread, NULL, end, NULL));
		pause();
	}
	CHECK(!pthread_create(&thread, NULL, work, NULL));
	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) usleep(50);
	if (variant == 3) CHECK(!pthread_join(thread, NULL));
	exit(0);
}
