/*-------------------------------------------------------------------------
 *
 * export.c
 *	  CALL export_cache(directory, cache), and CALL checkpoint_cache(directory,
 *	  cache): an export that a follower can start from.
 *
 * All narinfos are those of one snapshot, so the files are closed under
 * references whenever the cache is.  A file is written beside its place and
 * renamed, so nobody reads half of one; one that has the right bytes already
 * is left alone, which makes calling it again cheap.  Everything is on disk
 * before the procedure ends.
 *
 * A checkpoint also has checkpoint.json, which says what the narinfos are: all
 * that was valid after event "seq".  It is there only while that is true: the
 * old one is removed before the first file changes, the new one written when
 * everything else is on disk, and files of paths that are not valid any more,
 * which an export leaves, are removed in between.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "cache/event.h"
#include "cache/import.h"
#include "cache/progress.h"
#include "cache/row.h"
#include "cache/transfer.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(export_cache);
PG_FUNCTION_INFO_V1(checkpoint_cache);

/* Rows that are fetched at once. */
#define BATCH 1000

/*
 * Readable by everybody, as COPY TO writes its files: a web server may be
 * meant to serve them.
 */
#define FILE_MODE 0644
#define DIRECTORY_MODE 0755

#define TEMPORARY_NAME ".pg_narinfo.tmp"
#define CHECKPOINT_NAME "checkpoint.json"
#define CHECKPOINT_VERSION 1

typedef struct Export
{
	MemoryContext batch_context;
	const char *directory;
	int			fd;				/* of the directory, -1: closed */
	char	   *buffer;			/* of the file that is there already */
	size_t		buffer_size;
	bool		durable;		/* each file is on disk before it is there */
	int64		written;
	int64		unchanged;
	int64		removed;
	MemoryContextCallback callback;
} Export;

static void
close_directory(void *arg)
{
	Export	   *export = arg;

	if (export->fd >= 0)
		close(export->fd);
	export->fd = -1;
}

static void
report_file_error(const Export *export, const char *doing, const char *name)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s \"%s/%s\": %m", doing, export->directory,
					name)));
}

static void
open_directory(Export *export, MemoryContext context)
{
	bool		made = mkdir(export->directory, DIRECTORY_MODE) == 0;

	if (!made && errno != EEXIST)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m",
						export->directory)));
	export->fd = open(export->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (export->fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open directory \"%s\": %m",
						export->directory)));
	export->callback.func = close_directory;
	export->callback.arg = export;
	MemoryContextRegisterResetCallback(context, &export->callback);
	/* the server's umask is narrower than what we want */
	if (made && fchmod(export->fd, DIRECTORY_MODE) < 0)
		report_file_error(export, "set permissions of", ".");
}

/* Has the file these bytes already?  Any trouble says no. */
static bool
has_bytes(Export *export, const char *name, const char *text, size_t len)
{
	int			fd = openat(export->fd, name,
							O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat status;
	size_t		done = 0;
	ssize_t		n = 1;

	if (fd < 0)
		return false;
	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
		(size_t) status.st_size != len)
		n = 0;
	while (n > 0 && done < len)
	{
		n = read(fd, export->buffer + done, len - done);
		if (n > 0)
			done += (size_t) n;
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	close(fd);
	return done == len && memcmp(export->buffer, text, len) == 0;
}

/* False with errno set. */
static bool
write_bytes(const Export *export, int fd, const char *text, size_t len)
{
	return transfer_write(fd, text, len) &&
		fchmod(fd, FILE_MODE) == 0 &&
		(!export->durable || fsync(fd) == 0);
}

static void
write_file(Export *export, const char *name, const char *text, size_t len)
{
	bool		good;
	int			save_errno;
	int			fd;

	if (export->buffer_size < len)
	{
		export->buffer_size = len * 2;
		export->buffer = export->buffer ?
			repalloc(export->buffer, export->buffer_size) :
			palloc(export->buffer_size);
	}
	if (has_bytes(export, name, text, len))
	{
		export->unchanged++;
		return;
	}
	fd = openat(export->fd, TEMPORARY_NAME,
				O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
				FILE_MODE);
	if (fd < 0)
		report_file_error(export, "create file", TEMPORARY_NAME);
	good = write_bytes(export, fd, text, len);
	save_errno = errno;
	if (close(fd) < 0 && good)
	{
		good = false;
		save_errno = errno;
	}
	if (good && renameat(export->fd, TEMPORARY_NAME, export->fd, name) == 0)
	{
		export->written++;
		return;
	}
	if (good)
		save_errno = errno;
	unlinkat(export->fd, TEMPORARY_NAME, 0);
	errno = save_errno;
	report_file_error(export, "write file", name);
}

static void
write_row(Export *export, SPITupleTable *rows, uint64 row)
{
	char		name[] = ".................................narinfo";
	bool		isnull;
	Datum		hash = SPI_getbinval(rows->vals[row], rows->tupdesc, 1,
									 &isnull);
	Datum		info = SPI_getbinval(rows->vals[row], rows->tupdesc, 2,
									 &isnull);
	MemoryContext old;
	size_t		len;
	char	   *text;

	store_hash_encode(DatumGetStoreHash(hash), name);
	old = MemoryContextSwitchTo(export->batch_context);
	text = narinfo_to_text(PG_DETOAST_DATUM_PACKED(info), &len);
	MemoryContextSwitchTo(old);
	write_file(export, name, text, len);
}

static void
write_rows(Export *export, const char *cache)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(cache)};
	Portal		cursor;

	cursor = SPI_cursor_open_with_args(NULL,
									   "SELECT hash, info FROM narinfo.valid_path WHERE cache = $1",
									   1, types, values, NULL, true, 0);
	do
	{
		SPI_cursor_fetch(cursor, true, BATCH);
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			CHECK_FOR_INTERRUPTS();
			write_row(export, SPI_tuptable, row);
		}
		progress_report(PROGRESS_WRITING,
						export->written + export->unchanged, 0,
						export->written, export->unchanged, 0);
		MemoryContextReset(export->batch_context);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(cursor);
}

