/*-------------------------------------------------------------------------
 *
 * join.c
 *	  join_site(): makes this server a mirror of another site.
 *
 *	  here								at the upstream
 *	  ----------------------------------------------------------------------
 *	  conninfo without a password
 *	  versions and settings of both
 *										site_admit(): link, publication
 *	  node: mirror, not consistent;
 *	  subscription, disabled			-
 *										slot
 *	  subscription enabled: initial		(dropped again if we fail before)
 *	  copy by PostgreSQL's own workers
 *	  reverse index
 *	  rows against digests: proof		the same digest at this number?
 *	  node: consistent; votes
 *										site_report(): joined
 *
 * Called again, it goes on where it was: the name of the slot stands in the
 * subscription before there is a slot, and the upstream forgets a mirror that
 * it has not seen for pg_narinfo.join_patience before it has joined.  When
 * the slot is gone that way, or the subscription has copied what cannot be
 * gone on with, all is emptied and begun anew; so it is when the upstream has
 * told a mirror that its slot is gone, which repoint() mends without a copy as
 * long as the upstream has the events.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/identity.h"
#include "cache/node.h"
#include "cache/progress.h"
#include "cache/referrer.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(join_site);

#define LOOK 200				/* ms between looks at the copy */
#define LOOKS_AT_SLOTS 50		/* so many of them between those at slots */

/*-------------------------------------------------------------------------
 * What is here
 *-------------------------------------------------------------------------
 */

static void
check_name(const char *site)
{
	if (!local_is("SELECT $1 ~ '^[a-z][a-z0-9_]{0,49}$'", 1, &site))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" is no name for a site", site),
				 errdetail("A name is a letter of [a-z], then up to 49 of [a-z0-9_].")));
	if (local_is("SELECT current_setting('pg_narinfo.site') NOT IN ('', $1)",
				 1, &site))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("this site is \"%s\" by the setting pg_narinfo.site, and not \"%s\"",
						local_ask("SHOW pg_narinfo.site", 0, NULL), site)));
}

/* The publication of some caches can copy into an empty database alone. */
static void
check_state(const Upstream *upstream)
{
	const char *params[] = {upstream->site};
	NodeState	state = node_state();

	if (state == NODE_MIRROR)
	{
		if (local_is("SELECT n.site = $1 FROM narinfo.node AS n", 1, params))
			return;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is site \"%s\" already",
						local_ask("SELECT site FROM narinfo.node", 0, NULL))));
	}
	if (state == NODE_STANDBY)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a standby cannot be a mirror")));
	if (state != NODE_NEW)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("only an empty database can become a mirror"),
				 errdetail("This one has a history of its own, see narinfo.node_state()."),
				 errhint("Use a new database, or DROP EXTENSION pg_narinfo and CREATE it again.")));
}

/* Nothing of what was copied stays. */
static void
empty_tables(void)
{
	local_as_replica();
	local_sql("TRUNCATE narinfo.cache, narinfo.valid_path, narinfo.key, "
			  "narinfo.token, narinfo.root, narinfo.root_source, "
			  "narinfo.quota, narinfo.trash, narinfo.event, "
			  "narinfo.site, narinfo.site_cache, narinfo.site_difference, "
			  "narinfo.mirror_state, narinfo.referrer_state, "
			  "narinfo.referrer_run, narinfo.referrer_page", 0, NULL);
}

static void
note_mirror(const Upstream *upstream)
{
	const char *params[] = {
		upstream->name, upstream->caches, upstream->own_conninfo,
		upstream->url, upstream->primary ? "t" : "f"
	};

	local_sql("INSERT INTO narinfo.mirror_state "
			  "(upstream, caches, conninfo, url, direct) "
			  "VALUES ($1, $2::text[], $3, $4, $5::boolean)", 5, params);
}

/* One transaction: from nothing to a mirror whose subscription waits. */
static void
begin_mirror(const Upstream *upstream)
{
	identity_lock(true);
	check_state(upstream);
	upstream_unsubscribe();
	empty_tables();
	identity_write_mirror(pg_strtoint32(upstream->epoch), upstream->site);
	note_mirror(upstream);
	upstream_subscribe(upstream, true);
	local_commit();
}

/*
 * Does the upstream have the slots that the copy goes on with?  Who copies a
 * table has one for it until the table has caught up; PostgreSQL looks for it
 * for ever when it is gone.
 */
