/*-------------------------------------------------------------------------
 *
 * switchover.c
 *	  switchover(): has another site publish instead of this one, while both
 *	  are there, so that nothing is lost and little refused.
 *
 *	  here, the primary					at the new one
 *	  ----------------------------------------------------------------------
 *	  who are you?  Equal, and able to
 *	  have us as a mirror?
 *	  wait until it is near
 *	  node: closed for it				-	from here on changes are refused
 *	  each lock of a cache once: all
 *	  who were inside are done
 *	  our numbers
 *										has it exactly these?
 *										site_take_over(): the primary of the
 *										next epoch, in one transaction
 *	  (refused until here)
 *	  a mirror of it, as repoint()
 *	  makes one: nothing to fetch but
 *	  what it has published since
 *	  its slot here goes
 *
 * Closing is durable, so after a crash of ours nobody publishes here; who
 * publishes is then what the new one says.  If it has taken over, we go on;
 * if not, site_burn() has it never do so, and we are open again.  The worker
 * of sites does that as well, when no call does.  If nobody can ask it, we
 * stay closed: the next call goes on, or reopen_site(), when it is gone.
 *
 * The other mirrors hear of the new primary from us, and follow it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "cache/node.h"
#include "sites/local.h"
#include "sites/repoint.h"
#include "sites/sites.h"
#include "sites/succession.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(switchover);

#define PATIENCE		10000	/* ms, for each answer */
#define NEAR_PATIENCE	60000	/* ms, until it has nearly all */
#define NEAR			1000	/* events that it may lack then */
#define DRAIN_PATIENCE	"10s"	/* for those who are committing */
#define REACH_PATIENCE	10000	/* ms, until it has all */
#define LOOK			100		/* ms */

typedef struct Switchover
{
	MemoryContext context;
	const char *site;			/* the new one */
	char	   *conninfo;
	char	   *own;
	Remote	   *remote;
	Look		look;
	char	   *epoch;			/* the next one */
	char	   *numbers;		/* what we have, closed */
	TimestampTz closed_at;
} Switchover;

static void
refuse(const Switchover *s, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("site \"%s\" cannot take over: %s", s->site, problem),
			 hint ? errhint("%s", hint) : 0));
}

/*-------------------------------------------------------------------------
 * Before anything changes
 *-------------------------------------------------------------------------
 */

static void
check_here(Switchover *s)
{
	NodeState	state = node_state();

	if (state == NODE_FENCED)
		node_check_fence();
	if (state != NODE_PRIMARY && !node_is_switching())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("only the primary can have another site take over"),
				 errdetail("This server is %s.",
						   local_ask("SELECT narinfo.node_state()", 0, NULL)),
				 errhint("CALL narinfo.promote() at a mirror is for when the primary is lost.")));
	if (node_is_switching() &&
		!local_is("SELECT n.closed_for = $1 FROM narinfo.node AS n", 1,
				  &s->site))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("site \"%s\" is to take over already",
						local_ask("SELECT n.closed_for FROM narinfo.node AS n",
								  0, NULL)),
				 errhint("Call switchover() for that one again.")));
	s->own = local_ask("SELECT narinfo.site_name()", 0, NULL);
}

static void
find_site(Switchover *s)
{
	if (local_sql("SELECT s.conninfo, s.caches IS NOT NULL "
				  "FROM narinfo.site AS s WHERE s.name = $1 "
				  "AND s.name <> narinfo.site_name()", 1, &s->site) == 0)
		refuse(s, "there is no other site of this name", NULL);
	s->conninfo = local_value(0, 0);
	if (local_value(0, 1)[0] == 't')
		refuse(s, "it takes some of the caches only", NULL);
	if (s->conninfo == NULL)
		refuse(s, "how it is connected to is not known",
			   "Set pg_narinfo.site_conninfo there.");
	local_commit();
}

static void
connect_site(Switchover *s)
{
	char	   *problem;

	s->remote = succession_look(s->context, s->site, s->conninfo, PATIENCE,
								&s->look, &problem);
	if (s->remote == NULL)
		refuse(s, problem, NULL);
}

/* Can we be its mirror?  Every problem is told, and nothing is changed. */
static void
check_upstream(Switchover *s)
{
	Upstream	upstream = {.context = s->context, .conninfo = s->conninfo};

	upstream.patience = PATIENCE;
	upstream_connect(&upstream);
	remote_close(upstream.remote);
}

static void
check_site(Switchover *s)
{
	if (strcmp(s->look.state, "mirror") != 0 || !s->look.joined)
		refuse(s, psprintf("it is %s", s->look.state), NULL);
	if (s->look.bound)
		refuse(s, psprintf("it has promised epoch %d to site \"%s\"",
						   s->look.promised, s->look.promised_to), NULL);
	if (local_is("SELECT count(*) = 0 OR NOT bool_and(c.vote) "
				 "FROM narinfo.site_cache AS c WHERE c.site = $1", 1,
				 &s->site))
		refuse(s, "it has not proved that it is equal",
			   "CALL narinfo.verify_site() there.");
	local_commit();
}

