/*-------------------------------------------------------------------------
 *
 * client.c
 *	  One connection with its socket.  See client.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/client.h"

/* What one connection may send before the others have their turn. */
#define SEND_TURN		(512 * 1024)

/* The same for what is received of a body. */
#define BODY_TURN		(128 * 1024)

/*
 * Of a body so many bytes must come, or its rest, each time that body_timeout
 * passes: a byte now and then is no progress.
 */
#define BODY_STEP		(16 * 1024)

/* Pieces of memory sent by one system call. */
#define MAX_PIECES		64

/* What is read and thrown away behind a refusal, and how much in a turn. */
#define LINGER_BYTES	(8 * 1024 * 1024)
#define LINGER_TURN		(256 * 1024)

/*
 * Connections above a limit that are told so with a 503; any further one is
 * closed without a word.
 */
#define MAX_REFUSED		128

static void
set_timer(HttpClient *client, HttpTimer class, bool restart)
{
	if (client->timer_class == class && !restart)
		return;
	if (client->timer_class != HTTP_TIMER_NONE)
		link_remove(&client->timer);
	client->timer_class = class;
	if (class == HTTP_TIMER_NONE)
		return;
	client->timer_since = client->server->env.now;
	link_append(&client->server->timers[class], &client->timer);
}

/* Counts the client's address; false when it is there too often. */
static bool
count_address(HttpClient *client, const HttpAddress *address)
{
	HttpServer *server = client->server;
	int			limit = server->env.limits.max_connections_per_address;
	int			count;

	if (limit <= 0 || !address->is_ip)
		return true;
	count = http_peers_add(&server->peers, address);
	if (count < 0)
		return true;
	client->counted = true;
	client->counted_as = *address;
	return count <= limit;
}

static void
uncount_address(HttpClient *client)
{
	if (client->counted)
		http_peers_remove(&client->server->peers, &client->counted_as);
	client->counted = false;
}

static void
free_client(HttpClient *client)
{
	HttpServer *server = client->server;

	http_conn_release(&client->conn);
	uncount_address(client);
	if (client->refused)
		server->refused--;
	server->env.stats.connections--;
	link_remove(&client->all);
	free(client);
}

void
http_client_open(HttpServer *server, int fd, const HttpAddress *peer)
{
	HttpClient *client;
	const char *refusal = NULL;
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
	};
	bool		too_many = server->env.stats.connections - server->refused >=
	server->env.limits.max_connections;

	client = too_many && server->refused >= MAX_REFUSED ? NULL :
		malloc(sizeof(*client));
	if (client == NULL)
	{
		server->env.stats.connections_refused++;
		close(fd);
		return;
	}

	memset(client, 0, sizeof(*client));
	http_conn_init(&client->conn, &server->env, peer);
	client->server = server;
	client->fd = fd;
	client->timer_class = HTTP_TIMER_NONE;
	client->writable = true;
	link_init(&client->ready);
	link_init(&client->requests);
	link_init(&client->dirty);
	link_init(&client->growing);
	link_init(&client->timer);
	link_append(&server->all, &client->all);
	server->env.stats.connections++;
	server->env.stats.connections_accepted++;

	/* The lowest bit tells listeners and clients apart. */
	event.data.u64 = (uintptr_t) client | 1;
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
	{
		http_client_close(client);
		return;
	}

	if (too_many)
		refusal = "too many connections";
	else if (!client->conn.proxied && !count_address(client, peer))
		refusal = "too many connections from this address";
	if (refusal != NULL)
	{
		server->env.stats.connections_refused++;
		if (server->refused >= MAX_REFUSED)
		{
			http_client_close(client);
			return;
		}
		client->refused = true;
		server->refused++;
		http_conn_refuse(&client->conn, 503, refusal);
	}
	http_client_settle(client);
}

void
http_client_close(HttpClient *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	set_timer(client, HTTP_TIMER_NONE, false);
	link_remove(&client->ready);
	link_remove(&client->requests);
	link_remove(&client->dirty);
	link_remove(&client->growing);
	client->conn.state = HTTP_CONN_DEAD;
	if (client->held)
		return;
	if (client->conn.receive.result.begun)
	{
		/* The caller waits for it, and has a file to remove */
		http_receive_fail(&client->conn, HTTP_RECEIVE_CUT_SHORT);
		link_append(&client->server->requests, &client->requests);
		return;
	}
	free_client(client);
}

