/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  The site that this one mirrors, or is to mirror.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/upstream.h"

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/logicallauncher.h"
#include "utils/builtins.h"
#include "utils/elog.h"

#include "sites/local.h"

#define DISMISS_PATIENCE 30000	/* ms */
#define DISMISS_LOOK	 100	/* ms */

/*-------------------------------------------------------------------------
 * Looking
 *-------------------------------------------------------------------------
 */

/* One more thing to change: what is wrong, and what mends it. */
static void
complain(StringInfo problems, const char *problem, const char *remedy)
{
	appendStringInfo(problems, "%s%s: %s", problems->len > 0 ? "\n" : "",
					 problem, remedy);
}

/*
 * Versions may differ by one in their second part while sites are upgraded,
 * mirrors first.
 */
static void
check_version(StringInfo problems, const char *theirs)
{
	char	   *ours = local_ask("SELECT x.extversion FROM pg_extension AS x "
								 "WHERE x.extname = 'pg_narinfo'", 0, NULL);
	int			our[2] = {0, 0};
	int			their[2] = {0, 0};

	if (theirs == NULL)
	{
		complain(problems,
				 "the other site has no extension pg_narinfo in this database",
				 "CREATE EXTENSION pg_narinfo there, or name another database");
		return;
	}
	if (sscanf(ours, "%d.%d", &our[0], &our[1]) != 2 ||
		sscanf(theirs, "%d.%d", &their[0], &their[1]) != 2)
		elog(ERROR, "cannot read versions %s and %s", ours, theirs);
	if (our[0] == their[0] && our[1] - their[1] >= 0 && our[1] - their[1] <= 1)
		return;
	complain(problems,
			 psprintf("pg_narinfo is %s here and %s at the other site",
					  ours, theirs),
			 (our[0] < their[0] ||
			  (our[0] == their[0] && our[1] < their[1])) ?
			 "upgrade it here first" :
			 "upgrade the other site; a mirror may be one version ahead");
}

/* Columns of the question below. */
enum
{
	THEIR_WAL_LEVEL,
	THEIR_SLOTS,
	THEIR_SENDERS,
	THEIR_KEEP_SIZE,
	THEIR_ENCODING,
	THEIR_VERSION,
	THEIR_ROLE_REPLICATES,
	THEIR_ROLE_READS,
	THEIR_ROLE,
	THEIR_SYNCHRONOUS
};

static const char their_query[] =
"SELECT current_setting('wal_level'), "
"current_setting('max_replication_slots')::int - "
"(SELECT count(*) FROM pg_replication_slots), "
"current_setting('max_wal_senders')::int - "
"(SELECT count(*) FROM pg_stat_replication), "
"current_setting('max_slot_wal_keep_size'), "
"current_setting('server_encoding'), "
"(SELECT extversion FROM pg_extension WHERE extname = 'pg_narinfo'), "
"(SELECT rolsuper OR rolreplication FROM pg_roles "
"WHERE rolname = current_user), "
"coalesce((SELECT pg_has_role(oid, 'usage') FROM pg_roles "
"WHERE rolname = 'narinfo_site'), false), quote_ident(current_user), "
"current_setting('synchronous_standby_names')";

