/* An array of no elements, from new, is written; VARIANT 1: read. */
#include "misuse.h"

void *cxx_new_array(size_t n);
void cxx_delete_array(void *p, size_t n);

int main(int argc, char **argv)
{
	victim(argc, argv);
	char *p = cxx_new_array(0);
	arm(ACCESS);
	if (variant) {
		(void)*(volatile char *)hide(p);
		leave();
	}
	size = 0;
	*(volatile char *)hide(p) = 'A';
	at(FREE);
	cxx_delete_array(hide(p), 0);
	finish();
}
