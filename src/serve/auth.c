/*-------------------------------------------------------------------------
 *
 * auth.c
 *	  The token of a request, and what it is worth; see auth.h.
 *
 *	  Authorization -> token -> its SHA-256
 *		  |						  |
 *		  |						does the address have to wait?		429
 *		  none: 401				  |
 *							the cache's tokens, or a proof of a key
 *								  |
 *							unknown or expired: 401, and it is counted
 *								  |
 *							without the right: 403
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "utils/timestamp.h"

#include "base/nix32.h"
#include "serve/auth.h"
#include "serve/route.h"

/* More than any token, and any user name that comes with one. */
#define CREDENTIALS_MAX 1024

void
auth_init(void)
{
	pace_init();
	proof_init();
}

/*-------------------------------------------------------------------------
 * Replies
 *-------------------------------------------------------------------------
 */

/* Basic is what a netrc file answers; Bearer waits for no question. */
void
auth_reply_unauthorized(const CacheInfo *cache, const char *text,
						HttpReply *reply)
{
	reply_text(reply, 401, text,
			   psprintf("WWW-Authenticate: Basic realm=\"%s\"\r\n"
						SERVE_NO_STORE, cache->name));
}

bool
auth_reply_slowed(HttpRequest *req, const uint8 hash[TOKEN_HASH_BYTES],
				  HttpReply *reply)
{
	int			seconds = pace_wait(http_request_address(req), hash);

	if (seconds == 0)
		return false;
	reply_text(reply, 429, "too many wrong tokens came from your address\n",
			   psprintf("Retry-After: %d\r\n" SERVE_NO_STORE, seconds));
	return true;
}

static void
reply_forbidden(const CacheInfo *cache, AuthRight right, HttpReply *reply)
{
	const char *what = right == AUTH_READ ? "read" :
		right == AUTH_PUSH ? "push to" : "administer";

	reply_text(reply, 403,
			   psprintf("the token has no right to %s cache %s\n", what,
						cache->name), SERVE_NO_STORE);
}

/*-------------------------------------------------------------------------
 * The token
 *-------------------------------------------------------------------------
 */

/* What stands behind the name of a scheme, in which case does not matter. */
static bool
is_scheme(Span header, const char *scheme, Span *rest)
{
	size_t		len = strlen(scheme);

	if (header.len <= len || header.data[len] != ' ' ||
		pg_strncasecmp(header.data, scheme, len) != 0)
		return false;
	*rest = span_skip(header, len);
	while (rest->len > 0 && rest->data[0] == ' ')
		*rest = span_skip(*rest, 1);
	return true;
}

/*
 * False if there is none.  What cannot be one is taken as a wrong one: the
 * empty text.
 */
static bool
find_token(HttpRequest *req, char room[CREDENTIALS_MAX], Span *token)
{
	Span		header = http_request_header(req, "Authorization");
	Span		rest;
	long		len = -1;
	const char *colon;

	if (header.data == NULL)
		return false;
	if (is_scheme(header, "Bearer", token))
		return true;
	if (!is_scheme(header, "Basic", &rest))
		return false;
	*token = span_of(room, 0);
	if (rest.len <= CREDENTIALS_MAX)
		len = base64_decode_any(rest, (uint8 *) room);
	colon = len > 0 ? memchr(room, ':', (size_t) len) : NULL;
	if (colon != NULL)
		*token = span_of(colon + 1, (size_t) (room + len - (colon + 1)));
	return true;
}

/* 0 if it is not good; "expired" tells whether it once was. */
static uint32
find_rights(const CacheInfo *cache, Span token,
			const uint8 hash[TOKEN_HASH_BYTES], bool *expired)
{
	uint32		rights;
	TimestampTz expires;

	*expired = false;
	if (proof_is_token(token))
		return proof_rights(cache, token, expired);
	if (!token_find(cache->name, hash, &rights, &expires))
		return 0;
	*expired = GetCurrentTimestamp() >= expires;
	return *expired ? 0 : rights;
}

static AuthResult
check_token(HttpRequest *req, const CacheInfo *cache, Span token,
			AuthRight right, HttpReply *reply)
{
	const char *address = http_request_address(req);
	uint8		hash[TOKEN_HASH_BYTES];
	uint32		rights;
	bool		expired;

	token_hash(token.data, token.len, hash);
	if (auth_reply_slowed(req, hash, reply))
		return AUTH_REFUSED;
	if (!batch_credentials())
	{
		reply_unavailable(reply);
		return AUTH_REFUSED;
	}
	rights = find_rights(cache, token, hash, &expired);
	if (rights == 0)
	{
		pace_failed(address, hash);
		auth_reply_unauthorized(cache, expired ? "the token has expired\n" :
								"the token is not one of this cache\n",
								reply);
		return AUTH_REFUSED;
	}
	pace_passed(address, hash);
	if (rights & (right | AUTH_ADMIN))
		return AUTH_GRANTED;
	reply_forbidden(cache, right, reply);
	return AUTH_REFUSED;
}

AuthResult
auth_request(HttpRequest *req, const CacheInfo *cache, AuthRight right,
			 HttpReply *reply)
{
	char		room[CREDENTIALS_MAX];
	Span		token;
	AuthResult	result;

	if (right == AUTH_READ && !cache->is_private)
		return AUTH_GRANTED;
	if (!find_token(req, room, &token))
	{
		auth_reply_unauthorized(cache,
								right == AUTH_READ ?
								"this cache is private\n" :
								"this takes a token\n", reply);
		return AUTH_REFUSED;
	}
	result = check_token(req, cache, token, right, reply);
	sodium_memzero(room, sizeof(room));
	return result;
}

bool
auth_may(HttpRequest *req, const CacheInfo *cache, AuthRight right)
{
	char		room[CREDENTIALS_MAX];
	Span		token;
	uint8		hash[TOKEN_HASH_BYTES];
	uint32		rights = 0;
	bool		expired;

	if (!find_token(req, room, &token))
		return false;
	token_hash(token.data, token.len, hash);
	if (pace_wait(http_request_address(req), hash) == 0 &&
		batch_credentials())
		rights = find_rights(cache, token, hash, &expired);
	sodium_memzero(room, sizeof(room));
	return (rights & (right | AUTH_ADMIN)) != 0;
}
