/* Eight bytes of a freed block are written; the program goes on with blocks of other sizes only,
 * and ends. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(ACCESS);
	memset((char *)hide(p) + size / 2 / 8 * 8, 'A', 8);
	at(LATER);
	for (size_t i = 0; i < 20000; i++) {
		free(hide(malloc(200 + i * 37 % 1800)));
		report->count++;
	}
	leave();
}
