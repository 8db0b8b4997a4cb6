/*-------------------------------------------------------------------------
 *
 * removal_file.c
 *	  Renaming and unlinking the files that nobody names, and keeping those
 *	  that a pusher counts on; see removal.h.
 *
 * The name that a file gets follows from its own, so that the entry of the
 * queue is enough to find it again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/nix32.h"
#include "nar/removal_run.h"
#include "nar/root.h"
#include "nar/temp.h"

#define HIDDEN_PREFIX	".gone-"
#define HIDDEN_MAX		40

bool
removal_root_ready(void)
{
	int			root = nar_root();
	int			fd = root < 0 ? -1 :
		openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR		   *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	bool		ready = false;

	if (dir == NULL)
	{
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!ready && (entry = readdir(dir)) != NULL)
		ready = entry->d_name[0] != '.' &&
			strcmp(entry->d_name, "lost+found") != 0;
	closedir(dir);
	return ready;
}

/* As nar_open_cache(), but it raises no error: others are not to suffer. */
static int
open_cache(const char *cache)
{
	int			root = nar_root();

	return root < 0 ? -1 :
		nar_try_beneath(root, strcmp(cache, CACHE_MAIN) == 0 ? "." : cache,
						O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
}

int
removal_open_parent(const char *cache, const char *path)
{
	int			directory = open_cache(cache);
	char	   *parent = temp_parent(path);
	int			fd = -1;

	if (directory >= 0)
	{
		fd = nar_try_beneath(directory, parent, O_RDONLY | O_DIRECTORY, 0,
							 0);
		close(directory);
	}
	if (fd < 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("pg_narinfo could not open \"%s\" of cache \"%s\": %m",
						parent, cache)));
	pfree(parent);
	return fd;
}

void
removal_end_parent(int parent, bool changed)
{
	int			result = changed ? pg_fsync(parent) : 0;
	int			error = errno;

	close(parent);
	errno = error;

	/* as with PostgreSQL's own: some file systems cannot do it */
	if (result != 0 && error != EBADF && error != EINVAL)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not fsync a directory of \"%s\": %m",
						nar_file_root)));
}

bool
removal_stat(const char *cache, const char *path, struct stat *st)
{
	int			directory = open_cache(cache);
	int			fd;
	bool		found;

	if (directory < 0)
		return false;
	fd = nar_try_beneath(directory, path, O_PATH, 0, 0);
	close(directory);
	if (fd < 0)
		return false;
	found = fstat(fd, st) == 0;
	close(fd);
	return found;
}

/* ---- renaming ---- */

static void
hidden_name(const char *path, char hidden[HIDDEN_MAX])
{
	const char *name = temp_name(path);
	XXH128_hash_t hash = XXH3_128bits(name, strlen(name));

	snprintf(hidden, HIDDEN_MAX, HIDDEN_PREFIX "%016llx%016llx",
			 (unsigned long long) hash.high64,
			 (unsigned long long) hash.low64);
}

static TimestampTz
time_of(const struct timespec *ts)
{
	return (TimestampTz) (ts->tv_sec - (POSTGRES_EPOCH_JDATE -
										UNIX_EPOCH_JDATE) *
						  SECS_PER_DAY) * USECS_PER_SEC +
		ts->tv_nsec / 1000;
}

/*
 * What a file is, and when it was modified: for a link, what it leads to,
 * since that is what a pusher asked for.
 */
static bool
look(int parent, const char *name, DueFile *file, bool *is_file)
{
	struct stat st;
	struct stat target;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return false;
	*is_file = S_ISREG(st.st_mode) || S_ISLNK(st.st_mode);
	if (S_ISLNK(st.st_mode) && fstatat(parent, name, &target, 0) == 0)
		st.st_mtim = target.st_mtim;
	file->bytes = (int64) st.st_size;
	file->modified = time_of(&st.st_mtim);
	return true;
}

static RemovalState
trouble(const DueFile *file, const char *what)
{
	int			error = errno;

	ereport(LOG,
			(errmsg("pg_narinfo cannot remove \"%s\" of cache \"%s\": %s",
					file->path, file->cache, what ? what : strerror(error)),
			 errdetail("It is tried again when pg_narinfo.file_grace has passed once more.")));
	return REMOVAL_TROUBLE;
}

