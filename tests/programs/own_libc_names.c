/* A static program brings an allocator that also defines the names of libc's inside, but no
 * aligned_alloc: libc's is linked, and must not bring a second __libc_free. */
#include "check.h"
#include <locale.h>

static _Alignas(64) char space[1 << 20];
static size_t used;

void *malloc(size_t n)
{
	used += 16;
	*(size_t *)(space + used - 16) = n;
	used += (n + 15) / 16 * 16;
	CHECK(used < sizeof space);
	return space + used - (n + 15) / 16 * 16;
}

void free(void *p)
{
	CHECK(!p || ((char *)p > space && (char *)p < space + sizeof space));
}

void *calloc(size_t count, size_t size)
{
	return memset(malloc(count * size), 0, count * size);
}

void *realloc(void *p, size_t n)
{
	void *q = malloc(n);
	size_t old = p ? ((size_t *)p)[-2] : 0;
	return memcpy(q, p ? p : q, old < n ? old : n);
}

void *__libc_malloc(size_t n)
{
	return malloc(n);
}

void *__libc_calloc(size_t count, size_t size)
{
	return calloc(count, size);
}

void *__libc_realloc(void *p, size_t n)
{
	return realloc(p, n);
}

void __libc_free(void *p)
{
	free(p);
}

int main(void)
{
	/* libc's own frees come here, too. */
	locale_t locale = newlocale(LC_ALL_MASK, "C", NULL);
	CHECK(locale);
	freelocale(locale);
	char *copy = strdup("text");
	CHECK(copy >= space && copy < space + sizeof space);
	free(copy);
	/* Refused by the dynamic linker's knowledge only: a static program gets a block. */
	void *p = aligned_alloc(64, 100);
	CHECK(p && aligned(p, 64));
	return 0;
}
