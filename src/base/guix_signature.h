/*-------------------------------------------------------------------------
 *
 * guix_signature.h
 *	  Guix's signatures: deterministic ECDSA over the curve Ed25519, of the
 *	  SHA-256 of the bytes above the signature, as a canonical s-expression.
 *
 * The field is "Signature: 1;HOST;BASE64", and what the base 64 holds is
 *
 *	  (signature (data (flags rfc6979) (hash sha256 #...#))
 *				 (sig-val (ecdsa (r #...#) (s #...#)))
 *				 (public-key (ecc (curve Ed25519) (q #...#))))
 *
 * in any spelling that libgcrypt reads.  A key is a s-expression, too:
 * (public-key ...) as above, or (private-key (ecc (curve Ed25519) (q #...#)
 * (d #...#))).  Source: guix, guix/narinfo.scm, guix/pki.scm and
 * guix/scripts/archive.scm; guile-gcrypt, gcrypt/pk-crypto.scm.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_GUIX_SIGNATURE_H
#define NARINFO_BASE_GUIX_SIGNATURE_H

#include "base/narinfo.h"

#define GUIX_DIGEST_BYTES	32
#define GUIX_NUMBER_MAX		33		/* r, s, d: a zero may stand before 32 */
#define GUIX_Q_BYTES		32

/* Bytes to allocate before printing a key or the value of a signature. */
#define GUIX_KEY_MAX		512
#define GUIX_SIGNATURE_MAX(host_len) ((host_len) + 1024)

typedef struct GuixNumber
{
	uint8_t		len;
	uint8_t		bytes[GUIX_NUMBER_MAX];
} GuixNumber;

typedef struct GuixPublicKey
{
	uint8_t		q[GUIX_Q_BYTES];
} GuixPublicKey;

/* To be wiped by guix_secret_key_wipe(). */
typedef struct GuixSecretKey
{
	uint8_t		q[GUIX_Q_BYTES];
	GuixNumber	d;
} GuixSecretKey;

typedef struct GuixSignature
{
	uint8_t		digest[GUIX_DIGEST_BYTES];
	GuixNumber	r;
	GuixNumber	s;
	GuixPublicKey key;
} GuixSignature;

/*
 * Readies the library; before anything else here, as often as one likes.
 * False if it cannot be used.
 */
extern bool guix_signature_init(void);

/*
 * Only keys on the curve Ed25519, with nothing in them that guix does not
 * write.  No error tells what a secret key has.
 */
extern bool guix_public_key_parse(Span text, GuixPublicKey *key,
								  ParseError *error);
extern bool guix_secret_key_parse(Span text, GuixSecretKey *key,
								  ParseError *error);

/*
 * On one line without a newline; or as guix writes it into its files, with
 * newlines.  Both return the number of characters, less than GUIX_KEY_MAX.
 */
extern size_t guix_public_key_print(const GuixPublicKey *key, char *text);
extern size_t guix_public_key_print_file(const GuixPublicKey *key,
										 char *text);
extern size_t guix_secret_key_print_file(const GuixSecretKey *key,
										 char *text);

extern bool guix_key_generate(GuixSecretKey *key);
extern void guix_key_public(const GuixSecretKey *secret, GuixPublicKey *key);
extern void guix_secret_key_wipe(GuixSecretKey *key);

/* The host of a Signature's value, which the narinfo parser has accepted. */
extern Span guix_signature_host(Span value);

/*
 * What else is in it.  False if that is no signature of the form above, by a
 * key that guix_public_key_parse() would accept.
 */
extern bool guix_signature_parse(Span value, GuixSignature *signature);

/* The signature's own digest is compared with this one, too. */
extern bool guix_signature_verify(const GuixPublicKey *key,
								  const GuixSignature *signature,
								  const uint8_t digest[GUIX_DIGEST_BYTES]);

/*
 * The part of a parsed text that guix takes for signed: all above the first
 * "Signature:", wherever that stands; the whole text if there is none.  False
 * if guix calls it unsigned, since StorePath, NarHash or References is not in
 * that part.
 */
extern bool guix_signed_part(Span text, Span *part);
extern void guix_digest(Span part, uint8_t digest[GUIX_DIGEST_BYTES]);

/*
 * Where in a parsed text the Signature line goes: the line it takes the place
 * of, its newline included, or nothing at the end.  False if "Signature:"
 * stands inside of another line, so that none of ours would count.
 */
extern bool guix_signature_place(Span text, Span *old);

/*
 * Prints the value of a Signature line and returns its length, less than
 * GUIX_SIGNATURE_MAX(); 0 if the library fails.
 */
extern size_t guix_sign(const GuixSecretKey *key, Span host,
						const uint8_t digest[GUIX_DIGEST_BYTES],
						char *value);

#endif							/* NARINFO_BASE_GUIX_SIGNATURE_H */
