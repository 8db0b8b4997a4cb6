/*-------------------------------------------------------------------------
 *
 * client.h
 *	  One connection with its socket, and the lists of the server it is in.
 *
 * A client is in each of these lists or not:
 *
 *		ready		there may be input that can be taken now
 *		bodies		the same, and it belongs to a body; by the same link
 *		requests	a request waits for http_server_next()
 *		dirty		there is output that may be sent now
 *		growing		it waits for more of a file that grows (growth.h)
 *		timers[n]	a timeout of class n runs
 *
 * and settle_client(), called whenever something happened to the connection,
 * puts it where it belongs.  Sockets are watched edge-triggered from accept
 * to close, so that serving a request takes no epoll_ctl; "readable" and
 * "writable" remember what the last edge said.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_CLIENT_H
#define NARINFO_HTTP_CLIENT_H

#include "http/conn.h"
#include "http/link.h"
#include "http/listen.h"
#include "http/peers.h"

/*
 * Each class of timeout has one duration for all connections, so a list in
 * order of begin is in order of end as well.
 */
typedef enum HttpTimer
{
	HTTP_TIMER_IDLE,
	HTTP_TIMER_HEADER,
	HTTP_TIMER_BODY,
	HTTP_TIMER_SEND,
	HTTP_TIMER_LINGER,
	HTTP_TIMER_NONE				/* nothing runs; also the number of lists */
} HttpTimer;

typedef struct HttpClient
{
	HttpConn	conn;			/* first, so that a request leads here */
	HttpServer *server;
	int			fd;
	HttpLink	all;
	HttpLink	ready;
	HttpLink	requests;
	HttpLink	dirty;
	HttpLink	growing;		/* in the growth's list */
	HttpLink	timer;
	int64_t		timer_since;
	HttpTimer	timer_class;
	bool		readable;
	bool		writable;
	bool		hangup;			/* read on until recv() says 0 */
	bool		held;			/* the caller has the request */
	bool		lingering;
	bool		refused;		/* came above a limit */
	bool		counted;		/* in server->peers, as counted_as */
	uint32_t	lingered;		/* bytes thrown away meanwhile */
	uint32_t	progress;		/* bytes of a body since its timer began */
	HttpAddress counted_as;
} HttpClient;

struct HttpServer
{
	HttpEnv		env;
	int			epoll_fd;
	HttpListener *listeners;
	int64_t		accept_again;	/* when to accept again; 0: accepting */
	int			refused;		/* clients above a limit */
	HttpPeers	peers;
	HttpLink	all;			/* every client */
	HttpLink	ready;
	HttpLink	bodies;
	HttpLink	requests;
	HttpLink	dirty;
	HttpLink	timers[HTTP_TIMER_NONE];
};

/* The client that a link is part of. */
#define CLIENT_OF(link, member) \
	((HttpClient *) ((char *) (link) - offsetof(HttpClient, member)))

/* Takes over an accepted socket. */
extern void http_client_open(HttpServer *server, int fd,
							 const HttpAddress *peer);

/*
 * Closes; the memory goes once the caller holds no request of it, nor has one
 * to come out because its body was to be received.
 */
extern void http_client_close(HttpClient *client);

/* Receives once what is there. */
extern void http_client_input(HttpClient *client);

/* Takes of a body what is there, within one turn's measure; how many bytes. */
extern size_t http_client_body(HttpClient *client);

/* Sends what the socket takes, within one turn's measure; how many bytes. */
extern size_t http_client_output(HttpClient *client);

/* Puts the client into the lists where it belongs now. */
extern void http_client_settle(HttpClient *client);

/* A timeout of the class that runs came to its end. */
extern void http_client_timeout(HttpClient *client);

/* ---- server.c ---- */

/* Another clock, in microseconds, for tests. */
extern void http_server_set_clock(HttpServer *server, int64_t (*clock) (void));

#endif							/* NARINFO_HTTP_CLIENT_H */
