/*-------------------------------------------------------------------------
 *
 * body.c
 *	  Finding the bytes of a request's body, and its end.  See body.h.
 *
 * The chunked coding is read here and not by llhttp, which would need a
 * parser kept with every connection, and which takes a bare LF for a line's
 * end as Debian builds it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/body.h"

void
http_body_begin(HttpBody *body, bool chunked, uint64_t length)
{
	memset(body, 0, sizeof(*body));
	if (chunked)
		body->state = HTTP_BODY_SIZE;
	else if (length > 0)
	{
		body->state = HTTP_BODY_PLAIN;
		body->left = length;
	}
}

/* A byte of a chunk's size line. */
static bool
size_byte(HttpBody *body, unsigned char c)
{
	int			digit;

	if (c >= '0' && c <= '9')
		digit = c - '0';
	else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		digit = (c | 0x20) - 'a' + 10;
	else
	{
		body->state = c == '\r' ? HTTP_BODY_SIZE_LF : HTTP_BODY_EXTENSION;
		return body->digits > 0 && (c == '\r' || c == ';');
	}
	body->left = body->left * 16 + digit;
	return ++body->digits <= 8;
}

/* One byte of framing; false when it must not stand there. */
static bool
framing_byte(HttpBody *body, unsigned char c)
{
	switch (body->state)
	{
		case HTTP_BODY_SIZE:
			return size_byte(body, c);
		case HTTP_BODY_EXTENSION:
			if (c == '\r')
				body->state = HTTP_BODY_SIZE_LF;
			return c == '\r' || c == '\t' || (c >= 0x20 && c != 0x7f);
		case HTTP_BODY_SIZE_LF:
			body->state = body->left > 0 ? HTTP_BODY_DATA : HTTP_BODY_TRAILER;
			return c == '\n';
		case HTTP_BODY_DATA_CR:
			body->state = HTTP_BODY_DATA_LF;
			return c == '\r';
		case HTTP_BODY_DATA_LF:
			body->state = HTTP_BODY_SIZE;
			body->digits = 0;
			return c == '\n';
		case HTTP_BODY_TRAILER:
			body->state = c == '\r' ? HTTP_BODY_LAST_LF :
				HTTP_BODY_TRAILER_LINE;
			return c == '\r' || (c > 0x20 && c != 0x7f);
		case HTTP_BODY_TRAILER_LINE:
			if (c == '\r')
				body->state = HTTP_BODY_TRAILER_LF;
			return c == '\r' || c == '\t' || (c >= 0x20 && c != 0x7f);
		case HTTP_BODY_TRAILER_LF:
			body->state = HTTP_BODY_TRAILER;
			return c == '\n';
		case HTTP_BODY_LAST_LF:
			body->state = HTTP_BODY_NONE;
			return c == '\n';
		default:
			return false;
	}
}

/* Takes data bytes; the number of them. */
static size_t
take_data(HttpBody *body, size_t len)
{
	if (len > body->left)
		len = (size_t) body->left;
	body->left -= len;
	body->framing = 0;
	if (body->left == 0)
		body->state = body->state == HTTP_BODY_PLAIN ? HTTP_BODY_NONE :
			HTTP_BODY_DATA_CR;
	return len;
}

int
http_body_next(HttpBody *body, const char *data, size_t len,
			   size_t *used, Span *piece, const char **reason)
{
	size_t		pos = 0;

	*piece = span_of(data, 0);
	while (pos < len && body->state != HTTP_BODY_NONE)
	{
		if (http_body_in_data(body))
		{
			*piece = span_of(data + pos, take_data(body, len - pos));
			pos += piece->len;
			break;
		}
		if (body->framing++ >= HTTP_MAX_FRAMING)
		{
			*reason = "chunk extension or trailer too long";
			return 400;
		}
		if (!framing_byte(body, (unsigned char) data[pos++]))
		{
			*reason = "malformed chunked body";
			return 400;
		}
	}
	*used = pos;
	return 0;
}

int
http_body_skip(HttpBody *body, const char *data, size_t len,
			   size_t *skipped, const char **reason)
{
	size_t		pos = 0;

	while (pos < len && body->state != HTTP_BODY_NONE)
	{
		size_t		room = HTTP_MAX_BODY - body->total;
		size_t		used;
		Span		piece;
		int			status;

		if (room == 0)
		{
			*reason = "body too large";
			return 413;
		}
		status = http_body_next(body, data + pos,
								len - pos < room ? len - pos : room,
								&used, &piece, reason);
		if (status != 0)
			return status;
		pos += used;
		body->total += used;
	}
	*skipped = pos;
	return 0;
}
