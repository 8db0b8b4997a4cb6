/*-------------------------------------------------------------------------
 *
 * chunk.h
 *	  The memory of connections: chunks that hold bytes received or bytes to
 *	  be sent, and the pool they come from.
 *
 * A chunk to be sent may be followed by a part of a file, so that the head of
 * a reply and its file are one link of the chain:
 *
 *		data                                         fd
 *		+------------+-----------------+----------+  +------------------+
 *		| sent       | to be sent      | room     |->| offset .. length |
 *		+------------+-----------------+----------+  +------------------+
 *		0            sent              used       size
 *
 * An idle connection holds no chunk at all; the pool keeps those that were
 * given back, up to a bound, because the next request needs one at once.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_CHUNK_H
#define NARINFO_HTTP_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "http/growth.h"

/*
 * Data bytes of an ordinary chunk: 80 pipelined narinfo requests fit.  Not a
 * power of two, lest the first lines of all chunks compete for the same sets
 * of the processor's cache.
 */
#define HTTP_CHUNK_SIZE		(8192 + 448)

/* Chunks that the pool keeps for reuse. */
#define HTTP_POOL_KEEP		256

typedef struct HttpChunk
{
	struct HttpChunk *next;
	size_t		size;			/* of data */
	size_t		used;			/* bytes of data that are filled */
	size_t		sent;			/* bytes of data that are gone */
	int			fd;				/* -1, or a file to send after data; owned */
	off_t		offset;			/* of the next byte to send from fd */
	off_t		length;			/* bytes still to send from fd */
	HttpGrowth *growth;			/* of fd, held; or NULL */
	char		data[];
} HttpChunk;

typedef struct HttpPool
{
	HttpChunk  *free;			/* of HTTP_CHUNK_SIZE each */
	int			nfree;
	size_t		lent;			/* bytes of all chunks handed out */
} HttpPool;

/* An empty chunk with room for at least so many bytes; NULL: no memory. */
extern HttpChunk *http_chunk_get(HttpPool *pool, size_t size);

/* Gives a chunk back, closing its file. */
extern void http_chunk_put(HttpPool *pool, HttpChunk *chunk);

/* Bytes that can be sent now from its file; 0: it has to grow first. */
extern off_t http_chunk_ready(const HttpChunk *chunk);

/* Frees what the pool keeps. */
extern void http_pool_clear(HttpPool *pool);

#endif							/* NARINFO_HTTP_CHUNK_H */
