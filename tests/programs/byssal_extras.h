/* What libbyssal exports beyond the libc's functions. A preloaded library is not there when the
 * program is linked, so there they are looked up. */
#ifndef BYSSAL_EXTRAS_H
#define BYSSAL_EXTRAS_H

#include <stdio.h>

#ifdef ON_PRELOAD
#include <dlfcn.h>

static void *extra(const char *name)
{
	void *address = dlsym(RTLD_DEFAULT, name);
	if (!address) {
		say_to(2, "the preloaded library does not export ");
		say_to(2, name);
		say_to(2, "\n");
		_exit(1);
	}
	return address;
}

#define free_sized ((void (*)(void *, size_t))extra("free_sized"))
#define free_aligned_sized ((void (*)(void *, size_t, size_t))extra("free_aligned_sized"))
#define byssal_dump_heap ((int (*)(FILE *))extra("byssal_dump_heap"))
#else
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t align, size_t n);
int byssal_dump_heap(FILE *);
#endif

#endif
