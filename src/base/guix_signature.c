/*-------------------------------------------------------------------------
 *
 * guix_signature.c
 *	  Guix's signatures: deterministic ECDSA over the curve Ed25519, by
 *	  libgcrypt.
 *
 * What a signature or a key has is taken out of its s-expression, and what
 * libgcrypt works on is put together anew from that: an expression with more
 * in it than it shows at first sight is told from a plain one, or has no
 * effect.
 *
 * libgcrypt wipes the numbers it works with, but not the s-expressions that
 * they were taken from, unless they lie in its locked memory, which is not for
 * a server with hundreds of processes.  So it gets a free() that wipes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <gcrypt.h>
#include <malloc.h>
#include <sodium.h>
#include <stdlib.h>

#include "base/guix_signature.h"

#define CURVE "Ed25519"

/* The longest s-expression that is looked at; an RSA key of 4096 bits fits. */
#define SEXP_TEXT_MAX 8192

static void
wiping_free(void *memory)
{
	if (memory != NULL)
		sodium_memzero(memory, malloc_usable_size(memory));
	free(memory);
}

static void *
wiping_realloc(void *memory, size_t size)
{
	size_t		old = memory ? malloc_usable_size(memory) : 0;
	void	   *moved;

	if (old >= size && old > 0)
		return memory;
	moved = malloc(size);
	if (moved == NULL)
		return NULL;
	if (memory != NULL)
		memcpy(moved, memory, old);
	wiping_free(memory);
	return moved;
}

static int
is_secure(const void *memory)
{
	(void) memory;
	return 0;
}

bool
guix_signature_init(void)
{
	if (sodium_init() < 0)
		return false;
	/* by us, or by whoever else is in this process */
	if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
		return true;
	gcry_set_allocation_handler(malloc, malloc, is_secure, wiping_realloc,
								wiping_free);
	if (gcry_check_version(GCRYPT_VERSION) == NULL)
		return false;
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	return true;
}

/*-------------------------------------------------------------------------
 * S-expressions
 *-------------------------------------------------------------------------
 */

/* NULL if this is no s-expression. */
static gcry_sexp_t
sexp_read(Span text)
{
	gcry_sexp_t sexp;

	if (text.len == 0 || text.len > SEXP_TEXT_MAX ||
		gcry_sexp_new(&sexp, text.data, text.len, 1) != 0)
		return NULL;
	return sexp;
}

/* The bytes behind a list's name, "(NAME BYTES)"; absent: data NULL. */
static Span
sexp_value(gcry_sexp_t list)
{
	size_t		len = 0;
	const char *data = list ? gcry_sexp_nth_data(list, 1, &len) : NULL;

	return span_of(data, len);
}

/* Copies exactly n bytes of the first list of this name. */
static bool
get_bytes(gcry_sexp_t sexp, const char *name, uint8_t *bytes, size_t n)
{
	gcry_sexp_t list = gcry_sexp_find_token(sexp, name, 0);
	Span		value = sexp_value(list);
	bool		good = value.data != NULL && value.len == n;

	if (good)
		memcpy(bytes, value.data, n);
	gcry_sexp_release(list);
	return good;
}

static bool
get_number(gcry_sexp_t sexp, const char *name, GuixNumber *number)
{
	gcry_sexp_t list = gcry_sexp_find_token(sexp, name, 0);
	Span		value = sexp_value(list);
	bool		good = value.data != NULL && value.len > 0 &&
		value.len <= GUIX_NUMBER_MAX;

	if (good)
	{
		number->len = (uint8_t) value.len;
		memcpy(number->bytes, value.data, value.len);
	}
	gcry_sexp_release(list);
	return good;
}

/* Are both the same, whatever their spelling was? */
static bool
sexp_equal(gcry_sexp_t a, gcry_sexp_t b)
{
	char		text_a[GUIX_KEY_MAX];
	char		text_b[GUIX_KEY_MAX];
	size_t		len_a = gcry_sexp_sprint(a, GCRYSEXP_FMT_CANON, text_a,
										 sizeof(text_a));
	size_t		len_b = gcry_sexp_sprint(b, GCRYSEXP_FMT_CANON, text_b,
										 sizeof(text_b));
	bool		equal = len_a > 0 &&
		span_equal(span_of(text_a, len_a), span_of(text_b, len_b));

	sodium_memzero(text_a, sizeof(text_a));
	sodium_memzero(text_b, sizeof(text_b));
	return equal;
}

