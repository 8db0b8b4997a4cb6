/*-------------------------------------------------------------------------
 *
 * gzip.h
 *	  Unpacking what came with "Content-Encoding: gzip", never to more than
 *	  was asked for.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_GZIP_H
#define NARINFO_NAR_GZIP_H

#include "postgres.h"

#include "base/text.h"

typedef enum GzipResult
{
	GZIP_OK,
	GZIP_BAD,					/* no gzip, damaged, or cut off */
	GZIP_TOO_LARGE,
	GZIP_ERROR					/* see errno */
} GzipResult;

/* From the beginning of one file into another. */
extern GzipResult gzip_unpack_file(int in, int out, uint64 max);

/* Into a palloc'd text of at most max bytes, NUL-terminated. */
extern GzipResult gzip_unpack(Span packed, size_t max, Span *text);

#endif							/* NARINFO_NAR_GZIP_H */
