/*-------------------------------------------------------------------------
 *
 * rejoin.c
 *	  rejoin(): has a server whose history is not the beginning of the
 *	  primary's follow it nevertheless: an old primary that returns, one that
 *	  was restored from a backup, a mirror that went on with an old primary.
 *
 *	  here								at the primary
 *	  ----------------------------------------------------------------------
 *	  closed, if it publishes
 *										the last event that both have: the
 *										fork of each cache
 *	  may we publish there, if we have
 *	  to?
 *										site_admit(), slot, snapshot, as
 *										repoint() does
 *	  one transaction: our events past
 *	  the fork to narinfo.orphan, the
 *	  rows of both sides' events as the
 *	  primary has them, subscription
 *	  reverse index, proof
 *										publishes among the orphans, again
 *	  slots of those who followed us
 *
 * Up to the transaction nothing has changed but that we are closed, and after
 * it we are a mirror; called again, it goes on.  To publish twice does no
 * harm: a path's content is what its name says.  What was removed is not
 * removed again by itself, since the primary may have come to need it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/identity.h"
#include "cache/node.h"
#include "cache/progress.h"
#include "cache/referrer.h"
#include "sites/local.h"
#include "sites/orphan.h"
#include "sites/repoint.h"
#include "sites/sites.h"
#include "sites/succession.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(rejoin);

#define PATIENCE	60000		/* ms, for each answer */
#define BATCH		1000		/* events whose paths are fetched together */

#define PATH_KINDS "('publish', 'replace', 'retract')"

/* One of our caches. */
typedef struct Fork
{
	char	   *cache;
	int64		first;			/* number of the first event that is kept */
	int64		last;
	int64		fork;			/* of the last one that both have */
} Fork;

typedef struct Rejoin
{
	Repoint		repoint;		/* the first: "forked" finds us by it */
	MemoryContext context;
	const char *conninfo;
	Remote	   *remote;
	Look		look;			/* the primary */
	Fork	   *forks;
	int			nforks;
	int64		orphans;		/* events past the fork */
	bool		publishes;		/* some of them, or of those that wait */
} Rejoin;

/*-------------------------------------------------------------------------
 * May we?
 *-------------------------------------------------------------------------
 */

static void
refuse_here(const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this server cannot rejoin"),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

static void
check_here(void)
{
	NodeState	state = node_state();

	if (state != NODE_PRIMARY && state != NODE_CLOSED &&
		state != NODE_MIRROR && state != NODE_FENCED)
		refuse_here(psprintf("It is %s, and was no site.",
							 local_ask("SELECT narinfo.node_state()", 0,
									   NULL)),
					"CALL narinfo.join_site()");
	if (local_is("SELECT n.site IS NULL FROM narinfo.node AS n", 0, NULL))
		refuse_here("It has no name as a site.",
					"CALL narinfo.join_site() with an empty database.");
	if (state == NODE_MIRROR &&
		!local_is("SELECT m.joined FROM narinfo.mirror_state AS m", 0, NULL))
		refuse_here("It has not come to the end of joining.",
					"CALL narinfo.join_site()");
	local_commit();
}

static void
check_primary(Rejoin *rejoin)
{
	const char *site = rejoin->look.site;
	int			own = pg_strtoint32(local_ask("SELECT n.epoch "
											  "FROM narinfo.node AS n", 0,
											  NULL));
	NodeState	state = node_state();
	bool		published = state == NODE_PRIMARY || state == NODE_CLOSED;

	local_commit();
	if (strcmp(rejoin->look.state, "primary") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("site \"%s\" is %s, and not the primary", site,
						rejoin->look.state),
				 errhint("Rejoin the primary; CALL narinfo.repoint() afterwards.")));
	if (rejoin->look.epoch < own ||
		(published && rejoin->look.epoch == own))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("site \"%s\" has epoch %d, and this server %d", site,
						rejoin->look.epoch, own),
				 errdetail("Neither can be the mirror of the other."),
				 errhint("SELECT narinfo.reopen_site() at the one that is to publish gives it a later one.")));
}

/*-------------------------------------------------------------------------
 * The forks
 *-------------------------------------------------------------------------
 */

