/* A program with a malloc of its own, that calls a function of libc which frees. */
#include <errno.h>
#include <locale.h>
#include <stddef.h>
#include <string.h>

static _Alignas(64) char space[1 << 20];
static size_t used;
static int calls;

void *aligned_alloc(size_t align, size_t n)
{
	calls++;
	used = (used + align - 1) & -align;
	if (n > sizeof space - used) {
		errno = ENOMEM;
		return 0;
	}
	used += n;
	return space + used - n;
}

void *malloc(size_t n)
{
	return aligned_alloc(16, n);
}

void *calloc(size_t m, size_t n)
{
	if (n && m > (size_t)-1 / n) return 0;
	return malloc(m * n);
}

void *realloc(void *p, size_t n)
{
	void *q = malloc(n);
	if (p && q) memcpy(q, p, n);
	return q;
}

void free(void *p)
{
}

size_t malloc_usable_size(void *p)
{
	return 0;
}

int main(void)
{
	locale_t l = newlocale(LC_ALL_MASK, "C", 0);
	freelocale(l);
	return malloc(1) == 0 || !calls;
}
