/*-------------------------------------------------------------------------
 *
 * bulk.c
 *	  Many paths by one request.
 *
 *		POST /narinfos			hash parts, one a line: the narinfos of those
 *								that are valid, in this order
 *		POST /missing			the same: those that are not valid, one a line
 *		GET /HASH.closure		the narinfos of all that a path needs, itself
 *								first, each followed by what it refers to and
 *								was not there before (breadth first)
 *
 * Narinfos are separated by an empty line, which none has within.
 *
 * All three count as use of the paths: see use.c.
 *
 * A reply holds up the worker for as long as it takes to look up each path,
 * some microseconds, and stays in memory until the client has read it: hence
 * pg_narinfo.max_bulk_paths and max_bulk_reply.  What is beyond them is
 * refused as a whole, for half a closure is of no use to anybody.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "cache/hashset.h"
#include "serve/route.h"
#include "types/types.h"

#define LINE_LEN		(STORE_HASH_TEXT_LEN + 1)

static int	max_bulk_paths = 4000;
static int	max_bulk_reply = 16 * 1024;

void
bulk_init(void)
{
	DefineCustomIntVariable("pg_narinfo.max_bulk_paths",
							"Paths of one POST /narinfos, POST /missing or "
							"GET /HASH.closure.",
							"Further ones are answered with 413.",
							&max_bulk_paths, 4000, 1, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_bulk_reply",
							"Size of the reply to one of these.",
							"A larger one is 413 instead.",
							&max_bulk_reply, 16 * 1024, 64, 512 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
}

/*-------------------------------------------------------------------------
 * Lists of hashes
 *-------------------------------------------------------------------------
 */

typedef struct HashList
{
	HashKey    *hashes;
	int			n;
	int			size;
} HashList;

static void
list_add(HashList *list, const uint8 *hash)
{
	if (list->n == list->size)
	{
		list->size = Max(64, list->size * 2);
		list->hashes = list->hashes == NULL ?
			palloc(sizeof(HashKey) * list->size) :
			repalloc(list->hashes, sizeof(HashKey) * list->size);
	}
	memcpy(list->hashes[list->n++].bytes, hash, STORE_HASH_LEN);
}

static const uint8 *
list_bytes(const HashList *list)
{
	return list->n == 0 ? NULL : list->hashes[0].bytes;
}

/* False with a 400 that names the line. */
static bool
parse_lines(Span body, HashList *list, HttpReply *reply)
{
	while (body.len > 0)
	{
		const char *end = memchr(body.data, '\n', body.len);
		size_t		len = end ? (size_t) (end - body.data) : body.len;
		uint8		hash[STORE_HASH_LEN];

		if (len != STORE_HASH_TEXT_LEN ||
			!store_hash_decode(body.data, hash))
		{
			reply_text(reply, 400,
					   psprintf("line %d is not the hash part of a store "
								"path\n", list->n + 1), SERVE_NO_STORE);
			return false;
		}
		list_add(list, hash);
		body = span_skip(body, end ? len + 1 : len);
	}
	return true;
}

/*-------------------------------------------------------------------------
 * Replies
 *-------------------------------------------------------------------------
 */

static void
reply_too_many(HttpReply *reply)
{
	reply_text(reply, 413, psprintf("more than %d paths\n", max_bulk_paths),
			   SERVE_NO_STORE);
}

static void
reply_list(HttpReply *reply, const char *content_type, StringInfo text,
		   const char *headers)
{
	reply->status = 200;
	reply->content_type = content_type;
	reply->headers = headers;
	reply->body = text->data;
	reply->body_len = (size_t) text->len;
}

/* False when the reply is too large now, and a 413. */
static bool
add_narinfo(StringInfo text, const struct varlena *info, HttpReply *reply)
{
	size_t		len;
	const char *narinfo = narinfo_unpack(info, &len);

	if (text->len + len + 1 > (size_t) max_bulk_reply * 1024)
	{
		reply_text(reply, 413,
				   psprintf("the reply would have more than %d kB: ask for "
							"less\n", max_bulk_reply), SERVE_NO_STORE);
		return false;
	}
	if (text->len > 0)
		appendStringInfoChar(text, '\n');
	appendBinaryStringInfo(text, narinfo, (int) len);
	return true;
}

/*-------------------------------------------------------------------------
 * Lists that a client sends
 *-------------------------------------------------------------------------
 */

