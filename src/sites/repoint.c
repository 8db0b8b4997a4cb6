/*-------------------------------------------------------------------------
 *
 * repoint.c
 *	  repoint(): makes a mirror follow another site without a new copy.
 *
 *	  here								at the new upstream
 *	  ----------------------------------------------------------------------
 *	  versions and settings
 *										site_admit()
 *	  subscription disabled: we stand
 *	  still at our numbers
 *										the same history, and ours in it?
 *										slot, which exports its snapshot
 *										in that snapshot: events behind our
 *										numbers, rows that they are about
 *	  one transaction: these rows, and
 *	  a new subscription in place of
 *	  the old one, which goes on where
 *	  the slot is
 *	  proof
 *										(at the old one) dismiss_site()
 *
 * The slot begins with what is not in its snapshot, so nothing is missed or
 * applied twice.  Rows of paths are those that the events name.  The other
 * tables of a cache are compared as a whole when an event is about one of
 * them, and so is trash, which has no events.  An error before the transaction
 * leaves us with the old upstream: the new one forgets us, and the
 * subscription is enabled again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/event.h"
#include "cache/node.h"
#include "cache/progress.h"
#include "sites/compare.h"
#include "sites/local.h"
#include "sites/repoint.h"
#include "sites/rows.h"
#include "sites/sites.h"
#include "sites/succession.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(repoint);

#define LOOK		200			/* ms */
#define PATIENCE	30000		/* ms: for an upstream that is behind us */
#define FOLLOW_PATIENCE	60000	/* ms: for each answer of the upstream */
#define BATCH		"1000"		/* rows that are fetched together */

#define PATH_KINDS "('publish', 'replace', 'retract')"

/* Kept until the transaction that executes all of them. */
typedef struct Statement
{
	const char *query;
	const char *params[3];
	int			nparams;
} Statement;

void
repoint_keep(Repoint *repoint, const char *query, int nparams, const char *a,
			 const char *b, const char *c)
{
	Statement  *statement = palloc(sizeof(Statement));

	statement->query = query;
	statement->nparams = nparams;
	statement->params[0] = a;
	statement->params[1] = b;
	statement->params[2] = c;
	repoint->statements = lappend(repoint->statements, statement);
}

/*-------------------------------------------------------------------------
 * The same history?
 *-------------------------------------------------------------------------
 */

static const char history_query[] =
"SELECT string_agg(CASE "
"WHEN narinfo.last_event(o.cache) < o.seq THEN 'behind' "
"WHEN e.seq IS NULL THEN format('event %s of cache \"%s\", the last one here, is not kept there any more', o.seq, o.cache) "
"WHEN e.digest <> o.digest OR e.epoch <> o.epoch "
"THEN format('event %s of cache \"%s\" is another one there', o.seq, o.cache) "
"END, E'\\n'), bool_or(narinfo.last_event(o.cache) < o.seq) "
"FROM jsonb_to_recordset($1::jsonb) "
"AS o (cache text, seq bigint, epoch int, digest bytea) "
"LEFT JOIN narinfo.event AS e ON e.cache = o.cache AND e.seq = o.seq";

static char *
our_positions(void)
{
	return local_ask("SELECT coalesce(jsonb_agg(jsonb_build_object("
					 "'cache', e.cache, 'seq', e.seq, 'epoch', e.epoch, "
					 "'digest', e.digest)), '[]') "
					 "FROM narinfo.last_events() AS e", 0, NULL);
}

char *
repoint_fork(Remote *remote)
{
	const char *positions = our_positions();

	local_commit();
	return remote_ask(remote, history_query, 1, &positions);
}

/*
 * Whether the events from here on continue ours.  A mirror may have to get
 * what we have first.
 */