/* All output is gone and nothing more will be answered. */
static void
finish(HttpClient *client)
{
	/*
	 * Closing a socket with unread input sends a reset, which may destroy the
	 * last reply before the client has read it.  So say that nothing follows,
	 * and read on for a while.
	 */
	if (client->conn.eof || !(client->conn.linger || client->readable) ||
		shutdown(client->fd, SHUT_WR) != 0)
	{
		http_client_close(client);
		return;
	}
	client->lingering = true;
	set_timer(client, HTTP_TIMER_LINGER, false);
	if (client->readable && link_alone(&client->ready))
		link_append(&client->server->ready, &client->ready);
}

/*
 * The connection of a proxy carries requests of many clients: each counts for
 * its own address while it is answered.  Above the limit it is refused here;
 * the proxy's connection goes on.
 */
static void
admit_forwarded(HttpClient *client)
{
	static const HttpReply refusal = {
		.status = 503,
		.content_type = "text/plain; charset=utf-8",
		.headers = "Retry-After: 5\r\n",
		.body = "503 Service Unavailable\n",
		.body_len = 24,
		.fd = -1
	};
	HttpConn   *conn = &client->conn;

	while (conn->state == HTTP_CONN_REQUEST)
	{
		uncount_address(client);
		if (count_address(client, &conn->client))
			return;
		http_conn_reply(conn, &refusal);
	}
}

static HttpTimer
timer_due(const HttpClient *client)
{
	const HttpConn *conn = &client->conn;

	if (conn->state == HTTP_CONN_RECEIVING)
		return HTTP_TIMER_BODY;
	if (http_conn_has_output(conn))
		return client->writable ? HTTP_TIMER_NONE : HTTP_TIMER_SEND;
	if (conn->state != HTTP_CONN_READING)
		return HTTP_TIMER_NONE;
	return http_conn_in_request(conn) ? HTTP_TIMER_HEADER : HTTP_TIMER_IDLE;
}

static void
settle_output(HttpClient *client)
{
	HttpGrowth *growth = http_conn_waits(&client->conn);

	if (growth == NULL)
	{
		if (client->writable && link_alone(&client->dirty))
			link_append(&client->server->dirty, &client->dirty);
	}
	else if (link_alone(&client->growing))
		link_append(&growth->waiting, &client->growing);
}

void
http_client_settle(HttpClient *client)
{
	HttpServer *server = client->server;
	HttpConn   *conn = &client->conn;

	if (conn->proxied && conn->state == HTTP_CONN_REQUEST && !client->held &&
		!conn->receive.result.begun && link_alone(&client->requests))
		admit_forwarded(client);

	if (conn->state == HTTP_CONN_DEAD || http_conn_broken(conn))
	{
		http_client_close(client);
		return;
	}
	if (conn->state == HTTP_CONN_LAST && !http_conn_has_output(conn))
	{
		finish(client);
		return;
	}

	if (conn->state == HTTP_CONN_REQUEST)
	{
		if (!client->held && link_alone(&client->requests))
			link_append(&server->requests, &client->requests);
	}
	else if (client->readable && http_conn_wants_input(conn) &&
			 link_alone(&client->ready))
		link_append(conn->state == HTTP_CONN_RECEIVING ?
					&server->bodies : &server->ready, &client->ready);

	if (http_conn_has_output(conn))
		settle_output(client);
	else if (conn->proxied && conn->state == HTTP_CONN_READING)
		uncount_address(client);
	set_timer(client, timer_due(client), false);
}

