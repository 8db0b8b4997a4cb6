/*-------------------------------------------------------------------------
 *
 * promote.c
 *	  promote(): makes a mirror the primary when the old one is lost.
 *
 *	  here								at each other site that is known
 *	  ----------------------------------------------------------------------
 *	  a mirror of all caches, proved
 *										who are you?  The primary, alive, or
 *										one of a later epoch?
 *	  our own promise, the first
 *										promise; numbers, when nothing is
 *										applied there any more
 *	  enough promises, and nobody
 *	  further than we
 *	  primary of the next epoch
 *
 * What promises are, and why they suffice, stands in promise.c.  Whoever is a
 * mirror and has once proved himself counts as a voter, whether he votes just
 * now or not: what he has may have been counted.
 *
 * Refusals that may be overridden are collected, so that all are told at once,
 * with what would be lost; then the promises are given back.
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
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/node.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "sites/succession.h"

PG_FUNCTION_INFO_V1(promote);

#define PATIENCE		5000	/* ms, for each answer */
#define STOP_PATIENCE	10000	/* ms, until nothing is applied any more */
#define LOOK			20		/* ms between two looks at that */

/* Another site. */
typedef struct Other
{
	char	   *name;
	char	   *conninfo;		/* or NULL */
	bool		voter;
	Remote	   *remote;			/* NULL: not reached */
	Look		look;
	char	   *problem;		/* why not, or why it has not promised */
	bool		asked;			/* it may have promised */
	char	   *numbers;		/* what it has; NULL: it has not promised */
} Other;

typedef struct Promotion
{
	MemoryContext context;
	bool		accept_loss;
	char	   *own;
	int			own_epoch;
	Other	   *others;
	int			nothers;
	int			epoch;			/* the next one */
	StringInfoData problems;	/* a line each, for the DETAIL */
	const char *hint;			/* or NULL */
} Promotion;

static void complain(Promotion *promotion, const char *format,...)
			pg_attribute_printf(2, 3);

static void
complain(Promotion *promotion, const char *format,...)
{
	StringInfo	problems = &promotion->problems;
	va_list		args;
	int			needed;

	if (problems->len > 0)
		appendStringInfoChar(problems, '\n');
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(problems, format, args);
		va_end(args);
		if (needed == 0)
			return;
		enlargeStringInfo(problems, needed);
	}
}

/*-------------------------------------------------------------------------
 * This site
 *-------------------------------------------------------------------------
 */

