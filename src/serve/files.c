/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Files below pg_narinfo.file_root, as replies.
 *
 * Where they lie, and that no path leads out of the directory of its cache,
 * is the matter of nar/root.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "http/conditional.h"
#include "nar/removal.h"
#include "nar/root.h"
#include "serve/auth.h"
#include "serve/route.h"

/*
 * A strong tag: who changes a file in place changes its time, and who puts
 * another one in its place its inode.
 */
static void
make_etag(const struct stat *st, char *etag, size_t size)
{
	snprintf(etag, size, "\"%llx-%llx-%llx.%lx\"",
			 (unsigned long long) st->st_ino,
			 (unsigned long long) st->st_size,
			 (unsigned long long) st->st_mtim.tv_sec,
			 (unsigned long) st->st_mtim.tv_nsec);
}

/*
 * Whoever may push, and asks whether a NAR is there, does not push it then:
 * so it has to stay.
 */
static bool
is_counted_on(HttpRequest *req, const CacheInfo *cache, Span path)
{
	return http_request_method(req) == HTTP_HEAD &&
		span_starts(path, "nar/") && auth_may(req, cache, AUTH_PUSH);
}

void
route_file(HttpRequest *req, const CacheInfo *cache, Span path,
		   const char *content_type, const char *cache_control,
		   HttpReply *reply)
{
	HttpSelection *selection = palloc(sizeof(HttpSelection));
	struct stat st;
	char		etag[HTTP_MAX_ETAG];
	bool		counted_on = is_counted_on(req, cache, path);
	int			fd = nar_open_asked(cache->name, path,
									http_request_query(req), &st);

	if (fd >= 0 && counted_on &&
		!removal_hold(cache->name, path, http_request_query(req), fd, &st))
	{
		close(fd);
		fd = -1;
	}
	if (fd < 0)
	{
		/* whoever could push it is to push it */
		if (counted_on)
			reply_absent(reply);
		else
			route_missing_file(req, cache, path, content_type, reply);
		return;
	}

	/* From here on it is closed by whoever has the reply */
	reply->fd = fd;

	make_etag(&st, etag, sizeof(etag));
	http_select(req, etag, st.st_mtime, st.st_size, selection);
	reply->status = selection->status;
	reply->content_type = content_type;
	reply->offset = selection->offset;
	reply->length = selection->length;
	reply->headers = psprintf("%s%s", selection->headers,
							  selection->status == 416 ? "" : cache_control);
}
