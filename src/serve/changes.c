/*-------------------------------------------------------------------------
 *
 * changes.c
 *	  GET /changes?after=N&limit=M: what a follower reads.
 *
 * Each event is one line, an object of JSON:
 *
 *	{"seq":7,"epoch":1,"at":"2026-01-31T12:00:00.000000Z","kind":"publish",
 *	 "hash":"…","name":null,"digest":"…","narinfo":"StorePath: …\n…"}
 *
 * (in one line).  "hash" is null where the event is about no path, "name"
 * where it is about no key, "narinfo" where there is none or none any more.
 * A narinfo is told byte for byte: one that is no UTF-8, which a string of
 * JSON has to be, is told in base 16 as "narinfo_hex" instead.
 *
 * A reply has as many lines as were asked for, or less: it ends behind the
 * event that makes it larger than REPLY_MAX.  Only an empty one says that
 * there is nothing more.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "cache/row.h"
#include "serve/route.h"
#include "types/types.h"

#define LIMIT_DEFAULT	1000
#define LIMIT_MAX		10000
#define REPLY_MAX		(1024 * 1024)	/* bytes */

#define JSON_LINES		"application/x-ndjson"

/*-------------------------------------------------------------------------
 * Parameters
 *-------------------------------------------------------------------------
 */

typedef struct Parameters
{
	int64		after;
	int64		limit;
} Parameters;

/* A number of digits alone, at most INT64_MAX. */
static bool
parse_number(Span text, int64 *number)
{
	int64		value = 0;

	if (text.len == 0)
		return false;
	for (size_t i = 0; i < text.len; i++)
	{
		int			digit = text.data[i] - '0';

		if (digit < 0 || digit > 9 || value > (PG_INT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*number = value;
	return true;
}

/* NAME=NUMBER; each at most once, so those that are set already are bad. */
static bool
parse_parameter(Span text, Parameters *parameters)
{
	int64	   *number = NULL;
	size_t		len = 0;

	if (span_starts(text, "after="))
	{
		number = &parameters->after;
		len = strlen("after=");
	}
	else if (span_starts(text, "limit="))
	{
		number = &parameters->limit;
		len = strlen("limit=");
	}
	return number != NULL && *number < 0 &&
		parse_number(span_skip(text, len), number);
}

/* False if they are not as they should be. */
static bool
parse_parameters(Span query, Parameters *parameters)
{
	parameters->after = -1;
	parameters->limit = -1;
	while (query.len > 0)
	{
		const char *end = memchr(query.data, '&', query.len);
		size_t		len = end ? (size_t) (end - query.data) : query.len;

		if (!parse_parameter(span_of(query.data, len), parameters))
			return false;
		query = span_skip(query, end ? len + 1 : len);
		if (end && query.len == 0)
			return false;
	}
	if (parameters->after < 0)
		parameters->after = 0;
	if (parameters->limit < 0)
		parameters->limit = LIMIT_DEFAULT;
	parameters->limit = Min(parameters->limit, LIMIT_MAX);
	return parameters->limit > 0;
}

/*-------------------------------------------------------------------------
 * JSON
 *-------------------------------------------------------------------------
 */

static void
add_time(StringInfo json, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
	{
		appendStringInfoString(json, "null");
		return;
	}
	appendStringInfo(json, "\"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ\"",
					 tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min,
					 tm.tm_sec, fsec);
}

static void
add_hex(StringInfo json, const char *bytes, size_t len)
{
	appendStringInfoChar(json, '"');
	enlargeStringInfo(json, (int) len * 2);
	json->len += (int) hex_encode(bytes, len, json->data + json->len);
	appendStringInfoChar(json, '"');
}

static void
add_narinfo(StringInfo json, const struct varlena *info)
{
	size_t		len;
	char	   *text;

	if (info == NULL)
	{
		appendStringInfoString(json, ",\"narinfo\":null");
		return;
	}
	text = narinfo_to_text(info, &len);
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) == (int) len)
	{
		appendStringInfoString(json, ",\"narinfo\":");
		escape_json(json, text);
	}
	else
	{
		appendStringInfoString(json, ",\"narinfo_hex\":");
		add_hex(json, text, len);
	}
	pfree(text);
}

static void
add_event(StringInfo json, const FollowEvent *event)
{
	char		hash[STORE_HASH_TEXT_LEN];

	appendStringInfo(json, "{\"seq\":" INT64_FORMAT ",\"epoch\":%d,\"at\":",
					 event->seq, event->epoch);
	add_time(json, event->at);
	appendStringInfo(json, ",\"kind\":\"%s\",\"hash\":", event->label);
	if (event->hash)
	{
		store_hash_encode(event->hash, hash);
		appendStringInfo(json, "\"%.*s\"", STORE_HASH_TEXT_LEN, hash);
	}
	else
		appendStringInfoString(json, "null");
	appendStringInfoString(json, ",\"name\":");
	if (event->name)
		escape_json(json, event->name);
	else
		appendStringInfoString(json, "null");
	appendStringInfoString(json, ",\"digest\":");
	add_hex(json, (const char *) event->digest, DIGEST_LEN);
	add_narinfo(json, event->info);
	appendStringInfoString(json, "}\n");
}

/*-------------------------------------------------------------------------
 * Replies
 *-------------------------------------------------------------------------
 */

static void
reply_json(HttpReply *reply, int status, const char *type, StringInfo json)
{
	reply->status = status;
	reply->content_type = type;
	reply->headers = SERVE_NO_STORE;
	reply->body = json->data;
	reply->body_len = (size_t) json->len;
}

/* What the follower wants next is gone: where it can start over. */
static void
reply_gone(const CacheInfo *cache, const FollowRange *range, int64 after,
		   HttpReply *reply)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json,
					 "{\"error\":\"these events are not kept any more\","
					 "\"cache\":\"%s\",\"after\":" INT64_FORMAT
					 ",\"first\":" INT64_FORMAT ",\"last\":" INT64_FORMAT
					 ",\"start_over\":{\"checkpoint\":",
					 cache->name, after, range->first, range->last);
	if (serve_checkpoint_url[0] != '\0')
		escape_json(&json, psprintf("%s/%s/", serve_checkpoint_url,
									cache->name));
	else
		appendStringInfoString(&json, "null");
	appendStringInfo(&json, ",\"seq_at_least\":" INT64_FORMAT "}}\n",
					 range->first - 1);
	reply_json(reply, 410, "application/json", &json);
}

