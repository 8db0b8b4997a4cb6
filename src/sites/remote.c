/*-------------------------------------------------------------------------
 *
 * remote.c
 *	  Asking another site: libpq, with waits that can be interrupted.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/remote.h"

#include <libpq-fe.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"

#define CONNECT_PATIENCE 30000	/* ms */

#define CONNECTION_FAILED \
	ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION

/* Texts have one form, and names one meaning; as local.c sets it here. */
static const char settings_query[] =
"SELECT set_config('search_path', 'pg_catalog, pg_temp', false), "
"set_config('datestyle', 'ISO, YMD', false), "
"set_config('intervalstyle', 'postgres', false), "
"set_config('timezone', 'UTC', false), "
"set_config('bytea_output', 'hex', false), "
"set_config('jit', 'off', false), "
"set_config('statement_timeout', '0', false)";

struct Remote
{
	PGconn	   *conn;
	PGresult   *result;			/* the last one */
	int			patience;		/* ms for a query; 0: no limit */
	MemoryContext context;
	MemoryContextCallback callback;
};

/*-------------------------------------------------------------------------
 * Connecting
 *-------------------------------------------------------------------------
 */

static PQconninfoOption *
parse(const char *conninfo)
{
	char	   *message = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &message);

	if (options == NULL)
	{
		char	   *copy = pchomp(message ? message : "out of memory");

		PQfreemem(message);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("this is no connection string: %s", copy)));
	}
	return options;
}

void
remote_check_conninfo(const char *conninfo)
{
	PQconninfoOption *options = parse(conninfo);
	bool		password = false;

	for (PQconninfoOption *o = options; o->keyword; o++)
	{
		if ((strcmp(o->keyword, "password") == 0 ||
			 strcmp(o->keyword, "sslpassword") == 0) &&
			o->val != NULL && o->val[0] != '\0')
			password = true;
	}
	PQconninfoFree(options);
	if (password)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a connection string of sites must have no password"),
				 errdetail("It would stand in pg_subscription and in logs."),
				 errhint("Use a service (service=...) or a password file (passfile=..., or .pgpass of the user who runs the server).")));
}

static void
release(void *arg)
{
	Remote	   *remote = arg;

	PQclear(remote->result);
	remote->result = NULL;
	if (remote->conn != NULL)
	{
		PQfinish(remote->conn);
		ReleaseExternalFD();
	}
	remote->conn = NULL;
}

static void
connection_failed(Remote *remote, const char *what)
{
	char	   *message = pchomp(PQerrorMessage(remote->conn));

	release(remote);
	ereport(ERROR,
			(errcode(CONNECTION_FAILED),
			 errmsg("%s: %s", what, message)));
}

/* Until the socket is ready for this, or the deadline (0: none) has come. */
static bool
wait_socket(Remote *remote, int event, TimestampTz deadline)
{
	long		timeout = -1;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | event;
	int			found;

	if (deadline != 0)
	{
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												  deadline);
		events |= WL_TIMEOUT;
	}
	found = WaitLatchOrSocket(MyLatch, events, PQsocket(remote->conn),
							  timeout, compat_wait_event("PgNarinfoSite"));
	if (found & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return (found & WL_TIMEOUT) == 0;
}

static void
finish_connecting(Remote *remote, int patience)
{
	TimestampTz deadline =
	TimestampTzPlusMilliseconds(GetCurrentTimestamp(), patience);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	while (status != PGRES_POLLING_OK)
	{
		if (status == PGRES_POLLING_FAILED)
			connection_failed(remote, "could not connect to the other site");
		if (!wait_socket(remote, status == PGRES_POLLING_READING ?
						 WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE, deadline))
		{
			release(remote);
			ereport(ERROR,
					(errcode(CONNECTION_FAILED),
					 errmsg("could not connect to the other site within %d ms",
							patience)));
		}
		status = PQconnectPoll(remote->conn);
	}
}

