/*-------------------------------------------------------------------------
 *
 * proxy.h
 *	  Addresses of clients, and which proxies are believed about them.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_PROXY_H
#define NARINFO_HTTP_PROXY_H

#include <sys/socket.h>

#include "base/text.h"

/* Room for an address as text, with its NUL. */
#define HTTP_ADDRESS_LEN	48

/* IPv4 addresses are held as ::ffff:a.b.c.d, so that one compare does. */
typedef struct HttpAddress
{
	unsigned char bytes[16];
	bool		is_ip;			/* false: the client of a unix socket */
} HttpAddress;

typedef struct HttpNetwork
{
	HttpAddress address;		/* is_ip false stands for all unix sockets */
	int			bits;			/* of the 128 that count */
} HttpNetwork;

typedef struct HttpNetworks
{
	int			count;
	HttpNetwork *list;			/* malloc'ed */
} HttpNetworks;

extern void http_address_of(const struct sockaddr *sockaddr,
							HttpAddress *address);

/* "192.0.2.1", "2001:db8::1", or "unix:" */
extern void http_address_text(const HttpAddress *address, char *dest);

/* Reads an address without a port. */
extern bool http_address_parse(Span text, HttpAddress *address);

/*
 * Reads a comma-separated list of CIDR networks, single addresses, and the
 * word "unix:" for whoever comes by a unix socket.  NULL and "" are the empty
 * list.  On false "networks" is as before and "error" says why.
 */
extern bool http_networks_parse(const char *text, HttpNetworks *networks,
								char *error, size_t error_size);
extern void http_networks_free(HttpNetworks *networks);
extern bool http_networks_contain(const HttpNetworks *networks,
								  const HttpAddress *address);

/*
 * Who sent a request that came from the trusted proxy "peer": the rightmost
 * address in the X-Forwarded-For headers that is not a trusted proxy itself,
 * because everything left of it is hearsay.  When there is none, the one
 * furthest left that was still vouched for.
 */
extern void http_forwarded_for(const HttpNetworks *trusted, Span headers,
							   const HttpAddress *peer, HttpAddress *client);

#endif							/* NARINFO_HTTP_PROXY_H */
