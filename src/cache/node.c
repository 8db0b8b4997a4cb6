/*-------------------------------------------------------------------------
 *
 * node.c
 *	  Who this server is, and whether it may publish.
 *
 * The events of a cache are one history, and two servers that both went on
 * with it would give the same numbers to different changes.  So a server
 * notes in narinfo.node, which is neither dumped nor replicated, who it is,
 * and publishes only as that one:
 *
 *	 node		rows of caches	state
 *	 none		none			new: the first write makes the row
 *	 none		some			restoring: a dump, or a part of it
 *	 differs	-				fenced: a clone, an old backup, a standby
 *								that was promoted
 *	 matches	-				primary, or mirror: see src/sites
 *								closed: a primary that another site is, or is
 *								to be, instead of; by the row itself
 *
 * Only narinfo.start() (start.c) leads out of restoring and fenced: it looks
 * at everything first, and begins another epoch.
 *
 * Rows of a dump are not published: they have their events, in the dump.  A
 * script of pg_dump, or pg_restore, tells of itself in each of its sessions
 * by what it sets first, an empty search_path and check_function_bodies off.
 * While there is no row in node, what such a session writes is taken as it
 * is and makes no events; pg_narinfo.restore says so for scripts that do not
 * look like that, or denies it.  Tables may come in any order and at once.
 *
 * Two locks keep apart who would make the first row and who restores: both
 * take LOCK_CLASS before they commit, one alone, the other shared, and look
 * again.  Where there is a row nobody takes it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/node.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/identity.h"
#include "cache/row.h"

PG_FUNCTION_INFO_V1(narinfo_node_state);

#define LOCK_CLASS 0x4e53		/* see gate_lock_cache() */

/* Columns of narinfo.node */
#define COLUMN_SYSTEM_IDENTIFIER	1
#define COLUMN_TIMELINE				2
#define COLUMN_DATABASE				3
#define COLUMN_ROLE					4
#define COLUMN_EPOCH				5
#define COLUMN_PROMISED				8
#define COLUMN_CONSISTENT			9
#define COLUMN_BOUND				11
#define COLUMN_CLOSED				12
#define COLUMN_CLOSED_FOR			13
#define NCOLUMNS					13	/* that are read */
/* Those that may be NULL: */
#define COLUMN_SITE					7
#define COLUMN_PROMISED_TO			10

typedef enum RestoreSetting
{
	RESTORE_AUTO,
	RESTORE_ON,
	RESTORE_OFF
} RestoreSetting;

static const struct config_enum_entry restore_options[] = {
	{"auto", RESTORE_AUTO, false},
	{"on", RESTORE_ON, false},
	{"off", RESTORE_OFF, false},
	{NULL, 0, false}
};

static int	restore = RESTORE_AUTO;

/* The row, as this process remembers it. */
static Identity known;
static Oid	known_rel;			/* the table it was read from */
static bool known_valid = false;

const char *(*node_mirror_detail) (void) = NULL;
void		(*node_before_publishing) (void) = NULL;

/* This transaction has written rows of a dump. */
static bool took_dump = false;

/*-------------------------------------------------------------------------
 * The row
 *-------------------------------------------------------------------------
 */

static void
forget_known(Datum arg, Oid relid)
{
	(void) arg;
	if (relid == InvalidOid || relid == known_rel)
		known_valid = false;
}

static bool
is_primary(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(role));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = strcmp(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel),
					"primary") == 0;
	ReleaseSysCache(tuple);
	return result;
}

static bool
may_be_null(int column)
{
	return column == COLUMN_SITE || column == COLUMN_PROMISED_TO ||
		column >= COLUMN_CLOSED;
}

