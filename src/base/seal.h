/*-------------------------------------------------------------------------
 *
 * seal.h
 *	  Texts that are given away and come back: a MAC at the end tells that
 *	  they are ours, and unchanged.
 *
 * A sealed text is TEXT.MAC, with HMAC-SHA-256 of TEXT in nix32.  One key
 * serves texts of all kinds, so each has to begin with the name of its kind.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_SEAL_H
#define NARINFO_BASE_SEAL_H

#include "base/nix32.h"

#define SEAL_KEY_BYTES	32
#define SEAL_MAC_BYTES	32

/* Characters that sealing adds. */
#define SEAL_LEN		(1 + NIX32_LEN(SEAL_MAC_BYTES))

/* Adds the seal to the "len" bytes of "text", which has room; no NUL. */
extern void seal_text(const uint8_t key[SEAL_KEY_BYTES], char *text,
					  size_t len);

/*
 * Takes the seal off; false if it is not ours.  How long that takes tells
 * nothing of what it should be.
 */
extern bool seal_open(const uint8_t key[SEAL_KEY_BYTES], Span sealed,
					  Span *text);

#endif							/* NARINFO_BASE_SEAL_H */
