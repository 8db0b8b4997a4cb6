/*-------------------------------------------------------------------------
 *
 * succession.c
 *	  What the worker of a site does when another one has become the primary,
 *	  or was to and did not: it completes what an operator has called, and
 *	  begins nothing by itself.
 *
 *	  a mirror
 *		bound by a promise		to itself, with no call going on: it gives up
 *								to one that says that it has given up: free
 *		a primary in a later	our upstream is it, or has its epoch already:
 *		epoch is known			go on, and be of that epoch when all that it
 *								had then is here
 *								we followed the old primary, or our upstream
 *								is gone: repoint() to the new one, if our
 *								history is the beginning of its
 *	  a primary closed for a switchover that nobody goes on with
 *								see switchover_resolve()
 *
 * Slots of those that follow another one by now are dropped.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "cache/errors.h"
#include "cache/node.h"
#include "sites/local.h"
#include "sites/repoint.h"
#include "sites/sites.h"
#include "sites/succession.h"

#define PATIENCE 3000			/* ms, for the new primary to say that it is */

/* How long a mirror of a mirror waits for that to be of the new epoch. */
#define UPSTREAM_PATIENCE "10 s"

/* Whoever has not reported for so long may have gone to another site. */
#define UNSEEN "30 s"

/* What we are, and what we have heard. */
typedef struct Situation
{
	bool		mirror;
	int			epoch;
	bool		bound;
	int			promised;
	char	   *promised_to;
	char	   *closed;
	char	   *closed_for;
	char	   *closed_epoch;
	char	   *own;
	char	   *upstream;
	bool		direct;
	bool		lost;			/* our upstream, for long */
	bool		forked;
	char	   *primary;		/* the other one, or NULL */
	char	   *primary_conninfo;
	int			primary_epoch;
	int			upstream_epoch;
} Situation;

static bool
is_true(int column)
{
	char	   *value = local_value(0, column);

	return value != NULL && value[0] == 't';
}

static int
number(int column)
{
	char	   *value = local_value(0, column);

	return value ? pg_strtoint32(value) : 0;
}

/* False when there is nothing to look at. */
static bool
read_situation(Situation *s)
{
	if (local_sql("SELECT n.role = 'mirror', n.epoch, n.bound, n.promised, "
				  "n.promised_to, n.closed, n.closed_for, n.closed_epoch, "
				  "n.site, m.upstream, m.direct, "
				  "coalesce(m.reported, '-infinity') < clock_timestamp() - "
				  "interval '" UPSTREAM_PATIENCE "', m.forked IS NOT NULL, "
				  "p.name, p.conninfo, p.epoch, u.epoch "
				  "FROM narinfo.node AS n "
				  "LEFT JOIN narinfo.mirror_state AS m ON m.joined "
				  "LEFT JOIN narinfo.site AS p "
				  "ON p.name = narinfo.site_primary() AND p.name <> n.site "
				  "LEFT JOIN narinfo.site AS u ON u.name = m.upstream",
				  0, NULL) == 0)
		return false;
	s->mirror = is_true(0);
	s->epoch = number(1);
	s->bound = is_true(2);
	s->promised = number(3);
	s->promised_to = local_value(0, 4);
	s->closed = local_value(0, 5);
	s->closed_for = local_value(0, 6);
	s->closed_epoch = local_value(0, 7);
	s->own = local_value(0, 8);
	s->upstream = local_value(0, 9);
	s->direct = is_true(10);
	s->lost = is_true(11);
	s->forked = is_true(12);
	s->primary = local_value(0, 13);
	s->primary_conninfo = local_value(0, 14);
	s->primary_epoch = number(15);
	s->upstream_epoch = number(16);
	local_commit();
	return true;
}

/*-------------------------------------------------------------------------
 * A promise that is over
 *-------------------------------------------------------------------------
 */

/*
 * Has the candidate given it up?  What it has said counts only if we were
 * bound when we asked.
 */
static bool
is_given_up(const Situation *s)
{
	if (s->promised_to && strcmp(s->promised_to, s->own) == 0)
		return true;			/* no call is going on, for we have the lock */
	return s->promised_to && watch_bound_before() == s->promised &&
		watch_has_answered(s->promised_to) &&
		local_is("SELECT c.epoch < n.promised AND c.promised <> n.promised "
				 "FROM narinfo.node AS n JOIN narinfo.site AS c "
				 "ON c.name = n.promised_to", 0, NULL);
}