static void
check_history(Repoint *repoint)
{
	Remote	   *remote = repoint->upstream.remote;
	const char *positions = our_positions();
	const char *problem;
	const char *behind;

	repoint->ours = local_ask("SELECT coalesce(jsonb_object_agg(o.cache, "
							  "o.seq), '{}') FROM jsonb_to_recordset($1::jsonb) "
							  "AS o (cache text, seq bigint)", 1, &positions);
	local_commit();
	for (int waited = 0;; waited += LOOK)
	{
		(void) remote_query(remote, history_query, 1, &positions);
		problem = remote_value(remote, 0, 0);
		behind = remote_value(remote, 0, 1);
		if (problem == NULL)
			return;
		if (behind == NULL || behind[0] != 't')
			break;
		if (waited >= PATIENCE)
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_BEHIND),
					 errmsg("site \"%s\" does not have all events that this one has",
							repoint->upstream.name),
					 errhint("If it is the primary, what only this site has was lost: CALL narinfo.rejoin() keeps it apart.")));
		local_sleep(LOOK);
	}
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_UNEQUAL),
			 errmsg("site \"%s\" does not continue the history of this one",
					repoint->upstream.name),
			 errdetail("%s", pstrdup(problem)),
			 errhint("If it is the primary: CALL narinfo.rejoin() moves the events that it does not have apart. If their histories have nothing in common: CALL narinfo.leave_site(), and join it with an empty database.")));
}

/*-------------------------------------------------------------------------
 * The slot, and what is behind our numbers in its snapshot
 *-------------------------------------------------------------------------
 */

/* The snapshot lives as long as this connection, which does nothing else. */
static Remote *
make_slot(Repoint *repoint)
{
	Upstream   *upstream = &repoint->upstream;
	Remote	   *replication = remote_connect(upstream->context,
											 upstream->conninfo, true);
	const char *snapshot;

	remote_set_patience(replication, upstream->patience);
	(void) remote_query(replication,
						psprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput "
								 "(SNAPSHOT 'export')", upstream->slot),
						0, NULL);
	snapshot = remote_value(replication, 0, 2);
	(void) remote_query(upstream->remote,
						"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
						0, NULL);
	(void) remote_query(upstream->remote,
						psprintf("SET TRANSACTION SNAPSHOT %s",
								 quote_literal_cstr(snapshot)), 0, NULL);
	return replication;
}

/* Rows of a table, in JSON, that go in. */
static void
keep_rows(Repoint *repoint, const char *table, const char *rows)
{
	char	   *query = rows_insert_query(table, rows);

	local_commit();
	if (query)
		repoint_keep(repoint, query, 1, rows, NULL, NULL);
}

/* Events behind a number, and the paths that they are about. */
static void
fetch_events(Repoint *repoint, const char *cache, const char *after)
{
	Remote	   *remote = repoint->upstream.remote;
	const char *params[] = {cache, after};
	char	   *rows;

	for (;;)
	{
		const char *hashes;

		CHECK_FOR_INTERRUPTS();
		(void) remote_query(remote,
							"SELECT max(e.seq), "
							"jsonb_agg(to_jsonb(e) ORDER BY e.seq), "
							"coalesce(array_agg(DISTINCT e.hash::text) "
							"FILTER (WHERE e.kind IN " PATH_KINDS "), "
							"'{}')::text "
							"FROM (SELECT e.* FROM narinfo.event AS e "
							"WHERE e.cache = $1 AND e.seq > $2::bigint "
							"ORDER BY e.seq LIMIT " BATCH ") AS e", 2, params);
		if (remote_value(remote, 0, 0) == NULL)
			return;
		params[1] = pstrdup(remote_value(remote, 0, 0));
		rows = pstrdup(remote_value(remote, 0, 1));
		hashes = pstrdup(remote_value(remote, 0, 2));
		keep_rows(repoint, "event", rows);
		repoint_fetch_paths(repoint, cache, hashes);
		progress_report(PROGRESS_COPYING, pg_strtoint64(params[1]), 0, 0, 0,
						0);
	}
}

/* All rows of a small table: those that are there already stay. */
static void
fetch_small(Repoint *repoint, const char *cache, const SmallTable *table)
{
	char	   *rows =
	rows_fetch(repoint->upstream.remote, table->name,
			   psprintf("t.%s = $1", table->cache_column), 1, &cache);

	repoint_keep(repoint,
				 psprintf("DELETE FROM narinfo.%s AS t WHERE t.%s = $1",
						   table->name, table->cache_column), 1, cache,
		 NULL, NULL);
	keep_rows(repoint, table->name, rows);
}