static void
choose_epoch(Switchover *s)
{
	const char *params[] = {psprintf("%d", s->look.promised)};

	s->epoch = local_ask("SELECT greatest(n.epoch, n.promised, $1::int, "
						 "(SELECT max(greatest(s.epoch, s.promised)) "
						 "FROM narinfo.site AS s)) + 1 "
						 "FROM narinfo.node AS n", 1, params);
	local_commit();
}

/* How many events it lacks, by what both say now. */
static int64
lacks(Switchover *s)
{
	const char *theirs[] = {
		remote_ask(s->remote, "SELECT narinfo.site_numbers()", 0, NULL)
	};
	int64		n =
	pg_strtoint64(local_ask("SELECT coalesce(sum((o.value->>'seq')::bigint - "
							"coalesce(($1::jsonb->o.key->>'seq')::bigint, 0)), "
							"0) FROM jsonb_each(narinfo.site_numbers()) AS o",
							1, theirs));

	local_commit();
	return n;
}

static void
wait_near(Switchover *s)
{
	for (int waited = 0; lacks(s) > NEAR; waited += LOOK)
	{
		if (waited > NEAR_PATIENCE)
			refuse(s, "it lags by too much",
				   "Wait until it has caught up: SELECT * FROM narinfo.stat_sites");
		local_sleep(LOOK);
	}
}

/*-------------------------------------------------------------------------
 * Closed
 *-------------------------------------------------------------------------
 */