static void
read_caches(Rejoin *rejoin)
{
	uint64		n =
	local_sql("SELECT k, (SELECT min(e.seq) FROM narinfo.event AS e "
			  "WHERE e.cache = k), narinfo.last_event(k) "
			  "FROM narinfo.event_caches() AS k", 0, NULL);

	rejoin->forks = palloc0(sizeof(Fork) * (n + 1));
	rejoin->nforks = (int) n;
	for (uint64 i = 0; i < n; i++)
	{
		rejoin->forks[i].cache = local_value(i, 0);
		rejoin->forks[i].first = pg_strtoint64(local_value(i, 1));
		rejoin->forks[i].last = pg_strtoint64(local_value(i, 2));
	}
	local_commit();
}

typedef enum Sameness
{
	SAME,
	ANOTHER,
	NOT_KEPT					/* there, any more */
} Sameness;

static Sameness
compare_event(Rejoin *rejoin, const char *cache, int64 seq)
{
	const char *params[] = {
		cache, psprintf(INT64_FORMAT, seq), NULL, NULL
	};
	char	   *same;

	local_sql("SELECT e.epoch, e.digest FROM narinfo.event AS e "
			  "WHERE e.cache = $1 AND e.seq = $2::bigint", 2, params);
	params[2] = local_value(0, 0);
	params[3] = local_value(0, 1);
	local_commit();
	same = remote_ask(rejoin->remote, "SELECT e.epoch = $3::int "
					  "AND e.digest = $4::bytea FROM narinfo.event AS e "
					  "WHERE e.cache = $1 AND e.seq = $2::bigint", 4, params);
	if (same == NULL)
		return NOT_KEPT;
	return same[0] == 't' ? SAME : ANOTHER;
}

/*
 * Histories are the same up to some number, and different from then on.  What
 * is not kept there is older than that.
 */
static void
find_fork(Rejoin *rejoin, Fork *fork)
{
	const char *cache = fork->cache;
	int64		theirs =
	pg_strtoint64(remote_ask(rejoin->remote, "SELECT narinfo.last_event($1)",
							 1, &cache));
	int64		low = fork->first - 1;
	int64		high = Min(fork->last, theirs);

	while (low < high)
	{
		int64		middle = low + (high - low + 1) / 2;

		CHECK_FOR_INTERRUPTS();
		if (compare_event(rejoin, cache, middle) == ANOTHER)
			high = middle - 1;
		else
			low = middle;
	}
	fork->fork = Max(low, 0);
	if (fork->fork > 0 && (fork->fork < fork->first ||
						   compare_event(rejoin, cache, fork->fork) != SAME))
		refuse_here(
					psprintf("Where the history of cache \"%s\" parts from that of site \"%s\" cannot be told, since events are not kept any more.",
							 cache, rejoin->look.site),
					"CALL narinfo.join_site() with an empty database.");
}

static void
find_forks(Rejoin *rejoin)
{
	bool		common = rejoin->nforks == 0;

	rejoin->orphans = 0;
	for (int i = 0; i < rejoin->nforks; i++)
	{
		Fork	   *fork = &rejoin->forks[i];
		const char *params[] = {fork->cache, NULL};

		find_fork(rejoin, fork);
		common |= fork->fork > 0;
		rejoin->orphans += fork->last - fork->fork;
		params[1] = psprintf(INT64_FORMAT, fork->fork);
		rejoin->publishes |=
			local_is("SELECT EXISTS (SELECT FROM narinfo.event AS e "
					 "WHERE e.cache = $1 AND e.seq > $2::bigint "
					 "AND e.kind IN ('publish', 'replace'))", 2, params);
		local_commit();
	}
	if (!common)
		refuse_here(psprintf("It has no event in common with site \"%s\".",
							 rejoin->look.site),
					"CALL narinfo.join_site() with an empty database.");
	rejoin->publishes |= orphan_waits();
}

/* {cache: fork}, for repoint. */
static char *
forks_as_json(const Rejoin *rejoin)
{
	StringInfoData json;

	initStringInfo(&json);
	/* names of caches need no escapes */
	for (int i = 0; i < rejoin->nforks; i++)
		appendStringInfo(&json, "%s\"%s\": " INT64_FORMAT,
						 i > 0 ? ", " : "", rejoin->forks[i].cache,
						 rejoin->forks[i].fork);
	return psprintf("{%s}", json.data);
}

/*-------------------------------------------------------------------------
 * What goes away, within the snapshot of the slot
 *-------------------------------------------------------------------------
 */

