/* Exit handlers allocate and free, whoever runs them. Argument:
 * return:   main returns;
 * thread:   another thread calls exit;
 * last:     main leaves by pthread_exit, the last thread returns and runs the handlers;
 * detached: the same, with main ending last although others were there. */
#include "check.h"
#include <pthread.h>

enum { BLOCKS = 200 };
static unsigned char *of_main[BLOCKS], *of_thread[BLOCKS];
static pthread_t main_thread;

static void make(unsigned char **p)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		size_t n = i % 50 == 49 ? 200000 : i * 11;
		CHECK(p[i] = malloc(n));
		fill(p[i], n, i);
	}
}

static void drop(unsigned char **p)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		if (!p[i]) continue;
		VERIFY(p[i], i % 50 == 49 ? 200000 : i * 11, i);
		free(p[i]);
	}
}

static void handler(void)
{
	static unsigned char *mine[BLOCKS];
	for (int round = 0; round < 10; round++) {
		make(mine);
		drop(mine);
	}
	drop(of_main);
	drop(of_thread);
	for (int i = 0; i < 2000; i++) {
		char *p = malloc((size_t)i), *q = realloc(NULL, 50);
		CHECK(p && q);
		free(p);
		CHECK(q = realloc(q, 5000));
		free(q);
	}
	say_to(1, "handlers ran\n");
}

static void first_handler(void)
{
	free(malloc(300000));
}

static void *call_exit(void *nothing)
{
	(void)nothing;
	make(of_thread);
	exit(0);
}

static void *outlive_main(void *nothing)
{
	(void)nothing;
	make(of_thread);
	CHECK(!pthread_join(main_thread, NULL));
	free(malloc(100));
	return NULL;
}

static void *brief(void *nothing)
{
	(void)nothing;
	make(of_thread);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "return";
	pthread_t thread;
	main_thread = pthread_self();
	CHECK(!atexit(handler));
	CHECK(!atexit(first_handler));
	make(of_main);
	if (!strcmp(how, "return")) return 0;
	if (!strcmp(how, "thread")) {
		CHECK(!pthread_create(&thread, NULL, call_exit, NULL));
		for (;;) pause();
	}
	if (!strcmp(how, "last")) {
		CHECK(!pthread_create(&thread, NULL, outlive_main, NULL));
		pthread_exit(NULL);
	}
	CHECK(!pthread_create(&thread, NULL, brief, NULL));
	CHECK(!pthread_join(thread, NULL));
	CHECK(!pthread_create(&thread, NULL, brief, NULL));
	/* The same blocks again: those of the first thread are left behind. */
	CHECK(!pthread_detach(thread));
	usleep(50000);
	pthread_exit(NULL);
}
