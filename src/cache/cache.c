/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  The rows of narinfo.cache, as every process remembers them.
 *
 * They are few and read with every request, so a process reads them all at
 * once and keeps them until a trigger on the table says, by an invalidation
 * of the table's relcache entry, that one has changed.  Invalidations are
 * sent when the change commits, and reach hot standbys too.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/cache.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "cache/key.h"
#include "cache/node.h"
#include "cache/retention.h"

PG_FUNCTION_INFO_V1(cache_changed);
PG_FUNCTION_INFO_V1(is_cache_name);
PG_FUNCTION_INFO_V1(default_cache);

/* Columns of narinfo.cache */
#define COLUMN_NAME				1
#define COLUMN_STORE_DIR		2
#define COLUMN_PRIORITY			3
#define COLUMN_WANT_MASS_QUERY	4
#define COLUMN_VISIBILITY		5
#define COLUMN_REQUIRE_CLOSURE	6
#define COLUMN_MIN_SIGNATURES	7
#define COLUMN_ON_DIVERGENCE	8
#define NCOLUMNS				8	/* those that are never NULL */
#define COLUMN_FILTER			9
#define COLUMN_HOOK				10
#define COLUMN_SIGN_WITH		11
#define COLUMN_PUSH_COPIES		12
#define COLUMN_PUSH_WAIT		13
#define COLUMN_PUSH_WHEN_LATE	14
#define COLUMN_VISIBLE_COPIES	15

char	   *cache_default_name;

/* What "main" is without its row. */
static const CacheInfo implied_main = {
	CACHE_MAIN, 0, "/nix/store", 40,
	.want_mass_query = true, .require_closure = true, .implied = true
};

/* The beginnings of URLs that are no cache's. */
static const char *const reserved_names[] = {
	"api", "auth", "changes", "debuginfo", "health", "log", "metrics",
	"missing", "nar", "narinfos", "nix-cache-info", "realisations"
};

/* One row; its name is the key. */
typedef struct KnownCache
{
	CacheInfo	info;
	CachePolicies policies;
} KnownCache;

static HTAB *known;				/* by name; in known_context */
static MemoryContext known_context;
static Oid	known_rel;			/* the table they were read from */
static bool known_valid = false;
static uint32 last_number = 0;	/* 0 is that of the implied "main" */

/*-------------------------------------------------------------------------
 * Names
 *-------------------------------------------------------------------------
 */

bool
cache_name_check(const char *name, size_t len)
{
	if (len == 0 || len > CACHE_NAME_MAX ||
		name[0] == '-' || name[0] == '_' ||
		name[len - 1] == '-' || name[len - 1] == '_')
		return false;
	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			  c == '-' || c == '_'))
			return false;
	}
	for (size_t i = 0; i < lengthof(reserved_names); i++)
	{
		if (strlen(reserved_names[i]) == len &&
			memcmp(name, reserved_names[i], len) == 0)
			return false;
	}
	return true;
}

Datum
is_cache_name(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);

	PG_RETURN_BOOL(cache_name_check(VARDATA_ANY(name),
									VARSIZE_ANY_EXHDR(name)));
}

static bool
check_cache_setting(char **value, void **extra, GucSource source)
{
	(void) extra;
	(void) source;
	if (cache_name_check(*value, strlen(*value)))
		return true;
	GUC_check_errdetail("A cache is called by 1 to %d of [a-z0-9_-], and not like the beginning of another URL.",
						CACHE_NAME_MAX);
	return false;
}

Datum
default_cache(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_TEXT_P(cstring_to_text(cache_default_name));
}

void
cache_init(void)
{
	DefineCustomStringVariable("pg_narinfo.cache",
							   "The cache that is meant when none is named.",
							   NULL, &cache_default_name, CACHE_MAIN,
							   PGC_USERSET, 0, check_cache_setting, NULL,
							   NULL);
	key_init();
	retention_init();
	node_init();
}

/*-------------------------------------------------------------------------
 * Reading the rows
 *-------------------------------------------------------------------------
 */

Datum
cache_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("cache_changed() is a trigger function")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}

static void
forget_known(Datum arg, Oid relid)
{
	(void) arg;
	if (relid == InvalidOid || relid == known_rel)
		known_valid = false;
}

static void
copy_label(Oid value, char label[NAMEDATALEN])
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));

	label[0] = '\0';
	if (!HeapTupleIsValid(tuple))
		return;
	strlcpy(label, NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel),
			NAMEDATALEN);
	ReleaseSysCache(tuple);
}

/* A text of at most size - 1 bytes, empty if it is NULL. */
static void
copy_name(TupleTableSlot *slot, int column, char *name, Size size)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	name[0] = '\0';
	if (!isnull)
		strlcpy(name, TextDatumGetCString(value), size);
}

