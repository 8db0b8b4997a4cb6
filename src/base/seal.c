/*-------------------------------------------------------------------------
 *
 * seal.c
 *	  Texts with a MAC at their end; see seal.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <sodium.h>

#include "base/seal.h"

void
seal_text(const uint8_t key[SEAL_KEY_BYTES], char *text, size_t len)
{
	uint8_t		mac[SEAL_MAC_BYTES];

	crypto_auth_hmacsha256(mac, (const uint8_t *) text, len, key);
	text[len] = '.';
	nix32_encode(mac, sizeof(mac), text + len + 1);
}

bool
seal_open(const uint8_t key[SEAL_KEY_BYTES], Span sealed, Span *text)
{
	uint8_t		mac[SEAL_MAC_BYTES];

	if (sealed.len < SEAL_LEN)
		return false;
	*text = span_of(sealed.data, sealed.len - SEAL_LEN);
	return text->data[text->len] == '.' &&
		nix32_decode(text->data + text->len + 1, mac, sizeof(mac)) &&
		crypto_auth_hmacsha256_verify(mac, (const uint8_t *) text->data,
									  text->len, key) == 0;
}
