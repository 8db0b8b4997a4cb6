/*-------------------------------------------------------------------------
 *
 * temp.c
 *	  Directories of a cache's files, temporary files in them, and what is
 *	  left of those.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "cache/cache.h"
#include "nar/store.h"
#include "nar/temp.h"

#define INCOMING ".incoming"

#define DAY (24 * 60 * 60)		/* seconds */

/* ---- directories ---- */

char *
temp_parent(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? pstrdup(".") :
		pnstrdup(path, (size_t) (slash - path));
}

const char *
temp_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int
temp_open_directory(int cache_directory, const char *path)
{
	int			parent;
	int			made;
	int			error;
	int			fd = nar_open_beneath(cache_directory, path,
									  O_PATH | O_DIRECTORY, 0, 0);

	if (fd >= 0 || errno != ENOENT || strcmp(path, ".") == 0)
		return fd;

	/* no deeper than the path has names, which store_path_trouble() counts */
	parent = temp_open_directory(cache_directory, temp_parent(path));
	if (parent < 0)
		return -1;
	made = mkdirat(parent, temp_name(path), pg_dir_create_mode);
	error = errno;
	close(parent);
	if (made != 0 && error != EEXIST)
	{
		errno = error;
		return -1;
	}
	return nar_open_beneath(cache_directory, path, O_PATH | O_DIRECTORY, 0, 0);
}

static void
sync_directory(int directory, const char *path)
{
	int			fd = nar_open_beneath(directory, path,
									  O_RDONLY | O_DIRECTORY, 0, 0);
	int			result = fd < 0 ? -1 : pg_fsync(fd);
	int			error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;

	/* as with PostgreSQL's own: some file systems cannot do it */
	if (result != 0 && error != EBADF && error != EINVAL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync directory \"%s\": %m", path)));
}

/*
 * All of them, and the root, which has the cache's directory: a name may be
 * as new as the file, and what is on disk already costs next to nothing.
 */
void
temp_sync_directories(int cache_directory, const char *path)
{
	do
	{
		path = temp_parent(path);
		sync_directory(cache_directory, path);
	} while (strcmp(path, ".") != 0);
	sync_directory(nar_root(), ".");
}

/* The directory of a cache, made if it is not there; -1 with errno. */
static int
open_or_make_cache(const char *cache)
{
	int			fd = nar_open_cache(cache);

	if (fd >= 0 || errno != ENOENT || nar_root() < 0)
		return fd;
	if (mkdirat(nar_root(), cache, pg_dir_create_mode) != 0 &&
		errno != EEXIST)
		return -1;
	return nar_open_cache(cache);
}

/* ---- temporary files ---- */

/* "nar/.incoming" for nar/…; ".incoming" for what lies in no directory. */
static char *
incoming_of(const char *path)
{
	const char *slash = strchr(path, '/');

	return slash == NULL ? pstrdup(INCOMING) :
		psprintf("%.*s/" INCOMING, (int) (slash - path), path);
}

/* A new file in an open directory; -1 with errno. */
static int
create_in(int directory, const char *incoming, StoreTemp *temp)
{
	static uint32 counter = 0;
	struct stat st;
	int			fd;

	do
	{
		snprintf(temp->name, sizeof(temp->name),
				 "%s/" UINT64_FORMAT "-%d-%u", incoming,
				 GetSystemIdentifier(), MyProcPid, ++counter);
		fd = openat(directory, temp_name(temp->name),
					O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
					pg_file_create_mode);
	} while (fd < 0 && errno == EEXIST);
	if (fd >= 0 && fstat(fd, &st) != 0)
	{
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		return -1;
	temp->device = (uint64) st.st_dev;
	temp->inode = (uint64) st.st_ino;
	return fd;
}

int
store_create(const char *cache, const char *path, StoreTemp *temp)
{
	char	   *incoming = incoming_of(path);
	int			directory = open_or_make_cache(cache);
	int			there = -1;
	int			fd = -1;
	int			error = errno;

	if (directory >= 0)
	{
		there = temp_open_directory(directory, incoming);
		error = errno;
		close(directory);
	}
	if (there >= 0)
	{
		fd = create_in(there, incoming, temp);
		error = errno;
		close(there);
	}
	if (fd >= 0)
		return fd;
	temp->name[0] = '\0';
	if (error == ENOSPC || error == EDQUOT)
		return -1;
	errno = error;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not make a file in \"%s\" of cache \"%s\" in \"%s\": %m",
					incoming, cache, nar_file_root)));
}

