/*-------------------------------------------------------------------------
 *
 * row.h
 *	  The gated tables, and the canonical bytes of their rows.
 *
 * The state of a cache is the set of its rows in the gated tables.  Its digest
 * is the XOR of one XXH3-128 a row, so that it can follow every change by
 * itself and does not depend on any order.  Hashed are bytes of our own, which
 * are the same on every site, version of PostgreSQL and machine:
 *
 *	 bytes
 *	   1	version, 1
 *	   1	tag of the table
 *	 then each of its canonical columns, in their order: 0 if it is NULL, or
 *	   1	and the value:
 *			text, enum, narinfo,	length in 4 bytes, then the text (an
 *			store_path				enum's is its label) as the database
 *									encodes it
 *			boolean					1 byte, 0 or 1
 *			integer					4 bytes
 *			bigint, timestamptz		8 bytes; microseconds since 2000-01-01 UTC
 *			interval				8 bytes of microseconds, 4 of days and 4 of
 *									months
 *			store_hash				20 bytes, most significant first
 *			bytea					length in 4 bytes, then the bytes
 *			text[]					number of elements in 4 bytes, then each as
 *									if it were a column
 *
 * Numbers are little-endian.  A digest is written most significant byte first,
 * as xxhash's canonical form has it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_ROW_H
#define NARINFO_CACHE_ROW_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "lib/stringinfo.h"

#include "base/store_path.h"
#include "cache/event.h"

#define DIGEST_LEN 16			/* bytes */

typedef struct RowDigest
{
	uint8		bytes[DIGEST_LEN];
} RowDigest;

#define ROW_COLUMNS_MAX 20

/* One gated table.  A further one is one more entry in row.c. */
typedef struct GatedTable
{
	const char *name;			/* in schema narinfo */
	uint8		tag;			/* in the canonical bytes: never reused */
	const char *cache_column;	/* names the cache */
	const char *hash_column;	/* the rest of the key: a store_hash or a
								 * store_path, */
	const char *name_column;	/* or a name, which events show, */
	const char *more_column;	/* and perhaps a second part; */
	const char *part_column;	/* or both of the first, and this integer */
	const char *info_column;	/* the narinfo, if it has one */
	EventKind	added;			/* what a change is called */
	EventKind	changed;
	EventKind	removed;
	const char *columns[ROW_COLUMNS_MAX];	/* canonical; NULL at the end */
} GatedTable;

/*
 * Numbers of entries in row.c that others must know.  The events of one
 * transaction are in the order of the tables.
 */
#define GATED_CACHE			0
#define GATED_VALID_PATH	1
#define GATED_KEY			2
#define GATED_TOKEN			3
#define GATED_ROOT			4
#define GATED_ROOT_SOURCE	5
#define GATED_QUOTA			6

extern const GatedTable gated_tables[];
extern const int gated_tables_count;

/* The number of the table of this name, or -1. */
extern int	gated_table_find(const char *name);

/*
 * Reads rows of one gated table: made for a relation's or a record's columns,
 * used for many rows.  Memory for a row is taken from the current context;
 * reset it now and then.
 */
typedef struct RowReader
{
	const GatedTable *table;
	int			ncolumns;
	AttrNumber	numbers[ROW_COLUMNS_MAX];
	Oid			types[ROW_COLUMNS_MAX];
	AttrNumber	cache_number;
	AttrNumber	hash_number;	/* 0: none; so the others */
	AttrNumber	info_number;
	AttrNumber	name_number;
	AttrNumber	more_number;
	AttrNumber	part_number;
	StringInfoData bytes;		/* of the row at hand */
} RowReader;

/* Raises ERRCODE_UNDEFINED_COLUMN when a column is not there. */
extern void row_reader_init(RowReader *reader, const GatedTable *table,
							TupleDesc desc);

/* The XXH3-128 of a row's canonical bytes. */
extern void row_digest_of(RowReader *reader, TupleTableSlot *slot,
						  RowDigest *digest);

static inline void
digest_add(RowDigest *sum, const RowDigest *digest)
{
	for (int i = 0; i < DIGEST_LEN; i++)
		sum->bytes[i] ^= digest->bytes[i];
}

#endif							/* NARINFO_CACHE_ROW_H */