RemovalState
removal_hide(int parent, DueFile *file, TimestampTz modified_before)
{
	const char *name = temp_name(file->path);
	char		hidden[HIDDEN_MAX];
	bool		is_file;

	hidden_name(file->path, hidden);
	if (look(parent, name, file, &is_file))
	{
		if (!is_file)
			return trouble(file, "it is no file");
		if (file->modified > modified_before)
			return REMOVAL_YOUNG;
		if (renameat(parent, name, parent, hidden) != 0)
			return trouble(file, NULL);
	}
	else if (errno != ENOENT)
		return trouble(file, NULL);
	if (!look(parent, hidden, file, &is_file))
		return errno == ENOENT ? REMOVAL_ABSENT : trouble(file, NULL);
	/* a pusher may have been told of it until it was renamed */
	if (file->modified > modified_before)
	{
		(void) removal_put_back(parent, file);
		return REMOVAL_YOUNG;
	}
	return REMOVAL_HIDDEN;
}

/* For file systems that cannot rename without replacing. */
static bool
link_back(int parent, const char *hidden, const char *name)
{
	if (linkat(parent, hidden, parent, name, 0) != 0)
		return false;
	return unlinkat(parent, hidden, 0) == 0;
}

bool
removal_put_back(int parent, const DueFile *file)
{
	const char *name = temp_name(file->path);
	char		hidden[HIDDEN_MAX];

	hidden_name(file->path, hidden);
	if (renameat2(parent, hidden, parent, name, RENAME_NOREPLACE) == 0)
		return true;
	if (errno == ENOENT)
		return false;
	if ((errno == EINVAL || errno == ENOSYS) &&
		link_back(parent, hidden, name))
		return true;
	/* pushed again while it was away: that one is as good, and whole */
	if (errno == EEXIST && unlinkat(parent, hidden, 0) == 0)
		return true;
	if (errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("pg_narinfo could not rename \"%s\" back to \"%s\" of cache \"%s\": %m",
						hidden, file->path, file->cache)));
	return false;
}

bool
removal_unlink(int parent, DueFile *file)
{
	char		hidden[HIDDEN_MAX];

	hidden_name(file->path, hidden);
	if (unlinkat(parent, hidden, 0) == 0 || errno == ENOENT)
		return true;
	(void) trouble(file, NULL);
	return false;
}

/* It tells what is in a NAR: nobody misses it who has no narinfo. */
void
removal_unlink_listing(const char *cache, const uint8 *hash,
					   TimestampTz modified_before)
{
	char		hash_text[STORE_HASH_TEXT_LEN];
	char		name[STORE_HASH_TEXT_LEN + sizeof(".ls")];
	int			directory = open_cache(cache);
	struct stat st;

	if (directory < 0)
		return;
	store_hash_encode(hash, hash_text);
	snprintf(name, sizeof(name), "%.*s.ls", STORE_HASH_TEXT_LEN, hash_text);
	if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISREG(st.st_mode) && time_of(&st.st_mtim) <= modified_before)
		(void) unlinkat(directory, name, 0);
	close(directory);
}

/* ---- keeping ---- */

bool
removal_renew(int fd, struct stat *st)
{
	TimestampTz now = GetCurrentTimestamp();
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};

	/* not each time: the time is part of what caches compare */
	if (removal_file_grace < 0 ||
		time_of(&st->st_mtim) > now - (TimestampTz) removal_file_grace *
		USECS_PER_SEC / 2)
		return true;
	/* by our clock, which is what it is compared with */
	(void) clock_gettime(CLOCK_REALTIME, &times[1]);
	if (futimens(fd, times) != 0)
		return errno == EROFS;	/* then it is not removed, either */
	return fstat(fd, st) == 0;
}

bool
removal_hold(const char *cache, Span path, Span query, int fd,
			 struct stat *st)
{
	struct stat now;
	int			again;

	if (!removal_renew(fd, st))
		return false;
	again = nar_open_asked(cache, path, query, &now);
	if (again < 0)
		return false;
	close(again);
	return now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}
