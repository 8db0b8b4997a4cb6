/*-------------------------------------------------------------------------
 *
 * walk.c
 *	  Walking the graph of a cache along references and against them; see
 *	  walk.h.
 *
 *	  nodes		| hash, from, depth | hash, from, depth | ...		in the
 *				  order in which they were met, which is that of a walk: it
 *				  is its own queue
 *	  numbers	a hash table of numbers, which finds a node by its hash
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/referrer.h"
#include "types/operators.h"

/*
 * A number whose node has the hash that is looked for is its own key, so that
 * no hash is kept twice.  Whoever publishes chooses the hashes, hence a seed.
 */
typedef struct NumberEntry
{
	uint32		number;
	uint32		hash;
	char		status;
} NumberEntry;

#define NODE_OF(table, number) \
	(&((Walk *) (table)->private_data)->nodes[number])

#define SH_PREFIX numbers
#define SH_ELEMENT_TYPE NumberEntry
#define SH_KEY_TYPE uint32
#define SH_KEY number
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) ((entry)->hash)
#define SH_HASH_KEY(table, key) \
	((uint32) hash_bytes_xxh3(NODE_OF(table, key)->hash, STORE_HASH_LEN, \
							  MyProcPid))
#define SH_EQUAL(table, a, b) \
	(memcmp(NODE_OF(table, a)->hash, NODE_OF(table, b)->hash, \
			STORE_HASH_LEN) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define NODES_FIRST 64

Walk *
walk_begin(const char *cache)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo walk",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Walk	   *walk = palloc0(sizeof(Walk));

	cache_require(cache, &walk->cache);
	walk->scan = valid_path_begin();
	if (walk->scan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table narinfo.valid_path is missing")));
	walk->context = context;
	walk->row_context = AllocSetContextCreate(context, "narinfo walk row",
											  ALLOCSET_DEFAULT_SIZES);
	walk->size = NODES_FIRST;
	walk->nodes = palloc(sizeof(WalkNode) * walk->size);
	walk->numbers = numbers_create(context, NODES_FIRST, walk);
	MemoryContextSwitchTo(old);
	return walk;
}

void
walk_end(Walk *walk)
{
	valid_path_end(walk->scan);
	MemoryContextDelete(walk->context);
}

/* There is always room for one node more, where a hash is put to be sought. */
static void
make_room(Walk *walk)
{
	if (walk->n + 1 < walk->size)
		return;
	if (walk->size > PG_UINT32_MAX / 4)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %u paths to walk", walk->size)));
	walk->size *= 2;
	walk->nodes = repalloc_huge(walk->nodes, sizeof(WalkNode) * walk->size);
}

uint32
walk_meet(Walk *walk, const uint8 *hash, uint32 from)
{
	NumberEntry *entry;
	WalkNode   *node;
	bool		found;

	make_room(walk);
	node = &walk->nodes[walk->n];
	memcpy(node->hash, hash, STORE_HASH_LEN);
	entry = numbers_insert(walk->numbers, walk->n, &found);
	if (found)
		return entry->number;
	node->from = from == WALK_START ? walk->n : from;
	node->depth = from == WALK_START ? 0 : walk->nodes[from].depth + 1;
	return walk->n++;
}

bool
walk_has(Walk *walk, const uint8 *hash)
{
	make_room(walk);
	memcpy(walk->nodes[walk->n].hash, hash, STORE_HASH_LEN);
	return numbers_lookup(walk->numbers, walk->n) != NULL;
}

/* Without checking, "info" may be anything that somebody wrote to disk. */
static void
check(const struct varlena *info)
{
	if (!packed_check(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
}

struct varlena *
walk_find(Walk *walk, const uint8 *hash)
{
	MemoryContext old;
	struct varlena *info;

	MemoryContextReset(walk->row_context);
	old = MemoryContextSwitchTo(walk->row_context);
	info = valid_path_find(walk->scan, walk->cache.name, hash);
	MemoryContextSwitchTo(old);
	if (info)
		check(info);
	return info;
}

/*-------------------------------------------------------------------------
 * Where a walk begins
 *-------------------------------------------------------------------------
 */

static bool
is_path_of(const struct varlena *info, const StorePath *path)
{
	PackedRefs	refs;
	StorePath	own;

	return info && packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info),
							   &refs, &own) &&
		span_equal(own.name, path->name) && span_equal(own.dir, path->dir);
}

bool
walk_start(Walk *walk, StorePath path)
{
	if (!is_path_of(walk_find(walk, path.hash), &path))
		return false;
	(void) walk_meet(walk, path.hash, WALK_START);
	return true;
}

static char *
path_text(const StorePath *path)
{
	char	   *text = palloc0(store_path_len(path) + 1);

	store_path_print(path, text);
	return text;
}

uint32
walk_require(Walk *walk, StorePath path)
{
	if (!walk_start(walk, path))
	{
		struct varlena *info = walk_find(walk, path.hash);
		StorePath	other = {0};

		if (info)
			other = store_path_parts((struct varlena *)
									 DatumGetPointer(walk_path(info)));
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_BEHIND),
				 errmsg("%s is not valid in cache \"%s\"", path_text(&path),
						walk->cache.name),
				 info ? errdetail("The path with its hash is %s.",
								  path_text(&other)) : 0));
	}
	return walk_meet(walk, path.hash, WALK_START);
}

