/*-------------------------------------------------------------------------
 *
 * nix_signature.h
 *	  Nix's signatures: Ed25519 over the fingerprint, KEYNAME:BASE64.
 *
 * A public key is NAME:BASE64 of 32 bytes, a secret key NAME:BASE64 of 64,
 * libsodium's own form: the seed, then the public key.  That is what
 * nix-store --generate-binary-cache-key writes.  Source: nix,
 * src/libstore/crypto.cc.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_NIX_SIGNATURE_H
#define NARINFO_BASE_NIX_SIGNATURE_H

#include "base/narinfo.h"

#define NIX_PUBLIC_BYTES	32
#define NIX_SECRET_BYTES	64
#define NIX_SIG_BYTES		64

/* The longest name of a key; what stands before the ':'. */
#define KEY_NAME_MAX		255

/* Characters of each, with the length of the name. */
#define NIX_PUBLIC_LEN(name) ((name) + 1 + BASE64_LEN(NIX_PUBLIC_BYTES))
#define NIX_SECRET_LEN(name) ((name) + 1 + BASE64_LEN(NIX_SECRET_BYTES))
#define NIX_SIG_LEN(name)	 ((name) + 1 + BASE64_LEN(NIX_SIG_BYTES))

typedef struct NixPublicKey
{
	Span		name;			/* in the text that was parsed */
	uint8_t		bytes[NIX_PUBLIC_BYTES];
} NixPublicKey;

/* To be wiped by nix_secret_key_wipe(); its name is no secret. */
typedef struct NixSecretKey
{
	Span		name;			/* in the text that was parsed */
	uint8_t		bytes[NIX_SECRET_BYTES];
} NixSecretKey;

/*
 * Readies the library; before anything else here, as often as one likes.
 * False if it cannot be used.
 */
extern bool nix_signature_init(void);

/* Blanks around a key are ignored.  No error tells what a secret key has. */
extern bool nix_public_key_parse(Span text, NixPublicKey *key,
								 ParseError *error);
extern bool nix_secret_key_parse(Span text, NixSecretKey *key,
								 ParseError *error);

/* Each prints without a NUL, as many characters as the macros above say. */
extern void nix_public_key_print(const NixPublicKey *key, char *text);
extern void nix_secret_key_print(const NixSecretKey *key, char *text);

/* A new key with its name still to be set. */
extern void nix_key_generate(NixSecretKey *key);
extern void nix_key_public(const NixSecretKey *secret, NixPublicKey *key);
extern void nix_secret_key_wipe(NixSecretKey *key);

/* The value of a Sig line, which the parser has accepted. */
extern void nix_sig_parse(Span value, Span *key_name,
						  uint8_t sig[NIX_SIG_BYTES]);
extern bool nix_sig_verify(const NixPublicKey *key,
						   const uint8_t sig[NIX_SIG_BYTES],
						   Span fingerprint);

/* Prints the value of a Sig line, NIX_SIG_LEN() characters without a NUL. */
extern void nix_sign(const NixSecretKey *key, Span fingerprint, char *value);

/*
 * Walks the Sig lines of a text that has been parsed: hands out each value
 * and takes what was read off "rest"; false at the end.
 */
extern bool nix_next_sig(Span *rest, Span *value);

/*
 * Where nix would print a further Sig line: offset of the line before which
 * it goes.  Signatures are sorted, and stand before CA or at the end.
 */
extern size_t nix_sig_place(Span text, Span value);

#endif							/* NARINFO_BASE_NIX_SIGNATURE_H */
