/*-------------------------------------------------------------------------
 *
 * temp.h
 *	  Directories, and the temporary files in them.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_TEMP_H
#define NARINFO_NAR_TEMP_H

#include "postgres.h"

/* The directory of a path, palloc'd: "." if it has none. */
extern char *temp_parent(const char *path);

/* What stands behind it. */
extern const char *temp_name(const char *path);

/*
 * Opens a directory beneath that of a cache, "." for that itself, and makes
 * what is missing of it; -1 with errno set when that cannot be done.
 */
extern int	temp_open_directory(int cache_directory, const char *path);

/* Makes sure that the names of this path, a file's, are on disk. */
extern void temp_sync_directories(int cache_directory, const char *path);

#endif							/* NARINFO_NAR_TEMP_H */
