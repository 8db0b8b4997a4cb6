/*-------------------------------------------------------------------------
 *
 * http_test.h
 *	  What the unit tests of src/http share: TAP, limits, a clock that only
 *	  goes when it is told to, and the record of what was logged.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_TEST_HTTP_TEST_H
#define NARINFO_TEST_HTTP_TEST_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/http.h"

#define OUTPUT_SIZE		(4 * 1024 * 1024)

#define GET(line)		"GET " line " HTTP/1.1\r\n"
#define HOST			"Host: a\r\n"
#define WITH(headers)	GET("/a") HOST headers "\r\n"
#define SECOND			GET("/second") HOST "\r\n"

static int	tests;
static int	failures;
static int64_t fake_now = 1000000;

static HttpLogRecord last_log;
static char last_log_address[64];
static char last_log_method[64];
static char last_log_path[2048];

static const HttpLimits default_limits = {
	.max_connections = 1000,
	.max_header_size = 8192,
	.max_url_size = 2048,
	.max_buffered = 65536,
	.idle_timeout = 60000,
	.header_timeout = 10000,
	.body_timeout = 20000,
	.max_body_memory = 1000000,
	.send_timeout = 30000,
	.log_level = HTTP_LOG_ALL
};

static inline void
ok(bool good, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++tests);
	failures += !good;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static inline int
done_testing(void)
{
	printf("1..%d\n", tests);
	return failures > 0;
}

static inline int64_t
fake_clock(void)
{
	return fake_now;
}

static inline void
log_hook(const HttpLogRecord *record)
{
	last_log = *record;
	snprintf(last_log_address, sizeof(last_log_address), "%s",
			 record->address);
	snprintf(last_log_method, sizeof(last_log_method), "%s", record->method);
	snprintf(last_log_path, sizeof(last_log_path), "%s", record->path);
}

static inline Span
str(const char *text)
{
	return span_of(text, text ? strlen(text) : 0);
}

static inline int
count_replies(const char *output)
{
	int			count = 0;

	for (; (output = strstr(output, "HTTP/1.1 ")) != NULL; output++)
		count++;
	return count;
}

#endif							/* NARINFO_TEST_HTTP_TEST_H */