static void
check_theirs(StringInfo problems, Remote *remote)
{
	int			wanted = 1 + max_sync_workers_per_subscription;
	const char *role;

	(void) remote_query(remote, their_query, 0, NULL);
	role = remote_value(remote, 0, THEIR_ROLE);
	if (strcmp(remote_value(remote, 0, THEIR_WAL_LEVEL), "logical") != 0)
		complain(problems, psprintf("wal_level of the other site is %s",
									remote_value(remote, 0, THEIR_WAL_LEVEL)),
				 "ALTER SYSTEM SET wal_level = logical there, and restart it");
	if (atoi(remote_value(remote, 0, THEIR_SLOTS)) < wanted)
		complain(problems,
				 psprintf("the other site has %s free replication slots, and %d are needed",
						  remote_value(remote, 0, THEIR_SLOTS), wanted),
				 "raise max_replication_slots there, and restart it");
	if (atoi(remote_value(remote, 0, THEIR_SENDERS)) < wanted)
		complain(problems,
				 psprintf("the other site has %s free WAL senders, and %d are needed",
						  remote_value(remote, 0, THEIR_SENDERS), wanted),
				 "raise max_wal_senders there, and restart it");
	if (strcmp(remote_value(remote, 0, THEIR_KEEP_SIZE), "-1") != 0)
		complain(problems,
				 psprintf("max_slot_wal_keep_size of the other site is %s, with which slots of mirrors are lost",
						  remote_value(remote, 0, THEIR_KEEP_SIZE)),
				 "ALTER SYSTEM SET max_slot_wal_keep_size = -1 there, and reload it");
	if (remote_value(remote, 0, THEIR_SYNCHRONOUS)[0] != '\0')
		ereport(WARNING,
				(errmsg("synchronous_standby_names of the other site is set"),
				 errdetail("Its publishers hold their locks while they wait.")));
	if (strcmp(remote_value(remote, 0, THEIR_ENCODING),
			   GetDatabaseEncodingName()) != 0)
		complain(problems,
				 psprintf("the encoding of this database is %s, and that of the other site's %s",
						  GetDatabaseEncodingName(),
						  remote_value(remote, 0, THEIR_ENCODING)),
				 "make this database with the same encoding");
	if (strcmp(remote_value(remote, 0, THEIR_ROLE_REPLICATES), "t") != 0)
		complain(problems,
				 psprintf("role %s of the other site may not replicate",
						  role),
				 psprintf("ALTER ROLE %s REPLICATION there", role));
	if (remote_value(remote, 0, THEIR_VERSION) != NULL &&
		strcmp(remote_value(remote, 0, THEIR_ROLE_READS), "t") != 0)
		complain(problems,
				 psprintf("role %s of the other site may not read its caches",
						  role),
				 psprintf("GRANT narinfo_site TO %s there", role));
	check_version(problems, remote_value(remote, 0, THEIR_VERSION));
}

static void
check_ours(StringInfo problems)
{
	int			wanted = 1 + max_sync_workers_per_subscription;
	int			workers;

	if (wal_level < WAL_LEVEL_LOGICAL)
		complain(problems,
				 "wal_level is not logical here, so this site could have no mirrors, nor be promoted",
				 "ALTER SYSTEM SET wal_level = logical, and restart");
	if (max_logical_replication_workers < wanted)
		complain(problems,
				 psprintf("max_logical_replication_workers is %d here, and %d are needed",
						  max_logical_replication_workers, wanted),
				 psprintf("ALTER SYSTEM SET max_logical_replication_workers = %d, and restart",
						  wanted));
	/* one more is the worker of sites */
	workers = atoi(local_ask("SELECT count(*) FROM pg_stat_activity AS a "
							 "WHERE a.backend_type ~ "
							 "'^(pg_narinfo|logical replication)'", 0, NULL)) +
		wanted + 1;
	if (max_worker_processes < workers)
		complain(problems,
				 psprintf("max_worker_processes is %d here, and %d are needed",
						  max_worker_processes, workers),
				 psprintf("ALTER SYSTEM SET max_worker_processes = %d, and restart",
						  workers));
	if (local_is("SELECT current_setting('max_replication_slots')::int - "
				 "(SELECT count(*) FROM pg_replication_origin) < $1::int",
				 1, (const char *[]) {psprintf("%d", wanted)}))
		complain(problems,
				 "max_replication_slots is too low here, which limits origins of replication, too",
				 "raise max_replication_slots, and restart");
}

void
upstream_connect(Upstream *upstream)
{
	StringInfoData problems;

	upstream->remote = remote_connect(upstream->context, upstream->conninfo,
									  false);
	remote_set_patience(upstream->remote, upstream->patience);
	initStringInfo(&problems);
	check_theirs(&problems, upstream->remote);
	check_ours(&problems);
	if (problems.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server cannot mirror the other site yet"),
				 errdetail("%s", problems.data)));
}

/*-------------------------------------------------------------------------
 * Being admitted
 *-------------------------------------------------------------------------
 */

void
upstream_admit(Upstream *upstream)
{
	const char *params[] = {upstream->site, upstream->caches};
	const char *reply[1];
	char	   *request =
	local_ask("SELECT jsonb_build_object('site', $1, 'caches', "
			  "to_jsonb($2::text[]), 'system_identifier', "
			  "(SELECT system_identifier FROM pg_control_system()), 'epoch', "
			  "(SELECT n.epoch FROM narinfo.node AS n))",
			  2, params);

	local_commit();
	reply[0] = remote_ask(upstream->remote,
						  "SELECT narinfo.site_admit($1::jsonb)", 1,
						  (const char *[]) {request});
	local_sql("SELECT r->>'site', r->>'epoch', r->>'slot', "
			  "r->>'publication', r->'above' ? $2, "
			  "(SELECT array_agg(c)::text FROM "
			  "jsonb_array_elements_text(nullif(r->'caches', 'null')) AS c), "
			  "r->>'role' "
			  "FROM (SELECT $1::jsonb) AS t (r)", 2,
			  (const char *[]) {reply[0], upstream->site});
	upstream->name = local_value(0, 0);
	upstream->epoch = local_value(0, 1);
	upstream->slot = local_value(0, 2);
	upstream->publication = local_value(0, 3);
	upstream->caches = local_value(0, 5);
	upstream->primary = strcmp(local_value(0, 6), "primary") == 0;
	if (strcmp(local_value(0, 4), "t") == 0)
	{
		local_commit();
		upstream_try_dismiss(upstream);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("site \"%s\" has what it has by way of this one",
						upstream->name)));
	}
	local_commit();
}