/* A number of a column that is never NULL. */
static int32
read_number(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

/* What who pushes waits for. */
static void
read_push(TupleTableSlot *slot, CachePolicies *policies)
{
	char		label[NAMEDATALEN];
	bool		isnull;
	Interval   *wait;

	policies->push_copies = read_number(slot, COLUMN_PUSH_COPIES);
	wait = DatumGetIntervalP(slot_getattr(slot, COLUMN_PUSH_WAIT, &isnull));
	policies->push_wait = isnull ? 0 :
		(wait->time + wait->day * USECS_PER_DAY) / 1000;
	copy_label(DatumGetObjectId(slot_getattr(slot, COLUMN_PUSH_WHEN_LATE,
											 &isnull)), label);
	policies->refuse_late = strcmp(label, "refuse") == 0;
}

static void
read_policies(TupleTableSlot *slot, const Datum *values,
			  CachePolicies *policies)
{
	char		label[NAMEDATALEN];

	policies->min_signatures = DatumGetInt32(values[COLUMN_MIN_SIGNATURES]);
	copy_label(DatumGetObjectId(values[COLUMN_ON_DIVERGENCE]), label);
	policies->on_divergence =
		strcmp(label, "keep") == 0 ? DIVERGENCE_KEEP :
		strcmp(label, "replace") == 0 ? DIVERGENCE_REPLACE :
		DIVERGENCE_REFUSE;
	copy_name(slot, COLUMN_FILTER, policies->filter,
			  sizeof(policies->filter));
	copy_name(slot, COLUMN_HOOK, policies->hook, sizeof(policies->hook));
	copy_name(slot, COLUMN_SIGN_WITH, policies->sign_with,
			  sizeof(policies->sign_with));
	read_push(slot, policies);
}

static void
read_row(TupleTableSlot *slot)
{
	Datum		values[NCOLUMNS + 1];
	char	   *name;
	KnownCache *cache;
	CacheInfo  *info;
	char		label[NAMEDATALEN];

	for (int i = 1; i <= NCOLUMNS; i++)
	{
		bool		isnull;

		values[i] = slot_getattr(slot, i, &isnull);
		if (isnull)
			return;
	}
	name = TextDatumGetCString(values[COLUMN_NAME]);
	if (strlen(name) > CACHE_NAME_MAX)
		return;
	cache = hash_search(known, name, HASH_ENTER, NULL);
	read_policies(slot, values, &cache->policies);
	info = &cache->info;
	info->number = ++last_number;
	strlcpy(info->store_dir, TextDatumGetCString(values[COLUMN_STORE_DIR]),
			sizeof(info->store_dir));
	info->priority = DatumGetInt32(values[COLUMN_PRIORITY]);
	info->want_mass_query = DatumGetBool(values[COLUMN_WANT_MASS_QUERY]);
	info->require_closure = DatumGetBool(values[COLUMN_REQUIRE_CLOSURE]);
	info->visible_copies = read_number(slot, COLUMN_VISIBLE_COPIES);
	info->implied = false;

	/* what is not surely public is private */
	copy_label(DatumGetObjectId(values[COLUMN_VISIBILITY]), label);
	info->is_private = strcmp(label, "public") != 0;
}

static void
start_known(void)
{
	static bool registered = false;
	HASHCTL		control;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_known, (Datum) 0);
		registered = true;
	}
	if (known_context)
		MemoryContextReset(known_context);
	else
		known_context = AllocSetContextCreate(TopMemoryContext,
											  "narinfo caches",
											  ALLOCSET_SMALL_SIZES);
	control.keysize = CACHE_NAME_MAX + 1;
	control.entrysize = sizeof(KnownCache);
	control.hcxt = known_context;
	known = hash_create("narinfo caches", 16, &control,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/*
 * Read all rows with a snapshot of its own, taken when the invalidations so
 * far have been processed: an older one could miss a change whose
 * invalidation we have already had, and be remembered for ever.  A catalog
 * snapshot, since a parallel query may take no other.
 */
static void
read_rows(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo cache row",
													  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row_context);

	start_known();
	known_rel = relid;
	known_valid = true;
	PG_TRY();
	{
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			read_row(slot);
			MemoryContextReset(row_context);
		}
	}
	PG_CATCH();
	{
		known_valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

static const KnownCache *
find_known(const char *name)
{
	const CacheCatalog *catalog = cache_catalog();

	if (catalog == NULL || strlen(name) > CACHE_NAME_MAX)
		return NULL;
	if (!known_valid || known_rel != catalog->cache_rel)
		read_rows(catalog->cache_rel);
	return hash_search(known, name, HASH_FIND, NULL);
}

bool
cache_get(const char *name, CacheInfo *info)
{
	const KnownCache *found = find_known(name);

	if (found)
		*info = found->info;
	else if (strcmp(name, CACHE_MAIN) == 0 && cache_catalog())
		*info = implied_main;
	else
		return false;
	return true;
}

bool
cache_get_policies(const char *name, CachePolicies *policies)
{
	const KnownCache *found = find_known(name);

	if (found)
		*policies = found->policies;
	else
		memset(policies, 0, sizeof(CachePolicies));
	return found != NULL || strcmp(name, CACHE_MAIN) == 0;
}

void
cache_require(const char *name, CacheInfo *info)
{
	if (!cache_get(name, info))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cache \"%s\" does not exist", name)));
}

char *
cache_nix_cache_info(const CacheInfo *info)
{
	return psprintf("StoreDir: %s\nWantMassQuery: %d\nPriority: %d\n",
					info->store_dir, info->want_mass_query ? 1 : 0,
					info->priority);
}

CacheUser
cache_become_owner(void)
{
	Relation	rel = table_open(cache_catalog()->cache_rel, AccessShareLock);
	CacheUser	user;

	GetUserIdAndSecContext(&user.id, &user.context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   user.context | SECURITY_LOCAL_USERID_CHANGE);
	table_close(rel, AccessShareLock);
	return user;
}

void
cache_become_user(CacheUser user)
{
	SetUserIdAndSecContext(user.id, user.context);
}

void
cache_ensure_row(const char *name)
{
	CacheUser	user;

	if (strcmp(name, CACHE_MAIN) != 0)
		return;
	user = cache_become_owner();
	if (SPI_execute("INSERT INTO narinfo.cache (name) VALUES ('main') "
					"ON CONFLICT DO NOTHING", false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not make the row of cache main");
	cache_become_user(user);
}
