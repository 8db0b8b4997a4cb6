/*-------------------------------------------------------------------------
 *
 * growth.h
 *	  A file that is sent while it still grows, and of which nobody knows yet
 *	  whether it is the right one.
 *
 *	  http_growth_create	whoever writes the file
 *		|
 *		v
 *	  HttpReply.growth		any number of replies, each from its own offset
 *		|
 *		v
 *	  http_growth_set		so much is there: who waits for it goes on
 *		|
 *		+--- GOOD			every reply is sent to its end
 *		+--- FAILED			every connection is cut
 *
 * Until it is GOOD the last byte of each reply is kept back, so none is ever
 * complete that should not be.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_GROWTH_H
#define NARINFO_HTTP_GROWTH_H

#include <sys/types.h>

#include "http/link.h"

typedef enum HttpGrowthState
{
	HTTP_GROWTH_COMING,
	HTTP_GROWTH_GOOD,
	HTTP_GROWTH_FAILED
} HttpGrowthState;

typedef struct HttpGrowth
{
	int			holders;
	HttpGrowthState state;
	off_t		size;			/* bytes of the file that are there */
	HttpLink	waiting;		/* clients that have sent them all */
} HttpGrowth;

/* NULL when memory is short; else to be released. */
extern HttpGrowth *http_growth_create(void);

/* Whoever sends from it holds it, too. */
extern void http_growth_hold(HttpGrowth *growth);
extern void http_growth_release(HttpGrowth *growth);

/* Not to be called from within this room; it may close connections. */
extern void http_growth_set(HttpGrowth *growth, off_t size,
							HttpGrowthState state);

#endif							/* NARINFO_HTTP_GROWTH_H */
