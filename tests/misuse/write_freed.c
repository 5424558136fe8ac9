/* Eight bytes of a freed block are written, at once; then the memory is used again. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(ACCESS);
	memset((char *)hide(p) + size / 2 / 8 * 8, 'A', 8);
	saw(reuse(p) ? REUSED : NEVER_REUSED);
	leave();
}
