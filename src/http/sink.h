/*-------------------------------------------------------------------------
 *
 * sink.h
 *	  A file that is written as its bytes come in from the network.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_SINK_H
#define NARINFO_HTTP_SINK_H

#include "base/text.h"

typedef struct HttpSink
{
	int			fd;
	uint64_t	length;			/* bytes written */
} HttpSink;

/*
 * Writes all of it, at the file's position; false with errno, ENOSPC also
 * where the system says nothing.  It is never synced.
 */
extern bool http_sink_write(HttpSink *sink, Span piece);

#endif							/* NARINFO_HTTP_SINK_H */
