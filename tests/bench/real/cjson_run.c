/* Builds documents with cJSON, prints them, parses what was printed, edits and compares.
 * cjson_run DOCUMENTS */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cJSON.h"

static uint64_t seed = 1;

static uint32_t draw(uint32_t limit)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 32) % limit);
}

static cJSON *some_value(int depth)
{
	char text[128];
	uint32_t kind = draw(depth ? 6 : 3);
	if (kind == 0) return cJSON_CreateNumber(draw(1000000));
	if (kind < 3) {
		size_t n = 1 + draw(draw(4) ? 24 : 120);
		for (size_t i = 0; i < n; i++) text[i] = (char)('a' + draw(26));
		text[n] = 0;
		return cJSON_CreateString(text);
	}
	cJSON *all = kind == 3 ? cJSON_CreateArray() : cJSON_CreateObject();
	for (uint32_t i = 2 + draw(8); i; i--) {
		snprintf(text, sizeof text, "member%u", i);
		if (kind == 3) cJSON_AddItemToArray(all, some_value(depth - 1));
		else cJSON_AddItemToObject(all, text, some_value(depth - 1));
	}
	return all;
}

int main(int argc, char **argv)
{
	long documents = argc > 1 ? strtol(argv[1], NULL, 10) : 100;
	uint64_t sum = 0;
	for (long i = 0; i < documents; i++) {
		cJSON *made = cJSON_CreateObject();
		for (int k = 0; k < 8; k++) {
			char name[16];
			snprintf(name, sizeof name, "part%d", k);
			cJSON_AddItemToObject(made, name, some_value(4));
		}
		char *printed = cJSON_Print(made);
		cJSON *parsed = cJSON_Parse(printed);
		if (!parsed || !cJSON_Compare(made, parsed, 1)) return 1;
		cJSON_DeleteItemFromObject(parsed, "part3");
		cJSON_ReplaceItemInObject(parsed, "part5", cJSON_Duplicate(made, 1));
		char *again = cJSON_PrintUnformatted(parsed);
		for (const char *c = again; *c; c++) sum = (sum ^ (uint64_t)*c) * 0x9e3779b97f4a7c15u;
		sum ^= sum >> 32;
		free(again);
		free(printed);
		cJSON_Delete(parsed);
		cJSON_Delete(made);
	}
	printf("cjson checksum=%016" PRIx64 "\n", sum);
	return 0;
}
