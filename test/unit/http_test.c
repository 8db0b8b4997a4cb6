/*-------------------------------------------------------------------------
 *
 * http_test.c
 *	  Unit tests of connections (src/http/conn.c), as TAP: refusals and
 *	  requests as raw bytes.
 *
 * Every byte sequence is also fed in all its splits into two and
 * byte by byte, and must come out the same.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/conn.h"
#include "http_test.h"

typedef struct Outcome
{
	char	   *output;			/* NUL-terminated */
	size_t		len;
	int			requests;
	bool		closed;
	size_t		max_lent;		/* the most memory that was in use */
} Outcome;

static void
init_env(HttpEnv *env)
{
	memset(env, 0, sizeof(*env));
	env->limits = default_limits;
	env->clock = fake_clock;
	env->log = log_hook;
	http_env_tick(env);
	memcpy(env->date_lines + 26, "Sun, 06 Nov 1994 08:49:37 GMT", 29);
}

/* Answers with what the request said. */
static void
echo_reply(HttpConn *conn)
{
	const HttpRequest *req = &conn->request;
	HttpReply	reply = {.status = 200, .fd = -1};
	Span		path = http_request_path(req);
	Span		query = http_request_query(req);
	Span		marker = http_request_header(req, "X-Test");
	char		body[4096];

	if (path.data[path.len] != '\0' || strlen(path.data) != path.len ||
		(query.data != NULL && query.data[query.len] != '\0'))
		abort();
	reply.body_len = snprintf(body, sizeof(body), "[%s %s|%s|%.*s]",
							  http_request_method_name(req), path.data,
							  query.data ? query.data : "-",
							  (int) marker.len,
							  marker.data ? marker.data : "");
	reply.body = body;
	http_conn_reply(conn, &reply);
}

static void
take_output(HttpConn *conn, Outcome *outcome)
{
	struct iovec iov[3];
	bool		more;
	int			count;

	while ((count = http_conn_output(conn, iov, 3, &more)) > 0)
	{
		size_t		sum = 0;

		for (int i = 0; i < count; i++)
		{
			memcpy(outcome->output + outcome->len, iov[i].iov_base,
				   iov[i].iov_len);
			outcome->len += iov[i].iov_len;
			sum += iov[i].iov_len;
		}
		http_conn_sent(conn, sum);
	}
	outcome->output[outcome->len] = '\0';
}

static void
step(HttpConn *conn, Outcome *outcome)
{
	while (conn->state == HTTP_CONN_REQUEST || http_conn_has_output(conn))
	{
		if (conn->env->pool.lent > outcome->max_lent)
			outcome->max_lent = conn->env->pool.lent;
		while (conn->state == HTTP_CONN_REQUEST)
		{
			outcome->requests++;
			echo_reply(conn);
		}
		take_output(conn, outcome);
		http_conn_advance(conn);
	}
}

/* Feeds bytes in pieces: first "first", then "rest" at a time. */
static Outcome
feed(HttpEnv *env, const char *bytes, size_t len, size_t first, size_t rest,
	 bool eof)
{
	static char *buffer;
	Outcome		outcome = {0};
	HttpConn	conn;
	HttpAddress peer = {.is_ip = true, .bytes = {[15] = 1}};
	size_t		pos = 0;

	if (buffer == NULL)
		buffer = malloc(OUTPUT_SIZE);
	outcome.output = buffer;
	buffer[0] = '\0';
	http_conn_init(&conn, env, &peer);
	while (pos < len)
	{
		size_t		part = pos < first ? first - pos : rest;
		char	   *data;
		size_t		room;

		if (!http_conn_wants_input(&conn) ||
			!http_conn_space(&conn, &data, &room))
			break;
		if (part > len - pos)
			part = len - pos;
		if (part > room)
			part = room;
		memcpy(data, bytes + pos, part);
		pos += part;
		http_conn_received(&conn, part);
		step(&conn, &outcome);
	}
	if (eof)
	{
		http_conn_eof(&conn);
		step(&conn, &outcome);
	}
	outcome.closed = conn.state == HTTP_CONN_LAST ||
		conn.state == HTTP_CONN_DEAD;
	http_conn_release(&conn);
	if (env->pool.lent != 0)
		abort();
	return outcome;
}