/* What nobody can override. */
static void
check_candidate(Promotion *promotion)
{
	if (node_state() == NODE_FENCED)
		node_check_fence();
	if (node_state() != NODE_MIRROR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("only a mirror can be promoted"),
				 errdetail("This server is %s.",
						   local_ask("SELECT narinfo.node_state()", 0, NULL)),
				 errhint("SELECT narinfo.reopen_site() has a primary that is closed publish again.")));
	if (!local_is("SELECT m.joined FROM narinfo.mirror_state AS m", 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this mirror has not joined, so it cannot be promoted")));
	if (local_is("SELECT m.caches IS NOT NULL FROM narinfo.mirror_state AS m",
				 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this mirror takes some of the caches only, so it cannot be promoted"),
				 errdetail("It has %s.",
						   local_ask("SELECT array_to_string(m.caches, ', ') "
									 "FROM narinfo.mirror_state AS m", 0,
									 NULL))));
	promotion->own = local_ask("SELECT n.site FROM narinfo.node AS n", 0,
							   NULL);
	promotion->own_epoch =
		pg_strtoint32(local_ask("SELECT n.epoch FROM narinfo.node AS n", 0,
								NULL));
}

static void
look_at_proof(Promotion *promotion)
{
	char	   *problem =
	local_ask("SELECT string_agg(format('cache \"%s\"%s', c.cache, "
			  "': ' || c.problem), ', ' ORDER BY c.cache) "
			  "FROM narinfo.site_cache AS c "
			  "WHERE c.site = narinfo.site_name() "
			  "AND (c.problem IS NOT NULL OR NOT c.vote)", 0, NULL);

	if (problem)
		complain(promotion,
				 "This site is not proved equal to what its events tell of (%s), so what it would publish from then on is not what was acknowledged; CALL narinfo.verify_site().",
				 problem);
}

/*-------------------------------------------------------------------------
 * The others
 *-------------------------------------------------------------------------
 */

static void
read_others(Promotion *promotion)
{
	char	   *conninfo = local_conninfo();
	uint64		n =
	local_sql("SELECT s.name, coalesce(s.conninfo, CASE WHEN s.name = "
			  "m.upstream THEN $1 END), s.upstream IS NOT NULL AND EXISTS "
			  "(SELECT FROM narinfo.site_cache AS c WHERE c.site = s.name "
			  "AND c.proof_seq IS NOT NULL) "
			  "FROM narinfo.site AS s, narinfo.mirror_state AS m "
			  "WHERE s.name <> narinfo.site_name() ORDER BY s.name", 1,
			  (const char *[]) {conninfo});

	promotion->others = palloc0(sizeof(Other) * (n + 1));
	promotion->nothers = (int) n;
	for (uint64 i = 0; i < n; i++)
	{
		Other	   *other = &promotion->others[i];

		other->name = local_value(i, 0);
		other->conninfo = local_value(i, 1);
		other->voter = local_value(i, 2)[0] == 't';
	}
	local_commit();
}

/* Whatever it is: what it says of itself counts for more than what we know. */
static void
judge_other(Promotion *promotion, Other *other)
{
	Look	   *look = &other->look;

	if (strcmp(look->state, "primary") == 0 &&
		look->epoch > promotion->own_epoch)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("site \"%s\" is the primary already, in epoch %d",
						other->name, look->epoch),
				 errhint("CALL narinfo.repoint(), with how it is connected to.")));
	if (strcmp(look->state, "primary") == 0)
	{
		complain(promotion,
				 "The primary, site \"%s\", is alive and publishes in epoch %d; what it publishes from now on would be lost.",
				 other->name, look->epoch);
		promotion->hint =
			psprintf("CALL narinfo.switchover('%s') there loses nothing.",
					 promotion->own);
	}
	if (look->closed && strcmp(look->closed, "switchover") == 0)
	{
		complain(promotion,
				 "Site \"%s\" is in the middle of a switchover.",
				 other->name);
		promotion->hint = "CALL narinfo.switchover() there again.";
	}
	if (look->bound && look->promised_to &&
		strcmp(look->promised_to, other->name) == 0)
	{
		complain(promotion,
				 "Site \"%s\" is about to be promoted itself, in epoch %d.",
				 other->name, look->promised);
		promotion->hint =
			"CALL narinfo.promote() there, or wait until it has given up.";
	}
}

static void
look_at_others(Promotion *promotion)
{
	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		CHECK_FOR_INTERRUPTS();
		if (other->conninfo == NULL)
			other->problem = pstrdup(
									 "how it is connected to is not known; set pg_narinfo.site_conninfo there");
		else
			other->remote = succession_look(promotion->context, other->name,
											other->conninfo, PATIENCE,
											&other->look, &other->problem);
		if (other->remote == NULL)
			continue;
		judge_other(promotion, other);
	}
}

/* Higher than all that anybody has written, or promised. */
static void
choose_epoch(Promotion *promotion)
{
	int			highest =
	pg_strtoint32(local_ask("SELECT greatest(n.epoch, n.promised, "
							"(SELECT max(greatest(s.epoch, s.promised)) "
							"FROM narinfo.site AS s)) "
							"FROM narinfo.node AS n", 0, NULL));

	local_commit();
	for (int i = 0; i < promotion->nothers; i++)
	{
		const Look *look = &promotion->others[i].look;

		highest = Max(highest, Max(look->epoch, look->promised));
	}
	promotion->epoch = highest + 1;
}

/*-------------------------------------------------------------------------
 * Promises
 *-------------------------------------------------------------------------
 */

/* To ourselves, and the first: whoever has promised less has it from us. */
static void
promise_self(Promotion *promotion)
{
	const char *params[] = {psprintf("%d", promotion->epoch), promotion->own};
	char	   *refused;

	local_disable();
	refused = local_ask("SELECT narinfo.site_promise($1::int, $2)->>'refused'",
						2, params);
	if (refused)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("this site cannot promise epoch %d: %s",
						promotion->epoch, refused)));
	local_commit();
}

