/*-------------------------------------------------------------------------
 *
 * conditional.c
 *	  What of a file a GET or HEAD is to get.  See conditional.h.
 *
 * Of several ranges in one request none is honoured: the whole file is a
 * correct answer, and no client of a binary cache asks for pieces.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "http/conditional.h"
#include "http/date.h"

static Span
skip_blanks(Span text)
{
	while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
		text = span_skip(text, 1);
	return text;
}

static bool
is_weak(Span etag)
{
	return span_starts(etag, "W/");
}

/* Takes an entity tag off the front; false when there is none. */
static bool
next_etag(Span *text, Span *etag)
{
	size_t		open = is_weak(*text) ? 2 : 0;
	const char *quote;

	if (text->len < open + 2 || text->data[open] != '"')
		return false;
	quote = memchr(text->data + open + 1, '"', text->len - open - 1);
	if (quote == NULL)
		return false;
	*etag = span_of(text->data, quote + 1 - text->data);
	*text = span_skip(*text, etag->len);
	return true;
}

/* If-None-Match: is this tag in the list, by the weak comparison? */
static bool
list_has_etag(Span list, Span etag)
{
	Span		other;

	list = skip_blanks(list);
	if (span_is(list, "*"))
		return true;
	if (etag.data == NULL)
		return false;
	if (is_weak(etag))
		etag = span_skip(etag, 2);
	while (next_etag(&list, &other))
	{
		if (span_equal(is_weak(other) ? span_skip(other, 2) : other, etag))
			return true;
		list = skip_blanks(list);
		while (list.len > 0 && list.data[0] == ',')
			list = skip_blanks(span_skip(list, 1));
	}
	return false;
}

static bool
is_unchanged(const HttpConditions *conditions, Span etag, time_t mtime)
{
	time_t		since;

	if (conditions->if_none_match.data != NULL)
		return list_has_etag(conditions->if_none_match, etag);
	return mtime > 0 && conditions->if_modified_since.data != NULL &&
		http_date_parse(conditions->if_modified_since, &since) &&
		mtime <= since;
}

/*
 * If-Range: is the part that the client has one of this very file?  Only a
 * strong tag, or the exact date, says so.
 */
static bool
range_holds(Span if_range, Span etag, time_t mtime)
{
	time_t		when;

	if (if_range.data == NULL)
		return true;
	if (if_range.len > 0 && (if_range.data[0] == '"' || is_weak(if_range)))
		return etag.data != NULL && !is_weak(etag) &&
			span_equal(if_range, etag);
	return mtime > 0 && http_date_parse(if_range, &when) && when == mtime;
}

/*
 * Digits at the front; what exceeds int64 is as good as its largest.  Without
 * any, *value stays as it is.
 */
static bool
next_number(Span *text, int64_t *value)
{
	int64_t		number = 0;
	size_t		len;

	for (len = 0; len < text->len; len++)
	{
		int			digit = text->data[len] - '0';

		if (digit < 0 || digit > 9)
			break;
		if (number > (INT64_MAX - digit) / 10)
			number = INT64_MAX;
		else
			number = number * 10 + digit;
	}
	if (len == 0)
		return false;
	*text = span_skip(*text, len);
	*value = number;
	return true;
}

/*
 * The status that a Range header brings about: 206 with *first and *last, 416,
 * or 200 when it is to be ignored.
 */
static int
parse_range(Span text, int64_t size, int64_t *first, int64_t *last)
{
	text = skip_blanks(text);
	if (text.len < 6 || strncasecmp(text.data, "bytes=", 6) != 0)
		return 200;
	text = skip_blanks(span_skip(text, 6));

	if (text.len > 0 && text.data[0] == '-')
	{
		int64_t		suffix;

		text = span_skip(text, 1);
		if (!next_number(&text, &suffix) || skip_blanks(text).len > 0)
			return 200;
		if (suffix == 0)
			return 416;
		if (size == 0)
			return 200;			/* the last bytes of nothing are all of it */
		*first = suffix < size ? size - suffix : 0;
		*last = size - 1;
		return 206;
	}

	*last = INT64_MAX;
	if (!next_number(&text, first) || text.len == 0 || text.data[0] != '-')
		return 200;
	text = span_skip(text, 1);
	if (text.len > 0 && next_number(&text, last) && *last < *first)
		return 200;
	if (skip_blanks(text).len > 0)
		return 200;
	if (*first >= size)
		return 416;
	if (*last >= size)
		*last = size - 1;
	return 206;
}

/* Appends a header line; there is room, see HttpSelection. */
__attribute__((format(printf, 2, 3)))
static void
add_header(HttpSelection *selection, const char *format,...)
{
	size_t		used = strlen(selection->headers);
	va_list		args;

	va_start(args, format);
	vsnprintf(selection->headers + used, sizeof(selection->headers) - used,
			  format, args);
	va_end(args);
}

static void
add_headers(HttpSelection *selection, Span etag, time_t mtime, off_t size)
{
	char		date[HTTP_DATE_LEN + 1];

	if (selection->status == 416)
	{
		add_header(selection, "Content-Range: bytes */%lld\r\n",
				   (long long) size);
		return;
	}
	if (etag.data != NULL)
		add_header(selection, "ETag: %.*s\r\n", (int) etag.len, etag.data);
	if (mtime > 0)
	{
		http_date_format(mtime, date);
		add_header(selection, "Last-Modified: %s\r\n", date);
	}
	if (selection->status != 304)
		add_header(selection, "Accept-Ranges: bytes\r\n");
	if (selection->status == 206)
		add_header(selection, "Content-Range: bytes %lld-%lld/%lld\r\n",
				   (long long) selection->offset,
				   (long long) (selection->offset + selection->length - 1),
				   (long long) size);
}

void
http_select_by(const HttpConditions *conditions, const char *etag,
			   time_t mtime, off_t size, HttpSelection *selection)
{
	Span		tag = span_of(etag, etag == NULL ? 0 : strlen(etag));
	int64_t		first = 0;
	int64_t		last = size - 1;

	if (tag.len > HTTP_MAX_ETAG)
		tag = span_of(NULL, 0);
	selection->headers[0] = '\0';
	selection->status = 200;
	if ((conditions->method == HTTP_GET ||
		 conditions->method == HTTP_HEAD) &&
		is_unchanged(conditions, tag, mtime))
		selection->status = 304;
	else if (conditions->method == HTTP_GET &&
			 conditions->range.data != NULL &&
			 range_holds(conditions->if_range, tag, mtime))
		selection->status = parse_range(conditions->range, size, &first,
										&last);

	switch (selection->status)
	{
		case 206:
			selection->offset = first;
			selection->length = last - first + 1;
			break;
		case 200:
			selection->offset = 0;
			selection->length = size;
			break;
		default:
			selection->offset = 0;
			selection->length = 0;
	}
	add_headers(selection, tag, mtime, size);
}

void
http_select(const HttpRequest *req, const char *etag, time_t mtime,
			off_t size, HttpSelection *selection)
{
	HttpConditions conditions = {
		.method = http_request_method(req),
		.if_none_match = http_request_header(req, "If-None-Match"),
		.if_modified_since = http_request_header(req, "If-Modified-Since"),
		.range = http_request_header(req, "Range"),
		.if_range = http_request_header(req, "If-Range")
	};

	http_select_by(&conditions, etag, mtime, size, selection);
}
