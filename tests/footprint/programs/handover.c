/* One thread makes all blocks and waits; another one frees them, all but a thousandth, and makes as
 * many of its own: a program that reads its input and leaves the rest to workers. */
#include "footprint.h"

static Block *blocks;
static size_t count;

static void work(unsigned number)
{
	Random random = random_from(number);
	for (size_t i = 0; i < count; i++)
		if (i % 1000) put(blocks + i);
	thin();
	for (size_t i = 0; i < count && live_bytes < most; i++)
		if (i % 1000) blocks[i] = get(random_size(&random) / 8 + 1);
	sample();
	for (size_t i = 0; i < count; i++)
		if (i % 1000) put(blocks + i);
}

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	static Worker worker;
	Random random = random_from(0);
	blocks = table(most / 16 * sizeof *blocks);
	while (live_bytes < most) blocks[count++] = get(random_size(&random) / 8 + 1);
	sample();
	start_worker(&worker, 1, work);
	await_worker(&worker);
	thin();
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
