/* Only the dynamic linker calls this; a static program never links it. */
#include "dynlink.h"
#include "glue.h"

void __malloc_donate(char *start, char *end)
{
	__byssal_donate(start, end);
}
