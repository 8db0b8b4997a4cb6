/*-------------------------------------------------------------------------
 *
 * nar.h
 *	  The structure of a NAR, looked at while its bytes come by.
 *
 * A NAR is a row of strings.  Each is its length, 8 bytes little-endian, then
 * its bytes, then zeros up to a multiple of 8 bytes; in their order they are
 *
 *	  nar		"nix-archive-1" node
 *	  node		"(" "type" object ")"
 *	  object	"regular" ["executable" ""] "contents" BYTES
 *				"symlink" "target" TARGET
 *				"directory" {"entry" "(" "name" NAME "node" node ")"}
 *
 * and that is all: nothing stands behind the last ")".  What is accepted is
 * what nix and guix write, so there is one NAR to a tree.  The names of a
 * directory rise strictly, bytewise; none is empty, "." or "..", or has '/' or
 * NUL in it.  A path, with its slashes, and a target have fewer bytes than
 * PATH_MAX, since no Linux could unpack a longer one.  Source: nix,
 * src/libutil/archive.cc; guix, guix/serialization.scm.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_NAR_H
#define NARINFO_BASE_NAR_H

#include "base/text.h"

#define NAR_PATH_MAX	4095	/* bytes */
#define NAR_NAME_MAX	255
#define NAR_DEPTH_MAX	((NAR_PATH_MAX + 1) / 2)

/*
 * A parser; about 16 kB, without a pointer, so it may be moved or copied.
 *
 *	  path		 u s r / l o c a l / b i n
 *	  start[]	 ^ 0     ^ 1         ^ 2		depth is 3 in "bin" itself
 *
 * The name of a level stays in "path" until the next one of that directory
 * has been compared with it.
 */
typedef struct NarParser
{
	uint64_t	offset;			/* bytes of the NAR that were read */
	uint64_t	left;			/* bytes of a string still to come */
	uint64_t	length;			/* its length */
	uint8_t		part;			/* of a string: enum NarPart, nar.c */
	uint8_t		expected;		/* which string: enum NarExpected, nar.c */
	uint8_t		padding;		/* zeros still to come */
	uint8_t		nlength;		/* bytes of the length that are there */
	bool		bad;
	uint16_t	depth;			/* names in path */
	uint16_t	path_len;
	uint16_t	start[NAR_DEPTH_MAX + 1];	/* of each level's name in path */
	uint16_t	len[NAR_DEPTH_MAX + 1]; /* of each level's name; 0: none yet */
	char		path[NAR_PATH_MAX + NAR_NAME_MAX + 2];
	char		string[NAR_PATH_MAX];	/* what is read now, if it is short */
} NarParser;

extern void nar_begin(NarParser *parser);

/*
 * The next bytes, any number of them.  False with the error filled in when
 * this is no NAR; calls after that say false, too, and leave the error alone.
 */
extern bool nar_feed(NarParser *parser, const void *data, size_t len,
					 ParseError *error);

/* At the end of the bytes: was that the whole NAR? */
extern bool nar_end(NarParser *parser, ParseError *error);

#endif							/* NARINFO_BASE_NAR_H */
