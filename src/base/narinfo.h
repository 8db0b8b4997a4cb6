/*-------------------------------------------------------------------------
 *
 * narinfo.h
 *	  The grammar of narinfos, Nix's and Guix's.
 *
 * A narinfo is lines of "FIELD: VALUE".  What is accepted is what the client
 * of its kind reads, less what either client would call corrupt or read in
 * another way than it was meant: a field without the blank behind its colon
 * makes nix swallow a character or the next line.  Unknown fields are kept
 * and ignored.  When a field is repeated, nix takes the last and guix the
 * first one.  Source: nix, src/libstore/nar-info.cc; guix, guix/narinfo.scm
 * and recutils->alist of guix/records.scm.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_NARINFO_H
#define NARINFO_BASE_NARINFO_H

#include "base/hash.h"
#include "base/store_path.h"

/* The longest text that is accepted: 16 MiB less one byte. */
#define NARINFO_TEXT_MAX 0xFFFFFF

/* How many URL lines a narinfo of Guix's kind may have. */
#define NARINFO_URLS_MAX 16

typedef enum NarinfoKind
{
	NARINFO_NIX = 0,
	NARINFO_GUIX = 1
} NarinfoKind;

/* One place to download the NAR from. */
typedef struct NarinfoUrl
{
	Span		url;
	Span		compression;	/* "bzip2" or "none" when the text is silent */
	Span		file_hash;		/* as written; absent: data NULL */
	uint64_t	file_size;		/* bytes; 0 when the text is silent */
	bool		has_file_size;
} NarinfoUrl;

/* Every Span points into the text that was parsed. */
typedef struct Narinfo
{
	NarinfoKind kind;
	StorePath	store_path;
	Digest		nar_hash;
	uint64_t	nar_size;		/* bytes */
	int			nurls;
	NarinfoUrl	urls[NARINFO_URLS_MAX];
	Span		refs;			/* value of References; see narinfo_next_ref */
	uint32_t	nrefs;
	uint32_t	refs_line;		/* line of References, 0 when absent */
	Span		deriver;		/* base name; absent: data NULL */
	Span		system;			/* absent: data NULL */
	Span		ca;				/* absent: data NULL */
	uint32_t	nsigs;			/* number of Sig lines */
	Span		signature;		/* Guix's, as written; absent: data NULL */
} Narinfo;

/* False with the error filled in when the text is no narinfo. */
extern bool narinfo_parse(const char *text, size_t len, Narinfo *info,
						  ParseError *error);

/*
 * Walks a References value: hands out each store path's base name in turn,
 * and takes it off "rest"; false at the end.  The value comes from a parsed
 * Narinfo, so every reference is well-formed.
 */
extern bool narinfo_next_ref(Span *rest, StorePath *ref);

/*
 * Walks a text line by line: name and value of each field as they are
 * written.  False at the end.  The text has been parsed.
 */
extern bool narinfo_next_field(Span *rest, Span *name, Span *value);

/*
 * Is the second text the first with signatures added?  Nix's are lines among
 * the others; Guix' takes the place of the one that was there, if any.  Both
 * have been parsed.
 */
extern bool narinfo_signed_further(Span text, Span signed_text);

#endif							/* NARINFO_BASE_NARINFO_H */
