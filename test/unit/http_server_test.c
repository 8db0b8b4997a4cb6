/*-------------------------------------------------------------------------
 *
 * http_server_test.c
 *	  Unit tests of the server (src/http/server.c), as TAP: real sockets, both
 *	  ends in this process, and a clock that only goes when it is told to.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "http/client.h"
#include "http/growth.h"
#include "http_test.h"

static int	port;
static char *large_file;		/* what replies to /file send */
static size_t large_size;
static int	file_length;		/* what replies to /short pretend */
static HttpRequest *held;		/* the request for /hold */
static HttpGrowth *growth;		/* of what replies to /growing send */
static int	growing = -1;		/* the file of it */

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
	return server;
}

static void
answer(HttpRequest *req)
{
	HttpReply	reply = {.status = 200, .fd = -1};
	Span		path = http_request_path(req);
	char		body[256];

	reply.body = body;
	reply.body_len = snprintf(body, sizeof(body), "[%s %s]",
							  http_request_address(req), path.data);
	if (span_is(path, "/file") || span_is(path, "/short"))
	{
		char		name[] = "/tmp/http_testXXXXXX";

		reply.fd = mkstemp(name);
		unlink(name);
		if (reply.fd < 0 || write(reply.fd, large_file, large_size) < 0)
			abort();
		reply.length = span_is(path, "/file") ? (off_t) large_size : file_length;
	}
	if (span_is(path, "/growing"))
	{
		reply.fd = dup(growing);
		reply.length = (off_t) large_size;
		reply.growth = growth;
	}
	if (span_is(path, "/hold"))
	{
		held = req;
		return;
	}
	if (http_request_method(req) >= HTTP_PUT)
		reply.status = 405;
	http_reply(req, &reply);
}

static void
answer_held(int status)
{
	HttpReply	reply = {.status = status, .fd = -1};

	http_reply(held, &reply);
	held = NULL;
}

/* One round of a worker's loop. */
static void
turn(HttpServer *server)
{
	HttpRequest *req;

	http_server_poll(server);
	while ((req = http_server_next(server)) != NULL)
		answer(req);
	http_server_flush(server);
}

