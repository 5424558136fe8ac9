/* Threads whose last uses of malloc come when libc has run their destructors of thread-specific data,
 * or in the last round of these: memory stays as it was after the first thousand.
 * thread_late strerror|dlerror|rounds|keys */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

enum { WAVES = 6, THREADS = 1000 };

static const char *what;
static pthread_key_t key;

/* Runs in every round of destructors there is, and allocates in each. */
static void each_round(void *value)
{
	char *again = malloc(300), *other = aligned_alloc(64, 500);
	CHECK(again && other);
	fill(again, 300, 1);
	VERIFY(again, 300, 1);
	free(value);
	free(other);
	if (pthread_setspecific(key, again)) free(again);
}

static void *work(void *nothing)
{
	(void)nothing;
	if (!strcmp(what, "strerror")) {
		/* glibc keeps the text until the thread has ended. */
		strerror(98765);
		strsignal(70);
	} else if (!strcmp(what, "dlerror")) {
#ifndef ON_STATIC
		CHECK(!dlopen("./no such library", RTLD_NOW));
#endif
	} else if (!strcmp(what, "rounds")) {
		CHECK(!pthread_setspecific(key, malloc(10)));
	} else {
		/* Beyond the 32nd key glibc's table of values is on the heap, and freed after all rounds. */
		CHECK(!pthread_setspecific(key, "not freed"));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	size_t after_first = 0;
	what = argc > 1 ? argv[1] : "strerror";
	if (!strcmp(what, "keys"))
		for (int i = 0; i < 60; i++) CHECK(!pthread_key_create(&key, NULL));
	else
		CHECK(!pthread_key_create(&key, each_round));
	for (int wave = 0; wave < WAVES; wave++) {
		for (int i = 0; i < THREADS; i++) {
			pthread_t thread;
			CHECK(!pthread_create(&thread, NULL, work, NULL));
			CHECK(!pthread_join(thread, NULL));
		}
		if (!wave) after_first = resident_bytes();
	}
	/* each_round leaves a block that nobody can free: the value of the last round. */
	size_t left = strcmp(what, "rounds") ? 0 : WAVES * THREADS * 450;
	size_t grown = over(resident_bytes(), after_first);
	/* The kernel counts pages of threads roughly. A heap each would be 50 MB. */
	CHECK2(grown < MB + left, grown, after_first);
	return 0;
}
