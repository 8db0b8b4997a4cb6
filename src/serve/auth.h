/*-------------------------------------------------------------------------
 *
 * auth.h
 *	  Who may do what over HTTP.
 *
 *	  auth.c	the token of a request, and what it is worth
 *	  pace.c	addresses from which wrong ones come are made to wait
 *	  proof.c	tokens for those who prove a signing key
 *
 * A token comes as "Authorization: Bearer TOKEN", or as the password of
 * "Authorization: Basic", with any user name: that is what nix sends when
 * there is a netrc file, or user:password@ in the URL of the cache.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_AUTH_H
#define NARINFO_SERVE_AUTH_H

#include "postgres.h"

#include "cache/cache.h"
#include "cache/token.h"
#include "http/http.h"

typedef enum AuthRight
{
	AUTH_READ = TOKEN_READ,
	AUTH_PUSH = TOKEN_PUSH,
	AUTH_ADMIN = TOKEN_ADMIN	/* has the others, too */
} AuthRight;

typedef enum AuthResult
{
	AUTH_GRANTED,
	AUTH_REFUSED				/* the reply says why */
} AuthResult;

/*
 * Has the sender of a request this right in a cache?  Everybody may read a
 * public one; else it takes a token.  When it is refused the reply is filled
 * in: 401 without a token or with a wrong one, 403 with one that has not this
 * right, 429 when the address has to wait, 503 when the database cannot
 * answer.  In the routes of a request, for it may begin the batch's
 * transaction, and raise errors as other lookups do.
 */
extern AuthResult auth_request(HttpRequest *req, const CacheInfo *cache,
							   AuthRight right, HttpReply *reply);

/*
 * Has it shown a token with this right?  No reply is made, and a wrong token
 * is not counted: for what needs none, but goes otherwise for those who have.
 */
extern bool auth_may(HttpRequest *req, const CacheInfo *cache,
					 AuthRight right);

/* Settings, and shared memory; called once by serve_init(). */
extern void auth_init(void);

/* ---- within these files ---- */

/* A reply of 401; the text ends with a newline. */
extern void auth_reply_unauthorized(const CacheInfo *cache, const char *text,
									HttpReply *reply);

/* Has this address to wait?  Then the reply says how long. */
extern bool auth_reply_slowed(HttpRequest *req,
							  const uint8 hash[TOKEN_HASH_BYTES],
							  HttpReply *reply);

/* ---- pace.c ---- */

extern void pace_init(void);

/*
 * Seconds that this client has to wait before it is looked at what it shows;
 * 0: none.  "hash" is that of what it shows: what was right from the same
 * address before has not to wait.
 */
extern int	pace_wait(const char *address,
					  const uint8 hash[TOKEN_HASH_BYTES]);

/* What it showed was wrong, or right. */
extern void pace_failed(const char *address,
						const uint8 hash[TOKEN_HASH_BYTES]);
extern void pace_passed(const char *address,
						const uint8 hash[TOKEN_HASH_BYTES]);

/* ---- proof.c ---- */

extern void proof_init(void);

/* GET auth/challenge, and POST auth. */
extern void route_challenge(HttpRequest *req, const CacheInfo *cache,
							HttpReply *reply);
extern void route_auth(HttpRequest *req, const CacheInfo *cache,
					   HttpReply *reply);

/* Does it look like a token of POST auth? */
extern bool proof_is_token(Span token);

/*
 * The rights of such a token in a cache; 0 if it is not good, and then
 * "expired" tells whether it once was.
 */
extern uint32 proof_rights(const CacheInfo *cache, Span token,
						   bool *expired);

#endif							/* NARINFO_SERVE_AUTH_H */