/* False when the reply is made already, or has to wait for the body. */
static bool
receive_hashes(HttpRequest *req, HashList *list, HttpReply *reply)
{
	size_t		max = (size_t) max_bulk_paths * LINE_LEN;
	Span		body;

	if (!route_body(req, max, &body, reply))
	{
		if (reply->status == 413)
			reply_too_many(reply);
		return false;
	}
	return parse_lines(body, list, reply);
}

void
route_narinfos(HttpRequest *req, const CacheInfo *cache, HttpReply *reply)
{
	HashList	wanted = {0};
	StringInfoData text;
	struct varlena *info;

	if (!receive_hashes(req, &wanted, reply) ||
		!use_paths(req, cache, list_bytes(&wanted), wanted.n, reply))
		return;
	initStringInfo(&text);
	for (int i = 0; i < wanted.n; i++)
	{
		ServeResult result = shown_narinfo(req, cache, wanted.hashes[i].bytes,
										   &info);

		CHECK_FOR_INTERRUPTS();
		if (result == SERVE_UNAVAILABLE)
		{
			reply_unavailable(reply);
			return;
		}
		if (result == SERVE_FOUND && !add_narinfo(&text, info, reply))
			return;
	}
	reply_list(reply, SERVE_NARINFO_TYPE, &text, SERVE_NO_STORE);
}

void
route_missing(HttpRequest *req, const CacheInfo *cache, HttpReply *reply)
{
	HashList	wanted = {0};
	StringInfoData text;
	struct varlena *info;

	if (!receive_hashes(req, &wanted, reply) ||
		!use_paths(req, cache, list_bytes(&wanted), wanted.n, reply))
		return;
	initStringInfo(&text);
	for (int i = 0; i < wanted.n; i++)
	{
		ServeResult result = shown_narinfo(req, cache, wanted.hashes[i].bytes,
										   &info);
		char		line[LINE_LEN];

		CHECK_FOR_INTERRUPTS();
		if (result == SERVE_UNAVAILABLE)
		{
			reply_unavailable(reply);
			return;
		}
		if (result == SERVE_FOUND)
			continue;
		store_hash_encode(wanted.hashes[i].bytes, line);
		line[STORE_HASH_TEXT_LEN] = '\n';
		appendBinaryStringInfo(&text, line, LINE_LEN);
	}
	reply_list(reply, "text/plain; charset=utf-8", &text, SERVE_NO_STORE);
}

/*-------------------------------------------------------------------------
 * Closures
 *-------------------------------------------------------------------------
 */

/* Adds what is not there yet of the references of a path. */
static void
add_references(HashList *closure, hashset_hash * seen,
			   const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);

	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		const uint8 *hash = packed_ref(packed, i);

		if (closure->n > max_bulk_paths)
			return;
		if (has_hash(seen, hash))
			continue;
		add_hash(seen, hash);
		list_add(closure, hash);
	}
}

/*
 * A reference that is not valid, which only a cache that does not require
 * closures has, is left out; a client sees it among the References.
 */
void
route_closure(HttpRequest *req, const CacheInfo *cache, Span hash,
			  HttpReply *reply)
{
	uint8		root[STORE_HASH_LEN];
	HashList	closure = {0};
	hashset_hash *seen = hashset_create(CurrentMemoryContext, 64, NULL);
	StringInfoData text;
	struct varlena *info;

	if (hash.len != STORE_HASH_TEXT_LEN ||
		!store_hash_decode(hash.data, root))
	{
		reply_absent(reply);
		return;
	}
	add_hash(seen, root);
	list_add(&closure, root);
	initStringInfo(&text);
	for (int i = 0; i < closure.n; i++)
	{
		ServeResult result = shown_narinfo(req, cache,
										   closure.hashes[i].bytes, &info);

		CHECK_FOR_INTERRUPTS();
		if (result == SERVE_UNAVAILABLE)
		{
			reply_unavailable(reply);
			return;
		}
		if (result == SERVE_ABSENT && i == 0)
		{
			reply_absent(reply);
			return;
		}
		if (result == SERVE_ABSENT)
			continue;
		if (!add_narinfo(&text, info, reply))
			return;
		add_references(&closure, seen, info);
		if (closure.n > max_bulk_paths)
		{
			reply_too_many(reply);
			return;
		}
	}
	if (use_paths(req, cache, list_bytes(&closure), closure.n, reply))
		reply_list(reply, SERVE_NARINFO_TYPE, &text, serve_lasting);
}