/*
 * Rows of trash come with events and go without: those that both sides do not
 * have alike.
 */
void
repoint_fetch_trash(Repoint *repoint, const char *cache)
{
	static const char key[] = "concat_ws(' ', t.hash::text, t.removed::text)";
	const char *theirs =
	remote_ask(repoint->upstream.remote,
			   psprintf("SELECT coalesce(jsonb_object_agg(%s, true), '{}') "
						"FROM narinfo.trash AS t WHERE t.cache = $1", key),
			   1, &cache);
	const char *params[] = {cache, NULL};
	char	   *rows;

	params[1] = local_ask(psprintf("SELECT array_agg(o.key)::text FROM "
								   "jsonb_each_text($2::jsonb) AS o "
								   "WHERE o.key NOT IN (SELECT %s FROM "
								   "narinfo.trash AS t WHERE t.cache = $1)",
								   key), 2,
						  (const char *[]) {cache, theirs});
	local_commit();
	repoint_keep(repoint,
				 psprintf("DELETE FROM narinfo.trash AS t WHERE t.cache = $1 "
						   "AND NOT ($2::jsonb ? %s)", key), 2, cache, theirs,
		 NULL);
	if (params[1] == NULL)
		return;
	rows = rows_fetch(repoint->upstream.remote, "trash",
					  psprintf("t.cache = $1 AND %s = ANY ($2::text[])", key),
					  2, params);
	keep_rows(repoint, "trash", rows);
}

void
repoint_fetch_all_paths(Repoint *repoint, const char *cache)
{
	char	   *rows = rows_fetch(repoint->upstream.remote, "valid_path",
								  "t.cache = $1", 1, &cache);

	repoint_keep(repoint,
				 "DELETE FROM narinfo.valid_path AS v WHERE v.cache = $1",
		 1, cache, NULL, NULL);
	keep_rows(repoint, "valid_path", rows);
}

void
repoint_fetch_paths(Repoint *repoint, const char *cache, const char *hashes)
{
	const char *params[] = {cache, hashes};
	char	   *rows = rows_fetch(repoint->upstream.remote, "valid_path",
								  "t.cache = $1 AND t.hash "
								  "OPERATOR(narinfo.=) "
								  "ANY ($2::narinfo.store_hash[])", 2, params);

	repoint_keep(repoint, "DELETE FROM narinfo.valid_path AS v "
				 "WHERE v.cache = $1 AND v.hash OPERATOR(narinfo.=) "
				 "ANY " LOCAL_ARRAY("$2", "narinfo.store_hash[]"), 2, cache,
				 hashes, NULL);
	keep_rows(repoint, "valid_path", rows);
}

void
repoint_fetch_others(Repoint *repoint, const char *cache)
{
	for (int i = 0; i < small_tables_count; i++)
		fetch_small(repoint, cache, &small_tables[i]);
}

static void
fetch_cache(Repoint *repoint, const char *cache, const char *after)
{
	const char *params[] = {cache, after};
	bool		others;
	bool		dropped;

	(void) remote_query(repoint->upstream.remote,
						"SELECT coalesce(bool_or(e.kind NOT IN " PATH_KINDS
						"), false), coalesce(bool_or(e.kind = 'drop_cache'), "
						"false) FROM narinfo.event AS e WHERE e.cache = $1 "
						"AND e.seq > $2::bigint", 2, params);
	others = remote_value(repoint->upstream.remote, 0, 0)[0] == 't';
	dropped = remote_value(repoint->upstream.remote, 0, 1)[0] == 't';
	fetch_events(repoint, cache, after);
	if (dropped)
		repoint_fetch_all_paths(repoint, cache);
	if (others)
		repoint_fetch_others(repoint, cache);
	repoint_fetch_trash(repoint, cache);
}

