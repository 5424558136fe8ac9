/* A program that brings its own malloc: everything goes to it, and the libc's aligned_alloc, whose
 * blocks its free could not know, fails with ENOMEM. (Only the dynamic linker can see that malloc
 * was replaced; in a static program musl cannot tell.) */
#include "check.h"
#include <stdio.h>

static _Alignas(16) unsigned char arena[4 << 20];
static size_t used, calls, frees;

void *malloc(size_t n)
{
	calls++;
	n = (n + 31) & ~(size_t)15;
	if (n > sizeof arena - used) {
		errno = ENOMEM;
		return NULL;
	}
	size_t *p = (size_t *)(arena + used);
	used += n;
	*p = n - 16;
	return (unsigned char *)p + 16;
}

void free(void *p)
{
	if (!p) return;
	CHECK((unsigned char *)p > arena && (unsigned char *)p < arena + sizeof arena);
	frees++;
}

void *calloc(size_t m, size_t n)
{
	if (n && m > SIZE_MAX / n) return NULL;
	void *p = malloc(m * n);
	if (p) memset(p, 0, m * n);
	return p;
}

void *realloc(void *p, size_t n)
{
	void *q = malloc(n);
	if (p && q) {
		size_t old = *(size_t *)((unsigned char *)p - 16);
		memcpy(q, p, old < n ? old : n);
	}
	return q;
}

int main(void)
{
#ifndef ON_STATIC
	errno = 0;
	CHECK(!aligned_alloc(64, 100) && errno == ENOMEM);
	errno = 0;
	CHECK(!memalign(64, 100) && errno == ENOMEM);
	void *p = &p;
	CHECK(posix_memalign(&p, 64, 100) == ENOMEM);
	CHECK(p == &p);
#endif
	/* The libc's own blocks come from this malloc too. */
	size_t before = calls;
	char *copy = strdup("text"), *line = NULL, *path = realpath("/", NULL);
	CHECK(copy && (unsigned char *)copy > arena && (unsigned char *)copy < arena + sizeof arena);
	CHECK(path && !strcmp(path, "/"));
	free(path);
	size_t size = 0;
	FILE *f = fopen("/proc/self/status", "r");
	CHECK(f);
	while (getline(&line, &size, f) > 0) continue;
	fclose(f);
	free(line);
	free(copy);
	CHECK(calls > before + 2 && frees > 2);
	return 0;
}
