/*-------------------------------------------------------------------------
 *
 * http_receive_test.c
 *	  Unit tests of bodies that are received (src/http/receive.c), as TAP: raw
 *	  bytes in all their splits, then a server and real sockets.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/client.h"
#include "http_test.h"

#define MAX_SMALL		20		/* what "max" is unless said otherwise */

#define PUT(headers)	"PUT /a HTTP/1.1\r\n" HOST headers "\r\n"
#define LENGTH(n)		"Content-Length: " #n "\r\n"
#define CHUNKED			"Transfer-Encoding: chunked\r\n"
#define EXPECT			"Expect: 100-continue\r\n"

static HttpEnv env;
static char *output;
static size_t output_len;
static int	comings;			/* of requests whose body was received */
static int	file = -1;
static bool to_file;

/*-------------------------------------------------------------------------
 * Bytes without sockets
 *-------------------------------------------------------------------------
 */

/* Says what came: status, error, length and the body. */
static void
answer_conn(HttpConn *conn)
{
	HttpRequest *req = &conn->request;
	HttpReply	reply = {.status = 200, .fd = -1};
	HttpReceived received = http_request_received(req);
	static char body[200];
	char		content[100] = "";
	size_t		len = 0;

	if (!received.begun && http_request_method(req) >= HTTP_PUT)
	{
		http_request_set_data(req, &output);
		if (to_file && ftruncate(file, 0) == 0)
			lseek(file, 0, SEEK_SET);
		if (http_conn_receive(conn, to_file ? file : -1, MAX_SMALL))
			return;
		received = http_request_received(req);
	}
	if (received.begun)
	{
		comings++;
		if (http_request_data(req) != &output)
			abort();
	}
	if (received.complete)
	{
		len = to_file ? (size_t) pread(file, content, sizeof(content), 0) :
			received.data.len;
		if (len != received.length)
			abort();
		if (!to_file)
			memcpy(content, received.data.data, len);
		content[len] = '\0';
	}
	if (received.status != 0)
		reply.status = received.status;
	reply.body_len = snprintf(body, sizeof(body), "<%s %s %s>",
							  http_request_path(req).data,
							  received.reason ? received.reason : "-",
							  content);
	reply.body = body;
	http_conn_reply(conn, &reply);
}

static void
work(HttpConn *conn)
{
	struct iovec iov[1];
	bool		more;

	do
	{
		while (conn->state == HTTP_CONN_REQUEST)
			answer_conn(conn);
		while (http_conn_output(conn, iov, 1, &more) > 0)
		{
			memcpy(output + output_len, iov[0].iov_base, iov[0].iov_len);
			output_len += iov[0].iov_len;
			http_conn_sent(conn, iov[0].iov_len);
		}
		http_conn_advance(conn);
	} while (conn->state == HTTP_CONN_REQUEST || http_conn_has_output(conn));
	output[output_len] = '\0';
}

static const char *
feed(const char *bytes, size_t len, size_t first, size_t rest, bool eof)
{
	HttpConn	conn;
	HttpAddress peer = {.is_ip = true};
	size_t		pos = 0;

	output_len = 0;
	comings = 0;
	http_conn_init(&conn, &env, &peer);
	while (pos < len && http_conn_wants_input(&conn))
	{
		size_t		part = pos < first ? first - pos : rest;
		char	   *data;
		size_t		room;

		http_conn_space(&conn, &data, &room);
		part = part > len - pos ? len - pos : part;
		part = part > room ? room : part;
		memcpy(data, bytes + pos, part);
		pos += part;
		http_conn_received(&conn, part);
		work(&conn);
	}
	if (eof)
	{
		http_conn_eof(&conn);
		work(&conn);
	}
	http_conn_release(&conn);
	if (env.pool.lent != 0 || env.body_memory != 0)
		abort();
	return output;
}

typedef struct Case
{
	const char *name;
	const char *bytes;
	size_t		len;
	const char *expected;		/* in the output, in this order, by '\n' */
	int			replies;
} Case;

