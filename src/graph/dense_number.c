/*-------------------------------------------------------------------------
 *
 * dense_number.c
 *	  Numbers for hashes, in the order in which they come; see dense.h.
 *
 * A table of slots with open addressing: a slot is 0, or one more than a
 * number, which needs id_bits of it.  The bits above are some of the key's, so
 * that hardly ever a hash is looked at that is another one.  The key has a
 * seed, since whoever publishes chooses the hashes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/dense_private.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"

#define LOAD		0.85		/* of the slots are used at most */
#define SLOTS_AHEAD 1.3			/* of the room, when all are filled again */
#define TOO_MANY	1.1			/* times as many slots as are needed */

static inline bool
is_same(const uint8 *a, const uint8 *b)
{
	uint64		x[2];
	uint64		y[2];
	uint32		u;
	uint32		v;

	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	memcpy(&u, a + sizeof(x), sizeof(u));
	memcpy(&v, b + sizeof(y), sizeof(v));
	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (u ^ v)) == 0;
}

/* Its number, or DENSE_NONE and the slot where it belongs. */
static inline uint32
search(const Dense *dense, const uint8 *hash, uint64 key, uint32 *at)
{
	uint32		id_mask = dense_id_mask(dense);
	uint32		tag = dense_tag(dense, key);
	uint32		i = dense_home(dense, key);

	for (;;)
	{
		uint32		slot = dense->slots[i];

		if (slot == 0)
		{
			*at = i;
			return DENSE_NONE;
		}
		if (((slot ^ tag) & ~id_mask) == 0)
		{
			uint32		number = (slot & id_mask) - 1;

			if (is_same(dense->hashes[number].bytes, hash))
				return number;
		}
		if (++i == dense->nslots)
			i = 0;
	}
}

/* Slots for so many numbers, and those there are in them. */
static void
fill_slots(Dense *dense, uint32 numbers)
{
	Size		bytes;

	if (dense->slots != NULL)
	{
		dense->memory -= sizeof(uint32) * (Size) dense->nslots;
		pfree(dense->slots);
	}
	dense->numbers = numbers;
	dense->nslots = (uint32) (numbers / LOAD) + 16;
	dense->id_bits = pg_leftmost_one_pos32(Max(numbers, 1)) + 1;
	bytes = sizeof(uint32) * (Size) dense->nslots;
	dense->slots = dense_resize(dense, NULL, 0, bytes);
	memset(dense->slots, 0, bytes);
	for (uint32 i = 0; i < dense->n; i++)
	{
		uint64		key = dense_key(dense, dense->hashes[i].bytes);
		uint32		at = dense_home(dense, key);

		if (i % REPORT_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		while (dense->slots[at] != 0)
			at = at + 1 == dense->nslots ? 0 : at + 1;
		dense->slots[at] = dense_tag(dense, key) | (i + 1);
	}
}

static void *
resize(Dense *dense, void *array, Size bytes_each, uint32 room)
{
	return dense_resize(dense, array, bytes_each * dense->room,
						bytes_each * room);
}

static void
resize_arrays(Dense *dense, uint32 room)
{
	dense->hashes = resize(dense, dense->hashes, sizeof(PathHash), room);
	dense->refs = resize(dense, dense->refs, sizeof(uint64), room);
	dense->sizes = resize(dense, dense->sizes, 2 * SIZE_BYTES, room);
	dense->when = resize(dense, dense->when, sizeof(TimestampTz), room);
	dense->room = room;
}

void
dense_make_room(Dense *dense, double paths)
{
	uint32		room = (uint32) Min(paths, PATHS_MAX - 2);

	if (dense->n >= PATHS_MAX - 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cache \"%s\" has more paths than can be counted",
						dense->cache)));
	resize_arrays(dense, room);
	if (dense->numbers < room)
		fill_slots(dense, dense->n == 0 ? room :
				   Max(room, (uint32) Min(room * SLOTS_AHEAD, PATHS_MAX - 2)));
}

uint32
dense_number(Dense *dense, const uint8 *hash, uint64 key)
{
	uint32		at = 0;
	uint32		number = search(dense, hash, key, &at);

	if (number != DENSE_NONE)
		return number;
	if (dense->n == dense->room)
	{
		dense_make_room(dense, dense->room + dense->room / 8 + 1024);
		(void) search(dense, hash, key, &at);
	}
	number = dense->n++;
	memcpy(dense->hashes[number].bytes, hash, STORE_HASH_LEN);
	dense->refs[number] = 0;
	dense->slots[at] = dense_tag(dense, key) | (number + 1);
	return number;
}

void
dense_number_again(Dense *dense)
{
	bool		taken = dense->rows != dense->n;

	dense->n = dense->rows;
	resize_arrays(dense, dense->n);
	if (taken || dense->numbers > dense->n * TOO_MANY + 64)
		fill_slots(dense, dense->n);
}

uint32
dense_find(const Dense *dense, const uint8 hash[STORE_HASH_LEN])
{
	uint32		at;

	return search(dense, hash, dense_key(dense, hash), &at);
}
