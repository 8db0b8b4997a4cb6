/*-------------------------------------------------------------------------
 *
 * listen.c
 *	  Listening sockets.  See listen.h.
 *
 * Several processes serve the same port by SO_REUSEPORT: each has its own
 * accept queue and the kernel spreads connections over them.  A unix socket
 * has no such thing, which is why only one process serves it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http/http.h"
#include "http/listen.h"

#define LISTEN_BACKLOG	4096
#define MAX_HOST		255

/*
 * Bytes that the kernel takes of a file beyond those on the way.  Left alone
 * it takes megabytes, of which a thousand readers that do not read eat up the
 * memory that all sockets of the machine have.
 */
#define UNSENT_MAX		(256 * 1024)
#define MAX_NAME		512

/* One element of a list, taken apart. */
typedef struct Address
{
	char		name[MAX_NAME]; /* as given, trimmed */
	bool		is_unix;
	char		host[MAX_HOST + 1]; /* "" for '*' */
	char		port[6];
	struct sockaddr_un path;
} Address;

/* How the sockets of one call are opened. */
typedef struct OpenContext
{
	HttpListener *opened;
	bool		probe;			/* only to see whether they can be had */
	char	   *error;
	size_t		error_size;
} OpenContext;

static bool
fail(char *error, size_t error_size, const char *name, const char *why)
{
	snprintf(error, error_size, "\"%s\": %s", name, why);
	return false;
}

static bool
is_port(const char *text)
{
	size_t		len = strspn(text, "0123456789");
	int			port = atoi(text);

	return len > 0 && len <= 5 && text[len] == '\0' && port > 0 &&
		port <= 65535;
}

static bool
parse_unix(Address *address, char *error, size_t error_size)
{
	const char *path = address->name + strlen("unix:");

	address->is_unix = true;
	if (path[0] != '/')
		return fail(error, error_size, address->name,
					"the path of a unix socket must begin with \"/\"");
	if (strlen(path) >= sizeof(address->path.sun_path))
		return fail(error, error_size, address->name,
					"the path of the unix socket is too long");
	address->path.sun_family = AF_UNIX;
	memcpy(address->path.sun_path, path, strlen(path) + 1);
	return true;
}

static bool
parse_address(Span text, Address *address, char *error, size_t error_size)
{
	const char *host;
	const char *colon;
	size_t		host_len;

	memset(address, 0, sizeof(*address));
	snprintf(address->name, sizeof(address->name), "%.*s", (int) text.len,
			 text.data);
	if (text.len == 0)
		return fail(error, error_size, "", "empty address");
	if (text.len >= MAX_NAME)
		return fail(error, error_size, address->name, "too long");
	if (span_starts(text, "unix:"))
		return parse_unix(address, error, error_size);

	host = address->name;
	colon = strrchr(host, ':');
	if (colon == NULL || !is_port(colon + 1))
		return fail(error, error_size, address->name,
					"not of the form host:port with a port from 1 to 65535");
	host_len = colon - host;
	memcpy(address->port, colon + 1, strlen(colon));
	if (host[0] == '[')
	{
		if (host_len < 3 || host[host_len - 1] != ']')
			return fail(error, error_size, address->name,
						"not of the form [address]:port");
		host++;
		host_len -= 2;
	}
	else if (memchr(host, ':', host_len) != NULL)
		return fail(error, error_size, address->name,
					"an IPv6 address must stand in brackets");
	if (host_len == 0 || host_len > MAX_HOST)
		return fail(error, error_size, address->name, "no host");
	if (host_len != 1 || host[0] != '*')
		memcpy(address->host, host, host_len);
	return true;
}

/* Cuts the next element off the list; false at its end. */
static bool
next_element(const char **list, Span *element)
{
	const char *begin = *list;
	const char *end;

	if (begin == NULL)
		return false;
	end = strchr(begin, ',');
	*list = end == NULL ? NULL : end + 1;
	*element = span_of(begin, end == NULL ? strlen(begin) :
					   (size_t) (end - begin));
	while (element->len > 0 && strchr(" \t\n", element->data[0]) != NULL)
		*element = span_skip(*element, 1);
	while (element->len > 0 &&
		   strchr(" \t\n", element->data[element->len - 1]) != NULL)
		element->len--;
	return true;
}

/* An empty list is well-formed: it means to listen nowhere. */
static const char *
list_start(const char *addresses)
{
	return addresses[strspn(addresses, " \t\n")] == '\0' ? NULL : addresses;
}

bool
http_addresses_check(const char *addresses, char *error, size_t error_size)
{
	const char *list = list_start(addresses);
	Span		element;
	Address		address;

	while (next_element(&list, &element))
	{
		if (!parse_address(element, &address, error, error_size))
			return false;
	}
	return true;
}

/* Takes a listening socket into the list of those opened. */
static bool
add_listener(OpenContext *context, const Address *address, int fd)
{
	size_t		len = strlen(address->name);
	HttpListener *listener = calloc(1, sizeof(*listener) + len + 1);
	struct stat st;

	if (listener == NULL)
		return false;
	listener->fd = fd;
	listener->is_unix = address->is_unix;
	listener->keep = true;
	memcpy(listener->name, address->name, len + 1);
	if (address->is_unix && stat(address->path.sun_path, &st) == 0)
	{
		listener->dev = st.st_dev;
		listener->ino = st.st_ino;
	}
	listener->next = context->opened;
	context->opened = listener;
	return true;
}

/* Is there somebody listening on this unix socket? */
static bool
unix_socket_alive(const struct sockaddr_un *path)
{
	int			fd;
	bool		alive;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return true;
	alive = connect(fd, (const struct sockaddr *) path, sizeof(*path)) == 0 ||
		(errno != ECONNREFUSED && errno != ENOENT);
	close(fd);
	return alive;
}

