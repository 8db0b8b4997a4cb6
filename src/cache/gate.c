/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  The gate: what happens to a transaction that has changed a cache, once,
 *	  before it commits.
 *
 *	  statement	 ->	 triggers (collect.c)	 ->	 log in memory (change.c), and
 *						what is published taken together (offered.c)
 *	  ...
 *	  COMMIT	 ->	 the last callback that may still raise an error:
 *						may this server publish?  (node.c)
 *						the row of main, if it has none
 *						lock the caches, in the order of their names
 *						still so?
 *						fresh snapshot
 *						net changes: first old row against last new one
 *						rules (rules.c), with what the session knows (known.c)
 *						events, from the last number on (event.c)
 *						NOTIFY, the caches' hooks
 *						the same again for what a hook has published
 *
 * This comes after all deferred triggers have fired, those that publish
 * included, and costs a transaction nothing in the trigger queue.  The lock
 * is held until the commit is visible, so numbers have no gaps and are in the
 * order of the commits; a transaction that is idle before its COMMIT has no
 * lock and stops nobody.
 *
 * The snapshot is a fresh one whatever the isolation level: what others have
 * committed before we got the lock is part of the cache that we change.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/gate.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "cache/node.h"
#include "cache/offered.h"
#include "cache/policy.h"
#include "types/operators.h"

/* How much older than the last touch a row of touched may be. */
#define TOUCHED_AGE "10 s"

#define CHANNEL "narinfo"		/* of NOTIFY */

/* Paths in one transaction that are many, see known.h. */
#define MANY 1000

/* Transactions whose hooks publish without an end are stopped. */
#define ROUNDS_MAX 16

static bool notify = true;
static bool passing = false;

/* A cache that was passed, and the events that this left. */
typedef struct Passed
{
	const char *cache;
	int64		first;
	int64		last;			/* 0: none */
} Passed;

/*-------------------------------------------------------------------------
 * Locks
 *-------------------------------------------------------------------------
 */

/*
 * An advisory lock of a class that pg_advisory_lock() cannot name; 64 bits of
 * the name's hash.  Two caches that had the same would only wait for each
 * other.
 */
#define LOCK_CLASS 0x4e49

