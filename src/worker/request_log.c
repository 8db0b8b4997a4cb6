/*-------------------------------------------------------------------------
 *
 * request_log.c
 *	  The log of HTTP requests, as lines of the server's log.
 *
 * The HTTP server calls the hook in the midst of its work, where an error of
 * PostgreSQL must not pass.  So the hook only keeps the lines, in memory of
 * its own, and the worker writes them when it has answered its batch.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "worker/worker.h"

/* What is kept at most; a batch of requests with long paths is less. */
#define LOG_KEPT_MAX (4 * 1024 * 1024)

/*
 * Lines a second, when only errors are logged: whoever sends nonsense, or
 * asks on and on while the database cannot answer, is not to fill the disk.
 */
#define LOG_ERRORS_MAX 50

static char *kept = NULL;		/* lines, each ended by a NUL */
static size_t kept_len = 0;
static size_t kept_size = 0;
static uint64 lost = 0;			/* lines that found no room */

static TimestampTz second_began = 0;
static int	this_second = 0;

static bool
make_room(size_t len)
{
	size_t		size = Max(kept_size, 8192);
	char	   *grown;

	while (size < kept_len + len)
		size *= 2;
	if (size > LOG_KEPT_MAX)
		return false;
	if (size == kept_size)
		return true;

	grown = realloc(kept, size);
	if (grown == NULL)
		return false;
	kept = grown;
	kept_size = size;
	return true;
}

/*
 * One line, as snprintf.  No value but the last contains a blank: the HTTP
 * server hands out method and path with blanks and control bytes escaped.
 */
static int
print_line(char *line, size_t size, const HttpLogRecord *record)
{
	return snprintf(line, size,
					"request address=%s method=%s path=%s status=%d "
					"bytes=%llu ms=%llu.%03llu%s%s%s",
					record->address, record->method, record->path,
					record->status,
					(unsigned long long) record->bytes,
					(unsigned long long) record->microseconds / 1000,
					(unsigned long long) record->microseconds % 1000,
					record->reason ? " reason=\"" : "",
					record->reason ? record->reason : "",
					record->reason ? "\"" : "");
}

void
worker_log_request(const HttpLogRecord *record)
{
	int			len = print_line(NULL, 0, record);

	if ((worker_log_requests == HTTP_LOG_ERRORS &&
		 this_second++ >= LOG_ERRORS_MAX) ||
		len < 0 || !make_room((size_t) len + 1))
	{
		lost++;
		return;
	}
	print_line(kept + kept_len, (size_t) len + 1, record);
	kept_len += (size_t) len + 1;
}

static void
flush_lines(void)
{
	size_t		done = 0;

	while (done < kept_len)
	{
		const char *line = kept + done;

		ereport(LOG, (errmsg_internal("%s", line)));
		done += strlen(line) + 1;
	}
	kept_len = 0;
}

void
worker_log_flush(void)
{
	TimestampTz now;

	if (kept_len == 0 && lost == 0)
		return;
	flush_lines();

	now = GetCurrentTimestamp();
	if (!TimestampDifferenceExceeds(second_began, now, 1000))
		return;
	if (lost > 0)
		ereport(LOG,
				(errmsg("%llu more HTTP requests are not in the log",
						(unsigned long long) lost)));
	lost = 0;
	this_second = 0;
	second_began = now;
}