/* Rounds until the server has nothing to do at once. */
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

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
	{
		printf("Bail out! connect: %s\n", strerror(errno));
		exit(1);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
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

static bool ended;				/* did the last read_reply() see the end? */
static size_t reply_size;

/* Reads until the end, so many bytes, or nothing more comes. */
static char *
read_reply(HttpServer *server, int fd, size_t want)
{
	static char *buffer;

	if (buffer == NULL)
		buffer = malloc(OUTPUT_SIZE + 1);
	ended = false;
	reply_size = 0;
	for (int quiet = 0; quiet < 3 && reply_size < want;)
	{
		ssize_t		got = recv(fd, buffer + reply_size,
							   OUTPUT_SIZE - reply_size, 0);

		if (got == 0 || (got < 0 && errno != EAGAIN))
		{
			ended = true;
			break;
		}
		if (got > 0)
		{
			reply_size += got;
			quiet = 0;
			continue;
		}
		settle(server);
		quiet++;
	}
	buffer[reply_size] = '\0';
	return buffer;
}

static bool
replies(HttpServer *server, int fd, const char *status, bool closed)
{
	char	   *reply = read_reply(server, fd, OUTPUT_SIZE);
	bool		good = strncmp(reply, "HTTP/1.1 ", 9) == 0 &&
	strncmp(reply + 9, status, strlen(status)) == 0 && ended == closed &&
	count_replies(reply) == 1;

	if (!good)
		printf("# ended %d: %s\n", ended, reply);
	return good;
}

static int
open_connections(HttpServer *server)
{
	HttpStats	stats;

	http_server_stats(server, &stats);
	return stats.connections;
}

/*
 * Sends a request that is answered with a close, and 4 MB behind it: does the
 * answer arrive, or does a reset overtake it?
 */
static bool
survives_refusal(HttpServer *server, const char *request, const char *status)
{
	static char text[20000];
	int			fd = connect_to(server);
	bool		good = true;

	say(server, fd, request);
	for (int sent = 0; sent < 4000000 && good;)
	{
		ssize_t		part = send(fd, text, sizeof(text), MSG_NOSIGNAL);

		good = part > 0 || errno == EAGAIN;
		sent += part > 0 ? part : 0;
		turn(server);
	}
	good = good && replies(server, fd, status, true);
	close(fd);
	settle(server);
	return good;
}

static void
test_server(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);
	int			other = connect_to(server);
	int			idle[200];
	char		text[20000] = "";
	char	   *reply;

	say(server, fd, GET("/a") HOST "\r\n");
	ok(replies(server, fd, "200", false), "a request is answered");
	ok(strcmp(last_log_address, "127.0.0.1") == 0 &&
	   strcmp(last_log_path, "/a") == 0 && last_log.status == 200,
	   "and logged");
	ok(server->env.pool.lent == 0, "idle connections hold no buffers");
	ok(sizeof(HttpClient) < 1024, "and little else: %zu bytes",
	   sizeof(HttpClient));

	for (int i = 0; i < 80; i++)
		memcpy(text + i * strlen(WITH("")), WITH(""), sizeof(WITH("")));
	say(server, fd, text);
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(count_replies(reply) == 80 && !ended, "80 pipelined requests");

	say(server, fd, GET("/hold") HOST "\r\n" GET("/a") HOST "\r\n");
	say(server, other, GET("/b") HOST "\r\n");
	ok(held != NULL && replies(server, other, "200", false),
	   "others go on while a request is held");
	answer_held(404);
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(count_replies(reply) == 2 && strstr(reply, "404 Not Found"),
	   "and it and the next are answered in the end");

	say(server, fd, GET("/hold") HOST "\r\n");
	close(fd);
	settle(server);
	answer_held(200);
	settle(server);
	ok(open_connections(server) == 1, "a client that left while held");

	for (int i = 0; i < 200; i++)
		idle[i] = connect_to(server);
	ok(open_connections(server) == 201 && server->env.pool.lent == 0,
	   "200 idle connections hold no buffers");
	for (int i = 0; i < 200; i++)
		close(idle[i]);
	settle(server);

	ok(survives_refusal(server, "PUT /a HTTP/1.1\r\n" HOST
						"Content-Length: 4000000\r\n\r\n", "405"),
	   "the reply to a PUT arrives in spite of its body");
	ok(survives_refusal(server, GET("/a") HOST
						"Content-Length: 4000000\r\n\r\n", "413"),
	   "a refusal arrives in spite of a body");
	ok(open_connections(server) == 1, "connections closed at both ends");
	close(other);
	http_server_free(server);
}

static void
test_files(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);
	int			other = connect_to(server);
	int			late;
	char	   *reply;
	char	   *body;

	large_size = 3000000;
	large_file = malloc(large_size);
	for (size_t i = 0; i < large_size; i++)
		large_file[i] = (char) (i * 2654435761u >> 13);

	say(server, fd, GET("/file") HOST "\r\n" GET("/a") HOST "\r\n");
	send(other, GET("/b") HOST "\r\n", strlen(GET("/b") HOST "\r\n"), 0);
	ok(replies(server, other, "200", false),
	   "another client is served while a file is sent");
	reply = read_reply(server, fd, OUTPUT_SIZE);
	body = strstr(reply, "\r\n\r\n");
	ok(body != NULL && reply_size > large_size &&
	   memcmp(body + 4, large_file, large_size) == 0 &&
	   strncmp(body + 4 + large_size, "HTTP/1.1 200", 12) == 0,
	   "a file arrives, and the reply behind it");
	say(server, fd, "HEAD /file HTTP/1.1\r\n" HOST "\r\n");
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(strstr(reply, "Content-Length: 3000000\r\n") != NULL &&
	   strcmp(strstr(reply, "\r\n\r\n"), "\r\n\r\n") == 0, "HEAD of a file");

	late = connect_to(server);
	say(server, late, GET("/file") HOST "\r\n");
	close(late);
	settle(server);
	ok(open_connections(server) == 2, "a client that left amid a file");

	file_length = 3000001;
	say(server, fd, GET("/short") HOST "\r\n");
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(ended && reply_size > large_size, "a file cut short: closed");
	close(fd);

	large_size = 100;
	file_length = 101;
	fd = connect_to(server);
	say(server, fd, GET("/file") HOST "\r\n");
	ok(replies(server, fd, "200", false), "a small file");
	say(server, fd, GET("/short") HOST "\r\n");
	ok(replies(server, fd, "500", true), "a small file cut short: 500");
	close(fd);
	close(other);
	settle(server);
	ok(open_connections(server) == 0 && server->env.pool.lent == 0,
	   "all gone");
	http_server_free(server);
	free(large_file);
}

