/*-------------------------------------------------------------------------
 *
 * push.c
 *	  A client that pushes, as nix does, but faster.
 *
 *	  push small PORT TOKEN CONNECTIONS SECONDS SEED
 *				small paths that nobody has: of each the NAR, and when that is
 *				answered its narinfo; a process for each connection
 *	  push file PORT TOKEN PATH FILE [HEADER]
 *				one file
 *
 * TOKEN is "-" for none.  "small" prints how many paths, and the seconds;
 * "file" the status, and the seconds.  What is not answered with 2xx is
 * reported, and the end.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/nix32.h"

#define CONTENT_LEN 2000		/* bytes in the file of a small NAR */
#define HASH_LEN	20
#define SHA256_LEN	32
#define TEXT_MAX	4096

static const char *token;
static int	port;

static void
die(const char *what)
{
	fprintf(stderr, "push: %s: %s\n", what, strerror(errno));
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
open_connection(void)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t) port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int			one = 1;
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* ---- HTTP ---- */

static void
send_all(int fd, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("send");
		data += n;
		len -= (size_t) n;
	}
}

static void
send_head(int fd, const char *path, size_t len, const char *header)
{
	char		head[1024];
	int			n = snprintf(head, sizeof(head),
							 "PUT %s HTTP/1.1\r\nHost: localhost\r\n"
							 "Content-Length: %zu\r\n%s%s%s%s%s\r\n", path,
							 len, *token == '-' ? "" : "Authorization: Bearer ",
							 *token == '-' ? "" : token,
							 *token == '-' ? "" : "\r\n", header,
							 *header ? "\r\n" : "");

	send_all(fd, head, (size_t) n);
}

/* The status; what the reply says is read and dropped. */
static int
receive(int fd)
{
	char		text[TEXT_MAX + 1];
	size_t		have = 0;
	char	   *end = NULL;
	char	   *length;
	size_t		whole;

	while (end == NULL)
	{
		ssize_t		n = recv(fd, text + have, TEXT_MAX - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("receive");
		have += (size_t) n;
		text[have] = '\0';
		end = strstr(text, "\r\n\r\n");
	}
	length = strcasestr(text, "\r\nContent-Length:");
	whole = (size_t) (end + 4 - text) +
		(length && length < end ? strtoul(length + 17, NULL, 10) : 0);
	while (have < whole)
	{
		ssize_t		n = recv(fd, text + have, TEXT_MAX - have, 0);

		if (n <= 0)
			die("receive");
		have += (size_t) n;
	}
	text[have] = '\0';
	if (text[9] != '2')
	{
		fprintf(stderr, "push: %s\n", text);
		exit(1);
	}
	return atoi(text + 9);
}

static void
put(int fd, const char *path, const char *body, size_t len)
{
	send_head(fd, path, len, "");
	send_all(fd, body, len);
	(void) receive(fd);
}

/* ---- small paths ---- */

static size_t
add_string(char *nar, size_t at, const void *data, size_t len)
{
	uint64_t	n = len;
	size_t		padded = (len + 7) / 8 * 8;

	memcpy(nar + at, &n, 8);	/* little-endian, as this machine is */
	memset(nar + at + 8, 0, padded);
	memcpy(nar + at + 8, data, len);
	return at + 8 + padded;
}

static size_t
make_nar(char *nar, uint64_t seed)
{
	static const char *const words[] = {
		"nix-archive-1", "(", "type", "regular", "contents"
	};
	char		content[CONTENT_LEN];
	size_t		at = 0;

	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (char) ('a' + (i + i / 26) % 26);
	memcpy(content, &seed, sizeof(seed));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		at = add_string(nar, at, words[i], strlen(words[i]));
	at = add_string(nar, at, content, sizeof(content));
	return add_string(nar, at, ")", 1);
}

static void
push_one(int fd, uint64_t seed)
{
	char		nar[CONTENT_LEN + 256];
	size_t		len = make_nar(nar, seed);
	uint8_t		digest[SHA256_LEN];
	char		hash[NIX32_LEN(SHA256_LEN) + 1] = {0};
	char		name[NIX32_LEN(HASH_LEN) + 1] = {0};
	char		path[256];
	char		info[TEXT_MAX];

	crypto_hash_sha256(digest, (const uint8_t *) nar, len);
	nix32_encode(digest, SHA256_LEN, hash);
	nix32_encode(digest, HASH_LEN, name);
	snprintf(path, sizeof(path), "/nar/%s.nar", hash);
	put(fd, path, nar, len);
	snprintf(info, sizeof(info),
			 "StorePath: /nix/store/%s-small\nURL: nar/%s.nar\n"
			 "Compression: none\nFileHash: sha256:%s\nFileSize: %zu\n"
			 "NarHash: sha256:%s\nNarSize: %zu\nReferences: \n",
			 name, hash, hash, len, hash, len);
	snprintf(path, sizeof(path), "/%s.narinfo", name);
	put(fd, path, info, strlen(info));
}

static int
push_small(int connections, double seconds, uint64_t seed)
{
	uint64_t   *counts = mmap(NULL, sizeof(uint64_t) * (size_t) connections,
							  PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double		begin = now();
	uint64_t	paths = 0;
	int			status;
	int			worst = 0;

	for (int i = 0; i < connections; i++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0)
		{
			int			fd = open_connection();

			while (now() < begin + seconds)
				push_one(fd, seed << 40 | (uint64_t) i << 32 | counts[i]++);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		worst |= status;
	for (int i = 0; i < connections; i++)
		paths += counts[i];
	printf("%llu %f\n", (unsigned long long) paths, now() - begin);
	return worst ? 1 : 0;
}

/* ---- one file ---- */

static int
push_file(const char *path, const char *name, const char *header)
{
	int			in = open(name, O_RDONLY);
	int			fd = open_connection();
	double		begin = now();
	struct stat st;
	off_t		offset = 0;
	int			status;

	if (in < 0 || fstat(in, &st) != 0)
		die(name);
	send_head(fd, path, (size_t) st.st_size, header);
	while (offset < st.st_size)
	{
		if (sendfile(fd, in, &offset, (size_t) (st.st_size - offset)) < 0 &&
			errno != EINTR)
			die("sendfile");
	}
	status = receive(fd);
	printf("%d %f\n", status, now() - begin);
	return 0;
}

int
main(int argc, char **argv)
{
	if (argc < 6 || sodium_init() < 0)
	{
		fprintf(stderr, "usage: see the head of push.c\n");
		return 2;
	}
	port = atoi(argv[2]);
	token = argv[3];
	if (strcmp(argv[1], "small") == 0 && argc == 7)
		return push_small(atoi(argv[4]), atof(argv[5]),
						  strtoull(argv[6], NULL, 10));
	return push_file(argv[4], argv[5], argc > 6 ? argv[6] : "");
}