#define CASE(name, replies, expected, bytes) \
	{name, bytes, sizeof(bytes) - 1, expected, replies}

static const Case cases[] = {
	CASE("length", 2, "</a - hello>\n</second - >",
		 PUT(LENGTH(5)) "hello" SECOND),
	CASE("chunked", 2, "</a - hello world>\n</second - >",
		 PUT(CHUNKED) "5;x=\"y\"\r\nhello\r\n1\r\n \r\n05\r\nworld\r\n"
		 "0\r\nT: x\r\n\r\n" SECOND),
	CASE("no body", 2, "</a - >\n</second - >", PUT("") SECOND),
	CASE("length 0", 2, "</a - >\n</second - >", PUT(LENGTH(0)) SECOND),
	CASE("no chunks", 2, "</a - >\n</second - >",
		 PUT(CHUNKED) "0\r\n\r\n" SECOND),
	CASE("two bodies", 3, "</a - one>\n</a - two>\n</second - >",
		 PUT(LENGTH(3)) "one" PUT(CHUNKED) "3\r\ntwo\r\n0\r\n\r\n" SECOND),
	CASE("POST", 1, "</b?c - x>", "POST /b%3Fc?d HTTP/1.1\r\n" HOST
		 LENGTH(1) "\r\nx"),
	CASE("expected", 3,
		 "HTTP/1.1 100 Continue\r\nHTTP/1.1 200 OK\r\n</a - hello>\n</second",
		 PUT(EXPECT LENGTH(5)) "hello" SECOND),
	CASE("expected, no body", 2, "HTTP/1.1 200 OK\n</a - >\n</second",
		 PUT(EXPECT) SECOND),
	CASE("another expectation", 1, "417\n</a unknown Expect >",
		 PUT("Expect: miracles\r\n" LENGTH(5)) "hello" SECOND),
	CASE("two expectations", 1, "417",
		 PUT(EXPECT "Expect: miracles\r\n" LENGTH(5)) "hello" SECOND),
	CASE("HTTP/1.0", 1, "200 OK\nConnection: close\n</a - hello>",
		 "PUT /a HTTP/1.0\r\n" LENGTH(5) EXPECT "\r\nhello" SECOND),
	CASE("HTTP/1.0 without a length", 1, "411\n</a body without a length >",
		 "PUT /a HTTP/1.0\r\n\r\nhello"),
	CASE("the largest", 2, "</a - 12345678901234567890>\n</second",
		 PUT(LENGTH(20)) "12345678901234567890" SECOND),
	CASE("too large, and skipped", 2, "413\n</a body too large >\n</second",
		 PUT(LENGTH(21)) "123456789012345678901" SECOND),
	CASE("too large to be skipped", 1, "413\nConnection: close\n</a",
		 PUT(LENGTH(65537)) "123456789012345678901" SECOND),
	CASE("too large for an expectation", 1, "413\nConnection: close\n</a",
		 PUT(EXPECT LENGTH(21)) "123456789012345678901" SECOND),
	CASE("the largest in chunks", 2, "</a - 12345678901234567890>\n</second",
		 PUT(CHUNKED) "A\r\n1234567890\r\na\r\n1234567890\r\n0\r\n\r\n"
		 SECOND),
	CASE("too large in chunks", 1, "413\nConnection: close\n</a",
		 PUT(CHUNKED) "14\r\n12345678901234567890\r\n1\r\n1\r\n0\r\n\r\n"
		 SECOND),
	CASE("a chunk too large", 1, "413\n</a body too large >",
		 PUT(CHUNKED) "15\r\n1234567890" SECOND),
	CASE("the largest chunk size", 1, "413",
		 PUT(CHUNKED) "ffffffff\r\n1234567890" SECOND),
	CASE("chunk size too long", 1, "400\n</a malformed chunked body >",
		 PUT(CHUNKED) "100000001\r\n1234567890" SECOND),
	CASE("chunk size with a sign", 1, "400\nConnection: close\n</a",
		 PUT(CHUNKED) "+5\r\nhello\r\n0\r\n\r\n" SECOND),
	CASE("chunk size in base 10 and more", 1, "400",
		 PUT(CHUNKED) "0x5\r\nhello\r\n0\r\n\r\n" SECOND),
	CASE("chunk longer than said", 1, "400",
		 PUT(CHUNKED) "4\r\nhello\r\n0\r\n\r\n" SECOND),
	CASE("bare LF in a chunk", 1, "400",
		 PUT(CHUNKED) "5\nhello\r\n0\r\n\r\n" SECOND),
	CASE("two lengths", 1, "HTTP/1.1 400",
		 PUT(LENGTH(5) LENGTH(6)) "hello" SECOND),
	CASE("length and chunked", 1, "HTTP/1.1 400",
		 PUT(LENGTH(5) CHUNKED) "0\r\n\r\n" SECOND),
	CASE("gzip, chunked", 1, "HTTP/1.1 400",
		 PUT("Transfer-Encoding: gzip, chunked\r\n") "0\r\n\r\n" SECOND),
	CASE("chunked in HTTP/1.0", 1, "HTTP/1.1 400",
		 "PUT /a HTTP/1.0\r\n" CHUNKED "\r\n0\r\n\r\n")
};

