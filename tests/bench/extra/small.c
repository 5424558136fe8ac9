/* A small process: allocates argv[1] blocks of mixed sizes (one of 100 bytes, if it is 1), frees
 * one if there is a third argument, and prints its own minor faults and private dirty KiB. Uses
 * no stdio, which would allocate. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char text[65536];

static void print(unsigned long value, char end)
{
	char digits[24], *p = digits + sizeof digits;
	*--p = end;
	do *--p = '0' + value % 10; while (value /= 10);
	write(1, p, digits + sizeof digits - p);
}

int main(int argc, char **argv)
{
	static char *keep[1000];
	unsigned seed = 1;
	int count = argc > 1 ? atoi(argv[1]) : 0;
	for (int i = 0; i < count && i < 1000; i++) {
		seed = seed * 1103515245 + 12345;
		keep[i] = malloc(count == 1 ? 100 : 1 + (seed >> 16) % 1024);
		*keep[i] = 1;
	}
	if (argc > 2) free(keep[0]);
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	print(usage.ru_minflt, ' ');
	/* Files just written count their clean pages as dirty: only anonymous memory is asked for. */
	int fd = open("/proc/self/smaps_rollup", O_RDONLY);
	long length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[length > 0 ? length : 0] = 0;
	char *line = strstr(text, "\nAnonymous:");
	print(line ? strtoul(line + 11, 0, 10) : 0, '\n');
	return 0;
}
