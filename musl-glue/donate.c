/* The dynamic linker offers the ends of pages around libraries' data to malloc. byssal takes none.
 * An object of its own: a static program never links it. */
#include "dynlink.h"

void __malloc_donate(char *start, char *end)
{
}
