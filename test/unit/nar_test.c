/*-------------------------------------------------------------------------
 *
 * nar_test.c
 *	  Unit tests of the structure of NARs, as TAP.  A NAR is written here as
 *	  its strings with blanks between them, where "''" is the empty string;
 *	  every one is fed whole, bytewise, and cut short at each byte.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/nar.h"

#define NAR_MAX (1024 * 1024)

static int	ntests;
static int	nfailed;
static NarParser parser;

static void ok(bool good, const char *format,...)
			__attribute__((format(printf, 2, 3)));

static void
ok(bool good, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++ntests);
	nfailed += !good;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

typedef struct Nar
{
	uint8_t    *bytes;			/* NAR_MAX of them */
	size_t		len;
} Nar;

static void
add_string(Nar *nar, const char *string, size_t len)
{
	size_t		padded = (len + 7) / 8 * 8;

	if (nar->len + 8 + padded > NAR_MAX)
		abort();
	memset(nar->bytes + nar->len, 0, 8 + padded);
	for (int i = 0; i < 8; i++)
		nar->bytes[nar->len + i] = (uint8_t) ((uint64_t) len >> (8 * i));
	memcpy(nar->bytes + nar->len + 8, string, len);
	nar->len += 8 + padded;
}

static void
add(Nar *nar, const char *strings)
{
	while (*strings)
	{
		size_t		len = strcspn(strings, " ");

		if (len == 2 && memcmp(strings, "''", 2) == 0)
			add_string(nar, "", 0);
		else
			add_string(nar, strings, len);
		strings += len + (strings[len] == ' ');
	}
}

static Nar
nar_of(const char *strings)
{
	Nar			nar = {malloc(NAR_MAX), 0};

	if (nar.bytes == NULL)
		abort();
	add(&nar, strings);
	return nar;
}

/* In pieces of so many bytes, each in memory of its own. */
static bool
parse(const uint8_t *bytes, size_t len, size_t piece, ParseError *error)
{
	nar_begin(&parser);
	while (len > 0)
	{
		size_t		n = piece < len ? piece : len;
		uint8_t    *copy = malloc(n);
		bool		good;

		if (copy == NULL)
			abort();
		memcpy(copy, bytes, n);
		good = nar_feed(&parser, copy, n, error);
		free(copy);
		if (!good)
			return false;
		bytes += n;
		len -= n;
	}
	return nar_end(&parser, error);
}

static void
good_nar(const char *what, Nar nar)
{
	ParseError	error = {0};
	bool		cut = false;

	ok(parse(nar.bytes, nar.len, nar.len, &error), "good: %s (%s)", what,
	   error.message);
	ok(parse(nar.bytes, nar.len, 1, &error) &&
	   parse(nar.bytes, nar.len, 7, &error), "bytewise: %s", what);
	if (nar.len <= 4096)
	{
		for (size_t len = 0; len < nar.len; len++)
			cut = cut || parse(nar.bytes, len, 64, &error);
		ok(!cut, "no part of it is good: %s", what);
	}
	nar.bytes[nar.len] = 0;
	ok(!parse(nar.bytes, nar.len + 1, 64, &error) &&
	   strstr(error.message, "behind the end") != NULL,
	   "one byte more: %s", what);
	free(nar.bytes);
}

/* "why" is part of the message. */
static void
bad_nar(const char *what, Nar nar, const char *why)
{
	ParseError	error = {0};
	bool		bad = !parse(nar.bytes, nar.len, nar.len, &error);
	ParseError	again = {0};

	ok(bad && strstr(error.message, why) != NULL, "bad: %s (%s)", what,
	   error.message);
	ok(!parse(nar.bytes, nar.len, 1, &again) &&
	   strcmp(error.message, again.message) == 0,
	   "the same bytewise: %s", what);
	ok(!nar_feed(&parser, "", 0, &again) && !nar_end(&parser, &again),
	   "it stays bad: %s", what);
	free(nar.bytes);
}

static void
bad(const char *strings, const char *why)
{
	bad_nar(strings, nar_of(strings), why);
}

#define MAGIC	"nix-archive-1 "
#define FILE_A	"( type regular contents a )"
#define ENTRY(name) "entry ( name " name " node " FILE_A " ) "
#define DIRECTORY(entries) MAGIC "( type directory " entries ")"

static void
test_good(void)
{
	good_nar("a file", nar_of(MAGIC FILE_A));
	good_nar("an empty file",
			 nar_of(MAGIC "( type regular contents '' )"));
	good_nar("an executable file",
			 nar_of(MAGIC "( type regular executable '' contents #!a )"));
	good_nar("a link", nar_of(MAGIC "( type symlink target /a/../b )"));
	good_nar("an empty directory", nar_of(DIRECTORY("")));
	good_nar("a directory", nar_of(DIRECTORY(ENTRY("-") ENTRY("...")
											 ENTRY("A") ENTRY("a")
											 ENTRY("a.b") ENTRY("aa")
											 ENTRY("\xc3\xa9"))));
	good_nar("directories",
			 nar_of(DIRECTORY("entry ( name b node ( type directory "
							  ENTRY("a") ENTRY("z") ") ) "
							  "entry ( name c node ( type directory "
							  ENTRY("a") ") ) " ENTRY("d"))));
}

