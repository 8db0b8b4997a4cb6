/*-------------------------------------------------------------------------
 *
 * import_files.c
 *	  From a directory of .narinfo files to narinfos, one at a time.
 *
 * Nix keeps HASH.narinfo; guix publish, per compression, a directory with
 * HASH-NAME.narinfo.  Both may be there.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/import.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#define SUFFIX ".narinfo"
#define SUFFIX_LEN 8

/* Directories by layout: the directory itself, and guix publish's. */
static const char *const layout_dirs[] = {
	".", "none", "gzip", "lzip", "zstd", "bzip2", "xz"
};

#define NLAYOUTS ((int) lengthof(layout_dirs))

struct ImportDirectory
{
	const char *path;
	int			fd;				/* of the directory, -1: closed */
	int			layout;			/* of what is being read */
	DIR		   *dir;			/* NULL: go on with the next layout */
	char	   *text;			/* of the file at hand */
	size_t		text_size;
	MemoryContextCallback callback;
};

static void
close_directory(void *arg)
{
	ImportDirectory *directory = arg;

	if (directory->dir)
		closedir(directory->dir);
	if (directory->fd >= 0)
		close(directory->fd);
	directory->dir = NULL;
	directory->fd = -1;
}

ImportDirectory *
import_open(const char *path, MemoryContext context)
{
	ImportDirectory *directory = MemoryContextAllocZero(context,
														sizeof(*directory));

	directory->path = MemoryContextStrdup(context, path);
	directory->layout = -1;
	directory->text_size = 8192;
	directory->text = MemoryContextAlloc(context, directory->text_size);
	directory->fd = -1;
	directory->callback.func = close_directory;
	directory->callback.arg = directory;
	MemoryContextRegisterResetCallback(context, &directory->callback);
	directory->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory->fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s\": %m", path)));
	return directory;
}

/* Begin with the next layout whose directory is there. */
static bool
next_layout(ImportDirectory *directory)
{
	while (++directory->layout < NLAYOUTS)
	{
		int			fd = openat(directory->fd,
								layout_dirs[directory->layout],
								O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		/* guix publish makes the directories that it needs */
		if (fd < 0 && (errno == ENOENT || errno == ENOTDIR) &&
			directory->layout != LAYOUT_NIX)
			continue;
		if (fd >= 0 && (directory->dir = fdopendir(fd)) != NULL)
			return true;
		if (fd >= 0)
			close(fd);
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s/%s\": %m",
						directory->path, layout_dirs[directory->layout])));
	}
	return false;
}

/* Reads what the name of a file says; the file itself is not looked at. */
static void
parse_name(ImportFile *file)
{
	Span		stem = span_of(file->name, strlen(file->name) - SUFFIX_LEN);
	StorePath	path;
	ParseError	error;

	if (file->layout == LAYOUT_NIX)
		file->good_name = stem.len == STORE_HASH_TEXT_LEN &&
			store_hash_decode(stem.data, file->hash);
	else
	{
		file->good_name = store_base_name_parse(stem, &path, &error);
		memcpy(file->hash, path.hash, STORE_HASH_LEN);
	}
}

bool
import_next(ImportDirectory *directory, ImportFile *file)
{
	for (;;)
	{
		struct dirent *entry;
		size_t		len;

		if (directory->dir == NULL && !next_layout(directory))
			return false;
		errno = 0;
		entry = readdir(directory->dir);
		if (entry == NULL && errno != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read directory \"%s/%s\": %m",
							directory->path,
							layout_dirs[directory->layout])));
		if (entry == NULL)
		{
			closedir(directory->dir);
			directory->dir = NULL;
			continue;
		}
		len = strlen(entry->d_name);
		if (len < SUFFIX_LEN ||
			strcmp(entry->d_name + len - SUFFIX_LEN, SUFFIX) != 0)
			continue;
		memset(file, 0, sizeof(*file));
		file->layout = directory->layout;
		file->name = pstrdup(entry->d_name);
		parse_name(file);
		return true;
	}
}

/* Room for one byte more than the longest text, to see that it is longer. */
static bool
grow_text(ImportDirectory *directory, ParseError *error)
{
	if (directory->text_size > NARINFO_TEXT_MAX)
		return parse_error(error, "text is longer than %d bytes",
						   NARINFO_TEXT_MAX);
	directory->text_size = Min(directory->text_size * 4,
							   NARINFO_TEXT_MAX + 1);
	directory->text = repalloc(directory->text, directory->text_size);
	return true;
}

