/*-------------------------------------------------------------------------
 *
 * conn.c
 *	  One connection without its socket.  See conn.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/conn.h"
#include "http/path.h"

/* What is read of a body in one piece, at least. */
#define MIN_SPACE		1024

void
http_env_tick(HttpEnv *env)
{
	struct timespec wall;

	env->now = env->clock();
	clock_gettime(CLOCK_REALTIME_COARSE, &wall);
	if (wall.tv_sec == env->date && env->date_lines[0] != '\0')
		return;
	env->date = wall.tv_sec;
	memcpy(env->date_lines, "Server: pg_narinfo\r\nDate: ", 26);
	http_date_format(wall.tv_sec, env->date_lines + 26);
	memcpy(env->date_lines + 26 + HTTP_DATE_LEN, "\r\n", 3);
}

void
http_conn_init(HttpConn *conn, HttpEnv *env, const HttpAddress *peer)
{
	memset(conn, 0, sizeof(*conn));
	conn->env = env;
	conn->state = HTTP_CONN_READING;
	conn->peer = conn->client = *peer;
	conn->proxied = http_networks_contain(&env->trusted, peer);
	http_address_text(peer, conn->peer_text);
	conn->request.address = conn->peer_text;
}

static void
forget_request(HttpConn *conn)
{
	free(conn->request.decoded);
	conn->request.decoded = NULL;
	http_receive_release(conn);
	conn->head_done = false;
}

/* Forgets all input. */
static void
drop_input(HttpConn *conn)
{
	forget_request(conn);
	if (conn->in != NULL)
		http_chunk_put(&conn->env->pool, conn->in);
	conn->in = NULL;
	conn->start = 0;
	memset(&conn->scan, 0, sizeof(conn->scan));
}

/* Takes the first chunk off the output. */
static void
drop_output(HttpConn *conn)
{
	HttpChunk  *chunk = conn->out;

	conn->out = chunk->next;
	if (conn->out == NULL)
		conn->out_tail = NULL;
	conn->out_bytes -= chunk->used - chunk->sent;
	if (chunk->fd >= 0)
		conn->out_files--;
	http_chunk_put(&conn->env->pool, chunk);
}

void
http_conn_release(HttpConn *conn)
{
	drop_input(conn);
	while (conn->out != NULL)
		drop_output(conn);
	conn->state = HTTP_CONN_DEAD;
}

/*
 * Does so much wait to be sent that no further request may be begun?  A file
 * costs no memory but a descriptor, so it counts, too.
 */
static bool
is_stalled(const HttpConn *conn)
{
	return conn->out_files > 0 ||
		conn->out_bytes > (size_t) conn->env->limits.max_buffered;
}

bool
http_conn_wants_input(const HttpConn *conn)
{
	if (conn->state == HTTP_CONN_RECEIVING)
		return !conn->eof;
	return conn->state == HTTP_CONN_READING && !conn->eof &&
		!is_stalled(conn);
}

bool
http_conn_in_request(const HttpConn *conn)
{
	if (conn->state != HTTP_CONN_READING)
		return false;
	return conn->skip > 0 || (conn->in != NULL &&
							  (conn->head_done ||
							   conn->in->used > conn->start));
}

void
http_conn_late(HttpConn *conn)
{
	if (conn->state == HTTP_CONN_RECEIVING)
		http_receive_fail(conn, HTTP_RECEIVE_TIMEOUT);
	else if (conn->skip > 0)
		conn->state = HTTP_CONN_DEAD;	/* it was answered */
	else
		http_conn_refuse(conn, 408, "request not complete in time");
}

/* What was parsed of the head has moved. */
static void
shift_texts(HttpConn *conn, ptrdiff_t shift)
{
	HttpRequest *req = &conn->request;

	req->head.target.data += shift;
	req->head.headers.data += shift;
	if (conn->state != HTTP_CONN_REQUEST || req->decoded != NULL)
		return;
	req->path.data += shift;
	if (req->query.data != NULL)
		req->query.data += shift;
}