static Export *
begin_export(FunctionCallInfo fcinfo, const char *procedure,
			 ProgressCommand command, TransferArguments *arguments)
{
	Export	   *export;

	transfer_begin(fcinfo, procedure, ROLE_PG_WRITE_SERVER_FILES, false,
				   arguments);
	/* not on the stack: its callback is called when that is gone */
	export = MemoryContextAllocZero(arguments->context, sizeof(Export));
	export->fd = -1;
	export->directory = arguments->directory;
	export->batch_context = AllocSetContextCreate(arguments->context,
												  "narinfo export batch",
												  ALLOCSET_DEFAULT_SIZES);
	open_directory(export, arguments->context);
	progress_start(command, cache_catalog()->valid_path_rel);
	return export;
}

static void
write_cache_info(Export *export, const CacheInfo *cache)
{
	char	   *info = cache_nix_cache_info(cache);

	write_file(export, "nix-cache-info", info, strlen(info));
}

static void
write_to_disk(Export *export)
{
	if (syncfs(export->fd) < 0)
		report_file_error(export, "write to disk", ".");
}

Datum
export_cache(PG_FUNCTION_ARGS)
{
	TransferArguments arguments;
	Export	   *export = begin_export(fcinfo, "export_cache", PROGRESS_EXPORT,
									  &arguments);

	write_rows(export, arguments.cache.name);
	ereport(NOTICE,
			(errmsg("exported " INT64_FORMAT " narinfos of cache \"%s\", "
					INT64_FORMAT " were there already",
					export->written, arguments.cache.name,
					export->unchanged)));
	write_cache_info(export, &arguments.cache);
	write_to_disk(export);

	progress_end();
	transfer_end(&arguments);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * Checkpoints
 *-------------------------------------------------------------------------
 */

static void
remove_file(Export *export, const char *name)
{
	if (unlinkat(export->fd, name, 0) < 0 && errno != ENOENT)
		report_file_error(export, "remove file", name);
}

/* From here on the directory is no checkpoint, not even after a crash. */
static void
remove_checkpoint(Export *export)
{
	remove_file(export, CHECKPOINT_NAME);
	if (fsync(export->fd) < 0)
		report_file_error(export, "write to disk", ".");
}

/* Files of paths that are not valid in the snapshot that was exported. */
static void
remove_others(Export *export, const char *cache)
{
	ImportDirectory *directory = import_open(export->directory,
											 CurrentMemoryContext);
	ValidPathScan *scan = valid_path_begin();
	ImportFile	file;

	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(export->batch_context);

		CHECK_FOR_INTERRUPTS();
		if (!import_next(directory, &file))
		{
			MemoryContextSwitchTo(old);
			break;
		}
		if (file.layout == LAYOUT_NIX && file.good_name &&
			valid_path_find(scan, cache, file.hash) == NULL)
		{
			remove_file(export, file.name);
			export->removed++;
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(export->batch_context);
	}
	valid_path_end(scan);
}

static void
write_checkpoint(Export *export, const CacheInfo *cache,
				 const EventPosition *position, int64 narinfos)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"version\":%d,\"cache\":\"%s\",\"store_dir\":",
					 CHECKPOINT_VERSION, cache->name);
	escape_json(&json, cache->store_dir);
	appendStringInfo(&json, ",\"seq\":" INT64_FORMAT ",\"epoch\":%d"
					 ",\"digest\":\"", position->seq, position->epoch);
	enlargeStringInfo(&json, 2 * DIGEST_LEN);
	json.len += (int) hex_encode((const char *) position->digest, DIGEST_LEN,
								 json.data + json.len);
	json.data[json.len] = '\0';
	appendStringInfo(&json, "\",\"narinfos\":" INT64_FORMAT "}\n",
					 narinfos);
	export->durable = true;
	write_file(export, CHECKPOINT_NAME, json.data, (size_t) json.len);
	if (fsync(export->fd) < 0)
		report_file_error(export, "write to disk", ".");
}

/* Rows, events and files are looked at with one snapshot, the call's. */
Datum
checkpoint_cache(PG_FUNCTION_ARGS)
{
	TransferArguments arguments;
	Export	   *export = begin_export(fcinfo, "checkpoint_cache",
									  PROGRESS_CHECKPOINT, &arguments);
	const char *cache = arguments.cache.name;
	EventPosition position;
	int64		narinfos;
	int64		written;

	event_read_last(cache, &position);
	remove_checkpoint(export);
	write_rows(export, cache);
	written = export->written;
	narinfos = written + export->unchanged;
	remove_others(export, cache);
	write_cache_info(export, &arguments.cache);
	write_to_disk(export);
	write_checkpoint(export, &arguments.cache, &position, narinfos);
	ereport(NOTICE,
			(errmsg("checkpoint of cache \"%s\" after event " INT64_FORMAT
					": " INT64_FORMAT " narinfos, " INT64_FORMAT
					" of them written, " INT64_FORMAT " others removed",
					cache, position.seq, narinfos, written,
					export->removed)));

	progress_end();
	transfer_end(&arguments);
	PG_RETURN_VOID();
}
