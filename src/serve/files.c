/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Files below pg_narinfo.file_root, see nar/file.h, as replies.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "utils/timestamp.h"

#include "http/conditional.h"
#include "nar/file.h"
#include "serve/route.h"

/* The root is opened anew that often, should it be mounted or moved, in ms. */
#define ROOT_LIFETIME	1000

static int	root_fd = -1;		/* open until it is renewed */
static TimestampTz root_opened = 0;
static bool root_missed = false;	/* and the log says so */

static void
set_root(int fd, TimestampTz opened)
{
	if (root_fd >= 0)
		close(root_fd);
	root_fd = fd;
	root_opened = opened;
}

void
files_reload(void)
{
	set_root(-1, 0);
	root_missed = false;
}

/* The root, or -1 when it is not set or not there. */
static int
open_root(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (nar_file_root[0] == '\0')
		return -1;
	if (TimestampDifferenceExceeds(root_opened, now, ROOT_LIFETIME))
	{
		int			fd = nar_root_open();

		if (fd < 0 && !root_missed)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not open \"%s\": %m", nar_file_root),
					 errdetail("Its files are answered as absent.")));
		root_missed = (fd < 0);
		set_root(fd, now);
	}
	return root_fd;
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
	int			root = open_root();
	int			fd = root < 0 ? -1 :
		nar_file_open(root, cache->name, path, http_request_query(req), &st);

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
