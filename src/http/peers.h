/*-------------------------------------------------------------------------
 *
 * peers.h
 *	  How often each address is there: a hash table of counts.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_PEERS_H
#define NARINFO_HTTP_PEERS_H

#include "http/proxy.h"

typedef struct HttpPeer
{
	unsigned char bytes[16];
	int			count;			/* 0: the slot is free */
} HttpPeer;

typedef struct HttpPeers
{
	HttpPeer   *slots;			/* linear probing, at most half full */
	uint32_t	size;			/* a power of two, or 0 */
	uint32_t	used;
	uint64_t	seed;			/* so that nobody can choose collisions */
} HttpPeers;

/* Counts one more; the new count, or -1 when memory is short. */
extern int	http_peers_add(HttpPeers *peers, const HttpAddress *address);

/* Takes one off that was added. */
extern void http_peers_remove(HttpPeers *peers, const HttpAddress *address);
extern void http_peers_free(HttpPeers *peers);

#endif							/* NARINFO_HTTP_PEERS_H */