/* What is not shown yet is not told either, so that nothing told is lost. */
static void
reply_events(const CacheInfo *cache, Follower *follower, int64 limit,
			 HttpReply *reply)
{
	int64		last = hidden_from(cache);
	StringInfoData json;
	FollowEvent event;

	initStringInfo(&json);
	for (int64 n = 0; n < limit && json.len < REPLY_MAX; n++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!follow_next(follower, &event) || event.seq > last)
			break;
		if (event.info != NULL && cache->visible_copies > 0 &&
			batch_hides(cache, event.hash))
			event.info = NULL;
		add_event(&json, &event);
	}
	follow_end(follower);
	reply_json(reply, 200, JSON_LINES, &json);
}

void
route_changes(HttpRequest *req, const CacheInfo *cache, HttpReply *reply)
{
	Parameters	parameters;
	FollowRange range;
	Follower   *follower;

	if (!parse_parameters(http_request_query(req), &parameters))
	{
		reply_text(reply, 400, "changes takes after=NUMBER and limit=NUMBER\n",
				   SERVE_NO_STORE);
		return;
	}
	if (batch_changes(cache->name, parameters.after, &range,
					  &follower) != SERVE_FOUND)
		reply_unavailable(reply);
	else if (follower == NULL)
		reply_gone(cache, &range, parameters.after, reply);
	else
		reply_events(cache, follower, parameters.limit, reply);
}
