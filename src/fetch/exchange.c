/*-------------------------------------------------------------------------
 *
 * exchange.c
 *	  One request to another server.  See exchange.h.
 *
 * It says by a header that it is from a site, so that a site that is asked
 * answers from its own files alone: no two ask each other in a circle.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <stdlib.h>
#include <strings.h>

#include "fetch/fetch.h"
#include "fetch/exchange.h"

#define CONNECT_TIMEOUT	10000L	/* ms */
#define HEAD_TIMEOUT	10000L	/* ms for a HEAD as a whole */
#define REDIRECTS_MAX	5L
#define PIECE_SIZE		(64 * 1024L)

/* Bytes that have to come in pg_narinfo.fetch_timeout. */
#define STEP			(16 * 1024)

struct Exchange
{
	CURL	   *easy;
	struct curl_slist *headers;
	ExchangeWish wish;			/* its texts are not kept */
	bool		head_seen;
	int64		range_from;		/* of Content-Range; -1: none */
	const char *fault;			/* what "head" or "body" said */
	char		error[CURL_ERROR_SIZE];
};

/* ---- called by curl ---- */

/* Remembers where a part begins. */
static size_t
take_header(char *data, size_t size, size_t n, void *arg)
{
	static const char name[] = "content-range: bytes ";
	Exchange   *exchange = arg;
	size_t		len = size * n;

	if (len > 5 && strncmp(data, "HTTP/", 5) == 0)
		exchange->range_from = -1;	/* of another reply, after a 302 */
	else if (len > sizeof(name) &&
			 strncasecmp(data, name, sizeof(name) - 1) == 0 &&
			 data[sizeof(name) - 1] >= '0' && data[sizeof(name) - 1] <= '9')
	{
		int64		from = 0;

		for (size_t i = sizeof(name) - 1; i < len && data[i] >= '0' &&
			 data[i] <= '9' && from < PG_INT64_MAX / 16; i++)
			from = from * 10 + (data[i] - '0');
		exchange->range_from = from;
	}
	return len;
}

static int
status_of(Exchange *exchange)
{
	long		status = 0;

	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
	return (int) status;
}

static int64
length_of(Exchange *exchange)
{
	curl_off_t	length = -1;

	curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
					  &length);
	return (int64) length;
}

static const char *
look_at_head(Exchange *exchange)
{
	ExchangeHead head = {
		.status = status_of(exchange),
		.length = length_of(exchange),
		.from = exchange->range_from
	};

	exchange->head_seen = true;
	if (head.status != 200 && head.status != 206)
		return "";				/* the status says it */
	return exchange->wish.head(exchange->wish.arg, &head);
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Exchange   *exchange = arg;
	size_t		len = size * n;

	if (!exchange->head_seen)
		exchange->fault = look_at_head(exchange);
	if (exchange->fault == NULL)
		exchange->fault = exchange->wish.body(exchange->wish.arg,
											  span_of(data, len));
	return exchange->fault == NULL ? len : 0;
}

/* ---- beginning ---- */

static bool
add_header(Exchange *exchange, const char *line)
{
	struct curl_slist *list = curl_slist_append(exchange->headers, line);

	if (list == NULL)
		return false;
	exchange->headers = list;
	return true;
}

/* 0 is the answer of each that went well. */
static int
set_security(CURL *easy, const char *token)
{
	int			trouble = 0;

	trouble |= (int) curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
									  "http,https");
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR,
									  "http,https");
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_MAXREDIRS,
									  REDIRECTS_MAX);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (token == NULL)
		return trouble;

	/* curl does not send it to where it is redirected */
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_HTTPAUTH,
									  (long) CURLAUTH_BEARER);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token);
	return trouble;
}

