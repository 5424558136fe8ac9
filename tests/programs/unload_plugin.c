/* A plugin with an allocator of its own inside. */
#include <stdlib.h>

void *plugin_malloc(size_t n)
{
	return malloc(n);
}

void plugin_free(void *p)
{
	free(p);
}