/* Its directory, and its name in that; -1 if that is not there. */
static int
open_incoming(const char *cache, const StoreTemp *temp,
			  char name[STORE_TEMP_MAX])
{
	char		path[STORE_FILE_PATH_MAX];
	char	   *slash;

	if (temp->name[0] == '\0' || nar_root() < 0)
		return -1;
	if (strcmp(cache, CACHE_MAIN) == 0)
		snprintf(path, sizeof(path), "%s", temp->name);
	else
		snprintf(path, sizeof(path), "%s/%s", cache, temp->name);
	slash = strrchr(path, '/');
	*slash = '\0';
	strlcpy(name, slash + 1, STORE_TEMP_MAX);
	return nar_try_beneath(nar_root(), path, O_PATH | O_DIRECTORY, 0, 0);
}

void
store_discard(const char *cache, const StoreTemp *temp)
{
	char		name[STORE_TEMP_MAX];
	int			incoming = open_incoming(cache, temp, name);

	if (incoming < 0)
		return;
	(void) unlinkat(incoming, name, 0);
	close(incoming);
}

int
store_open_temp(const char *cache, const StoreTemp *temp)
{
	char		name[STORE_TEMP_MAX];
	int			incoming = open_incoming(cache, temp, name);
	struct stat st;
	int			fd;

	if (incoming < 0)
		return -1;
	fd = openat(incoming, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	close(incoming);
	if (fd >= 0 && (fstat(fd, &st) != 0 ||
					(uint64) st.st_dev != temp->device ||
					(uint64) st.st_ino != temp->inode))
	{
		close(fd);
		fd = -1;
	}
	return fd;
}

/* ---- what is left of them ---- */

typedef struct Sweep
{
	bool		(*living) (uint32 pid);
	int			min_age;		/* seconds */
	time_t		now;
	uint64		removed;
} Sweep;

static bool
is_left_over(const Sweep *sweep, const char *name, const struct stat *st)
{
	unsigned long long system;
	unsigned int pid;
	time_t		age = sweep->now - st->st_mtime;

	if (sscanf(name, "%llu-%u-", &system, &pid) != 2 ||
		system != GetSystemIdentifier())
		return age >= DAY;
	return age >= sweep->min_age && !sweep->living(pid);
}

static void
sweep_directory(Sweep *sweep, int cache_directory, const char *incoming)
{
	int			fd = nar_open_beneath(cache_directory, incoming,
									  O_RDONLY | O_DIRECTORY, 0, 0);
	DIR		   *dir;
	struct dirent *entry;

	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (dir == NULL)
	{
		close(fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
	{
		struct stat st;

		if (entry->d_name[0] == '.' ||
			fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
			!S_ISREG(st.st_mode) ||
			!is_left_over(sweep, entry->d_name, &st))
			continue;
		if (unlinkat(fd, entry->d_name, 0) == 0)
			sweep->removed++;
	}
	closedir(dir);
}

static void
sweep_cache(Sweep *sweep, const char *cache)
{
	static const char *const places[] = {
		INCOMING, "nar/" INCOMING, "log/" INCOMING,
		"realisations/" INCOMING, "debuginfo/" INCOMING
	};
	int			directory = nar_open_cache(cache);

	if (directory < 0)
		return;
	for (size_t i = 0; i < lengthof(places); i++)
		sweep_directory(sweep, directory, places[i]);
	close(directory);
}

/* The directories of the root that may be caches', whether they are or not. */
static List *
find_caches(void)
{
	List	   *names = NIL;
	DIR		   *dir = opendir(nar_file_root);
	struct dirent *entry;

	if (dir == NULL)
		return NIL;
	while ((entry = readdir(dir)) != NULL)
	{
		if (cache_name_check(entry->d_name, strlen(entry->d_name)) &&
			strcmp(entry->d_name, CACHE_MAIN) != 0)
			names = lappend(names, pstrdup(entry->d_name));
	}
	closedir(dir);
	return names;
}

void
store_sweep(bool (*living) (uint32 pid), int min_age)
{
	Sweep		sweep = {living, min_age, time(NULL), 0};
	ListCell   *cell;

	if (nar_root() < 0)
		return;
	sweep_cache(&sweep, CACHE_MAIN);
	foreach(cell, find_caches())
	{
		CHECK_FOR_INTERRUPTS();
		sweep_cache(&sweep, lfirst(cell));
	}
	if (sweep.removed > 0)
		ereport(LOG,
				(errmsg("pg_narinfo removed " UINT64_FORMAT
						" unfinished uploads", sweep.removed)));
}