bool
http_conn_make_room(HttpConn *conn)
{
	HttpChunk  *in = conn->in;
	HttpChunk  *to = in;
	size_t		len = in->used - conn->start;
	ptrdiff_t	shift;

	if (in->size - in->used >= MIN_SPACE)
		return true;

	/* Move to the front; when that gives too little, grow. */
	if (len > in->size - 2 * MIN_SPACE)
		to = http_chunk_get(&conn->env->pool, in->size * 2);
	if (to == NULL)
		return false;

	shift = to->data - (in->data + conn->start);
	memmove(to->data, in->data + conn->start, len);
	to->used = len;
	conn->start = 0;
	if (conn->head_done)
		shift_texts(conn, shift);
	if (to != in)
		http_chunk_put(&conn->env->pool, in);
	conn->in = to;
	return true;
}

bool
http_conn_space(HttpConn *conn, char **data, size_t *len)
{
	if (conn->state == HTTP_CONN_RECEIVING)
	{
		http_receive_space(conn, data, len);
		return true;
	}

	if (conn->in == NULL)
		conn->in = http_chunk_get(&conn->env->pool, HTTP_CHUNK_SIZE);
	if (conn->in == NULL || !http_conn_make_room(conn))
	{
		drop_input(conn);
		conn->state = HTTP_CONN_DEAD;
		return false;
	}
	*data = conn->in->data + conn->in->used;
	*len = conn->in->size - conn->in->used;
	return true;
}

void
http_conn_refuse(HttpConn *conn, int status, const char *reason)
{
	HttpReply	reply = {.status = status, .fd = -1};
	const char *text = http_status_reason(status);
	size_t		text_len = strlen(text);
	bool		is_head = false;
	char	   *body;

	/* A HEAD that was refused is still a HEAD. */
	if (conn->in != NULL)
	{
		Span		line = span_skip(span_of(conn->in->data, conn->in->used),
									 conn->start + conn->scan.begin);

		is_head = span_starts(line, "HEAD ");
	}
	reply.content_type = "text/plain; charset=utf-8";
	if (status == 503)
		reply.headers = "Retry-After: 5\r\n";

	conn->env->stats.bad_requests++;
	body = http_queue_reply(conn, &reply, text_len + 1,
							is_head ? 0 : text_len + 1, true);
	if (body != NULL && !is_head)
	{
		memcpy(body, text, text_len);
		body[text_len] = '\n';
	}
	http_log_reply(conn, status, text_len + 1, reason);
	drop_input(conn);
	conn->linger = true;
	conn->state = body != NULL ? HTTP_CONN_LAST : HTTP_CONN_DEAD;
}

/* Ends the text by a NUL, if it lies in the input chunk. */
static void
terminate(HttpConn *conn, Span text)
{
	if (text.data >= conn->in->data &&
		text.data < conn->in->data + conn->in->used)
		conn->in->data[text.data + text.len - conn->in->data] = '\0';
}

/*
 * Sets path and query.  Where there is nothing to decode, which is nearly
 * always, they stay in place: the NULs go where '?' and the space before the
 * version were.
 */
static int
parse_target(HttpConn *conn, const char **reason)
{
	HttpRequest *req = &conn->request;
	Span		target = req->head.target;
	char	   *query;

	*reason = "URL is not a path";
	if (!http_target_split(target, &req->path, &req->query))
		return 400;

	if (memchr(target.data, '%', target.len) != NULL)
	{
		req->decoded = malloc(req->path.len + req->query.len + 2);
		if (req->decoded == NULL)
		{
			conn->state = HTTP_CONN_DEAD;
			return 0;
		}
		*reason = "malformed percent-encoding";
		if (!http_percent_decode(req->path, req->decoded, &req->path.len))
			return 400;
		req->path.data = req->decoded;
		req->decoded[req->path.len] = '\0';
		query = req->decoded + req->path.len + 1;
		if (!http_percent_decode(req->query, query, &req->query.len))
			return 400;
		query[req->query.len] = '\0';
		if (req->query.data != NULL)
			req->query.data = query;
	}

	*reason = "path has an empty or relative component";
	if (!http_path_is_plain(req->path))
		return 400;
	if (req->decoded == NULL)
	{
		terminate(conn, req->path);
		if (req->query.data != NULL)
			terminate(conn, req->query);
	}
	return 0;
}

