/*-------------------------------------------------------------------------
 *
 * zygote.c
 *	  pg_narinfo_check PARENT: has everything loaded, and makes a process of
 *	  itself for each NAR, since to load it takes most of the time of a small
 *	  one.
 *
 *	  PARENT				zygote					child
 *	  ------				------					-----
 *	  socket -- request --> clone -------------->	its pid --> pipe
 *				(NAR, pipe)	closes both				limits, the check
 *													one line --> pipe
 *	  reaps <-----------------------------------	ends
 *
 * The zygote never reads a byte of a NAR, so each child begins as pristine as
 * a program that was just started.  It is cloned as a child of the parent's
 * (CLONE_PARENT): the parent ends it, reaps it and sees how it ended, with no
 * word of ours between; and it goes on when we are killed.  Whoever asks knows
 * that it lost us by the end of its pipe, of which nobody else has a copy.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nar/checker/checker.h"

typedef struct Request
{
	char		text[CHECKER_REQUEST_MAX];
	char	   *words[CHECKER_WORDS];
	int			fds[CHECKER_FDS];
} Request;

/* The words, each with its NUL, and no other byte. */
static bool
split(Request *request, size_t len)
{
	char	   *at = request->text;
	char	   *end = at + len;

	for (int i = 0; i < CHECKER_WORDS; i++)
	{
		char	   *nul = memchr(at, '\0', (size_t) (end - at));

		if (nul == NULL)
			return false;
		request->words[i] = at;
		at = nul + 1;
	}
	return at == end;
}

/* Takes the descriptors out of a message; false if they are not those two. */
static bool
take_fds(struct msghdr *message, int *fds)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);

	if (control == NULL || control->cmsg_level != SOL_SOCKET ||
		control->cmsg_type != SCM_RIGHTS ||
		control->cmsg_len != CMSG_LEN(sizeof(int) * CHECKER_FDS))
		return false;
	memcpy(fds, CMSG_DATA(control), sizeof(int) * CHECKER_FDS);
	return true;
}

/* The next request; one that we do not understand ends us. */
static bool
receive(Request *request)
{
	union
	{
		struct cmsghdr align;
		char		space[CMSG_SPACE(sizeof(int) * CHECKER_FDS)];
	}			control;
	struct iovec text = {request->text, sizeof(request->text)};
	struct msghdr message = {
		.msg_iov = &text,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)
	};
	ssize_t		n;

	do
		n = recvmsg(STDIN_FILENO, &message, 0);
	while (n < 0 && errno == EINTR);
	return n > 0 &&
		(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 &&
		take_fds(&message, request->fds) &&
		split(request, (size_t) n);
}

/*
 * fork() makes no child of the parent's.  There is one thread, and nobody has
 * asked to be told of a fork, so nothing of fork's is missed.
 */
static long
clone_sibling(void)
{
#ifdef __s390__
	return syscall(SYS_clone, 0, CLONE_PARENT | SIGCHLD, 0, 0, 0);
#else
	return syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
#endif
}

static void
close_from(int first)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
#endif
	/* a kernel before 5.9; there are those of one request */
	for (int fd = first; fd < first + 2 * CHECKER_FDS; fd++)
		close(fd);
}

static _Noreturn void
be_child(Request *request, pid_t parent)
{
	static Verdict verdict;
	pid_t		me = getpid();

	prctl(PR_SET_NAME, CHECKER_PROGRAM);
	/* our socket goes with this, too */
	if (dup2(request->fds[CHECKER_FD_NAR], STDIN_FILENO) < 0 ||
		dup2(request->fds[CHECKER_FD_PIPE], STDOUT_FILENO) < 0)
		_exit(CHECKER_TROUBLE);
	close_from(STDERR_FILENO + 1);
	/* nobody is there any more: then there is nothing to do */
	if (write(STDOUT_FILENO, &me, sizeof(me)) != (ssize_t) sizeof(me))
		_exit(CHECKER_TROUBLE);
	if (end_with(parent, &verdict))
		check_input(request->words, &verdict);
	say_and_exit(&verdict);
}

void
zygote(pid_t parent)
{
	static Request request;
	Verdict		verdict = {CHECKER_GOOD, ""};

	prctl(PR_SET_NAME, "narinfo_zygote");
	if (!end_with(parent, &verdict) || !give_way(&verdict) ||
		!load_all(&verdict))
		_exit(CHECKER_TROUBLE);
	while (receive(&request))
	{
		if (clone_sibling() == 0)
			be_child(&request, parent);
		/* without a child, this ends the pipe, which tells it */
		for (int i = 0; i < CHECKER_FDS; i++)
			close(request.fds[i]);
	}
	_exit(CHECKER_GOOD);
}
