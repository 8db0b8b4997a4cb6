/*-------------------------------------------------------------------------
 *
 * fuzz_http.c
 *	  libFuzzer target for src/http: any bytes, split anyhow, their bodies
 *	  received or not, answered by replies of all sizes and taken at any pace.
 *
 * The input is options (4 bytes) and then what the client sends.  It is played
 * twice, once in one piece with all output taken at once, and once in pieces
 * with output taken in pieces; the two outputs must be equal.  What must hold
 * in between is asserted in check().
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "http/conditional.h"
#include "http/conn.h"
#include "http/path.h"

#define OPTIONS			4
#define MAX_BODY		50000
#define FILE_SIZE		40000
#define MAX_BUFFERED	20000
#define MAX_HEADER		3000
#define MAX_URL			500
#define MAX_RECEIVED	300		/* bytes of a body */

/* One reply more than is allowed, input, and what pools round up. */
#define MAX_LENT		(MAX_BUFFERED + MAX_BODY + 8 * HTTP_CHUNK_SIZE)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Play
{
	HttpConn	conn;
	uint32_t	random;			/* 0: everything in one piece */
	char	   *output;
	size_t		len;
	size_t		size;
	int			answered;
	int			fd;				/* of a body that is received */
	uint64_t	received;		/* hash of all results of receiving */
} Play;

static char pattern[MAX_BODY];
static int	file = -1;

static int64_t
no_clock(void)
{
	return 0;
}

static void
no_log(const HttpLogRecord *record)
{
	if (strlen(record->path) > 2000 || strlen(record->method) > 100 ||
		strlen(record->address) > 50 || record->status < 200)
		abort();
}

static uint32_t
choose(Play *play, uint32_t below)
{
	play->random = play->random * 1664525 + 1013904223;
	return (play->random >> 8) % below;
}

static void
check(const Play *play)
{
	const HttpConn *conn = &play->conn;

	if (conn->env->pool.lent > MAX_LENT || conn->out_files > 1 ||
		conn->env->body_memory > conn->env->limits.max_body_memory)
		abort();
	if (conn->state == HTTP_CONN_REQUEST)
	{
		Span		path = http_request_path(&conn->request);
		Span		query = http_request_query(&conn->request);

		if (path.data[0] != '/' || strlen(path.data) != path.len ||
			strstr(path.data, "/../") || strstr(path.data, "//") ||
			(query.data != NULL && strlen(query.data) != query.len) ||
			http_conn_wants_input(conn))
			abort();
	}
	if ((conn->state == HTTP_CONN_LAST || conn->state == HTTP_CONN_DEAD) &&
		conn->in != NULL)
		abort();
}

static void
emit(Play *play, const char *data, size_t len)
{
	while (play->len + len > play->size)
	{
		play->size = play->size ? play->size * 2 : 65536;
		play->output = realloc(play->output, play->size);
	}
	memcpy(play->output + play->len, data, len);
	play->len += len;
}

/* Takes a body into a file or memory; false when it is to be answered. */
static bool
receive(Play *play, uint32_t hash)
{
	HttpConn   *conn = &play->conn;
	HttpReceived received = http_request_received(&conn->request);
	uint64_t	max = hash & 64 ? MAX_RECEIVED : 10;

	if (received.begun || hash & 128)
		return false;
	if (play->fd < 0)
		play->fd = memfd_create("body", MFD_CLOEXEC);
	if (ftruncate(play->fd, 0) != 0 || lseek(play->fd, 0, SEEK_SET) != 0)
		abort();
	http_request_set_data(&conn->request, play);
	return http_conn_receive(conn, hash & 256 ? play->fd : -1, max);
}

static void
note(Play *play, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		play->received = (play->received ^ ((const uint8_t *) bytes)[i]) *
			UINT64_C(1099511628211);
}

/* Checks a result, and notes it for the comparison of the plays. */
static void
note_received(Play *play)
{
	HttpRequest *req = &play->conn.request;
	HttpReceived received = http_request_received(req);
	char		body[MAX_RECEIVED + 1];

	if (received.begun && http_request_data(req) != play)
		abort();
	if (received.complete != (received.begun && received.status == 0) ||
		received.complete != (received.begun && received.error == 0) ||
		received.length > MAX_RECEIVED)
		abort();
	note(play, &received.status, sizeof(received.status));
	if (!received.complete)
		return;
	note(play, &received.length, sizeof(received.length));
	if (received.data.data != NULL)
	{
		if (received.data.len != received.length)
			abort();
		note(play, received.data.data, received.data.len);
		return;
	}
	if (pread(play->fd, body, sizeof(body), 0) != (ssize_t) received.length)
		abort();
	note(play, body, received.length);
}

/* An answer that depends on nothing but the request. */
static void
answer(Play *play)
{
	HttpRequest *req = &play->conn.request;
	HttpReply	reply = {.status = 200, .fd = -1, .body = pattern};
	Span		path = http_request_path(req);
	uint32_t	hash = (uint32_t) path.len;

	for (size_t i = 0; i < path.len; i++)
		hash = hash * 31 + (unsigned char) path.data[i];
	if (http_request_method(req) >= HTTP_PUT && receive(play, hash))
		return;
	note_received(play);
	http_request_header(req, "If-None-Match");
	play->answered++;
	reply.body_len = (hash >> 8) % (hash & 1 ? MAX_BODY : 100);
	switch (hash % 16)
	{
		case 2:
			reply.status = 304;
			break;
		case 3:
			reply.status = 599;
			reply.headers = "A: b\r\nC: d\r\n";
			break;
		case 4:
			reply.close = true;
			break;
		case 5:
		case 6:
		case 7:
			reply.content_type = "application/octet-stream";
			reply.fd = dup(file);
			reply.offset = hash % 1000;
			reply.length = hash % 16 == 5 ? hash % 5000 : 30000;
			if (hash % 160 == 5)
				reply.offset = FILE_SIZE;	/* not there */
			break;
	}
	http_conn_reply(&play->conn, &reply);
}

