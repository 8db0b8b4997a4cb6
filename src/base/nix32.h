/*-------------------------------------------------------------------------
 *
 * nix32.h
 *	  Nix's base 32, base 16 and base 64, between bytes and text.
 *
 * Nix32 has the digits "0123456789abcdfghijklmnpqrsvwxyz" (no e, o, t, u) in
 * ASCII order and writes a number, most significant digit first.  A digest is
 * that number with its LAST byte the most significant; a store hash we keep
 * the other way round (most significant byte first), so that memcmp() of two
 * of them is the order of their texts.  Source: nix, src/libutil/hash.cc.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_NIX32_H
#define NARINFO_BASE_NIX32_H

#include "base/text.h"

/* Characters that n bytes take in each notation. */
#define NIX32_LEN(n)	(((n) * 8 + 4) / 5)
#define BASE16_LEN(n)	((n) * 2)
#define BASE64_LEN(n)	((((n) + 2) / 3) * 4)

#define STORE_HASH_LEN		20
#define STORE_HASH_TEXT_LEN 32

/*
 * Each *_encode writes exactly the characters above, without a NUL.  Each
 * *_decode takes a text of exactly that many characters and returns false,
 * with the output undefined, if a character is not a digit or if the unused
 * high bits of the first nix32 digit are set.
 */
extern void nix32_encode(const uint8_t *bytes, size_t n, char *text);
extern bool nix32_decode(const char *text, uint8_t *bytes, size_t n);
extern void base16_encode(const uint8_t *bytes, size_t n, char *text);
extern bool base16_decode(const char *text, uint8_t *bytes, size_t n);

/* Base 64 as RFC 4648 says, with '=' at the end. */
extern void base64_encode(const uint8_t *bytes, size_t n, char *text);

/*
 * Decodes exactly n bytes.  As lenient as nix: the '=' at the end may be
 * missing, and the unused bits of the last digit may be anything.
 */
extern bool base64_decode(Span text, uint8_t *bytes, size_t n);

/*
 * The same for a text whose length is not known before; returns the number of
 * bytes, at most 3/4 of the text, or -1.
 */
extern long base64_decode_any(Span text, uint8_t *bytes);

/* Store hashes: 20 bytes, 32 digits, most significant byte first. */
extern void store_hash_encode(const uint8_t hash[STORE_HASH_LEN],
							  char text[STORE_HASH_TEXT_LEN]);
extern bool store_hash_decode(const char *text, uint8_t hash[STORE_HASH_LEN]);

#endif							/* NARINFO_BASE_NIX32_H */