static void
fetch_touched_paths(Rejoin *rejoin, const Fork *fork)
{
	for (int64 after = fork->fork; after < fork->last; after += BATCH)
	{
		const char *params[] = {
			fork->cache, psprintf(INT64_FORMAT, after),
			psprintf(INT64_FORMAT, after + BATCH)
		};
		char	   *hashes =
		local_ask("SELECT array_agg(DISTINCT e.hash::text)::text "
				  "FROM narinfo.event AS e WHERE e.cache = $1 "
				  "AND e.seq > $2::bigint AND e.seq <= $3::bigint "
				  "AND e.kind IN " PATH_KINDS, 3, params);

		local_commit();
		if (hashes)
			repoint_fetch_paths(&rejoin->repoint, fork->cache, hashes);
	}
}

static void
move_events(Rejoin *rejoin, const Fork *fork)
{
	const char *fork_seq = psprintf(INT64_FORMAT, fork->fork);
	const char *reason =
	psprintf("site \"%s\", the primary in epoch %d, has gone on from event "
			 INT64_FORMAT " without it", rejoin->look.site,
			 rejoin->look.epoch, fork->fork);

	repoint_keep(&rejoin->repoint, "INSERT INTO narinfo.orphan "
				 "(cache, seq, epoch, at, kind, hash, name, lsn, digest, "
				 "info, reason) SELECT e.cache, e.seq, e.epoch, e.at, e.kind, "
				 "e.hash, e.name, e.lsn, e.digest, v.info, $3 "
				 "FROM narinfo.event AS e LEFT JOIN narinfo.valid_path AS v "
				 "ON v.cache = e.cache AND v.hash OPERATOR(narinfo.=) e.hash "
				 "AND e.kind IN ('publish', 'replace') "
				 "WHERE e.cache = $1 AND e.seq > $2::bigint ORDER BY e.seq",
				 3, fork->cache, fork_seq, reason);
	repoint_keep(&rejoin->repoint, "DELETE FROM narinfo.event AS e "
				 "WHERE e.cache = $1 AND e.seq > $2::bigint", 2, fork->cache,
				 fork_seq, NULL);
}

static void
take_away(Repoint *repoint)
{
	Rejoin	   *rejoin = (Rejoin *) repoint;

	for (int i = 0; i < rejoin->nforks; i++)
	{
		const Fork *fork = &rejoin->forks[i];
		const char *params[] = {
			fork->cache, psprintf(INT64_FORMAT, fork->fork)
		};
		bool		others;
		bool		dropped;

		if (fork->fork == fork->last)
			continue;
		others = local_is("SELECT bool_or(e.kind NOT IN " PATH_KINDS ") "
						  "FROM narinfo.event AS e WHERE e.cache = $1 "
						  "AND e.seq > $2::bigint", 2, params);
		dropped = local_is("SELECT bool_or(e.kind = 'drop_cache') "
						   "FROM narinfo.event AS e WHERE e.cache = $1 "
						   "AND e.seq > $2::bigint", 2, params);
		local_commit();
		/* before the paths, for it takes their narinfos */
		move_events(rejoin, fork);
		fetch_touched_paths(rejoin, fork);
		if (others)
			repoint_fetch_others(repoint, fork->cache);
		if (dropped)
			repoint_fetch_all_paths(repoint, fork->cache);
		repoint_fetch_trash(repoint, fork->cache);
	}
}

/*-------------------------------------------------------------------------
 * Here
 *-------------------------------------------------------------------------
 */

/*
 * From now on we are a primary that is closed: also what was fenced, if it is
 * whole; that is another's identity no longer.
 */
static void
close_here(Rejoin *rejoin)
{
	const char *params[] = {
		rejoin->look.site, psprintf("%d", rejoin->look.epoch)
	};

	if (node_state() == NODE_MIRROR)
		return;
	if (node_state() == NODE_FENCED)
	{
		identity_lock(true);
		if (sites_prove() > 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("what is in this database is not what its events tell of"),
					 errdetail("%s", sites_problems()),
					 errhint("CALL narinfo.join_site() with an empty database.")));
		identity_write(node_epoch());
	}
	local_sql("SELECT narinfo.site_close('epoch', $1, $2::int)", 2, params);
	local_commit();
	switchover_drain();
}

