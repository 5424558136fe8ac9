/* The old pointer is freed after realloc has moved the block. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	char *q = realloc(hide(p), size * 40);
	CHECK(q);
	if (q == p) skip("realloc kept the block in its place");
	arm(CALL);
	free(hide(p));
	finish();
}
