/*-------------------------------------------------------------------------
 *
 * nar.c
 *	  The structure of a NAR, looked at while its bytes come by.
 *
 * Two machines, one in the other: the outer one puts strings together, length
 * and padding included; the inner one is told of each string that is whole,
 * and says which one has to come next.  The contents of files are the only
 * strings that are not kept, and the only ones without a limit.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/nar.h"

typedef enum NarPart
{
	PART_LENGTH,
	PART_BYTES,
	PART_PADDING
} NarPart;

/* The string that has to come next. */
typedef enum NarExpected
{
	EXPECT_MAGIC,
	EXPECT_NODE_OPEN,
	EXPECT_TYPE,
	EXPECT_TYPE_VALUE,
	EXPECT_FILE_FIELD,			/* "executable" or "contents" */
	EXPECT_EXECUTABLE_VALUE,
	EXPECT_CONTENTS,
	EXPECT_CONTENTS_VALUE,
	EXPECT_TARGET,
	EXPECT_TARGET_VALUE,
	EXPECT_NODE_CLOSE,
	EXPECT_ENTRY_OR_CLOSE,
	EXPECT_ENTRY_OPEN,
	EXPECT_NAME,
	EXPECT_NAME_VALUE,
	EXPECT_NODE,
	EXPECT_ENTRY_CLOSE,
	EXPECT_NOTHING
} NarExpected;

/* How it is called, the longest one that may come, and what it must be. */
static const struct
{
	const char *what;
	uint16_t	max;
	const char *literal;
}			strings[] = {
	[EXPECT_MAGIC] = {"\"nix-archive-1\"", 13, "nix-archive-1"},
	[EXPECT_NODE_OPEN] = {"\"(\"", 1, "("},
	[EXPECT_TYPE] = {"\"type\"", 4, "type"},
	[EXPECT_TYPE_VALUE] = {
		"\"regular\", \"directory\" or \"symlink\"", 9, NULL
	},
	[EXPECT_FILE_FIELD] = {"\"executable\" or \"contents\"", 10, NULL},
	[EXPECT_EXECUTABLE_VALUE] = {"\"\"", 0, ""},
	[EXPECT_CONTENTS] = {"\"contents\"", 8, "contents"},
	[EXPECT_CONTENTS_VALUE] = {"contents", 0, NULL},
	[EXPECT_TARGET] = {"\"target\"", 6, "target"},
	[EXPECT_TARGET_VALUE] = {"a target", NAR_PATH_MAX, NULL},
	[EXPECT_NODE_CLOSE] = {"\")\"", 1, ")"},
	[EXPECT_ENTRY_OR_CLOSE] = {"\"entry\" or \")\"", 5, NULL},
	[EXPECT_ENTRY_OPEN] = {"\"(\"", 1, "("},
	[EXPECT_NAME] = {"\"name\"", 4, "name"},
	[EXPECT_NAME_VALUE] = {"a name", NAR_NAME_MAX, NULL},
	[EXPECT_NODE] = {"\"node\"", 4, "node"},
	[EXPECT_ENTRY_CLOSE] = {"\")\"", 1, ")"},
	[EXPECT_NOTHING] = {"the end", 0, NULL},
};

/* Of a name or a path in a message, that many bytes at most. */
#define SHOWN_MAX 64

