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
#include "sites/sites.h"

/* What nix asks first of a cache; source: nix, binary-cache-store.cc. */
void
route_cache_info(const CacheInfo *cache, HttpReply *reply)
{
	reply_text(reply, 200, cache_nix_cache_info(cache), serve_lasting);
	reply->content_type = "text/x-nix-cache-info";
}

/* One state and perhaps one reason, as JSON; a site alone has no more. */
static void
reply_alone(HttpReply *reply, int status, const char *state,
			const char *reason)
{
	reply_text(reply, status,
			   psprintf("{\"status\": \"%s\", \"state\": \"%s\", "
						"\"reasons\": [%s%s%s]}\n",
						status == 200 ? "ok" : "unhealthy", state,
						reason ? "\"" : "", reason ? reason : "",
						reason ? "\"" : ""), SERVE_NO_STORE);
}

static void
reply_as_site(HttpReply *reply)
{
	StringInfoData json;
	bool		healthy;

	initStringInfo(&json);
	healthy = sites_health(&json);
	reply_text(reply, healthy ? 200 : 503, json.data, SERVE_NO_STORE);
}

/*
 * Should a client be sent here?  On a server that is alone that is a look at
 * the catalogs, which wants no lock that anybody holds for long, so that this
 * answers also while a table is being altered.  What is fenced serves what it
 * has, and only says so.
 */
void
route_health(HttpReply *reply)
{
	NodeState	state;

	batch_transaction();
	if (cache_catalog() == NULL)
	{
		reply_alone(reply, 503, "absent", "the database cannot answer now");
		reply->content_type = "application/json";
		return;
	}
	(void) batch_restoring();
	state = node_state();
	if (state == NODE_RESTORING)
		reply_alone(reply, 503, "restoring",
					"a dump is being restored, until narinfo.start()");
	else if (state == NODE_FENCED)
		reply_alone(reply, 200, "fenced",
					"it does not publish until narinfo.start()");
	else if (node_is_named())
		reply_as_site(reply);
	else
		reply_alone(reply, 200, state == NODE_NEW ? "new" :
					state == NODE_STANDBY ? "standby" : "primary", NULL);
	reply->content_type = "application/json";
}
