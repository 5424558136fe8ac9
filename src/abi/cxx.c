/* C++'s operators new and delete, in the libbyssal.so of the preset that checks the sizes which the
 * compiler gives to delete. All of the family or none: a block must come back to where it came from. A
 * program may put functions of its own in the place of some, and of others which call those the C++
 * library has. So ours work only if each name of the family leads to us in this process. Otherwise each
 * hands its call on to the definition behind ours, as if we were not there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* library.rs. */
EXPORT void free_sized(void *, size_t);
EXPORT void free_aligned_sized(void *, size_t, size_t);

/* size_t in names. */
#ifdef __LP64__
#define Z "m"
#else
#define Z "j"
#endif
#define ALIGN "St11align_val_t"
#define NOTHROW "RKSt9nothrow_t"

/* Name here, result, name in the process, parameters, arguments. */
#define NEWS(X, of, in) \
	X(new_##of, void *, "_Zn" in Z, (size_t n), (n)) \
	X(new_##of##_nothrow, void *, "_Zn" in Z NOTHROW, (size_t n, const void *no), (n, no)) \
	X(new_##of##_at, void *, "_Zn" in Z ALIGN, (size_t n, size_t align), (n, align)) \
	X(new_##of##_at_nothrow, void *, "_Zn" in Z ALIGN NOTHROW, \
		(size_t n, size_t align, const void *no), (n, align, no))
#define DELETES(X, of, in) \
	X(delete_##of, void, "_Zd" in "Pv", (void *p), (p)) \
	X(delete_##of##_nothrow, void, "_Zd" in "Pv" NOTHROW, (void *p, const void *no), (p, no)) \
	X(delete_##of##_sized, void, "_Zd" in "Pv" Z, (void *p, size_t n), (p, n)) \
	X(delete_##of##_at, void, "_Zd" in "Pv" ALIGN, (void *p, size_t align), (p, align)) \
	X(delete_##of##_at_nothrow, void, "_Zd" in "Pv" ALIGN NOTHROW, \
		(void *p, size_t align, const void *no), (p, align, no)) \
	X(delete_##of##_sized_at, void, "_Zd" in "Pv" Z ALIGN, \
		(void *p, size_t n, size_t align), (p, n, align))
#define FAMILY(X) NEWS(X, one, "w") NEWS(X, array, "a") DELETES(X, one, "l") DELETES(X, array, "a")

#define DECLARE(name, result, symbol, parameters, arguments) \
	EXPORT result name parameters __asm__(symbol);
FAMILY(DECLARE)

#define NUMBER(name, result, symbol, parameters, arguments) number_##name,
enum { FAMILY(NUMBER) COUNT };

#define ENTRY(name, result, symbol, parameters, arguments) {symbol, (void *)name, 0},
/* Each function, and what is behind it in the process's order of search, once that is known. */
static struct function {
	const char *symbol;
	void *own, *behind;
} family[COUNT] = {FAMILY(ENTRY)};

enum { UNKNOWN, OURS, OTHERS };
static char whose;

/* What is behind one of ours, for a caller: in the order of all, or in that of the library which calls.
 * A program in C may open libraries that bring a C++ library of their own; NULL if neither has it. */
static void *behind(int number, void *caller)
{
	struct function *f = &family[number];
	/* Relaxed: every thread finds the same. */
	void *found = __atomic_load_n(&f->behind, __ATOMIC_RELAXED), *library;
	Dl_info at;
	if (found) return found;
	if ((found = dlsym(RTLD_NEXT, f->symbol))) {
		__atomic_store_n(&f->behind, found, __ATOMIC_RELAXED);
		return found;
	}
	if (caller && dladdr(caller, &at)
	    && (library = dlopen(at.dli_fname, RTLD_LAZY | RTLD_NOLOAD))) {
		found = dlsym(library, f->symbol);
		dlclose(library);
	}
	if (!found) dlerror();
	return found == f->own ? NULL : found;
}

/* A name of the C++ library, if there was one when we were loaded. */
extern void __cxa_throw(void) __attribute__((weak));

/* Whether all names lead to us, and malloc, on which the C++ library builds. What comes first in the
 * order of search stays first: it is asked once. If it is not us, what is behind ours is found at the
 * same time: later, dlsym may have to wait for a dlopen. Not where nothing is there to be found: the
 * dlsym after one that failed frees its error's text, and a malloc of others may come here by a dlsym
 * of its own in its first free. */
static char find_whose(void)
{
	char answer = dlsym(RTLD_DEFAULT, "malloc") == (void *)malloc ? OURS : OTHERS;
	for (size_t i = 0; answer == OURS && i < COUNT; i++)
		if (dlsym(RTLD_DEFAULT, family[i].symbol) != family[i].own) answer = OTHERS;
	for (size_t i = 0; __cxa_throw && answer == OTHERS && i < COUNT; i++) behind(i, NULL);
	/* Relaxed: every thread finds the same. */
	__atomic_store_n(&whose, answer, __ATOMIC_RELAXED);
	return answer;
}

__attribute__((constructor)) static void start(void)
{
	find_whose();
}

static inline int ours(void)
{
	char known = __atomic_load_n(&whose, __ATOMIC_RELAXED);
	if (__builtin_expect(known == UNKNOWN, 0)) known = find_whose();
	return __builtin_expect(known == OURS, 1);
}

/* Whether blocks of no bytes may have come from a C++ library that others do not see: it asks malloc
 * for a byte, at an alignment for as many. */
static int is_of_none(void *p, size_t n, size_t align)
{
	return n == 0 && malloc_usable_size(p) <= align;
}

static void sized(void *p, size_t n)
{
	if (is_of_none(p, n, 1)) free(p);
	else free_sized(p, n);
}

static void sized_at(void *p, size_t n, size_t align)
{
	free_aligned_sized(p, align, is_of_none(p, n, align) ? malloc_usable_size(p) : n);
}

static void at(void *p, size_t align)
{
	if (p) free_aligned_sized(p, align, malloc_usable_size(p));
}

#define BEHIND(name, result, parameters) \
	((result (*) parameters)behind(number_##name, __builtin_return_address(0)))
/* Where memory is out, what is behind calls the program's handler, and throws: the C++ library's form
 * for one object, to which that for an array would come by a jump which hides the caller. If it got
 * memory in the end, ours takes its place: the C++ library rounds some sizes up. */
#define NEW(name, one, parameters, arguments, make, drop) \
	void *name parameters \
	{ \
		void *p, *(*other) parameters; \
		if (ours()) { \
			if ((p = make)) return p; \
			other = BEHIND(one, void *, parameters); \
		} else other = BEHIND(name, void *, parameters); \
		if (!other) return make; \
		while ((p = other arguments) && ours()) { \
			drop; \
			if ((p = make)) break; \
		} \
		return p; \
	}
#define DELETE(name, parameters, arguments, drop) \
	void name parameters \
	{ \
		void (*other) parameters; \
		if (ours()) drop; \
		else if ((other = BEHIND(name, void, parameters))) other arguments; \
		else free(p); \
	}
#define DROP BEHIND(delete_one, void, (void *))(p)
#define DROP_AT BEHIND(delete_one_at, void, (void *, size_t))(p, align)
#define BOTH(of) \
	NEW(new_##of, new_one, (size_t n), (n), malloc(n), DROP) \
	NEW(new_##of##_nothrow, new_one_nothrow, (size_t n, const void *no), (n, no), malloc(n), DROP) \
	NEW(new_##of##_at, new_one_at, (size_t n, size_t align), (n, align), \
		aligned_alloc(align, n), DROP_AT) \
	NEW(new_##of##_at_nothrow, new_one_at_nothrow, (size_t n, size_t align, const void *no), \
		(n, align, no), aligned_alloc(align, n), DROP_AT) \
	DELETE(delete_##of, (void *p), (p), free(p)) \
	DELETE(delete_##of##_nothrow, (void *p, const void *no), (p, no), free(p)) \
	DELETE(delete_##of##_sized, (void *p, size_t n), (p, n), sized(p, n)) \
	DELETE(delete_##of##_at, (void *p, size_t align), (p, align), at(p, align)) \
	DELETE(delete_##of##_at_nothrow, (void *p, size_t align, const void *no), (p, align, no), \
		at(p, align)) \
	DELETE(delete_##of##_sized_at, (void *p, size_t n, size_t align), (p, n, align), \
		sized_at(p, n, align))
BOTH(one)
BOTH(array)
