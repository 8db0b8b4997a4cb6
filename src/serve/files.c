/*-------------------------------------------------------------------------
 *
 * files.c
 *	  Files below pg_narinfo.file_root.
 *
 *		/nar/X of "main"		file_root/nar/X
 *		/nar/X of cache C		file_root/C/nar/X
 *
 * The kernel resolves each path beneath the directory of its cache, so that
 * neither ".." nor a symbolic link leads out of it; a link may lead to
 * another place in it.  The directory of a cache must not be a link itself:
 * it could lead to the files of another cache.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "utils/timestamp.h"

#include "http/conditional.h"
#include "serve/route.h"

/* The root is opened anew that often, should it be mounted or moved, in ms. */
#define ROOT_LIFETIME	1000

/* So often a path is tried again whose directories are renamed meanwhile. */
#define OPEN_TRIES		8

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

	if (serve_file_root[0] == '\0')
		return -1;
	if (TimestampDifferenceExceeds(root_opened, now, ROOT_LIFETIME))
	{
		int			fd = open(serve_file_root,
							  O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0 && !root_missed)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not open \"%s\": %m", serve_file_root),
					 errdetail("Its files are answered as absent.")));
		root_missed = (fd < 0);
		set_root(fd, now);
	}
	return root_fd;
}

/* Is it the path that is wrong, rather than the file system or us? */
static bool
is_absence(int error)
{
	switch (error)
	{
		case ENOENT:
		case ENOTDIR:
		case ELOOP:
		case EXDEV:				/* would lead out */
		case ENAMETOOLONG:
		case ENXIO:				/* a socket */
		case EISDIR:
			return true;
		default:
			return false;
	}
}

/* A descriptor; or -1 if there is nothing of this path. */
static int
open_beneath(int directory, const char *path, uint64 flags, uint64 resolve)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.resolve = resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
	};

	int			error = 0;

	for (int i = 0; i < OPEN_TRIES; i++)
	{
		int			fd = (int) syscall(SYS_openat2, directory, path, &how,
									   sizeof(how));

		if (fd >= 0)
			return fd;
		error = errno;
		if (error != EAGAIN && error != EINTR)
			break;
	}
	if (is_absence(error))
		return -1;
	errno = error;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not open \"%s\" in \"%s\": %m", path,
					serve_file_root),
			 error == ENOSYS ?
			 errhint("Files can be served on Linux 5.6 or newer.") : 0));
}

/* A regular file of the cache, or -1. */
static int
open_file(int directory, const char *path, struct stat *st)
{
	/* Not blocked by a FIFO, before it is seen to be one */
	int			fd = open_beneath(directory, path,
								  O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);

	if (fd >= 0 && (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)))
	{
		close(fd);
		return -1;
	}
	return fd;
}

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
		fd = open_file(directory,
					   psprintf("%.*s?%.*s", (int) path.len, path.data,
								(int) query.len, query.data), st);
		if (fd >= 0)
			return fd;
	}
	return open_file(directory, pnstrdup(path.data, path.len), st);
}

static int
open_of_cache(const CacheInfo *cache, Span path, Span query, struct stat *st)
{
	int			root = open_root();
	int			directory;
	volatile int fd = -1;

	if (root < 0)
		return -1;
	if (strcmp(cache->name, CACHE_MAIN) == 0)
		return open_asked(root, path, query, st);

	directory = open_beneath(root, cache->name, O_PATH | O_DIRECTORY,
							 RESOLVE_NO_SYMLINKS);
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
