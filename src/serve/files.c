/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Files below pg_narinfo.file_root.
 *
 * Where they lie, and that no path leads out of the directory of its cache,
 * is the matter of nar/root.h.  A name that begins with a dot is nobody's:
 * what is on its way in has such names.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "http/conditional.h"
#include "nar/root.h"
#include "serve/route.h"

/*
 * nix 2.8 writes the '?' that a store path's name may have as it is, so what
 * looks like a query may be the end of the name.
 */
static int
open_asked(int directory, Span path, Span query, struct stat *st)
{
	int			fd;

	if (query.data != NULL)
	{
		fd = nar_open_file(directory,
					   psprintf("%.*s?%.*s", (int) path.len, path.data,
								(int) query.len, query.data), st);
		if (fd >= 0)
			return fd;
	}
	return nar_open_file(directory, pnstrdup(path.data, path.len), st);
}

/* Does one of its names begin with a dot? */
static bool
span_has_hidden(Span path)
{
	return span_starts(path, ".") || memmem(path.data, path.len, "/.", 2);
}

static int
open_of_cache(const CacheInfo *cache, Span path, Span query, struct stat *st)
{
	int			directory;
	volatile int fd = -1;

	if (span_has_hidden(path))
		return -1;
	if (strcmp(cache->name, CACHE_MAIN) == 0)
	{
		directory = nar_root();
		return directory < 0 ? -1 : open_asked(directory, path, query, st);
	}

	directory = nar_open_cache(cache->name);
	if (directory < 0)
		return -1;
	PG_TRY();
	{
		fd = open_asked(directory, path, query, st);
	}
	PG_FINALLY();
	{
		close(directory);
	}
	PG_END_TRY();
	return fd;
}

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

void
route_file(HttpRequest *req, const CacheInfo *cache, Span path,
		   const char *content_type, const char *cache_control,
		   HttpReply *reply)
{
	HttpSelection *selection = palloc(sizeof(HttpSelection));
	struct stat st;
	char		etag[HTTP_MAX_ETAG];
	int			fd = open_of_cache(cache, path, http_request_query(req), &st);

	if (fd < 0)
	{
		reply_absent(reply);
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