/* NULL if memory ran out. */
static gcry_sexp_t
public_sexp(const uint8_t q[GUIX_Q_BYTES])
{
	gcry_sexp_t sexp;

	if (gcry_sexp_build(&sexp, NULL,
						"(public-key (ecc (curve " CURVE ") (q %b)))",
						GUIX_Q_BYTES, q) != 0)
		return NULL;
	return sexp;
}

static gcry_sexp_t
secret_sexp(const GuixSecretKey *key)
{
	gcry_sexp_t sexp;

	if (gcry_sexp_build(&sexp, NULL,
						"(private-key (ecc (curve " CURVE ") (q %b) (d %b)))",
						GUIX_Q_BYTES, key->q, (int) key->d.len,
						key->d.bytes) != 0)
		return NULL;
	return sexp;
}

static gcry_sexp_t
data_sexp(const uint8_t digest[GUIX_DIGEST_BYTES])
{
	gcry_sexp_t sexp;

	if (gcry_sexp_build(&sexp, NULL,
						"(data (flags rfc6979) (hash sha256 %b))",
						GUIX_DIGEST_BYTES, digest) != 0)
		return NULL;
	return sexp;
}

/*-------------------------------------------------------------------------
 * Keys
 *-------------------------------------------------------------------------
 */

/* A public-key list with these parts and no others. */
static bool
read_public(gcry_sexp_t list, GuixPublicKey *key)
{
	gcry_sexp_t plain;
	bool		good;

	if (!get_bytes(list, "q", key->q, GUIX_Q_BYTES))
		return false;
	plain = public_sexp(key->q);
	good = plain != NULL && sexp_equal(list, plain);
	gcry_sexp_release(plain);
	return good;
}

bool
guix_public_key_parse(Span text, GuixPublicKey *key, ParseError *error)
{
	gcry_sexp_t sexp = sexp_read(text);
	bool		good;

	if (sexp == NULL)
		return parse_error(error, "key is no s-expression");
	good = read_public(sexp, key);
	gcry_sexp_release(sexp);
	return good ||
		parse_error(error,
					"key is not (public-key (ecc (curve Ed25519) (q #...#))) with %d bytes",
					GUIX_Q_BYTES);
}

static bool
read_secret(gcry_sexp_t sexp, GuixSecretKey *key)
{
	gcry_sexp_t plain;
	bool		good;

	if (!get_bytes(sexp, "q", key->q, GUIX_Q_BYTES) ||
		!get_number(sexp, "d", &key->d))
		return false;
	plain = secret_sexp(key);
	good = plain != NULL && sexp_equal(sexp, plain);
	gcry_sexp_release(plain);
	return good;
}

/* Does what the secret half signs verify with the public one? */
static bool
halves_match(const GuixSecretKey *key)
{
	static const uint8_t digest[GUIX_DIGEST_BYTES] = {1};
	gcry_sexp_t secret = secret_sexp(key);
	gcry_sexp_t public = public_sexp(key->q);
	gcry_sexp_t data = data_sexp(digest);
	gcry_sexp_t sig = NULL;
	bool		good = secret && public && data &&
		gcry_pk_sign(&sig, data, secret) == 0 &&
		gcry_pk_verify(sig, data, public) == 0;

	gcry_sexp_release(sig);
	gcry_sexp_release(data);
	gcry_sexp_release(public);
	gcry_sexp_release(secret);
	return good;
}

bool
guix_secret_key_parse(Span text, GuixSecretKey *key, ParseError *error)
{
	gcry_sexp_t sexp = sexp_read(text);
	bool		good = false;

	if (sexp == NULL)
		parse_error(error, "key is no s-expression");
	else if (!read_secret(sexp, key))
		parse_error(error,
					"key is not (private-key (ecc (curve Ed25519) (q #...#) (d #...#)))");
	else if (!halves_match(key))
		parse_error(error,
					"secret and public half do not belong together");
	else
		good = true;
	gcry_sexp_release(sexp);
	if (!good)
		guix_secret_key_wipe(key);
	return good;
}

static size_t
print_hex(const uint8_t *bytes, size_t n, char *text)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < n; i++)
	{
		*text++ = digits[bytes[i] >> 4];
		*text++ = digits[bytes[i] & 0x0F];
	}
	return 2 * n;
}

static size_t
print_string(const char *string, char *text)
{
	size_t		len = strlen(string);

	memcpy(text, string, len);
	return len;
}

