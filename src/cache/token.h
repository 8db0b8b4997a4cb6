/*-------------------------------------------------------------------------
 *
 * token.h
 *	  The tokens of each cache: what lets a client in over HTTP.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_TOKEN_H
#define NARINFO_CACHE_TOKEN_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/nix32.h"

/*
 * A token is "narinfo_" and 256 random bits as digits of nix32: nothing in it
 * means anything to a shell, a URL or a netrc file, and whoever looks for
 * secrets in sources can find it by its beginning.
 */
#define TOKEN_PREFIX		"narinfo_"
#define TOKEN_SECRET_BYTES	32
#define TOKEN_LEN			(sizeof(TOKEN_PREFIX) - 1 + \
							 NIX32_LEN(TOKEN_SECRET_BYTES))
#define TOKEN_HASH_BYTES	32

/* Rights, to be or'ed. */
#define TOKEN_READ			0x01
#define TOKEN_PUSH			0x02
#define TOKEN_ADMIN			0x04

/* SHA-256 of a token, as the table has it. */
extern void token_hash(const char *token, size_t len,
					   uint8 hash[TOKEN_HASH_BYTES]);

/*
 * Does the cache have a token of this hash?  Then what it may and until when
 * (DT_NOEND: for ever), which the caller compares with the clock.  In a
 * transaction; remembered like keys.  How long it takes tells nothing of how
 * near a wrong one is.
 */
extern bool token_find(const char *cache, const uint8 hash[TOKEN_HASH_BYTES],
					   uint32 *rights, TimestampTz *expires);

/* Has the cache any token? */
extern bool token_any(const char *cache);

#endif							/* NARINFO_CACHE_TOKEN_H */
