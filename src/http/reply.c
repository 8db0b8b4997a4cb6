/*-------------------------------------------------------------------------
 *
 * reply.c
 *	  The heads of replies, and the log.
 *
 * A head is put together by memcpy: this runs once for each narinfo served.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/conn.h"

/* Room for all of a head but what the caller supplies. */
#define HEAD_ROOM		256

/* Bytes of a path that the log shows. */
#define LOG_PATH_LEN	1024

static const struct
{
	int			status;
	const char *reason;
}			status_reasons[] =

{
	{200, "200 OK"},
	{404, "404 Not Found"},
	{206, "206 Partial Content"},
	{304, "304 Not Modified"},
	{201, "201 Created"},
	{204, "204 No Content"},
	{301, "301 Moved Permanently"},
	{302, "302 Found"},
	{303, "303 See Other"},
	{307, "307 Temporary Redirect"},
	{308, "308 Permanent Redirect"},
	{400, "400 Bad Request"},
	{401, "401 Unauthorized"},
	{403, "403 Forbidden"},
	{405, "405 Method Not Allowed"},
	{406, "406 Not Acceptable"},
	{408, "408 Request Timeout"},
	{409, "409 Conflict"},
	{410, "410 Gone"},
	{411, "411 Length Required"},
	{412, "412 Precondition Failed"},
	{413, "413 Content Too Large"},
	{414, "414 URI Too Long"},
	{415, "415 Unsupported Media Type"},
	{416, "416 Range Not Satisfiable"},
	{417, "417 Expectation Failed"},
	{422, "422 Unprocessable Content"},
	{429, "429 Too Many Requests"},
	{431, "431 Request Header Fields Too Large"},
	{451, "451 Unavailable For Legal Reasons"},
	{500, "500 Internal Server Error"},
	{501, "501 Not Implemented"},
	{502, "502 Bad Gateway"},
	{503, "503 Service Unavailable"},
	{504, "504 Gateway Timeout"},
	{505, "505 HTTP Version Not Supported"},
	{507, "507 Insufficient Storage"}
};

const char *
http_status_reason(int status)
{
	for (size_t i = 0; i < sizeof(status_reasons) / sizeof(*status_reasons);
		 i++)
	{
		if (status_reasons[i].status == status)
			return status_reasons[i].reason;
	}
	return NULL;
}

static inline char *
put(char *at, const char *text, size_t len)
{
	memcpy(at, text, len);
	return at + len;
}

#define PUT_LITERAL(at, literal) put(at, literal, sizeof(literal) - 1)

static char *
put_number(char *at, uint64_t value)
{
	char		digits[20];
	int			start = sizeof(digits);

	do
	{
		digits[--start] = '0' + value % 10;
		value /= 10;
	} while (value > 0);
	return put(at, digits + start, sizeof(digits) - start);
}

static char *
put_status_line(char *at, int status)
{
	const char *reason = http_status_reason(status);

	at = PUT_LITERAL(at, "HTTP/1.1 ");
	if (reason != NULL)
		at = put(at, reason, strlen(reason));
	else
	{
		/* RFC 9112, section 4: the reason may be empty, its space not */
		at = put_number(at, status);
		*at++ = ' ';
	}
	return PUT_LITERAL(at, "\r\n");
}

/* A chunk at the end of the output with so many bytes of room; or NULL. */
static HttpChunk *
reserve(HttpConn *conn, size_t len)
{
	HttpChunk  *tail = conn->out_tail;
	HttpChunk  *chunk;

	if (tail != NULL && tail->fd < 0 && tail->size - tail->used >= len)
		return tail;
	chunk = http_chunk_get(&conn->env->pool, len);
	if (chunk == NULL)
		return NULL;
	if (tail != NULL)
		tail->next = chunk;
	else
		conn->out = chunk;
	conn->out_tail = chunk;
	return chunk;
}

bool
http_queue_text(HttpConn *conn, const char *text)
{
	size_t		len = strlen(text);
	HttpChunk  *chunk = reserve(conn, len);

	if (chunk == NULL)
		return false;
	memcpy(chunk->data + chunk->used, text, len);
	chunk->used += len;
	conn->out_bytes += len;
	return true;
}