size_t
guix_public_key_print(const GuixPublicKey *key, char *text)
{
	char	   *next = text;

	next += print_string("(public-key (ecc (curve " CURVE ") (q #", next);
	next += print_hex(key->q, GUIX_Q_BYTES, next);
	next += print_string("#)))", next);
	return (size_t) (next - text);
}

/* In the spelling of guix's files, which is libgcrypt's; releases the list. */
static size_t
print_and_release(gcry_sexp_t sexp, char *text, size_t size)
{
	size_t		len;

	if (sexp == NULL)
		return 0;
	len = gcry_sexp_sprint(sexp, GCRYSEXP_FMT_ADVANCED, text, size);
	gcry_sexp_release(sexp);
	return len;
}

size_t
guix_public_key_print_file(const GuixPublicKey *key, char *text)
{
	return print_and_release(public_sexp(key->q), text, GUIX_KEY_MAX);
}

size_t
guix_secret_key_print_file(const GuixSecretKey *key, char *text)
{
	return print_and_release(secret_sexp(key), text, GUIX_KEY_MAX);
}

bool
guix_key_generate(GuixSecretKey *key)
{
	static const char parameter_text[] =
	"(genkey (ecdsa (curve " CURVE ") (flags rfc6979)))";
	gcry_sexp_t parameters = NULL;
	gcry_sexp_t pair = NULL;
	bool		good = gcry_sexp_new(&parameters, parameter_text, 0, 1) == 0 &&
		gcry_pk_genkey(&pair, parameters) == 0 &&
		get_bytes(pair, "q", key->q, GUIX_Q_BYTES) &&
		get_number(pair, "d", &key->d);

	gcry_sexp_release(parameters);
	gcry_sexp_release(pair);
	if (!good)
		guix_secret_key_wipe(key);
	return good;
}

void
guix_key_public(const GuixSecretKey *secret, GuixPublicKey *key)
{
	memcpy(key->q, secret->q, GUIX_Q_BYTES);
}

void
guix_secret_key_wipe(GuixSecretKey *key)
{
	sodium_memzero(key, sizeof(GuixSecretKey));
}

/*-------------------------------------------------------------------------
 * Signatures
 *-------------------------------------------------------------------------
 */

Span
guix_signature_host(Span value)
{
	Span		rest = span_skip(value, 2);
	const char *end = memchr(rest.data, ';', rest.len);

	return span_of(rest.data, (size_t) (end - rest.data));
}

/* (hash sha256 #...#) of the data list. */
static bool
get_digest(gcry_sexp_t sexp, uint8_t digest[GUIX_DIGEST_BYTES])
{
	gcry_sexp_t data = gcry_sexp_find_token(sexp, "data", 0);
	gcry_sexp_t hash = data ? gcry_sexp_find_token(data, "hash", 0) : NULL;
	Span		algo = sexp_value(hash);
	size_t		len = 0;
	const char *bytes = hash ? gcry_sexp_nth_data(hash, 2, &len) : NULL;
	bool		good = algo.data && span_is(algo, "sha256") &&
		bytes != NULL && len == GUIX_DIGEST_BYTES;

	if (good)
		memcpy(digest, bytes, len);
	gcry_sexp_release(hash);
	gcry_sexp_release(data);
	return good;
}

static bool
read_signature(gcry_sexp_t sexp, GuixSignature *signature)
{
	gcry_sexp_t public = gcry_sexp_find_token(sexp, "public-key", 0);
	gcry_sexp_t value = gcry_sexp_find_token(sexp, "sig-val", 0);
	bool		good = public && value &&
		read_public(public, &signature->key) &&
		get_number(value, "r", &signature->r) &&
		get_number(value, "s", &signature->s) &&
		get_digest(sexp, signature->digest);

	gcry_sexp_release(value);
	gcry_sexp_release(public);
	return good;
}

bool
guix_signature_parse(Span value, GuixSignature *signature)
{
	uint8_t		text[SEXP_TEXT_MAX];
	Span		host = guix_signature_host(value);
	Span		base64 = span_of(host.data + host.len + 1,
								 (size_t) (value.data + value.len -
										   (host.data + host.len + 1)));
	gcry_sexp_t sexp;
	long		len;
	bool		good;

	if (base64.len > BASE64_LEN(SEXP_TEXT_MAX))
		return false;
	len = base64_decode_any(base64, text);
	if (len <= 0)
		return false;
	sexp = sexp_read(span_of((const char *) text, (size_t) len));
	if (sexp == NULL)
		return false;
	good = read_signature(sexp, signature);
	gcry_sexp_release(sexp);
	return good;
}