/* So much of the file is there. */
static void
grow(HttpServer *server, size_t size, HttpGrowthState state)
{
	off_t		there = lseek(growing, 0, SEEK_END);

	if (there < (off_t) size &&
		write(growing, large_file + there, size - (size_t) there) < 0)
		abort();
	http_growth_set(growth, (off_t) size, state);
	settle(server);
}

static void
begin_growing(void)
{
	char		name[] = "/tmp/http_testXXXXXX";

	growing = mkstemp(name);
	unlink(name);
	growth = http_growth_create();
	if (growing < 0 || growth == NULL)
		abort();
}

static void
end_growing(void)
{
	http_growth_release(growth);
	close(growing);
}

static void
test_growing(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);
	int			other = connect_to(server);
	char	   *reply;

	large_size = 100000;
	large_file = malloc(large_size);
	memset(large_file, 'g', large_size);
	begin_growing();
	say(server, fd, GET("/growing") HOST "\r\n" GET("/a") HOST "\r\n");
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(strstr(reply, "Content-Length: 100000\r\n") != NULL && !ended &&
	   strcmp(strstr(reply, "\r\n\r\n"), "\r\n\r\n") == 0,
	   "the head of a file that grows comes at once");
	grow(server, 60000, HTTP_GROWTH_COMING);
	read_reply(server, fd, OUTPUT_SIZE);
	ok(reply_size == 60000, "then what is there");
	grow(server, 100000, HTTP_GROWTH_COMING);
	read_reply(server, fd, OUTPUT_SIZE);
	ok(reply_size == 39999, "but for the last byte");
	say(server, other, GET("/growing") HOST "\r\n");
	reply = read_reply(server, other, OUTPUT_SIZE);
	ok(strlen(strstr(reply, "\r\n\r\n") + 4) == 99999,
	   "which another is not sent, either");
	grow(server, 100000, HTTP_GROWTH_GOOD);
	reply = read_reply(server, fd, OUTPUT_SIZE);
	ok(strncmp(reply, "gHTTP/1.1 200", 13) == 0,
	   "it comes when the file is good, and the reply behind it");
	reply = read_reply(server, other, OUTPUT_SIZE);
	ok(strcmp(reply, "g") == 0, "to the other, too");
	end_growing();

	begin_growing();
	say(server, fd, GET("/growing") HOST "\r\n");
	say(server, other, GET("/growing") HOST "\r\n");
	grow(server, 100000, HTTP_GROWTH_COMING);
	close(other);
	settle(server);
	read_reply(server, fd, 99999);
	grow(server, 100000, HTTP_GROWTH_FAILED);
	read_reply(server, fd, OUTPUT_SIZE);
	ok(ended && reply_size < 1000, "a wrong one is cut before its end");
	ok(open_connections(server) == 0, "with all who were sent it");
	end_growing();
	close(fd);

	begin_growing();
	fd = connect_to(server);
	say(server, fd, GET("/growing") HOST "\r\n");
	http_server_free(server);
	end_growing();
	close(fd);
	free(large_file);
}

/*
 * Many who are sent a file at once: each turn has its measure, all get theirs
 * in turn, and others are answered in the turn in which they ask.
 */
