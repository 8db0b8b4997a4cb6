/*-------------------------------------------------------------------------
 *
 * receive.c
 *	  The body of a request, into a file or into memory.
 *
 *		http_conn_receive()			what came with the head
 *			|
 *			v
 *		http_receive_space()		in data: env->piece, for no more than is
 *			|						left of it; else: behind the head
 *			v
 *		http_receive_bytes() ---> http_body_next() ---> write(), or memory
 *			|
 *			v
 *		state HTTP_CONN_REQUEST again, with the result
 *
 * One buffer serves all connections, for what is in it is gone before anybody
 * else receives.  It never takes a byte behind the body, so what follows the
 * body lies behind the head, as if there had been no body.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>

#include "http/conn.h"

/* The memory that a body begins with, if it is not shorter. */
#define FIRST_SIZE		4096

static const struct
{
	int			status;
	const char *reason;
}			errors[] =

{
	[HTTP_RECEIVE_EXPECTATION] = {417, "unknown Expect"},
	[HTTP_RECEIVE_LENGTH_REQUIRED] = {411, "body without a length"},
	[HTTP_RECEIVE_TOO_LARGE] = {413, "body too large"},
	[HTTP_RECEIVE_MALFORMED] = {400, "malformed chunked body"},
	[HTTP_RECEIVE_TIMEOUT] = {408, "body not complete in time"},
	[HTTP_RECEIVE_CUT_SHORT] = {400, "body cut short"},
	[HTTP_RECEIVE_NO_SPACE] = {507, "no space for the body"},
	[HTTP_RECEIVE_NOT_WRITTEN] = {500, "body could not be written"},
	[HTTP_RECEIVE_NO_MEMORY] = {503, "no memory for the body"}
};

static bool
failed(HttpConn *conn, HttpReceiveError error)
{
	HttpReceived *result = &conn->receive.result;

	result->error = error;
	result->status = errors[error].status;
	result->reason = errors[error].reason;
	return false;
}

/* The request is the caller's again. */
static void
hand_over(HttpConn *conn)
{
	if (conn->state == HTTP_CONN_RECEIVING)
		conn->state = HTTP_CONN_REQUEST;
	conn->request.since = conn->env->now;
}

void
http_receive_fail(HttpConn *conn, HttpReceiveError error)
{
	if (!conn->receive.result.complete && conn->receive.result.status == 0)
		failed(conn, error);
	hand_over(conn);
}

void
http_receive_release(HttpConn *conn)
{
	HttpReceive *receive = &conn->receive;

	if (receive->memory != NULL)
	{
		free(receive->memory);
		conn->env->body_memory -= receive->size;
		receive->memory = NULL;
		receive->size = 0;
	}
	if (receive->result.begun || receive->result.status != 0)
		memset(&receive->result, 0, sizeof(receive->result));
	receive->data = NULL;
}

/* Makes the memory large enough for so many bytes. */
static bool
enlarge(HttpConn *conn, size_t need)
{
	HttpReceive *receive = &conn->receive;
	HttpEnv    *env = conn->env;
	size_t		size = receive->size > 0 ? receive->size : FIRST_SIZE;
	char	   *memory;

	while (size < need)
		size *= 2;
	if (size > receive->max)
		size = (size_t) receive->max;
	if (size - receive->size > (size_t) env->limits.max_body_memory ||
		env->body_memory > env->limits.max_body_memory -
		(size - receive->size))
		return failed(conn, HTTP_RECEIVE_NO_MEMORY);
	memory = realloc(receive->memory, size);
	if (memory == NULL)
		return failed(conn, HTTP_RECEIVE_NO_MEMORY);
	env->body_memory += size - receive->size;
	receive->memory = memory;
	receive->size = size;
	return true;
}

static bool
keep_in_memory(HttpConn *conn, Span piece)
{
	HttpReceive *receive = &conn->receive;
	size_t		len = (size_t) receive->result.length;

	if (len + piece.len > receive->size && !enlarge(conn, len + piece.len))
		return false;
	memcpy(receive->memory + len, piece.data, piece.len);
	return true;
}

static bool
keep_in_file(HttpConn *conn, Span piece)
{
	if (http_sink_write(&conn->receive.sink, piece))
		return true;
	conn->receive.result.os_error = errno;
	return failed(conn, errno == ENOSPC || errno == EDQUOT ?
				  HTTP_RECEIVE_NO_SPACE : HTTP_RECEIVE_NOT_WRITTEN);
}

