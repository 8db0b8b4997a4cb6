/*-------------------------------------------------------------------------
 *
 * server.c
 *	  The loop around connections: listeners, epoll, timers, limits.
 *
 *		http_server_poll()		epoll_wait; accept; recv and parse what is
 *								ready; timeouts
 *		http_server_next()		the oldest of the requests found
 *		http_reply()			to the output of its connection
 *		http_server_flush()		sends what is dirty; takes of bodies what has
 *								come, after those who wait for an answer
 *
 * Whatever remains to be done without a further event (input behind a full
 * buffer, output behind one turn's measure) stays in a list, and then
 * http_server_timeout() is 0.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/client.h"

/*
 * Connections looked at in one turn: few enough that the pool holds the input
 * and output of all of them.
 */
#define MAX_EVENTS			128

/* Connections accepted from one listener in one turn. */
#define ACCEPT_TURN			64

/*
 * Bytes sent in one turn, after which who is being sent a file waits for the
 * next: a thousand of them could otherwise hold up everybody else for as long
 * as it takes to send each its share.
 */
#define FILES_TURN			(4 * 1024 * 1024)

/*
 * Bytes of bodies taken in one turn, for the same reason.  Writing them to a
 * file costs about as many microseconds as there are kilobytes in this, and
 * that is what a GET has to wait longer while somebody uploads.
 */
#define BODIES_TURN			(256 * 1024)

/* ms to wait when the process or the system is out of descriptors. */
#define ACCEPT_PAUSE		100

/* ms in which a client should have closed after a refusal. */
#define LINGER_TIMEOUT		5000

/*
 * ms that a connection without any request yet is kept while draining: its
 * first request may be on the way, and no client retries that one.
 */
#define DRAIN_GRACE			1000

static int64_t
monotonic_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void
http_server_set_clock(HttpServer *server, int64_t (*clock) (void))
{
	server->env.clock = clock;
	http_env_tick(&server->env);
}

HttpServer *
http_server_create(const HttpLimits *limits, HttpLogHook log)
{
	HttpServer *server = calloc(1, sizeof(*server));
	char		error[64];

	if (server == NULL)
		return NULL;
	link_init(&server->all);
	link_init(&server->ready);
	link_init(&server->bodies);
	link_init(&server->requests);
	link_init(&server->dirty);
	for (int i = 0; i < HTTP_TIMER_NONE; i++)
		link_init(&server->timers[i]);
	server->env.log = log;
	server->env.clock = monotonic_clock;
	http_env_tick(&server->env);

	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->epoll_fd < 0 ||
		!http_server_configure(server, limits, error, sizeof(error)))
	{
		http_server_free(server);
		return NULL;
	}
	return server;
}

bool
http_server_configure(HttpServer *server, const HttpLimits *limits,
					  char *error, size_t error_size)
{
	if (!http_networks_parse(limits->trusted_proxies, &server->env.trusted,
							 error, error_size))
		return false;
	server->env.limits = *limits;
	server->env.limits.trusted_proxies = NULL;
	return true;
}

/* Lets epoll watch a listener, or not. */
static bool
watch_listener(HttpServer *server, HttpListener *listener, bool watch)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (listener->watched == watch)
		return true;
	event.data.u64 = (uintptr_t) listener;
	if (epoll_ctl(server->epoll_fd, watch ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
				  listener->fd, &event) != 0)
		return false;
	listener->watched = watch;
	return true;
}

/* Out of descriptors or memory: leave new connections to the backlog. */
static void
pause_accepting(HttpServer *server)
{
	for (HttpListener *l = server->listeners; l != NULL; l = l->next)
		watch_listener(server, l, false);
	server->accept_again = server->env.now + ACCEPT_PAUSE * 1000;
}

static void
resume_accepting(HttpServer *server)
{
	server->accept_again = 0;
	for (HttpListener *l = server->listeners; l != NULL; l = l->next)
	{
		if (!watch_listener(server, l, true))
			server->accept_again = server->env.now + ACCEPT_PAUSE * 1000;
	}
}

