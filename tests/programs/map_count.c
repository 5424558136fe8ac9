/* At the kernel's limit of mappings: 70,000 large blocks, freed so that every free splits a mapping
 * or needs a new one. Memory really returns, and NULL comes cleanly if it must come.
 * (mallocng ignored the failing munmap: thousands of freed blocks stayed mapped.) */
#include "check.h"

enum { BLOCKS = 140000 };
#define EACH ((size_t)132 * KB)
static unsigned char *block[BLOCKS];

static size_t available_memory(void)
{
	char text[4096];
	int fd = open("/proc/meminfo", O_RDONLY);
	if (fd < 0) return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	char *line = strstr(text, "MemAvailable:");
	return line ? strtoull(line + 13, NULL, 10) * KB : 0;
}

/* Returns how many blocks there are; only both ends are touched. */
static size_t make(size_t count)
{
	size_t i;
	for (i = 0; i < count; i++) {
		errno = 0;
		if (!(block[i] = malloc(EACH))) {
			CHECK2(errno == ENOMEM, i, errno);
			break;
		}
		fill(block[i], 64, i);
		fill(block[i] + EACH - 8, 8, i);
	}
	return i;
}

static void drop(size_t i)
{
	if (!block[i]) return;
	VERIFY(block[i], 64, i);
	VERIFY(block[i] + EACH - 8, 8, i);
	errno = 4321;
	free(block[i]);
	CHECK2(errno == 4321, i, errno);
	block[i] = NULL;
}

int main(void)
{
	/* Both ends of a block are pages. */
	if (available_memory() < 3072 * MB / 4096 * page_bytes()) skip("less than 3 GB of free memory, or as many longer pages");
	memset(block, 0, sizeof block);
	free(malloc(EACH));
	size_t mapped, resident, now_mapped, now_resident;
	read_statm(&mapped, &resident);

	/* In a mixed order. */
	size_t count = make(70000);
	CHECK2(count > 20000, count, errno);
	for (size_t i = 0; i < count; i++) drop((i * 7919) % count);
	for (size_t i = 0; i < count; i++) drop(i);
	read_statm(&now_mapped, &now_resident);
	CHECK2(over(now_resident, resident) < 32 * MB, now_resident, resident);
	CHECK2(over(now_mapped, mapped) < 256 * MB, now_mapped, mapped);

	/* Every other one, so that nothing can be merged: 70,000 holes. */
	count = make(BLOCKS);
	CHECK2(count > 20000, count, errno);
	size_t peak = resident_bytes();
	for (size_t i = 0; i < count; i += 2) drop(i);
	size_t half = resident_bytes();
	CHECK2(over(half, resident) < over(peak, resident) / 2 + 48 * MB, half, peak);
	/* The heap works at the limit. */
	for (int i = 0; i < 2000; i++) {
		unsigned char *p = malloc((size_t)i * 30);
		if (!p) continue;
		fill(p, (size_t)i * 30, 5);
		free(p);
	}
	for (size_t i = 0; i < count; i++) drop(i);
	read_statm(&now_mapped, &now_resident);
	CHECK2(over(now_resident, resident) < 32 * MB, now_resident, resident);
	CHECK2(over(now_mapped, mapped) < 256 * MB, now_mapped, mapped);
	return 0;
}