/* Is the outcome the same however the bytes are split? */
static bool
same_in_all_splits(HttpEnv *env, const char *bytes, size_t len)
{
	Outcome		whole = feed(env, bytes, len, len, len, false);
	char	   *expected = malloc(whole.len + 1);
	bool		same = true;

	memcpy(expected, whole.output, whole.len + 1);
	for (size_t split = 0; split <= len && same; split++)
	{
		Outcome		parts = feed(env, bytes, len, split, split ? len : 1,
								 false);

		same = parts.len == whole.len && parts.closed == whole.closed &&
			memcmp(parts.output, expected, whole.len) == 0;
		if (!same)
			printf("# split at %zu: %s\n", split, parts.output);
	}
	free(expected);
	return same;
}

typedef struct Case
{
	const char *name;
	const char *bytes;
	size_t		len;
	int			status;
	const char *body;			/* that the first reply has to hold */
	int			replies;
} Case;

#define REFUSE(name, status, bytes) \
	{name, bytes SECOND, sizeof(bytes SECOND) - 1, status, NULL, 1}
#define ACCEPT(name, body, replies, bytes) \
	{name, bytes, sizeof(bytes) - 1, 200, body, replies}

static const Case refusals[] = {
	REFUSE("two Content-Lengths", 400,
		   WITH("Content-Length: 5\r\nContent-Length: 6\r\n") "hello"),
	REFUSE("two equal Content-Lengths", 400,
		   WITH("Content-Length: 5\r\nContent-Length: 5\r\n") "hello"),
	REFUSE("Content-Length with a list", 400,
		   WITH("Content-Length: 5, 5\r\n") "hello"),
	REFUSE("Content-Length and Transfer-Encoding", 400,
		   WITH("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")
		   "0\r\n\r\n"),
	REFUSE("Transfer-Encoding and Content-Length", 400,
		   WITH("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")
		   "0\r\n\r\n"),
	REFUSE("Transfer-Encoding: gzip, chunked", 400,
		   WITH("Transfer-Encoding: gzip, chunked\r\n") "0\r\n\r\n"),
	REFUSE("Transfer-Encoding: chunked, gzip", 400,
		   WITH("Transfer-Encoding: chunked, gzip\r\n") "0\r\n\r\n"),
	REFUSE("Transfer-Encoding: identity", 400,
		   WITH("Transfer-Encoding: identity\r\n")),
	REFUSE("Transfer-Encoding: xchunked", 400,
		   WITH("Transfer-Encoding: xchunked\r\n") "0\r\n\r\n"),
	REFUSE("Transfer-Encoding twice", 400,
		   WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")
		   "0\r\n\r\n"),
	REFUSE("empty Transfer-Encoding", 400, WITH("Transfer-Encoding:\r\n")),
	REFUSE("Transfer-Encoding in HTTP/1.0", 400,
		   "GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
	REFUSE("Content-Length: +5", 400, WITH("Content-Length: +5\r\n") "hello"),
	REFUSE("Content-Length: -5", 400, WITH("Content-Length: -5\r\n") "hello"),
	REFUSE("Content-Length: 0x5", 400, WITH("Content-Length: 0x5\r\n")),
	REFUSE("Content-Length: 5 5", 400, WITH("Content-Length: 5 5\r\n")),
	REFUSE("empty Content-Length", 400, WITH("Content-Length:\r\n")),
	REFUSE("huge Content-Length", 400,
		   WITH("Content-Length: 99999999999999999999999\r\n")),
	REFUSE("space before the colon", 400, WITH("Content-Length : 5\r\n")),
	REFUSE("tab before the colon", 400, WITH("X\t: 5\r\n")),
	REFUSE("folded line", 400, WITH("X: a\r\n b\r\n")),
	REFUSE("folded line with a tab", 400, WITH("X: a\r\n\tb\r\n")),
	REFUSE("first header line begins with a space", 400,
		   GET("/a") " Host: a\r\n\r\n"),
	REFUSE("header without a colon", 400, WITH("Nonsense\r\n")),
	REFUSE("header without a name", 400, WITH(": 5\r\n")),
	REFUSE("space in a header name", 400, WITH("X Y: 5\r\n")),
	REFUSE("bare LF after the request line", 400, "GET /a HTTP/1.1\nHost: a\r\n\r\n"),
	REFUSE("bare LF after a header", 400, GET("/a") "Host: a\n\r\n"),
	REFUSE("bare LF for the empty line", 400, GET("/a") HOST "\n"),
	REFUSE("bare LF in front", 400, "\n" GET("/a") HOST "\r\n"),
	REFUSE("bare CR after the request line", 400, "GET /a HTTP/1.1\rHost: a\r\n\r\n"),
	REFUSE("bare CR in a header", 400, WITH("X: a\rb\r\n")),
	REFUSE("CR CR LF", 400, WITH("X: a\r\r\n")),
	REFUSE("bare CR in front", 400, "\r" GET("/a") HOST "\r\n"),
	REFUSE("NUL in a header value", 400, WITH("X: a\0b\r\n")),
	REFUSE("NUL in a header name", 400, WITH("X\0Y: a\r\n")),
	REFUSE("control byte in a header value", 400, WITH("X: a\001b\r\n")),
	REFUSE("DEL in a header value", 400, WITH("X: a\177b\r\n")),
	REFUSE("NUL in the URL", 400, GET("/a\0b") HOST "\r\n"),
	REFUSE("tab in the URL", 400, GET("/a\tb") HOST "\r\n"),
	REFUSE("DEL in the URL", 400, GET("/a\177b") HOST "\r\n"),
	REFUSE("byte above 127 in the URL", 400, GET("/a\303\244") HOST "\r\n"),
	REFUSE("fragment", 400, GET("/a#b") HOST "\r\n"),
	REFUSE("space in the URL", 400, GET("/a b") HOST "\r\n"),
	REFUSE("two spaces before the URL", 400, "GET  /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("two spaces after the URL", 400, "GET /a  HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("space in front of the method", 400, " GET /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("space behind the version", 400, "GET /a HTTP/1.1 \r\n" HOST "\r\n"),
	REFUSE("no Host", 400, GET("/a") "\r\n"),
	REFUSE("two Hosts", 400, GET("/a") HOST HOST "\r\n"),
	REFUSE("two Hosts in HTTP/1.0", 400, "GET /a HTTP/1.0\r\n" HOST HOST "\r\n"),
	REFUSE("Host with a path", 400, GET("/a") "Host: a/b\r\n\r\n"),
	REFUSE("Host with a list", 400, GET("/a") "Host: a, b\r\n\r\n"),
	REFUSE("%00", 400, GET("/a%00b") HOST "\r\n"),
	REFUSE("%00 in the query", 400, GET("/a?%00") HOST "\r\n"),
	REFUSE("%0a", 400, GET("/a%0ab") HOST "\r\n"),
	REFUSE("%", 400, GET("/a%") HOST "\r\n"),
	REFUSE("%4", 400, GET("/a%4") HOST "\r\n"),
	REFUSE("%zz", 400, GET("/a%zz") HOST "\r\n"),
	REFUSE("%2 at the end of the path", 400, GET("/a%2?b") HOST "\r\n"),
	REFUSE("malformed escape in the query", 400, GET("/a?%g0") HOST "\r\n"),
	REFUSE("URL without a slash", 400, GET("a") HOST "\r\n"),
	REFUSE("*", 400, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("GET *", 400, GET("*") HOST "\r\n"),
	REFUSE("empty URL", 400, GET("") HOST "\r\n"),
	REFUSE("query without a path", 400, GET("?a") HOST "\r\n"),
	REFUSE("URL of another scheme", 400, GET("ftp://h/a") HOST "\r\n"),
	REFUSE("URL without a host", 400, GET("http:///a") HOST "\r\n"),
	REFUSE("URL with a user", 400, GET("http://u@h/a") HOST "\r\n"),
	REFUSE("..", 400, GET("/a/../b") HOST "\r\n"),
	REFUSE(".. at the end", 400, GET("/a/..") HOST "\r\n"),
	REFUSE("..?", 400, GET("/..?x") HOST "\r\n"),
	REFUSE(".", 400, GET("/a/./b") HOST "\r\n"),
	REFUSE("%2e%2e", 400, GET("/a/%2e%2e/b") HOST "\r\n"),
	REFUSE(".%2E", 400, GET("/.%2E") HOST "\r\n"),
	REFUSE("%2F..", 400, GET("/a%2F..") HOST "\r\n"),
	REFUSE("..%2f", 400, GET("/..%2fetc") HOST "\r\n"),
	REFUSE("//", 400, GET("/a//b") HOST "\r\n"),
	REFUSE("// in front", 400, GET("//a") HOST "\r\n"),
	REFUSE("/%2F", 400, GET("/a/%2Fb") HOST "\r\n"),
	REFUSE("absolute URL with ..", 400, GET("http://h/../a") HOST "\r\n"),
	REFUSE("HTTP/2.0", 505, "GET /a HTTP/2.0\r\n" HOST "\r\n"),
	REFUSE("HTTP/3.7", 505, "GET /a HTTP/3.7\r\n" HOST "\r\n"),
	REFUSE("HTTP/1.2", 505, "GET /a HTTP/1.2\r\n" HOST "\r\n"),
	REFUSE("HTTP/0.9", 505, "GET /a HTTP/0.9\r\n" HOST "\r\n"),
	REFUSE("HTTP/2 preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	REFUSE("HTTP/1.10", 400, "GET /a HTTP/1.10\r\n" HOST "\r\n"),
	REFUSE("HTTP/11", 400, "GET /a HTTP/11\r\n" HOST "\r\n"),
	REFUSE("http/1.1", 400, "GET /a http/1.1\r\n" HOST "\r\n"),
	REFUSE("no version", 400, "GET /a\r\n" HOST "\r\n"),
	REFUSE("RTSP", 400, "GET /a RTSP/1.0\r\n" HOST "\r\n"),
	REFUSE("ICE", 400, "SOURCE /a ICE/1.0\r\n" HOST "\r\n"),
	REFUSE("rubbish", 400, "rubbish\r\n\r\n"),
	REFUSE("TLS", 400, "\026\003\001\002\000\001\000\001\374\003\003"),
	REFUSE("method that is no token", 400, "G@T /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("unknown method", 501, "BREW /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("get", 501, "get /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("GETS", 501, "GETS /a HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("CONNECT", 501, "CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"),
	REFUSE("body above 64 KiB", 413, WITH("Content-Length: 65537\r\n")),
	REFUSE("chunk size that is none", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "x\r\n"),
	REFUSE("empty chunk size", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "\r\n"),
	REFUSE("chunk size behind a space", 400,
		   WITH("Transfer-Encoding: chunked\r\n") " 5\r\n"),
	REFUSE("chunk size with a sign", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "+5\r\nhello\r\n0\r\n\r\n"),
	REFUSE("chunk size of many digits", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "000000005\r\nhello"),
	REFUSE("bare LF in a chunk size", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "5\nhello\r\n0\r\n\r\n"),
	REFUSE("bare CR in a chunk size", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "5\rhello\r\n0\r\n\r\n"),
	REFUSE("bare LF in a chunk extension", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "5;a\nhello\r\n0\r\n\r\n"),
	REFUSE("chunk longer than said", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "5\r\nhello!\r\n0\r\n\r\n"),
	REFUSE("bare LF behind the last chunk", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "0\r\n\n"),
	REFUSE("folded trailer", 400,
		   WITH("Transfer-Encoding: chunked\r\n") "0\r\n a: b\r\n\r\n")
};

static const Case requests[] = {
	ACCEPT("plain", "[GET /a|-|]", 1, GET("/a") HOST "\r\n"),
	ACCEPT("root", "[GET /|-|]", 1, GET("/") HOST "\r\n"),
	ACCEPT("trailing slash", "[GET /a/|-|]", 1, GET("/a/") HOST "\r\n"),
	ACCEPT("query", "[GET /a|b=c&d|]", 1, GET("/a?b=c&d") HOST "\r\n"),
	ACCEPT("empty query", "[GET /a||]", 1, GET("/a?") HOST "\r\n"),
	ACCEPT("escapes", "[GET /a+b!c d|x?y|]", 1,
		   GET("/a%2Bb%21c%20d?x%3Fy") HOST "\r\n"),
	ACCEPT("escaped question mark", "[GET /a?b|-|]", 1,
		   GET("/a%3Fb") HOST "\r\n"),
	ACCEPT("escaped byte above 127", "[GET /\303\244|-|]", 1,
		   GET("/%c3%a4") HOST "\r\n"),
	ACCEPT("raw ! + : =", "[GET /r/s:a!o+=~|-|]", 1,
		   GET("/r/s:a!o+=~") HOST "\r\n"),
	ACCEPT("dots in names", "[GET /..a/.b/c..|-|]", 1,
		   GET("/..a/.b/c..") HOST "\r\n"),
	ACCEPT("absolute URL", "[GET /a|b|]", 1, GET("http://h:80/a?b") HOST "\r\n"),
	ACCEPT("absolute URL without a path", "[GET /|-|]", 1,
		   GET("HTTP://h") HOST "\r\n"),
	ACCEPT("absolute URL with a query only", "[GET /|q|]", 1,
		   GET("https://h?q") HOST "\r\n"),
	ACCEPT("empty lines in front", "[GET /a|-|]", 1,
		   "\r\n\r\n" GET("/a") HOST "\r\n"),
	ACCEPT("header", "[GET /a|-|v w]", 1, WITH("x-tEST: \t v w \t\r\n")),
	ACCEPT("first of two headers", "[GET /a|-|1]", 1,
		   WITH("X-Test: 1\r\nX-Test: 2\r\n")),
	ACCEPT("empty header value", "[GET /a|-|]", 1,
		   WITH("X-Test:\r\nX-Test: 2\r\n")),
	ACCEPT("header value above 127", "[GET /a|-|\303\244]", 1,
		   WITH("X-Test: \303\244\r\n")),
	ACCEPT("empty Host", "[GET /a|-|]", 1, GET("/a") "Host:\r\n\r\n"),
	ACCEPT("Host in brackets", "[GET /a|-|]", 1, GET("/a") "Host: [::1]:80\r\n\r\n"),
	ACCEPT("two requests", "[GET /a|-|]", 2, WITH("") SECOND),
	ACCEPT("body thrown away", "[GET /a|-|]", 2,
		   WITH("Content-Length: 5\r\n") "GET /" SECOND),
	ACCEPT("Content-Length: 0", "[GET /a|-|]", 2,
		   WITH("Content-Length: 0\r\n") SECOND),
	ACCEPT("chunked body thrown away", "[GET /a|-|]", 2,
		   WITH("Transfer-Encoding: ChunKed\r\n")
		   "5;x=\"y\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nT: x\r\n\r\n" SECOND),
	ACCEPT("Upgrade: h2c", "[GET /a|-|]", 2,
		   WITH("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
				"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n") SECOND),
	ACCEPT("Upgrade: websocket", "[GET /a|-|]", 2,
		   WITH("Connection: Upgrade\r\nUpgrade: websocket\r\n") SECOND),
	ACCEPT("Connection: close", "[GET /a|-|]", 1,
		   WITH("Connection: close\r\n") SECOND),
	ACCEPT("Connection: foo, Close", "[GET /a|-|]", 1,
		   WITH("Connection: foo, Close\r\n") SECOND),
	ACCEPT("HTTP/1.0", "[GET /a|-|]", 1, "GET /a HTTP/1.0\r\n\r\n" SECOND),
	ACCEPT("HTTP/1.0 keep-alive",
		   "Connection: keep-alive\r\n\r\n[GET /a|-|]", 2,
		   "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" SECOND),
	ACCEPT("PUT with a body", "[PUT /a|-|]", 1,
		   "PUT /a HTTP/1.1\r\n" HOST "Content-Length: 99999999\r\n\r\n" SECOND),
	ACCEPT("chunked PUT", "[PUT /a|-|]", 1,
		   "PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
		   SECOND),
	ACCEPT("PUT that expects", "[PUT /a|-|]", 1,
		   "PUT /a HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n"
		   "Content-Length: 5\r\n\r\n"),
	ACCEPT("GET that expects", "[GET /a|-|]", 1,
		   WITH("Expect: 100-continue\r\nContent-Length: 5\r\n") SECOND),
	ACCEPT("DELETE", "[DELETE /a|-|]", 2,
		   "DELETE /a HTTP/1.1\r\n" HOST "\r\n" SECOND),
	ACCEPT("M-SEARCH", "[M-SEARCH /a|-|]", 2,
		   "M-SEARCH /a HTTP/1.1\r\n" HOST "\r\n" SECOND)
};

static void
test_case(HttpEnv *env, const Case *test)
{
	Outcome		outcome = feed(env, test->bytes, test->len, test->len,
							   test->len, false);
	char		start[32];
	bool		good;
	bool		closes;

	snprintf(start, sizeof(start), "HTTP/1.1 %d ", test->status);
	closes = strstr(outcome.output, "Connection: close\r\n") != NULL;
	good = strncmp(outcome.output, start, strlen(start)) == 0 &&
		(test->body == NULL || strstr(outcome.output, test->body) != NULL) &&
		count_replies(outcome.output) == test->replies &&
		outcome.closed == closes &&
		(test->status == 200 || (outcome.closed && outcome.requests == 0 &&
								 last_log.status == test->status &&
								 last_log.reason != NULL));
	ok(good, "%s: %d%s", test->name, test->status,
	   closes ? " and closed" : "");
	if (!good)
		printf("# %s\n# closed %d requests %d\n", outcome.output,
			   outcome.closed, outcome.requests);
	ok(same_in_all_splits(env, test->bytes, test->len), "%s: in all splits",
	   test->name);
}

static void
test_cases(void)
{
	HttpEnv		env;

	init_env(&env);
	for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++)
		test_case(&env, &refusals[i]);
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
		test_case(&env, &requests[i]);
	http_pool_clear(&env.pool);
}

/* Refusals that depend on limits, and what is just within them. */
static void
test_limits(void)
{
	HttpEnv		env;
	char		text[20000];
	Outcome		outcome;
	int			len;

	init_env(&env);
	for (int over = 0; over <= 1; over++)
	{
		len = snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\n" HOST "\r\n",
					   default_limits.max_url_size - 1 + over, 0);
		outcome = feed(&env, text, len, len, len, false);
		ok(strncmp(outcome.output + 9, over ? "414" : "200", 3) == 0 &&
		   outcome.closed == over, "URL of %s", over ? "one byte too many: 414" :
		   "the full size");
		ok(same_in_all_splits(&env, text, len), "same in all splits");

		len = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST "X: ");
		len += snprintf(text + len, sizeof(text) - len, "%0*d\r\n\r\n",
						default_limits.max_header_size - len - 4 + over, 0);
		outcome = feed(&env, text, len, len, len, false);
		ok(strncmp(outcome.output + 9, over ? "431" : "200", 3) == 0 &&
		   outcome.closed == over, "headers of %s",
		   over ? "one byte too many: 431" : "the full size");
	}

	memset(text, 'A', sizeof(text));
	outcome = feed(&env, text, 10000, 10000, 1, false);
	ok(strncmp(outcome.output + 9, "414", 3) == 0, "endless request line: 414");
	memset(text, '\r', sizeof(text));
	for (size_t i = 1; i < sizeof(text); i += 2)
		text[i] = '\n';
	outcome = feed(&env, text, 10000, 10000, 1, false);
	ok(strncmp(outcome.output + 9, "414", 3) == 0, "endless empty lines: 414");

	outcome = feed(&env, "HEAD /a//b HTTP/1.1\r\n", 21, 21, 1, false);
	outcome = feed(&env, "HEAD /a//b HTTP/1.1\r\n" HOST "\r\n", 32, 32, 1,
				   false);
	ok(strncmp(outcome.output + 9, "400", 3) == 0 &&
	   strcmp(strstr(outcome.output, "\r\n\r\n"), "\r\n\r\n") == 0,
	   "a refused HEAD has no body");
	ok(strcmp(last_log_method, "HEAD") == 0 &&
	   strcmp(last_log_path, "/a//b") == 0, "the refused request is logged");

	outcome = feed(&env, "GET /a", 6, 6, 1, true);
	ok(outcome.len == 0 && outcome.closed, "end inside a request: closed");
	outcome = feed(&env, SECOND, strlen(SECOND), 100, 1, true);
	ok(count_replies(outcome.output) == 1 && outcome.closed,
	   "end behind a request: answered, closed");

	len = snprintf(text, sizeof(text), GET("/a") HOST "Content-Length: 65536\r\n\r\n");
	{
		char	   *large = malloc(len + 65536 + 100);

		memcpy(large, text, len);
		memset(large + len, '\n', 65536);
		memcpy(large + len + 65536, SECOND, strlen(SECOND) + 1);
		len += 65536 + strlen(SECOND);
		outcome = feed(&env, large, len, len, 1, false);
		ok(count_replies(outcome.output) == 2, "body of 64 KiB is skipped");
		ok(outcome.max_lent < 65536, "and takes no memory");
		free(large);
	}
	http_pool_clear(&env.pool);
}

static void
test_pipelining(void)
{
	HttpEnv		env;
	char		text[16384];
	int			len = 0;
	Outcome		outcome;
	const char *at;
	bool		good;

	init_env(&env);
	for (int i = 0; i < 80; i++)
		len += snprintf(text + len, sizeof(text) - len, GET("/%d.narinfo") "Host: cache.example\r\n"
						"User-Agent: GNU Guile\r\n\r\n", i);
	outcome = feed(&env, text, len, len, 1, false);
	at = outcome.output;
	good = outcome.requests == 80 && count_replies(at) == 80;
	for (int i = 0; i < 80 && good; i++)
	{
		char		expected[64];

		snprintf(expected, sizeof(expected), "[GET /%d.narinfo|-|]", i);
		at = strstr(at, expected);
		good = at != NULL;
	}
	ok(good, "80 pipelined requests are answered in order");
	ok(same_in_all_splits(&env, text, len), "same in all splits");
	http_pool_clear(&env.pool);
}

/* A client that writes and never reads. */
static void
test_backpressure(void)
{
	HttpEnv		env;
	HttpConn	conn;
	HttpAddress peer = {.is_ip = true};
	static char body[10000];
	HttpReply	reply = {.status = 200, .fd = -1, .body = body,
	.body_len = sizeof(body)};
	size_t		fed = 0;
	char	   *data;
	size_t		room;

	init_env(&env);
	http_conn_init(&conn, &env, &peer);
	while (http_conn_wants_input(&conn) &&
		   http_conn_space(&conn, &data, &room) && fed < 10000000)
	{
		size_t		part = 0;

		while (part + strlen(SECOND) <= room)
		{
			memcpy(data + part, SECOND, strlen(SECOND));
			part += strlen(SECOND);
		}
		fed += part;
		http_conn_received(&conn, part);
		while (conn.state == HTTP_CONN_REQUEST)
			http_conn_reply(&conn, &reply);
	}
	ok(fed < 100000 && conn.out_bytes < 65536 + 20000 &&
	   env.pool.lent < 3 * 65536,
	   "a client that never reads is not read: %zu bytes in, %zu queued, "
	   "%zu in memory", fed, conn.out_bytes, env.pool.lent);
	ok(conn.state == HTTP_CONN_READING && !http_conn_wants_input(&conn),
	   "it is stalled");
	http_conn_sent(&conn, conn.out_bytes);
	http_conn_advance(&conn);
	ok(conn.state == HTTP_CONN_REQUEST, "and goes on when it read");
	http_conn_release(&conn);

	http_conn_init(&conn, &env, &peer);
	http_conn_space(&conn, &data, &room);
	http_conn_received(&conn, 0);
	ok(env.pool.lent == 0, "nothing received: no buffer is kept");
	http_pool_clear(&env.pool);
}

int
main(void)
{
	test_cases();
	test_limits();
	test_pipelining();
	test_backpressure();
	return done_testing();
}
