/* A random byte, other than the one that stands there, is written past the end. */
#include "misuse.h"
#include <sys/random.h>

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), byte;
	volatile char *end = (char *)hide(p) + size;
	arm(ACCESS);
	do CHECK(getrandom(&byte, 1, 0) == 1); while (byte == *end);
	*end = byte;
	at(FREE);
	free(hide(p));
	finish();
}
