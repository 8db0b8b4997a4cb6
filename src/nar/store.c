/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Putting files among those of a cache.
 *
 * A path is opened as nar/root.h says, and what is made, renamed or removed
 * is a single name in a directory that was opened so: nothing written here
 * leads out of the directory of its cache, either.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "base/hash.h"
#include "cache/cache.h"
#include "nar/gzip.h"
#include "nar/removal.h"
#include "nar/store.h"
#include "nar/temp.h"

#define PIECE (256 * 1024)

/* Names of a path at most: nar/zstd/NAME is Guix' layout. */
#define DEPTH_MAX 3

static int	upload_reserve = 256;	/* MB */
static int	max_unpacked = 64 * 1024;	/* kB */

void
store_init(void)
{
	DefineCustomIntVariable("pg_narinfo.upload_reserve",
							"Space that uploads leave free on the file "
							"system.",
							"An upload that would take of it is refused.",
							&upload_reserve, 256, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_unpacked_size",
							"Size of a file that was sent with "
							"Content-Encoding: gzip, when it is unpacked.",
							NULL, &max_unpacked, 64 * 1024, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
}

/* ---- paths ---- */

static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || (c != '\0' && strchr("+-._?=:!", c));
}

const char *
store_path_trouble(Span path)
{
	int			depth = 1;
	size_t		name_len = 0;

	if (path.len == 0 || path.len > STORE_FILE_PATH_MAX)
		return "the path is too long";
	for (size_t i = 0; i < path.len; i++)
	{
		char		c = path.data[i];

		if (c == '/')
		{
			if (name_len == 0)
				return "a name in the path is empty";
			depth++;
			name_len = 0;
			continue;
		}
		if (name_len == 0 && c == '.')
			return "a name in the path begins with a dot";
		if (!is_name_char(c))
			return "names have letters, digits and +-._?=:! only";
		if (++name_len > NAME_MAX)
			return "a name in the path is too long";
	}
	if (name_len == 0)
		return "a name in the path is empty";
	return depth > DEPTH_MAX ? "the path has too many directories" : NULL;
}

/* The SHA-256 that a file has to have by its name, nar/HASH.nar… */
static bool
named_hash(const char *path, uint8 *digest)
{
	Digest		hash;
	ParseError	error;
	const char *name;
	const char *dot;
	size_t		len;

	if (strncmp(path, "nar/", 4) != 0)
		return false;
	name = path + 4;
	dot = strstr(name, ".nar");
	if (dot == NULL)
		return false;
	len = (size_t) (dot - name);
	if (len != NIX32_LEN(PG_SHA256_DIGEST_LENGTH) &&
		len != BASE16_LEN(PG_SHA256_DIGEST_LENGTH))
		return false;
	if (!hash_digits_parse(span_of(name, len), HASH_SHA256, &hash, &error))
		return false;
	memcpy(digest, hash.bytes, PG_SHA256_DIGEST_LENGTH);
	return true;
}

/* ---- what is in files ---- */

static size_t
read_piece(int fd, uint8 *piece, off_t offset, const char *path)
{
	for (;;)
	{
		ssize_t		n = pread(fd, piece, PIECE, offset);

		if (n >= 0)
			return (size_t) n;
		if (errno != EINTR)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read \"%s\": %m", path)));
	}
}

static bool
has_hash(int fd, const uint8 *wanted, const char *path)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	uint8	   *piece = palloc(PIECE);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	off_t		offset = 0;
	size_t		n;
	bool		done = pg_cryptohash_init(context) >= 0;

	PG_TRY();
	{
		while (done && (n = read_piece(fd, piece, offset, path)) > 0)
		{
			CHECK_FOR_INTERRUPTS();
			done = pg_cryptohash_update(context, piece, n) >= 0;
			offset += (off_t) n;
		}
		if (!done ||
			pg_cryptohash_final(context, digest, sizeof(digest)) < 0)
			elog(ERROR, "could not compute a SHA-256: %s",
				 pg_cryptohash_error(context));
	}
	PG_FINALLY();
	{
		pg_cryptohash_free(context);
	}
	PG_END_TRY();
	pfree(piece);
	return memcmp(digest, wanted, sizeof(digest)) == 0;
}

static bool
same_content(int a, int b, const char *path)
{
	uint8	   *piece_a = palloc(PIECE);
	uint8	   *piece_b = palloc(PIECE);
	off_t		offset = 0;
	bool		same = true;
	size_t		n;

	do
	{
		CHECK_FOR_INTERRUPTS();
		n = read_piece(a, piece_a, offset, path);
		same = n == read_piece(b, piece_b, offset, path) &&
			memcmp(piece_a, piece_b, n) == 0;
		offset += (off_t) n;
	} while (same && n > 0);
	pfree(piece_a);
	pfree(piece_b);
	return same;
}

bool
store_has_space(int fd, uint64 length)
{
	struct statvfs fs;
	uint64		room;

	if (fstatvfs(fd, &fs) != 0)
		return true;			/* then writing will tell */
	room = (uint64) fs.f_bavail * fs.f_frsize;
	return room >= (uint64) upload_reserve * 1024 * 1024 &&
		room - (uint64) upload_reserve * 1024 * 1024 >= length;
}

/* ---- bringing a file to its place ---- */

typedef struct Keeping
{
	const char *cache;
	const char *path;
	const StoreTemp *received;
	StoreTemp	temp;			/* what is kept of it: it, or unpacked */
	int			directory;		/* the cache's */
	int			fd;				/* of temp */
	int			there;			/* of what is at "path", or -1 */
	struct stat there_st;		/* of it */
	char	   *reason;
	size_t		reason_size;
} Keeping;

