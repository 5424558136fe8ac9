/* A server for simulated days, a step each five minutes: workers take requests, each a burst of
 * blocks that live as long as it does, but for some that stay in a cache until they are minutes
 * to hours old and are dropped by whichever worker finds them. At night hardly anybody calls. */
#include "footprint.h"

enum { WORKERS = 4, DAYS = 3, DAY = 288, LONGEST = 1024, STORE = 1 << 14 };
typedef struct { Block block; unsigned until; } Kept;
static Kept *cache[WORKERS];
static Block *bursts[WORKERS];
static pthread_barrier_t barrier;

static size_t request_size(Random *random)
{
	size_t kind = below(random, 100);
	if (kind < 70) return 8 + below(random, 250);
	if (kind < 95) return 200 + below(random, 4000);
	if (kind < 99) return 4000 + below(random, 60000);
	return 60000 + below(random, 400000);
}

static void step(unsigned number, unsigned now, Random *random)
{
	unsigned hour = now % DAY / 12;
	size_t busy = hour < 6 ? 0 : hour < 9 || hour > 20 ? 2 : 8;
	size_t requests = busy ? busy * most / (32 * MB) : now % 6 == 0;
	for (size_t r = 0; r < requests; r++) {
		size_t count = 20 + below(random, 180);
		for (size_t i = 0; i < count; i++) bursts[number][i] = get(request_size(random));
		for (size_t i = 0; i < count; i++) {
			Kept *place = cache[number] + below(random, STORE);
			if (bursts[number][i].n < 60000 && below(random, 3) == 0 && !place->block.at) {
				place->block = bursts[number][i];
				place->until = now + 1 + (unsigned)below(random, below(random, 8) ? 6 : 60);
			} else {
				put(bursts[number] + i);
			}
		}
	}
	/* Sweep another worker's cache. */
	Kept *other = cache[(number + now) % WORKERS];
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < STORE; i++)
		if (other[i].block.at && other[i].until <= now) put(&other[i].block);
	pthread_barrier_wait(&barrier);
}

static void work(unsigned number)
{
	Random random = random_from(number);
	for (unsigned now = 0; now < DAYS * DAY; now++) {
		step(number, now, &random);
		if (number == 0 && now % 2 == 0) {
			/* Before dawn, when the last of the day before has long gone. */
			if (now > DAY && now % DAY == 70) thin();
			else sample();
		}
		pthread_barrier_wait(&barrier);
	}
	for (size_t i = 0; i < STORE; i++) put(&cache[number][i].block);
}

int main(int argc, char **argv)
{
	begin(argc, argv, 64 * MB);
	static Worker workers[WORKERS];
	CHECK(!pthread_barrier_init(&barrier, NULL, WORKERS));
	for (unsigned i = 0; i < WORKERS; i++) {
		cache[i] = table(STORE * sizeof **cache);
		bursts[i] = table(LONGEST * sizeof **bursts);
	}
	for (unsigned i = 0; i < WORKERS; i++) start_worker(workers + i, i, work);
	for (unsigned i = 0; i < WORKERS; i++) await_worker(workers + i);
	finish();
}