/* Accepts up to max connections; false when there is none left. */
static bool
accept_clients(HttpServer *server, HttpListener *listener, int max)
{
	while (max > 0)
	{
		struct sockaddr_storage sockaddr = {0};
		socklen_t	len = sizeof(sockaddr);
		HttpAddress peer;
		int			fd;

		fd = accept4(listener->fd, (struct sockaddr *) &sockaddr, &len,
					 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
		{
			http_address_of((struct sockaddr *) &sockaddr, &peer);
			http_client_open(server, fd, &peer);
			max--;
			continue;
		}
		switch (errno)
		{
			case EMFILE:
			case ENFILE:
			case ENOBUFS:
			case ENOMEM:
				pause_accepting(server);
				return false;
			case EAGAIN:
			case EBADF:
			case EINVAL:
			case ENOTSOCK:
				return false;
			default:
				/* trouble of the one connection: the next may be well */
				max--;
		}
	}
	return true;
}

/* Takes a listener away; those who already connected are still served. */
static void
retire_listener(HttpServer *server, HttpListener *listener)
{
	accept_clients(server, listener, 65536);
	watch_listener(server, listener, false);
	http_listener_close(listener);
}

bool
http_server_listen(HttpServer *server, const char *addresses, bool first,
				   char *error, size_t error_size)
{
	HttpListener **link = &server->listeners;
	HttpListener *retired = NULL;

	if (!http_listeners_open(&server->listeners, addresses, first, error,
							 error_size))
		return false;

	while (*link != NULL)
	{
		HttpListener *listener = *link;

		if (listener->keep)
		{
			link = &listener->next;
			continue;
		}
		*link = listener->next;
		listener->next = retired;
		retired = listener;
	}
	resume_accepting(server);
	http_env_tick(&server->env);
	while (retired != NULL)
	{
		HttpListener *listener = retired;

		retired = listener->next;
		retire_listener(server, listener);
	}
	return true;
}

int
http_server_fd(const HttpServer *server)
{
	return server->epoll_fd;
}

/* Microseconds that a timeout of this class takes. */
static int64_t
timer_duration(const HttpServer *server, HttpTimer class)
{
	const HttpLimits *limits = &server->env.limits;

	switch (class)
	{
		case HTTP_TIMER_IDLE:
			if (server->env.draining && limits->idle_timeout > DRAIN_GRACE)
				return DRAIN_GRACE * INT64_C(1000);
			return limits->idle_timeout * INT64_C(1000);
		case HTTP_TIMER_HEADER:
			return limits->header_timeout * INT64_C(1000);
		case HTTP_TIMER_BODY:
			return limits->body_timeout * INT64_C(1000);
		case HTTP_TIMER_SEND:
			return limits->send_timeout * INT64_C(1000);
		default:
			return LINGER_TIMEOUT * INT64_C(1000);
	}
}

/* When the first timer of a class ends; INT64_MAX: none runs. */
static int64_t
timer_end(const HttpServer *server, HttpTimer class)
{
	const HttpLink *list = &server->timers[class];

	if (link_alone(list))
		return INT64_MAX;
	return CLIENT_OF(list->next, timer)->timer_since +
		timer_duration(server, class);
}

long
http_server_timeout(const HttpServer *server)
{
	int64_t		end = server->accept_again ? server->accept_again : INT64_MAX;
	int64_t		now;

	if (!link_alone(&server->ready) || !link_alone(&server->requests) ||
		!link_alone(&server->dirty) || !link_alone(&server->bodies))
		return 0;
	for (int class = 0; class < HTTP_TIMER_NONE; class++)
	{
		int64_t		other = timer_end(server, (HttpTimer) class);

		if (other < end)
			end = other;
	}
	if (end == INT64_MAX)
		return -1;
	now = server->env.clock();
	return end <= now ? 0 : (long) ((end - now + 999) / 1000);
}

static void
handle_client_event(HttpServer *server, HttpClient *client, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
	{
		client->readable = true;
		if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			client->hangup = true;
		if (link_alone(&client->ready))
			link_append(client->conn.state == HTTP_CONN_RECEIVING ?
						&server->bodies : &server->ready, &client->ready);
	}
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
	{
		client->writable = true;
		if (http_conn_has_output(&client->conn) &&
			link_alone(&client->dirty))
			link_append(&server->dirty, &client->dirty);
	}
}

static void
run_timers(HttpServer *server)
{
	if (server->accept_again != 0 && server->accept_again <= server->env.now)
		resume_accepting(server);
	for (int class = 0; class < HTTP_TIMER_NONE; class++)
	{
		while (timer_end(server, (HttpTimer) class) <= server->env.now)
			http_client_timeout(CLIENT_OF(server->timers[class].next, timer));
	}
}

void
http_server_poll(HttpServer *server)
{
	struct epoll_event events[MAX_EVENTS];
	HttpLink	turn;
	int			count;

	count = epoll_wait(server->epoll_fd, events, MAX_EVENTS, 0);
	http_env_tick(&server->env);

	/*
	 * Only flags are set here and nothing is freed, so that no event can be
	 * one of a client that is gone.  Accepting comes last for that reason.
	 */
	for (int i = 0; i < count; i++)
	{
		if (events[i].data.u64 & 1)
			handle_client_event(server,
								(HttpClient *) (uintptr_t)
								(events[i].data.u64 & ~UINT64_C(1)),
								events[i].events);
	}
	for (int i = 0; i < count; i++)
	{
		if (!(events[i].data.u64 & 1))
			accept_clients(server,
						   (HttpListener *) (uintptr_t) events[i].data.u64,
						   ACCEPT_TURN);
	}

	link_take(&server->ready, &turn);
	while (!link_alone(&turn))
	{
		HttpClient *client = CLIENT_OF(turn.next, ready);

		link_remove(&client->ready);
		http_client_input(client);
	}
	run_timers(server);
}

HttpRequest *
http_server_next(HttpServer *server)
{
	HttpClient *client;

	if (link_alone(&server->requests))
		return NULL;
	client = CLIENT_OF(server->requests.next, requests);
	link_remove(&client->requests);
	client->held = true;
	return &client->conn.request;
}

void
http_reply(HttpRequest *req, const HttpReply *reply)
{
	HttpClient *client = (HttpClient *) req;
	int			unread = 0;

	client->held = false;
	if (client->server->env.draining && client->fd >= 0)
		client->conn.more_input =
			ioctl(client->fd, FIONREAD, &unread) == 0 && unread > 0;
	http_conn_reply(&client->conn, reply);
	http_client_settle(client);
}

bool
http_request_receive(HttpRequest *req, int fd, uint64_t max)
{
	HttpClient *client = (HttpClient *) req;

	if (!http_conn_receive(&client->conn, fd, max))
		return false;
	client->held = false;
	client->progress = 0;
	http_client_settle(client);
	return true;
}

/* Who had no turn is the first in the next. */
static void
take_bodies(HttpServer *server)
{
	HttpLink	turn;
	size_t		taken = 0;

	link_take(&server->bodies, &turn);
	while (!link_alone(&turn) && taken < BODIES_TURN)
	{
		HttpClient *client = CLIENT_OF(turn.next, ready);

		link_remove(&client->ready);
		taken += http_client_body(client);
	}
	link_prepend_all(&server->bodies, &turn);
}

void
http_server_flush(HttpServer *server)
{
	HttpLink	turn;
	HttpLink	waiting;
	size_t		sent = 0;

	link_take(&server->dirty, &turn);
	link_init(&waiting);
	while (!link_alone(&turn))
	{
		HttpClient *client = CLIENT_OF(turn.next, dirty);

		link_remove(&client->dirty);
		if (sent >= FILES_TURN && client->conn.out_files > 0)
			link_append(&waiting, &client->dirty);
		else
			sent += http_client_output(client);
	}
	link_prepend_all(&server->dirty, &waiting);
	take_bodies(server);
}

/*
 * Closes those who neither sent anything nor are about to send their first
 * request.
 */
static void
close_idle(HttpServer *server)
{
	HttpLink   *list = &server->timers[HTTP_TIMER_IDLE];
	HttpLink   *link = list->next;

	while (link != list)
	{
		HttpClient *client = CLIENT_OF(link, timer);
		int			unread = 0;

		link = link->next;
		if (client->readable ||
			(ioctl(client->fd, FIONREAD, &unread) == 0 && unread > 0))
			continue;
		if (client->conn.requests > 0)
			http_client_close(client);
	}
}

bool
http_server_drain(HttpServer *server)
{
	server->env.draining = true;
	http_env_tick(&server->env);
	while (server->listeners != NULL)
	{
		HttpListener *listener = server->listeners;

		server->listeners = listener->next;
		retire_listener(server, listener);
	}
	server->accept_again = 0;
	close_idle(server);
	return server->env.stats.connections == 0;
}

void
http_server_stats(const HttpServer *server, HttpStats *stats)
{
	*stats = server->env.stats;
}

void
http_server_free(HttpServer *server)
{
	if (server == NULL)
		return;
	while (!link_alone(&server->all))
	{
		HttpClient *client = CLIENT_OF(server->all.next, all);

		client->held = false;
		http_receive_release(&client->conn);
		http_client_close(client);
	}
	while (server->listeners != NULL)
	{
		HttpListener *listener = server->listeners;

		server->listeners = listener->next;
		http_listener_close(listener);
	}
	if (server->epoll_fd >= 0)
		close(server->epoll_fd);
	http_peers_free(&server->peers);
	http_pool_clear(&server->env.pool);
	free(server->env.piece);
	http_networks_free(&server->env.trusted);
	free(server);
}