static bool
sees_copy_slots(Upstream *upstream)
{
	const char *params[] = {psprintf(UINT64_FORMAT, GetSystemIdentifier())};
	char	   *names;

	local_sql("SELECT array_agg(format('pg_%s_sync_%s_%s', r.srsubid, "
			  "r.srrelid, $1)) FROM pg_subscription_rel AS r "
			  "WHERE r.srsubid = " OUR_SUBSCRIPTION
			  " AND r.srsubstate = 'f'", 1, params);
	names = local_value(0, 0);
	local_commit();
	if (!upstream_has_slot(upstream))
		return false;
	params[0] = names;
	return names == NULL ||
		remote_query(upstream->remote,
					 "SELECT FROM unnest($1::text[]) AS n WHERE NOT EXISTS "
					 "(SELECT FROM pg_replication_slots AS s "
					 "WHERE s.slot_name = n)", 1, params) == 0;
}

/* One may have been dropped between our two looks, since all is well. */
static bool
has_copy_slots(Upstream *upstream)
{
	if (sees_copy_slots(upstream))
		return true;
	local_sleep(LOOK);
	return sees_copy_slots(upstream);
}

/* Can we go on with what an earlier call has begun? */
static bool
is_begun(Upstream *upstream)
{
	const char *params[] = {
		upstream->name, upstream->conninfo, upstream->publication
	};
	bool		same =
	local_is("SELECT EXISTS (SELECT FROM narinfo.mirror_state AS m, "
			 "pg_subscription AS s WHERE m.upstream = $1 "
			 "AND s.oid = " OUR_SUBSCRIPTION " AND s.subconninfo = $2 "
			 "AND $3 = ANY (s.subpublications))", 3, params);
	bool		copying =
	local_is("SELECT EXISTS (SELECT FROM pg_subscription_rel AS r "
			 "WHERE r.srsubid = " OUR_SUBSCRIPTION
			 " AND r.srsubstate <> 'i')", 0, NULL);

	local_commit();
	return same && (!copying || has_copy_slots(upstream));
}

/*-------------------------------------------------------------------------
 * The initial copy
 *-------------------------------------------------------------------------
 */

static void
copy_failed(void)
{
	ReplicationError error;

	if (sites_last_error(&error) && sites_error_passes(error.code))
	{
		sites_resume(true);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the initial copy has failed"),
			 errdetail("%s", sites_last_error(&error) ? error.message :
					   "The server's log says why."),
			 errhint("Mend the cause and call join_site() again.")));
}

static bool
copy_is_done(int64 total)
{
	int64		done;

	if (local_is("SELECT NOT s.subenabled FROM pg_subscription AS s "
				 "WHERE s.oid = " OUR_SUBSCRIPTION, 0, NULL))
	{
		local_commit();
		copy_failed();
		return false;
	}
	local_sql("SELECT NOT EXISTS (SELECT FROM pg_subscription_rel AS r "
			  "WHERE r.srsubid = " OUR_SUBSCRIPTION
			  " AND r.srsubstate <> 'r'), coalesce("
			  "(SELECT sum(p.tuples_processed) FROM pg_stat_progress_copy AS p "
			  "WHERE p.datname = current_database() AND p.relid IN "
			  "(SELECT r.srrelid FROM pg_subscription_rel AS r)), 0) + coalesce("
			  "(SELECT sum(t.n_tup_ins) FROM pg_stat_user_tables AS t "
			  "WHERE t.relid IN (SELECT r.srrelid FROM pg_subscription_rel AS r "
			  "WHERE r.srsubstate IN ('f', 's', 'r'))), 0)", 0, NULL);
	done = pg_strtoint64(local_value(0, 1));
	progress_report(PROGRESS_COPYING, done, Max(total, done), 0, 0, 0);
	return strcmp(local_value(0, 0), "t") == 0;
}

static void
copy(Upstream *upstream)
{
	int64		total;
	char	   *rows =
	remote_ask(upstream->remote,
			   "SELECT sum(greatest(c.reltuples, 0))::bigint "
			   "FROM pg_class AS c WHERE c.relnamespace = "
			   "'narinfo'::regnamespace AND c.relname = "
			   "ANY (narinfo.site_tables())", 0, NULL);

	total = rows ? pg_strtoint64(rows) : 0;
	progress_start(PROGRESS_JOIN, cache_catalog()->valid_path_rel);
	for (int looks = 1; !copy_is_done(total); looks++)
	{
		if (looks % LOOKS_AT_SLOTS == 0 && !has_copy_slots(upstream))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a replication slot of the initial copy is gone"),
					 errhint("Call join_site() again: it begins anew.")));
		local_commit();
		local_sleep(LOOK);
	}
	local_commit();
}

