/*-------------------------------------------------------------------------
 *
 * info.c
 *	  /nix-cache-info and /health.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cache/node.h"
#include "serve/route.h"

/* What nix asks first of a cache; source: nix, binary-cache-store.cc. */
void
route_cache_info(const CacheInfo *cache, HttpReply *reply)
{
	reply_text(reply, 200, cache_nix_cache_info(cache), serve_lasting);
	reply->content_type = "text/x-nix-cache-info";
}

/*
 * Is the database answering?  A look at the catalogs, which wants no lock
 * that anybody holds for long, so that this answers also while a table is
 * being altered.  What is fenced serves what it has, and only says so.
 */
void
route_health(HttpReply *reply)
{
	batch_transaction();
	if (cache_catalog() == NULL)
		reply_unavailable(reply);
	else if (batch_restoring())
		reply_restoring(reply);
	else if (node_state() == NODE_FENCED)
		reply_text(reply, 200, "ok, but it does not publish until "
				   "narinfo.start()\n", SERVE_NO_STORE);
	else
		reply_text(reply, 200, "ok\n", SERVE_NO_STORE);
}