static void
find_client(HttpConn *conn)
{
	conn->client = conn->peer;
	conn->request.address = conn->peer_text;
	if (!conn->proxied)
		return;
	http_forwarded_for(&conn->env->trusted, conn->request.head.headers,
					   &conn->peer, &conn->client);
	http_address_text(&conn->client, conn->client_text);
	conn->request.address = conn->client_text;
}

/*
 * A head is complete: parses it and finds out what to do about its body.  A
 * status refuses it.
 */
static int
begin_request(HttpConn *conn, const char **reason)
{
	HttpRequest *req = &conn->request;
	HttpHead   *head = &req->head;
	int			status;

	status = http_head_parse(&conn->scan, conn->in->data + conn->start,
							 head, reason);
	if (status != 0)
		return status;

	/*
	 * A client that expects "100 Continue" holds its body back until it hears
	 * something, so it gets its answer now.  What PUT and the like bring is
	 * read when the caller says where to put it.
	 */
	conn->unread_body = (head->chunked || head->content_length > 0) &&
		(head->expect || (!head->is_get && !head->is_head));
	memset(&conn->body, 0, sizeof(conn->body));
	if (!conn->unread_body)
	{
		*reason = "body too large";
		if (head->content_length > HTTP_MAX_BODY)
			return 413;
		http_body_begin(&conn->body, head->chunked, head->content_length);
	}
	conn->head_done = true;
	return 0;
}

/* Head and body are here: makes conn->request the caller's. */
static int
finish_request(HttpConn *conn, const char **reason)
{
	int			status = parse_target(conn, reason);

	if (status != 0 || conn->state == HTTP_CONN_DEAD)
		return status;
	find_client(conn);
	conn->request.since = conn->env->now;
	conn->requests++;
	conn->env->stats.requests++;
	conn->state = HTTP_CONN_REQUEST;
	return 0;
}

/* Throws away what came of the body; the bytes behind it move up. */
static int
skip_body(HttpConn *conn, const char **reason)
{
	char	   *body = conn->in->data + conn->start + conn->scan.pos;
	size_t		len = conn->in->data + conn->in->used - body;
	size_t		skipped = 0;
	int			status;

	status = http_body_skip(&conn->body, body, len, &skipped, reason);
	memmove(body, body + skipped, len - skipped);
	conn->in->used -= skipped;
	return status;
}

/* One step of http_conn_advance(); false when there is nothing more to do. */
static bool
advance_once(HttpConn *conn)
{
	HttpChunk  *in = conn->in;
	const HttpLimits *limits = &conn->env->limits;
	const char *reason = NULL;
	int			status;

	if (conn->head_done)
	{
		status = skip_body(conn, &reason);
		if (status == 0 && conn->body.state != HTTP_BODY_NONE)
			return false;
		if (status == 0)
			status = finish_request(conn, &reason);
	}
	else
	{
		status = http_head_scan(&conn->scan, in->data + conn->start,
								in->used - conn->start,
								limits->max_header_size,
								limits->max_url_size, &reason);
		if (status == HTTP_SCAN_MORE)
			return false;
		if (status == HTTP_SCAN_COMPLETE)
			status = begin_request(conn, &reason);
	}
	if (status != 0)
		http_conn_refuse(conn, status, reason);
	return conn->state == HTTP_CONN_READING;
}

/* Drops what came of the body of a request that was answered without it. */
static void
skip_answered(HttpConn *conn)
{
	size_t		len = conn->in != NULL ? conn->in->used - conn->start : 0;

	if (len > conn->skip)
		len = conn->skip;
	conn->start += len;
	conn->skip -= len;
}

