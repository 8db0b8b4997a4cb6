/*-------------------------------------------------------------------------
 *
 * root.h
 *	  The directory of the files of all caches, and how paths in it are
 *	  opened.
 *
 *		X of "main"			file_root/X
 *		X of cache C		file_root/C/X
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
#ifndef NARINFO_NAR_ROOT_H
#define NARINFO_NAR_ROOT_H

#include "postgres.h"

#include <sys/stat.h>

#include "base/text.h"

extern char *nar_file_root;		/* the setting */

/* Defines the room's settings; called once by _PG_init. */
extern void nar_init(void);

/* The setting was read again. */
extern void nar_root_reload(void);

/* The root, not to be closed; -1 when it is not set or not there. */
extern int	nar_root(void);

/*
 * A descriptor of a path beneath a directory, opened as openat2(2) does; -1
 * with errno set if there is nothing of this path.  Raises an error when it is
 * the file system or we that are to blame.
 */
extern int	nar_open_beneath(int directory, const char *path, uint64 flags,
							 mode_t mode, uint64 resolve);

/* The same, but it raises no error. */
extern int	nar_try_beneath(int directory, const char *path, uint64 flags,
							mode_t mode, uint64 resolve);

/* The directory of a cache, to be closed; -1 if it is not there. */
extern int	nar_open_cache(const char *cache);

/* A regular file to be read, or -1. */
extern int	nar_open_file(int directory, const char *path, struct stat *st);

/*
 * The same for what a request asks for in a cache, by its decoded path, and
 * what stands behind a '?' (data NULL: nothing).  A name that begins with a
 * dot is nobody's: what is on its way in has such names.
 */
extern int	nar_open_asked(const char *cache, Span path, Span query,
						   struct stat *st);

/* The same by a path that is known as it is, of nar_url_path() perhaps. */
extern int	nar_open_path(const char *cache, const char *path,
						  struct stat *st);

/*
 * Where the file lies that the URL of a narinfo names, relative to the
 * directory of its cache and palloc'd; NULL if that can be no file below nar/.
 */
extern char *nar_url_path(Span url);

#endif							/* NARINFO_NAR_ROOT_H */
