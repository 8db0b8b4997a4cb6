/*-------------------------------------------------------------------------
 *
 * change.c
 *	  The log of what this transaction has changed; see change.h.
 *
 * Subtransactions are kept as marks, so that neither a savepoint nor its
 * release costs more for what was logged before:
 *
 *	 entries   0 . . . . . a . . . . b . . . end
 *	 marks                 (level 2, a) (level 4, b)
 *
 * Entries from b on were made at level 4, those from a on at level 2 (or at
 * levels that have become part of it).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/change.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/text.h"
#include "types/operators.h"

typedef struct Mark
{
	int			level;
	uint64		start;
} Mark;

/* A name, and its number. */
typedef struct NameEntry
{
	Span		name;
	uint32		number;
	char		status;
} NameEntry;

#define SH_PREFIX nameset
#define SH_ELEMENT_TYPE NameEntry
#define SH_KEY_TYPE Span
#define SH_KEY name
#define SH_HASH_KEY(table, key) \
	((uint32) hash_bytes_xxh3((key).data, (key).len, MyProcPid))
#define SH_EQUAL(table, a, b) span_equal(a, b)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* All of these go with the transaction. */
static MemoryContext context = NULL;
static Change *changes;
static uint64 nchanges;
static uint64 max_changes;
static Mark *marks;
static int	nmarks;
static int	max_marks;
static char **names;			/* numbers into it are one higher */
static nameset_hash *numbers;
static uint32 nnames;
static uint32 max_names;

static void
start(void)
{
	MemoryContext old;

	if (context)
		return;
	context = AllocSetContextCreate(TopTransactionContext, "narinfo changes",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	nchanges = 0;
	nmarks = 0;
	nnames = 0;
	max_changes = 64;
	max_marks = 8;
	max_names = 8;
	changes = palloc(sizeof(Change) * max_changes);
	marks = palloc(sizeof(Mark) * max_marks);
	names = palloc(sizeof(char *) * max_names);
	numbers = nameset_create(context, max_names, NULL);
	MemoryContextSwitchTo(old);
}

static uint32
add_name(const char *name, size_t len)
{
	if (nnames == max_names)
	{
		max_names *= 2;
		names = repalloc(names, sizeof(char *) * max_names);
	}
	names[nnames] = MemoryContextAlloc(context, len + 1);
	memcpy(names[nnames], name, len);
	names[nnames][len] = '\0';
	return ++nnames;
}

/* The one that was used last is looked at first. */
static uint32
intern(const char *name, size_t len, uint32 *latest)
{
	NameEntry  *entry;
	bool		found;

	start();
	if (*latest > 0 && *latest <= nnames &&
		strlen(names[*latest - 1]) == len &&
		memcmp(names[*latest - 1], name, len) == 0)
		return *latest;
	entry = nameset_insert(numbers, span_of(name, len), &found);
	if (!found)
	{
		entry->number = add_name(name, len);
		entry->name = span_of(names[entry->number - 1], len);
	}
	*latest = entry->number;
	return *latest;
}

uint32
change_cache(const char *name, size_t len)
{
	static uint32 latest = 0;

	return intern(name, len, &latest);
}

uint32
change_name_number(const char *name, size_t len)
{
	static uint32 latest = 0;

	return intern(name, len, &latest);
}

const char *
change_cache_name(uint32 cache)
{
	return names[cache - 1];
}

const char *
change_name(uint32 name)
{
	return name == 0 ? NULL : names[name - 1];
}

Change *
change_append(void)
{
	int			level = GetCurrentTransactionNestLevel();

	start();
	if (level > 1 && (nmarks == 0 || marks[nmarks - 1].level < level))
	{
		if (nmarks == max_marks)
		{
			max_marks *= 2;
			marks = repalloc(marks, sizeof(Mark) * max_marks);
		}
		marks[nmarks].level = level;
		marks[nmarks++].start = nchanges;
	}
	if (nchanges == max_changes)
	{
		max_changes *= 2;
		changes = repalloc_huge(changes, sizeof(Change) * max_changes);
	}
	memset(&changes[nchanges], 0, sizeof(Change));
	return &changes[nchanges++];
}

uint64
change_count(void)
{
	return context ? nchanges : 0;
}

Change *
change_all(void)
{
	return changes;
}

MemoryContext
change_context(void)
{
	start();
	return context;
}

void
change_clear(void)
{
	nchanges = 0;
	nmarks = 0;
}

void
change_subcommit(int level)
{
	if (context == NULL || nmarks == 0 || marks[nmarks - 1].level < level)
		return;
	/* the level below has them now, with those it had already */
	if (level == 2 || (nmarks > 1 && marks[nmarks - 2].level == level - 1))
		nmarks--;
	else
		marks[nmarks - 1].level = level - 1;
}

void
change_subabort(int level)
{
	if (context == NULL)
		return;
	while (nmarks > 0 && marks[nmarks - 1].level >= level)
		nchanges = marks[--nmarks].start;
}

void
change_forget(void)
{
	/* its memory went with the transaction's, or will */
	context = NULL;
	nchanges = 0;
	nmarks = 0;
}
