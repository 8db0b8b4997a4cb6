/*-------------------------------------------------------------------------
 *
 * fuzz_nar.c
 *	  libFuzzer target for the structure of NARs.
 *
 * The first byte of the input says in which pieces the rest is fed, at most
 * so many bytes in each; whole it must come to the same.  A NAR that is good
 * has one reading only, so it is written again from what was read, by a
 * recursive reader that knows nothing of the parser, and must be the same.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/nar.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What has to hold whatever the input is. */
#define MUST(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

static NarParser parser;

/* In pieces, each on the heap, so that one byte too many is seen. */
static bool
parse(const uint8_t *data, size_t size, size_t piece, ParseError *error)
{
	nar_begin(&parser);
	while (size > 0)
	{
		size_t		n = piece < size ? piece : size;
		uint8_t    *copy = malloc(n);
		bool		good;

		if (copy == NULL)
			abort();
		memcpy(copy, data, n);
		good = nar_feed(&parser, copy, n, error);
		free(copy);
		if (!good)
			return false;
		data += n;
		size -= n;
	}
	return nar_end(&parser, error);
}

/*-------------------------------------------------------------------------
 * Another reader, for NARs that are good
 *-------------------------------------------------------------------------
 */

static const uint8_t *next;
static const uint8_t *end;

static Span
read_string(void)
{
	uint64_t	len = 0;
	Span		string;

	MUST(end - next >= 8);
	for (int i = 7; i >= 0; i--)
		len = len << 8 | next[i];
	next += 8;
	MUST(len <= (uint64_t) (end - next));
	string = span_of((const char *) next, (size_t) len);
	next += len;
	while (len++ % 8 != 0)
		MUST(next < end && *next++ == 0);
	return string;
}

static void
must_be(const char *string)
{
	MUST(span_is(read_string(), string));
}

static void read_node(size_t path_len);

static void
read_directory(size_t path_len)
{
	Span		last = span_of(NULL, 0);
	Span		string;

	while (string = read_string(), span_is(string, "entry"))
	{
		Span		name;
		int			order;

		must_be("(");
		must_be("name");
		name = read_string();
		MUST(name.len > 0 && name.len <= NAR_NAME_MAX);
		MUST(!span_is(name, ".") && !span_is(name, ".."));
		MUST(memchr(name.data, '/', name.len) == NULL);
		MUST(memchr(name.data, '\0', name.len) == NULL);
		MUST(path_len + name.len <= NAR_PATH_MAX);
		order = last.data == NULL ? -1 :
			memcmp(last.data, name.data,
				   last.len < name.len ? last.len : name.len);
		MUST(order < 0 || (order == 0 && last.len < name.len));
		last = name;
		must_be("node");
		read_node(path_len + name.len + 1);
		must_be(")");
	}
	MUST(span_is(string, ")"));
}

static void
read_node(size_t path_len)
{
	Span		type;
	Span		string;

	must_be("(");
	must_be("type");
	type = read_string();
	if (span_is(type, "directory"))
	{
		read_directory(path_len);
		return;
	}
	string = read_string();
	if (span_is(type, "regular"))
	{
		if (span_is(string, "executable"))
		{
			must_be("");
			string = read_string();
		}
		MUST(span_is(string, "contents"));
		read_string();
	}
	else
	{
		MUST(span_is(type, "symlink") && span_is(string, "target"));
		string = read_string();
		MUST(string.len > 0 && string.len <= NAR_PATH_MAX);
		MUST(memchr(string.data, '\0', string.len) == NULL);
	}
	must_be(")");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ParseError	error = {0};
	ParseError	error_whole = {0};
	bool		good;

	if (size == 0)
		return 0;
	good = parse(data + 1, size - 1, (size_t) data[0] + 1, &error);
	MUST(parse(data + 1, size - 1, size, &error_whole) == good);
	MUST(strcmp(error.message, error_whole.message) == 0);
	if (!good)
	{
		MUST(memchr(error.message, '\0', sizeof(error.message)) != NULL);
		MUST(error.message[0] != '\0');
		for (const char *c = error.message; *c; c++)
			MUST(*c >= ' ' && *c <= '~');
		return 0;
	}
	next = data + 1;
	end = data + size;
	must_be("nix-archive-1");
	read_node(0);
	MUST(next == end);
	return 0;
}
