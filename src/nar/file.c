/*-------------------------------------------------------------------------
 *
 * file.c
 *	  Files below pg_narinfo.file_root: opening them, and nothing beside them.
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

#include "cache/cache.h"
#include "nar/file.h"

/* So often a path is tried again whose directories are renamed meanwhile. */
#define OPEN_TRIES		8

char	   *nar_file_root = NULL;

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
}

int
nar_root_open(void)
{
	return open(nar_file_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
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
					nar_file_root),
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

int
nar_file_open(int root, const char *cache, Span path, Span query,
			  struct stat *st)
{
	int			directory;
	volatile int fd = -1;

	if (strcmp(cache, CACHE_MAIN) == 0)
		return open_asked(root, path, query, st);

	directory = open_beneath(root, cache, O_PATH | O_DIRECTORY,
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
