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
#include <unistd.h>

#include "http/sink.h"

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
	return true;
}
