/* A static program with its own malloc, aligned_alloc and malloc_usable_size that makes libc use
 * its internal free (freelocale) links: the libc's own definitions must not come along. */
#include "check.h"
#include <locale.h>

static _Alignas(4096) unsigned char arena[1 << 20];
static size_t used;

void *aligned_alloc(size_t align, size_t n)
{
	size_t at = (used + align - 1) & ~(align - 1);
	if (at > sizeof arena || n > sizeof arena - at) return NULL;
	used = at + n;
	return arena + at;
}

void *malloc(size_t n) { return aligned_alloc(16, n); }
void free(void *p) { (void)p; }

void *calloc(size_t m, size_t n)
{
	void *p = aligned_alloc(16, m * n);
	if (p) memset(p, 0, m * n);
	return p;
}

void *realloc(void *p, size_t n)
{
	void *q = malloc(n);
	if (p && q) memmove(q, p, n);
	return q;
}

size_t malloc_usable_size(void *p)
{
	return p ? 1 : 0;
}

int main(void)
{
	void *p = aligned_alloc(64, 100), *q = NULL;
	CHECK(p && aligned(p, 64) && malloc_usable_size(p) == 1);
	/* With aligned_alloc replaced as well, the functions built on it work. */
	CHECK(!posix_memalign(&q, 128, 10));
	CHECK(q && aligned(q, 128));
	locale_t locale = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);
	if (locale) {
		locale_t copy = duplocale(locale);
		if (copy) freelocale(copy);
		freelocale(locale);
	}
	return 0;
}