static void
read_row(TupleTableSlot *slot, Identity *identity)
{
	Datum		values[NCOLUMNS + 1];
	bool		nulls[NCOLUMNS + 1];

	for (int i = 1; i <= NCOLUMNS; i++)
	{
		values[i] = slot_getattr(slot, i, &nulls[i]);
		if (nulls[i] && !may_be_null(i))
			elog(ERROR, "a column of narinfo.node is null");
	}
	identity->there = true;
	identity->named = !nulls[COLUMN_SITE];
	identity->bound = DatumGetBool(values[COLUMN_BOUND]);
	identity->closed = !nulls[COLUMN_CLOSED];
	identity->switching = identity->closed &&
		strcmp(TextDatumGetCString(values[COLUMN_CLOSED]), "switchover") == 0;
	if (!nulls[COLUMN_CLOSED_FOR])
		strlcpy(identity->closed_for,
				TextDatumGetCString(values[COLUMN_CLOSED_FOR]),
				sizeof(identity->closed_for));
	identity->system_identifier =
		(uint64) DatumGetInt64(values[COLUMN_SYSTEM_IDENTIFIER]);
	identity->timeline = (TimeLineID) DatumGetInt32(values[COLUMN_TIMELINE]);
	identity->database = DatumGetObjectId(values[COLUMN_DATABASE]);
	identity->primary = is_primary(DatumGetObjectId(values[COLUMN_ROLE]));
	identity->epoch = DatumGetInt32(values[COLUMN_EPOCH]);
	identity->promised = DatumGetInt32(values[COLUMN_PROMISED]);
	identity->consistent = DatumGetBool(values[COLUMN_CONSISTENT]);
}

/* With a snapshot of its own; see read_rows() of cache.c. */
static void
read_identity(Oid relid)
{
	static bool registered = false;
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan;
	Identity	identity = {0};

	if (!registered)
		CacheRegisterRelcacheCallback(forget_known, (Datum) 0);
	registered = true;

	/* an invalidation from here on counts */
	known_rel = relid;
	known_valid = true;
	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));
	scan = table_beginscan(rel, snapshot, 0, NULL);
	PG_TRY();
	{
		if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
			read_row(slot, &identity);
	}
	PG_CATCH();
	{
		known_valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	known = identity;
}

const Identity *
identity_known(void)
{
	static const Identity none = {0};
	const CacheCatalog *catalog = cache_catalog();

	if (catalog == NULL)
		return &none;
	if (!known_valid || known_rel != catalog->node_rel)
		read_identity(catalog->node_rel);
	return &known;
}

int32
node_epoch(void)
{
	return identity_known()->epoch;
}

int32
node_least_epoch(void)
{
	const Identity *identity = identity_known();

	return identity->bound ? Max(identity->epoch, identity->promised) :
		identity->epoch;
}

bool
node_is_named(void)
{
	return identity_known()->named;
}

bool
node_is_consistent(void)
{
	const Identity *identity = identity_known();

	return !identity->there || identity->consistent;
}

/*-------------------------------------------------------------------------
 * States
 *-------------------------------------------------------------------------
 */

/*
 * Has anybody else committed a row?  Those of our own transaction are later
 * than its command 0, and not seen.
 */
static bool
has_row(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan;
	bool		found;

	snapshot->curcid = FirstCommandId;
	scan = table_beginscan(rel, snapshot, 0, NULL);
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/* The largest table comes last, and is seldom asked. */
static bool
has_content(void)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			schema = get_rel_namespace(catalog->node_rel);

	if (has_row(catalog->event_rel))
		return true;
	for (int i = 0; i < gated_tables_count; i++)
	{
		Oid			rel = get_relname_relid(gated_tables[i].name, schema);

		if (i != GATED_VALID_PATH && OidIsValid(rel) && has_row(rel))
			return true;
	}
	return has_row(catalog->valid_path_rel);
}

NodeState
node_state(void)
{
	const Identity *identity = identity_known();

	if (!identity->there)
		return cache_catalog() && has_content() ? NODE_RESTORING : NODE_NEW;
	if (identity->system_identifier != GetSystemIdentifier() ||
		identity->database != MyDatabaseId)
		return NODE_FENCED;
	if (RecoveryInProgress())
		return NODE_STANDBY;
	if (identity->timeline != GetWALInsertionTimeLine())
		return NODE_FENCED;
	if (!identity->primary)
		return NODE_MIRROR;
	return identity->closed ? NODE_CLOSED : NODE_PRIMARY;
}

bool
node_is_switching(void)
{
	return identity_known()->switching && node_state() == NODE_CLOSED;
}

bool
node_is_restoring(void)
{
	return !identity_known()->there && node_state() == NODE_RESTORING;
}

/* node_state() -> text */
Datum
narinfo_node_state(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[NODE_NEW] = "new",
		[NODE_RESTORING] = "restoring",
		[NODE_FENCED] = "fenced",
		[NODE_STANDBY] = "standby",
		[NODE_MIRROR] = "mirror",
		[NODE_CLOSED] = "closed",
		[NODE_PRIMARY] = "primary"
	};

	(void) fcinfo;
	PG_RETURN_TEXT_P(cstring_to_text(names[node_state()]));
}

