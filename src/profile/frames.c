/* What the unwinder that is linked in asks its libc for, beside musl. */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef __GLIBC__
/* A gcc that is beside glibc brings an unwinder that asks it for the object at an address, and musl
 * has no such function. The layout of the result is what glibc's manual documents. */
struct dl_find_object {
	unsigned long long flags;
	void *start, *end, *link_map, *eh_frame, *eh_dbase, *reserved[7];
};

struct search {
	uintptr_t at;
	struct dl_find_object *found;
};

static int look_at(struct dl_phdr_info *info, size_t len, void *data)
{
	struct search *search = data;
	int is_here = 0;
	void *frames = 0;
	(void)len;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = info->dlpi_phdr + i;
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type == PT_LOAD && search->at - start < segment->p_memsz) {
			is_here = 1;
			search->found->start = (void *)start;
			search->found->end = (void *)(start + segment->p_memsz);
		}
		if (segment->p_type == PT_GNU_EH_FRAME) frames = (void *)start;
	}
	if (is_here) search->found->eh_frame = frames;
	return is_here && frames;
}

__attribute__((visibility("hidden"))) int _dl_find_object(void *at, struct dl_find_object *found)
{
	struct search search = {(uintptr_t)at, found};
	memset(found, 0, offsetof(struct dl_find_object, eh_dbase));
	return dl_iterate_phdr(look_at, &search) ? 0 : -1;
}
#endif