static void
make_tag(const char *cache, LOCKTAG *tag)
{
	uint64		hash = hash_bytes_xxh3(cache, strlen(cache), 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
}

void
gate_lock_cache(const char *cache)
{
	LOCKTAG		tag;

	make_tag(cache, &tag);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
gate_unlock_cache(const char *cache)
{
	LOCKTAG		tag;

	make_tag(cache, &tag);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The names of the caches in the log, each once, in order. */
static int
touched_caches(const char ***names)
{
	const Change *changes = change_all();
	uint64		n = change_count();
	uint32		last = 0;
	int			nnames = 0;
	int			max = 16;

	*names = palloc(sizeof(char *) * max);
	for (uint64 i = 0; i < n; i++)
	{
		const char *name;
		bool		known = false;

		if (changes[i].cache == last)
			continue;
		last = changes[i].cache;
		/* names are interned: the same pointer is the same cache */
		name = change_cache_name(last);
		for (int j = 0; j < nnames && !known; j++)
			known = (*names)[j] == name;
		if (known)
			continue;
		if (nnames == max)
		{
			max *= 2;
			*names = repalloc(*names, sizeof(char *) * max);
		}
		(*names)[nnames++] = name;
	}
	qsort(*names, nnames, sizeof(char *), compare_names);
	return nnames;
}

/*-------------------------------------------------------------------------
 * Net changes
 *-------------------------------------------------------------------------
 */

/* By cache, then row, then time. */
static int
compare_changes(const void *a, const void *b)
{
	const Change *one = a;
	const Change *other = b;
	int			cmp;

	if (one->cache != other->cache)
		return one->cache < other->cache ? -1 : 1;
	if (one->table != other->table)
		return one->table < other->table ? -1 : 1;
	cmp = memcmp(one->key, other->key, sizeof(one->key));
	if (cmp != 0)
		return cmp;
	if (one->name != other->name)
		return one->name < other->name ? -1 : 1;
	if (one->part != other->part)
		return one->part < other->part ? -1 : 1;
	return one->order < other->order ? -1 : one->order > other->order;
}

static bool
same_row(const Change *a, const Change *b)
{
	return a->table == b->table && change_same_key(a, b);
}

/*
 * All that was done to one row as one change.  False if that is nothing at
 * all: it came and went.
 */
static bool
net_change(const Change *changes, uint64 n, Change *net)
{
	bool		first = true;

	*net = changes[0];
	for (uint64 i = 0; i < n; i++)
	{
		if (changes[i].flags & CHANGE_TOUCH)
			continue;
		if (first)
		{
			*net = changes[i];
			first = false;
			continue;
		}
		net->flags &= ~CHANGE_HAS_NEW;
		net->flags |= changes[i].flags & (CHANGE_HAS_NEW | CHANGE_RECHECK |
											CHANGE_OTHER);
		net->new_digest = changes[i].new_digest;
	}
	if (first)
		return true;			/* touched only */
	if ((net->flags & CHANGE_HAS_OLD) && (net->flags & CHANGE_HAS_NEW) &&
		memcmp(&net->old_digest, &net->new_digest, DIGEST_LEN) == 0)
		net->flags |= CHANGE_TOUCH;
	return (net->flags & (CHANGE_HAS_OLD | CHANGE_HAS_NEW)) != 0;
}

/* The log, sorted and with one change a row, in a copy of ours. */
static Change *
net_changes(uint64 *count)
{
	uint64		n = change_count();
	Change	   *changes = palloc_extended(sizeof(Change) * (n + 1),
										  MCXT_ALLOC_HUGE);
	uint64		kept = 0;
	uint64		end;

	memcpy(changes, change_all(), sizeof(Change) * n);
	for (uint64 i = 0; i < n; i++)
		changes[i].order = (uint32) i;
	qsort(changes, n, sizeof(Change), compare_changes);
	for (uint64 i = 0; i < n; i = end)
	{
		Change		net;

		for (end = i + 1; end < n && same_row(&changes[i], &changes[end]);)
			end++;
		if (net_change(changes + i, end - i, &net))
			changes[kept++] = net;
	}
	*count = kept;
	return changes;
}

/*-------------------------------------------------------------------------
 * Events
 *-------------------------------------------------------------------------
 */

static EventKind
kind_of(const Change *change)
{
	const GatedTable *table = &gated_tables[change->table];

	if (!(change->flags & CHANGE_HAS_NEW))
		return table->removed;
	return (change->flags & CHANGE_HAS_OLD) ? table->changed : table->added;
}

static void
apply_digest(const Change *change, RowDigest *digest)
{
	if (change->flags & CHANGE_HAS_OLD)
		digest_add(digest, &change->old_digest);
	if (change->flags & CHANGE_HAS_NEW)
		digest_add(digest, &change->new_digest);
}

/* Does the cache go?  Then that is all there is to tell. */
static const Change *
find_drop(const CacheChanges *cache)
{
	for (uint64 i = 0; i < cache->n; i++)
	{
		const Change *change = &cache->changes[i];

		if (change->table != GATED_CACHE)
			break;				/* it is the first table */
		if (!(change->flags & CHANGE_HAS_NEW))
			return change;
	}
	return NULL;
}

/* Tells the numbers that it gave, from first to last. */
static void
write_events(const CacheChanges *cache, Passed *passed)
{
	const Change *drop = find_drop(cache);
	EventWriter *writer = NULL;
	EventPosition last = cache->last;
	RowDigest	digest;

	for (uint64 i = 0; i < cache->n; i++)
	{
		const Change *change = &cache->changes[i];
		const uint8 *hash = NULL;

		if (change->flags & CHANGE_TOUCH)
			continue;
		if (writer == NULL)
		{
			memcpy(digest.bytes, last.digest, DIGEST_LEN);
			last.epoch = Max(last.epoch, node_epoch());
			writer = event_writer_begin(cache->name, &last);
		}
		apply_digest(change, &digest);
		if (drop)
			continue;
		if (gated_tables[change->table].hash_column)
			hash = change->key;
		passed->last = event_write(writer, kind_of(change), hash,
								   change_name(change->name), digest.bytes);
	}
	if (writer == NULL)
		return;
	if (drop)
		passed->last = event_write(writer, kind_of(drop), NULL, NULL,
								   digest.bytes);
	event_writer_end(writer);
	passed->first = last.seq + 1;
	if (cache->known == NULL)
		return;
	last.seq = passed->last;
	memcpy(last.digest, digest.bytes, DIGEST_LEN);
	known_end(cache->known, &last);
}

static void
tell(const char *cache, int64 seq)
{
	char		payload[CACHE_NAME_MAX + 32];

	if (!notify)
		return;
	snprintf(payload, sizeof(payload), "%s " INT64_FORMAT, cache, seq);
	Async_Notify(CHANNEL, payload);
}

/*-------------------------------------------------------------------------
 * The firing
 *-------------------------------------------------------------------------
 */

/* "main" is there without its row, which the first write to it makes. */
static bool
needs_main(void)
{
	const Change *changes = change_all();
	uint64		n = change_count();
	CacheInfo	info;

	/* what others have told us by now */
	AcceptInvalidationMessages();
	if (!cache_get(CACHE_MAIN, &info) || !info.implied)
		return false;
	for (uint64 i = 0; i < n; i++)
	{
		if (changes[i].table != GATED_CACHE &&
			(changes[i].flags & CHANGE_HAS_NEW) &&
			strcmp(change_cache_name(changes[i].cache), CACHE_MAIN) == 0)
			return true;
	}
	return false;
}

/*
 * Before the locks are taken: another transaction may have made the row and
 * not have come to its end, which needs the lock of main.
 */
static void
ensure_main(void)
{
	if (!needs_main())
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	cache_ensure_row(CACHE_MAIN);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	PopActiveSnapshot();
	CommandCounterIncrement();
}

static void
require_main(void)
{
	if (needs_main())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cache \"%s\" was dropped while it was published into",
						CACHE_MAIN)));
}