static Remote *
connect_within(MemoryContext context, const char *conninfo, bool replication,
			   int patience)
{
	const char *keywords[] = {
		"dbname", "fallback_application_name", "client_encoding",
		"replication", NULL
	};
	const char *values[] = {
		conninfo, "pg_narinfo site", GetDatabaseEncodingName(),
		replication ? "database" : NULL, NULL
	};
	Remote	   *remote = MemoryContextAllocZero(context, sizeof(Remote));

	remote_check_conninfo(conninfo);
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many files are open to connect to another site")));
	remote->context = context;
	remote->conn = PQconnectStartParams(keywords, values, true);
	if (remote->conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	remote->callback.func = release;
	remote->callback.arg = remote;
	MemoryContextRegisterResetCallback(context, &remote->callback);
	if (PQstatus(remote->conn) == CONNECTION_BAD)
		connection_failed(remote, "could not connect to the other site");
	finish_connecting(remote, patience);
	return remote;
}

Remote *
remote_connect(MemoryContext context, const char *conninfo, bool replication)
{
	Remote	   *remote = connect_within(context, conninfo, replication,
										CONNECT_PATIENCE);

	if (!replication)
		(void) remote_query(remote, settings_query, 0, NULL);
	return remote;
}

Remote *
remote_connect_within(MemoryContext context, const char *conninfo, int ms)
{
	Remote	   *remote = connect_within(context, conninfo, false, ms);

	remote->patience = ms;
	(void) remote_query(remote, settings_query, 0, NULL);
	return remote;
}

void
remote_set_patience(Remote *remote, int ms)
{
	remote->patience = ms;
}

void
remote_close(Remote *remote)
{
	release(remote);
}

void
remote_cancel(Remote *remote)
{
	PGcancel   *cancel;
	char		message[256];

	if (!remote_is_open(remote) ||
		PQtransactionStatus(remote->conn) != PQTRANS_ACTIVE)
		return;
	cancel = PQgetCancel(remote->conn);
	if (cancel == NULL)
		return;
	(void) PQcancel(cancel, message, sizeof(message));
	PQfreeCancel(cancel);
}

bool
remote_is_open(Remote *remote)
{
	return remote->conn != NULL && PQstatus(remote->conn) == CONNECTION_OK;
}

/*-------------------------------------------------------------------------
 * Asking
 *-------------------------------------------------------------------------
 */

static char *
copy_field(const PGresult *result, int field)
{
	const char *text = PQresultErrorField(result, field);

	return text ? pstrdup(text) : NULL;
}

static void
query_failed(Remote *remote)
{
	const char *state = PQresultErrorField(remote->result, PG_DIAG_SQLSTATE);
	int			code = ERRCODE_CONNECTION_FAILURE;
	char	   *message = copy_field(remote->result,
									 PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = copy_field(remote->result, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = copy_field(remote->result, PG_DIAG_MESSAGE_HINT);

	if (state && strlen(state) == 5)
		code = MAKE_SQLSTATE(state[0], state[1], state[2], state[3],
							 state[4]);
	if (message == NULL)
		message = pchomp(PQerrorMessage(remote->conn));
	if (PQstatus(remote->conn) != CONNECTION_OK)
		release(remote);
	ereport(ERROR,
			(errcode(code),
			 errmsg("the other site: %s", message),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

/* Whatever it says later belongs to no question any more. */
static void
no_answer(Remote *remote)
{
	int			patience = remote->patience;

	release(remote);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("the other site does not answer within %d ms",
					patience)));
}

/* The last result of the statement that was sent, or NULL. */
static PGresult *
receive(Remote *remote)
{
	PGresult   *last = NULL;
	TimestampTz deadline = remote->patience == 0 ? 0 :
	TimestampTzPlusMilliseconds(GetCurrentTimestamp(), remote->patience);

	for (;;)
	{
		PGresult   *next;

		while (PQisBusy(remote->conn))
		{
			if (!wait_socket(remote, WL_SOCKET_READABLE, deadline))
			{
				PQclear(last);
				no_answer(remote);
			}
			if (!PQconsumeInput(remote->conn))
			{
				PQclear(last);
				return NULL;
			}
		}
		next = PQgetResult(remote->conn);
		if (next == NULL)
			return last;
		PQclear(last);
		last = next;
		if (PQstatus(remote->conn) == CONNECTION_BAD)
			return last;
	}
}

int
remote_query(Remote *remote, const char *query, int nparams,
			 const char *const *params)
{
	ExecStatusType status;
	int			sent;

	if (remote->conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_DOES_NOT_EXIST),
				 errmsg("the connection to the other site is closed")));
	PQclear(remote->result);
	remote->result = NULL;
	if (nparams > 0)
		sent = PQsendQueryParams(remote->conn, query, nparams, NULL, params,
								 NULL, NULL, 0);
	else
		sent = PQsendQuery(remote->conn, query);
	if (sent)
		remote->result = receive(remote);
	status = PQresultStatus(remote->result);
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		query_failed(remote);
	return PQntuples(remote->result);
}

const char *
remote_value(Remote *remote, int row, int column)
{
	return PQgetisnull(remote->result, row, column) ? NULL :
		PQgetvalue(remote->result, row, column);
}

char *
remote_ask(Remote *remote, const char *query, int nparams,
		   const char *const *params)
{
	const char *value;

	if (remote_query(remote, query, nparams, params) == 0)
		return NULL;
	value = remote_value(remote, 0, 0);
	return value ? pstrdup(value) : NULL;
}