/* Removes the socket that a dead process left; false: it is in use. */
static bool
clear_unix_path(const Address *address, char *error, size_t error_size)
{
	struct stat st;

	if (lstat(address->path.sun_path, &st) != 0)
		return true;
	if (!S_ISSOCK(st.st_mode))
		return fail(error, error_size, address->name,
					"a file that is not a socket is in the way");
	if (unix_socket_alive(&address->path))
		return fail(error, error_size, address->name,
					"another process listens there");
	if (unlink(address->path.sun_path) != 0 && errno != ENOENT)
		return fail(error, error_size, address->name, strerror(errno));
	return true;
}

static bool
open_unix(OpenContext *context, const Address *address)
{
	int			fd;

	if (!clear_unix_path(address, context->error, context->error_size))
		return false;
	if (context->probe)
		return true;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 &&
		bind(fd, (const struct sockaddr *) &address->path,
			 sizeof(address->path)) == 0)
	{
		if (listen(fd, LISTEN_BACKLOG) == 0 &&
			add_listener(context, address, fd))
			return true;
		fail(context->error, context->error_size, address->name,
			 strerror(errno));
		unlink(address->path.sun_path);
	}
	else
		fail(context->error, context->error_size, address->name,
			 strerror(errno));
	if (fd >= 0)
		close(fd);
	return false;
}

/*
 * One TCP socket, or -1 with errno.  TCP_NODELAY is inherited by the
 * connections, which saves a system call for each.
 */
static int
open_tcp(const struct addrinfo *info, bool probe)
{
	int			on = 1;
	int			unsent = UNSENT_MAX;
	int			saved;
	int			fd = socket(info->ai_family,
							SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* those that are accepted inherit them */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	if ((info->ai_family != AF_INET6 ||
		 setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0) &&
		(probe ||
		 setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0) &&
		bind(fd, info->ai_addr, info->ai_addrlen) == 0 &&
		listen(fd, LISTEN_BACKLOG) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/*
 * All sockets of one host and port.  A machine without IPv6 is no reason to
 * fail when the host has other addresses.
 */
static bool
open_host(OpenContext *context, const Address *address)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV
	};
	struct addrinfo *all;
	bool		any = false;
	int			missing = 0;
	int			result;

	result = getaddrinfo(address->host[0] ? address->host : NULL,
						 address->port, &hints, &all);
	if (result != 0)
		return fail(context->error, context->error_size, address->name,
					result == EAI_SYSTEM ? strerror(errno) :
					gai_strerror(result));

	for (struct addrinfo *info = all; info != NULL; info = info->ai_next)
	{
		int			fd = open_tcp(info, context->probe);

		if (fd >= 0 && add_listener(context, address, fd))
		{
			any = true;
			continue;
		}
		missing = errno;
		if (fd >= 0)
			close(fd);
		else if (missing == EAFNOSUPPORT || missing == EADDRNOTAVAIL)
			continue;
		any = false;
		break;
	}
	freeaddrinfo(all);
	if (!any)
		fail(context->error, context->error_size, address->name,
			 strerror(missing));
	return any;
}

static void
close_list(HttpListener *list)
{
	while (list != NULL)
	{
		HttpListener *listener = list;

		list = listener->next;
		http_listener_close(listener);
	}
}

bool
http_addresses_free(const char *addresses, char *error, size_t error_size)
{
	OpenContext context = {
		.probe = true, .error = error, .error_size = error_size
	};
	const char *list = list_start(addresses);
	Span		element;
	Address		address;
	bool		ok = true;

	while (ok && next_element(&list, &element))
	{
		ok = parse_address(element, &address, error, error_size) &&
			(address.is_unix ? open_unix(&context, &address) :
			 open_host(&context, &address));

		/* two elements may share a socket, as "localhost" and "127.0.0.1" */
		close_list(context.opened);
		context.opened = NULL;
	}
	return ok;
}

/* Marks the listeners of this name; false when there are none. */
static bool
keep_listeners(HttpListener *list, const char *name)
{
	bool		found = false;

	for (; list != NULL; list = list->next)
	{
		if (strcmp(list->name, name) == 0)
			found = list->keep = true;
	}
	return found;
}

bool
http_listeners_open(HttpListener **listeners, const char *addresses,
					bool first, char *error, size_t error_size)
{
	OpenContext context = {
		.error = error, .error_size = error_size
	};
	const char *list = list_start(addresses);
	HttpListener **end = &context.opened;
	Span		element;
	Address		address;

	for (HttpListener *old = *listeners; old != NULL; old = old->next)
		old->keep = false;

	while (next_element(&list, &element))
	{
		bool		ok = parse_address(element, &address, error, error_size);

		if (ok && ((address.is_unix && !first) ||
				   keep_listeners(*listeners, address.name) ||
				   keep_listeners(context.opened, address.name)))
			continue;
		if (ok && (address.is_unix ? open_unix(&context, &address) :
				   open_host(&context, &address)))
			continue;
		close_list(context.opened);
		return false;
	}

	while (*end != NULL)
		end = &(*end)->next;
	*end = *listeners;
	*listeners = context.opened;
	return true;
}

void
http_listener_close(HttpListener *listener)
{
	struct stat st;

	close(listener->fd);
	if (listener->is_unix)
	{
		const char *path = listener->name + strlen("unix:");

		if (stat(path, &st) == 0 && st.st_dev == listener->dev &&
			st.st_ino == listener->ino)
			unlink(path);
	}
	free(listener);
}