/*
 * Our own rows of a cache are written under its lock, so nobody waits for
 * them; the snapshot is ours, so no isolation level sees a conflict in them.
 */
static void
execute_as_owner(const char *query, int nargs, Oid *types, Datum *values)
{
	CacheUser	user = cache_become_owner();
	SPIPlanPtr	plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = SPI_prepare(query, nargs, types);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetActiveSnapshot(),
							 InvalidSnapshot, false, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", query);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	cache_become_user(user);
}

/*
 * Paths that were published as they are: at this time, or up to TOUCHED_AGE
 * earlier.  What is published again and again would else leave a version of
 * its row each time, which all have to be passed as long as somebody has an
 * old snapshot.
 */
static void
write_touched(const CacheChanges *cache)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			types[] = {TEXTOID, catalog->store_hash_array_type};
	Datum		values[2];
	Datum	   *hashes = palloc_extended(sizeof(Datum) * cache->n,
										 MCXT_ALLOC_HUGE);
	int			n = 0;

	for (uint64 i = 0; i < cache->n; i++)
	{
		if (cache->changes[i].table == GATED_VALID_PATH &&
			(cache->changes[i].flags & CHANGE_TOUCH))
			hashes[n++] = PointerGetDatum(cache->changes[i].key);
	}
	if (n == 0)
		return;
	values[0] = CStringGetTextDatum(cache->name);
	values[1] = PointerGetDatum(construct_array(hashes, n,
												catalog->store_hash_type,
												STORE_HASH_LEN, false,
												TYPALIGN_CHAR));
	execute_as_owner("INSERT INTO narinfo.touched (cache, hash, at) "
					 "SELECT $1, h, pg_catalog.clock_timestamp() "
					 "FROM pg_catalog.unnest($2) AS h "
					 "WHERE NOT EXISTS (SELECT FROM narinfo.touched AS t "
					 "WHERE t.cache OPERATOR(pg_catalog.=) $1 "
					 "AND t.hash OPERATOR(narinfo.=) h AND t.at "
					 "OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() "
					 "OPERATOR(pg_catalog.-) '" TOUCHED_AGE "'"
					 "::pg_catalog.interval)) "
					 "ON CONFLICT (cache, hash) DO UPDATE SET at = excluded.at",
					 lengthof(types), types, values);
}

/*
 * Of a cache that goes.  Here and not in drop_cache(), since whoever writes
 * them waits for us with its lock, which we would need.
 */
static void
forget_touched(const CacheChanges *cache)
{
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(cache->name);

	execute_as_owner("DELETE FROM narinfo.touched WHERE cache = $1", 1,
					 &type, &name);
}

/* The known paths without those that go. */
static void
begin_known(CacheChanges *cache)
{
	uint64		npublished = 0;

	for (uint64 i = 0; i < cache->n; i++)
		npublished += is_published(&cache->changes[i]);
	if (npublished == 0 || !cache->exists || !cache->info.require_closure)
		return;
	cache->known = known_begin(cache->name, &cache->last,
							   npublished >= MANY);
	for (uint64 i = 0; i < cache->n; i++)
	{
		if (is_removed(&cache->changes[i]))
			known_remove(cache->known, cache->changes[i].key);
	}
}

/* And those that come. */
static void
complete_known(CacheChanges *cache)
{
	for (uint64 i = 0; cache->known != NULL && i < cache->n; i++)
	{
		if (is_published(&cache->changes[i]))
			known_add(cache->known, cache->changes[i].key);
	}
}

