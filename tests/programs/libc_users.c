/* The libc's own users of malloc, whose results the program frees. */
#include "check.h"
#include <locale.h>
#include <regex.h>
#include <search.h>
#include <stdio.h>
#include <wchar.h>

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void forget(void *key)
{
	free(key);
}

int main(void)
{
#if defined ON_PRELOAD && !defined __GLIBC__
	/* The shell of popen has the host's libc and cannot load a library made for musl. */
	unsetenv("LD_PRELOAD");
#endif
	for (int round = 0; round < 200; round++) {
		char *text = strdup("a string that is copied"), *part = strndup(text, 8), *made = NULL;
		CHECK(text && part && !strcmp(part, "a string"));
		CHECK(asprintf(&made, "%s %d %s", text, round, part) > 0);
		CHECK(strstr(made, "copied") && strstr(made, part));
		free(text);
		free(part);

		char *stream_text = NULL, *line = NULL;
		size_t stream_size = 0, line_size = 0;
		FILE *f = open_memstream(&stream_text, &stream_size);
		CHECK(f);
		for (int i = 0; i < 400; i++) fprintf(f, "%s %d\n", made, i);
		CHECK(!fclose(f));
		f = fmemopen(stream_text, stream_size, "r");
		CHECK(f);
		int lines = 0;
		while (getline(&line, &line_size, f) > 0) lines++;
		CHECK2(lines == 400, lines, round);
		fclose(f);
		free(line);
		free(stream_text);
		free(made);

		regex_t expression;
		CHECK(!regcomp(&expression, "^(a|b)+[0-9]{2,5}(foo|bar)*$", REG_EXTENDED));
		CHECK(!regexec(&expression, "abab123foobar", 0, NULL, 0));
		CHECK(regexec(&expression, "abab1", 0, NULL, 0) == REG_NOMATCH);
		regfree(&expression);

		void *tree = NULL;
		for (int i = 0; i < 200; i++) {
			char key[32];
			snprintf(key, sizeof key, "%d", i * 7919 % 1000);
			char *copy = strdup(key);
			CHECK(copy);
			void *found = tsearch(copy, &tree, compare);
			CHECK(found);
			if (*(char **)found != copy) free(copy);
		}
		tdestroy(tree, forget);

		setenv("BYSSAL_TEST_VARIABLE", round % 2 ? "short" : "a rather longer value of it", 1);
		CHECK(getenv("BYSSAL_TEST_VARIABLE"));
		char *path = realpath("/proc/self/exe", NULL);
		CHECK(path && path[0] == '/');
		free(path);
		char *here = getcwd(NULL, 0);
		CHECK(here);
		free(here);
		f = fopen("/proc/self/maps", "r");
		CHECK(f);
		char buffer[256];
		while (fgets(buffer, sizeof buffer, f)) continue;
		fclose(f);
		f = popen("echo popen", "r");
		if (round == 0 && f) {
			CHECK(fgets(buffer, sizeof buffer, f) && !strcmp(buffer, "popen\n"));
		}
		if (f) pclose(f);
		if (round > 5) unsetenv("BYSSAL_TEST_VARIABLE");
		if (round > 20) round += 10;
	}
	locale_t locale = newlocale(LC_ALL_MASK, "C", NULL);
	if (locale) freelocale(locale);
	setlocale(LC_ALL, "");
	return 0;
}
