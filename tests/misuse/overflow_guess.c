/* A random byte of the 63 that a canary of byssal can be is written past the end. */
#include "misuse.h"
#include <sys/random.h>

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	unsigned char byte;
	do CHECK(getrandom(&byte, 1, 0) == 1); while (byte < 0x81 || byte % 2 == 0 || byte == 0xff);
	arm(ACCESS);
	((unsigned char *)hide(p))[size] = byte;
	at(FREE);
	free(hide(p));
	finish();
}
