/*-------------------------------------------------------------------------
 *
 * route.h
 *	  What the files of the serve room share.
 *
 * A route fills in a reply and may raise any error on its way; it is sent by
 * serve_request() alone, unless its status is REPLY_LATER.  Texts of a reply
 * live in the memory context of the request, which is the current one, or for
 * ever.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_ROUTE_H
#define NARINFO_SERVE_ROUTE_H

#include "postgres.h"

#include "cache/cache.h"
#include "cache/follow.h"
#include "fetch/fetch.h"
#include "http/http.h"
#include "nar/named.h"

/* ---- settings and what is made of them (serve.c) ---- */

#define SERVE_HEADER_MAX 96

extern char *serve_checkpoint_url;

/* Header lines, with CR LF. */
extern char serve_lasting[SERVE_HEADER_MAX];	/* of narinfos */
extern char serve_passing[SERVE_HEADER_MAX];	/* of a 404 */

#define SERVE_FOR_EVER "Cache-Control: public, max-age=31536000, immutable\r\n"
#define SERVE_FOR_EVER_PRIVATE \
	"Cache-Control: private, max-age=31536000, immutable\r\n"
#define SERVE_NO_STORE "Cache-Control: no-store\r\n"

#define SERVE_NARINFO_TYPE "text/x-nix-narinfo"

/* ---- replies (serve.c) ---- */

/*
 * The status of a reply that is not made yet, since the request is the
 * server's again, or somebody else's.  A route raises no error behind that.
 */
#define REPLY_LATER 0

/* A reply whose body is this text, which ends with a newline. */
extern void reply_text(HttpReply *reply, int status, const char *text,
					   const char *headers);
extern void reply_absent(HttpReply *reply);

/* The database cannot answer now, but will. */
extern void reply_unavailable(HttpReply *reply);
extern void reply_restoring(HttpReply *reply);

/*
 * The body of a request, of at most max bytes, kept in memory.  False when
 * the reply is made, for a body that is refused or was not received; or when
 * it is REPLY_LATER: the request comes again once its body is there.
 */
extern bool route_body(HttpRequest *req, size_t max, Span *body,
					   HttpReply *reply);

extern void route_request(HttpRequest *req, HttpReply *reply);

/* ---- the batch's transaction (batch.c) ---- */

typedef enum ServeResult
{
	SERVE_FOUND,
	SERVE_ABSENT,
	SERVE_UNAVAILABLE,			/* the extension or a table is missing, or
								 * somebody has locked it */
	SERVE_RESTORING				/* a dump that has not been looked at */
} ServeResult;

/* Begins the batch's transaction unless it has begun. */
extern void batch_transaction(void);

/* Are the rows those of a dump that nobody has looked at? */
extern bool batch_restoring(void);

extern ServeResult batch_cache(const char *name, CacheInfo *info);

/*
 * To be called before tokens or keys are looked up.  False when somebody has
 * locked their tables.
 */
extern bool batch_credentials(void);

extern ServeResult batch_narinfo(const CacheInfo *cache,
								 const uint8 hash[STORE_HASH_LEN],
								 struct varlena **info);

/* Is this valid path not to be shown yet?  See hidden.c. */
extern bool batch_hides(const CacheInfo *cache,
						const uint8 hash[STORE_HASH_LEN]);

/*
 * The file of this path, as a valid narinfo of the cache has it; absent if
 * none names it.  And where to ask for files of the cache.
 */
extern ServeResult batch_file(const CacheInfo *cache, const char *path,
							  NamedFile *file);
extern List *batch_sources(const CacheInfo *cache);

/*
 * The events of a cache behind a number, to be ended within the request; NULL
 * when some of these are not kept any more, as the range tells.
 */
extern ServeResult batch_changes(const char *cache, int64 after,
								 FollowRange *range, Follower **follower);

/* ---- what is not shown yet (hidden.c) ---- */

/*
 * The same as batch_narinfo() for who asks by this request: absent, if it is
 * not to be shown to him yet.
 */
extern ServeResult shown_narinfo(HttpRequest *req, const CacheInfo *cache,
								 const uint8 hash[STORE_HASH_LEN],
								 struct varlena **info);

/*
 * For a snapshot with this snapXactCompletionCount, the active one; 0: not
 * known.
 */
extern bool hidden_path(const CacheInfo *cache, const uint8 *hash,
						uint64 completions);

/* The last event that is shown to followers. */
extern int64 hidden_from(const CacheInfo *cache);

/* ---- routes ---- */

extern void route_health(HttpReply *reply);
extern void route_cache_info(const CacheInfo *cache, HttpReply *reply);

/* "hash" is what stands before ".narinfo". */
extern void route_narinfo(HttpRequest *req, const CacheInfo *cache,
						  Span hash, HttpReply *reply);

/* The text of a narinfo, good until the next one is unpacked. */
extern const char *narinfo_unpack(const struct varlena *info, size_t *len);

/* Defines their settings; called once by serve_init(). */
extern void bulk_init(void);

extern void route_narinfos(HttpRequest *req, const CacheInfo *cache,
						   HttpReply *reply);
extern void route_missing(HttpRequest *req, const CacheInfo *cache,
						  HttpReply *reply);

/* "hash" is what stands before ".closure". */
extern void route_closure(HttpRequest *req, const CacheInfo *cache,
						  Span hash, HttpReply *reply);

extern void route_changes(HttpRequest *req, const CacheInfo *cache,
						  HttpReply *reply);

/* ---- paths that are counted on (use.c) ---- */

/*
 * If whoever asks may push, these n store hashes are touched before it is told
 * which are there.  False when the request has to wait for that, or is
 * refused; else it goes on, now or when it comes again.
 */
extern bool use_by_pusher(HttpRequest *req, const CacheInfo *cache,
						  const uint8 *hashes, int n, HttpReply *reply);

/* The same; for others they are touched if there is time for it. */
extern bool use_paths(HttpRequest *req, const CacheInfo *cache,
					  const uint8 *hashes, int n, HttpReply *reply);

/* The request is about to be answered. */
extern void use_end(HttpRequest *req);

/* ---- uploads (put.c) ---- */

typedef enum PutKind
{
	PUT_NARINFO,				/* "what" is what stands before ".narinfo" */
	PUT_CACHE_INFO,
	PUT_FILE					/* "what" is its path, as of route_file() */
} PutKind;

extern int	put_max_upload;		/* GUC pg_narinfo.max_upload_size, MB */

extern void put_init(void);

/*
 * Takes a PUT as it comes in.  It is not answered yet when the reply has no
 * status afterwards: then the request comes once more, for put_received().
 */
extern void route_put(HttpRequest *req, const CacheInfo *cache, PutKind kind,
					  Span what, HttpReply *reply);

/* The body is here, or will not be.  The reply as above; see errand.h. */
extern void put_received(HttpRequest *req, HttpReply *reply);

/* The request is answered because of an error: its upload goes. */
extern void put_abandon(HttpRequest *req);

/* "path" is relative to the directory of the cache's files. */
extern void route_file(HttpRequest *req, const CacheInfo *cache, Span path,
					   const char *content_type, const char *cache_control,
					   HttpReply *reply);

/* ---- files that are not here (missing.c) ---- */

/* Defines its setting; called once by serve_init(). */
extern void missing_init(void);

/*
 * Answers a GET or HEAD for a file that is not there, by 404 or by what
 * pg_narinfo.missing_files says: now, or later.
 */
extern void route_missing_file(HttpRequest *req, const CacheInfo *cache,
							   Span path, const char *content_type,
							   HttpReply *reply);

#endif							/* NARINFO_SERVE_ROUTE_H */
