/* Where blocks come to lie; no misuse, a number for the attacker. VARIANT 0: a block's address;
 * 1: the distance from one block to the next; 2: 1 if the block just freed is handed out next;
 * 3: 1 if it is among the next eight. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), *next[8];
	if (variant >= 2) free(hide(p));
	for (int i = 0; i < 8; i++) CHECK(next[i] = malloc(size));
	uint64_t value = (uintptr_t)p;
	if (variant == 1) value = (uint64_t)(next[0] - p);
	if (variant == 2) value = next[0] == p;
	if (variant == 3) {
		value = 0;
		for (int i = 0; i < 8; i++) value |= next[i] == p;
	}
	report->value = value;
	_exit(0);
}
