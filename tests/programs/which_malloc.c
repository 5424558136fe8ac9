/* The tests below mean nothing when another allocator answers: the functions must come from
 * where the mode says. In a dynamic program the address tells; in a static one there is only one
 * libc, and the linker's own gates (`byssal verify`) look at it. */
#include "check.h"

#ifdef ON_STATIC
int main(void)
{
	return 0;
}
#else
#include <dlfcn.h>

/* In a program that is not moved what the linker finds first may be a stub of the program's. */
#ifdef ON_MUSL
#define SCOPE RTLD_NEXT
#else
#define SCOPE RTLD_DEFAULT
#endif

static void from(const char *name, void *address, const char *where)
{
	Dl_info info;
	CHECK(dladdr(address, &info));
	if (info.dli_fname && strstr(info.dli_fname, where)) return;
	say_to(2, name);
	say_to(2, " comes from ");
	say_to(2, info.dli_fname);
	say_to(2, "\n");
	_exit(1);
}

int main(int argc, char **argv)
{
	(void)argc;
#ifdef ON_MUSL
	/* The interpreter may be named by a link: ask where strlen is. */
	Dl_info info;
	CHECK(dladdr(dlsym(SCOPE, "strlen"), &info));
	const char *where = info.dli_fname;
	(void)argv;
#else
	const char *where = getenv("LD_PRELOAD") ? "libbyssal.so" : argv[0];
#endif
	/* An archive comes along only when something of it is called. */
	free(malloc(1));
	static const char *const names[] = {
		"malloc", "calloc", "realloc", "free", "aligned_alloc", "memalign", "posix_memalign",
		"reallocarray", "malloc_usable_size", "valloc",
	};
	for (size_t i = 0; i < COUNT(names); i++) {
		void *address = dlsym(SCOPE, names[i]);
#ifndef ON_MUSL
		/* A program with the archive exports only what its libraries ask for. */
		if (!getenv("LD_PRELOAD") && i > 6) break;
#endif
		CHECK2(address, i, 0);
		from(names[i], address, where);
	}
	return 0;
}
#endif
