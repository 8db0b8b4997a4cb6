/*-------------------------------------------------------------------------
 *
 * pace.c
 *	  Addresses from which wrong tokens come are made to wait.
 *
 * Nobody guesses 256 bits; this keeps those who try, or whose token was taken
 * away, from filling logs and costing more than a refusal.  After
 * pg_narinfo.auth_failures_max failures, each within auth_pause of the one
 * before, whatever comes from the address is answered 429 for auth_pause.
 *
 * What is shown meanwhile is not looked at, so a right token has to wait like
 * a wrong one; but for one that was right from this address before: many
 * clients may share an address, and one of them that keeps showing an old
 * token is not to keep out the others.  That it is among those is no proof,
 * it is checked like any.
 *
 * All of this is each worker's own, of a fixed size, and forgets those first
 * that failed longest ago.  An address of IPv6 stands for its network of 64
 * bits, which one client has to itself.  Clients of a unix socket for which
 * no trusted proxy speaks have no address: they are counted, never slowed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "http/proxy.h"
#include "serve/auth.h"
#include "serve/serve.h"

#define SETS		256			/* of addresses */
#define WAYS		4			/* addresses in each */
#define PASSED_MAX	1024		/* tokens that were right */

#define NETWORK_BYTES 16

typedef struct Address
{
	uint8		network[NETWORK_BYTES];
	int			failures;
	TimestampTz last;			/* failure; 0: the place is free */
	TimestampTz until;			/* it has to wait */
} Address;

static Address addresses[SETS][WAYS];
static uint64 passed[PASSED_MAX];	/* hashes of address and token */
static uint64 failures = 0;

static int	failures_max = 10;
static int	pause_ms = 10 * 1000;

void
pace_init(void)
{
	DefineCustomIntVariable("pg_narinfo.auth_failures_max",
							"Wrong tokens from one address before it has to "
							"wait; 0 is no limit.",
							"At each HTTP worker.",
							&failures_max, 10, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.auth_pause",
							"Time for which an address has to wait after too "
							"many wrong tokens.",
							NULL, &pause_ms, 10 * 1000, 100, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

uint64
serve_auth_failures(void)
{
	return failures;
}

/* So that nobody can choose who shares a place with whom. */
static uint64
keyed_hash(const uint8 *bytes, int len, uint64 more)
{
	static uint64 seed = 0;

	while (seed == 0)
	{
		if (!pg_strong_random(&seed, sizeof(seed)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bytes")));
	}
	return hash_bytes_extended(bytes, len, seed ^ more);
}

/* False if it has none. */
static bool
network_of(const char *text, uint8 network[NETWORK_BYTES])
{
	HttpAddress address;

	if (!http_address_parse(span_of(text, strlen(text)), &address))
		return false;
	memcpy(network, address.bytes, NETWORK_BYTES);
	if (strchr(text, ':') != NULL)
		memset(network + NETWORK_BYTES / 2, 0, NETWORK_BYTES / 2);
	return true;
}

/* Where it is; or, to be made, where it can be; else NULL. */
static Address *
find_address(const uint8 network[NETWORK_BYTES], bool make)
{
	Address    *set = addresses[keyed_hash(network, NETWORK_BYTES, 0) % SETS];
	Address    *oldest = set;

	for (int i = 0; i < WAYS; i++)
	{
		if (set[i].last != 0 &&
			memcmp(set[i].network, network, NETWORK_BYTES) == 0)
			return &set[i];
		if (set[i].last < oldest->last)
			oldest = &set[i];
	}
	if (!make)
		return NULL;
	memset(oldest, 0, sizeof(*oldest));
	memcpy(oldest->network, network, NETWORK_BYTES);
	return oldest;
}

/* Where it would be remembered that this token was right from there. */
static uint64 *
find_passed(const uint8 network[NETWORK_BYTES],
			const uint8 hash[TOKEN_HASH_BYTES], uint64 *value)
{
	*value = keyed_hash(network, NETWORK_BYTES,
						keyed_hash(hash, TOKEN_HASH_BYTES, 0));
	return &passed[*value % PASSED_MAX];
}

int
pace_wait(const char *address, const uint8 hash[TOKEN_HASH_BYTES])
{
	uint8		network[NETWORK_BYTES];
	Address    *known;
	uint64		value;
	int64		left;

	if (failures_max == 0 || !network_of(address, network))
		return 0;
	known = find_address(network, false);
	if (known == NULL || known->until == 0)
		return 0;
	left = known->until - GetCurrentTimestamp();
	/* longer than it can be: the clock was set back, or the setting */
	if (left <= 0 || left > (int64) pause_ms * 1000)
		return 0;
	if (*find_passed(network, hash, &value) == value)
		return 0;
	return (int) ((left + USECS_PER_SEC - 1) / USECS_PER_SEC);
}

void
pace_failed(const char *address, const uint8 hash[TOKEN_HASH_BYTES])
{
	TimestampTz now = GetCurrentTimestamp();
	uint8		network[NETWORK_BYTES];
	Address    *known;
	uint64		value;
	uint64	   *was_right;

	failures++;
	if (failures_max == 0 || !network_of(address, network))
		return;
	was_right = find_passed(network, hash, &value);
	if (*was_right == value)
		*was_right = 0;
	known = find_address(network, true);
	if (TimestampDifferenceExceeds(known->last, now, pause_ms))
		known->failures = 0;
	known->last = now;
	if (++known->failures < failures_max)
		return;
	known->failures = 0;
	known->until = TimestampTzPlusMilliseconds(now, pause_ms);
}

void
pace_passed(const char *address, const uint8 hash[TOKEN_HASH_BYTES])
{
	uint8		network[NETWORK_BYTES];
	uint64		value;

	if (failures_max > 0 && network_of(address, network))
		*find_passed(network, hash, &value) = value;
}
