/* C++'s sized delete with another size than new's. VARIANT 0: larger; 1: half; 2: larger, of an
 * array; 3: larger, of what has an alignment of its own. */
#include "misuse.h"

void *cxx_new(size_t n);
void *cxx_new_array(size_t n);
void *cxx_new_aligned(size_t n);
void cxx_delete(void *p, size_t n);
void cxx_delete_array(void *p, size_t n);
void cxx_delete_aligned(void *p, size_t n);

int main(int argc, char **argv)
{
	victim(argc, argv);
	void *(*new)(size_t) = variant == 3 ? cxx_new_aligned : variant == 2 ? cxx_new_array : cxx_new;
	char *p = new(size);
	touch(p, 0x11);
	size_t wrong = variant == 1 ? size / 2 : size * 2 + 64;
	arm(CALL);
	if (variant == 3) cxx_delete_aligned(hide(p), wrong);
	else if (variant == 2) cxx_delete_array(hide(p), wrong);
	else cxx_delete(hide(p), wrong);
	finish();
}