static void
ask_promise(Promotion *promotion, Other *other)
{
	const char *params[] = {psprintf("%d", promotion->epoch), promotion->own};
	char	   *refused;

	other->asked = true;
	refused = succession_try(other->remote, "SELECT narinfo.site_promise"
							 "($1::int, $2)->>'refused'", 2, params,
							 &other->problem);
	if (refused)
	{
		other->problem = refused;
		other->asked = false;
	}
}

/* Until it has stopped, and says what it has. */
static void
ask_numbers(Promotion *promotion, Other *other)
{
	const char *params[] = {psprintf("%d", promotion->epoch), promotion->own};
	TimestampTz deadline =
	TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_PATIENCE);

	for (;;)
	{
		other->numbers = succession_try(other->remote,
										"SELECT narinfo.site_positions"
										"($1::int, $2)", 2, params,
										&other->problem);
		if (other->numbers || other->problem)
			return;
		if (GetCurrentTimestamp() > deadline)
		{
			other->problem = "it still applies what the old primary has sent";
			return;
		}
		local_sleep(LOOK);
	}
}

static void
gather_promises(Promotion *promotion)
{
	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		if (other->voter && other->remote)
			ask_promise(promotion, other);
	}
	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		if (other->asked && other->problem == NULL)
			ask_numbers(promotion, other);
	}
}

/* Tells everybody that we shall never be the primary in this epoch. */
static void
release_others(Promotion *promotion)
{
	const char *params[] = {psprintf("%d", promotion->epoch), promotion->own};
	char	   *problem;

	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		if (other->asked && other->remote && remote_is_open(other->remote))
			(void) succession_try(other->remote, "SELECT narinfo.site_release"
								  "($1::int, $2)", 2, params, &problem);
	}
}

/*-------------------------------------------------------------------------
 * Are they enough?
 *-------------------------------------------------------------------------
 */

/* "other" with more than we, or with something else. */
static void
compare_numbers(Promotion *promotion, Other *other)
{
	const char *params[] = {other->numbers};
	uint64		n =
	local_sql("SELECT o.cache, o.seq, narinfo.last_event(o.cache), "
			  "o.seq > narinfo.last_event(o.cache) "
			  "FROM (SELECT t.key AS cache, (t.value->>'seq')::bigint AS seq, "
			  "t.value AS v FROM jsonb_each($1::jsonb) AS t) AS o "
			  "LEFT JOIN narinfo.event AS e "
			  "ON e.cache = o.cache AND e.seq = o.seq "
			  "WHERE o.seq > narinfo.last_event(o.cache) "
			  "OR (e.epoch, encode(e.digest, 'hex')) IS DISTINCT FROM "
			  "((o.v->>'epoch')::int, o.v->>'digest') AND e.seq IS NOT NULL",
			  1, params);

	for (uint64 i = 0; i < n; i++)
	{
		if (local_value(i, 3)[0] == 't')
		{
			complain(promotion,
					 "Site \"%s\" has more: events of cache \"%s\" up to %s, and this site up to %s.",
					 other->name, local_value(i, 0), local_value(i, 1),
					 local_value(i, 2));
			promotion->hint =
				psprintf("CALL narinfo.promote() at site \"%s\".",
						 other->name);
		}
		else
			complain(promotion,
					 "Site \"%s\" has another event %s of cache \"%s\".",
					 other->name, local_value(i, 1), local_value(i, 0));
	}
	local_commit();
}

/* What may be lost: all that is behind our numbers. */
static char *
what_is_lost(int k)
{
	char	   *caches =
	local_ask("SELECT string_agg(format('cache \"%s\" from event %s on%s', "
			  "c.cache, narinfo.last_event(c.cache) + 1, "
			  "CASE WHEN c.seq > narinfo.last_event(c.cache) "
			  "THEN format(' (event %s was heard of)', c.seq) END), "
			  "', ' ORDER BY c.cache) FROM (SELECT o.cache, max(o.seq) "
			  "FROM narinfo.site_cache AS o GROUP BY o.cache) "
			  "AS c (cache, seq)", 0, NULL);

	local_commit();
	return psprintf("events acknowledged with %d %s: %s", k,
					k == 1 ? "copy" : "copies", caches ? caches : "none");
}

