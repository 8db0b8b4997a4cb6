/*-------------------------------------------------------------------------
 *
 * nix_signature.c
 *	  Nix's signatures: Ed25519 over the fingerprint, by libsodium.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <sodium.h>

#include "base/nix_signature.h"

bool
nix_signature_init(void)
{
	return sodium_init() >= 0;
}

/*-------------------------------------------------------------------------
 * Keys
 *-------------------------------------------------------------------------
 */

/* Keys come from files and terminals, with a newline or a blank too many. */
static Span
trim(Span text)
{
	while (text.len > 0 && strchr(" \t\r\n", text.data[0]))
		text = span_skip(text, 1);
	while (text.len > 0 && strchr(" \t\r\n", text.data[text.len - 1]))
		text.len--;
	return text;
}

/* nix.conf separates keys by blanks, so a name has none. */
static bool
check_name(Span name, ParseError *error)
{
	if (name.len == 0)
		return parse_error(error, "key has no name");
	if (name.len > KEY_NAME_MAX)
		return parse_error(error, "name of the key is longer than %d bytes",
						   KEY_NAME_MAX);
	for (size_t i = 0; i < name.len; i++)
	{
		if (name.data[i] <= ' ' || name.data[i] > '~')
			return parse_error(error,
							   "name of the key has a character that is not printable ASCII");
	}
	return true;
}

static bool
key_parse(Span text, Span *name, uint8_t *bytes, size_t n, ParseError *error)
{
	const char *colon;

	text = trim(text);
	colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
	if (colon == NULL)
		return parse_error(error, "key is not NAME:BASE64");
	*name = span_of(text.data, (size_t) (colon - text.data));
	if (!check_name(*name, error))
		return false;
	if (!base64_decode(span_skip(text, name->len + 1), bytes, n))
		return parse_error(error, "key is not %zu bytes in base 64", n);
	return true;
}

bool
nix_public_key_parse(Span text, NixPublicKey *key, ParseError *error)
{
	return key_parse(text, &key->name, key->bytes, sizeof(key->bytes), error);
}

/*
 * The public half must be that of the seed: signing with another one would
 * give the seed away.
 */
bool
nix_secret_key_parse(Span text, NixSecretKey *key, ParseError *error)
{
	uint8_t		public[NIX_PUBLIC_BYTES];
	uint8_t		secret[NIX_SECRET_BYTES];
	bool		good;

	if (!key_parse(text, &key->name, key->bytes, sizeof(key->bytes), error))
	{
		nix_secret_key_wipe(key);
		return false;
	}
	crypto_sign_seed_keypair(public, secret, key->bytes);
	good = sodium_memcmp(secret, key->bytes, sizeof(secret)) == 0;
	sodium_memzero(secret, sizeof(secret));
	if (good)
		return true;
	nix_secret_key_wipe(key);
	return parse_error(error, "secret and public half do not belong together");
}

static void
key_print(Span name, const uint8_t *bytes, size_t n, char *text)
{
	memcpy(text, name.data, name.len);
	text[name.len] = ':';
	base64_encode(bytes, n, text + name.len + 1);
}

void
nix_public_key_print(const NixPublicKey *key, char *text)
{
	key_print(key->name, key->bytes, sizeof(key->bytes), text);
}

void
nix_secret_key_print(const NixSecretKey *key, char *text)
{
	key_print(key->name, key->bytes, sizeof(key->bytes), text);
}

void
nix_key_generate(NixSecretKey *key)
{
	uint8_t		public[NIX_PUBLIC_BYTES];

	crypto_sign_keypair(public, key->bytes);
}

void
nix_key_public(const NixSecretKey *secret, NixPublicKey *key)
{
	key->name = secret->name;
	crypto_sign_ed25519_sk_to_pk(key->bytes, secret->bytes);
}

void
nix_secret_key_wipe(NixSecretKey *key)
{
	sodium_memzero(key->bytes, sizeof(key->bytes));
}

/*-------------------------------------------------------------------------
 * Signatures
 *-------------------------------------------------------------------------
 */

void
nix_sig_parse(Span value, Span *key_name, uint8_t sig[NIX_SIG_BYTES])
{
	const char *colon = memchr(value.data, ':', value.len);

	*key_name = span_of(value.data, (size_t) (colon - value.data));
	base64_decode(span_skip(value, key_name->len + 1), sig, NIX_SIG_BYTES);
}

bool
nix_sig_verify(const NixPublicKey *key, const uint8_t sig[NIX_SIG_BYTES],
			   Span fingerprint)
{
	return crypto_sign_verify_detached(sig,
									   (const uint8_t *) fingerprint.data,
									   fingerprint.len, key->bytes) == 0;
}

void
nix_sign(const NixSecretKey *key, Span fingerprint, char *value)
{
	uint8_t		sig[NIX_SIG_BYTES];

	crypto_sign_detached(sig, NULL, (const uint8_t *) fingerprint.data,
						 fingerprint.len, key->bytes);
	key_print(key->name, sig, sizeof(sig), value);
}

/*-------------------------------------------------------------------------
 * Sig lines
 *-------------------------------------------------------------------------
 */

bool
nix_next_sig(Span *rest, Span *value)
{
	Span		name;

	while (narinfo_next_field(rest, &name, value))
	{
		if (span_is(name, "Sig"))
			return true;
	}
	return false;
}

/* As nix's std::set<std::string> has them. */
static bool
sorts_before(Span a, Span b)
{
	int			cmp = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

	return cmp < 0 || (cmp == 0 && a.len < b.len);
}

size_t
nix_sig_place(Span text, Span value)
{
	Span		rest = text;
	Span		line = text;
	Span		name;
	Span		other;
	size_t		behind = 0;		/* the last Sig line */
	size_t		before_ca = text.len;

	while (narinfo_next_field(&rest, &name, &other))
	{
		size_t		begin = (size_t) (line.data - text.data);

		if (span_is(name, "Sig"))
		{
			if (sorts_before(value, other))
				return begin;
			behind = (size_t) (rest.data - text.data);
		}
		else if (span_is(name, "CA") && before_ca == text.len)
			before_ca = begin;
		line = rest;
	}
	return behind > 0 ? behind : before_ca;
}