static void
give_up(const Situation *s)
{
	const char *params[] = {psprintf("%d", s->promised), s->promised_to};

	local_sql("SELECT narinfo.site_release($1::int, $2)", 2, params);
	local_commit();
	ereport(LOG,
			errmsg("epoch %d, which was promised to site \"%s\", was given up",
				   s->promised, s->promised_to));
}

/*-------------------------------------------------------------------------
 * Following
 *-------------------------------------------------------------------------
 */

/* The promise has come true by way of our upstream. */
static void
go_on(const Situation *s)
{
	const char *params[] = {psprintf("%d", s->promised), s->promised_to};

	if (s->bound)
		local_sql("SELECT narinfo.site_release($1::int, $2)", 2, params);
	local_commit();
}

/*
 * What our upstream had when it told of its epoch, do we have it?  Then all
 * that comes is of that epoch, and so are we.
 */
static void
be_of_upstream_epoch(const Situation *s)
{
	const char *params[] = {psprintf("%d", s->upstream_epoch)};

	if (local_sql("UPDATE narinfo.node AS n SET epoch = $1::int "
				  "FROM narinfo.mirror_state AS m WHERE n.epoch < $1::int "
				  "AND NOT EXISTS (SELECT FROM narinfo.site_cache AS c "
				  "WHERE c.site = m.upstream AND (m.caches IS NULL OR "
				  "c.cache = ANY (m.caches)) "
				  "AND c.seq > narinfo.last_event(c.cache))", 1, params) == 0)
	{
		local_commit();
		return;
	}
	local_commit();
	sites_prove();
	local_commit();
}

static void
note_fork(const char *site, const char *how)
{
	const char *params[] = {
		psprintf("site \"%s\" publishes, but does not have all events of this one (%s): CALL narinfo.rejoin(), with how it is connected to",
				 site, how)
	};

	local_sql("UPDATE narinfo.mirror_state SET forked = $1", 1, params);
	local_commit();
	ereport(LOG, (errmsg("%s", params[0])));
}

static void
follow(MemoryContext context, const Situation *s)
{
	Look		look;
	char	   *problem;
	Remote	   *remote;

	if (s->primary_conninfo == NULL)
		return;
	remote = succession_look(context, s->primary, s->primary_conninfo,
							 PATIENCE, &look, &problem);
	if (remote == NULL)
		return;
	if (strcmp(look.state, "primary") != 0 || look.epoch <= s->epoch ||
		(s->bound && look.epoch < s->promised))
	{
		remote_close(remote);
		return;
	}
	problem = repoint_fork(remote);
	remote_close(remote);
	if (problem)
	{
		note_fork(s->primary, problem);
		return;
	}
	ereport(LOG,
			errmsg("site \"%s\" is the primary now, in epoch %d: this one follows it",
				   s->primary, look.epoch));
	repoint_follow(context, s->primary_conninfo);
}

static void
mirror_step(MemoryContext context, const Situation *s)
{
	bool		later = s->primary && s->primary_epoch > s->epoch &&
	(!s->bound || s->primary_epoch >= s->promised);

	if (s->upstream == NULL)
		return;
	if (later && s->upstream_epoch >= s->primary_epoch &&
		(!s->direct || strcmp(s->upstream, s->primary) == 0))
	{
		go_on(s);
		be_of_upstream_epoch(s);
	}
	else if (later && !s->forked &&
			 (s->direct || s->lost ||
			  (s->bound && strcmp(s->promised_to, s->primary) == 0 &&
			   s->lost)))
		follow(context, s);
	else if (s->bound && !later && is_given_up(s))
		give_up(s);
}

/*
 * Those that follow another site now; what they had here nobody reads.  What
 * others say of one that has just come to us may be from before.
 */
static void
drop_old_slots(void)
{
	local_sql("SELECT narinfo.site_unlink(l.site) FROM narinfo.site_link AS l "
			  "JOIN narinfo.site AS s ON s.name = l.site "
			  "WHERE l.joined AND l.seen < clock_timestamp() - "
			  "interval '" UNSEEN "' AND (s.role = 'primary' OR s.upstream <> "
			  "narinfo.site_name())", 0, NULL);
	local_commit();
}

void
succession_follow(MemoryContext context)
{
	Situation	s;

	if (!succession_lock())
		return;
	PG_TRY();
	{
		if (read_situation(&s))
		{
			if (s.mirror)
				mirror_step(context, &s);
			else if (s.closed && strcmp(s.closed, "switchover") == 0)
				switchover_resolve(context, s.closed_for, s.closed_epoch);
			drop_old_slots();
		}
	}
	PG_FINALLY();
	{
		succession_unlock();
	}
	PG_END_TRY();
}
