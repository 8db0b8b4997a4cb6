/*-------------------------------------------------------------------------
 *
 * listen.h
 *	  Listening sockets: from a list of addresses to descriptors.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_LISTEN_H
#define NARINFO_HTTP_LISTEN_H

#include <sys/types.h>

#include "base/text.h"

/* One socket; "*:5000" and names of several addresses make several. */
typedef struct HttpListener
{
	struct HttpListener *next;
	int			fd;
	bool		is_unix;
	bool		keep;			/* while lists are compared */
	bool		watched;		/* by epoll */
	dev_t		dev;			/* of the unix socket's file, lest another be
								 * removed in its place */
	ino_t		ino;
	char		name[];			/* the element of the list it was made for */
} HttpListener;

/*
 * Opens what the list names and is not yet in *listeners, marks everything
 * that it names with "keep", and puts the new ones in front.  On false
 * *listeners is as before.
 */
extern bool http_listeners_open(HttpListener **listeners,
								const char *addresses, bool first,
								char *error, size_t error_size);

/* Closes one that is in no list any more, and removes its file. */
extern void http_listener_close(HttpListener *listener);

#endif							/* NARINFO_HTTP_LISTEN_H */
