/*-------------------------------------------------------------------------
 *
 * store_path.h
 *	  The grammar of store paths: DIRECTORY/HASH-NAME.
 *
 * Source: nix, src/libstore/path.cc; guix, guix/store.scm.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_STORE_PATH_H
#define NARINFO_BASE_STORE_PATH_H

#include "base/nix32.h"

#define STORE_NAME_MAX	211		/* bytes */
#define STORE_DIR_MAX	255		/* bytes */

/* "HASH-NAME" at its longest */
#define STORE_BASE_NAME_MAX (STORE_HASH_TEXT_LEN + 1 + STORE_NAME_MAX)

typedef struct StorePath
{
	Span		dir;			/* "/nix/store"; len 0 for a base name */
	uint8_t		hash[STORE_HASH_LEN];
	Span		name;			/* 1 .. STORE_NAME_MAX bytes */
} StorePath;

/* Absolute, no '/' at its end, no empty, "." or ".." component, printable. */
extern bool store_dir_check(Span dir, ParseError *error);

/* [A-Za-z0-9+._?=-], and not ".", "..", ".-…" or "..-…". */
extern bool store_name_check(Span name, ParseError *error);

/* "HASH-NAME", as References and Deriver have it. */
extern bool store_base_name_parse(Span text, StorePath *path,
								  ParseError *error);

/* "DIRECTORY/HASH-NAME". */
extern bool store_path_parse(Span text, StorePath *path, ParseError *error);

/* Characters of the whole path, and the path itself, without a NUL. */
extern size_t store_path_len(const StorePath *path);
extern void store_path_print(const StorePath *path, char *text);

#endif							/* NARINFO_BASE_STORE_PATH_H */