static bool
read_all(ImportDirectory *directory, int fd, size_t *len, ParseError *error)
{
	*len = 0;
	for (;;)
	{
		ssize_t		n;

		if (*len == directory->text_size && !grow_text(directory, error))
			return false;
		n = read(fd, directory->text + *len, directory->text_size - *len);
		if (n == 0)
			return true;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return parse_error(error, "could not read file: %s",
							   strerror(errno));
		*len += (size_t) n;
	}
}

/*
 * Whatever is wrong with a file is an error of that file.  Nothing is raised
 * while it is open but lack of memory, which leaks one descriptor of a
 * backend that has other troubles then.
 */
static bool
read_file(ImportDirectory *directory, const ImportFile *file, size_t *len,
		  ParseError *error)
{
	char		path[MAXPGPATH];
	struct stat status;
	bool		good;
	int			fd;

	snprintf(path, sizeof(path), "%s/%s", layout_dirs[file->layout],
			 file->name);
	/* not to wait for whoever writes to a pipe */
	fd = openat(directory->fd, path,
				O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return parse_error(error, "could not open file: %s", strerror(errno));
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
		good = parse_error(error, "it is not a regular file");
	else
		good = read_all(directory, fd, len, error);
	close(fd);
	return good;
}

/* Tells the line of the StorePath that counts. */
static bool
path_error(const char *text, size_t len, const StorePath *path,
		   ParseError *error, const char *message)
{
	char	   *expected = palloc(store_path_len(path));
	Span		rest = span_of(text, len);
	Span		name;
	Span		value;
	uint32		line = 0;

	store_path_print(path, expected);
	parse_error(error, "%s", message);
	while (line++, narinfo_next_field(&rest, &name, &value))
	{
		if (span_is(name, "StorePath") &&
			span_equal(value, span_of(expected, store_path_len(path))))
			error->line = line;
	}
	strlcpy(error->field, "StorePath", sizeof(error->field));
	return false;
}

static bool
check_path(const ImportFile *file, const char *store_dir,
		   const struct varlena *info, const char *text, size_t len,
		   ParseError *error)
{
	PackedRefs	refs;
	StorePath	path;
	char	   *expected;
	bool		same;

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		elog(ERROR, "could not read a narinfo that was just packed");
	expected = import_path_of(file->layout, info);
	same = strcmp(expected, import_file_path(file)) == 0;
	if (!same)
		return path_error(text, len, &path, error,
						  "store path is not that of the file's name");
	if (!span_is(path.dir, store_dir))
		return path_error(text, len, &path, error,
						  "store path is not in the cache's store directory");
	return true;
}

struct varlena *
import_read(ImportDirectory *directory, const ImportFile *file,
			const char *store_dir, ParseError *error)
{
	struct varlena *info;
	size_t		len;

	if (!file->good_name)
	{
		parse_error(error, file->layout == LAYOUT_NIX ?
					"file name is not HASH" SUFFIX :
					"file name is not HASH-NAME" SUFFIX);
		return NULL;
	}
	if (!read_file(directory, file, &len, error))
		return NULL;
	info = narinfo_from_text(directory->text, len, error);
	if (info == NULL ||
		!check_path(file, store_dir, info, directory->text, len, error))
		return NULL;
	return info;
}

char *
import_file_path(const ImportFile *file)
{
	if (file->layout == LAYOUT_NIX)
		return pstrdup(file->name);
	return psprintf("%s/%s", layout_dirs[file->layout], file->name);
}

char *
import_path_of(int layout, const struct varlena *info)
{
	PackedRefs	refs;
	StorePath	path;
	char		hash[STORE_HASH_TEXT_LEN];

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		elog(ERROR, "could not read a narinfo that was just packed");
	store_hash_encode(path.hash, hash);
	if (layout == LAYOUT_NIX)
		return psprintf("%.*s" SUFFIX, STORE_HASH_TEXT_LEN, hash);
	return psprintf("%s/%.*s-%.*s" SUFFIX, layout_dirs[layout],
					STORE_HASH_TEXT_LEN, hash, (int) path.name.len,
					path.name.data);
}
