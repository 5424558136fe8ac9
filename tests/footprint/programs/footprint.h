/* What the footprint workloads share. A workload takes and gives back blocks through this header,
 * which therefore knows the live bytes at every moment, and the most that a heap of byssal may
 * have needed for them. Its own tables and the stacks of its threads are shared mappings, so that
 * the process's anonymous memory is the allocator's (and libc's) alone. */
#ifndef FOOTPRINT_H
#define FOOTPRINT_H

#include "../../programs/check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#define OWNERS 128
#define CLASSES 48
/* Samples that are kept for the picture. */
#define SAMPLES 4096

typedef struct {
	char *at;
	size_t n;
	/* The thread whose heap it came from, and its class (CLASSES: pages of its own). */
	unsigned short owner, class;
	/* Bytes of pages that it has of its own. */
	size_t pages;
} Block;

typedef struct { atomic_long live, peak; } Use;

static struct {
	Use use[OWNERS][CLASSES];
	struct { size_t live, footprint, bound; } sample[SAMPLES];
} *shared;
static atomic_size_t live_bytes, own_pages, most_pages, frees_in_row;
static atomic_uint owners;
static __thread unsigned me;
static size_t start_bytes, samples, max_live, max_footprint, thin_live, thin_footprint;
static size_t bound_share;
/* Live bytes that a workload builds up to; bytes behind a block at least, and blocks in
 * quarantine, both more in the hardened preset. */
static size_t most, guard = 1, quarantined;
static int quick;

