/*-------------------------------------------------------------------------
 *
 * conn.h
 *	  One connection without its socket: bytes in, requests, replies, bytes
 *	  and parts of files out.
 *
 *		http_conn_space(), http_conn_received()
 *			|  in: one chunk
 *			|  +-----------+-----------------+------------------+--------+
 *			|  | answered  | head in work    | pipelined behind | room   |
 *			|  +-----------+-----------------+------------------+--------+
 *			v  0           start             start + scan.pos   used     size
 *		state HTTP_CONN_REQUEST: conn->request is the caller's
 *			|		^
 *			|		|  http_conn_receive(): state HTTP_CONN_RECEIVING until
 *			|		|  the body is where it belongs, see receive.c
 *			|		+------------------
 *			v
 *		http_conn_reply()
 *			|  out: a chain of chunks, replies side by side in each
 *			v
 *		http_conn_output(), http_conn_sent(), http_conn_file_sent()
 *
 * Nothing is received while a request is with the caller, so the texts of the
 * request stay where they are.  Nothing is parsed while too much waits to be
 * sent, so a client that writes and never reads costs one chunk of input and
 * max_buffered bytes of output and one file.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_CONN_H
#define NARINFO_HTTP_CONN_H

#include <sys/uio.h>

#include "http/body.h"
#include "http/chunk.h"
#include "http/date.h"
#include "http/http.h"
#include "http/parse.h"
#include "http/proxy.h"
#include "http/sink.h"

/*
 * Files up to this size are read when the reply is queued and travel with its
 * head: one system call instead of two, and no descriptor stays open.
 */
#define HTTP_SMALL_FILE		16384

/* "Server: pg_narinfo" and "Date: …", each with CR LF. */
#define HTTP_DATE_LINES_LEN	(20 + 6 + HTTP_DATE_LEN + 2)

/*
 * What is received of a body in one piece, and written to its file by one
 * system call.
 */
#define HTTP_BODY_PIECE		(128 * 1024)

/* What all connections of a server share. */
typedef struct HttpEnv
{
	HttpLimits	limits;			/* trusted_proxies is NULL, see below */
	HttpNetworks trusted;
	HttpPool	pool;
	char	   *piece;			/* HTTP_BODY_PIECE bytes, made when needed */
	size_t		body_memory;	/* bytes of all bodies kept in memory */
	HttpStats	stats;
	HttpLogHook log;			/* or NULL */
	bool		draining;
	int64_t		now;			/* microseconds of a monotonic clock */
	int64_t		(*clock) (void);	/* the same, asked anew */
	time_t		date;			/* what date_lines was made for */
	char		date_lines[HTTP_DATE_LINES_LEN + 1];
} HttpEnv;

typedef enum HttpConnState
{
	HTTP_CONN_READING,			/* waits for a request, or its rest */
	HTTP_CONN_REQUEST,			/* conn->request is to be answered */
	HTTP_CONN_RECEIVING,		/* and will be once its body is here */
	HTTP_CONN_LAST,				/* no more input is looked at; close once all
								 * output is gone */
	HTTP_CONN_DEAD				/* close at once */
} HttpConnState;

struct HttpRequest
{
	HttpHead	head;
	Span		path;			/* decoded */
	Span		query;			/* decoded */
	char	   *decoded;		/* malloc'ed, holds both; NULL: they lie in
								 * the input chunk */
	int64_t		since;			/* when it was complete */
	const char *address;		/* of the client, as text */
};

/* A body that the caller wants, and what the caller keeps with the request. */
typedef struct HttpReceive
{
	HttpReceived result;
	HttpSink	sink;			/* its fd -1: memory */
	bool		direct;			/* what is received now lies in env->piece */
	uint64_t	max;
	char	   *memory;
	size_t		size;			/* of memory */
	void	   *data;			/* the caller's */
} HttpReceive;

typedef struct HttpConn
{
	HttpRequest request;		/* first, so that one leads to the other */
	HttpEnv    *env;
	HttpConnState state;
	bool		eof;			/* the client will send nothing more */
	bool		head_done;		/* request.head is parsed, its body is not
								 * skipped yet */
	bool		unread_body;	/* a body was announced that is not read */
	uint32_t	skip;			/* bytes to come of the body of a request
								 * that was answered without it */
	bool		linger;			/* the client may still be sending: do not let
								 * a reset overtake the last reply */
	bool		proxied;		/* the peer is a trusted proxy */
	bool		more_input;		/* while draining: the socket holds input */
	uint32_t	requests;		/* parsed so far */

	HttpChunk  *in;				/* NULL while idle */
	size_t		start;			/* of the head in work */
	HttpScan	scan;			/* relative to start */
	HttpBody	body;
	HttpReceive receive;

	HttpChunk  *out;
	HttpChunk  *out_tail;
	size_t		out_bytes;		/* of data, without files */
	size_t		reply_len;		/* of the reply queued last */
	int			out_files;

	HttpAddress peer;
	HttpAddress client;			/* the peer, or forwarded by it */
	char		peer_text[HTTP_ADDRESS_LEN];
	char		client_text[HTTP_ADDRESS_LEN];
} HttpConn;

