/*-------------------------------------------------------------------------
 *
 * proof.c
 *	  Tokens for those who prove that they have a key which may push.
 *
 *	  GET auth/challenge		pg_narinfo-auth-1.CACHE.EXPIRES.NONCE.MAC
 *	  the client signs these bytes, as Nix signs: Ed25519
 *	  POST auth					Authorization: Signature CHALLENGE NAME:SIG
 *	  the reply is a token		narinfo_key.CACHE.EXPIRES.KEY.MAC
 *
 * EXPIRES is in seconds since 1970, NONCE and KEY (the public one) are 32
 * bytes in nix32.  MAC is made with a secret of this server, in shared memory
 * from its start to its end, so neither a challenge nor a token takes any
 * memory until it comes back, and both are good on this server alone.
 *
 * A challenge is good once: the nonces of those that were answered are kept
 * until these would have expired.  When there is no room for one more, which
 * takes PROOFS_MAX good answers within the life of a challenge, the next has
 * to wait; nobody without a key can bring that about.
 *
 * A token is good as long as the cache trusts the key and lets it push.  It
 * has the right to read, too: nobody can push with nix to a cache that does
 * not answer what it has already.
 *
 * What is signed begins with the name of its purpose, so no signature over a
 * challenge is one over a fingerprint, which begins with "1;".
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/seal.h"
#include "cache/key.h"
#include "serve/auth.h"
#include "serve/route.h"

#define CHALLENGE_KIND	"pg_narinfo-auth-1"
#define TOKEN_KIND		"narinfo_key"

#define DATA_BYTES		32		/* a nonce, or a public key */
#define SEALED_MAX		256		/* characters; the longest has 208 */
#define PROOFS_MAX		1024

#define SHARED_NAME		"pg_narinfo proof"

typedef struct Proof
{
	uint8		nonce[DATA_BYTES];
	pg_time_t	expires;		/* of its challenge; 0: the place is free */
} Proof;

typedef struct ProofShared
{
	uint8		key[SEAL_KEY_BYTES];	/* written once, at the start */
	Proof		proofs[PROOFS_MAX]; /* under the lock */
} ProofShared;

typedef enum SealedState
{
	SEALED_GOOD,
	SEALED_EXPIRED,
	SEALED_WRONG				/* not made here, or not for this */
} SealedState;

static ProofShared *shared = NULL;
static LWLock *lock = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static int	challenge_life = 60;	/* seconds */
static int	token_life = 3600;

/*-------------------------------------------------------------------------
 * Beginning
 *-------------------------------------------------------------------------
 */

static void
shared_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(ProofShared)));
	RequestNamedLWLockTranche(SHARED_NAME, 1);
}

