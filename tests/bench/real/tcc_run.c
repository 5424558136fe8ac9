/* Compiles a C file into memory with libtcc, again and again, and calls its function `entry`.
 * tcc_run FILE ROUNDS */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtcc.h"

static char *read_file(const char *name)
{
	FILE *f = fopen(name, "r");
	if (!f) return NULL;
	static char text[1 << 22];
	text[fread(text, 1, sizeof text - 1, f)] = 0;
	fclose(f);
	return text;
}

static int compiled(const char *text, unsigned *result)
{
	TCCState *s = tcc_new();
	if (!s) return 0;
	tcc_set_options(s, "-nostdlib -nostdinc");
	tcc_set_output_type(s, TCC_OUTPUT_MEMORY);
	/* What the compiler itself calls to clear a structure. */
	tcc_add_symbol(s, "memset", (const void *)memset);
	if (tcc_compile_string(s, text) || tcc_relocate(s, TCC_RELOCATE_AUTO) < 0) return 0;
	unsigned (*entry)(unsigned) = (unsigned (*)(unsigned))tcc_get_symbol(s, "entry");
	if (!entry) return 0;
	*result = entry(7);
	tcc_delete(s);
	return 1;
}

int main(int argc, char **argv)
{
	char *text = argc > 2 ? read_file(argv[1]) : NULL;
	if (!text) return 2;
	unsigned first = 0;
	for (long i = 0; i < strtol(argv[2], NULL, 10); i++) {
		unsigned result;
		if (!compiled(text, &result) || (i && result != first)) return 1;
		first = result;
	}
	printf("tcc entry=%08x\n", first);
	return 0;
}