bool
upstream_has_slot(Upstream *upstream)
{
	return remote_query(upstream->remote,
						"SELECT FROM pg_replication_slots "
						"WHERE slot_name = $1 AND database = "
						"current_database() AND "
						"wal_status IS DISTINCT FROM 'lost'", 1,
						(const char *[]) {upstream->slot}) > 0;
}

void
upstream_make_slot(Upstream *upstream)
{
	if (upstream_has_slot(upstream))
		return;
	(void) remote_query(upstream->remote,
						"SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
						1, (const char *[]) {upstream->slot});
}

/* Its WAL sender may need a moment to see that nobody reads any more. */
static void
wait_unused(Remote *remote, const char *site)
{
	for (int waited = 0; waited < DISMISS_PATIENCE; waited += DISMISS_LOOK)
	{
		if (remote_query(remote, "SELECT FROM pg_replication_slots "
						 "WHERE slot_name = 'narinfo_' || $1 AND active",
						 1, (const char *[]) {site}) == 0)
			return;
		local_sleep(DISMISS_LOOK);
	}
}

void
upstream_dismiss(Upstream *upstream)
{
	if (upstream->remote == NULL || !remote_is_open(upstream->remote))
		upstream->remote = remote_connect(upstream->context,
										  upstream->conninfo, false);
	wait_unused(upstream->remote, upstream->site);
	(void) remote_query(upstream->remote,
						"SELECT narinfo.dismiss_site($1)", 1,
						(const char *[]) {upstream->site});
}

void
upstream_try_dismiss(Upstream *upstream)
{
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		/* the old connection may be in the middle of something */
		if (upstream->remote != NULL)
		{
			remote_cancel(upstream->remote);
			remote_close(upstream->remote);
		}
		upstream_dismiss(upstream);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		ereport(WARNING,
				(errmsg("the slot of site \"%s\" could not be dropped: %s",
						upstream->site, error->message),
				 errhint("There: SELECT narinfo.dismiss_site('%s')",
						 upstream->site)));
		FreeErrorData(error);
	}
	PG_END_TRY();
}

/*-------------------------------------------------------------------------
 * The subscription
 *-------------------------------------------------------------------------
 */

void
upstream_subscribe(const Upstream *upstream, bool copy)
{
	char	   *statement =
	psprintf("CREATE SUBSCRIPTION " SITE_SUBSCRIPTION " CONNECTION %s "
			 "PUBLICATION %s WITH (create_slot = false, enabled = false, "
			 "slot_name = %s, copy_data = %s, binary = true, "
			 "synchronous_commit = local, disable_on_error = true)",
			 quote_literal_cstr(upstream->conninfo),
			 quote_identifier(upstream->publication),
			 quote_literal_cstr(upstream->slot), copy ? "true" : "false");

	local_sql(statement, 0, NULL);
}

static void
drop_subscription(const char *name)
{
	local_altering = true;
	PG_TRY();
	{
		local_sql(psprintf("ALTER SUBSCRIPTION %s DISABLE", name), 0, NULL);
		local_sql(psprintf("ALTER SUBSCRIPTION %s SET (slot_name = NONE)",
						   name), 0, NULL);
		local_sql(psprintf("DROP SUBSCRIPTION %s", name), 0, NULL);
	}
	PG_FINALLY();
	{
		local_altering = false;
	}
	PG_END_TRY();
}

void
upstream_unsubscribe(void)
{
	if (local_conninfo() != NULL)
		drop_subscription(SITE_SUBSCRIPTION);
}

/*
 * To drop a subscription forgets how far it has come, whatever becomes of the
 * transaction: so that is the last step, behind those that may fail.
 */
void
upstream_resubscribe(const Upstream *upstream)
{
	bool		old = local_conninfo() != NULL;

	if (old)
		local_sql("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION " RENAME TO "
				  SITE_SUBSCRIPTION "_old", 0, NULL);
	upstream_subscribe(upstream, false);
	if (old)
		drop_subscription(SITE_SUBSCRIPTION "_old");
}
