/*-------------------------------------------------------------------------
 *
 * crowd.c
 *	  Many connections at once, from one process.
 *
 *	  crowd idle PORT PATH COUNT	each makes one request, then only stays
 *	  crowd slow PORT PATH COUNT	each asks for a large file, with a small
 *									window, and takes 1 kB a second
 *	  crowd drain PORT PATH COUNT SECONDS
 *									each asks for the file again and again;
 *									what comes is dropped in the kernel, so
 *									that the server is what is measured
 *
 * "idle" and "slow" print "ready" once all connections are there, hold them
 * until their standard input ends, and print how many of them are open then.
 * "drain" prints the bytes of bodies and headers, and the seconds.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLOW_WINDOW 4096
#define SLOW_STEP	1024
#define DRAIN_STEP	(1024 * 1024)

static char request[1024];
static int *sockets;
static int	count;

static void
die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static int
open_connection(int port, int window)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t) port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	/* the window is agreed upon when connecting */
	if (window > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &window,
								 sizeof(window)) != 0)
		die("SO_RCVBUF");
	if (connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
		die("connect");
	return fd;
}

static void
ask(int fd)
{
	size_t		len = strlen(request);

	if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t) len)
		die("send");
}

/* The head of a reply; returns its Content-Length and what came with it. */
static long
read_head(int fd, long *extra)
{
	char		head[4096];
	size_t		len = 0;

	for (;;)
	{
		ssize_t		n = recv(fd, head + len, sizeof(head) - 1 - len, 0);
		char	   *end;
		char	   *length;

		if (n <= 0)
			die("recv");
		len += (size_t) n;
		head[len] = '\0';
		end = strstr(head, "\r\n\r\n");
		if (end == NULL)
			continue;
		length = strcasestr(head, "\r\nContent-Length:");
		if (strncmp(head, "HTTP/1.1 200", 12) != 0 || length == NULL)
		{
			fprintf(stderr, "crowd: unexpected reply: %s\n", head);
			exit(1);
		}
		*extra = (long) (head + len - (end + 4));
		return strtol(length + 17, NULL, 10);
	}
}

/* ---- idle and slow ---- */

static int
count_open(void)
{
	int			open = 0;

	for (int i = 0; i < count; i++)
	{
		struct pollfd one = {sockets[i], POLLIN | POLLRDHUP, 0};

		poll(&one, 1, 0);
		open += !(one.revents & (POLLRDHUP | POLLHUP | POLLERR));
	}
	return open;
}

static void
read_a_little(void)
{
	char		dropped[SLOW_STEP];

	for (int i = 0; i < count; i++)
		(void) recv(sockets[i], dropped, sizeof(dropped), MSG_DONTWAIT);
}

static void
hold(bool slow)
{
	struct pollfd input = {STDIN_FILENO, POLLIN, 0};

	printf("ready\n");
	fflush(stdout);
	while (poll(&input, 1, slow ? 1000 : -1) == 0)
		read_a_little();
	printf("%d\n", count_open());
}

static void
idle(int port)
{
	for (int i = 0; i < count; i++)
	{
		long		length,
					extra;
		char		body[4096];

		sockets[i] = open_connection(port, 0);
		ask(sockets[i]);
		for (length = read_head(sockets[i], &extra); extra < length;)
		{
			ssize_t		n = recv(sockets[i], body, sizeof(body), 0);

			if (n <= 0)
				die("recv");
			extra += n;
		}
	}
	hold(false);
}

static void
slow(int port)
{
	for (int i = 0; i < count; i++)
	{
		sockets[i] = open_connection(port, SLOW_WINDOW);
		ask(sockets[i]);
	}
	hold(true);
}

/* ---- drain ---- */

static void
drain(int port, double seconds)
{
	int			poller = epoll_create1(EPOLL_CLOEXEC);
	long	   *left = calloc((size_t) count, sizeof(*left));
	uint64_t	bytes = 0;
	double		begin = now();
	double		end = begin + seconds;

	if (poller < 0 || left == NULL)
		die("epoll");
	for (int i = 0; i < count; i++)
	{
		struct epoll_event event = {
			.events = EPOLLIN,
			.data.u32 = (uint32_t) i
		};

		sockets[i] = open_connection(port, 0);
		ask(sockets[i]);
		if (epoll_ctl(poller, EPOLL_CTL_ADD, sockets[i], &event) != 0)
			die("epoll_ctl");
	}
	while (now() < end)
	{
		struct epoll_event events[64];
		int			n = epoll_wait(poller, events, 64, 100);

		for (int k = 0; k < n; k++)
		{
			uint32_t	i = events[k].data.u32;
			ssize_t		got;

			if (left[i] == 0)
			{
				long		extra;

				left[i] = read_head(sockets[i], &extra) - extra;
				bytes += (uint64_t) extra;
			}
			else
			{
				long		step = left[i] < DRAIN_STEP ? left[i] : DRAIN_STEP;

				/* MSG_TRUNC: TCP drops the bytes instead of copying them */
				got = recv(sockets[i], NULL, (size_t) step,
						   MSG_DONTWAIT | MSG_TRUNC);
				if (got == 0 || (got < 0 && errno != EAGAIN))
					die("recv");
				if (got < 0)
					continue;
				left[i] -= got;
				bytes += (uint64_t) got;
			}
			if (left[i] == 0)
				ask(sockets[i]);
		}
	}
	printf("%llu %.3f\n", (unsigned long long) bytes, now() - begin);
}

static void
raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		die("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) != 0)
		die("setrlimit");
}

int
main(int argc, char **argv)
{
	int			port;

	if (argc < 5)
	{
		fprintf(stderr, "usage: see the head of crowd.c\n");
		return 2;
	}
	raise_file_limit();
	port = atoi(argv[2]);
	snprintf(request, sizeof(request),
			 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", argv[3], port);
	count = atoi(argv[4]);
	sockets = calloc((size_t) count, sizeof(*sockets));
	if (sockets == NULL)
		die("memory");

	if (strcmp(argv[1], "idle") == 0)
		idle(port);
	else if (strcmp(argv[1], "slow") == 0)
		slow(port);
	else if (strcmp(argv[1], "drain") == 0 && argc == 6)
		drain(port, atof(argv[5]));
	return 0;
}
