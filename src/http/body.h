/*-------------------------------------------------------------------------
 *
 * body.h
 *	  Finding the bytes of a request's body, and its end.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_BODY_H
#define NARINFO_HTTP_BODY_H

#include "base/text.h"

/*
 * Bytes of a GET's or HEAD's body that are read and thrown away, framing
 * included; a longer one is refused with 413.
 */
#define HTTP_MAX_BODY	65536

/*
 * Bytes of framing between two bytes of a chunked body, and behind its last
 * one: chunk extensions and trailers.
 */
#define HTTP_MAX_FRAMING	8192

typedef enum HttpBodyState
{
	HTTP_BODY_NONE,				/* there is none, or its end was found */
	HTTP_BODY_PLAIN,			/* "left" more bytes */
	HTTP_BODY_SIZE,				/* in the digits of a chunk's size */
	HTTP_BODY_EXTENSION,		/* behind them, before the CR */
	HTTP_BODY_SIZE_LF,
	HTTP_BODY_DATA,				/* "left" more bytes of the chunk */
	HTTP_BODY_DATA_CR,
	HTTP_BODY_DATA_LF,
	HTTP_BODY_TRAILER,			/* at the beginning of a trailer line */
	HTTP_BODY_TRAILER_LINE,		/* inside one */
	HTTP_BODY_TRAILER_LF,
	HTTP_BODY_LAST_LF			/* behind the CR of the empty line */
} HttpBodyState;

typedef struct HttpBody
{
	HttpBodyState state;
	int			digits;			/* of the chunk size so far */
	uint32_t	framing;		/* bytes of it since the last data */
	uint32_t	total;			/* bytes skipped */
	uint64_t	left;
} HttpBody;

/* A body of so many bytes, or a chunked one. */
extern void http_body_begin(HttpBody *body, bool chunked, uint64_t length);

/* Are the next body->left bytes the body's, with no framing between? */
static inline bool
http_body_in_data(const HttpBody *body)
{
	return body->state == HTTP_BODY_PLAIN || body->state == HTTP_BODY_DATA;
}

/*
 * Takes bytes up to the end of the next piece of data, or of the body, and
 * sets *used to their number and *piece to the data among them, which may be
 * none.  0, or the status of the refusal; body->state tells whether the end
 * was reached.
 */
extern int	http_body_next(HttpBody *body, const char *data, size_t len,
						   size_t *used, Span *piece, const char **reason);

/* Throws away what of data belongs to the body, *skipped bytes; likewise. */
extern int	http_body_skip(HttpBody *body, const char *data, size_t len,
						   size_t *skipped, const char **reason);

#endif							/* NARINFO_HTTP_BODY_H */