static void
test_many_files(void)
{
	enum
	{
		MANY = 40
	};
	HttpLimits	limits = default_limits;
	HttpServer *server = start(&limits);
	int			fds[MANY];
	int			other = connect_to(server);
	uint64_t	most = 0;
	bool		others = true;
	bool		whole = true;
	char		reply[1000];

	large_size = 400000;
	large_file = calloc(1, large_size);
	for (int i = 0; i < MANY; i++)
		fds[i] = connect_to(server);
	for (int i = 0; i < MANY; i++)
		send(fds[i], GET("/file") HOST "\r\n",
			 strlen(GET("/file") HOST "\r\n"), 0);
	for (int i = 0; i < 10; i++)
	{
		uint64_t	before = server->env.stats.bytes_sent;

		send(other, GET("/b") HOST "\r\n", strlen(GET("/b") HOST "\r\n"), 0);
		turn(server);
		if (server->env.stats.bytes_sent - before > most)
			most = server->env.stats.bytes_sent - before;
		if (recv(other, reply, sizeof(reply), 0) <= 0)
			others = false;
	}
	ok(most >= 4 * 1024 * 1024 && most < 5 * 1024 * 1024,
	   "forty files are sent in turns of a bounded size");
	ok(others, "others are answered in each of them");
	for (int i = 0; i < MANY; i++)
	{
		read_reply(server, fds[i], OUTPUT_SIZE);
		whole = whole && reply_size > large_size;
		close(fds[i]);
	}
	ok(whole, "and all files arrive");
	close(other);
	settle(server);
	http_server_free(server);
	free(large_file);
}

static void
pass(HttpServer *server, int milliseconds)
{
	fake_now += milliseconds * 1000;
	settle(server);
}

static void
test_timeouts(void)
{
	HttpServer *server = start(&default_limits);
	int			fd = connect_to(server);
	char	   *reply;
	size_t		total;
	int			small = 65536;

	ok(http_server_timeout(server) == 60000, "the idle timeout is announced");
	pass(server, 59999);
	ok(open_connections(server) == 1, "idle for a while");
	pass(server, 1);
	ok(open_connections(server) == 0, "idle for too long: closed");
	close(fd);

	fd = connect_to(server);
	pass(server, 50000);
	for (int i = 0; i < 10; i++)
	{
		say(server, fd, i == 0 ? "GET " : "/");
		pass(server, 999);
	}
	ok(open_connections(server) == 1 && http_server_timeout(server) == 10,
	   "headers trickle in");
	say(server, fd, "/");
	pass(server, 10);
	ok(replies(server, fd, "408", true), "and take too long in all: 408");
	close(fd);
	settle(server);
	ok(open_connections(server) == 0, "closed");

	fd = connect_to(server);
	say(server, fd, GET("/a") HOST "Content-Length: 10\r\n\r\n12345");
	pass(server, 10000);
	ok(replies(server, fd, "408", true), "a body that does not come: 408");
	pass(server, 5000);
	ok(open_connections(server) == 0, "lingering ends");
	close(fd);

	large_size = 40000000;
	large_file = calloc(1, large_size);
	setsockopt(server->listeners->fd, SOL_SOCKET, SO_SNDBUF, &small,
			   sizeof(small));
	fd = connect_to(server);
	say(server, fd, GET("/file") HOST "\r\n");
	ok(http_server_timeout(server) == 30000, "a reader is waited for");
	pass(server, 29000);
	reply = read_reply(server, fd, 3000000);
	total = reply_size;
	settle(server);
	pass(server, 29000);
	ok(open_connections(server) == 1 && reply != NULL && total > 0,
	   "a slow reader that makes progress");
	pass(server, 30000);
	ok(open_connections(server) == 0, "a reader that takes nothing: closed");
	ok(server->env.pool.lent == 0, "and its memory is free");
	close(fd);
	free(large_file);
	http_server_free(server);
}

