/*-------------------------------------------------------------------------
 *
 * narinfo.c
 *	  HASH.narinfo: what nearly every request asks for.
 *
 * From the path to the reply there is one lookup and one unpacking, straight
 * out of the table's page; nothing is allocated.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "utils/memutils.h"

#include "http/conditional.h"
#include "serve/route.h"
#include "types/types.h"

/* A larger text is no reason to keep so much memory for ever. */
#define TEXT_KEPT		(64 * 1024)

#define ETAG_LEN		18		/* quotes, and 64 bits in base 16 */

/* Room for a text, good until the next one is asked for. */
static char *
text_room(size_t len)
{
	static char *kept = NULL;

	if (len > TEXT_KEPT)
		return palloc(len);
	if (kept == NULL)
		kept = MemoryContextAlloc(TopMemoryContext, TEXT_KEPT);
	return kept;
}

const char *
narinfo_unpack(const struct varlena *info, size_t *len)
{
	const uint8 *packed = NARINFO_PACKED(info);
	size_t		packed_len = NARINFO_PACKED_LEN(info);

	if (packed_check(packed, packed_len))
	{
		char	   *text;

		*len = packed_text_len(packed);
		text = text_room(*len);
		if (packed_to_text(packed, packed_len, text))
			return text;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("narinfo is damaged")));
}

/* A strong tag: another text has another one.  Written as ETAG_LEN bytes. */
static void
make_etag(const char *text, size_t len, char *etag)
{
	static const char digits[] = "0123456789abcdef";
	uint64		hash = XXH3_64bits(text, len);

	etag[0] = '"';
	for (int i = 16; i > 0; i--)
	{
		etag[i] = digits[hash & 15];
		hash >>= 4;
	}
	etag[17] = '"';
}

/* Does the client have this text already? */
static bool
is_unchanged(HttpRequest *req, const char *etag, size_t len)
{
	HttpSelection selection;

	if (http_request_header(req, "If-None-Match").data == NULL)
		return false;
	http_select(req, etag, 0, (off_t) len, &selection);
	return selection.status == 304;
}

static void
reply_narinfo(HttpRequest *req, const struct varlena *info, HttpReply *reply)
{
	static char headers[sizeof("ETag: \r\n") + ETAG_LEN + SERVE_HEADER_MAX];
	char		etag[ETAG_LEN + 1];
	size_t		len;
	const char *text = narinfo_unpack(info, &len);

	make_etag(text, len, etag);
	etag[ETAG_LEN] = '\0';
	memcpy(headers, "ETag: ", 6);
	memcpy(headers + 6, etag, ETAG_LEN);
	memcpy(headers + 6 + ETAG_LEN, "\r\n", 2);
	strlcpy(headers + 8 + ETAG_LEN, serve_lasting, SERVE_HEADER_MAX);

	reply->headers = headers;
	if (is_unchanged(req, etag, len))
	{
		reply->status = 304;
		return;
	}
	reply->status = 200;
	reply->content_type = SERVE_NARINFO_TYPE;
	reply->body = text;
	reply->body_len = len;
}

void
route_narinfo(HttpRequest *req, const CacheInfo *cache, Span hash,
			  HttpReply *reply)
{
	uint8		bytes[STORE_HASH_LEN];
	struct varlena *info;

	/* What can be no path's hash is no path's */
	if (hash.len != STORE_HASH_TEXT_LEN ||
		!store_hash_decode(hash.data, bytes))
	{
		reply_absent(reply);
		return;
	}
	if (!use_by_pusher(req, cache, bytes, 1, reply))
		return;

	switch (shown_narinfo(req, cache, bytes, &info))
	{
		case SERVE_FOUND:
			reply_narinfo(req, info, reply);
			break;
		case SERVE_ABSENT:
			reply_absent(reply);
			break;
		case SERVE_UNAVAILABLE:
			reply_unavailable(reply);
			break;
		case SERVE_RESTORING:
			reply_restoring(reply);
			break;
	}
}