static void
close_for(Switchover *s)
{
	const char *params[] = {s->site, s->epoch};

	s->closed_at = GetCurrentTimestamp();
	if (local_sql("UPDATE narinfo.node SET closed = 'switchover', "
				  "closed_for = $1, closed_epoch = $2::int "
				  "WHERE role = 'primary' AND closed IS NULL", 2,
				  params) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is not the primary any more")));
	local_commit();
}

/*
 * Whoever had a lock of a cache when we closed is committing; who takes one
 * now sees that we have closed.
 */
void
switchover_drain(void)
{
	uint64		n = local_sql("SELECT narinfo.event_caches() UNION "
							  "SELECT c.name FROM narinfo.cache AS c UNION "
							  "SELECT 'main' ORDER BY 1", 0, NULL);
	char	  **caches = palloc(sizeof(char *) * (n + 1));

	for (uint64 i = 0; i < n; i++)
		caches[i] = local_value(i, 0);
	(void) set_config_option("lock_timeout", DRAIN_PATIENCE, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	for (uint64 i = 0; i < n; i++)
	{
		gate_lock_cache(caches[i]);
		gate_unlock_cache(caches[i]);
	}
	local_commit();
	/* caches that come into being */
	while (local_is("SELECT EXISTS (SELECT FROM pg_locks AS l "
					"WHERE l.locktype = 'advisory' AND l.objsubid = 20041 "
					"AND l.mode = 'ExclusiveLock' AND l.database = "
					"(SELECT d.oid FROM pg_database AS d "
					"WHERE d.datname = current_database()))", 0, NULL))
	{
		local_commit();
		local_sleep(1);
	}
	local_commit();
}

/* Why it has not come to have all that we have; NULL: it has. */
static char *
wait_reached(Switchover *s)
{
	const char *params[1];
	char	   *problem;
	TimestampTz deadline = TimestampTzPlusMilliseconds(s->closed_at,
													   REACH_PATIENCE);

	s->numbers = local_ask("SELECT narinfo.site_numbers()", 0, NULL);
	local_commit();
	params[0] = s->numbers;
	for (;;)
	{
		char	   *has = succession_try(s->remote,
										 "SELECT narinfo.site_numbers() = "
										 "$1::jsonb", 1, params, &problem);

		if (problem)
			return problem;
		if (has[0] == 't')
			return NULL;
		if (GetCurrentTimestamp() > deadline)
			return "it does not come to have all that this site has";
		local_sleep(1);
	}
}

static char *
hand_over(Switchover *s)
{
	const char *params[] = {s->epoch, s->numbers};
	char	   *problem;

	(void) succession_try(s->remote, "SELECT narinfo.site_take_over"
						  "($1::int, $2::jsonb)", 2, params, &problem);
	return problem;
}

/*
 * Did it, or will it ever?  True when it has taken over.  When it cannot be
 * asked this is an error, and we stay closed.
 */
static bool
ask_outcome(MemoryContext context, const char *site, const char *conninfo,
			const char *epoch)
{
	Remote	   *remote = remote_connect_within(context, conninfo, PATIENCE);
	char	   *burnt = remote_ask(remote,
								   "SELECT narinfo.site_burn($1::int) "
								   "WHERE narinfo.site_name() = $2", 2,
								   (const char *[]) {epoch, site});

	remote_close(remote);
	if (burnt == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("another site than \"%s\" answers there", site)));
	return burnt[0] == 'f';
}

static void
open_again(const char *site)
{
	local_sql("UPDATE narinfo.node SET closed = NULL, closed_for = NULL, "
			  "closed_epoch = NULL WHERE closed = 'switchover' "
			  "AND closed_for = $1", 1, &site);
	local_commit();
}

/*-------------------------------------------------------------------------
 * Afterwards
 *-------------------------------------------------------------------------
 */

/* Its slot here, which nobody reads any more. */
static void
forget_mirror(const char *site)
{
	/* its WAL sender may need a moment to see that nobody reads */
	for (int tries = 0; tries < 100; tries++)
	{
		if (local_is("SELECT narinfo.site_unlink($1) OR NOT EXISTS (SELECT "
					 "FROM narinfo.site_link AS l WHERE l.site = $1)", 1,
					 &site))
			break;
		local_commit();
		local_sleep(LOOK);
	}
	local_commit();
}

static void
become_mirror(MemoryContext context, const char *site, const char *conninfo)
{
	(void) repoint_follow(context, conninfo);
	forget_mirror(site);
}

void
switchover_resolve(MemoryContext context, const char *site, const char *epoch)
{
	char	   *conninfo =
	local_ask("SELECT s.conninfo FROM narinfo.site AS s WHERE s.name = $1",
			  1, &site);

	local_commit();
	if (conninfo == NULL)
		return;
	if (ask_outcome(context, site, conninfo, epoch))
	{
		ereport(LOG,
				errmsg("site \"%s\" has taken over: this one becomes its mirror",
					   site));
		become_mirror(context, site, conninfo);
	}
	else
	{
		ereport(LOG,
				errmsg("site \"%s\" has not taken over: this one publishes on",
					   site));
		open_again(site);
	}
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

/*
 * When it has not taken over, and never will in this epoch, we publish on.  If
 * nobody can say, we stay closed.
 */
static void
close_and_hand_over(Switchover *s)
{
	char	   *problem;

	close_for(s);
	switchover_drain();
	problem = wait_reached(s);
	if (problem == NULL)
		problem = hand_over(s);
	if (problem == NULL ||
		ask_outcome(s->context, s->site, s->conninfo, s->epoch))
		return;
	open_again(s->site);
	refuse(s, problem, "This server publishes on.");
}

/* Of a call that did not come to its end. */
static bool
go_on(Switchover *s)
{
	char	   *epoch = local_ask("SELECT n.closed_epoch "
								  "FROM narinfo.node AS n", 0, NULL);

	local_commit();
	if (ask_outcome(s->context, s->site, s->conninfo, epoch))
		return true;
	open_again(s->site);
	return false;
}

static void
report_time(const Switchover *s)
{
	long		ms = TimestampDifferenceMilliseconds(s->closed_at,
													 GetCurrentTimestamp());

	ereport(NOTICE,
			(errmsg("site \"%s\" is the primary now, in epoch %s",
					s->site, s->epoch),
			 errdetail("Writes were refused for %ld ms.", ms)));
}

static void
run(void *arg)
{
	Switchover *s = arg;

	check_here(s);
	find_site(s);
	if (!node_is_switching() || !go_on(s))
	{
		connect_site(s);
		check_upstream(s);
		check_site(s);
		choose_epoch(s);
		wait_near(s);
		close_and_hand_over(s);
		report_time(s);
		remote_close(s->remote);
	}
	become_mirror(s->context, s->site, s->conninfo);
	ereport(NOTICE,
			(errmsg("site \"%s\" is a mirror of site \"%s\" now", s->own,
					s->site)));
}

/* switchover(to_site) */
Datum
switchover(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "switchover");
	Switchover	s = {.context = context};

	s.site = local_argument(fcinfo, 0);
	if (s.site == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("switchover wants the name of a site, not NULL")));
	/* called again when all is done */
	if (node_state() == NODE_MIRROR &&
		local_is("SELECT m.upstream = $1 AND s.role = 'primary' "
				 "FROM narinfo.mirror_state AS m JOIN narinfo.site AS s "
				 "ON s.name = m.upstream", 1, &s.site))
		ereport(NOTICE,
				(errmsg("site \"%s\" is the primary already", s.site)));
	else
		succession_call("switchover", run, &s);
	local_procedure_end(context);
	PG_RETURN_VOID();
}
