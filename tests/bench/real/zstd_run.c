/* Compresses generated messages with zstd, each in a context of its own, large ones by two worker
 * threads, and compares what comes out again.
 * zstd_run MESSAGES */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zstd.h"

static uint64_t seed = 1;

static uint32_t draw(uint32_t limit)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 32) % limit);
}

/* Text that can be compressed: words drawn from a few, with numbers between. */
static size_t some_text(char *text, size_t room)
{
	static const char *const words[] = {"request ", "from ", "the ", "client ", "took ", "at ",
		"address ", "error ", "warning ", "handled ", "in ", "milliseconds\n"};
	size_t used = 0;
	while (used + 32 < room) {
		const char *word = words[draw(12)];
		used += (size_t)sprintf(text + used, "%s", word);
		if (draw(3) == 0) used += (size_t)sprintf(text + used, "%u ", draw(100000));
	}
	return used;
}

int main(int argc, char **argv)
{
	long messages = argc > 1 ? strtol(argv[1], NULL, 10) : 20;
	uint64_t sum = 0;
	for (long i = 0; i < messages; i++) {
		size_t room = i % 32 == 0 ? 4u << 20 : 2000 + draw(60000);
		char *text = malloc(room);
		size_t size = some_text(text, room), bound = ZSTD_compressBound(size);
		char *packed = malloc(bound), *again = malloc(size);
		ZSTD_CCtx *context = ZSTD_createCCtx();
		ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1 + (int)(i % 5));
		ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
		if (i % 32 == 0) ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, 2);
		size_t n = ZSTD_compress2(context, packed, bound, text, size);
		if (ZSTD_isError(n) || ZSTD_decompress(again, size, packed, n) != size) return 1;
		if (memcmp(text, again, size)) return 1;
		for (size_t k = 0; k < n; k++) sum = (sum ^ (uint8_t)packed[k]) * 0x9e3779b97f4a7c15u;
		sum ^= sum >> 32;
		ZSTD_freeCCtx(context);
		free(again);
		free(packed);
		free(text);
	}
	printf("zstd checksum=%016" PRIx64 "\n", sum);
	return 0;
}
