/* All bytes that malloc_usable_size grants are text, without an end: what does a reader see behind
 * them, and is it the same behind another block? VARIANT 1: all bytes that were asked for. */
#include "misuse.h"

enum { MOST = 16 };

/* Copies the string's end, from `p` on; its length. */
static size_t behind(char *end, const volatile char *p)
{
	size_t n = 0;
	while (n < MOST && p[n]) {
		end[n] = p[n];
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), *q = malloc(size), end[2][MOST];
	CHECK(q);
	size_t n = variant ? size : malloc_usable_size(p), m = variant ? size : malloc_usable_size(q);
	memset(p, 'a', n);
	memset(q, 'a', m);
	arm(ACCESS);
	n = behind(end[0], (char *)hide(p) + n);
	m = behind(end[1], (char *)hide(q) + m);
	int alike = n == m && !memcmp(end[0], end[1], n);
	saw(n == 0 && m == 0 ? STOPS : alike ? SHOWN_ALIKE : SHOWN);
	_exit(0);
}
