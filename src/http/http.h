/*-------------------------------------------------------------------------
 *
 * http.h
 *	  An HTTP/1.1 server for one process: listeners, connections, requests
 *	  and replies.  It knows nothing of narinfos nor of PostgreSQL.
 *
 * The caller pulls.  Nothing here calls back into the caller but the log
 * hook, so no error of the caller ever unwinds through this code:
 *
 *		wait until http_server_fd() is readable, or the timeout passed
 *		http_server_poll(server);			 reads and parses what came
 *		while ((req = http_server_next(server)) != NULL)
 *			http_reply(req, &reply);		 queues the answer
 *		http_server_flush(server);			 writes what was queued
 *
 * Requests of one connection come out one at a time, the next when the one
 * before was answered, so replies leave in order however many requests were
 * pipelined.  A request may be kept unanswered as long as the caller likes;
 * other connections go on.  What can be answered without the caller (400,
 * 408, 413, 414, 431, 501, 505, 503 over a limit) is answered here.
 *
 * A request with a body comes out before any of its body was taken (only that
 * of a GET or HEAD is thrown away).  The caller answers it at once, and the
 * body is not read; or it says where the body goes, and the request comes out
 * once more when the body is there, or will not be:
 *
 *		if (http_request_receive(req, fd, max))
 *			...							 it comes out of http_server_next()
 *		received = http_request_received(req);
 *		if (received.complete)
 *			...
 *
 * The process must ignore SIGPIPE, as PostgreSQL's processes do: sendfile(2)
 * has no MSG_NOSIGNAL.
 *
 * Nothing blocks, but for write(2) to the file of a body.  Memory comes from
 * malloc; running out of it closes the connection at hand, nothing else.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_HTTP_H
#define NARINFO_HTTP_HTTP_H

#include <sys/types.h>

#include "base/text.h"

typedef struct HttpServer HttpServer;
typedef struct HttpRequest HttpRequest;

typedef enum HttpMethod
{
	HTTP_GET,
	HTTP_HEAD,
	HTTP_PUT,
	HTTP_POST,
	HTTP_OTHER					/* DELETE, OPTIONS, … */
} HttpMethod;

typedef enum HttpLogLevel
{
	HTTP_LOG_OFF,
	HTTP_LOG_ERRORS,			/* replies of 400 and more, but 404 */
	HTTP_LOG_ALL
} HttpLogLevel;

/* Everything that may be changed while running; http_server_configure(). */
typedef struct HttpLimits
{
	int			max_connections;	/* in all; 503 and close above */
	int			max_connections_per_address;	/* 503; 0: no limit. Through a
												 * trusted proxy: requests
												 * being answered */
	int			max_header_size;	/* bytes, with the request line; 431 */
	int			max_url_size;	/* bytes; 414 */
	int			max_buffered;	/* bytes of replies queued per connection
								 * before no further request is parsed */
	int			idle_timeout;	/* ms without a request; close */
	int			header_timeout; /* ms from first byte to end of headers; 408 */
	int			body_timeout;	/* ms in which 16 KiB of a body must come, or
								 * its rest; 408 */
	size_t		max_body_memory;	/* bytes of all bodies in memory; 503 */
	int			send_timeout;	/* ms in which a reader must take something */
	HttpLogLevel log_level;
	const char *trusted_proxies;	/* networks, comma-separated CIDR, whose
									 * X-Forwarded-For is believed; "unix:"
									 * for the clients of unix sockets. Only
									 * read during the call. */
} HttpLimits;

/* One answered request, for the log. */
typedef struct HttpLogRecord
{
	const char *address;		/* of the client, forwarded if trusted */
	const char *method;
	const char *path;			/* as sent, control bytes escaped */
	int			status;
	uint64_t	bytes;			/* of the body that was to be sent */
	uint64_t	microseconds;	/* from the request's end to its reply */
	const char *reason;			/* why it was refused, or NULL */
} HttpLogRecord;

typedef void (*HttpLogHook) (const HttpLogRecord *record);

/* Figures since the server was made. */
typedef struct HttpStats
{
	uint64_t	connections_accepted;
	uint64_t	connections_refused;	/* over a limit */
	uint64_t	requests;
	uint64_t	bad_requests;	/* refused by the parser or a limit */
	uint64_t	bytes_sent;
	int			connections;	/* open now */
} HttpStats;

/* ---- the server ---- */

/*
 * NULL when memory or descriptors are short, or limits->trusted_proxies is no
 * list of networks.
 */
extern HttpServer *http_server_create(const HttpLimits *limits,
									  HttpLogHook log);
extern bool http_server_configure(HttpServer *server,
								  const HttpLimits *limits,
								  char *error, size_t error_size);

/*
 * Makes the listeners be those of this comma-separated list: host:port,
 * [v6]:port or unix:PATH.  Those already there are kept as they are, those no
 * longer named drain what their accept queue holds and are closed; the
 * connections live on.  "first" tells the one process that also serves the
 * unix sockets.  On false, "error" says which address and why, and the
 * listeners are as they were before.
 */
extern bool http_server_listen(HttpServer *server, const char *addresses,
							   bool first, char *error, size_t error_size);

/*
 * Can these addresses be had?  Binds each without SO_REUSEPORT and lets it go
 * again, so that another server's listeners are noticed.
 */
extern bool http_addresses_free(const char *addresses, char *error,
								size_t error_size);

/* Is the list well-formed?  Resolves nothing, opens nothing. */
extern bool http_addresses_check(const char *addresses, char *error,
								 size_t error_size);

/* Readable whenever http_server_poll() has something to do. */
extern int	http_server_fd(const HttpServer *server);