static void
shared_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(SHARED_NAME, sizeof(ProofShared), &found);
	lock = &GetNamedLWLockTranche(SHARED_NAME)->lock;
	if (!found)
	{
		memset(shared, 0, sizeof(ProofShared));
		if (!pg_strong_random(shared->key, sizeof(shared->key)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bytes")));
	}
	LWLockRelease(AddinShmemInitLock);
}

void
proof_init(void)
{
	DefineCustomIntVariable("pg_narinfo.auth_challenge_life",
							"Time in which a challenge has to be answered.",
							NULL, &challenge_life, 60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.auth_token_life",
							"Time for which a token is good that was given "
							"for the proof of a key.",
							NULL, &token_life, 3600, 1, 30 * 24 * 3600,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

/*-------------------------------------------------------------------------
 * Sealed texts: KIND.CACHE.EXPIRES.DATA.MAC
 *-------------------------------------------------------------------------
 */

static pg_time_t
now_seconds(void)
{
	return timestamptz_to_time_t(GetCurrentTimestamp());
}

/* With a newline at the end, palloc'd. */
static char *
make_sealed(const char *kind, const char *cache, pg_time_t expires,
			const uint8 data[DATA_BYTES])
{
	char		digits[NIX32_LEN(DATA_BYTES) + 1] = {0};
	char	   *text = palloc(SEALED_MAX);
	int			len;

	nix32_encode(data, DATA_BYTES, digits);
	len = snprintf(text, SEALED_MAX, "%s.%s." INT64_FORMAT ".%s", kind, cache,
				   (int64) expires, digits);
	seal_text(shared->key, text, (size_t) len);
	memcpy(text + len + SEAL_LEN, "\n", 2);
	return text;
}

/* Cuts off what stands before the first '.', and that. */
static Span
next_part(Span *rest)
{
	const char *dot = rest->len > 0 ? memchr(rest->data, '.', rest->len) :
		NULL;
	Span		part = *rest;

	if (dot == NULL)
	{
		*rest = span_of(rest->data + rest->len, 0);
		return part;
	}
	part.len = (size_t) (dot - rest->data);
	*rest = span_skip(*rest, part.len + 1);
	return part;
}

/* What is behind the seal we have written ourselves, so it is well-formed. */
static SealedState
open_sealed(Span sealed, const char *kind, const char *cache,
			pg_time_t *expires, uint8 data[DATA_BYTES])
{
	Span		text;
	Span		number;

	if (sealed.len > SEALED_MAX || !seal_open(shared->key, sealed, &text) ||
		!span_is(next_part(&text), kind) ||
		!span_is(next_part(&text), cache))
		return SEALED_WRONG;
	number = next_part(&text);
	*expires = 0;
	for (size_t i = 0; i < number.len; i++)
		*expires = *expires * 10 + (number.data[i] - '0');
	if (text.len != NIX32_LEN(DATA_BYTES) ||
		!nix32_decode(text.data, data, DATA_BYTES))
		return SEALED_WRONG;
	return now_seconds() < *expires ? SEALED_GOOD : SEALED_EXPIRED;
}

/*-------------------------------------------------------------------------
 * Challenges
 *-------------------------------------------------------------------------
 */

static void
reply_secret(HttpReply *reply, const char *text)
{
	reply_text(reply, 200, text, SERVE_NO_STORE);
}

void
route_challenge(HttpRequest *req, const CacheInfo *cache, HttpReply *reply)
{
	uint8		nonce[DATA_BYTES];

	if (http_request_method(req) != HTTP_GET &&
		http_request_method(req) != HTTP_HEAD)
	{
		reply_text(reply, 405, "only GET and HEAD\n",
				   "Allow: GET, HEAD\r\n");
		return;
	}
	if (!pg_strong_random(nonce, sizeof(nonce)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
	reply_secret(reply, make_sealed(CHALLENGE_KIND, cache->name,
									now_seconds() + challenge_life, nonce));
}

typedef enum UseResult
{
	USE_FIRST,
	USE_AGAIN,
	USE_FULL
} UseResult;

/* Notes that a challenge was answered. */
static UseResult
use_challenge(const uint8 nonce[DATA_BYTES], pg_time_t expires)
{
	pg_time_t	now = now_seconds();
	Proof	   *room = NULL;
	UseResult	result = USE_FIRST;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < PROOFS_MAX && result == USE_FIRST; i++)
	{
		Proof	   *proof = &shared->proofs[i];

		if (proof->expires <= now)
			room = proof;
		else if (memcmp(proof->nonce, nonce, DATA_BYTES) == 0)
			result = USE_AGAIN;
	}
	if (result == USE_FIRST && room == NULL)
		result = USE_FULL;
	if (result == USE_FIRST)
	{
		memcpy(room->nonce, nonce, DATA_BYTES);
		room->expires = expires;
	}
	LWLockRelease(lock);
	return result;
}

/*-------------------------------------------------------------------------
 * Proofs
 *-------------------------------------------------------------------------
 */

typedef struct Answer
{
	Span		challenge;
	Span		key_name;
	uint8		sig[NIX_SIG_BYTES];
} Answer;

/* "Signature CHALLENGE NAME:BASE64" */
static bool
parse_answer(Span header, Answer *answer)
{
	static const char scheme[] = "Signature ";
	const char *blank;
	const char *colon;
	Span		rest;

	if (header.len < strlen(scheme) ||
		pg_strncasecmp(header.data, scheme, strlen(scheme)) != 0)
		return false;
	rest = span_skip(header, strlen(scheme));
	blank = rest.len > 0 ? memchr(rest.data, ' ', rest.len) : NULL;
	if (blank == NULL)
		return false;
	answer->challenge = span_of(rest.data, (size_t) (blank - rest.data));
	rest = span_skip(rest, answer->challenge.len + 1);
	colon = rest.len > 0 ? memchr(rest.data, ':', rest.len) : NULL;
	if (colon == NULL)
		return false;
	answer->key_name = span_of(rest.data, (size_t) (colon - rest.data));
	return base64_decode(span_skip(rest, answer->key_name.len + 1),
						 answer->sig, NIX_SIG_BYTES);
}

static void
reply_unproved(const CacheInfo *cache, int status, const char *text,
			   HttpReply *reply)
{
	reply_text(reply, status, text,
			   status != 401 ? SERVE_NO_STORE :
			   psprintf("WWW-Authenticate: Signature realm=\"%s\"\r\n"
						SERVE_NO_STORE, cache->name));
}

/* True if it is right; else the reply says what is wrong. */
static bool
check_answer(const CacheInfo *cache, const Answer *answer,
			 uint8 key[KEY_BYTES], HttpReply *reply)
{
	uint8		nonce[DATA_BYTES];
	pg_time_t	expires;

	switch (open_sealed(answer->challenge, CHALLENGE_KIND, cache->name,
						&expires, nonce))
	{
		case SEALED_GOOD:
			break;
		case SEALED_EXPIRED:
			reply_unproved(cache, 401, "the challenge has expired\n", reply);
			return false;
		case SEALED_WRONG:
			reply_unproved(cache, 401,
						   "the challenge is not one of this cache\n", reply);
			return false;
	}
	if (!key_check_proof(cache->name, answer->key_name, answer->sig,
						 answer->challenge, key))
	{
		reply_unproved(cache, 403,
					   "this is no signature by a key that may push here\n",
					   reply);
		return false;
	}
	switch (use_challenge(nonce, expires))
	{
		case USE_FIRST:
			return true;
		case USE_AGAIN:
			reply_unproved(cache, 401, "the challenge was answered before\n",
						   reply);
			return false;
		case USE_FULL:
			break;
	}
	reply_text(reply, 503, "too many challenges were answered lately\n",
			   "Retry-After: 1\r\n" SERVE_NO_STORE);
	return false;
}

void
route_auth(HttpRequest *req, const CacheInfo *cache, HttpReply *reply)
{
	Span		header = http_request_header(req, "Authorization");
	uint8		hash[TOKEN_HASH_BYTES];
	uint8		key[KEY_BYTES];
	Answer		answer;

	if (strcmp(http_request_method_name(req), "POST") != 0)
	{
		reply_text(reply, 405, "only POST\n", "Allow: POST\r\n");
		return;
	}
	if (header.data == NULL || !parse_answer(header, &answer))
	{
		reply_unproved(cache, 401,
					   "this takes Authorization: Signature CHALLENGE NAME:BASE64\n",
					   reply);
		return;
	}
	token_hash(header.data, header.len, hash);
	if (auth_reply_slowed(req, hash, reply))
		return;
	if (!batch_credentials())
	{
		reply_unavailable(reply);
		return;
	}
	if (check_answer(cache, &answer, key, reply))
		reply_secret(reply, make_sealed(TOKEN_KIND, cache->name,
										now_seconds() + token_life, key));
	else if (reply->status != 503)
		pace_failed(http_request_address(req), hash);
}

bool
proof_is_token(Span token)
{
	return span_starts(token, TOKEN_KIND ".");
}

uint32
proof_rights(const CacheInfo *cache, Span token, bool *expired)
{
	pg_time_t	expires;
	uint8		key[KEY_BYTES];
	SealedState state = open_sealed(token, TOKEN_KIND, cache->name, &expires,
									key);

	*expired = state == SEALED_EXPIRED;
	if (state != SEALED_GOOD || !key_may_push(cache->name, key))
		return 0;
	return TOKEN_READ | TOKEN_PUSH;
}
