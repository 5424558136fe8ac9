/* An object of its own: a static program may define aligned_alloc itself and still link. */
#include <errno.h>
#include <stdlib.h>
#include "dynlink.h"
#include "glue.h"

void *aligned_alloc(size_t align, size_t n)
{
	/* Memory from here must never reach the free of a replaced malloc. */
	if (__malloc_replaced && !__aligned_alloc_replaced) {
		errno = ENOMEM;
		return 0;
	}
	return __byssal_aligned_alloc(align, n);
}
