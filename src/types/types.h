/*-------------------------------------------------------------------------
 *
 * types.h
 *	  The SQL types as C sees them.
 *
 *	  store_hash	20 bytes, fixed length, by reference: the bytes of
 *					base/nix32.h's store hash
 *	  store_path	varlena, see store_path.c
 *	  nar_hash		varlena, see nar_hash.c
 *	  narinfo		varlena whose payload is base/packed.h's
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_TYPES_TYPES_H
#define NARINFO_TYPES_TYPES_H

#include "postgres.h"

#include "fmgr.h"

#include "base/packed.h"
#include "compat.h"

#define DatumGetStoreHash(d)	((const uint8 *) DatumGetPointer(d))
#define PG_GETARG_STORE_HASH(n) DatumGetStoreHash(PG_GETARG_DATUM(n))

/*
 * The packed bytes of a detoasted narinfo (or of a slice of one) and their
 * number.
 */
#define NARINFO_PACKED(v)		((const uint8 *) VARDATA_ANY(v))
#define NARINFO_PACKED_LEN(v)	((size_t) VARSIZE_ANY_EXHDR(v))

/*
 * The parser behind narinfo_in, narinfo_recv, import and HTTP.  Returns a
 * palloc'd narinfo, or NULL with the error filled in: nothing is raised but
 * lack of memory.  Bytes that are no text in the database's encoding are
 * refused like any other error.
 */
extern struct varlena *narinfo_from_text(const char *text, size_t len,
										 ParseError *error);

/*
 * The text, palloc'd, with a NUL behind it that *len does not count.  Raises
 * ERRCODE_DATA_CORRUPTED for a damaged value.
 */
extern char *narinfo_to_text(const struct varlena *info, size_t *len);

/* The same, or NULL for one that is damaged. */
extern char *narinfo_try_text(const struct varlena *info, size_t *len);

/* A store_path value made of its parts. */
extern struct varlena *store_path_make(const StorePath *path);

/*
 * Reports the error with the SQLSTATE 22P02: "invalid WHAT: line L, field F:
 * MESSAGE", without the parts that are not known; softly where the context
 * (fcinfo->context of an input function, or NULL) asks for it.
 */
extern Datum report_parse_error(struct Node *context, const char *what,
								const ParseError *error);

/* The same description, palloc'd: "line L, field F: MESSAGE". */
extern char *describe_parse_error(const ParseError *error);

/*
 * A store_path's parts; they point into the value, which is detoasted.
 * Raises ERRCODE_DATA_CORRUPTED for a damaged value.
 */
extern StorePath store_path_parts(const struct varlena *value);

/* SQL functions that other rooms call too. */
extern Datum narinfo_nar_hash(PG_FUNCTION_ARGS);
extern Datum nar_hash_out(PG_FUNCTION_ARGS);
extern Datum narinfo_eq(PG_FUNCTION_ARGS);

/* A nar_hash value. */
extern struct varlena *nar_hash_make(const Digest *hash);

#endif							/* NARINFO_TYPES_TYPES_H */
