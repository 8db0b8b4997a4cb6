/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  What is refused for the sake of other sites: changes on a mirror, DROP
 *	  EXTENSION while others know this site, and upgrading it before those
 *	  that mirror it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/node.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(mirror_refuse);
PG_FUNCTION_INFO_V1(site_guard);
PG_FUNCTION_INFO_V1(site_claim);
PG_FUNCTION_INFO_V1(site_bucket);

#define BUCKET_BITS_MAX 16

/* A statement trigger of tables that the gate does not know. */
Datum
mirror_refuse(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("mirror_refuse() is a trigger function")));
	if (!node_takes_dump())
		node_check_fence();
	return PointerGetDatum(NULL);
}

/* site_claim() -> void */
Datum
site_claim(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	node_require_publishing();
	PG_RETURN_VOID();
}

/* site_bucket(hash store_hash, bits integer) -> integer */
Datum
site_bucket(PG_FUNCTION_ARGS)
{
	const uint8 *hash = DatumGetStoreHash(PG_GETARG_DATUM(0));
	int32		bits = PG_GETARG_INT32(1);

	if (bits < 0 || bits > BUCKET_BITS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a bucket has 0 to %d bits", BUCKET_BITS_MAX)));
	PG_RETURN_INT32((hash[0] << 8 | hash[1]) >> (BUCKET_BITS_MAX - bits));
}

/*-------------------------------------------------------------------------
 * Questions in the middle of a statement of somebody's
 *-------------------------------------------------------------------------
 */

/*
 * The first value, in the caller's memory, asked with the owner's rights;
 * "param" is a text, or NULL.
 */
static char *
ask_about(const char *query, const char *param)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {(Datum) 0};
	MemoryContext old = CurrentMemoryContext;
	CacheUser	user = cache_become_owner();
	char	   *value = NULL;

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (param)
		values[0] = CStringGetTextDatum(param);
	if (SPI_execute_with_args(query, param ? 1 : 0, types, values, NULL,
							  false, 1) < 0)
		elog(ERROR, "could not execute \"%s\"", query);
	if (SPI_processed > 0 && SPI_tuptable != NULL)
		value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (value)
		value = MemoryContextStrdup(old, value);
	SPI_finish();
	PopActiveSnapshot();
	cache_become_user(user);
	return value;
}

static char *
ask_as_owner(const char *query)
{
	return ask_about(query, NULL);
}

const char *
sites_mirror_detail(void)
{
	return ask_as_owner("SELECT pg_catalog.format("
						"'The primary is site \"%s\"%s.', s.name, "
						"pg_catalog.concat(' at ' OPERATOR(pg_catalog.||) "
						"coalesce(s.url, s.conninfo))) "
						"FROM narinfo.site AS s "
						"WHERE s.name OPERATOR(pg_catalog.=) "
						"narinfo.site_primary() AND s.name "
						"OPERATOR(pg_catalog.<>) narinfo.site_name() "
						"UNION ALL SELECT pg_catalog.format("
						"'It follows site \"%s\".', m.upstream) "
						"FROM narinfo.mirror_state AS m");
}

/*-------------------------------------------------------------------------
 * Commands
 *-------------------------------------------------------------------------
 */

static bool
drops_us(Node *tree)
{
	DropStmt   *drop = (DropStmt *) tree;
	ListCell   *cell;

	if (!IsA(tree, DropStmt) || drop->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, drop->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "pg_narinfo") == 0)
			return true;
	}
	return false;
}

static void
refuse_drop(void)
{
	char	   *mirrors;

	if (node_state() == NODE_MIRROR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pg_narinfo cannot be dropped from a mirror"),
				 errdetail("Its slot at the other site would stay, and keep all that happens there."),
				 errhint("CALL narinfo.leave_site() first.")));
	mirrors = ask_as_owner("SELECT pg_catalog.string_agg(l.site, ', ') "
						   "FROM narinfo.site_link AS l");
	if (mirrors)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pg_narinfo cannot be dropped from a site that has mirrors"),
				 errdetail("They are: %s.", mirrors),
				 errhint("Let them leave (CALL narinfo.leave_site() there), or, if one is gone for good, SELECT narinfo.dismiss_site(name).")));
}

