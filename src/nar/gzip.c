/*-------------------------------------------------------------------------
 *
 * gzip.c
 *	  Unpacking gzip, by zlib.
 *
 * Nothing here raises an error while zlib holds memory.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>
#include <zlib.h>

#include "nar/gzip.h"

#define PIECE (64 * 1024)

/* gzip alone, with the largest window. */
#define GZIP_WINDOW (16 + MAX_WBITS)

static bool
write_all(int fd, const unsigned char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			return false;
		}
		data += n;
		len -= (size_t) n;
	}
	return true;
}

/* Unpacks what the stream has as input; *ended tells of the end. */
static GzipResult
unpack_piece(z_stream *stream, unsigned char *room, int out, uint64 *left,
			 bool *ended)
{
	do
	{
		int			result;
		size_t		len;

		stream->next_out = room;
		stream->avail_out = PIECE;
		result = inflate(stream, Z_NO_FLUSH);
		len = PIECE - stream->avail_out;
		if (result == Z_BUF_ERROR && len == 0)
			return GZIP_OK;		/* wants more input */
		if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
			return GZIP_BAD;
		if (len > *left)
			return GZIP_TOO_LARGE;
		*left -= len;
		if (!write_all(out, room, len))
			return GZIP_ERROR;
		*ended = (result == Z_STREAM_END);
	} while (!*ended && (stream->avail_in > 0 || stream->avail_out == 0));

	/* another member, or bytes that belong to nothing */
	return *ended && stream->avail_in > 0 ? GZIP_BAD : GZIP_OK;
}

static GzipResult
unpack_stream(z_stream *stream, int in, int out, unsigned char *rooms,
			  uint64 max)
{
	off_t		offset = 0;
	bool		ended = false;

	for (;;)
	{
		ssize_t		n = pread(in, rooms, PIECE, offset);
		GzipResult	result;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return GZIP_ERROR;
		if (n == 0)
			return ended ? GZIP_OK : GZIP_BAD;
		if (ended)
			return GZIP_BAD;
		offset += n;
		stream->next_in = rooms;
		stream->avail_in = (uInt) n;
		result = unpack_piece(stream, rooms + PIECE, out, &max, &ended);
		if (result != GZIP_OK)
			return result;
	}
}

GzipResult
gzip_unpack_file(int in, int out, uint64 max)
{
	unsigned char *rooms = palloc(2 * PIECE);
	z_stream	stream = {0};
	GzipResult	result = GZIP_ERROR;
	int			error;

	errno = ENOMEM;
	if (inflateInit2(&stream, GZIP_WINDOW) == Z_OK)
	{
		result = unpack_stream(&stream, in, out, rooms, max);
		error = errno;
		(void) inflateEnd(&stream);
		errno = error;
	}
	pfree(rooms);
	return result;
}

GzipResult
gzip_unpack(Span packed, size_t max, Span *text)
{
	char	   *room = palloc(max + 1);
	z_stream	stream = {0};
	int			result;
	bool		full;
	bool		rest;

	errno = ENOMEM;
	if (inflateInit2(&stream, GZIP_WINDOW) != Z_OK)
		return GZIP_ERROR;
	stream.next_in = (unsigned char *) unconstify(char *, packed.data);
	stream.avail_in = (uInt) packed.len;
	stream.next_out = (unsigned char *) room;
	stream.avail_out = (uInt) max + 1;
	result = inflate(&stream, Z_FINISH);
	full = (stream.avail_out == 0);
	rest = (stream.avail_in > 0);
	*text = span_of(room, stream.total_out);
	(void) inflateEnd(&stream);
	if (full)
		return GZIP_TOO_LARGE;
	if (result != Z_STREAM_END || rest)
		return GZIP_BAD;
	room[text->len] = '\0';
	return GZIP_OK;
}
