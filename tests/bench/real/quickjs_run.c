/* Runs a JavaScript file with `scale` set, and prints what its last expression gives.
 * quickjs_run FILE SCALE */
#include <stdio.h>
#include <stdlib.h>

#include "quickjs.h"

int main(int argc, char **argv)
{
	static char text[1 << 18];
	FILE *f = argc > 2 ? fopen(argv[1], "r") : NULL;
	if (!f) return 2;
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	JSRuntime *runtime = JS_NewRuntime();
	JSContext *context = JS_NewContext(runtime);
	JSValue global = JS_GetGlobalObject(context);
	JS_SetPropertyStr(context, global, "scale", JS_NewInt32(context, atoi(argv[2])));
	JS_FreeValue(context, global);
	JSValue result = JS_Eval(context, text, n, argv[1], JS_EVAL_TYPE_GLOBAL);
	int failed = JS_IsException(result);
	if (failed) result = JS_GetException(context);
	const char *shown = JS_ToCString(context, result);
	puts(shown ? shown : "no result");
	JS_FreeCString(context, shown);
	JS_FreeValue(context, result);
	JS_FreeContext(context);
	JS_FreeRuntime(runtime);
	return failed;
}