/*-------------------------------------------------------------------------
 * Along the references
 *-------------------------------------------------------------------------
 */

void
walk_references(Walk *walk, WalkVisitor visit, void *arg)
{
	for (uint32 number = 0; number < walk->n; number++)
	{
		struct varlena *info;
		const uint8 *packed;

		CHECK_FOR_INTERRUPTS();
		info = walk_find(walk, walk->nodes[number].hash);
		if (info == NULL)
			continue;
		if (!visit(arg, number, info))
			return;
		packed = NARINFO_PACKED(info);
		for (uint32 i = 0; i < packed_nrefs(packed); i++)
			(void) walk_meet(walk, packed_ref(packed, i), number);
	}
}

/*-------------------------------------------------------------------------
 * Against them, level by level
 *-------------------------------------------------------------------------
 */

typedef struct Climb
{
	Walk	   *walk;
	WalkVisitor visit;
	void	   *arg;
	bool		go_on;
} Climb;

static void
climb_to(void *arg, const uint8 *ref, const struct varlena *info)
{
	Climb	   *climb = arg;
	Walk	   *walk = climb->walk;
	uint32		n = walk->n;
	uint32		number;

	CHECK_FOR_INTERRUPTS();
	if (!climb->go_on)
		return;
	check(info);
	number = walk_meet(walk, packed_store_hash(NARINFO_PACKED(info)),
					   walk_meet(walk, ref, WALK_START));
	if (number == n)
		climb->go_on = climb->visit(climb->arg, number, info);
}

void
walk_referrers(Walk *walk, WalkVisitor visit, void *arg)
{
	Climb		climb = {.walk = walk, .visit = visit, .arg = arg,
	.go_on = true};
	MemoryContext level = AllocSetContextCreate(walk->context,
												"narinfo walk level",
												ALLOCSET_DEFAULT_SIZES);
	uint32		begin = 0;

	while (climb.go_on && begin < walk->n)
	{
		MemoryContext old = MemoryContextSwitchTo(level);
		uint64		n = walk->n - begin;
		uint8	   *hashes = MemoryContextAllocHuge(level, STORE_HASH_LEN * n);
		const uint8 **pointers = MemoryContextAllocHuge(level,
														sizeof(uint8 *) * n);

		/* copies, since the nodes move when there are more of them */
		for (uint64 i = 0; i < n; i++)
		{
			uint8	   *hash = hashes + STORE_HASH_LEN * i;

			memcpy(hash, walk->nodes[begin + i].hash, STORE_HASH_LEN);
			pointers[i] = hash;
		}
		begin = walk->n;
		referrer_visit(walk->cache.name, pointers, n, climb_to, &climb);
		MemoryContextSwitchTo(old);
		MemoryContextReset(level);
	}
	MemoryContextDelete(level);
}

uint32 *
walk_chain(const Walk *walk, uint32 number, int *n)
{
	uint32		length = walk->nodes[number].depth + 1;
	uint32	   *chain = palloc(sizeof(uint32) * length);

	*n = (int) length;
	while (length > 0)
	{
		chain[--length] = number;
		number = walk->nodes[number].from;
	}
	return chain;
}

/*-------------------------------------------------------------------------
 * Values
 *-------------------------------------------------------------------------
 */

struct varlena **
walk_array(ArrayType *array, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	struct varlena **paths;
	int			count;
	int16		len;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(ARR_ELEMTYPE(array), &len, &by_value, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), len, by_value, align,
					  &elements, &nulls, &count);
	paths = palloc(sizeof(struct varlena *) * (count + 1));
	*n = 0;
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i])
			paths[(*n)++] = PG_DETOAST_DATUM_PACKED(elements[i]);
	}
	return paths;
}

Datum
walk_path(const struct varlena *info)
{
	PackedRefs	refs;
	StorePath	path;

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	return PointerGetDatum(store_path_make(&path));
}

Datum
walk_node_path(Walk *walk, uint32 number)
{
	struct varlena *info = walk_find(walk, walk->nodes[number].hash);

	if (info == NULL)
		elog(ERROR, "a path of a walk is gone");
	return walk_path(info);
}

static Datum
size_datum(uint64 size)
{
	return Int64GetDatum((int64) Min(size, (uint64) PG_INT64_MAX));
}

Datum
walk_nar_size(const struct varlena *info)
{
	return size_datum(packed_nar_size(NARINFO_PACKED(info)));
}

Datum
walk_file_size(const struct varlena *info, bool *isnull)
{
	const uint8 *packed = NARINFO_PACKED(info);

	*isnull = !(packed[1] & PACKED_FILE_SIZE);
	return size_datum(packed_file_size(packed));
}

void
walk_put_path(ReturnSetInfo *result, const struct varlena *info, uint32 depth)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = walk_path(info);
	values[1] = Int32GetDatum((int32) depth);
	values[2] = walk_nar_size(info);
	values[3] = walk_file_size(info, &nulls[3]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[0]));
}
