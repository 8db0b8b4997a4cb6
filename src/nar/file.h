/*-------------------------------------------------------------------------
 *
 * file.h
 *	  Files below pg_narinfo.file_root.
 *
 *		nar/X of "main"			file_root/nar/X
 *		nar/X of cache C		file_root/C/nar/X
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
#ifndef NARINFO_NAR_FILE_H
#define NARINFO_NAR_FILE_H

#include "postgres.h"

#include <sys/stat.h>

#include "base/text.h"

/* GUC pg_narinfo.file_root; the room's beginning, called once by _PG_init. */
extern void nar_init(void);
extern char *nar_file_root;

/*
 * The root, as a descriptor for nar_file_open(); -1 with errno set when it
 * is not there.
 */
extern int	nar_root_open(void);

/*
 * A regular file of a cache, by its decoded path relative to the cache's
 * directory, and what stands behind a '?' there, data NULL for none; nix 2.8
 * writes the '?' that a store path's name may have as it is, so that may be
 * the end of the name.  A descriptor (close-on-exec), or -1 if there is no
 * such file; what the file system is to blame for is raised.
 */
extern int	nar_file_open(int root, const char *cache, Span path, Span query,
						  struct stat *st);

#endif							/* NARINFO_NAR_FILE_H */
