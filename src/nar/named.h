/*-------------------------------------------------------------------------
 *
 * named.h
 *	  Which narinfo names a file: by the index that narinfo.index_files()
 *	  makes where somebody wants to know.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_NAMED_H
#define NARINFO_NAR_NAMED_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "base/hash.h"
#include "base/text.h"
#include "nar/check.h"

/* What a narinfo says of one of its files. */
typedef struct NamedFile
{
	char	   *path;			/* where it lies, relative to the directory of
								 * its cache, palloc'd; or not told */
	char	   *url;			/* as it is written, palloc'd */
	bool		has_size;
	uint64		size;			/* FileSize, bytes */
	bool		has_hash;
	Digest		hash;			/* FileHash */
	NarExpectation expect;		/* all that it says */
} NamedFile;

/*
 * Does the narinfo name the file of this path, relative to the directory of
 * its cache?  One that is damaged names nothing.
 */
extern bool named_by(const struct varlena *info, const char *path,
					 NamedFile *file);

/*
 * All files that it names below nar/ of its cache, NamedFile with "path", in
 * its order; palloc'd.
 */
extern List *named_files(const struct varlena *info);

/*
 * The hash part of a store path that the name of a file begins with, as
 * Guix's do (nar/zstd/HASH-NAME); false if it does not.
 */
extern bool named_store_hash(const char *path, uint8 hash[STORE_HASH_LEN]);

typedef enum NamedResult
{
	NAMED_FOUND,
	NAMED_ABSENT,
	NAMED_NO_INDEX
} NamedResult;

/*
 * A valid path of the cache whose narinfo names the file.  Needs a transaction
 * and a snapshot.
 */
extern NamedResult named_find(const char *cache, const char *path,
							  NamedFile *file);

#endif							/* NARINFO_NAR_NAMED_H */
