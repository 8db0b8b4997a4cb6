/*-------------------------------------------------------------------------
 *
 * date.h
 *	  Dates as HTTP writes them (RFC 9110, section 5.6.7).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_DATE_H
#define NARINFO_HTTP_DATE_H

#include <time.h>

#include "base/text.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define HTTP_DATE_LEN	29

/* Writes HTTP_DATE_LEN bytes and a NUL.  Years are those of four digits. */
extern void http_date_format(time_t when, char *dest);

/*
 * Reads any of the three forms a recipient must know: IMF-fixdate, RFC 850,
 * asctime.  False when the text is none of them.
 */
extern bool http_date_parse(Span text, time_t *when);

#endif							/* NARINFO_HTTP_DATE_H */
