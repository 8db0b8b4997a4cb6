/*-------------------------------------------------------------------------
 *
 * exchange.h
 *	  One request to another server, by libcurl; the loop of all of them.
 *
 *	  loop.c		curl's multi handle in an epoll set of its own, which the
 *					process waits for as for any socket
 *	  exchange.c	one request, and what becomes of its reply
 *
 * No error of PostgreSQL is raised while curl is on the stack: what it calls
 * back writes to a file, counts, and remembers.  Everything else happens in
 * fetch_poll(), when curl has returned.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_FETCH_EXCHANGE_H
#define NARINFO_FETCH_EXCHANGE_H

#include "postgres.h"

#include <curl/curl.h>

#include "base/text.h"

#define EXCHANGE_ERROR_MAX 200

typedef struct Exchange Exchange;

/* How it ended. */
typedef struct ExchangeEnd
{
	bool		whole;			/* a reply with 200 or 206, to its end */
	int			status;			/* of HTTP; 0: there was none */
	int64		length;			/* Content-Length, -1 if there was none */
	char		error[EXCHANGE_ERROR_MAX];	/* in words, if it is not whole */
} ExchangeEnd;

typedef struct ExchangeHead
{
	int			status;			/* 200 or 206 */
	int64		length;			/* of the body, -1: not known */
	int64		from;			/* of Content-Range, -1: none */
} ExchangeHead;

/*
 * What is wanted of it.  "head" and "body" are called with curl on the stack:
 * they call nothing of PostgreSQL's, and end the exchange by returning an
 * error in words, a constant.  "end" is called once, with nothing on the
 * stack; the exchange is gone then.
 */
typedef struct ExchangeWish
{
	const char *url;
	const char *token;			/* for Authorization: Bearer; or NULL */
	bool		head_only;		/* HEAD */
	uint64		from;			/* first byte that is wanted */
	void	   *arg;
	const char *(*head) (void *arg, const ExchangeHead *head);
	const char *(*body) (void *arg, Span piece);
	void		(*end) (void *arg, const ExchangeEnd *end);
} ExchangeWish;

/* NULL when it cannot be begun, for lack of memory; "end" is not called. */
extern Exchange *exchange_begin(const ExchangeWish *wish);

/* Breaks it off; "end" is not called. */
extern void exchange_cancel(Exchange *exchange);

/* ---- loop.c, for exchange.c ---- */

extern bool loop_add(CURL *easy);
extern void loop_remove(CURL *easy);

/* In exchange.c: curl is done with it. */
extern void exchange_done(CURL *easy, CURLcode code);

#endif							/* NARINFO_FETCH_EXCHANGE_H */
