/* A block freed by two other threads, one after the other, before the owner looks. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free_elsewhere(p);
	arm(CALL);
	free_elsewhere(p);
	finish();
}
