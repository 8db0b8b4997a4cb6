/*-------------------------------------------------------------------------
 *
 * text.h
 *	  A run of bytes inside a text that somebody else owns, and the error
 *	  that every parser of src/base returns.
 *
 * Nothing here allocates, and nothing here is terminated by NUL: a parser
 * hands out Spans that point into the text it was given and that live as
 * long as that text.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_TEXT_H
#define NARINFO_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct Span
{
	const char *data;			/* not terminated; NULL when absent */
	size_t		len;			/* bytes */
} Span;

/*
 * What was wrong with a text, and where.  "line" is 1 for the first line and
 * 0 when no single line is to blame (a field is missing); "field" is the name
 * of the field, or "" when the trouble is not inside a field.  "message" is
 * one clause without a capital or a full stop, fit to stand behind
 * "invalid narinfo: ".
 */
#define PARSE_ERROR_FIELD	40
#define PARSE_ERROR_MESSAGE 200

typedef struct ParseError
{
	uint32_t	line;
	char		field[PARSE_ERROR_FIELD];
	char		message[PARSE_ERROR_MESSAGE];
} ParseError;

static inline Span
span_of(const char *data, size_t len)
{
	Span		span = {data, len};

	return span;
}

static inline bool
span_equal(Span a, Span b)
{
	return a.len == b.len &&
		(a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Does the span hold exactly this C string? */
static inline bool
span_is(Span span, const char *literal)
{
	return span_equal(span, span_of(literal, strlen(literal)));
}

static inline bool
span_starts(Span span, const char *prefix)
{
	size_t		len = strlen(prefix);

	return span.len >= len && memcmp(span.data, prefix, len) == 0;
}

/* The span without its first n bytes; n is at most its length. */
static inline Span
span_skip(Span span, size_t n)
{
	return span_of(span.data + n, span.len - n);
}

/*
 * Fill in an error; the message is a printf format.  Always returns false, so
 * that a check can end with "return parse_error(...)".
 */
extern bool parse_error(ParseError *error, const char *format,...)
			__attribute__((format(printf, 2, 3)));

#endif							/* NARINFO_BASE_TEXT_H */
