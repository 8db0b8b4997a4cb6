/*-------------------------------------------------------------------------
 *
 * hash.h
 *	  Digests with their algorithm, as NarHash, FileHash and CA have them.
 *
 * Read as ALGO:DIGITS, where the number of digits tells base 16, nix32 and
 * base 64 apart, or as SRI, ALGO-BASE64.  Source: nix, src/libutil/hash.cc.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_HASH_H
#define NARINFO_BASE_HASH_H

#include "base/nix32.h"

/* Stored on disk: never renumber. */
typedef enum HashAlgo
{
	HASH_MD5 = 1,
	HASH_SHA1 = 2,
	HASH_SHA256 = 3,
	HASH_SHA512 = 4
} HashAlgo;

#define HASH_BYTES_MAX 64
#define HASH_TEXT_MAX (7 + NIX32_LEN(HASH_BYTES_MAX))	/* "sha512:" digits */

typedef struct Digest
{
	HashAlgo	algo;
	uint8_t		bytes[HASH_BYTES_MAX];	/* hash_algo_bytes(algo) of them */
} Digest;

/* Bytes of a digest, 0 for a number that is no algorithm. */
extern size_t hash_algo_bytes(int algo);
extern const char *hash_algo_name(int algo);

/* ALGO:DIGITS or SRI. */
extern bool hash_parse(Span text, Digest *hash, ParseError *error);

/* The digits alone, of an algorithm known from elsewhere (CA fields). */
extern bool hash_digits_parse(Span text, HashAlgo algo, Digest *hash,
							  ParseError *error);

/* ALGO:nix32 into at most HASH_TEXT_MAX characters; returns how many. */
extern size_t hash_print(const Digest *hash, char *text);

#endif							/* NARINFO_BASE_HASH_H */