void
http_conn_advance(HttpConn *conn)
{
	if (conn->state != HTTP_CONN_READING || is_stalled(conn))
		return;
	if (conn->skip > 0)
		skip_answered(conn);
	if (conn->in != NULL && conn->in->used == conn->start && !conn->head_done)
		drop_input(conn);
	if (conn->in != NULL)
	{
		while (advance_once(conn))
			;
	}

	/* No more will come: what was begun stays unfinished. */
	if (conn->eof && conn->state == HTTP_CONN_READING)
	{
		drop_input(conn);
		conn->state = HTTP_CONN_LAST;
	}
}

void
http_conn_received(HttpConn *conn, size_t len)
{
	if (conn->state == HTTP_CONN_RECEIVING)
	{
		http_receive_bytes(conn, len);
		return;
	}
	conn->in->used += len;
	http_conn_advance(conn);
}

void
http_conn_eof(HttpConn *conn)
{
	conn->eof = true;
	if (conn->state == HTTP_CONN_RECEIVING)
		http_receive_fail(conn, HTTP_RECEIVE_CUT_SHORT);
	http_conn_advance(conn);
}

/* The request is answered: what lies behind it is next. */
static void
next_request(HttpConn *conn)
{
	if (conn->unread_body)
		conn->skip = (uint32_t) conn->request.head.content_length;
	forget_request(conn);
	conn->start += conn->scan.pos;
	memset(&conn->scan, 0, sizeof(conn->scan));
	conn->state = HTTP_CONN_READING;
	if (conn->start == conn->in->used)
		drop_input(conn);		/* even while stalled */
	http_conn_advance(conn);
}

/*
 * Has the connection to end with this reply because of a body that is not
 * read?  A small one is thrown away instead, if it will come for certain.
 */
static bool
body_in_the_way(const HttpConn *conn)
{
	const HttpHead *head = &conn->request.head;

	return conn->unread_body &&
		(conn->receive.result.begun || head->expect || head->chunked ||
		 head->content_length > HTTP_MAX_BODY || conn->env->draining);
}

/* Is another request begun, so that this reply is not the last? */
static bool
has_more_input(HttpConn *conn)
{
	HttpScan	scan = {0};
	const char *reason;
	size_t		next = conn->start + conn->scan.pos;

	if (conn->more_input)
		return true;
	return http_head_scan(&scan, conn->in->data + next,
						  conn->in->used - next,
						  conn->env->limits.max_header_size,
						  conn->env->limits.max_url_size,
						  &reason) == HTTP_SCAN_COMPLETE;
}

/*
 * Reads a small file into memory.  False when it is shorter than was said, or
 * cannot be read; nothing of the reply is out yet, so it can still be a 500.
 */