/* Are all these parts there, one behind the other? */
static bool
in_order(const char *text, const char *parts)
{
	char		part[100];

	while (*parts != '\0')
	{
		size_t		len = strcspn(parts, "\n");

		memcpy(part, parts, len);
		part[len] = '\0';
		text = strstr(text, part);
		if (text == NULL)
			return false;
		text += len;
		parts += len + (parts[len] == '\n');
	}
	return true;
}

static void
test_case(const Case *test)
{
	const char *whole = feed(test->bytes, test->len, test->len, 1, false);
	bool		good = count_replies(whole) == test->replies &&
	in_order(whole, test->expected);
	char	   *expected = strdup(whole);
	bool		same = true;

	ok(good, "%s%s", test->name, to_file ? ", to a file" : "");
	if (!good)
		printf("# %s\n", whole);
	for (size_t split = 0; split <= test->len && same; split++)
		same = strcmp(feed(test->bytes, test->len, split,
						   split ? test->len : 1, false), expected) == 0;
	ok(same, "in all splits");
	free(expected);
}

static void
test_cut_short(void)
{
	static const char put[] = PUT(LENGTH(5)) "hel";
	static const char chunks[] = PUT(CHUNKED) "5\r\nhello\r\n0\r\n";
	char	   *large = malloc(40000);
	int			len;

	ok(in_order(feed(put, sizeof(put) - 1, 1000, 1, true),
				"400\nConnection: close\n</a body cut short >") &&
	   comings == 1, "a body cut short");
	ok(in_order(feed(chunks, sizeof(chunks) - 1, 1000, 1, true),
				"</a body cut short >") && comings == 1,
	   "the same in chunks");

	len = snprintf(large, 1000, PUT(CHUNKED) "1;");
	memset(large + len, 'x', 30000);
	ok(in_order(feed(large, 30000, 30000, 1, false),
				"400\n</a chunk extension or trailer too long >"),
	   "an endless chunk extension");
	len = snprintf(large, 1000, PUT(CHUNKED) "0\r\n");
	for (int i = 0; i < 3000; i++)
		memcpy(large + len + i * 6, "a: b\r\n", 6);
	ok(in_order(feed(large, len + 18000, 30000, 1, false),
				"400\n</a chunk extension or trailer too long >"),
	   "endless trailers");
	free(large);
}

