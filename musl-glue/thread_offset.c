/* Compiled to assembly, not into libc: the number that the compiler puts into its text is how far
 * the thread's heap lies from the thread pointer. */
#include <stddef.h>
#include "pthread_impl.h"

#ifdef TLS_ABOVE_TP
#define OFFSET ((long)offsetof(struct pthread, malloc_heap) - (long)sizeof(struct pthread) - TP_OFFSET)
#else
#define OFFSET ((long)offsetof(struct pthread, malloc_heap))
#endif

void tell(void)
{
	__asm__("\n.ascii \"->OFFSET %0\"" : : "i"(OFFSET));
}