static void
rebuild_referrers(const Rejoin *rejoin)
{
	for (int i = 0; i < rejoin->nforks; i++)
	{
		const Fork *fork = &rejoin->forks[i];

		if (fork->fork == fork->last)
			continue;
		PushActiveSnapshot(GetLatestSnapshot());
		referrer_rebuild(fork->cache);
		PopActiveSnapshot();
		local_commit();
		MemoryContextSwitchTo(rejoin->context);
	}
}

/* Of those who do not follow us any more, or of whom nobody knows better. */
static void
drop_old_slots(void)
{
	local_sql("SELECT narinfo.site_unlink(l.site) FROM narinfo.site_link AS l "
			  "LEFT JOIN narinfo.site AS s ON s.name = l.site "
			  "WHERE s.upstream IS DISTINCT FROM narinfo.site_name()", 0,
			  NULL);
	local_commit();
}

static void
move(Rejoin *rejoin)
{
	Upstream   *upstream = &rejoin->repoint.upstream;
	char	   *old_name = local_ask("SELECT m.upstream "
									 "FROM narinfo.mirror_state AS m", 0,
									 NULL);
	char	   *old_conninfo = local_conninfo();

	upstream->context = rejoin->context;
	upstream->conninfo = rejoin->conninfo;
	upstream->patience = PATIENCE;
	upstream->site = local_ask("SELECT n.site FROM narinfo.node AS n", 0,
							   NULL);
	upstream->caches = local_ask("SELECT m.caches::text "
								 "FROM narinfo.mirror_state AS m", 0, NULL);
	local_commit();
	upstream_connect(upstream);
	close_here(rejoin);
	local_disable();
	read_caches(rejoin);
	find_forks(rejoin);
	rejoin->repoint.ours = forks_as_json(rejoin);
	rejoin->repoint.forked = take_away;
	upstream_admit(upstream);
	progress_start(PROGRESS_REPOINT, cache_catalog()->valid_path_rel);
	repoint_move(&rejoin->repoint);
	if (old_name && strcmp(old_name, rejoin->look.site) != 0)
		repoint_leave_old(rejoin->context, old_conninfo, upstream->site);
	rebuild_referrers(rejoin);
	repoint_prove();
	progress_end();
	drop_old_slots();
	ereport(NOTICE,
			(errmsg("site \"%s\" is a mirror of site \"%s\" now",
					upstream->site, rejoin->look.site),
			 errdetail("%s events that the primary does not have were moved to narinfo.orphan.",
					   psprintf(INT64_FORMAT, rejoin->orphans))));
}

/* A mirror of it already, that nothing is wrong with, and orphans wait. */
static bool
has_moved(const Rejoin *rejoin)
{
	bool		moved = node_state() == NODE_MIRROR &&
	local_is("SELECT m.upstream = $1 AND m.error IS NULL AND "
			 "m.forked IS NULL AND s.subenabled AND n.epoch >= $2::int "
			 "FROM narinfo.mirror_state AS m, narinfo.node AS n, "
			 "pg_subscription AS s WHERE s.oid = " OUR_SUBSCRIPTION, 2,
			 (const char *[]) {rejoin->look.site,
			 psprintf("%d", rejoin->look.epoch)});

	local_commit();
	return moved && orphan_waits();
}

static void
run(void *arg)
{
	Rejoin	   *rejoin = arg;
	char	   *problem;

	check_here();
	rejoin->remote = succession_look(rejoin->context, NULL, rejoin->conninfo,
									 PATIENCE, &rejoin->look, &problem);
	if (rejoin->remote == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the primary cannot be asked: %s", problem)));
	check_primary(rejoin);
	if (has_moved(rejoin))
		orphan_check_rights(rejoin->remote);
	else
	{
		/* all that can be told before anything changes */
		read_caches(rejoin);
		find_forks(rejoin);
		if (rejoin->publishes || node_state() == NODE_PRIMARY)
			orphan_check_rights(rejoin->remote);
		local_commit();
		move(rejoin);
	}
	orphan_republish(rejoin->remote, rejoin->look.site);
	remote_close(rejoin->remote);
}

/* rejoin(conninfo) */
Datum
rejoin(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "rejoin");
	Rejoin		rejoin = {.context = context};

	rejoin.conninfo = local_argument(fcinfo, 0);
	if (rejoin.conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("rejoin wants a connection string, not NULL")));
	remote_check_conninfo(rejoin.conninfo);
	succession_call("rejoin", run, &rejoin);
	local_procedure_end(context);
	PG_RETURN_VOID();
}