static void
test_bytes(void)
{
	memset(&env, 0, sizeof(env));
	env.limits = default_limits;
	env.clock = fake_clock;
	env.log = log_hook;
	http_env_tick(&env);
	output = malloc(OUTPUT_SIZE);
	file = memfd_create("body", MFD_CLOEXEC);
	for (int i = 0; i < 2; i++)
	{
		to_file = i == 1;
		for (size_t n = 0; n < sizeof(cases) / sizeof(*cases); n++)
			test_case(&cases[n]);
	}
	test_cut_short();
	env.limits.max_body_memory = 10;
	to_file = false;
	ok(in_order(feed(PUT(LENGTH(20)), strlen(PUT(LENGTH(20))), 999, 1, true),
				"400\n</a body cut short >"),
	   "what was only announced takes no memory");
	ok(in_order(feed(PUT(LENGTH(20)) "12345678901234567890",
					 strlen(PUT(LENGTH(20))) + 20, 999, 1, true),
				"503\n</a no memory for the body >"), "too much memory: 503");
	http_pool_clear(&env.pool);
	free(env.piece);
	free(output);
	close(file);
}

/*-------------------------------------------------------------------------
 * A server
 *-------------------------------------------------------------------------
 */

static int	port;
static uint64_t max_size = 100 * 1024 * 1024;
static HttpReceived last;
static int	received_count;
static int	refused_count;
static HttpRequest *held;

static HttpServer *
start(const HttpLimits *limits)
{
	struct sockaddr_in any = {.sin_family = AF_INET};
	socklen_t	len = sizeof(any);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);
	char		address[64];
	char		error[200];
	HttpServer *server = http_server_create(limits, log_hook);

	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *) &any, len) != 0 ||
		getsockname(fd, (struct sockaddr *) &any, &len) != 0)
		abort();
	close(fd);
	port = ntohs(any.sin_port);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	http_server_set_clock(server, fake_clock);
	if (!http_server_listen(server, address, true, error, sizeof(error)))
	{
		printf("Bail out! %s\n", error);
		exit(1);
	}
	received_count = refused_count = 0;
	return server;
}

static void
reply_with(HttpRequest *req, int status)
{
	HttpReply	reply = {.status = status, .fd = -1, .body = "done\n",
	.body_len = 5};

	http_reply(req, &reply);
}

static void
answer(HttpRequest *req)
{
	Span		path = http_request_path(req);

	if (http_request_method(req) < HTTP_PUT)
	{
		reply_with(req, 200);
		return;
	}
	if (!http_request_received(req).begun &&
		http_request_receive(req, span_is(path, "/memory") ? -1 : file,
							 max_size))
		return;
	last = http_request_received(req);
	if (last.begun)
		received_count++;
	else
		refused_count++;
	if (span_is(path, "/hold"))
		held = req;
	else
		reply_with(req, last.complete ? 201 : last.status);
}

static void
turn(HttpServer *server)
{
	HttpRequest *req;

	http_server_poll(server);
	while ((req = http_server_next(server)) != NULL)
		answer(req);
	http_server_flush(server);
}

static void
settle(HttpServer *server)
{
	struct pollfd ready = {.fd = http_server_fd(server), .events = POLLIN};

	for (int i = 0; i < 100000; i++)
	{
		turn(server);
		if (http_server_timeout(server) != 0 && poll(&ready, 1, 2) == 0)
			return;
	}
	printf("# the server spins\n");
	failures++;
}

static int
connect_to(HttpServer *server)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int			fd = socket(AF_INET, SOCK_STREAM, 0);
	int			yes = 1;		/* or small parts wait for each other */

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
		abort();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	settle(server);
	return fd;
}

static void
say(HttpServer *server, int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		printf("# send: %s\n", strerror(errno));
	settle(server);
}

/* What the client has received; '!' behind the end of the stream. */
static const char *
heard(HttpServer *server, int fd)
{
	static char text[10000];
	size_t		len = 0;
	ssize_t		got;

	settle(server);
	while ((got = recv(fd, text + len, sizeof(text) - 2 - len, 0)) > 0)
		len += got;
	if (got == 0 || errno != EAGAIN)
		text[len++] = '!';
	text[len] = '\0';
	return text;
}

