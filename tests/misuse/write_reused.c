/* Eight bytes are written through a stale pointer whose memory already holds a new block, which is
 * then freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	char *q = reuse(p);
	if (!q) {
		saw(NEVER_REUSED);
		_exit(0);
	}
	arm(ACCESS);
	memset((char *)hide(p) + size / 2 / 8 * 8, 'A', 8);
	saw(CHANGED);
	at(FREE);
	free(hide(q));
	finish();
}