/*-------------------------------------------------------------------------
 * The proof
 *-------------------------------------------------------------------------
 */

static void
rebuild_referrers(MemoryContext context)
{
	uint64		n = local_sql("SELECT narinfo.event_caches()", 0, NULL);
	char	  **caches = palloc(sizeof(char *) * (n + 1));

	for (uint64 i = 0; i < n; i++)
		caches[i] = local_value(i, 0);
	for (uint64 i = 0; i < n; i++)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		referrer_rebuild(caches[i]);
		PopActiveSnapshot();
		local_commit();
		MemoryContextSwitchTo(context);
	}
}

static void
prove(Upstream *upstream)
{
	progress_report(PROGRESS_PROVING, 0, 0, 0, 0, 0);
	if (sites_prove() > 0)
	{
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_UNEQUAL),
				 errmsg("what was copied is not what its events tell of"),
				 errdetail("%s", sites_problems()),
				 errhint("Look at site \"%s\": SELECT narinfo.cache_digest(), and its last event.",
						 upstream->name)));
	}
	local_commit();
	sites_compare_history(upstream->remote, upstream->name);
}

static void
complete(void)
{
	local_sql("UPDATE narinfo.node SET consistent = true", 0, NULL);
	local_sql("UPDATE narinfo.mirror_state SET joined = true", 0, NULL);
	local_commit();
	sites_report();
	sites_report_end();
	progress_end();
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

/* Until the subscription is enabled, an error takes the slot along. */
static void
make_slot_and_enable(Upstream *upstream)
{
	volatile bool made = !upstream_has_slot(upstream);

	PG_TRY();
	{
		upstream_make_slot(upstream);
		local_enable();
		local_commit();
		made = false;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(upstream->context);
		error = CopyErrorData();
		FlushErrorState();
		if (made)
			upstream_try_dismiss(upstream);
		ReThrowError(error);
	}
	PG_END_TRY();
}

static void
begin(Upstream *upstream)
{
	if (!is_begun(upstream))
	{
		local_disable();
		if (upstream_has_slot(upstream))
		{
			upstream_dismiss(upstream);
			upstream_admit(upstream);
		}
		begin_mirror(upstream);
	}
	make_slot_and_enable(upstream);
}

static void
join(Upstream *upstream)
{
	check_state(upstream);
	if (local_is("SELECT m.joined AND m.slot_problem IS NULL "
				 "FROM narinfo.mirror_state AS m", 0, NULL))
	{
		ereport(NOTICE,
				(errmsg("site \"%s\" has joined already", upstream->site),
				 errhint("CALL narinfo.repoint() makes it follow another site.")));
		return;
	}
	local_commit();
	upstream_connect(upstream);
	upstream_admit(upstream);
	begin(upstream);
	copy(upstream);
	rebuild_referrers(upstream->context);
	prove(upstream);
	complete();
	ereport(NOTICE,
			(errmsg("site \"%s\" is a mirror of site \"%s\"",
					upstream->site, upstream->name),
			 errdetail("It serves, and votes for what it has.")));
}

/* join_site(primary_conninfo, site, caches, conninfo, url) */
Datum
join_site(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "join_site");
	Upstream	upstream = {.context = context};

	upstream.conninfo = local_argument(fcinfo, 0);
	upstream.site = local_argument(fcinfo, 1);
	upstream.caches = local_argument(fcinfo, 2);
	upstream.own_conninfo = local_argument(fcinfo, 3);
	upstream.url = local_argument(fcinfo, 4);
	if (upstream.conninfo == NULL || upstream.site == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("join_site wants a connection string and a name, not NULL")));
	remote_check_conninfo(upstream.conninfo);
	if (upstream.own_conninfo)
		remote_check_conninfo(upstream.own_conninfo);
	check_name(upstream.site);
	if (cache_catalog() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the tables of pg_narinfo are not complete")));
	join(&upstream);
	local_procedure_end(context);
	PG_RETURN_VOID();
}