static int
open_connections(HttpServer *server)
{
	HttpStats	stats;

	http_server_stats(server, &stats);
	return stats.connections;
}

static void
new_file(void)
{
	if (file >= 0)
		close(file);
	file = memfd_create("body", MFD_CLOEXEC);
}

static off_t
file_size(void)
{
	struct stat st;

	fstat(file, &st);
	return st.st_size;
}

static void
test_uploads(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);
	const size_t size = 8 * 1024 * 1024;
	char	   *data = malloc(size);
	char	   *back = malloc(size);
	size_t		sent = 0;
	size_t		most = 0;
	off_t		before = 0;

	for (size_t i = 0; i < size; i++)
		data[i] = (char) (i * 2654435761u >> 11);
	new_file();
	say(server, fd, PUT(EXPECT LENGTH(8388608)));
	ok(strcmp(heard(server, fd), "HTTP/1.1 100 Continue\r\n\r\n") == 0,
	   "100 Continue comes at once");
	ok(http_server_timeout(server) == default_limits.body_timeout,
	   "and the body is waited for");
	while (sent < size)
	{
		ssize_t		part = send(fd, data + sent, size - sent, MSG_NOSIGNAL);

		sent += part > 0 ? part : 0;
		turn(server);
		if ((size_t) (file_size() - before) > most)
			most = file_size() - before;
		before = file_size();
	}
	ok(most > 0 && most <= 256 * 1024, "it is taken in turns: %zu bytes",
	   most);
	ok(in_order(heard(server, fd), "201") && last.length == size &&
	   pread(file, back, size, 0) == (ssize_t) size &&
	   memcmp(data, back, size) == 0, "a body of 8 MB, whole");
	say(server, fd, SECOND);
	ok(in_order(heard(server, fd), "200"), "the connection goes on");
	ok(server->env.pool.lent == 0, "and holds no memory");

	new_file();
	say(server, fd, PUT(LENGTH(10)) "12345");
	say(server, fd, "67890" SECOND "PUT /memory HTTP/1.1\r\n" HOST LENGTH(3)
		"\r\nabc" SECOND);
	ok(count_replies(heard(server, fd)) == 4 && file_size() == 10 &&
	   received_count == 3, "what is pipelined behind bodies is answered");

	say(server, fd, "PUT /memory HTTP/1.1\r\n" HOST LENGTH(9) "\r\nabc");
	ok(server->env.body_memory > 0, "a body in memory");
	shutdown(fd, SHUT_WR);
	ok(in_order(heard(server, fd), "400\ndone\n!") && received_count == 4 &&
	   server->env.body_memory == 0, "cut short: 400, its memory is free");
	close(fd);
	settle(server);
	ok(open_connections(server) == 0, "closed");
	http_server_free(server);
	free(data);
	free(back);
}

static void
test_gone(void)
{
	HttpServer *server = start(&default_limits);
	struct linger reset = {.l_onoff = 1};
	int			fd = connect_to(server);

	new_file();
	say(server, fd, PUT(LENGTH(10)) "12345");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	settle(server);
	ok(received_count == 1 && !last.complete &&
	   last.error == HTTP_RECEIVE_CUT_SHORT &&
	   open_connections(server) == 0,
	   "a client that is gone: the request comes out");

	fd = connect_to(server);
	say(server, fd, "PUT /hold HTTP/1.1\r\n" HOST LENGTH(10)
		"\r\n1234567890");
	ok(held != NULL && last.complete, "a request that is held");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	settle(server);
	ok(open_connections(server) == 1, "is there though its client is not");
	reply_with(held, 201);
	settle(server);
	ok(open_connections(server) == 0, "until it is answered");
	http_server_free(server);

	/* gone between the end of its body and its coming out */
	server = start(&default_limits);
	fd = connect_to(server);
	send(fd, PUT(LENGTH(10)), strlen(PUT(LENGTH(10))), 0);
	turn(server);
	send(fd, "1234567890", 10, 0);
	http_server_poll(server);
	http_server_flush(server);
	ok(!link_alone(&server->requests), "a body is complete");
	http_client_close(CLIENT_OF(server->all.next, all));
	settle(server);
	ok(received_count == 1 && last.complete && open_connections(server) == 0,
	   "it comes out though the connection broke");
	close(fd);

	fd = connect_to(server);
	say(server, fd, PUT(LENGTH(10)) "12345");
	http_server_free(server);
	ok(received_count == 1, "the server goes while it receives");
	close(fd);
}