/* The voters of one cache, or of any: m, and how many of them promised. */
static void
count_promises(Promotion *promotion)
{
	int			k =
	pg_strtoint32(local_ask("SELECT narinfo.site_least_copies()", 0, NULL));
	int			m = 1;			/* we are one */
	int			promised = 1;
	int			needed;
	StringInfoData missing;

	initStringInfo(&missing);
	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		if (!other->voter)
			continue;
		m++;
		if (other->numbers)
			promised++;
		else
			appendStringInfo(&missing, "%ssite \"%s\": %s",
							 missing.len > 0 ? "; " : "", other->name,
							 other->problem ? other->problem : "not asked");
	}
	needed = Max(m - k + 1, m / 2 + 1);
	if (promised < needed)
		complain(promotion,
				 "Of %d mirrors %d have promised to follow, and %d have to (%s). These may have what would be lost, %s.",
				 m, promised, needed, missing.data, what_is_lost(k));
}

static void
refuse_if(Promotion *promotion, bool accept_loss)
{
	if (promotion->problems.len == 0)
		return;
	if (accept_loss)
	{
		ereport(WARNING,
				(errmsg("what was acknowledged may be lost, as was accepted"),
				 errdetail("%s", promotion->problems.data)));
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("promoting this site could lose what was acknowledged"),
			 errdetail("%s", promotion->problems.data),
			 errhint("%s%sTo lose it: CALL narinfo.promote(accept_loss => true)",
					 promotion->hint ? promotion->hint : "",
					 promotion->hint ? " " : "")));
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

/*
 * An old primary that is there after all is told at once; the others ask.
 * Its own report would do so, too.
 */
static void
tell_old_primary(Promotion *promotion)
{
	char	   *row = local_ask("SELECT jsonb_agg(to_jsonb(s)) "
								"FROM narinfo.site AS s "
								"WHERE s.name = narinfo.site_name()", 0,
								NULL);
	char	   *problem;

	local_commit();
	for (int i = 0; i < promotion->nothers; i++)
	{
		Other	   *other = &promotion->others[i];

		if (other->remote && remote_is_open(other->remote))
			(void) succession_try(other->remote,
								  "SELECT narinfo.site_hear($1::jsonb)", 1,
								  (const char *[]) {row}, &problem);
	}
}

/*
 * Refused for reasons: whoever is promoted instead, as the hint may say, need
 * not wait for our worker.
 */
static void
release_self(Promotion *promotion)
{
	const char *params[] = {psprintf("%d", promotion->epoch), promotion->own};

	local_sql("SELECT narinfo.site_release($1::int, $2)", 2, params);
	local_commit();
}

static void
decide(Promotion *promotion, bool accept_loss)
{
	gather_promises(promotion);
	count_promises(promotion);
	for (int i = 0; i < promotion->nothers; i++)
	{
		if (promotion->others[i].numbers)
			compare_numbers(promotion, &promotion->others[i]);
	}
	if (promotion->problems.len > 0 && !accept_loss)
		release_self(promotion);
	refuse_if(promotion, accept_loss);
	succession_take(psprintf("%d", promotion->epoch), true);
	local_commit();
}

/* An error gives the promises back: this epoch is nobody's. */
static void
try_promote(Promotion *promotion, bool accept_loss)
{
	promise_self(promotion);
	PG_TRY();
	{
		decide(promotion, accept_loss);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(promotion->context);
		error = CopyErrorData();
		FlushErrorState();
		release_others(promotion);
		ReThrowError(error);
	}
	PG_END_TRY();
	tell_old_primary(promotion);
}

static void
run(void *arg)
{
	Promotion  *promotion = arg;

	initStringInfo(&promotion->problems);
	check_candidate(promotion);
	look_at_proof(promotion);
	read_others(promotion);
	look_at_others(promotion);
	refuse_if(promotion, promotion->accept_loss);
	resetStringInfo(&promotion->problems);
	choose_epoch(promotion);
	try_promote(promotion, promotion->accept_loss);
	ereport(NOTICE,
			(errmsg("site \"%s\" is the primary now, in epoch %d",
					promotion->own, promotion->epoch),
			 errdetail("The other sites follow it by themselves, when they can be reached.")));
}

/* promote(accept_loss) */
Datum
promote(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "promote");
	Promotion	promotion = {.context = context};

	promotion.accept_loss = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	if (node_state() == NODE_PRIMARY)
		ereport(NOTICE, (errmsg("this site is the primary already")));
	else
		succession_call("promote", run, &promotion);
	local_procedure_end(context);
	PG_RETURN_VOID();
}