static void
fetch(Repoint *repoint)
{
	const char *params[] = {repoint->ours, repoint->upstream.caches};
	Remote	   *remote = repoint->upstream.remote;
	int			n =
	remote_query(remote,
				 "SELECT c, coalesce($1::jsonb->>c, '0') "
				 "FROM narinfo.event_caches() AS c "
				 "WHERE $2::text[] IS NULL OR c = ANY ($2::text[])", 2,
				 params);
	char	  **caches = palloc(sizeof(char *) * (n + 1));
	char	  **after = palloc(sizeof(char *) * (n + 1));

	for (int i = 0; i < n; i++)
	{
		caches[i] = pstrdup(remote_value(remote, i, 0));
		after[i] = pstrdup(remote_value(remote, i, 1));
	}
	for (int i = 0; i < n; i++)
		fetch_cache(repoint, caches[i], after[i]);
	(void) remote_query(remote, "COMMIT", 0, NULL);
}

/*-------------------------------------------------------------------------
 * Changing over
 *-------------------------------------------------------------------------
 */

/*
 * A promise that was given meanwhile, to somebody else, stops us; so does
 * having been made the primary.
 */
static void
become_mirror(const Upstream *upstream)
{
	const char *params[] = {
		upstream->name, upstream->epoch, upstream->primary ? "t" : "f",
		upstream->caches
	};

	if (local_sql("UPDATE narinfo.node SET role = 'mirror', "
				  "epoch = greatest(epoch, $1::int), bound = false, "
				  "since = clock_timestamp(), "
				  "closed = NULL, closed_for = NULL, closed_epoch = NULL "
				  "WHERE (role = 'mirror' OR closed IS NOT NULL) "
				  "AND NOT (bound AND promised > $1::int)", 1,
				  params + 1) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("this site has promised to follow another one meanwhile")));
	if (local_sql("UPDATE narinfo.mirror_state SET upstream = $1, "
				  "direct = $3::boolean, forked = NULL, "
				  "slot_problem = NULL", 3,
				  (const char *[]) {params[0], NULL, params[2]}) == 0)
		local_sql("INSERT INTO narinfo.mirror_state "
				  "(upstream, caches, conninfo, url, joined, direct) "
				  "SELECT $1, $4::text[], s.conninfo, s.url, true, $3::boolean "
				  "FROM narinfo.node AS n LEFT JOIN narinfo.site AS s "
				  "ON s.name = n.site", 4, params);
	/*
	 * What this site has counts as a copy when it has proved itself again, and
	 * has looked again which files it has; it may be less than before, in the
	 * same epoch, and is never told as more.
	 */
	local_sql("UPDATE narinfo.site_cache AS c SET vote = false, target = 0, "
			  "target_at = NULL, files = NULL, files_problem = NULL, "
			  "seq = e.seq, epoch = e.epoch, digest = e.digest, at = e.at "
			  "FROM narinfo.event AS e WHERE c.site = narinfo.site_name() "
			  "AND e.cache = c.cache "
			  "AND e.seq = narinfo.last_event(c.cache)", 0, NULL);
	/* of caches that came and went with events that we have no more */
	local_sql("DELETE FROM narinfo.site_cache AS c "
			  "WHERE c.site = narinfo.site_name() AND NOT EXISTS "
			  "(SELECT FROM narinfo.event AS e WHERE e.cache = c.cache)", 0,
			  NULL);
}

static void
change_over(Repoint *repoint)
{
	Upstream   *upstream = &repoint->upstream;
	ListCell   *cell;

	local_as_replica();
	event_taking_rows = true;
	foreach(cell, repoint->statements)
	{
		Statement  *statement = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		local_sql(statement->query, statement->nparams, statement->params);
	}
	event_taking_rows = false;
	become_mirror(upstream);
	upstream_resubscribe(upstream);
	local_enable();
	local_commit();
}