char *
http_queue_reply(HttpConn *conn, const HttpReply *reply,
				 int64_t content_length, size_t body_len, bool close)
{
	size_t		type_len = reply->content_type ?
	strlen(reply->content_type) : 0;
	size_t		headers_len = reply->headers ? strlen(reply->headers) : 0;
	HttpChunk  *chunk;
	char	   *at;
	size_t		start;

	chunk = reserve(conn, HEAD_ROOM + type_len + headers_len + body_len);
	if (chunk == NULL)
		return NULL;
	start = chunk->used;
	at = put_status_line(chunk->data + start, reply->status);
	at = put(at, conn->env->date_lines, HTTP_DATE_LINES_LEN);
	if (reply->content_type)
	{
		at = PUT_LITERAL(at, "Content-Type: ");
		at = put(at, reply->content_type, type_len);
		at = PUT_LITERAL(at, "\r\n");
	}
	if (content_length >= 0)
	{
		at = PUT_LITERAL(at, "Content-Length: ");
		at = put_number(at, (uint64_t) content_length);
		at = PUT_LITERAL(at, "\r\n");
	}
	if (reply->headers)
		at = put(at, reply->headers, headers_len);
	if (close)
		at = PUT_LITERAL(at, "Connection: close\r\n");
	else if (conn->request.head.http_1_0)
		at = PUT_LITERAL(at, "Connection: keep-alive\r\n");
	at = PUT_LITERAL(at, "\r\n");

	chunk->used = (at - chunk->data) + body_len;
	conn->out_bytes += chunk->used - start;
	conn->reply_len = chunk->used - start;
	return at;
}

void
http_unqueue_reply(HttpConn *conn)
{
	conn->out_tail->used -= conn->reply_len;
	conn->out_bytes -= conn->reply_len;
	conn->reply_len = 0;
}

/*
 * Copies a text for the log.  NULs stand where parse_target() ended the path
 * at its '?'.
 */
static char *
put_escaped(char *at, const char *end, Span text)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < text.len && end - at > 4; i++)
	{
		unsigned char c = (unsigned char) text.data[i];

		if (c == '\0')
			*at++ = '?';
		else if (c > 0x20 && c < 0x7f && c != '\\')
			*at++ = (char) c;
		else
		{
			*at++ = '\\';
			*at++ = 'x';
			*at++ = hex[c >> 4];
			*at++ = hex[c & 15];
		}
	}
	*at = '\0';
	return at;
}

/* What can be told of a request that was refused: method and path as sent. */
static void
describe_refused(const HttpConn *conn, char *method, size_t method_size,
				 char *path, size_t path_size)
{
	const HttpChunk *in = conn->in;
	Span		line = span_of("", 0);
	const char *space;
	const char *end;

	if (in != NULL)
		line = span_of(in->data + conn->start + conn->scan.begin,
					   in->used - conn->start - conn->scan.begin);
	end = line.len > 0 ? memchr(line.data, '\r', line.len) : NULL;
	if (end != NULL)
		line.len = end - line.data;

	space = line.len > 0 ? memchr(line.data, ' ', line.len) : NULL;
	if (space == NULL)
	{
		put_escaped(method, method + method_size, span_of("-", 1));
		put_escaped(path, path + path_size, line);
		return;
	}
	put_escaped(method, method + method_size,
				span_of(line.data, space - line.data));
	line = span_skip(line, space + 1 - line.data);
	space = memchr(line.data, ' ', line.len);
	if (space != NULL)
		line.len = space - line.data;
	put_escaped(path, path + path_size, line);
}

void
http_log_reply(HttpConn *conn, int status, uint64_t bytes, const char *reason)
{
	HttpLogLevel level = conn->env->limits.log_level;
	HttpLogRecord record = {0};
	char		method[32];
	char		path[LOG_PATH_LEN];

	if (level == HTTP_LOG_OFF || conn->env->log == NULL ||
		(level == HTTP_LOG_ERRORS && (status < 400 || status == 404)))
		return;

	record.address = conn->request.address;
	record.status = status;
	record.bytes = bytes;
	record.reason = reason;
	record.path = path;
	if (conn->state == HTTP_CONN_REQUEST)
	{
		record.method = conn->request.head.method;
		record.microseconds = conn->env->clock() - conn->request.since;
		put_escaped(path, path + sizeof(path), conn->request.head.target);
	}
	else
	{
		record.method = method;
		describe_refused(conn, method, sizeof(method), path, sizeof(path));
	}
	conn->env->log(&record);
}
