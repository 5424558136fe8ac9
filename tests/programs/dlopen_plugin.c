/* The shared object of dlopen.c: allocates when it is loaded, frees when it is unloaded, and takes
 * and gives blocks. */
#include "check.h"

static unsigned char *at_start[50];
static __thread char buffer[3000];
int *plugin_counter;

__attribute__((constructor)) static void loaded(void)
{
	for (size_t i = 0; i < COUNT(at_start); i++) {
		CHECK(at_start[i] = malloc(i * 50));
		fill(at_start[i], i * 50, i);
	}
}

__attribute__((destructor)) static void unloaded(void)
{
	for (size_t i = 0; i < COUNT(at_start); i++) {
		VERIFY(at_start[i], i * 50, i);
		free(at_start[i]);
	}
	unsigned char *p = calloc(1, 5000);
	CHECK(p && all_zero(p, 5000));
	free(p);
	if (plugin_counter) ++*plugin_counter;
}

void *plugin_make(size_t n, uint64_t seed)
{
	unsigned char *p = malloc(n);
	CHECK(p);
	fill(p, n, seed);
	memset(buffer, 1, sizeof buffer);
	return p;
}

void plugin_drop(void *p, size_t n, uint64_t seed)
{
	VERIFY(p, n, seed);
	free(p);
}