/*
 * A site sends all columns that it has, so whoever mirrors it has to know them
 * before: mirrors are upgraded first.  By what they have reported; versions
 * are numbers with dots.
 */
static void
check_upgrade(const AlterExtensionStmt *alter)
{
	const char *version = NULL;
	char	   *behind;
	ListCell   *cell;

	if (strcmp(alter->extname, "pg_narinfo") != 0)
		return;
	foreach(cell, alter->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "new_version") == 0)
			version = defGetString(option);
	}
	if (version == NULL)
		version = ask_as_owner("SELECT x.default_version "
							   "FROM pg_catalog.pg_available_extensions AS x "
							   "WHERE x.name OPERATOR(pg_catalog.=) "
							   "'pg_narinfo'");
	if (version == NULL)
		return;
	behind = ask_about("SELECT pg_catalog.string_agg(pg_catalog.format("
					   "'site \"%s\" has %s', s.name, s.version), ', ' "
					   "ORDER BY s.name) FROM narinfo.site_link AS l "
					   "JOIN narinfo.site AS s "
					   "ON s.name OPERATOR(pg_catalog.=) l.site "
					   "WHERE s.version OPERATOR(pg_catalog.~) "
					   "'^[0-9]+([.][0-9]+)*$' AND $1 OPERATOR(pg_catalog.~) "
					   "'^[0-9]+([.][0-9]+)*$' AND "
					   "pg_catalog.string_to_array(s.version, '.')::int[] "
					   "OPERATOR(pg_catalog.<) "
					   "pg_catalog.string_to_array($1, '.')::int[]", version);
	if (behind)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_narinfo cannot be upgraded to %s here before its mirrors",
						version),
				 errdetail("They would not know what this site sends: %s.",
						   behind),
				 errhint("There first, and each of them after its own mirrors: ALTER EXTENSION pg_narinfo UPDATE. What a site has is known here when it has reported.")));
}

/*
 * What a mirror confirms it has, and on disk: nobody is to have it skip a
 * transaction, or commit without waiting for the disk.
 */
static void
refuse_unsound(const AlterSubscriptionStmt *alter)
{
	ListCell   *cell;

	if (strcmp(alter->subname, SITE_SUBSCRIPTION) != 0)
		return;
	if (alter->kind == ALTER_SUBSCRIPTION_SKIP)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" skips nothing",
						SITE_SUBSCRIPTION),
				 errdetail("What is skipped would be missing here, and be counted as a copy all the same."),
				 errhint("CALL narinfo.repair_site() mends rows that are in the way.")));
	foreach(cell, alter->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "synchronous_commit") == 0 &&
			pg_strcasecmp(defGetString(option), "off") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("subscription \"%s\" has to wait for the disk",
							SITE_SUBSCRIPTION),
					 errdetail("What it confirms counts as a copy."),
					 errhint("Leave synchronous_commit at local.")));
	}
}

/* A subscription that somebody has stopped by hand stays so. */
static void
note_pause(const AlterSubscriptionStmt *alter)
{
	ListCell   *cell;
	bool		enable = false;

	if (local_altering || alter->kind != ALTER_SUBSCRIPTION_ENABLED ||
		strcmp(alter->subname, SITE_SUBSCRIPTION) != 0)
		return;
	foreach(cell, alter->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "enabled") == 0)
			enable = boolVal(option->arg);
	}
	if (enable)
		sites_forget_error();
	(void) ask_as_owner(enable ?
						"UPDATE narinfo.mirror_state SET paused = false, "
						"error = NULL, error_code = NULL, error_at = NULL" :
						"UPDATE narinfo.mirror_state SET paused = true");
}

Datum
site_guard(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigger = (EventTriggerData *) fcinfo->context;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("site_guard() is an event trigger function")));
	if (cache_catalog() == NULL)
		PG_RETURN_NULL();
	if (drops_us(trigger->parsetree))
		refuse_drop();
	else if (IsA(trigger->parsetree, AlterExtensionStmt))
		check_upgrade((AlterExtensionStmt *) trigger->parsetree);
	else if (IsA(trigger->parsetree, AlterSubscriptionStmt))
	{
		refuse_unsound((AlterSubscriptionStmt *) trigger->parsetree);
		note_pause((AlterSubscriptionStmt *) trigger->parsetree);
	}
	PG_RETURN_NULL();
}
