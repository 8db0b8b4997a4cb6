/*-------------------------------------------------------------------------
 *
 * chunk.c
 *	  The memory of connections.  See chunk.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/chunk.h"

HttpChunk *
http_chunk_get(HttpPool *pool, size_t size)
{
	HttpChunk  *chunk = pool->free;

	if (size > HTTP_CHUNK_SIZE || chunk == NULL)
	{
		if (size < HTTP_CHUNK_SIZE)
			size = HTTP_CHUNK_SIZE;
		if (size > SIZE_MAX - sizeof(HttpChunk))
			return NULL;
		chunk = malloc(sizeof(HttpChunk) + size);
		if (chunk == NULL)
			return NULL;
		chunk->size = size;
	}
	else
	{
		pool->free = chunk->next;
		pool->nfree--;
	}

	chunk->next = NULL;
	chunk->used = 0;
	chunk->sent = 0;
	chunk->fd = -1;
	chunk->offset = 0;
	chunk->length = 0;
	chunk->growth = NULL;
	pool->lent += chunk->size;
	return chunk;
}

void
http_chunk_put(HttpPool *pool, HttpChunk *chunk)
{
	if (chunk->fd >= 0)
		close(chunk->fd);
	if (chunk->growth != NULL)
		http_growth_release(chunk->growth);
	pool->lent -= chunk->size;

	if (chunk->size != HTTP_CHUNK_SIZE || pool->nfree >= HTTP_POOL_KEEP)
	{
		free(chunk);
		return;
	}
	chunk->next = pool->free;
	pool->free = chunk;
	pool->nfree++;
}

off_t
http_chunk_ready(const HttpChunk *chunk)
{
	const HttpGrowth *growth = chunk->growth;
	off_t		ready;

	if (growth == NULL || growth->state == HTTP_GROWTH_GOOD)
		return chunk->length;
	ready = growth->size - chunk->offset;
	if (ready > chunk->length - 1)
		ready = chunk->length - 1;
	return ready > 0 ? ready : 0;
}

void
http_pool_clear(HttpPool *pool)
{
	HttpChunk  *chunk;

	while ((chunk = pool->free) != NULL)
	{
		pool->free = chunk->next;
		free(chunk);
	}
	pool->nfree = 0;
}
