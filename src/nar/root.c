/*-------------------------------------------------------------------------
 *
 * root.c
 *	  Opening pg_narinfo.file_root, the directories of caches in it, and
 *	  files beneath those.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "utils/guc.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "http/path.h"
#include "nar/removal.h"
#include "nar/root.h"
#include "nar/store.h"

/* The root is opened anew that often, should it be mounted or moved, in ms. */
#define ROOT_LIFETIME	1000

/* So often a path is tried again whose directories are renamed meanwhile. */
#define OPEN_TRIES		8

char	   *nar_file_root = NULL;

static int	root_fd = -1;		/* open until it is renewed */
static TimestampTz root_opened = 0;
static bool root_missed = false;	/* and the log says so */

void
nar_init(void)
{
	DefineCustomStringVariable("pg_narinfo.file_root",
							   "Directory of the files of binary caches.",
							   "nar/, log/ and so on of the cache \"main\" "
							   "lie in it, those of other caches in a "
							   "directory of the cache's name.",
							   &nar_file_root, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	store_init();
	removal_init();
}

static void
set_root(int fd, TimestampTz opened)
{
	if (root_fd >= 0)
		close(root_fd);
	root_fd = fd;
	root_opened = opened;
}

void
nar_root_reload(void)
{
	set_root(-1, 0);
	root_missed = false;
}

int
nar_root(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (nar_file_root[0] == '\0')
		return -1;
	if (TimestampDifferenceExceeds(root_opened, now, ROOT_LIFETIME))
	{
		int			fd = open(nar_file_root,
							  O_PATH | O_DIRECTORY | O_CLOEXEC);

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
		case EEXIST:
			return true;
		default:
			return false;
	}
}

int
nar_try_beneath(int directory, const char *path, uint64 flags, mode_t mode,
				uint64 resolve)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.mode = mode,
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
	errno = error;
	return -1;
}

int
nar_open_beneath(int directory, const char *path, uint64 flags, mode_t mode,
				 uint64 resolve)
{
	int			fd = nar_try_beneath(directory, path, flags, mode, resolve);
	int			error = errno;

	if (fd >= 0 || is_absence(error))
		return fd;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not open \"%s\" in \"%s\": %m", path,
					nar_file_root),
			 error == ENOSYS ?
			 errhint("Files can be served on Linux 5.6 or newer.") : 0));
}

int
nar_open_cache(const char *cache)
{
	int			root = nar_root();

	if (root < 0)
	{
		errno = ENOENT;
		return -1;
	}
	return nar_open_beneath(root, strcmp(cache, CACHE_MAIN) == 0 ? "." : cache,
							O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
}

int
nar_open_file(int directory, const char *path, struct stat *st)
{
	/* Not blocked by a FIFO, before it is seen to be one */
	int			fd = nar_open_beneath(directory, path,
									  O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);

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

int
nar_open_asked(const char *cache, Span path, Span query, struct stat *st)
{
	int			directory;
	volatile int fd = -1;

	if (span_has_hidden(path))
		return -1;
	if (strcmp(cache, CACHE_MAIN) == 0)
	{
		directory = nar_root();
		return directory < 0 ? -1 : open_asked(directory, path, query, st);
	}

	directory = nar_open_cache(cache);
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

int
nar_open_path(const char *cache, const char *path, struct stat *st)
{
	return nar_open_asked(cache, span_of(path, strlen(path)),
						  span_of(NULL, 0), st);
}

char *
nar_url_path(Span url)
{
	char	   *path = palloc(url.len + 1);
	size_t		len;

	if (!http_percent_decode(url, path, &len))
		return NULL;
	path[len] = '\0';
	if (strncmp(path, "nar/", 4) != 0 ||
		store_path_trouble(span_of(path, len)) != NULL)
		return NULL;
	return path;
}