static bool
read_file(int fd, off_t offset, char *dest, size_t len)
{
	while (len > 0)
	{
		ssize_t		got = pread(fd, dest, len, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		dest += got;
		offset += got;
		len -= got;
	}
	return true;
}

/* Plain close(), under a name that a variable called close does not hide. */
static void
close_file(int fd)
{
	close(fd);
}

/*
 * Queues head and body of an answer.  False when memory is short or the file
 * does not hold what it should; the output is then as before, perhaps but for
 * an empty chunk at its end.
 */
static bool
queue_answer(HttpConn *conn, const HttpReply *reply, bool send_body,
			 int64_t content_length, bool close)
{
	bool		has_file = send_body && reply->fd >= 0 && reply->length > 0;
	bool		is_small = has_file && reply->growth == NULL &&
	reply->length <= HTTP_SMALL_FILE;
	size_t		len = 0;
	char	   *body;

	if (is_small)
		len = (size_t) reply->length;
	else if (send_body && reply->fd < 0)
		len = reply->body_len;

	body = http_queue_reply(conn, reply, content_length, len, close);
	if (body == NULL)
		return false;
	if (is_small && !read_file(reply->fd, reply->offset, body, len))
	{
		http_unqueue_reply(conn);
		return false;
	}
	if (!has_file && len > 0)
		memcpy(body, reply->body, len);

	if (has_file && !is_small)
	{
		conn->out_tail->fd = reply->fd;
		conn->out_tail->offset = reply->offset;
		conn->out_tail->length = reply->length;
		conn->out_tail->growth = reply->growth;
		if (reply->growth != NULL)
			http_growth_hold(reply->growth);
		conn->out_files++;
	}
	else if (reply->fd >= 0)
		close_file(reply->fd);
	return true;
}

/* The reply could not be queued: says so, if memory allows. */
static void
queue_failure(HttpConn *conn, const HttpReply *reply)
{
	if (reply->fd >= 0)
		close_file(reply->fd);
	http_conn_refuse(conn, 500, "reply could not be read or queued");
}

void
http_conn_reply(HttpConn *conn, const HttpReply *reply)
{
	const HttpHead *head = &conn->request.head;
	bool		bare = reply->status == 204 || reply->status == 304;
	bool		send_body = !bare && !head->is_head;
	int64_t		length = reply->fd >= 0 ? (int64_t) reply->length :
	(int64_t) reply->body_len;
	bool		close;

	if (conn->state == HTTP_CONN_DEAD)
	{
		if (reply->fd >= 0)
			close_file(reply->fd);
		drop_input(conn);
		return;
	}

	close = reply->close || !head->keep_alive || body_in_the_way(conn);
	if (!close && conn->env->draining)
		close = !has_more_input(conn);
	if (!queue_answer(conn, reply, send_body, bare ? -1 : length, close))
	{
		queue_failure(conn, reply);
		return;
	}
	http_log_reply(conn, reply->status, send_body ? (uint64_t) length : 0,
				   NULL);

	if (close)
	{
		conn->linger = conn->unread_body ||
			conn->start + conn->scan.pos < conn->in->used;
		drop_input(conn);
		conn->state = HTTP_CONN_LAST;
	}
	else
		next_request(conn);
}

int
http_conn_output(const HttpConn *conn, struct iovec *iov, int max, bool *more)
{
	HttpChunk  *chunk;
	int			count = 0;

	*more = false;
	for (chunk = conn->out; chunk != NULL; chunk = chunk->next)
	{
		if (count == max)
		{
			*more = true;
			break;
		}
		if (chunk->used > chunk->sent)
		{
			iov[count].iov_base = chunk->data + chunk->sent;
			iov[count].iov_len = chunk->used - chunk->sent;
			count++;
		}
		if (chunk->fd >= 0)
		{
			*more = http_chunk_ready(chunk) > 0;
			break;
		}
	}
	return count;
}

void
http_conn_sent(HttpConn *conn, size_t len)
{
	conn->env->stats.bytes_sent += len;
	while (conn->out != NULL)
	{
		HttpChunk  *chunk = conn->out;
		size_t		part = chunk->used - chunk->sent;

		if (part > len)
			part = len;
		chunk->sent += part;
		conn->out_bytes -= part;
		len -= part;
		if (chunk->sent < chunk->used || chunk->fd >= 0)
			break;
		drop_output(conn);
	}
}

HttpChunk *
http_conn_file(const HttpConn *conn)
{
	HttpChunk  *chunk = conn->out;

	return chunk != NULL && chunk->fd >= 0 && chunk->sent == chunk->used ?
		chunk : NULL;
}

void
http_conn_file_sent(HttpConn *conn, off_t len)
{
	HttpChunk  *chunk = conn->out;

	conn->env->stats.bytes_sent += len;
	chunk->offset += len;
	chunk->length -= len;
	if (chunk->length <= 0)
		drop_output(conn);
}

HttpGrowth *
http_conn_waits(const HttpConn *conn)
{
	HttpChunk  *chunk = http_conn_file(conn);

	return chunk != NULL && http_chunk_ready(chunk) == 0 ? chunk->growth :
		NULL;
}

bool
http_conn_broken(const HttpConn *conn)
{
	const HttpChunk *chunk = http_conn_file(conn);

	return chunk != NULL && chunk->growth != NULL &&
		chunk->growth->state == HTTP_GROWTH_FAILED;
}