/* Takes some output; all of it when the play is in one piece. */
static void
take(Play *play)
{
	struct iovec iov[2];
	HttpChunk  *chunk;
	bool		more;

	while (http_conn_has_output(&play->conn))
	{
		int			count = http_conn_output(&play->conn, iov, 2, &more);
		size_t		len = 0;

		if (play->random && choose(play, 4) == 0)
			break;
		if (count > 0)
		{
			len = iov[0].iov_len;
			if (play->random)
				len = 1 + choose(play, len);
			emit(play, iov[0].iov_base, len);
			http_conn_sent(&play->conn, len);
			continue;
		}
		chunk = http_conn_file(&play->conn);
		if (chunk == NULL || chunk->length <= 0)
			abort();
		len = chunk->length;
		if (play->random)
			len = 1 + choose(play, len);
		emit(play, pattern + chunk->offset, len);
		http_conn_file_sent(&play->conn, len);
	}
	http_conn_advance(&play->conn);
}

static void
work(Play *play)
{
	do
	{
		check(play);
		while (play->conn.state == HTTP_CONN_REQUEST)
		{
			answer(play);
			check(play);
		}
		take(play);
	} while (play->conn.state == HTTP_CONN_REQUEST);
}

static void
run(Play *play, HttpEnv *env, const char *data, size_t size)
{
	HttpAddress peer = {.is_ip = true, .bytes = {1}};
	size_t		pos = 0;
	char	   *space;
	size_t		room;

	http_conn_init(&play->conn, env, &peer);
	while (pos < size)
	{
		size_t		part = size - pos;

		if (!http_conn_wants_input(&play->conn))
		{
			if (!http_conn_has_output(&play->conn))
				break;
			work(play);
			continue;
		}
		if (!http_conn_space(&play->conn, &space, &room) || room == 0)
			abort();
		if (play->random)
			part = 1 + choose(play, part < 100 ? part : 100);
		if (part > room)
			part = room;
		memcpy(space, data + pos, part);
		pos += part;
		http_conn_received(&play->conn, part);
		work(play);
	}
	http_conn_eof(&play->conn);
	while (http_conn_has_output(&play->conn) ||
		   play->conn.state == HTTP_CONN_REQUEST)
		work(play);
	if (play->conn.state != HTTP_CONN_LAST &&
		play->conn.state != HTTP_CONN_DEAD)
		abort();
	http_conn_release(&play->conn);
	if (env->pool.lent != 0 || env->body_memory != 0)
		abort();
}

/* The parsers of single texts. */
static void
run_small(const char *data, size_t size)
{
	char	   *text = malloc(size + 1);
	size_t		half = size / 2;
	HttpConditions conditions = {.method = HTTP_GET};
	HttpSelection sel;
	HttpNetworks networks = {0};
	HttpAddress peer = {.is_ip = true};
	HttpAddress client;
	char		error[100];
	time_t		when;

	memcpy(text, data, size);
	text[size] = '\0';
	http_addresses_check(text, error, sizeof(error));
	http_networks_parse(text, &networks, error, sizeof(error));
	http_forwarded_for(&networks, span_of(data, size), &peer, &client);
	http_networks_free(&networks);
	http_date_parse(span_of(data, size), &when);
	conditions.range = span_of(data, half);
	conditions.if_range = span_of(data + half, size - half);
	for (int i = 0; i < 2; i++)
	{
		http_select_by(&conditions, "\"x\"", 784111777, 1000, &sel);
		if (sel.offset < 0 || sel.length < 0 ||
			sel.offset + sel.length > 1000 ||
			(sel.status == 206 && sel.length == 0))
			abort();
		conditions.if_range = span_of(NULL, 0);
		conditions.if_none_match = span_of(data + half, size - half);
	}
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static HttpEnv env;
	Play		whole = {.fd = -1};
	Play		pieces = {.fd = -1};

	if (file < 0)
	{
		for (size_t i = 0; i < sizeof(pattern); i++)
			pattern[i] = (char) ('a' + i % 23);
		file = memfd_create("pattern", MFD_CLOEXEC);
		if (write(file, pattern, FILE_SIZE) != FILE_SIZE)
			abort();
		env.clock = no_clock;
		env.log = no_log;
		http_env_tick(&env);
	}
	if (size < OPTIONS)
		return 0;
	env.limits.max_header_size = data[0] & 1 ? MAX_HEADER : 100;
	env.limits.max_url_size = data[0] & 2 ? MAX_URL : 20;
	env.limits.max_buffered = data[0] & 4 ? MAX_BUFFERED : 100;
	env.limits.max_body_memory = MAX_RECEIVED;
	env.limits.log_level = HTTP_LOG_ALL;
	pieces.random = 1 + data[1] + data[2] * 256 + data[3] * 65536;
	if (data[0] & 128)
		run_small((const char *) data + OPTIONS, size - OPTIONS);
	else
	{
		run(&whole, &env, (const char *) data + OPTIONS, size - OPTIONS);
		run(&pieces, &env, (const char *) data + OPTIONS, size - OPTIONS);
		if (whole.len != pieces.len || whole.answered != pieces.answered ||
			whole.received != pieces.received ||
			(whole.len > 0 &&
			 memcmp(whole.output, pieces.output, whole.len) != 0))
			abort();
	}
	if (whole.fd >= 0)
		close(whole.fd);
	if (pieces.fd >= 0)
		close(pieces.fd);
	free(whole.output);
	free(pieces.output);
	return 0;
}
