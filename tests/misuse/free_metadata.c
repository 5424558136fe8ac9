/* A pointer into the allocator's own state is freed: 64 bytes into the 4 MiB that the block lies in,
 * where byssal keeps a chunk's header (VARIANT 1: 16 KiB and 16 bytes on, in the chunk's map), or,
 * where that is no memory, 16 bytes into the mapping, where others keep theirs. */
#include "misuse.h"

/* First byte of the writable mapping that `at` lies in; null if there is none. */
static char *mapping_of(char *at)
{
	static char text[1 << 16];
	size_t n = 0;
	ssize_t got;
	int fd = open("/proc/self/maps", O_RDONLY);
	CHECK(fd >= 0);
	while ((got = read(fd, text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
	close(fd);
	for (char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		char *rest;
		uintptr_t from = strtoull(line, &rest, 16), to = *rest ? strtoull(rest + 1, &rest, 16) : 0;
		if (from <= (uintptr_t)at && (uintptr_t)at < to) return rest[2] == 'w' ? (char *)from : NULL;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	char *state = p - ((uintptr_t)p & (4 * MB - 1)) + (variant ? 16 * KB + 16 : 64);
	if (!mapping_of(state)) state = mapping_of(p) + 16;
	if (state == p) state += 16;
	arm(CALL);
	free(hide(state));
	finish();
}
