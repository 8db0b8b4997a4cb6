/*-------------------------------------------------------------------------
 *
 * key.h
 *	  The public keys that a cache trusts, and the secret keys that this
 *	  server signs with.
 *
 *	  key.c			the table narinfo.key, and what signatures are worth
 *	  key_file.c	secret keys, each a file of pg_narinfo.key_directory
 *	  sign.c		signing narinfos, one or all of a cache
 *	  sign_policy.c	signing what is published unsigned, see policy.h
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_KEY_H
#define NARINFO_CACHE_KEY_H

#include "postgres.h"

#include "utils/guc.h"

#include "base/guix_signature.h"
#include "base/nix_signature.h"
#include "cache/cache.h"

typedef enum KeyKind
{
	KEY_NIX,
	KEY_GUIX
} KeyKind;

/* Labels of the type key_kind. */
extern const char *const key_kind_names[];

/* GUC pg_narinfo.key_directory; called once by cache_init(). */
extern void key_init(void);

/* Check hook of a setting that is an absolute path, or empty. */
extern bool key_check_path(char **value, void **extra, GucSource source);

/* Readies libsodium and libgcrypt, or raises an error; cheap from then on. */
extern void key_libraries(void);

/*-------------------------------------------------------------------------
 * Public keys
 *-------------------------------------------------------------------------
 */

#define KEY_BYTES 32

typedef struct PublicKey
{
	KeyKind		kind;
	Span		name;			/* Nix's; absent for Guix: data NULL */
	uint8		bytes[KEY_BYTES];
	bool		may_push;		/* of a key that a cache trusts */
} PublicKey;

/* The one spelling in which it is stored, palloc'd. */
extern char *public_key_text(const PublicKey *key);

/*
 * A number that this process has not seen before when a key may have changed
 * since it was asked last.
 */
extern uint64 key_generation(void);

/* Is there a key that a cache of this name trusts? */
extern bool key_any(const char *cache);

/* Does the cache trust this key of Nix, and let it push? */
extern bool key_may_push(const char *cache, const uint8 bytes[KEY_BYTES]);

/*
 * Is it such a key, of this name, that has signed the text?  Then "bytes" are
 * the key.
 */
extern bool key_check_proof(const char *cache, Span name,
							const uint8 sig[NIX_SIG_BYTES], Span text,
							uint8 bytes[KEY_BYTES]);

/* In the order of the labels of the type signature_status. */
typedef enum SignatureStatus
{
	SIGNATURE_VALID,
	SIGNATURE_INVALID,			/* by its name of a trusted key, but is not */
	SIGNATURE_UNKNOWN			/* of no key that the cache trusts */
} SignatureStatus;

/*
 * What each signature of a narinfo is worth in a cache: begin, then next as
 * often as it returns true.  In a transaction.  What it hands out is palloc'd
 * by the beginning, or a key, which lives until the next check begins.
 */
typedef struct SignatureCheck
{
	const PublicKey *keys;		/* that the cache trusts */
	int			nkeys;
	Span		text;
	Span		rest;
	Narinfo		info;
	Span		fingerprint;	/* these two when they are first needed */
	Span		written;		/* with the references as written */
	bool		done;

	/* of the last signature */
	Span		key_name;		/* Guix: its host */
	SignatureStatus status;
	const PublicKey *key;		/* NULL unless valid */
} SignatureCheck;

extern void signature_check_begin(SignatureCheck *check, const char *cache,
								  const struct varlena *info);
extern bool signature_check_next(SignatureCheck *check);

/*-------------------------------------------------------------------------
 * Secret keys
 *-------------------------------------------------------------------------
 */

typedef struct SecretKey
{
	KeyKind		kind;
	char	   *name;			/* of its file */
	NixSecretKey nix;
	GuixSecretKey guix;
	MemoryContextCallback callback;
} SecretKey;

/*
 * The secret key of this name, or an error that says why there is none.  It
 * is wiped when the current memory context is reset or deleted, or before.
 */
extern SecretKey *secret_key_load(const char *name);
extern void secret_key_wipe(SecretKey *key);

/*
 * The narinfo with this key's signature, palloc'd; the very same pointer if
 * it has that; or NULL with the error filled in, if the key cannot sign it.
 */
extern struct varlena *secret_key_sign(const SecretKey *key,
									   struct varlena *info,
									   ParseError *error);

#endif							/* NARINFO_CACHE_KEY_H */
