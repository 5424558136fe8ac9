/* Eight bytes are written through a stale pointer whose memory already holds a new block, which is
 * then freed; VARIANT 1: they are read. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	char *q = reuse(p);
	if (q) touch(q, 0x33);
	saw(q ? CHANGED : NEVER_REUSED);
	arm(ACCESS);
	if (variant) {
		look(hide(p), 8);
		leave();
	}
	memset((char *)hide(p) + size / 2 / 8 * 8, 'A', 8);
	at(FREE);
	free(hide(q));
	finish();
}