static void
test_connection_limits(void)
{
	HttpLimits	limits = default_limits;
	HttpServer *server;
	char		error[200];
	int			fds[8];
	char	   *reply;
	struct rlimit files;
	struct rlimit few;

	limits.max_connections = 3;
	server = start(&limits);
	for (int i = 0; i < 4; i++)
		fds[i] = connect_to(server);
	reply = read_reply(server, fds[3], OUTPUT_SIZE);
	ok(strstr(reply, " 503 ") && strstr(reply, "Retry-After: ") && ended,
	   "one connection too many: 503");
	close(fds[3]);
	close(fds[2]);
	settle(server);
	fds[2] = connect_to(server);
	say(server, fds[2], SECOND);
	ok(replies(server, fds[2], "200", false), "and again when one left");

	limits.max_connections = 100;
	limits.max_connections_per_address = 3;
	ok(http_server_configure(server, &limits, error, sizeof(error)),
	   "limits are changed");
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	for (int i = 0; i < 4; i++)
		fds[i] = connect_to(server);
	ok(replies(server, fds[3], "503", true),
	   "one connection too many of an address: 503");
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	settle(server);

	limits.max_connections_per_address = 1;
	limits.trusted_proxies = "127.0.0.0/8";
	http_server_configure(server, &limits, error, sizeof(error));
	for (int i = 0; i < 3; i++)
		fds[i] = connect_to(server);
	say(server, fds[0], GET("/hold") HOST "X-Forwarded-For: 1.1.1.1\r\n\r\n");
	say(server, fds[1], GET("/a") HOST "X-Forwarded-For: 2.2.2.2\r\n\r\n");
	reply = read_reply(server, fds[1], OUTPUT_SIZE);
	ok(strstr(reply, "[2.2.2.2 /a]") != NULL, "another client of the proxy");
	say(server, fds[1], GET("/a") HOST "X-Forwarded-For: 1.1.1.1\r\n\r\n");
	ok(replies(server, fds[1], "503", false),
	   "two requests of one client at once: 503, the proxy goes on");
	answer_held(200);
	settle(server);
	say(server, fds[1], GET("/a") HOST "X-Forwarded-For: 1.1.1.1\r\n\r\n");
	ok(replies(server, fds[1], "200", false), "and again when it was answered");

	limits.trusted_proxies = "nonsense";
	ok(!http_server_configure(server, &limits, error, sizeof(error)),
	   "nonsense is no proxy: %s", error);

	/* out of descriptors: no spin, and accepting goes on later */
	getrlimit(RLIMIT_NOFILE, &files);
	few = files;
	fds[3] = socket(AF_INET, SOCK_STREAM, 0);
	few.rlim_cur = fds[3] + 1;
	setrlimit(RLIMIT_NOFILE, &few);
	{
		struct sockaddr_in to = {
			.sin_family = AF_INET, .sin_port = htons(port)
		};

		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		connect(fds[3], (struct sockaddr *) &to, sizeof(to));
		fcntl(fds[3], F_SETFL, O_NONBLOCK);
	}
	settle(server);
	ok(open_connections(server) == 3 && http_server_timeout(server) == 100,
	   "out of descriptors: waits");
	setrlimit(RLIMIT_NOFILE, &files);
	pass(server, 100);
	fds[4] = connect_to(server);
	say(server, fds[4], SECOND);
	ok(replies(server, fds[4], "200", false), "then accepts again");
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	http_server_free(server);
}