/* Throws input away; true when the connection can be closed. */
static bool
discard_input(HttpClient *client)
{
	static char scratch[65536];
	size_t		turn = 0;

	while (turn < LINGER_TURN)
	{
		ssize_t		got = recv(client->fd, scratch, sizeof(scratch), 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		{
			client->readable = false;
			return false;
		}
		if (got <= 0)
			return true;
		turn += got;
		client->lingered += got;
		if (client->lingered > LINGER_BYTES)
			return true;
	}
	link_append(&client->server->ready, &client->ready);
	return false;
}

/* One system call's worth of input: the bytes that came. */
static size_t
receive_some(HttpClient *client)
{
	HttpConn   *conn = &client->conn;
	char	   *data;
	size_t		room;
	ssize_t		got;

	if (!http_conn_space(conn, &data, &room))
		return 0;
	do
		got = recv(client->fd, data, room, 0);
	while (got < 0 && errno == EINTR);

	/*
	 * A read that did not fill the buffer has emptied the socket, so there is
	 * no need to hear that from a further recv(); the next byte makes an
	 * edge. Only the end of the stream made its edge already.
	 */
	if (got < (ssize_t) room && !client->hangup)
		client->readable = false;
	if (got > 0)
	{
		http_conn_received(conn, got);
		return (size_t) got;
	}
	if (got == 0)
	{
		client->readable = false;
		http_conn_eof(conn);
	}
	else if (errno == EAGAIN || errno == EWOULDBLOCK)
	{
		client->readable = false;
		http_conn_received(conn, 0);
	}
	else
		conn->state = HTTP_CONN_DEAD;
	return 0;
}

void
http_client_input(HttpClient *client)
{
	if (client->lingering)
	{
		if (discard_input(client))
			http_client_close(client);
		return;
	}
	if (client->readable && http_conn_wants_input(&client->conn))
		receive_some(client);
	http_client_settle(client);
}

size_t
http_client_body(HttpClient *client)
{
	HttpConn   *conn = &client->conn;
	size_t		turn = 0;

	if (conn->state != HTTP_CONN_RECEIVING)
	{
		http_client_input(client);
		return 0;
	}
	while (conn->state == HTTP_CONN_RECEIVING && client->readable &&
		   turn < BODY_TURN)
		turn += receive_some(client);

	client->progress += turn;
	if (client->timer_class == HTTP_TIMER_BODY &&
		client->progress >= BODY_STEP)
	{
		client->progress = 0;
		set_timer(client, HTTP_TIMER_BODY, true);
	}
	http_client_settle(client);
	return turn;
}

/*
 * One system call's worth of output: the bytes that went, 0 when the socket
 * is full, -1 when the connection is broken.
 */
static ssize_t
send_some(HttpClient *client, size_t measure)
{
	HttpConn   *conn = &client->conn;
	struct iovec iov[MAX_PIECES];
	struct msghdr msg = {.msg_iov = iov};
	HttpChunk  *chunk;
	bool		more;
	ssize_t		sent;

	msg.msg_iovlen = http_conn_output(conn, iov, MAX_PIECES, &more);
	if (msg.msg_iovlen > 0)
	{
		int			flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);

		sent = msg.msg_iovlen == 1 ?
			send(client->fd, iov[0].iov_base, iov[0].iov_len, flags) :
			sendmsg(client->fd, &msg, flags);
		if (sent > 0)
			http_conn_sent(conn, sent);
	}
	else
	{
		off_t		offset;

		chunk = http_conn_file(conn);
		offset = chunk->offset;
		if ((off_t) measure > http_chunk_ready(chunk))
			measure = (size_t) http_chunk_ready(chunk);
		sent = sendfile(client->fd, chunk->fd, &offset, measure);
		if (sent > 0)
			http_conn_file_sent(conn, sent);
		else if (sent == 0)
			return -1;			/* the file became shorter */
	}

	if (sent >= 0)
		return sent;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	return errno == EINTR ? 1 : -1;
}

size_t
http_client_output(HttpClient *client)
{
	HttpConn   *conn = &client->conn;
	size_t		turn = 0;

	while (http_conn_has_output(conn) && !http_conn_waits(conn) &&
		   turn < SEND_TURN)
	{
		ssize_t		sent = send_some(client, SEND_TURN - turn);

		if (sent < 0)
		{
			conn->state = HTTP_CONN_DEAD;
			break;
		}
		if (sent == 0)
		{
			client->writable = false;
			break;
		}
		turn += sent;
	}

	if (conn->state != HTTP_CONN_DEAD)
	{
		/* The reader took something: its time starts anew. */
		if (turn > 0 && client->timer_class == HTTP_TIMER_SEND)
			set_timer(client, HTTP_TIMER_SEND, true);
		http_conn_advance(conn);
	}
	http_client_settle(client);
	return turn;
}

void
http_client_timeout(HttpClient *client)
{
	switch (client->timer_class)
	{
		case HTTP_TIMER_BODY:
			client->progress = 0;
			set_timer(client, HTTP_TIMER_BODY, true);

			/* It is not the client's fault that it had no turn */
			if (client->readable)
				break;
			/* FALLTHROUGH */
		case HTTP_TIMER_HEADER:
			http_conn_late(&client->conn);
			http_client_settle(client);
			break;
		default:
			http_client_close(client);
	}
}
