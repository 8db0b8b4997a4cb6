/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Checking NARs by pg_narinfo_check, from inside of a process of
 *	  PostgreSQL.
 *
 *	  this process						pg_narinfo_check
 *	  ------------						----------------
 *	  posix_spawn ------------------->	stdin: the file
 *	  pidfd <------ it has ended -----
 *	  pipe  <------ one line ---------	stdout
 *
 * What is waited for is the end of the process, by a pidfd: its line fits into
 * the pipe, so it never waits for us, and when it has ended everything is
 * there.  posix_spawn neither copies our memory nor runs a handler of ours in
 * the other process; it gets standard input and output and no other descriptor
 * of ours, no signal blocked or ignored, an empty environment, and, as after
 * every exec, nothing of the shared memory.
 *
 * It is reaped by its pid alone.  SIGCHLD is at its default in backends and
 * background workers, and stays so.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "nar/check.h"

struct NarCheck
{
	MemoryContextCallback callback;
	pid_t		pid;			/* 0: reaped */
	int			pidfd;
	int			pipe;
	int			nfds;			/* reserved with fd.c */
	bool		has_deadline;
	TimestampTz deadline;
	NarCheckResult result;		/* once it is reaped */
};

/* Of a size in decimal; 20 digits and NUL. */
#define SIZE_TEXT 21

void
nar_check_expect(const Narinfo *info, int url, NarExpectation *expect)
{
	const NarinfoUrl *at = &info->urls[url];
	ParseError	error;

	memset(expect, 0, sizeof(*expect));
	/* one that is cut is no less unknown */
	snprintf(expect->compression, sizeof(expect->compression), "%.*s",
			 (int) at->compression.len, at->compression.data);
	expect->has_file_hash = at->file_hash.data != NULL &&
		hash_parse(at->file_hash, &expect->file_hash, &error);
	expect->has_file_size = at->has_file_size;
	expect->file_size = at->file_size;
	expect->has_nar_hash = true;
	expect->nar_hash = info->nar_hash;
	expect->has_nar_size = true;
	expect->nar_size = info->nar_size;
}

/*-------------------------------------------------------------------------
 * The end
 *-------------------------------------------------------------------------
 */

static void
close_all(NarCheck *check)
{
	if (check->pidfd >= 0)
		close(check->pidfd);
	if (check->pipe >= 0)
		close(check->pipe);
	check->pidfd = check->pipe = -1;
	for (; check->nfds > 0; check->nfds--)
		ReleaseExternalFD();
}

/* Waits for a process that has ended, or was just killed. */
static int
reap(NarCheck *check, int *status)
{
	pid_t		pid;

	do
		pid = waitpid(check->pid, status, 0);
	while (pid < 0 && errno == EINTR);
	check->pid = 0;
	return pid < 0 ? -1 : 0;
}

static void
stop(NarCheck *check)
{
	int			status;

	if (check->pid != 0)
	{
		kill(check->pid, SIGKILL);
		reap(check, &status);
	}
	close_all(check);
}

/* The memory context goes, with an error or without. */
static void
context_reset(void *arg)
{
	stop(arg);
}

/* The callback stays, and will find nothing to do. */
void
nar_check_end(NarCheck *check)
{
	stop(check);
}

/*-------------------------------------------------------------------------
 * The beginning
 *-------------------------------------------------------------------------
 */

static char *
hash_text(bool known, const Digest *hash)
{
	char		text[HASH_TEXT_MAX];

	if (!known)
		return pstrdup(CHECKER_UNKNOWN);
	return pnstrdup(text, hash_print(hash, text));
}

static char *
size_text(bool known, uint64 size)
{
	return known ? psprintf(UINT64_FORMAT, size) : pstrdup(CHECKER_UNKNOWN);
}

/* What the new process has of ours; its errors are told by its line. */
static int
spawn(pid_t *pid, const char *path, char **argv, int fd, int output)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t	none;
	sigset_t	all;
	char	   *environment[] = {NULL};
	int			error;

	sigemptyset(&none);
	sigfillset(&all);
	error = posix_spawn_file_actions_init(&actions);
	if (error != 0)
		return error;
	error = posix_spawnattr_init(&attr);
	if (error != 0)
	{
		posix_spawn_file_actions_destroy(&actions);
		return error;
	}
	if ((error = posix_spawn_file_actions_adddup2(&actions, fd, 0)) == 0 &&
		(error = posix_spawn_file_actions_adddup2(&actions, output, 1)) == 0 &&
		(error = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null",
												  O_WRONLY, 0)) == 0 &&
		(error = posix_spawn_file_actions_addclosefrom_np(&actions, 3)) == 0 &&
		(error = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
		(error = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
		(error = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
										  POSIX_SPAWN_SETSIGDEF)) == 0)
		error = posix_spawn(pid, path, &actions, &attr, argv, environment);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

static void
start_failed(NarCheck *check, const char *what)
{
	int			error = errno;

	stop(check);
	errno = error;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not start a check of a NAR: %s: %m", what)));
}

