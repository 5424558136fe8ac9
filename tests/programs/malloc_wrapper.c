/* The program's own malloc and free hand on to the next ones, which they look for at their first
 * use. What a library does when it is loaded must not have dlsym come back to them without end. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>

static unsigned mallocs, frees;

void *malloc(size_t n)
{
	static void *(*next)(size_t);
	if (!next) next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	mallocs++;
	return next(n);
}

void free(void *p)
{
	static void (*next)(void *);
	if (!next) next = (void (*)(void *))dlsym(RTLD_NEXT, "free");
	frees++;
	next(p);
}

int main(void)
{
	for (size_t n = 1; n < 100 * KB; n += n / 3 + 1) {
		char *p = malloc(n);
		CHECK(p);
		memset(p, 1, n);
		CHECK(p = realloc(p, 2 * n));
		free(p);
	}
	CHECK(mallocs && frees);
	return 0;
}
