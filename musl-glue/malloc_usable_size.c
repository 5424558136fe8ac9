/* An object of its own: a static program may define malloc_usable_size itself and still link. */
#include <malloc.h>
#include "glue.h"

size_t malloc_usable_size(void *p)
{
	return __byssal_usable_size(p);
}