/* Memory of the workload's own, zero. */
static void *table(size_t bytes)
{
	void *at = mmap(0, bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(at != MAP_FAILED);
	return at;
}

/* Bytes of anonymous memory of this process. */
static size_t anonymous_bytes(void)
{
	static char text[8192];
	int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
	if (fd < 0) skip("no /proc/self/smaps_rollup");
	size_t have = 0;
	ssize_t n;
	while ((n = read(fd, text + have, sizeof text - 1 - have)) > 0) have += (size_t)n;
	close(fd);
	text[have] = 0;
	char *line = strstr(text, "\nAnonymous:");
	CHECK(line);
	return (size_t)strtoull(line + 11, NULL, 10) * KB;
}

/* ---- The bound of src/heap/lib.rs ----------------------------------------------------------- */

/* Bytes of a slot of a class, as src/heap/base/size_class.rs defines them. */
static size_t stride(unsigned class)
{
	if (class < 8) return (class + 1) * 16;
	return ((size_t)64 << (class - 8) / 4) / (7 - (class - 8) % 4) * 16;
}

/* The class of n bytes at a multiple of align, CLASSES if it has pages of its own. */
static unsigned class_of(size_t n, size_t align)
{
	unsigned class = 0;
	if (align > 2048) return CLASSES;
	for (; class < CLASSES; class++) {
		size_t slot = stride(class);
		if (slot >= n + guard && slot % align == 0 && (align <= 512 || !(slot & (slot - 1)))) break;
	}
	/* From a few pages on, whole pages waste less. */
	size_t pages = (n + 4095) & ~(size_t)4095;
	return align > 16 && class < CLASSES && stride(class) > pages && stride(class) >= 4096
		? CLASSES : class;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Most slots in groups that are not empty, of one thread's heap and class: no more groups than live
 * blocks, the reuse queue and the current group hold. Never more than twice the peak and a
 * group. */
static size_t slots_in_use(unsigned owner, unsigned class)
{
	size_t each = class < 18 ? 32 : smaller(16, 128 * KB / stride(class));
	long live = shared->use[owner][class].live, peak = shared->use[owner][class].peak;
	if (!peak) return 0;
	if (!each) each = 1;
	size_t groups = (size_t)(live < 0 ? 0 : live) + quarantined + 17;
	return smaller(2 * ((size_t)peak + quarantined) + 32, groups * each);
}

/* Most bytes of a heap's empty groups: 256 KiB, a sixteenth of all its groups, and the group
 * that makes it too many. */
static size_t empty_bytes(unsigned owner)
{
	size_t used = 0;
	for (unsigned class = 0; class < CLASSES; class++)
		used += slots_in_use(owner, class) * stride(class);
	return used ? (used + used / 4) / 15 + 512 * KB : 0;
}

/* Most slots that the heaps of all threads have of a class. */
static size_t most_slots(unsigned class)
{
	size_t sum = 0;
	for (unsigned owner = 0; owner < owners; owner++) {
		size_t used = slots_in_use(owner, class);
		size_t ever = 2 * ((size_t)shared->use[owner][class].peak + quarantined) + 32;
		if (used) sum += smaller(ever, used + empty_bytes(owner) / stride(class));
	}
	return sum;
}

/* Most bytes that byssal may hold now, see docs/footprint.md. */
static size_t most_bytes(void)
{
	size_t slots = 0, in_spans = 0;
	for (unsigned owner = 0; owner < owners; owner++) {
		for (unsigned class = 0; class < CLASSES; class++) {
			size_t bytes = slots_in_use(owner, class) * stride(class);
			slots += bytes + bytes / 8;
			if (stride(class) <= 8 * KB) in_spans += bytes;
		}
		slots += empty_bytes(owner);
	}
	/* Spans that had no place, records, pages and mappings that wait. */
	size_t used = slots + in_spans / 4 + owners * 17 * 32 * KB;
	used += used / 64;
	size_t again = most_pages >> smaller(larger(frees_in_row, 2) - 2, 63);
	size_t large = own_pages + larger(own_pages / 12 + 640 * KB, again);
	return used + used / 16 + used / 4 + 5 * MB + large + owners * 32 * KB + 256 * KB;
}

/* ---- Blocks --------------------------------------------------------------------------------- */

static void took(Block *block, size_t n, size_t align)
{
	CHECK(block->at);
	block->n = n;
	block->owner = (unsigned short)me;
	block->class = (unsigned short)class_of(n, align);
	block->pages = block->class == CLASSES ? (n + 4096) & ~(size_t)4095 : 0;
	live_bytes += n;
	own_pages += block->pages;
	if (block->pages) {
		most_pages = larger(most_pages, own_pages);
		frees_in_row = 0;
	}
	if (block->class < CLASSES) {
		Use *use = &shared->use[me][block->class];
		long live = ++use->live;
		if (live > use->peak) use->peak = live;
	}
}

static void gave(Block *block)
{
	live_bytes -= block->n;
	own_pages -= block->pages;
	/* A page-aligned block that is shorter has no mapping of its own. */
	if (block->n > 128 * KB) frees_in_row++;
	if (block->class < CLASSES) shared->use[block->owner][block->class].live--;
}

/* Every byte is touched; the first and the last are looked at again. */
static MAYBE_UNUSED Block get_aligned(size_t n, size_t align)
{
	Block block = { .at = align > 16 ? aligned_alloc(align, n) : malloc(n) };
	took(&block, n, align);
	/* Some give blocks below 16 bytes only 8. */
	CHECK(aligned(block.at, align > 16 || n >= 16 ? align : 8));
	memset(block.at, (int)(n % 251 + 1), n);
	return block;
}

static MAYBE_UNUSED Block get(size_t n)
{
	return get_aligned(n, 16);
}

static MAYBE_UNUSED void look(Block *block)
{
	char want = (char)(block->n % 251 + 1);
	CHECK(block->at[0] == want && block->at[block->n - 1] == want);
}

static MAYBE_UNUSED void put(Block *block)
{
	if (!block->at) return;
	look(block);
	gave(block);
	free(block->at);
	block->at = NULL;
}

static MAYBE_UNUSED void resize(Block *block, size_t n)
{
	look(block);
	gave(block);
	block->at = realloc(block->at, n);
	took(block, n, 16);
	memset(block->at, (int)(n % 251 + 1), n);
}

/* ---- Moments -------------------------------------------------------------------------------- */

/* Looks at the footprint; to be called often, at steps that do not depend on the allocator. */
static MAYBE_UNUSED size_t sample(void)
{
	size_t live = live_bytes, now = over(anonymous_bytes(), start_bytes), bound = most_bytes();
	if (live > max_live) max_live = live;
	if (now > max_footprint) max_footprint = now;
	size_t share = now * 1000 / bound;
	if (share > bound_share) bound_share = share;
	if (samples < SAMPLES) {
		shared->sample[samples].live = live;
		shared->sample[samples].footprint = now;
		shared->sample[samples++].bound = bound;
	}
	return now;
}

/* The same where little is live and much was: the worst such moment is reported. */
static MAYBE_UNUSED void thin(void)
{
	size_t now = sample(), live = live_bytes;
	CHECK(live);
	if (!thin_live || now / 256 * (thin_live / 256) > thin_footprint / 256 * (live / 256)) {
		thin_live = live;
		thin_footprint = now;
	}
}

static char line[200];

static void say_value(const char *name, size_t value)
{
	append(line, sizeof line, name);
	append_number(line, sizeof line, value);
}

static void say_line(void)
{
	append(line, sizeof line, "\n");
	say_to(1, line);
	*line = 0;
}

/* With libbyssal: the slots that its heaps have, class by class, against the bound. */
extern int byssal_dump_heap(FILE *) __attribute__((weak));

static MAYBE_UNUSED void check_slots(void)
{
	if (!byssal_dump_heap) return;
	static char text[MB];
	FILE *file = tmpfile();
	CHECK(file);
	CHECK(byssal_dump_heap(file) == 0);
	size_t have[CLASSES] = {0}, class, slots;
	rewind(file);
	while (fgets(text, sizeof text, file))
		if (sscanf(text, "class heap=%*u class=%zu stride=%*u slots=%zu", &class, &slots) == 2)
			have[class] += slots;
	fclose(file);
	for (unsigned i = 0; i < CLASSES; i++)
		/* stdio, thread stacks and the like have some blocks too. */
		if (have[i] > most_slots(i) + 40) {
			say_value("broken class=", i);
			say_value(" slots=", have[i]);
			say_value(" bound=", most_slots(i));
			say_line();
		}
}

/* To be called first: workload [quick] [hardened]. */
static MAYBE_UNUSED void begin(int argc, char **argv, size_t full)
{
	for (int i = 1; i < argc; i++) {
		quick |= !strcmp(argv[i], "quick");
		if (!strcmp(argv[i], "hardened")) {
			guard = 8;
			quarantined = 128;
		}
	}
	most = quick ? full / 8 : full;
	owners = 1;
	shared = table(sizeof *shared);
	start_bytes = anonymous_bytes();
}

/* A little work for 30 ms: whoever gives back at times must have had the occasion. */
static MAYBE_UNUSED void idle_on(void)
{
	static void *volatile few[32];
	for (int round = 0; round < 30; round++) {
		for (size_t i = 0; i < COUNT(few); i++) CHECK(few[i] = malloc(100 * (i + 1)));
		for (size_t i = 0; i < COUNT(few); i++) free(few[i]);
		void *volatile large = malloc(200000);
		free(large);
		usleep(1000);
	}
}

/* To be called last, when everything was freed and all other threads have ended. */
static MAYBE_UNUSED void finish(void)
{
	CHECK2(live_bytes == 0, live_bytes, 0);
	size_t at_once = sample();
	idle_on();
	size_t left = sample();
	check_slots();
	for (size_t i = 0; i < samples; i++) {
		say_value("sample live=", shared->sample[i].live);
		say_value(" footprint=", shared->sample[i].footprint);
		say_value(" bound=", shared->sample[i].bound);
		say_line();
	}
	say_value("peak live=", max_live);
	say_value(" footprint=", max_footprint);
	say_line();
	if (thin_live) {
		say_value("thin live=", thin_live);
		say_value(" footprint=", thin_footprint);
		say_line();
	}
	say_value("freed footprint=", left);
	say_value(" at_once=", at_once);
	say_line();
	say_value("bound share=", bound_share);
	say_line();
}

/* ---- Threads -------------------------------------------------------------------------------- */

#define STACK (256 * KB)

typedef struct {
	void (*work)(unsigned);
	unsigned number;
	pthread_t id;
	char *stack;
} Worker;

static void *work_of(void *arg)
{
	Worker *worker = arg;
	me = owners++;
	CHECK(me < OWNERS);
	worker->work(worker->number);
	return NULL;
}

static MAYBE_UNUSED void start_worker(Worker *worker, unsigned number, void (*work)(unsigned))
{
	pthread_attr_t attributes;
	if (!worker->stack) worker->stack = table(STACK);
	worker->work = work;
	worker->number = number;
	CHECK(!pthread_attr_init(&attributes));
	CHECK(!pthread_attr_setstack(&attributes, worker->stack, STACK));
	CHECK(!pthread_create(&worker->id, &attributes, work_of, worker));
	pthread_attr_destroy(&attributes);
}

static MAYBE_UNUSED void await_worker(Worker *worker)
{
	CHECK(!pthread_join(worker->id, NULL));
}

#endif