static int
connect_unix(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(to.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
	{
		close(fd);
		return -1;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void
test_listeners(void)
{
	HttpServer *server = start(&default_limits);
	HttpServer *second = http_server_create(&default_limits, NULL);
	char		path[64];
	char		addresses[256];
	char		element[128];
	char		error[200];
	int			fd = connect_to(server);
	int			late;
	int			listener;

	snprintf(path, sizeof(path), "/tmp/http_test.%d", (int) getpid());
	snprintf(element, sizeof(element), "127.0.0.1:%d", port);
	ok(!http_addresses_free(element, error, sizeof(error)),
	   "an address in use is noticed: %s", error);
	ok(http_server_listen(second, element, false, error, sizeof(error)),
	   "another worker shares it");
	http_server_free(second);

	snprintf(addresses, sizeof(addresses), " %s , unix:%s", element, path);
	listener = server->listeners->fd;
	ok(http_server_listen(server, addresses, false, error, sizeof(error)) &&
	   access(path, F_OK) != 0, "a further worker makes no unix socket");
	ok(http_server_listen(server, addresses, true, error, sizeof(error)) &&
	   access(path, F_OK) == 0, "the first does");
	ok(server->listeners->next->fd == listener, "the old listener is kept");
	ok(!http_addresses_free(addresses, error, sizeof(error)),
	   "a unix socket in use is noticed: %s", error);
	late = connect_unix(path);
	say(server, late, SECOND);
	ok(strstr(read_reply(server, late, OUTPUT_SIZE), "[unix: /second]") != NULL,
	   "the unix socket is served");
	close(late);

	ok(!http_server_listen(server, "127.0.0.1:1,192.0.2.1:1", true, error,
						   sizeof(error)) &&
	   server->listeners->next->fd == listener,
	   "a bad list changes nothing: %s", error);

	late = connect_unix(path);
	send(late, SECOND, strlen(SECOND), 0);
	ok(http_server_listen(server, "", true, error, sizeof(error)) &&
	   server->listeners == NULL && access(path, F_OK) != 0,
	   "listeners are taken away, with the file");
	ok(replies(server, late, "200", false),
	   "who stood in the queue is still served");
	say(server, fd, SECOND);
	ok(replies(server, fd, "200", false), "and who was connected");
	close(late);

	/* a socket left by a process that died */
	late = socket(AF_UNIX, SOCK_STREAM, 0);
	{
		struct sockaddr_un at = {.sun_family = AF_UNIX};

		memcpy(at.sun_path, path, strlen(path) + 1);
		if (bind(late, (struct sockaddr *) &at, sizeof(at)) != 0)
			abort();
	}
	close(late);
	ok(access(path, F_OK) == 0 &&
	   http_server_listen(server, addresses, true, error, sizeof(error)),
	   "a stale socket is replaced");
	close(fd);
	http_server_free(server);
	ok(access(path, F_OK) != 0, "and removed in the end");
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(addresses, sizeof(addresses), "unix:%s", path);
	ok(!http_addresses_free(addresses, error, sizeof(error)) &&
	   access(path, F_OK) == 0, "a file in the way stays: %s", error);
	unlink(path);
}

static void
test_drain(void)
{
	HttpServer *server = start(&default_limits);
	int			idle = connect_to(server);
	int			busy = connect_to(server);
	int			fresh = connect_to(server);
	char	   *reply;

	say(server, idle, SECOND);
	ok(replies(server, idle, "200", false), "a connection gone idle");
	say(server, busy, GET("/hold") HOST "\r\n" GET("/a") HOST "\r\n");
	ok(!http_server_drain(server), "draining");
	settle(server);
	read_reply(server, idle, 1);
	ok(ended, "the idle connection is closed");
	answer_held(200);
	reply = read_reply(server, busy, OUTPUT_SIZE);
	ok(count_replies(reply) == 2 && ended &&
	   strstr(strstr(reply, "\r\n\r\n"), "Connection: close\r\n") &&
	   !strstr(reply, "Connection: close\r\nContent"),
	   "requests under way are answered, the last one with close");
	ok(!http_server_drain(server), "a fresh connection is waited for");
	say(server, fresh, SECOND);
	reply = read_reply(server, fresh, OUTPUT_SIZE);
	ok(strstr(reply, "Connection: close") && ended, "and answered, too");
	ok(http_server_drain(server), "drained");
	close(idle);
	close(busy);
	close(fresh);
	http_server_free(server);

	server = start(&default_limits);
	fresh = connect_to(server);
	http_server_drain(server);
	pass(server, 1000);
	ok(http_server_drain(server), "a silent one is waited for no longer");
	close(fresh);
	http_server_free(server);
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_server();
	test_files();
	test_growing();
	test_many_files();
	test_timeouts();
	test_connection_limits();
	test_listeners();
	test_drain();
	return done_testing();
}
