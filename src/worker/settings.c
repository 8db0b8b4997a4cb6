/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings of launcher and HTTP workers, and the room's beginning.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "http/proxy.h"
#include "worker/queue.h"
#include "worker/worker.h"
#include "worker/writer.h"

char	   *worker_database = NULL;
char	   *worker_listen = NULL;
char	   *worker_role = NULL;
int			worker_http_workers = 1;
int			worker_writer_workers = 1;
int			worker_log_requests = HTTP_LOG_ERRORS;

static char *trusted_proxies = NULL;
static int	max_connections = 12000;
static int	max_connections_per_address = 0;
static int	max_header_size = 16 * 1024;
static int	max_url_size = 8 * 1024;
static int	max_buffered = 256 * 1024;
static int	idle_timeout = 75 * 1000;
static int	max_body_memory = 64 * 1024;
static int	header_timeout = 10 * 1000;
static int	body_timeout = 30 * 1000;
static int	send_timeout = 60 * 1000;

static const struct config_enum_entry log_requests_options[] = {
	{"off", HTTP_LOG_OFF, false},
	{"errors", HTTP_LOG_ERRORS, false},
	{"all", HTTP_LOG_ALL, false},
	{NULL, 0, false}
};

static bool
check_listen(char **newval, void **extra, GucSource source)
{
	char		error[256];

	(void) extra;
	(void) source;
	if (strlen(*newval) >= WORKER_LISTEN_MAX)
	{
		GUC_check_errdetail("The list is longer than %d bytes.",
							WORKER_LISTEN_MAX - 1);
		return false;
	}
	if (!http_addresses_check(*newval, error, sizeof(error)))
	{
		GUC_check_errdetail("%s", error);
		return false;
	}
	return true;
}

static bool
check_trusted_proxies(char **newval, void **extra, GucSource source)
{
	HttpNetworks networks = {0};
	char		error[256];

	(void) extra;
	(void) source;
	if (!http_networks_parse(*newval, &networks, error, sizeof(error)))
	{
		GUC_check_errdetail("%s", error);
		return false;
	}
	http_networks_free(&networks);
	return true;
}

/*
 * What the launcher and its workers are started with cannot change under
 * them.  Where the library was loaded later, there are none, and PostgreSQL
 * would not let us define a setting of that kind.
 */
static GucContext
start_context(void)
{
	return process_shared_preload_libraries_in_progress ?
		PGC_POSTMASTER : PGC_SIGHUP;
}

static void
define_processes(void)
{
	DefineCustomStringVariable("pg_narinfo.database",
							   "The database whose caches are served.",
							   NULL, &worker_database, "postgres",
							   start_context(), 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.role",
							   "The role as which workers connect.",
							   "CREATE EXTENSION makes it if it is absent.",
							   &worker_role, "narinfo_worker",
							   start_context(), 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.listen",
							   "Addresses to serve HTTP on, separated by "
							   "commas.",
							   "Each is host:port, [v6]:port or unix:PATH.",
							   &worker_listen, "127.0.0.1:8080",
							   PGC_SIGHUP, 0, check_listen, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.http_workers",
							"Number of processes that serve HTTP.",
							NULL, &worker_http_workers, 1,
							0, WORKER_HTTP_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.writer_workers",
							"Number of processes that publish and store what "
							"clients upload.",
							"With 0, nothing can be uploaded.",
							&worker_writer_workers, 1,
							0, WORKER_WRITER_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.queue_size",
							"Uploads that wait for a writer worker, or are "
							"in its hands.",
							"Further ones are answered with 503.",
							&queue_size, 256, 16, 65536,
							start_context(), 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.trusted_proxies",
							   "Networks whose X-Forwarded-For is believed.",
							   "Separated by commas, such as "
							   "127.0.0.0/8, fd00::/8.",
							   &trusted_proxies, "",
							   PGC_SIGHUP, 0, check_trusted_proxies,
							   NULL, NULL);
	DefineCustomEnumVariable("pg_narinfo.log_requests",
							 "Which HTTP requests are logged.",
							 "\"errors\" are those answered with 400 or "
							 "more, but for 404; no more than fifty a "
							 "second of each worker.",
							 &worker_log_requests, HTTP_LOG_ERRORS,
							 log_requests_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_limits(void)
{
	DefineCustomIntVariable("pg_narinfo.max_connections",
							"Open HTTP connections of each worker.",
							"Further ones are answered with 503 and closed.",
							&max_connections, 12000, 1, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_connections_per_address",
							"Open HTTP connections of one client at each "
							"worker; 0 is no limit.",
							NULL, &max_connections_per_address, 0, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_header_size",
							"Size of the request line and headers of an HTTP "
							"request.",
							NULL, &max_header_size, 16 * 1024,
							1024, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_url_size",
							"Size of the URL of an HTTP request.",
							NULL, &max_url_size, 8 * 1024, 256, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_buffered",
							"Size of the replies kept for one HTTP "
							"connection that does not read them.",
							"Above it no further request of the connection "
							"is looked at.",
							&max_buffered, 256 * 1024, 4096, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_body_memory",
							"Memory of each HTTP worker for the bodies of "
							"requests.",
							"Bodies above it are answered with 503. Files "
							"that are uploaded take none.",
							&max_body_memory, 64 * 1024, 64, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
}

static void
define_timeouts(void)
{
	DefineCustomIntVariable("pg_narinfo.idle_timeout",
							"Time after which an HTTP connection without a "
							"request is closed.",
							NULL, &idle_timeout, 75 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.header_timeout",
							"Time in which an HTTP request that was begun "
							"must be complete.",
							NULL, &header_timeout, 10 * 1000,
							100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.body_timeout",
							"Time in which 16 kB of the body of an HTTP "
							"request must come, or its rest.",
							NULL, &body_timeout, 30 * 1000,
							100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.send_timeout",
							"Time in which the reader of an HTTP reply must "
							"take some of it.",
							NULL, &send_timeout, 60 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

void
worker_define_settings(void)
{
	define_processes();
	define_limits();
	define_timeouts();
	writer_define_settings();
}

void
worker_http_limits(HttpLimits *limits)
{
	limits->max_connections = max_connections;
	limits->max_connections_per_address = max_connections_per_address;
	limits->max_header_size = max_header_size;
	limits->max_url_size = max_url_size;
	limits->max_buffered = max_buffered;
	limits->idle_timeout = idle_timeout;
	limits->header_timeout = header_timeout;
	limits->body_timeout = body_timeout;
	limits->max_body_memory = (size_t) max_body_memory * 1024;
	limits->send_timeout = send_timeout;
	limits->log_level = (HttpLogLevel) worker_log_requests;
	limits->trusted_proxies = trusted_proxies;
}

void
worker_init(void)
{
	worker_define_settings();

	/* Without these, types and functions work, and narinfo.start() says so */
	if (!process_shared_preload_libraries_in_progress)
		return;

	worker_shared_init();

	/* pg_upgrade wants nobody in its databases */
	if (!IsBinaryUpgrade)
		worker_register_launcher();
}