static void
test_tags(void)
{
	bad("nix-archive-2", "\"nix-archive-1\" expected");
	bad("nix-archive-10", "byte 8: \"nix-archive-1\" expected");
	bad(MAGIC "type", "\"(\" expected");
	bad(MAGIC "( kind", "\"type\" expected");
	bad(MAGIC "( type file", "\"regular\", \"directory\" or");
	bad(MAGIC "( type regular )", "\"executable\" or \"contents\" expected");
	bad(MAGIC "( type regular executable yes", "\"\" expected");
	bad(MAGIC "( type regular executable '' executable ''",
		"\"contents\" expected");
	bad(MAGIC "( type regular contents a executable ''", "\")\" expected");
	bad(MAGIC "( type regular contents a contents a", "\")\" expected");
	bad(MAGIC "( type symlink )", "\"target\" expected");
	bad(MAGIC "( type symlink target '' )", "link is empty");
	bad(MAGIC "( type directory file", "\"entry\" or \")\" expected");
	bad(MAGIC "( type directory entry ( node", "\"name\" expected");
	bad(MAGIC "( type directory entry ( name a target",
		"a: \"node\" expected");
	bad(MAGIC "( type directory entry ( name a node " FILE_A " entry",
		"a: \")\" expected");
	bad(MAGIC FILE_A " )", "more bytes behind the end of the NAR");
}

static void
test_names(void)
{
	Nar			nar;

	bad(DIRECTORY(ENTRY("''")), "no name of a file");
	bad(DIRECTORY(ENTRY(".")), "no name of a file");
	bad(DIRECTORY(ENTRY("..")), "no name of a file");
	bad(DIRECTORY(ENTRY("a/b")), "no name of a file");
	bad(DIRECTORY(ENTRY("/")), "no name of a file");
	bad(DIRECTORY(ENTRY("a") ENTRY("a")), "twice");
	bad(DIRECTORY(ENTRY("b") ENTRY("a")), "not sorted");
	bad(DIRECTORY(ENTRY("ab") ENTRY("a")), "not sorted");
	bad(DIRECTORY(ENTRY("\xc3\xa9") ENTRY("z")), "not sorted");
	bad(DIRECTORY("entry ( name d node ( type directory " ENTRY("b")
				  ENTRY("b") ") )"), "d: a name stands twice");
	bad(DIRECTORY("entry ( name d node ( type directory " ENTRY("x") ") ) "
				  ENTRY("d")), "twice");

	nar = nar_of(MAGIC "( type directory entry ( name");
	add_string(&nar, "a\0b", 3);
	bad_nar("NUL in a name", nar, "no name of a file");
	nar = nar_of(MAGIC "( type symlink target");
	add_string(&nar, "a\0b", 3);
	bad_nar("NUL in a target", nar, "has a NUL");
}

static void
test_lengths(void)
{
	static char text[NAR_PATH_MAX + 1];
	Nar			nar;

	memset(text, 'a', sizeof(text));
	nar = nar_of(MAGIC "( type symlink target");
	add_string(&nar, text, NAR_PATH_MAX);
	add(&nar, ")");
	good_nar("the longest target", nar);
	nar = nar_of(MAGIC "( type symlink target");
	add_string(&nar, text, NAR_PATH_MAX + 1);
	bad_nar("a longer target", nar, "longer than 4095 bytes");

	nar = nar_of(MAGIC "( type directory entry ( name");
	add_string(&nar, text, NAR_NAME_MAX);
	add(&nar, "node " FILE_A " ) )");
	good_nar("the longest name", nar);
	nar = nar_of(MAGIC "( type directory entry ( name");
	add_string(&nar, text, NAR_NAME_MAX + 1);
	bad_nar("a longer name", nar, "longer than 255 bytes");

	nar = nar_of(MAGIC "( type regular contents");
	memset(nar.bytes + nar.len, 0xff, 8);
	nar.len += 8;
	bad_nar("contents beyond all measure", nar, "contents of");
	nar = nar_of(MAGIC "( type");
	memset(nar.bytes + nar.len, 0xff, 8);
	nar.len += 8;
	bad_nar("a tag beyond all measure", nar, "\"symlink\" expected");
}

static void
test_padding(void)
{
	Nar			nar = nar_of(MAGIC FILE_A);
	ParseError	error;
	bool		passed = false;

	/* the padding of the magic, of "(", and so on, is all that is zero */
	for (size_t i = 0; i < nar.len; i++)
	{
		nar.bytes[i] ^= 1;
		/* the contents may be anything */
		if (nar.bytes[i] != ('a' ^ 1) || nar.bytes[i - 8] != 1)
			passed = passed || parse(nar.bytes, nar.len, nar.len, &error);
		nar.bytes[i] ^= 1;
	}
	ok(!passed, "no bit outside of the contents may be another");
	nar.bytes[8 + 13] = 1;
	bad_nar("padding", nar, "byte 21: padding is not zero");
}

/* Directories in each other, each called "a". */
static Nar
nested(int depth)
{
	Nar			nar = nar_of("nix-archive-1");

	for (int i = 0; i < depth; i++)
		add(&nar, "( type directory entry ( name a node");
	add(&nar, FILE_A);
	for (int i = 0; i < depth; i++)
		add(&nar, ") )");
	return nar;
}

static void
test_depth(void)
{
	good_nar("2048 deep", nested(2048));
	bad_nar("2049 deep", nested(2049), "path is longer than 4095 bytes");
}

int
main(void)
{
	test_good();
	test_tags();
	test_names();
	test_lengths();
	test_padding();
	test_depth();
	printf("1..%d\n", ntests);
	return nfailed > 0;
}
