/*-------------------------------------------------------------------------
 *
 * conditional.h
 *	  What of a file a GET or HEAD is to get: all of it, a part, or word that
 *	  it is unchanged (RFC 9110, sections 13 and 14).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_CONDITIONAL_H
#define NARINFO_HTTP_CONDITIONAL_H

#include <time.h>

#include "http/http.h"

/* Bytes of an entity tag, quotes included; a longer one is not sent. */
#define HTTP_MAX_ETAG	128

typedef struct HttpSelection
{
	int			status;			/* 200, 206, 304 or 416 */
	off_t		offset;			/* of the first byte to send */
	off_t		length;			/* bytes to send; 0 for 304 and 416 */
	char		headers[HTTP_MAX_ETAG + 192];	/* for HttpReply.headers */
} HttpSelection;

/* The headers that decide; data is NULL for those that are absent. */
typedef struct HttpConditions
{
	HttpMethod	method;
	Span		if_none_match;
	Span		if_modified_since;
	Span		range;
	Span		if_range;
} HttpConditions;

/*
 * Decides about a file of "size" bytes.  "etag" is the entity tag with its
 * quotes, and W/ in front when it is weak; NULL: there is none.  "mtime" <= 0
 * means that the time of change is not known.  For a method other than GET
 * and HEAD the answer is 200 and the whole.
 *
 * selection->headers holds ETag, Last-Modified, Accept-Ranges and
 * Content-Range as due, each with CR LF.
 */
extern void http_select(const HttpRequest *req, const char *etag,
						time_t mtime, off_t size, HttpSelection *selection);

/* The same, from headers that stand alone. */
extern void http_select_by(const HttpConditions *conditions,
						   const char *etag, time_t mtime, off_t size,
						   HttpSelection *selection);

#endif							/* NARINFO_HTTP_CONDITIONAL_H */
