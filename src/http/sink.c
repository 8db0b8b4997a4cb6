/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  Writing a file as it comes in.  See sink.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "http/sink.h"

/* So many bytes of a file are given to the disk at a time. */
#define WRITE_BEHIND	(8 * 1024 * 1024)

/*
 * Has the kernel write to disk while more still comes.  Else a large file is
 * all dirty at its end, and whoever writes, this process included, waits
 * while it is written at once.
 */
static void
write_behind(HttpSink *sink)
{
	uint64_t	now = sink->length / WRITE_BEHIND * WRITE_BEHIND;

	if (now == sink->behind)
		return;
	(void) sync_file_range(sink->fd, (off_t) sink->behind,
						   (off_t) (now - sink->behind),
						   SYNC_FILE_RANGE_WRITE);
	sink->behind = now;
}

bool
http_sink_write(HttpSink *sink, Span piece)
{
	while (piece.len > 0)
	{
		ssize_t		written = write(sink->fd, piece.data, piece.len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			errno = written < 0 ? errno : ENOSPC;
			return false;
		}
		sink->length += (uint64_t) written;
		piece = span_skip(piece, (size_t) written);
	}
	write_behind(sink);
	return true;
}