static bool fail(NarParser *parser, ParseError *error, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* Says where, by offset and by path, as far as both are known. */
static bool
fail(NarParser *parser, ParseError *error, const char *format,...)
{
	char		what[120];
	char		path[SHOWN_MAX + 1];
	size_t		shown = parser->path_len;
	va_list		args;

	parser->bad = true;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	if (shown == 0)
		return parse_error(error, "byte %" PRIu64 ": %s", parser->offset,
						   what);
	/* the end of a path tells more than its beginning */
	if (shown > SHOWN_MAX)
		shown = SHOWN_MAX;
	for (size_t i = 0; i < shown; i++)
	{
		char		c = parser->path[parser->path_len - shown + i];

		path[i] = c >= ' ' && c <= '~' ? c : '?';
	}
	path[shown] = '\0';
	return parse_error(error, "byte %" PRIu64 ", %s%s: %s", parser->offset,
					   shown < parser->path_len ? "..." : "", path, what);
}

static bool
fail_expected(NarParser *parser, ParseError *error)
{
	return fail(parser, error, "%s expected", strings[parser->expected].what);
}

/*-------------------------------------------------------------------------
 * What the strings mean
 *-------------------------------------------------------------------------
 */

/* The string is a name of the directory of the current depth. */
static bool
take_name(NarParser *parser, Span name, ParseError *error)
{
	uint16_t	level = parser->depth;
	uint16_t	start = level == 0 ? 0 :
		(uint16_t) (parser->start[level - 1] + parser->len[level - 1] + 1);
	size_t		old = parser->len[level];
	char	   *place = parser->path + start;

	if (name.len == 0 || span_is(name, ".") || span_is(name, "..") ||
		memchr(name.data, '/', name.len) != NULL ||
		memchr(name.data, '\0', name.len) != NULL)
		return fail(parser, error, "no name of a file");
	if (old > 0)
	{
		size_t		both = old < name.len ? old : name.len;
		int			order = memcmp(place, name.data, both);

		if (order == 0 && old == name.len)
			return fail(parser, error, "a name stands twice in a directory");
		if (order > 0 || (order == 0 && old > name.len))
			return fail(parser, error, "names of a directory are not sorted");
	}
	if (start + name.len > NAR_PATH_MAX)
		return fail(parser, error, "path is longer than %d bytes",
					NAR_PATH_MAX);
	if (start > 0)
		place[-1] = '/';
	memcpy(place, name.data, name.len);
	parser->start[level] = start;
	parser->len[level] = (uint16_t) name.len;
	parser->path_len = (uint16_t) (start + name.len);
	parser->depth = level + 1;
	parser->len[level + 1] = 0;
	return true;
}

/* An entry has ended: its name stays, to be compared with the next. */
static void
leave_entry(NarParser *parser)
{
	parser->depth--;
	parser->path_len = parser->depth == 0 ? 0 :
		(uint16_t) (parser->start[parser->depth - 1] +
					parser->len[parser->depth - 1]);
}

static bool
take_target(NarParser *parser, Span target, ParseError *error)
{
	if (target.len == 0)
		return fail(parser, error, "target of a symbolic link is empty");
	if (memchr(target.data, '\0', target.len) != NULL)
		return fail(parser, error, "target of a symbolic link has a NUL");
	return true;
}

static void
end_node(NarParser *parser)
{
	parser->expected = parser->depth == 0 ?
		EXPECT_NOTHING : EXPECT_ENTRY_CLOSE;
}

/* Where one of several strings may come: what follows it. */
static bool
take_choice(NarParser *parser, Span string, ParseError *error)
{
	switch (parser->expected)
	{
		case EXPECT_TYPE_VALUE:
			if (span_is(string, "regular"))
				parser->expected = EXPECT_FILE_FIELD;
			else if (span_is(string, "directory"))
				parser->expected = EXPECT_ENTRY_OR_CLOSE;
			else if (span_is(string, "symlink"))
				parser->expected = EXPECT_TARGET;
			else
				return fail_expected(parser, error);
			return true;

		case EXPECT_FILE_FIELD:
			if (span_is(string, "executable"))
				parser->expected = EXPECT_EXECUTABLE_VALUE;
			else if (span_is(string, "contents"))
				parser->expected = EXPECT_CONTENTS_VALUE;
			else
				return fail_expected(parser, error);
			return true;

		default:				/* EXPECT_ENTRY_OR_CLOSE */
			if (span_is(string, "entry"))
				parser->expected = EXPECT_ENTRY_OPEN;
			else if (span_is(string, ")"))
				end_node(parser);
			else
				return fail_expected(parser, error);
			return true;
	}
}

/* A whole string, but for its padding. */
static bool
take_string(NarParser *parser, Span string, ParseError *error)
{
	const char *literal = strings[parser->expected].literal;

	if (literal != NULL && !span_is(string, literal))
		return fail_expected(parser, error);

	switch (parser->expected)
	{
		case EXPECT_TYPE_VALUE:
		case EXPECT_FILE_FIELD:
		case EXPECT_ENTRY_OR_CLOSE:
			return take_choice(parser, string, error);
		case EXPECT_NAME_VALUE:
			if (!take_name(parser, string, error))
				return false;
			break;
		case EXPECT_TARGET_VALUE:
			if (!take_target(parser, string, error))
				return false;
			parser->expected = EXPECT_NODE_CLOSE;
			return true;
		case EXPECT_CONTENTS_VALUE:
			parser->expected = EXPECT_NODE_CLOSE;
			return true;
		case EXPECT_NODE_CLOSE:
			end_node(parser);
			return true;
		case EXPECT_NODE:
			parser->expected = EXPECT_NODE_OPEN;
			return true;
		case EXPECT_ENTRY_CLOSE:
			leave_entry(parser);
			parser->expected = EXPECT_ENTRY_OR_CLOSE;
			return true;
		default:
			break;
	}
	/* the others stand above in the order in which they come */
	parser->expected++;
	return true;
}

/*-------------------------------------------------------------------------
 * Putting strings together
 *-------------------------------------------------------------------------
 */

static bool
take_length(NarParser *parser, ParseError *error)
{
	if (parser->expected != EXPECT_CONTENTS_VALUE &&
		parser->length > strings[parser->expected].max)
	{
		if (parser->expected == EXPECT_NAME_VALUE ||
			parser->expected == EXPECT_TARGET_VALUE)
			return fail(parser, error, "%s is longer than %d bytes",
						strings[parser->expected].what,
						strings[parser->expected].max);
		return fail_expected(parser, error);
	}
	/* the padding, too, has to be within what can be counted */
	if (parser->length > INT64_MAX)
		return fail(parser, error, "contents of %" PRIu64 " bytes",
					parser->length);
	parser->part = PART_BYTES;
	parser->left = parser->length;
	parser->padding = (8 - parser->length % 8) % 8;
	return true;
}

static size_t
feed_length(NarParser *parser, const uint8_t *data, size_t len)
{
	size_t		n = 0;

	if (parser->nlength == 0)
		parser->length = 0;
	for (; n < len && parser->nlength < 8; n++)
		parser->length |= (uint64_t) data[n] << (8 * parser->nlength++);
	return n;
}

static size_t
feed_bytes(NarParser *parser, const uint8_t *data, size_t len)
{
	size_t		n = parser->left < len ? (size_t) parser->left : len;

	if (parser->expected != EXPECT_CONTENTS_VALUE && n > 0)
		memcpy(parser->string + (parser->length - parser->left), data, n);
	parser->left -= n;
	return n;
}

static size_t
feed_padding(NarParser *parser, const uint8_t *data, size_t len,
			 ParseError *error)
{
	size_t		n = 0;

	for (; n < len && parser->padding > 0; n++)
	{
		if (data[n] != 0)
		{
			parser->offset += n;
			fail(parser, error, "padding is not zero");
			return 0;
		}
		parser->padding--;
	}
	return n;
}

/* Takes what belongs to one part of a string; returns how many bytes. */
static size_t
feed_part(NarParser *parser, const uint8_t *data, size_t len,
		  ParseError *error)
{
	size_t		n = 0;

	switch (parser->part)
	{
		case PART_LENGTH:
			n = feed_length(parser, data, len);
			parser->offset += n;
			if (parser->nlength == 8)
			{
				parser->nlength = 0;
				take_length(parser, error);
			}
			break;
		case PART_BYTES:
			n = feed_bytes(parser, data, len);
			parser->offset += n;
			if (parser->left == 0)
				parser->part = PART_PADDING;
			break;
		default:
			n = feed_padding(parser, data, len, error);
			parser->offset += n;
			break;
	}
	return n;
}

void
nar_begin(NarParser *parser)
{
	memset(parser, 0, sizeof(*parser));
}

bool
nar_feed(NarParser *parser, const void *data, size_t len, ParseError *error)
{
	const uint8_t *next = data;
	const uint8_t *end = next + len;

	while (!parser->bad)
	{
		bool		whole = parser->part == PART_PADDING &&
			parser->padding == 0;

		if (whole)
		{
			parser->part = PART_LENGTH;
			take_string(parser, span_of(parser->string,
										(size_t) parser->length), error);
			continue;
		}
		/* a string without bytes is whole when its length is */
		if (next == end &&
			!(parser->part == PART_BYTES && parser->left == 0))
			return true;
		if (parser->expected == EXPECT_NOTHING)
			return fail(parser, error, "more bytes behind the end of the NAR");
		next += feed_part(parser, next, (size_t) (end - next), error);
	}
	return false;
}

bool
nar_end(NarParser *parser, ParseError *error)
{
	if (parser->bad)
		return false;
	if (parser->expected == EXPECT_NOTHING)
		return true;
	return fail(parser, error, "the NAR ends where %s is expected",
				parser->part == PART_LENGTH && parser->nlength == 0 ?
				strings[parser->expected].what : "more of a string");
}
