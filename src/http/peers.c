/*-------------------------------------------------------------------------
 *
 * peers.c
 *	  How often each address is there.  See peers.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <sys/random.h>

#include "http/peers.h"

#define MIN_SIZE	64

static uint64_t
mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return x ^ (x >> 32);
}

static uint32_t
home_slot(const HttpPeers *peers, const unsigned char *bytes)
{
	uint64_t	words[2];

	memcpy(words, bytes, 16);
	return (uint32_t) mix(mix(words[0] + peers->seed) ^ words[1]) &
		(peers->size - 1);
}

/* The slot of an address, or the free one where it would go. */
static uint32_t
find_slot(const HttpPeers *peers, const unsigned char *bytes)
{
	uint32_t	slot = home_slot(peers, bytes);

	while (peers->slots[slot].count > 0 &&
		   memcmp(peers->slots[slot].bytes, bytes, 16) != 0)
		slot = (slot + 1) & (peers->size - 1);
	return slot;
}

static bool
grow(HttpPeers *peers)
{
	HttpPeers	larger = *peers;

	larger.size = peers->size > 0 ? peers->size * 2 : MIN_SIZE;
	larger.slots = calloc(larger.size, sizeof(HttpPeer));
	if (larger.slots == NULL)
		return false;
	if (peers->size == 0 &&
		getrandom(&larger.seed, sizeof(larger.seed), GRND_NONBLOCK) < 0)
		larger.seed = (uint64_t) (uintptr_t) larger.slots;
	for (uint32_t i = 0; i < peers->size; i++)
	{
		if (peers->slots[i].count > 0)
			larger.slots[find_slot(&larger, peers->slots[i].bytes)] =
				peers->slots[i];
	}
	free(peers->slots);
	*peers = larger;
	return true;
}

int
http_peers_add(HttpPeers *peers, const HttpAddress *address)
{
	HttpPeer   *peer;

	if (peers->used >= peers->size / 2 && !grow(peers))
		return -1;
	peer = &peers->slots[find_slot(peers, address->bytes)];
	if (peer->count == 0)
	{
		memcpy(peer->bytes, address->bytes, 16);
		peers->used++;
	}
	return ++peer->count;
}

void
http_peers_remove(HttpPeers *peers, const HttpAddress *address)
{
	uint32_t	mask = peers->size - 1;
	uint32_t	hole;
	uint32_t	next;

	if (peers->size == 0)
		return;
	hole = find_slot(peers, address->bytes);
	if (peers->slots[hole].count == 0 || --peers->slots[hole].count > 0)
		return;
	peers->used--;

	/* Close the gap, so that no search ends too early. */
	for (next = (hole + 1) & mask; peers->slots[next].count > 0;
		 next = (next + 1) & mask)
	{
		uint32_t	home = home_slot(peers, peers->slots[next].bytes);

		if (((next - home) & mask) >= ((next - hole) & mask))
		{
			peers->slots[hole] = peers->slots[next];
			peers->slots[next].count = 0;
			hole = next;
		}
	}
}

void
http_peers_free(HttpPeers *peers)
{
	free(peers->slots);
	memset(peers, 0, sizeof(*peers));
}
