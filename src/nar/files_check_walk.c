/*-------------------------------------------------------------------------
 *
 * files_check_walk.c
 *	  Which files there are below nar/ of a cache, and a table of them.
 *
 * Names that begin with a dot are uploads on their way, or files on theirs
 * out.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "nar/files_check.h"
#include "nar/removal.h"
#include "nar/root.h"

#define DEPTH_MAX 8				/* directories in directories */

/*-------------------------------------------------------------------------
 * The table
 *-------------------------------------------------------------------------
 */

#define SH_PREFIX filehash
#define SH_ELEMENT_TYPE FileEntry
#define SH_KEY_TYPE FileKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) ((uint32) (key).words[0])
#define SH_EQUAL(table, a, b) \
	((a).words[0] == (b).words[0] && (a).words[1] == (b).words[1])
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct FileTable
{
	filehash_hash *hash;
	uint64		seed;			/* whoever publishes chooses the paths */
};

FileTable *
file_table_create(MemoryContext context)
{
	FileTable  *table = MemoryContextAlloc(context, sizeof(FileTable));

	table->hash = filehash_create(context, 1024, NULL);
	table->seed = pg_prng_uint64(&pg_global_prng_state);
	return table;
}

static FileKey
key_of(const FileTable *table, const char *path)
{
	XXH128_hash_t hash = XXH3_128bits_withSeed(path, strlen(path),
											   table->seed);
	FileKey		key = {{hash.low64, hash.high64}};

	return key;
}

FileEntry *
file_table_add(FileTable *table, const char *path, int64 bytes)
{
	bool		found;
	FileEntry  *entry = filehash_insert(table->hash, key_of(table, path),
										&found);

	entry->bytes = bytes;
	entry->named = false;
	return entry;
}

FileEntry *
file_table_find(FileTable *table, const char *path)
{
	return filehash_lookup(table->hash, key_of(table, path));
}

uint64
file_table_count(const FileTable *table)
{
	return table->hash->members;
}

/*-------------------------------------------------------------------------
 * The walk
 *-------------------------------------------------------------------------
 */

typedef struct Walk
{
	const char *cache;
	int			directory;		/* of the cache */
	FileVisitor visit;
	void	   *arg;
} Walk;

static void walk_directory(Walk *walk, const char *path, int depth);

static void
visit_entry(Walk *walk, int fd, const char *parent, const char *name,
			int depth)
{
	char	   *path;
	struct stat st;

	if (name[0] == '.' || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return;
	path = psprintf("%s/%s", parent, name);
	/* a link that leads nowhere, or out of here, is not served */
	if (!S_ISLNK(st.st_mode) || removal_stat(walk->cache, path, &st))
	{
		if (S_ISREG(st.st_mode))
			walk->visit(walk->arg, path, &st);
		else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
			walk_directory(walk, path, depth + 1);
	}
	pfree(path);
}

static void
walk_directory(Walk *walk, const char *path, int depth)
{
	int			fd = nar_open_beneath(walk->directory, path,
									  O_RDONLY | O_DIRECTORY, 0, 0);
	DIR		   *dir;
	struct dirent *entry;

	if (fd < 0)
		return;					/* it was there just now */
	dir = fdopendir(fd);
	if (dir == NULL)
	{
		close(fd);
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s\": %m", path)));
	}
	PG_TRY();
	{
		while (errno = 0, (entry = readdir(dir)) != NULL)
		{
			CHECK_FOR_INTERRUPTS();
			visit_entry(walk, fd, path, entry->d_name, depth);
		}
		if (errno != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read directory \"%s\": %m", path)));
	}
	PG_FINALLY();
	{
		closedir(dir);
	}
	PG_END_TRY();
}

void
files_walk(const char *cache, FileVisitor visit, void *arg)
{
	Walk		walk = {
		.cache = cache, .directory = nar_open_cache(cache),
		.visit = visit, .arg = arg
	};

	if (walk.directory < 0)
		return;
	PG_TRY();
	{
		walk_directory(&walk, "nar", 0);
	}
	PG_FINALLY();
	{
		close(walk.directory);
	}
	PG_END_TRY();
}

int64
files_size(const char *cache, const char *path)
{
	struct stat st;

	if (strncmp(path, "nar/", 4) != 0 || strstr(path, "/.") != NULL ||
		!removal_stat(cache, path, &st) || !S_ISREG(st.st_mode))
		return -1;
	return (int64) st.st_size;
}