static bool
keep(HttpConn *conn, Span piece)
{
	HttpReceive *receive = &conn->receive;
	bool		kept;

	if (piece.len == 0)
		return true;

	/* A chunk tells beforehand what it will bring */
	if (piece.len + conn->body.left > receive->max - receive->result.length)
		return failed(conn, HTTP_RECEIVE_TOO_LARGE);
	kept = receive->sink.fd >= 0 ? keep_in_file(conn, piece) :
		keep_in_memory(conn, piece);
	if (!kept)
		return false;
	receive->result.length += piece.len;
	return true;
}

static void
completed(HttpConn *conn)
{
	HttpReceive *receive = &conn->receive;

	receive->result.complete = true;
	if (receive->sink.fd < 0)
		receive->result.data = span_of(receive->memory != NULL ?
									   receive->memory : "",
									   (size_t) receive->result.length);
	conn->unread_body = false;
	hand_over(conn);
}

/* Takes what of these bytes belongs to the body; how many. */
static size_t
take(HttpConn *conn, const char *data, size_t len)
{
	size_t		pos = 0;

	while (pos < len && conn->body.state != HTTP_BODY_NONE)
	{
		const char *reason = NULL;
		size_t		used;
		Span		piece;

		if (http_body_next(&conn->body, data + pos, len - pos, &used, &piece,
						   &reason) != 0)
		{
			failed(conn, HTTP_RECEIVE_MALFORMED);
			conn->receive.result.reason = reason;
			hand_over(conn);
			return pos;
		}
		if (!keep(conn, piece))
		{
			hand_over(conn);
			return pos;
		}
		pos += used;
	}
	if (conn->body.state == HTTP_BODY_NONE)
		completed(conn);
	return pos;
}

/* Takes what lies behind the head; what follows the body moves up. */
static void
take_buffered(HttpConn *conn)
{
	char	   *at = conn->in->data + conn->start + conn->scan.pos;
	size_t		len = conn->in->data + conn->in->used - at;
	size_t		taken = take(conn, at, len);

	memmove(at, at + taken, len - taken);
	conn->in->used -= taken;
}

bool
http_conn_receive(HttpConn *conn, int fd, uint64_t max)
{
	const HttpHead *head = &conn->request.head;
	HttpReceive *receive = &conn->receive;

	if (conn->state == HTTP_CONN_DEAD)
		return failed(conn, HTTP_RECEIVE_CUT_SHORT);
	if (conn->state != HTTP_CONN_REQUEST || receive->result.begun)
		return false;
	memset(&receive->result, 0, sizeof(receive->result));
	receive->sink = (HttpSink) {.fd = fd};
	receive->max = max;
	receive->direct = false;

	if (head->expect_other)
		return failed(conn, HTTP_RECEIVE_EXPECTATION);
	if (head->http_1_0 && !head->has_length)
		return failed(conn, HTTP_RECEIVE_LENGTH_REQUIRED);
	if (head->content_length > max)
		return failed(conn, HTTP_RECEIVE_TOO_LARGE);

	/* Once: the texts of the request must not move while it is received */
	if (!http_conn_make_room(conn) ||
		(conn->unread_body && head->expect && !head->http_1_0 &&
		 !http_queue_text(conn, "HTTP/1.1 100 Continue\r\n\r\n")))
		return failed(conn, HTTP_RECEIVE_NO_MEMORY);

	receive->result.begun = true;
	conn->state = HTTP_CONN_RECEIVING;
	if (conn->unread_body)
		http_body_begin(&conn->body, head->chunked, head->content_length);
	take_buffered(conn);
	if (conn->eof && conn->state == HTTP_CONN_RECEIVING)
		http_receive_fail(conn, HTTP_RECEIVE_CUT_SHORT);
	return true;
}

void
http_receive_space(HttpConn *conn, char **data, size_t *len)
{
	HttpChunk  *in = conn->in;

	if (conn->env->piece == NULL)
		conn->env->piece = malloc(HTTP_BODY_PIECE);
	conn->receive.direct = http_body_in_data(&conn->body) &&
		conn->env->piece != NULL;
	if (!conn->receive.direct)
	{
		*data = in->data + in->used;
		*len = in->size - in->used;
		return;
	}
	*data = conn->env->piece;
	*len = conn->body.left < HTTP_BODY_PIECE ? (size_t) conn->body.left :
		HTTP_BODY_PIECE;
}

void
http_receive_bytes(HttpConn *conn, size_t len)
{
	if (conn->receive.direct)
	{
		take(conn, conn->env->piece, len);
		return;
	}
	conn->in->used += len;
	take_buffered(conn);
}
