/*-------------------------------------------------------------------------
 *
 * loop.c
 *	  libcurl's transfers in an epoll set that the process waits for.
 *
 *	  curl says which sockets it wants to hear of		watch_socket
 *		|												epoll_ctl
 *		v
 *	  the process waits for fetch_fd(), among others, until fetch_timeout()
 *		|
 *		v
 *	  fetch_poll	tells curl which are ready; what has ended is handed to
 *					exchange.c
 *
 * curl resolves names in threads of its own.  All signals are blocked while
 * it may start one, so that none of PostgreSQL's handlers ever runs there.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "fetch/fetch.h"
#include "fetch/exchange.h"

/* Sockets looked at in a turn, each for some megabytes at most. */
#define EVENTS_MAX		8

/* Of all transfers of a process; further ones wait. */
#define CONNECTIONS_MAX	64L

static int	epoll_fd = -1;
static CURLM *multi = NULL;
static int	transfers = 0;		/* that curl has */
static int64 timer_end = -1;	/* ms of the monotonic clock; -1: none */

static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- called by curl ---- */

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {0};

	(void) easy;
	(void) arg;
	(void) known;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.data.fd = fd;
	event.events = ((what & CURL_POLL_IN) ? EPOLLIN : 0) |
		((what & CURL_POLL_OUT) ? EPOLLOUT : 0);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
set_timer(CURLM *handle, long ms, void *arg)
{
	(void) handle;
	(void) arg;
	timer_end = ms < 0 ? -1 : now_ms() + ms;
	return 0;
}

/* ---- calling curl ---- */

static void
block_signals(sigset_t *old)
{
	sigset_t	all;

	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, old);
}

static void
unblock_signals(const sigset_t *old)
{
	(void) sigprocmask(SIG_SETMASK, old, NULL);
}

static bool
open_multi(void)
{
	if (multi != NULL)
		return true;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return false;
	multi = curl_multi_init();
	if (multi == NULL)
		return false;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
					  CONNECTIONS_MAX);
	return true;
}

bool
loop_add(CURL *easy)
{
	sigset_t	old;
	bool		added;

	block_signals(&old);
	added = open_multi() && curl_multi_add_handle(multi, easy) == CURLM_OK;
	unblock_signals(&old);
	transfers += added ? 1 : 0;
	return added;
}

void
loop_remove(CURL *easy)
{
	sigset_t	old;

	block_signals(&old);
	curl_multi_remove_handle(multi, easy);
	unblock_signals(&old);
	transfers--;
}

static void
act(curl_socket_t fd, int what)
{
	sigset_t	old;
	int			running;

	block_signals(&old);
	(void) curl_multi_socket_action(multi, fd, what, &running);
	unblock_signals(&old);
}

static void
take_done(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		if (message->msg == CURLMSG_DONE)
			exchange_done(message->easy_handle, message->data.result);
	}
}

/* ---- for the process ---- */

int
fetch_fd(void)
{
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd;
}

long
fetch_timeout(void)
{
	int64		left;

	if (transfers == 0 || timer_end < 0)
		return -1;
	left = timer_end - now_ms();
	return left > 0 ? (long) left : 0;
}

void
fetch_poll(void)
{
	struct epoll_event events[EVENTS_MAX];
	int			n;

	if (transfers == 0)
		return;
	n = epoll_wait(epoll_fd, events, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++)
		act(events[i].data.fd,
			((events[i].events & EPOLLIN) ? CURL_CSELECT_IN : 0) |
			((events[i].events & EPOLLOUT) ? CURL_CSELECT_OUT : 0) |
			((events[i].events & (EPOLLERR | EPOLLHUP)) ?
			 CURL_CSELECT_ERR | CURL_CSELECT_IN : 0));
	if (timer_end >= 0 && timer_end <= now_ms())
	{
		timer_end = -1;
		act(CURL_SOCKET_TIMEOUT, 0);
	}
	take_done();
	fetch_tell();
}
