/*-------------------------------------------------------------------------
 *
 * writer_job.c
 *	  What the writer worker does to a job before, or without, a transaction:
 *	  files are brought to their places, narinfos are read and compared with
 *	  what they are about.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "nar/removal.h"
#include "nar/store.h"
#include "types/types.h"
#include "worker/writer.h"

/* ---- files ---- */

void
writer_store(HeldJob *held)
{
	char		reason[JOB_REASON_MAX];

	switch (store_keep(held->job.cache, held->job.path, &held->job.temp,
					   held->job.gzip, reason, sizeof(reason)))
	{
		case STORE_NEW:
			held_answer(held, 201, "stored");
			break;
		case STORE_SAME:
			held_answer(held, 200, "it was there");
			break;
		case STORE_REPLACED:
			held_answer(held, 200, "stored in the place of another");
			break;
		case STORE_REFUSED:
			held_answer(held, 403, "%s", reason);
			break;
		case STORE_BAD_GZIP:
			held_answer(held, 400, "%s is not whole as gzip",
						held->job.path);
			break;
		case STORE_TOO_LARGE:
			held_answer(held, 413, "%s is too large when it is unpacked",
						held->job.path);
			break;
		case STORE_NO_SPACE:
			held_answer(held, 507, "no space is left for %s",
						held->job.path);
			break;
		case STORE_LOST:
			held_answer(held, 503, "what was received of %s was lost",
						held->job.path);
			break;
	}
}

/* ---- narinfos ---- */

/* A text that was too long for shared memory. */
static bool
read_text(HeldJob *held)
{
	int			directory = nar_open_cache(held->job.cache);
	struct stat st;
	int			fd = -1;
	ssize_t		n = -1;

	if (directory >= 0)
	{
		fd = nar_try_beneath(directory, held->job.temp.name,
							 O_RDONLY | O_NOFOLLOW, 0, 0);
		close(directory);
	}
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size <= NARINFO_TEXT_MAX)
	{
		held->text = palloc(st.st_size + 1);
		held->text_len = (size_t) st.st_size;
		n = read(fd, held->text, held->text_len);
		held->text[held->text_len] = '\0';
	}
	if (fd >= 0)
		close(fd);
	return n >= 0 && (size_t) n == held->text_len;
}

/* Is the file there, and as large as it should be? */
static bool
check_file(HeldJob *held, const NarinfoUrl *url)
{
	char	   *path = nar_url_path(url->url);
	struct stat st;
	int			fd;
	bool		stays;

	if (path == NULL)
	{
		held_answer(held, 403,
					"URL \"%.*s\" names no file below nar/ of this cache",
					(int) Min(url->url.len, 300), url->url.data);
		return false;
	}
	fd = nar_open_path(held->job.cache, path, &st);
	if (fd < 0)
	{
		held_answer(held, 403, "%s is not here: push the NAR first", path);
		return false;
	}
	/* it may have been about to be removed; the check takes time */
	stays = removal_hold(held->job.cache, span_of(path, strlen(path)),
						 span_of(NULL, 0), fd, &st);
	close(fd);
	if (!stays)
	{
		held_answer(held, 403, "%s is not here any more: push it again",
					path);
		return false;
	}
	if (url->has_file_size && url->file_size != (uint64) st.st_size)
	{
		held_answer(held, 403, "%s has " INT64_FORMAT
					" bytes, but FileSize is " UINT64_FORMAT, path,
					(int64) st.st_size, (uint64) url->file_size);
		return false;
	}
	return true;
}

static bool
check_files(HeldJob *held, const Narinfo *narinfo)
{
	for (int i = 0; i < narinfo->nurls; i++)
	{
		if (!check_file(held, &narinfo->urls[i]))
			return false;
	}
	return true;
}

/* A narinfo under another path's name would never be found, or for another. */
static bool
check_name(HeldJob *held)
{
	char		hash[STORE_HASH_TEXT_LEN];

	store_hash_encode(packed_store_hash(NARINFO_PACKED(held->info)), hash);
	if (memcmp(hash, held->job.path, STORE_HASH_TEXT_LEN) == 0)
		return true;
	held_answer(held, 403,
				"StorePath has the hash %.*s, but it was put as %s.narinfo",
				STORE_HASH_TEXT_LEN, hash, held->job.path);
	return false;
}

static void
prepare_narinfo(HeldJob *held)
{
	ParseError	error;
	Narinfo		narinfo;

	if (held->job.temp.name[0] != '\0' && !read_text(held))
	{
		held_answer(held, 503, "what was received of %s.narinfo was lost",
					held->job.path);
		return;
	}
	held->info = narinfo_from_text(held->text, held->text_len, &error);
	if (held->info == NULL)
	{
		held_answer(held, 400, "invalid narinfo: %s",
					describe_parse_error(&error));
		return;
	}
	if (!narinfo_parse(held->text, held->text_len, &narinfo, &error))
		elog(ERROR, "a narinfo is one and is none");
	if (check_name(held) && check_files(held, &narinfo))
		held->state = writer_check_nars ? HELD_UNCHECKED : HELD_READY;
}

void
writer_prepare(HeldJob *held)
{
	switch (held->job.kind)
	{
		case JOB_STORE:
			if (held->text_len == sizeof(NarExpectation))
				held->state = HELD_UNCHECKED;
			else
				writer_store(held);
			break;
		case JOB_PUBLISH:
			prepare_narinfo(held);
			break;
		case JOB_TOUCH:
			held->state = HELD_READY;
			break;
		case JOB_DISCARD:
			store_discard(held->job.cache, &held->job.temp);
			held_answer(held, 200, "discarded");
			break;
	}
}