static void
pass_cache(Change *changes, uint64 n, Passed *passed)
{
	CacheChanges cache = {.changes = changes, .n = n};

	cache.name = change_cache_name(changes[0].cache);
	cache.exists = cache_get(cache.name, &cache.info);
	event_read_last(cache.name, &cache.last);
	begin_known(&cache);
	rules_check(&cache);
	complete_known(&cache);
	passed->cache = cache.name;
	passed->last = 0;
	write_events(&cache, passed);
	write_touched(&cache);
	if (!cache.exists)
		forget_touched(&cache);
	if (passed->last > 0)
		tell(cache.name, passed->last);
}

/*
 * The hooks of the caches that were passed.  What their statements defer has
 * to fire here: the transaction's own turn for that is over.
 */
static void
call_hooks(const Passed *passed, int n)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < n; i++)
	{
		if (passed[i].last > 0)
			policy_call_hook(passed[i].cache, passed[i].first,
							 passed[i].last);
	}
	PopActiveSnapshot();
	do
	{
		AfterTriggerFireDeferred();
	} while (PreCommit_Portals(false));
}

/*
 * Everything that has been collected so far, in this memory context.
 */
static void
pass_all(void)
{
	const char **names;
	int			nnames;
	Passed	   *passed;
	int			npassed = 0;
	Change	   *changes;
	uint64		n;
	uint64		end;

	CommandCounterIncrement();
	ensure_main();
	nnames = touched_caches(&names);
	passed = palloc(sizeof(Passed) * (nnames + 1));
	for (int i = 0; i < nnames; i++)
		gate_lock_cache(names[i]);

	/* what others told us before they let go of the lock */
	AcceptInvalidationMessages();
	node_still_publishing();
	require_main();
	PushActiveSnapshot(GetLatestSnapshot());
	changes = net_changes(&n);
	change_clear();
	for (uint64 i = 0; i < n; i = end)
	{
		for (end = i + 1; end < n && changes[end].cache == changes[i].cache;)
			end++;
		pass_cache(changes + i, end - i, &passed[npassed++]);
	}
	offered_forget();
	divergence_write_waiting();
	PopActiveSnapshot();
	call_hooks(passed, npassed);
}

static void
pass(void)
{
	MemoryContext context = AllocSetContextCreate(TopTransactionContext,
												  "narinfo gate",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	/*
	 * A number that somebody has seen must not be given out again after a
	 * crash, to something else.
	 */
	ForceSyncCommit();
	passing = true;
	node_require_publishing();
	for (int round = 1; change_count() > 0; round++)
	{
		if (round > ROUNDS_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("hooks of caches have published %d times in one transaction",
							ROUNDS_MAX)));
		pass_all();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
at_xact_event(XactEvent event, void *arg)
{
	(void) arg;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			node_before_commit();
			if (change_count() > 0)
				pass();
			break;
		case XACT_EVENT_PRE_PREPARE:
			node_before_commit();
			if (change_count() > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed a cache"),
						 errdetail("Its events would take their numbers long before it commits.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			passing = false;
			change_forget();
			offered_forget();
			known_end_transaction(event == XACT_EVENT_COMMIT);
			node_forget_transaction();
			divergence_end(event != XACT_EVENT_ABORT);
			break;
		default:				/* parallel workers change nothing */
			break;
	}
}

static void
at_subxact_event(SubXactEvent event, SubTransactionId mine,
				 SubTransactionId parent, void *arg)
{
	(void) mine;
	(void) parent;
	(void) arg;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		change_subabort(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		change_subcommit(GetCurrentTransactionNestLevel());
}

bool
gate_is_passing(void)
{
	return passing;
}

void
gate_touch(const char *cache, const uint8 hash[STORE_HASH_LEN])
{
	Change		change = {0};

	change.table = GATED_VALID_PATH;
	change.flags = CHANGE_TOUCH;
	change.cache = change_cache(cache, strlen(cache));
	memcpy(change.key, hash, STORE_HASH_LEN);
	*change_append() = change;
}

void
gate_init(void)
{
	DefineCustomBoolVariable("pg_narinfo.notify",
							 "Whether each change of a cache is told by NOTIFY.",
							 "On channel narinfo: the cache and the number of "
							 "its last event.",
							 &notify, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	divergence_init();
	RegisterXactCallback(at_xact_event, NULL);
	RegisterSubXactCallback(at_subxact_event, NULL);
}