static NarCheck *
make_check(int timeout)
{
	NarCheck   *check = palloc0(sizeof(NarCheck));

	check->pidfd = check->pipe = -1;
	check->has_deadline = timeout > 0;
	if (timeout > 0)
		check->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  timeout);
	check->callback.func = context_reset;
	check->callback.arg = check;
	MemoryContextRegisterResetCallback(CurrentMemoryContext,
									   &check->callback);
	/* the pipe and the pidfd */
	for (; check->nfds < 2; check->nfds++)
	{
		if (!AcquireExternalFD())
			start_failed(check, "file descriptors");
	}
	return check;
}

NarCheck *
nar_check_start(int fd, const NarExpectation *expect, int timeout)
{
	char	   *program = psprintf("%s/%s", pkglib_path, CHECKER_PROGRAM);
	char	   *argv[] = {
		program, psprintf("%d", (int) getpid()),
		pstrdup(expect->compression[0] ? expect->compression : "none"),
		hash_text(expect->has_file_hash, &expect->file_hash),
		size_text(expect->has_file_size, expect->file_size),
		hash_text(expect->has_nar_hash, &expect->nar_hash),
		size_text(expect->has_nar_size, expect->nar_size), NULL
	};
	NarCheck   *check = make_check(timeout);
	int			ends[2];
	int			error;
	pid_t		pid;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		start_failed(check, "pipe");
	check->pipe = ends[0];
	error = spawn(&pid, program, argv, fd, ends[1]);
	close(ends[1]);
	errno = error;
	if (error != 0)
		start_failed(check, program);
	check->pid = pid;
	/* nobody else reaps it, so the number is still its own */
	check->pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
	if (check->pidfd < 0)
		start_failed(check, "pidfd_open");
	return check;
}

pgsocket
nar_check_socket(const NarCheck *check)
{
	return check->pidfd;
}

long
nar_check_timeout(const NarCheck *check)
{
	if (!check->has_deadline)
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   check->deadline);
}

/*-------------------------------------------------------------------------
 * The result
 *-------------------------------------------------------------------------
 */

static void
set_trouble(NarCheckResult *result, const char *reason)
{
	result->status = NAR_CHECK_TROUBLE;
	strlcpy(result->reason, reason, sizeof(result->reason));
}

/* The one line, without its newline; false if it is not there, or is cut. */
static bool
read_line(int fd, char line[CHECKER_LINE_MAX])
{
	ssize_t		n = read(fd, line, CHECKER_LINE_MAX);

	if (n < 1 || line[n - 1] != '\n')
		return false;
	line[n - 1] = '\0';
	return strlen(line) == (size_t) n - 1;
}

/* FILE_HASH FILE_SIZE NAR_HASH NAR_SIZE */
static bool
parse_found(char *line, NarExpectation *found)
{
	char	   *word[4];
	ParseError	error;

	for (int i = 0; i < 4; i++)
	{
		word[i] = strsep(&line, " ");
		if (word[i] == NULL)
			return false;
	}
	found->has_file_hash = hash_parse(span_of(word[0], strlen(word[0])),
									  &found->file_hash, &error);
	found->file_size = strtou64(word[1], NULL, 10);
	found->has_nar_hash = hash_parse(span_of(word[2], strlen(word[2])),
									 &found->nar_hash, &error);
	found->nar_size = strtou64(word[3], NULL, 10);
	found->has_file_size = found->has_nar_size = true;
	return found->has_file_hash && found->has_nar_hash && line == NULL;
}

static void
judge(NarCheck *check, int status)
{
	NarCheckResult *result = &check->result;
	char		line[CHECKER_LINE_MAX];
	bool		told = read_line(check->pipe, line);

	if (WIFSIGNALED(status))
	{
		const char *name = sigabbrev_np(WTERMSIG(status));

		set_trouble(result, "");
		snprintf(result->reason, sizeof(result->reason),
				 "the check was ended by SIG%s", name ? name : "?");
	}
	else if (told && WEXITSTATUS(status) == CHECKER_GOOD &&
			 parse_found(line, &result->found))
		result->status = NAR_CHECK_GOOD;
	else if (told && WEXITSTATUS(status) == CHECKER_BAD)
	{
		result->status = NAR_CHECK_BAD;
		strlcpy(result->reason, line, sizeof(result->reason));
	}
	else if (told && WEXITSTATUS(status) == CHECKER_TROUBLE)
		set_trouble(result, line);
	else
		set_trouble(result, "the check ended without a result");
}

bool
nar_check_poll(NarCheck *check, NarCheckResult *result)
{
	int			status;

	if (check->pid != 0)
	{
		pid_t		pid = waitpid(check->pid, &status, WNOHANG);

		if (pid == 0 || (pid < 0 && errno == EINTR))
		{
			if (nar_check_timeout(check) != 0)
				return false;
			stop(check);
			set_trouble(&check->result, "the check took too long");
		}
		else
		{
			check->pid = 0;
			if (pid < 0)
				set_trouble(&check->result, "the check was lost");
			else
				judge(check, status);
			close_all(check);
		}
	}
	*result = check->result;
	return true;
}