/* Brings env->now and the date lines up to date. */
extern void http_env_tick(HttpEnv *env);

extern void http_conn_init(HttpConn *conn, HttpEnv *env,
						   const HttpAddress *peer);

/* Gives back all memory and files. */
extern void http_conn_release(HttpConn *conn);

/* Does the connection want bytes just now? */
extern bool http_conn_wants_input(const HttpConn *conn);

/*
 * Makes room behind the input, which may move.  False when memory is short;
 * nothing has changed then.
 */
extern bool http_conn_make_room(HttpConn *conn);

/* Where to put them; false when memory is short: the connection is dead. */
extern bool http_conn_space(HttpConn *conn, char **data, size_t *len);

/* So many bytes were put there, or the client sends no more. */
extern void http_conn_received(HttpConn *conn, size_t len);
extern void http_conn_eof(HttpConn *conn);

/* Parses what is there as far as it may; for when output was sent. */
extern void http_conn_advance(HttpConn *conn);

/* Answers conn->request; goes on to the next one that is complete. */
extern void http_conn_reply(HttpConn *conn, const HttpReply *reply);

/* Refuses whatever the client is about, and closes after it. */
extern void http_conn_refuse(HttpConn *conn, int status, const char *reason);

/* The client is too slow with its request; says so where it makes sense. */
extern void http_conn_late(HttpConn *conn);

/* Is a request begun, so that the header timeout runs? */
extern bool http_conn_in_request(const HttpConn *conn);

static inline bool
http_conn_has_output(const HttpConn *conn)
{
	return conn->out != NULL;
}

/*
 * The memory to send next, in up to max pieces; 0 when a file or nothing is
 * next.  *more tells whether anything follows.
 */
extern int	http_conn_output(const HttpConn *conn, struct iovec *iov, int max,
							 bool *more);
extern void http_conn_sent(HttpConn *conn, size_t len);

/* The chunk whose file is to be sent next, or NULL. */
extern HttpChunk *http_conn_file(const HttpConn *conn);
extern void http_conn_file_sent(HttpConn *conn, off_t len);

/*
 * The growth of the file that is to be sent next, if that has to grow first;
 * or NULL.
 */
extern HttpGrowth *http_conn_waits(const HttpConn *conn);

/* Is it a file that turned out wrong, or will not come? */
extern bool http_conn_broken(const HttpConn *conn);

/* ---- receive.c ---- */

/*
 * Begins to take the body of conn->request; it may be here already.  False,
 * with the reason in the result, when it is not to be taken.
 */
extern bool http_conn_receive(HttpConn *conn, int fd, uint64_t max);

/* http_conn_space() and http_conn_received() while a body is received. */
extern void http_receive_space(HttpConn *conn, char **data, size_t *len);
extern void http_receive_bytes(HttpConn *conn, size_t len);

/* The body will not be complete. */
extern void http_receive_fail(HttpConn *conn, HttpReceiveError error);

/* Forgets the body; the request is answered, or nobody will. */
extern void http_receive_release(HttpConn *conn);

/* ---- reply.c ---- */

/* Queues these bytes as they are; false when memory is short. */
extern bool http_queue_text(HttpConn *conn, const char *text);

/*
 * Queues a head, and room for body_len bytes behind it; NULL when memory is
 * short.  content_length < 0: none is stated.
 */
extern char *http_queue_reply(HttpConn *conn, const HttpReply *reply,
							  int64_t content_length, size_t body_len,
							  bool close);

/* Takes back what http_queue_reply() queued last. */
extern void http_unqueue_reply(HttpConn *conn);

/* "404 Not Found" */
extern const char *http_status_reason(int status);

/* Reports an answered or refused request to the log hook if it is due. */
extern void http_log_reply(HttpConn *conn, int status, uint64_t bytes,
						   const char *reason);

#endif							/* NARINFO_HTTP_CONN_H */
