/* Blocks cross between a program and an object that it loads and unloads, alone and with threads
 * around; the object's thread-local storage is made late, by the libc's own allocations. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static int unloads;

typedef void *Make(size_t, uint64_t);
typedef void Drop(void *, size_t, uint64_t);

static void *thread_work(void *handle)
{
	Make *make = (Make *)dlsym(handle, "plugin_make");
	Drop *drop = (Drop *)dlsym(handle, "plugin_drop");
	CHECK(make && drop);
	for (size_t i = 0; i < 3000; i++) {
		size_t n = i * 7 % 5000;
		unsigned char *p = make(n, i), *q = malloc(n);
		CHECK(q);
		fill(q, n, i + 1);
		VERIFY(p, n, i);
		free(p);
		drop(q, n, i + 1);
	}
	return NULL;
}

int main(void)
{
	for (int round = 0; round < 20; round++) {
		char failing[60];
		snprintf(failing, sizeof failing, "./libmissing%d.so", round);
		CHECK(!dlopen(failing, RTLD_NOW));
		CHECK(dlerror());
		void *handle = dlopen("./libplugin.so", round % 2 ? RTLD_NOW : RTLD_LAZY);
		if (!handle) {
			say_to(2, dlerror());
			CHECK(handle);
		}
		int **counter = dlsym(handle, "plugin_counter");
		CHECK(counter);
		*counter = &unloads;
		pthread_t thread[4];
		size_t threads = round % 2 ? COUNT(thread) : 0;
		for (size_t i = 0; i < threads; i++)
			CHECK(!pthread_create(&thread[i], NULL, thread_work, handle));
		thread_work(handle);
		for (size_t i = 0; i < threads; i++) CHECK(!pthread_join(thread[i], NULL));
		CHECK(!dlsym(handle, "no_such_name"));
		CHECK(!dlclose(handle));
#ifdef __GLIBC__
		/* musl never unloads: there the destructor runs once, at exit. */
		CHECK2(unloads == round + 1, unloads, round);
#endif
	}
	return 0;
}
