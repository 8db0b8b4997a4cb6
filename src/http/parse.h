/*-------------------------------------------------------------------------
 *
 * parse.h
 *	  The head of one request: request line and headers, up to and with the
 *	  empty line.
 *
 * Two steps.  http_head_scan() looks at bytes as they come, however they are
 * split, until the empty line was seen; it enforces what concerns lines and
 * bytes, and the limits.  http_head_parse() then gives the whole head to
 * llhttp in one piece and enforces what concerns headers.  So no parser has
 * to live between two receives, every text is in one piece, and what is
 * refused does not depend on how the bytes arrived.
 *
 * This header stands apart from http.h because llhttp's own names
 * (HTTP_GET, …) clash with those of http.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_PARSE_H
#define NARINFO_HTTP_PARSE_H

#include "base/text.h"

/* How far a head was looked at; all zero before the first byte. */
typedef struct HttpScan
{
	size_t		begin;			/* of the request line; empty lines precede */
	size_t		line;			/* beginning of the line under the cursor */
	size_t		pos;			/* the cursor: the head's size in the end */
	bool		in_headers;		/* is the request line complete? */
} HttpScan;

/* Results of the functions below other than a status to refuse with. */
#define HTTP_SCAN_MORE		0	/* the head is not complete */
#define HTTP_SCAN_COMPLETE	1

typedef struct HttpHead
{
	const char *method;			/* a constant */
	Span		target;			/* as sent */
	Span		headers;		/* the lines, each with CR LF */
	bool		is_get;
	bool		is_head;
	bool		is_put;
	bool		is_post;
	bool		http_1_0;
	bool		keep_alive;		/* does the client want the connection? */
	bool		expect;			/* has it an Expect header? */
	bool		expect_other;	/* for something else than "100-continue" */
	bool		chunked;
	bool		has_length;
	uint64_t	content_length;
} HttpHead;

/*
 * Looks at data[scan->pos .. len).  HTTP_SCAN_MORE, HTTP_SCAN_COMPLETE (the
 * head is data[0 .. scan->pos)), or the status of the refusal, with *reason
 * set to a constant.
 */
extern int	http_head_scan(HttpScan *scan, const char *data, size_t len,
						   size_t max_head, size_t max_target,
						   const char **reason);

/*
 * Parses a head that was scanned to its end.  0, or the status of the
 * refusal, with *reason set to a constant.  The Spans point into data.
 */
extern int	http_head_parse(const HttpScan *scan, const char *data,
							HttpHead *head, const char **reason);

/* The text without the blanks at both ends. */
extern Span http_trim(Span text);

/*
 * The value of the first header of this name among the lines, or of the next
 * one when *lines is what an earlier call left there; data is NULL when there
 * is none.
 */
extern Span http_header_next(Span *lines, const char *name);

#endif							/* NARINFO_HTTP_PARSE_H */