/* Once we are admitted, an error takes link and slot along. */
void
repoint_move(Repoint *repoint)
{
	Upstream   *upstream = &repoint->upstream;

	PG_TRY();
	{
		Remote	   *replication;

		if (upstream_has_slot(upstream))
			(void) remote_query(upstream->remote,
								"SELECT pg_drop_replication_slot($1)", 1,
								(const char *[]) {upstream->slot});
		local_disable();
		if (repoint->forked == NULL)
			check_history(repoint);
		replication = make_slot(repoint);
		if (repoint->forked)
			repoint->forked(repoint);
		fetch(repoint);
		remote_close(replication);
		change_over(repoint);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(upstream->context);
		error = CopyErrorData();
		FlushErrorState();
		event_taking_rows = false;
		upstream_try_dismiss(upstream);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/* Another way to the same site: its slot and what we have stay. */
static void
change_conninfo(const Upstream *upstream)
{
	local_disable();
	local_sql(psprintf("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION
					   " CONNECTION %s",
					   quote_literal_cstr(upstream->conninfo)), 0, NULL);
	local_enable();
	local_commit();
}

void
repoint_leave_old(MemoryContext context, const char *conninfo,
				  const char *site)
{
	Upstream	old = {.context = context, .conninfo = conninfo, .site = site};

	if (conninfo)
		upstream_try_dismiss(&old);
}

void
repoint_prove(void)
{
	if (sites_prove() > 0)
		ereport(WARNING,
				(errcode(ERRCODE_NARINFO_UNEQUAL),
				 errmsg("this site is not equal to what its events tell of"),
				 errdetail("%s", sites_problems()),
				 errhint("CALL narinfo.repair_site()")));
	local_commit();
	sites_report();
	sites_report_end();
}

static void
check_mirror(void)
{
	if (node_state() != NODE_MIRROR ||
		!local_is("SELECT m.joined FROM narinfo.mirror_state AS m", 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is no mirror that has joined"),
				 errhint("CALL narinfo.join_site(conninfo, name)")));
}

char *
repoint_follow(MemoryContext context, const char *conninfo)
{
	Repoint		repoint = {.upstream = {.context = context}};
	Upstream   *upstream = &repoint.upstream;
	char	   *old_name;
	char	   *old_conninfo;
	bool		same;

	upstream->conninfo = conninfo;
	upstream->patience = FOLLOW_PATIENCE;
	upstream->site = local_ask("SELECT n.site FROM narinfo.node AS n", 0,
							   NULL);
	upstream->caches = local_ask("SELECT m.caches::text "
								 "FROM narinfo.mirror_state AS m", 0, NULL);
	old_name = local_ask("SELECT m.upstream FROM narinfo.mirror_state AS m",
						 0, NULL);
	old_conninfo = local_conninfo();
	local_commit();
	upstream_connect(upstream);
	upstream_admit(upstream);
	same = old_conninfo && strcmp(upstream->name, old_name) == 0;
	/* without our slot it is another server of this name, or has lost it */
	if (same && upstream_has_slot(upstream))
		change_conninfo(upstream);
	else
	{
		progress_start(PROGRESS_REPOINT, cache_catalog()->valid_path_rel);
		repoint_move(&repoint);
		if (!same)
			repoint_leave_old(context, old_conninfo, upstream->site);
		repoint_prove();
		progress_end();
	}
	return upstream->name;
}

/* What repoint() does, alone. */
typedef struct Call
{
	MemoryContext context;
	const char *conninfo;
	char	   *name;			/* of the upstream */
} Call;

static void
run(void *arg)
{
	Call	   *call = arg;

	check_mirror();
	local_commit();
	call->name = repoint_follow(call->context, call->conninfo);
}

/* repoint(conninfo) */
Datum
repoint(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "repoint");
	char	   *conninfo = local_argument(fcinfo, 0);
	Call		call = {.context = context, .conninfo = conninfo};

	if (conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("repoint wants a connection string, not NULL")));
	remote_check_conninfo(conninfo);
	check_mirror();
	local_commit();
	/* the worker may be about to follow somebody of itself */
	succession_call("repoint", run, &call);
	ereport(NOTICE,
			(errmsg("site \"%s\" is a mirror of site \"%s\" now",
					local_ask("SELECT narinfo.site_name()", 0, NULL),
					call.name)));
	local_procedure_end(context);
	PG_RETURN_VOID();
}
