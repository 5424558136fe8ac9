/* Which malloc serves this program, and does it work? Prints the file that each function of the
 * family comes from (dynamic programs; "static" else), after a short test with threads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what)
{
	fprintf(stderr, "probe: %s\n", what);
	exit(1);
}

static void *work(void *argument)
{
	unsigned char *kept[256] = { 0 };
	size_t sizes[256] = { 0 };
	unsigned seed = (unsigned)(uintptr_t)argument;
	for (int i = 0; i < 20000; i++) {
		seed = seed * 1103515245 + 12345;
		unsigned place = (seed >> 8) % 256;
		size_t n = 1 + (seed >> 16) % (i % 64 ? 500 : 60000);
		if (kept[place] && (kept[place][0] != place || kept[place][sizes[place] - 1] != place))
			die("a block does not hold what was written");
		if (i & 1) {
			free(kept[place]);
			kept[place] = malloc(n);
		} else {
			kept[place] = realloc(kept[place], n);
		}
		if (!kept[place]) die("no memory");
		memset(kept[place], place, n);
		sizes[place] = n;
	}
	for (int i = 0; i < 256; i++) free(kept[i]);
	return 0;
}

static void short_test(void)
{
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		if (pthread_create(threads + i, 0, work, (void *)(i + 1))) die("no thread");
	for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
	char *zero = calloc(1000, 33);
	for (int i = 0; i < 33000; i++)
		if (zero[i]) die("calloc gave what is not zero");
	free(zero);
	void *aligned = 0;
	if (posix_memalign(&aligned, 4096, 100) || (uintptr_t)aligned % 4096) die("posix_memalign");
	free(aligned);
	aligned = aligned_alloc(64, 128);
	if (!aligned || (uintptr_t)aligned % 64) die("aligned_alloc");
	if (malloc_usable_size(aligned) < 128) die("malloc_usable_size");
	free(aligned);
}

int main(void)
{
	short_test();
#ifdef STATIC
	puts("static");
#else
	static const char *const family[] = { "malloc", "calloc", "realloc", "free",
		"aligned_alloc", "posix_memalign", "malloc_usable_size" };
	for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
		Dl_info info;
		void *function = dlsym(RTLD_DEFAULT, family[i]);
		if (!function || !dladdr(function, &info)) die(family[i]);
		printf("%s %s\n", family[i], info.dli_fname);
	}
#endif
	return 0;
}