static int
set_timeouts(CURL *easy, bool head_only)
{
	long		seconds = Max(fetch_patience / 1000, 1);
	int			trouble = 0;

	trouble |= (int) curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);

	/* or giving up would wait for a name to be resolved */
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
									  Min(CONNECT_TIMEOUT,
										  (long) fetch_patience));
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, seconds);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT,
									  Max(STEP / seconds, 1));
	if (head_only)
		trouble |= (int) curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
										  Min(HEAD_TIMEOUT,
											  (long) fetch_patience));
	return trouble;
}

static int
set_callbacks(Exchange *exchange)
{
	CURL	   *easy = exchange->easy;
	int			trouble = 0;

	trouble |= (int) curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_ERRORBUFFER,
									  exchange->error);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION,
									  take_header);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, PIECE_SIZE);
	return trouble;
}

static bool
set_up(Exchange *exchange)
{
	const ExchangeWish *wish = &exchange->wish;
	CURL	   *easy = exchange->easy;
	char		text[96];
	int			trouble = 0;

	snprintf(text, sizeof(text), "%s: " UINT64_FORMAT, FETCH_SITE_HEADER,
			 fetch_site_number());
	if (!add_header(exchange, text))
		return false;
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_URL, wish->url);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_HTTPHEADER,
									  exchange->headers);
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_USERAGENT, "pg_narinfo");
	trouble |= (int) curl_easy_setopt(easy, CURLOPT_NOBODY,
									  wish->head_only ? 1L : 0L);
	if (wish->from > 0)
	{
		snprintf(text, sizeof(text), UINT64_FORMAT "-", wish->from);
		trouble |= (int) curl_easy_setopt(easy, CURLOPT_RANGE, text);
	}
	return trouble == 0 && set_security(easy, wish->token) == 0 &&
		set_timeouts(easy, wish->head_only) == 0 &&
		set_callbacks(exchange) == 0;
}

static void
free_transfer(Exchange *exchange)
{
	if (exchange->easy != NULL)
		curl_easy_cleanup(exchange->easy);
	curl_slist_free_all(exchange->headers);
	free(exchange);
}

Exchange *
exchange_begin(const ExchangeWish *wish)
{
	Exchange   *exchange = calloc(1, sizeof(*exchange));

	if (exchange == NULL)
		return NULL;
	exchange->wish = *wish;
	exchange->range_from = -1;
	exchange->easy = curl_easy_init();
	if (exchange->easy == NULL || !set_up(exchange) ||
		!loop_add(exchange->easy))
	{
		free_transfer(exchange);
		return NULL;
	}
	return exchange;
}

void
exchange_cancel(Exchange *exchange)
{
	loop_remove(exchange->easy);
	free_transfer(exchange);
}

/* ---- the end ---- */

/* Bytes of others, so nothing but what can be shown. */
static void
describe(Exchange *exchange, CURLcode code, ExchangeEnd *end)
{
	const char *text = exchange->fault;

	if (end->status >= 400 || (text != NULL && text[0] == '\0'))
	{
		snprintf(end->error, sizeof(end->error), "HTTP status %d",
				 end->status);
		return;
	}
	if (text == NULL)
		text = exchange->error[0] != '\0' ? exchange->error :
			curl_easy_strerror(code);
	strlcpy(end->error, text, sizeof(end->error));
	for (char *c = end->error; *c != '\0'; c++)
	{
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
}

void
exchange_done(CURL *easy, CURLcode code)
{
	Exchange   *exchange = NULL;
	ExchangeWish wish;
	ExchangeEnd end = {0};

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &exchange);
	end.status = status_of(exchange);
	end.length = length_of(exchange);

	/* an empty body was never handed over */
	if (code == CURLE_OK && !exchange->head_seen)
		exchange->fault = look_at_head(exchange);
	end.whole = code == CURLE_OK && exchange->fault == NULL;
	if (!end.whole)
		describe(exchange, code, &end);

	wish = exchange->wish;
	loop_remove(easy);
	free_transfer(exchange);
	wish.end(wish.arg, &end);
}
