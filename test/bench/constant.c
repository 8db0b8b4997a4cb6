/*-------------------------------------------------------------------------
 *
 * constant.c
 *	  The HTTP server of src/http with nothing behind it: every request gets
 *	  the same narinfo.
 *
 *	  constant PORT FILE
 *
 * What the worker costs beyond this is what looking up and printing rows
 * costs.  So it runs the worker's loop (src/worker/http_worker.c), with its
 * batches, and sends the headers that the worker sends.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/http.h"

/* As in http_worker.c. */
#define BATCH_MAX	256
#define BUSY_BATCH	4
#define BUSY_ROUNDS 64

#define BODY_MAX	65536

static char body[BODY_MAX];
static size_t body_len;

static bool
read_body(const char *name)
{
	FILE	   *in = fopen(name, "rb");

	if (in == NULL)
		return false;
	body_len = fread(body, 1, sizeof(body), in);
	return fclose(in) == 0 && body_len > 0;
}

static void
answer(HttpRequest *req)
{
	HttpReply	reply = {
		.status = 200,
		.content_type = "text/x-nix-narinfo",
		.headers = "ETag: \"0123456789abcdef\"\r\n"
		"Cache-Control: public, max-age=86400\r\n",
		.body = body,
		.body_len = body_len,
		.fd = -1
	};

	http_reply(req, &reply);
}

static int
serve_batch(HttpServer *server)
{
	HttpRequest *req;
	int			n = 0;

	http_server_poll(server);
	while (n < BATCH_MAX && (req = http_server_next(server)) != NULL)
	{
		answer(req);
		n++;
	}
	http_server_flush(server);
	return n;
}

static void
serve(HttpServer *server)
{
	struct pollfd wanted = {http_server_fd(server), POLLIN, 0};
	int			busy = 0;

	for (;;)
	{
		int			served = serve_batch(server);

		busy = (served >= BUSY_BATCH) ? busy + 1 : 0;
		if (busy == 0)
			poll(&wanted, 1, (served >= BATCH_MAX) ? 0 :
				 (int) http_server_timeout(server));
		else if (busy % BUSY_ROUNDS == 0)
			poll(&wanted, 1, 0);
	}
}

int
main(int argc, char **argv)
{
	HttpLimits	limits = {
		.max_connections = 12000,
		.max_header_size = 16 * 1024,
		.max_url_size = 8 * 1024,
		.max_buffered = 256 * 1024,
		.idle_timeout = 75000,
		.header_timeout = 10000,
		.send_timeout = 60000,
		.log_level = HTTP_LOG_OFF
	};
	HttpServer *server;
	char		address[64];
	char		error[256] = "out of memory";

	if (argc != 3 || !read_body(argv[2]))
	{
		fprintf(stderr, "usage: constant PORT FILE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	snprintf(address, sizeof(address), "127.0.0.1:%s", argv[1]);

	server = http_server_create(&limits, NULL);
	if (server == NULL ||
		!http_server_listen(server, address, true, error, sizeof(error)))
	{
		fprintf(stderr, "constant: %s\n", error);
		return 1;
	}
	serve(server);
}