bool
guix_signature_verify(const GuixPublicKey *key,
					  const GuixSignature *signature,
					  const uint8_t digest[GUIX_DIGEST_BYTES])
{
	const GuixNumber *r = &signature->r;
	const GuixNumber *s = &signature->s;
	gcry_sexp_t public;
	gcry_sexp_t data;
	gcry_sexp_t value = NULL;
	bool		good;

	if (memcmp(signature->digest, digest, GUIX_DIGEST_BYTES) != 0 ||
		memcmp(signature->key.q, key->q, GUIX_Q_BYTES) != 0)
		return false;
	public = public_sexp(key->q);
	data = data_sexp(digest);
	good = public && data &&
		gcry_sexp_build(&value, NULL, "(sig-val (ecdsa (r %b) (s %b)))",
						(int) r->len, r->bytes, (int) s->len,
						s->bytes) == 0 &&
		gcry_pk_verify(value, data, public) == 0;
	gcry_sexp_release(value);
	gcry_sexp_release(data);
	gcry_sexp_release(public);
	return good;
}

/* guix stumbles over a last line, cut off, that is no field. */
static bool
whole_lines(Span part)
{
	const char *newline = part.len > 0 ?
		memrchr(part.data, '\n', part.len) : NULL;
	Span		last = newline == NULL ? part :
		span_skip(part, (size_t) (newline - part.data) + 1);

	return last.len == 0 || memchr(last.data, ':', last.len) != NULL;
}

bool
guix_signed_part(Span text, Span *part)
{
	static const char *const mandatory[] = {
		"StorePath", "NarHash", "References"
	};
	const char *found = memmem(text.data, text.len, "Signature:", 10);
	Span		rest;
	Span		name;
	Span		value;
	unsigned	seen = 0;

	*part = found == NULL ? text :
		span_of(text.data, (size_t) (found - text.data));
	rest = *part;
	while (narinfo_next_field(&rest, &name, &value))
	{
		for (unsigned i = 0; i < 3; i++)
			seen |= span_is(name, mandatory[i]) ? 1U << i : 0;
	}
	return seen == 7 && whole_lines(*part);
}

void
guix_digest(Span part, uint8_t digest[GUIX_DIGEST_BYTES])
{
	gcry_md_hash_buffer(GCRY_MD_SHA256, digest, part.data, part.len);
}

bool
guix_signature_place(Span text, Span *old)
{
	const char *found = memmem(text.data, text.len, "Signature:", 10);
	const char *newline;

	*old = span_skip(text, text.len);
	if (found == NULL)
		return true;
	if (found != text.data && found[-1] != '\n')
		return false;
	*old = span_skip(text, (size_t) (found - text.data));
	newline = memchr(old->data, '\n', old->len);
	old->len = (size_t) (newline - old->data) + 1;
	return true;
}

/* The whole expression, in the spelling of libgcrypt. */
static size_t
print_signature(const GuixSecretKey *key,
				const uint8_t digest[GUIX_DIGEST_BYTES], char *text,
				size_t size)
{
	gcry_sexp_t secret = secret_sexp(key);
	gcry_sexp_t public = public_sexp(key->q);
	gcry_sexp_t data = data_sexp(digest);
	gcry_sexp_t value = NULL;
	gcry_sexp_t all = NULL;
	bool		good = secret && public && data &&
		gcry_pk_sign(&value, data, secret) == 0 &&
		gcry_sexp_build(&all, NULL, "(signature %S %S %S)", data, value,
						public) == 0;
	size_t		len = good ? print_and_release(all, text, size) : 0;

	gcry_sexp_release(value);
	gcry_sexp_release(data);
	gcry_sexp_release(public);
	gcry_sexp_release(secret);
	return len;
}

size_t
guix_sign(const GuixSecretKey *key, Span host,
		  const uint8_t digest[GUIX_DIGEST_BYTES], char *value)
{
	char		text[GUIX_KEY_MAX];
	size_t		len = print_signature(key, digest, text, sizeof(text));
	char	   *next = value;

	if (len == 0)
		return 0;
	*next++ = '1';
	*next++ = ';';
	memcpy(next, host.data, host.len);
	next += host.len;
	*next++ = ';';
	base64_encode((const uint8_t *) text, len, next);
	return (size_t) (next - value) + BASE64_LEN(len);
}
