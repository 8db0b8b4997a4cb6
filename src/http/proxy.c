/*-------------------------------------------------------------------------
 *
 * proxy.c
 *	  Addresses of clients, and which proxies are believed about them.  See
 *	  proxy.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/parse.h"
#include "http/proxy.h"

/* Where an IPv4 address stands in an HttpAddress, and the bits before it. */
#define V4_OFFSET	12
#define V4_BITS		96

static const unsigned char v4_prefix[V4_OFFSET] = {
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff
};

static bool
is_v4(const HttpAddress *address)
{
	return memcmp(address->bytes, v4_prefix, V4_OFFSET) == 0;
}

void
http_address_of(const struct sockaddr *sockaddr, HttpAddress *address)
{
	memset(address, 0, sizeof(*address));
	if (sockaddr->sa_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) sockaddr;

		memcpy(address->bytes, v4_prefix, V4_OFFSET);
		memcpy(address->bytes + V4_OFFSET, &in->sin_addr, 4);
		address->is_ip = true;
	}
	else if (sockaddr->sa_family == AF_INET6)
	{
		const struct sockaddr_in6 *in;

		in = (const struct sockaddr_in6 *) sockaddr;
		memcpy(address->bytes, &in->sin6_addr, 16);
		address->is_ip = true;
	}
}

void
http_address_text(const HttpAddress *address, char *dest)
{
	if (!address->is_ip)
		memcpy(dest, "unix:", 6);
	else if (is_v4(address))
		inet_ntop(AF_INET, address->bytes + V4_OFFSET, dest, HTTP_ADDRESS_LEN);
	else
		inet_ntop(AF_INET6, address->bytes, dest, HTTP_ADDRESS_LEN);
}

bool
http_address_parse(Span text, HttpAddress *address)
{
	char		buffer[HTTP_ADDRESS_LEN];

	if (text.len == 0 || text.len >= sizeof(buffer))
		return false;
	memcpy(buffer, text.data, text.len);
	buffer[text.len] = '\0';

	memset(address, 0, sizeof(*address));
	address->is_ip = true;
	if (inet_pton(AF_INET6, buffer, address->bytes) == 1)
		return true;
	memcpy(address->bytes, v4_prefix, V4_OFFSET);
	return inet_pton(AF_INET, buffer, address->bytes + V4_OFFSET) == 1;
}

/* Cuts the first element off a comma-separated list; trimmed. */
static Span
next_element(Span *list)
{
	const char *comma = memchr(list->data, ',', list->len);
	Span		element = *list;

	if (comma == NULL)
		*list = span_of(list->data + list->len, 0);
	else
	{
		element.len = comma - list->data;
		*list = span_skip(*list, element.len + 1);
	}
	return http_trim(element);
}

/* The number behind the slash: digits only, no more than max. */
static bool
parse_bits(Span text, int max, int *bits)
{
	int			value = 0;

	if (text.len == 0 || text.len > 3)
		return false;
	for (size_t i = 0; i < text.len; i++)
	{
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		value = value * 10 + (text.data[i] - '0');
	}
	*bits = value;
	return value <= max;
}

static bool
parse_network(Span text, HttpNetwork *network)
{
	const char *slash = memchr(text.data, '/', text.len);
	Span		host = text;
	int			bits;
	bool		v4;

	memset(network, 0, sizeof(*network));
	if (span_is(text, "unix:"))
		return true;
	if (slash != NULL)
		host.len = slash - text.data;
	if (!http_address_parse(host, &network->address))
		return false;
	network->bits = 128;
	if (slash == NULL)
		return true;

	/* ::ffff:192.0.2.0/120 counts its bits as IPv6 does */
	v4 = is_v4(&network->address) &&
		memchr(host.data, ':', host.len) == NULL;
	if (!parse_bits(span_skip(text, host.len + 1), v4 ? 32 : 128, &bits))
		return false;
	network->bits = v4 ? V4_BITS + bits : bits;
	return true;
}

bool
http_networks_parse(const char *text, HttpNetworks *networks,
					char *error, size_t error_size)
{
	Span		rest = span_of(text, text == NULL ? 0 : strlen(text));
	HttpNetworks parsed = {0, NULL};

	while (rest.len > 0)
	{
		Span		element = next_element(&rest);
		HttpNetwork *list;

		list = realloc(parsed.list, (parsed.count + 1) * sizeof(*list));
		if (list == NULL)
		{
			free(parsed.list);
			snprintf(error, error_size, "out of memory");
			return false;
		}
		parsed.list = list;
		if (element.len == 0 || !parse_network(element, &list[parsed.count]))
		{
			free(parsed.list);
			snprintf(error, error_size, "\"%.*s\" is not a network",
					 (int) element.len, element.data);
			return false;
		}
		parsed.count++;
	}
	http_networks_free(networks);
	*networks = parsed;
	return true;
}

void
http_networks_free(HttpNetworks *networks)
{
	free(networks->list);
	networks->list = NULL;
	networks->count = 0;
}

static bool
network_contains(const HttpNetwork *network, const HttpAddress *address)
{
	int			bytes = network->bits / 8;
	int			rest = network->bits % 8;

	if (!network->address.is_ip || !address->is_ip)
		return network->address.is_ip == address->is_ip;
	if (memcmp(network->address.bytes, address->bytes, bytes) != 0)
		return false;
	return rest == 0 ||
		((network->address.bytes[bytes] ^ address->bytes[bytes]) >>
		 (8 - rest)) == 0;
}

bool
http_networks_contain(const HttpNetworks *networks,
					  const HttpAddress *address)
{
	for (int i = 0; i < networks->count; i++)
	{
		if (network_contains(&networks->list[i], address))
			return true;
	}
	return false;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80" */
static bool
parse_forwarded(Span text, HttpAddress *address)
{
	const char *end;

	if (text.len > 2 && text.data[0] == '[')
	{
		end = memchr(text.data, ']', text.len);
		return end != NULL &&
			http_address_parse(span_of(text.data + 1, end - text.data - 1),
							   address);
	}
	if (http_address_parse(text, address))
		return true;
	end = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
	return end != NULL &&
		http_address_parse(span_of(text.data, end - text.data), address);
}

void
http_forwarded_for(const HttpNetworks *trusted, Span headers,
				   const HttpAddress *peer, HttpAddress *client)
{
	Span		value;
	bool		untrusted = false;
	bool		vouched = false;

	/*
	 * The lines are read from left to right although the chain of trust goes
	 * from right to left: what an untrusted address or rubbish says is
	 * forgotten whenever another one stands to the right of it.
	 */
	*client = *peer;
	for (;;)
	{
		value = http_header_next(&headers, "X-Forwarded-For");
		if (value.data == NULL)
			break;
		while (value.len > 0)
		{
			HttpAddress address;

			if (!parse_forwarded(next_element(&value), &address))
			{
				*client = *peer;
				untrusted = vouched = false;
			}
			else if (!http_networks_contain(trusted, &address))
			{
				*client = address;
				untrusted = true;
			}
			else if (!untrusted && !vouched)
			{
				*client = address;
				vouched = true;
			}
		}
	}
}
