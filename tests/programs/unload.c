/* What brings byssal is closed by dlclose while threads that used it live on, and exit later, and
 * while blocks of it live: a plugin with libbyssal.a inside, or libbyssal.so itself. Again and again,
 * with a fork in between. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>

enum { THREADS = 4, ROUNDS = 10 };

static void *(*get)(size_t);
static void (*drop)(void *);
static pthread_barrier_t barrier;

static void *work(void *number)
{
	size_t n = 40 * (size_t)number + 7;
	unsigned char *p = get(n), *q = get(200000);
	CHECK(p && q);
	fill(p, n, n);
	drop(q);
	pthread_barrier_wait(&barrier);
	/* Closed. */
	pthread_barrier_wait(&barrier);
	VERIFY(p, n, n);
	return p;
}

int main(int argc, char **argv)
{
	int plugin = argc > 1 && !strcmp(argv[1], "plugin");
	const char *path = plugin ? "./libunloaded.so" : LIBBYSSAL;
	CHECK(!pthread_barrier_init(&barrier, NULL, THREADS + 1));
	for (int round = 0; round < ROUNDS; round++) {
		void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (!handle) say_to(2, dlerror());
		CHECK(handle);
		*(void **)&get = dlsym(handle, plugin ? "plugin_malloc" : "malloc");
		*(void **)&drop = dlsym(handle, plugin ? "plugin_free" : "free");
		CHECK(get && drop);
		pthread_t thread[THREADS];
		for (size_t i = 0; i < THREADS; i++)
			CHECK(!pthread_create(&thread[i], NULL, work, (void *)i));
		pthread_barrier_wait(&barrier);
		drop(get(50));
		CHECK(!dlclose(handle));
		pthread_barrier_wait(&barrier);
		for (size_t i = 0; i < THREADS; i++) {
			void *p;
			CHECK(!pthread_join(thread[i], &p));
			drop(p);
		}
		int status;
		pid_t child = fork();
		CHECK(child >= 0);
		if (!child) {
			drop(get(100));
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK2(!status, status, round);
	}
	return 0;
}