static void
refuse_mirror(void)
{
	const char *detail = node_mirror_detail ? node_mirror_detail() : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_MIRROR),
			 errmsg("this server is a mirror and does not publish"),
			 detail ? errdetail("%s", detail) : 0,
			 errhint("Publish at the primary.")));
}

static void
refuse_closed(void)
{
	const Identity *identity = identity_known();
	const char *site = identity->closed_for;

	if (identity->switching)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_SWITCHING),
				 errmsg("this server does not publish now: site \"%s\" is to do so instead",
						site),
				 errhint("Try again, there when it publishes.")));
	else
	{
		const char *detail = node_mirror_detail ? node_mirror_detail() : NULL;

		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("this server does not publish any more, because of site \"%s\"",
						site),
				 detail ? errdetail("%s", detail) : 0,
				 errhint("Publish at the primary. SELECT reason FROM narinfo.stat_sites says how this server becomes its mirror.")));
	}
}

static void
refuse(NodeState state)
{
	switch (state)
	{
		case NODE_RESTORING:
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_FENCED),
					 errmsg("this database was restored from a dump and does not publish yet"),
					 errdetail("It has rows of caches, but no row in narinfo.node."),
					 errhint("When all of the dump is there: SELECT narinfo.start()")));
			break;
		case NODE_FENCED:
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_FENCED),
					 errmsg("this server does not publish, since it is not the one that narinfo.node tells of"),
					 errdetail("It is a copy, was restored from a backup, was promoted, or has left the site that it mirrored."),
					 errhint("When the other one does not publish any more: SELECT narinfo.start()")));
			break;
		case NODE_MIRROR:
			refuse_mirror();
			break;
		case NODE_CLOSED:
			refuse_closed();
			break;
		default:
			break;
	}
}

/*-------------------------------------------------------------------------
 * Rows of a dump
 *-------------------------------------------------------------------------
 */

/*
 * The beginning of every script of pg_dump and every session of pg_restore,
 * _doSetFixedOutputState() in pg_backup_archiver.c.
 */
static bool
is_dump_script(void)
{
	return !check_function_bodies && namespace_search_path != NULL &&
		namespace_search_path[0] == '\0';
}

static void
refuse_dump(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a dump cannot be restored into this database, which has a history of its own"),
			 errdetail("There is a row in narinfo.node."),
			 errhint("Restore it into a new database, or DROP EXTENSION and CREATE it before.")));
}

bool
node_takes_dump(void)
{
	if (restore == RESTORE_OFF ||
		(restore == RESTORE_AUTO && !is_dump_script()))
		return false;
	if (identity_known()->there)
	{
		if (restore == RESTORE_ON)
			refuse_dump();
		return false;
	}
	took_dump = true;
	return true;
}

void
identity_lock(bool exclusive)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, LOCK_CLASS);
	(void) LockAcquire(&tag, exclusive ? ExclusiveLock : ShareLock, false,
					   false);
	/* what was committed by who had it before us */
	AcceptInvalidationMessages();
}

void
node_before_commit(void)
{
	if (!took_dump)
		return;
	identity_lock(false);
	if (identity_known()->there)
		refuse_dump();
}

void
node_forget_transaction(void)
{
	took_dump = false;
}

/*-------------------------------------------------------------------------
 * Publishing
 *-------------------------------------------------------------------------
 */

void
node_check_fence(void)
{
	if (identity_known()->there)
		refuse(node_state());
}

void
identity_forbid_dump(const char *what)
{
	if (took_dump)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s in the transaction that restores a dump", what)));
}

void
node_require_publishing(void)
{
	NodeState	state;

	if (!identity_known()->there)
	{
		identity_forbid_dump("a cache cannot be changed");
		identity_lock(true);
	}
	state = node_state();
	refuse(state);
	if (state == NODE_PRIMARY && identity_known()->named &&
		node_before_publishing)
	{
		node_before_publishing();
		refuse(node_state());
	}
	if (state == NODE_NEW)
		identity_write(1);
}

void
node_still_publishing(void)
{
	refuse(node_state());
}

void
node_init(void)
{
	DefineCustomEnumVariable("pg_narinfo.restore",
							 "Whether what the session writes are rows of a dump.",
							 "They are taken as they come by a database "
							 "that has no history yet; \"auto\" knows the "
							 "scripts of pg_dump and pg_restore.",
							 &restore, RESTORE_AUTO, restore_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
}