static void
pass(HttpServer *server, int milliseconds)
{
	fake_now += milliseconds * 1000;
	settle(server);
}

static void
test_slow(void)
{
	HttpServer *server = start(&default_limits);
	static char step[16 * 1024 + 1];
	int			fd = connect_to(server);

	memset(step, 'x', sizeof(step) - 1);
	new_file();
	say(server, fd, PUT(LENGTH(100000)));
	for (int i = 0; i < 4; i++)
	{
		pass(server, 19999);
		say(server, fd, step);
	}
	ok(received_count == 0 && http_server_timeout(server) == 20000,
	   "a body that makes progress");
	for (int i = 0; i < 19; i++)
	{
		pass(server, 1000);
		say(server, fd, "x");
	}
	ok(received_count == 0, "a byte now and then");
	pass(server, 1000);
	ok(in_order(heard(server, fd), "408\ndone\n!") && received_count == 1 &&
	   last.error == HTTP_RECEIVE_TIMEOUT, "is none: 408");
	close(fd);

	fd = connect_to(server);
	say(server, fd, "DELETE /a HTTP/1.1\r\n" HOST LENGTH(10) "\r\n");
	pass(server, 20000);
	ok(in_order(heard(server, fd), "408"), "no body at all: 408");
	close(fd);
	http_server_free(server);
}

static void
test_failures(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);

	close(file);
	file = open("/dev/full", O_WRONLY);
	say(server, fd, PUT(LENGTH(100000)) "12345");
	ok(in_order(heard(server, fd), "507\nConnection: close\n!") &&
	   last.error == HTTP_RECEIVE_NO_SPACE && last.os_error == ENOSPC,
	   "no space: 507");
	close(fd);
	close(file);
	file = open("/dev/null", O_RDONLY);
	fd = connect_to(server);
	say(server, fd, PUT(LENGTH(5)) "12345");
	ok(in_order(heard(server, fd), "500\nConnection: close\n!") &&
	   last.error == HTTP_RECEIVE_NOT_WRITTEN && last.os_error == EBADF,
	   "another error: 500");
	close(fd);

	new_file();
	max_size = 1000;
	fd = connect_to(server);
	say(server, fd, PUT(EXPECT LENGTH(1001)));
	ok(in_order(heard(server, fd), "HTTP/1.1 413\n!") && file_size() == 0 &&
	   refused_count == 1, "too large: 413 instead of 100");
	close(fd);
	settle(server);
	max_size = 100 * 1024 * 1024;
	ok(open_connections(server) == 0, "all gone");
	http_server_free(server);
}

static void
test_drain(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);

	new_file();
	say(server, fd, PUT(LENGTH(10)) "12345");
	ok(!http_server_drain(server), "draining");
	pass(server, 2000);
	say(server, fd, "67890");
	ok(in_order(heard(server, fd), "201\nConnection: close\n!") &&
	   file_size() == 10, "a body under way is finished, then closed");
	close(fd);
	settle(server);
	ok(http_server_drain(server), "drained");
	http_server_free(server);
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_bytes();
	file = -1;
	test_uploads();
	test_gone();
	test_slow();
	test_failures();
	test_drain();
	close(file);
	return done_testing();
}
