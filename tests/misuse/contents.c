/* What a new block shows of old ones, read before it is written. VARIANT 0: malloc; 1: what realloc
 * adds; 2: calloc; 3: aligned_alloc; 4: another size of the class; 5: malloc, the old blocks were
 * another thread's; 6: calloc, and the old blocks were written after their free. */
#include "misuse.h"

static size_t olds = 16, news = 64;

/* Blocks full of what nobody should see again; then they are free. */
static void *secrets(void *unused)
{
	char *p[16];
	for (size_t i = 0; i < olds; i++) {
		CHECK(p[i] = malloc(size));
		memset(p[i], 0x11, size);
	}
	for (size_t i = 0; i < olds; i++) free(hide(p[i]));
	if (variant != 6) return unused;
	arm(ACCESS);
	for (size_t i = 0; i < olds; i++) memset((char *)hide(p[i]) + size / 2 / 8 * 8, 'B', 8);
	at(REUSE);
	return unused;
}

/* A new block, and how many of its bytes are old by right. */
static char *fresh(size_t *known)
{
	char *small;
	*known = 0;
	switch (variant) {
	case 1:
		CHECK(small = malloc(*known = size / 2));
		memset(small, 0x22, *known);
		return realloc(hide(small), size);
	case 2: case 6: return calloc(1, size);
	case 3: return aligned_alloc(64, size);
	default: return malloc(size);
	}
}

int main(int argc, char **argv)
{
	enum saw worst = ZEROS;
	free(hide(victim(argc, argv)));
	if (size > 64 * KB) olds = 4, news = 16;
	if (variant == 5) {
		pthread_t thread;
		CHECK(!pthread_create(&thread, NULL, secrets, NULL));
		CHECK(!pthread_join(thread, NULL));
	} else {
		secrets(NULL);
	}
	if (variant == 4) size -= size / 40 + 1;
	if (variant != 6) arm(ACCESS);
	for (size_t i = 0; i < news; i++) {
		size_t known, some = size / 2 < 4096 ? size / 2 : 4096;
		char *p = fresh(&known);
		CHECK(p);
		enum saw front = known ? ZEROS : look(p, some), back = look(p + size - some, some);
		if (front > worst) worst = front;
		if (back > worst) worst = back;
	}
	saw(worst);
	_exit(0);
}
