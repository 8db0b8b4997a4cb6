/*-------------------------------------------------------------------------
 *
 * request.c
 *	  What the caller may ask about a request.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/conn.h"

HttpMethod
http_request_method(const HttpRequest *req)
{
	if (req->head.is_get)
		return HTTP_GET;
	if (req->head.is_head)
		return HTTP_HEAD;
	if (req->head.is_put)
		return HTTP_PUT;
	return req->head.is_post ? HTTP_POST : HTTP_OTHER;
}

const char *
http_request_method_name(const HttpRequest *req)
{
	return req->head.method;
}

Span
http_request_path(const HttpRequest *req)
{
	return req->path;
}

Span
http_request_query(const HttpRequest *req)
{
	return req->query;
}

/*
 * The lines are searched anew each time: few requests ask for a header, and
 * those that do not should not pay for an index.
 */
Span
http_request_header(const HttpRequest *req, const char *name)
{
	Span		lines = req->head.headers;

	return http_header_next(&lines, name);
}

const char *
http_request_address(const HttpRequest *req)
{
	return req->address;
}

int64_t
http_request_content_length(const HttpRequest *req)
{
	return req->head.chunked ? -1 : (int64_t) req->head.content_length;
}

HttpReceived
http_request_received(const HttpRequest *req)
{
	return ((const HttpConn *) req)->receive.result;
}

void
http_request_set_data(HttpRequest *req, void *data)
{
	((HttpConn *) req)->receive.data = data;
}

void *
http_request_data(const HttpRequest *req)
{
	return ((const HttpConn *) req)->receive.data;
}
