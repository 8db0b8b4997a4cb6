/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Putting files among those of a cache, so that each is there whole or
 *	  not at all.
 *
 *	  HTTP worker	store_create	DIR/.incoming/SYSTEM-PID-N, written there
 *	  writer		store_keep		fsync it, rename it to its place, fsync the
 *									directories
 *
 * DIR is the first directory of the path ("nar" of nar/x.nar.xz), which may be
 * another file system than the rest.  No URL leads to a name that begins with
 * a dot (serve/files.c).  Who wrote a temporary file is in its name, so that
 * what nobody will finish can be told from what somebody still writes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_STORE_H
#define NARINFO_NAR_STORE_H

#include "postgres.h"

#include "nar/root.h"

#include "base/text.h"

#define STORE_FILE_PATH_MAX 400 /* bytes, relative to the cache's directory */
#define STORE_TEMP_MAX		80

/* A temporary file; it lies in shared memory as it is. */
typedef struct StoreTemp
{
	char		name[STORE_TEMP_MAX];	/* relative to the cache's directory;
										 * "": none */
	uint64		device;
	uint64		inode;
} StoreTemp;

typedef enum StoreResult
{
	STORE_NEW,
	STORE_SAME,					/* was there with this content */
	STORE_REPLACED,
	STORE_REFUSED,
	STORE_BAD_GZIP,
	STORE_TOO_LARGE,			/* when it is unpacked */
	STORE_NO_SPACE,
	STORE_LOST					/* the temporary file is not there */
} StoreResult;

/*
 * May a file be put at this path?  NULL, or what is wrong with it.
 */
extern const char *store_path_trouble(Span path);

/*
 * A temporary file for what is to lie at this path, opened for writing; the
 * directories are made.  -1 when there is no room for it; raises an error
 * for all else.
 */
extern int	store_create(const char *cache, const char *path,
						 StoreTemp *temp);

/* Is there room for so many bytes more, and pg_narinfo.upload_reserve? */
extern bool store_has_space(int fd, uint64 length);

/* Removes a temporary file, if it is there; raises no error. */
extern void store_discard(const char *cache, const StoreTemp *temp);

/* Opens one to be read; -1 if it is not there.  Raises no error. */
extern int	store_open_temp(const char *cache, const StoreTemp *temp);

/*
 * Brings what was received to its place, durably, and removes it otherwise.
 * Each is done by what it says when it is called again after it was cut off.
 * "reason" is filled in with why it was refused.
 *
 * What lies below nar/ is never replaced by something else, but for a file
 * that is named after its SHA-256, nar/HASH.nar…: that has to have this hash,
 * and takes the place of one that has not.
 */
extern StoreResult store_keep(const char *cache, const char *path,
							  const StoreTemp *temp, bool gzip,
							  char *reason, size_t reason_size);

/*
 * Removes temporary files that no process will finish: those of a process of
 * this server that is not "living", when they were not written to for
 * "min_age" seconds, and those of another server when for a day.
 */
extern void store_sweep(bool (*living) (uint32 pid), int min_age);

/* The settings pg_narinfo.upload_reserve and so on; called by nar_init. */
extern void store_init(void);

#endif							/* NARINFO_NAR_STORE_H */