/* Is what was received at its place already, by one who was cut off then? */
static StoreResult
was_kept(Keeping *keeping)
{
	struct stat st;
	int			fd = nar_open_file(keeping->directory, keeping->path, &st);

	if (fd < 0)
		return STORE_LOST;
	close(fd);
	if ((uint64) st.st_dev != keeping->received->device ||
		(uint64) st.st_ino != keeping->received->inode)
		return STORE_LOST;
	temp_sync_directories(keeping->directory, keeping->path);
	return STORE_NEW;
}

/* Unpacks into another temporary file, which takes its place. */
static StoreResult
unpack(Keeping *keeping)
{
	StoreTemp	unpacked;
	int			fd = store_create(keeping->cache, keeping->path, &unpacked);
	GzipResult	result;

	if (fd < 0)
		return STORE_NO_SPACE;
	result = gzip_unpack_file(keeping->fd, fd, (uint64) max_unpacked * 1024);
	close(keeping->fd);
	keeping->fd = fd;
	keeping->temp = unpacked;
	switch (result)
	{
		case GZIP_OK:
			return STORE_NEW;
		case GZIP_BAD:
			return STORE_BAD_GZIP;
		case GZIP_TOO_LARGE:
			return STORE_TOO_LARGE;
		case GZIP_ERROR:
			break;
	}
	if (errno == ENOSPC || errno == EDQUOT)
		return STORE_NO_SPACE;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not unpack \"%s\": %m", keeping->path)));
}

static StoreResult
refuse(Keeping *keeping, const char *why)
{
	snprintf(keeping->reason, keeping->reason_size, "%s %s", keeping->path,
			 why);
	return STORE_REFUSED;
}

/* Does what is there, and is the same, stay as if it were new? */
static bool
stays(Keeping *keeping)
{
	return strncmp(keeping->path, "nar/", 4) != 0 ||
		removal_hold(keeping->cache,
					 span_of(keeping->path, strlen(keeping->path)),
					 span_of(NULL, 0), keeping->there, &keeping->there_st);
}

/* What to do with it, as nothing was done yet. */
static StoreResult
decide(Keeping *keeping)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	bool		named = named_hash(keeping->path, digest);

	if (keeping->there >= 0 &&
		same_content(keeping->fd, keeping->there, keeping->path))
		return stays(keeping) ? STORE_SAME : STORE_REPLACED;
	if (named && !has_hash(keeping->fd, digest, keeping->path))
		return refuse(keeping, "does not have the SHA-256 of its name");
	if (keeping->there < 0)
		return STORE_NEW;
	if (!named && strncmp(keeping->path, "nar/", 4) == 0)
		return refuse(keeping, "is there already, and is another file");
	return STORE_REPLACED;
}

static StoreResult
put_in_place(Keeping *keeping, StoreResult result)
{
	int			from;
	int			to;
	bool		done;
	int			error;

	if (pg_fsync(keeping->fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync \"%s\": %m", keeping->temp.name)));
	from = temp_open_directory(keeping->directory,
							   temp_parent(keeping->temp.name));
	to = temp_open_directory(keeping->directory, temp_parent(keeping->path));
	done = from >= 0 && to >= 0 &&
		renameat(from, temp_name(keeping->temp.name),
				 to, temp_name(keeping->path)) == 0;
	error = errno;
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	if (!done && (error == EISDIR || error == ENOTEMPTY ||
				  error == EEXIST || error == ENOTDIR))
		return refuse(keeping, "is a directory, or lies below a file");
	if (!done && (error == ENOSPC || error == EDQUOT))
		return STORE_NO_SPACE;
	errno = error;
	if (!done)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not rename \"%s\" to \"%s\": %m",
						keeping->temp.name, keeping->path)));
	keeping->temp.name[0] = '\0';
	return result;
}

static StoreResult
keep(Keeping *keeping, bool gzip)
{
	StoreResult result = STORE_NEW;

	keeping->fd = nar_open_beneath(keeping->directory, keeping->temp.name,
								   O_RDWR | O_NOFOLLOW, 0, 0);
	if (keeping->fd < 0)
		return was_kept(keeping);
	if (gzip)
		result = unpack(keeping);
	if (result != STORE_NEW)
		return result;

	keeping->there = nar_open_file(keeping->directory, keeping->path,
								   &keeping->there_st);
	result = decide(keeping);
	if (result == STORE_NEW || result == STORE_REPLACED)
		result = put_in_place(keeping, result);

	/* the one who put it there first may not be through with this */
	if (result != STORE_REFUSED && result != STORE_NO_SPACE)
		temp_sync_directories(keeping->directory, keeping->path);
	return result;
}

StoreResult
store_keep(const char *cache, const char *path, const StoreTemp *temp,
		   bool gzip, char *reason, size_t reason_size)
{
	Keeping		keeping = {
		.cache = cache, .path = path, .received = temp, .temp = *temp,
		.fd = -1, .there = -1, .reason = reason, .reason_size = reason_size
	};
	volatile StoreResult result = STORE_LOST;

	keeping.directory = nar_open_cache(cache);
	if (keeping.directory < 0)
		return STORE_LOST;
	PG_TRY();
	{
		result = keep(&keeping, gzip);
	}
	PG_FINALLY();
	{
		if (keeping.fd >= 0)
			close(keeping.fd);
		if (keeping.there >= 0)
			close(keeping.there);
		close(keeping.directory);
		store_discard(cache, temp);
		if (keeping.temp.name[0] != '\0')
			store_discard(cache, &keeping.temp);
	}
	PG_END_TRY();
	return result;
}