/*
 * Milliseconds until http_server_poll() has a timer to look at; -1: none.  0
 * when something can go on without a further event, as when a large file was
 * sent in part so that others have their turn: then do not wait at all.
 */
extern long http_server_timeout(const HttpServer *server);

extern void http_server_poll(HttpServer *server);
extern HttpRequest *http_server_next(HttpServer *server);
extern void http_server_flush(HttpServer *server);

/*
 * Stops accepting (after the accept queues are drained), answers what was
 * begun with "Connection: close", closes idle connections; one that never
 * sent anything has a second to do so.  True once no connection is left; call
 * it again after each poll until then or until patience ends.
 */
extern bool http_server_drain(HttpServer *server);

extern void http_server_stats(const HttpServer *server, HttpStats *stats);
extern void http_server_free(HttpServer *server);

/* ---- requests; all texts live until http_reply() ---- */

extern HttpMethod http_request_method(const HttpRequest *req);
extern const char *http_request_method_name(const HttpRequest *req);

/*
 * The path, percent-decoded, beginning with '/', NUL-terminated and without
 * an embedded NUL.  "." and ".." components and empty ones ("//") were
 * refused before (400), encoded or not.
 */
extern Span http_request_path(const HttpRequest *req);

/*
 * What was said of the body's length: 0 when there is none, -1 when only its
 * end will tell.
 */
extern int64_t http_request_content_length(const HttpRequest *req);

/* What stands behind '?', percent-decoded likewise; data NULL when no '?'. */
extern Span http_request_query(const HttpRequest *req);

/*
 * The first header of this name (case does not matter), without blanks at its
 * ends; data NULL if none.
 */
extern Span http_request_header(const HttpRequest *req, const char *name);

/* The client's address as text, forwarded if the peer is a trusted proxy. */
extern const char *http_request_address(const HttpRequest *req);

/*
 * A pointer that the caller keeps with the request, NULL at first; it is not
 * looked at.  Forgotten by http_reply() and http_server_free().
 */
extern void http_request_set_data(HttpRequest *req, void *data);
extern void *http_request_data(const HttpRequest *req);

/* ---- bodies ---- */

typedef enum HttpReceiveError
{
	HTTP_RECEIVE_OK,			/* no error */
	HTTP_RECEIVE_EXPECTATION,	/* 417: Expect is not "100-continue" */
	HTTP_RECEIVE_LENGTH_REQUIRED,	/* 411: HTTP/1.0 without Content-Length */
	HTTP_RECEIVE_TOO_LARGE,		/* 413 */
	HTTP_RECEIVE_MALFORMED,		/* 400: the framing of chunks */
	HTTP_RECEIVE_TIMEOUT,		/* 408 */
	HTTP_RECEIVE_CUT_SHORT,		/* 400: the client is gone, or will send no
								 * more */
	HTTP_RECEIVE_NO_SPACE,		/* 507: ENOSPC, EDQUOT */
	HTTP_RECEIVE_NOT_WRITTEN,	/* 500: write(2) failed otherwise */
	HTTP_RECEIVE_NO_MEMORY		/* 503: of this process, or max_body_memory */
} HttpReceiveError;

typedef struct HttpReceived
{
	bool		begun;			/* http_request_receive() was called and true:
								 * the request came out again */
	bool		complete;		/* the whole body is there */
	HttpReceiveError error;		/* else why it is not */
	int			status;			/* of the reply that this error deserves */
	const char *reason;			/* the error in a few words, a constant */
	int			os_error;		/* errno of write(2) */
	uint64_t	length;			/* bytes taken */
	Span		data;			/* the body, if it is complete and was kept in
								 * memory; until http_reply() */
} HttpReceived;

/*
 * The body is to be taken, up to max bytes.  fd >= 0: it is written to this
 * file, which stays the caller's and has to be open until the request comes
 * out again; it is never synced here.  fd -1: it is kept in memory, as it
 * comes and within max_body_memory.
 *
 * On true the request is the server's until it comes out of
 * http_server_next() again, which it does whatever happens, with the result
 * in http_request_received(): also when there is no body (0 bytes, complete),
 * and when the client is gone (a reply then goes nowhere).  Its address stays
 * the same.  On false the request stays the caller's, and nothing was read:
 * http_request_received() says why, and http_reply() is due.
 *
 * Spans of the request taken before this call are to be asked for anew.
 *
 * A client that expects "100 Continue" gets it now.
 */
extern bool http_request_receive(HttpRequest *req, int fd, uint64_t max);
extern HttpReceived http_request_received(const HttpRequest *req);

/* ---- replies ---- */

typedef struct HttpReply
{
	int			status;
	const char *content_type;	/* NULL: none */
	const char *headers;		/* further header lines, each with CR LF; or
								 * NULL */
	const char *body;			/* copied */
	size_t		body_len;
	int			fd;				/* -1, or a file to send instead of body; it
								 * is the server's from here on, also when the
								 * request is a HEAD */
	off_t		offset;			/* of the first byte to send from fd */
	off_t		length;			/* bytes to send from fd */
	struct HttpGrowth *growth;	/* of fd, if it is still being written; or
								 * NULL.  See growth.h */
	bool		close;			/* close the connection after it */
} HttpReply;

/*
 * Queues the answer.  Adds Content-Length, Date, Server, and Connection
 * where due; leaves the body out for HEAD, 204 and 304.  The request is gone
 * afterwards.  A body that was not received ends the connection, unless it is
 * small and on its way.  A small file that turns out shorter than "length" is
 * answered with 500; when a large one does, the connection breaks off.
 *
 * For files with ranges and validators see conditional.h.
 */
extern void http_reply(HttpRequest *req, const HttpReply *reply);

#endif							/* NARINFO_HTTP_HTTP_H */
