/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Checking NARs by pg_narinfo_check, from inside of a process of
 *	  PostgreSQL.
 *
 *	  this process						pg_narinfo_check
 *	  ------------						----------------
 *	  request, or spawn ------------>	stdin: the file
 *	  pipe  <--- its pid (request) --	stdout
 *	  pidfd <------ it has ended -----
 *	  pipe  <------ one line ---------	stdout
 *
 * A zygote (zygote.c) is asked for the process.  When the pipe ends without a
 * pid, the zygote is lost, and with it nothing but time: the program is
 * started for this one check, as it is when there is no zygote to be had.
 *
 * What is waited for is the end of the process, by a pidfd: its line fits into
 * the pipe, so it never waits for us, and when it has ended everything is
 * there.  It has standard input and output and no other descriptor of ours, no
 * signal blocked or ignored, an empty environment, and nothing of the shared
 * memory.
 *
 * However it was made, it is a child of ours, and reaped by its pid alone.
 * SIGCHLD is at its default in backends and background workers, and stays so.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "nar/check.h"
#include "nar/zygote.h"

typedef enum CheckState
{
	CHECK_ASKED,				/* "zygote" is to make the process */
	CHECK_RUNS,					/* it is "pid" */
	CHECK_ENDED					/* it is reaped, if it ever was */
} CheckState;

struct NarCheck
{
	MemoryContextCallback callback;
	CheckState	state;
	NarZygote  *zygote;			/* we have a share in it; or NULL */
	pid_t		pid;
	int			pidfd;
	int			pipe;
	int			file;			/* until the process is there */
	int			nfds;			/* reserved with fd.c */
	bool		has_deadline;
	TimestampTz deadline;
	StringInfoData request;		/* CHECKER_WORDS, each with its NUL */
	NarCheckResult result;		/* once it has ended */
};

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
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* There is no process any more that we know of. */
static void
ended(NarCheck *check)
{
	check->state = CHECK_ENDED;
	if (check->zygote != NULL)
		nar_zygote_release(check->zygote);
	check->zygote = NULL;
	close_fd(&check->pidfd);
	close_fd(&check->pipe);
	close_fd(&check->file);
	for (; check->nfds > 0; check->nfds--)
		ReleaseExternalFD();
}

/* Waits for a process that was just killed. */
static void
reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void
stop(NarCheck *check)
{
	if (check->state == CHECK_RUNS)
	{
		kill(check->pid, SIGKILL);
		reap(check->pid);
	}
	/* a process that we do not know may come of it, and ends with it */
	else if (check->state == CHECK_ASKED && check->zygote != NULL)
		nar_zygote_retire(check->zygote);
	ended(check);
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

static void
put_hash(StringInfo request, bool known, const Digest *hash)
{
	char		text[HASH_TEXT_MAX];

	if (known)
		appendBinaryStringInfo(request, text, (int) hash_print(hash, text));
	else
		appendStringInfoString(request, CHECKER_UNKNOWN);
	appendStringInfoChar(request, '\0');
}

static void
put_size(StringInfo request, bool known, uint64 size)
{
	if (known)
		appendStringInfo(request, UINT64_FORMAT, size);
	else
		appendStringInfoString(request, CHECKER_UNKNOWN);
	appendStringInfoChar(request, '\0');
}

static void
make_request(StringInfo request, const NarExpectation *expect)
{
	initStringInfo(request);
	appendStringInfoString(request, expect->compression[0] ?
						   expect->compression : "none");
	appendStringInfoChar(request, '\0');
	put_hash(request, expect->has_file_hash, &expect->file_hash);
	put_size(request, expect->has_file_size, expect->file_size);
	put_hash(request, expect->has_nar_hash, &expect->nar_hash);
	put_size(request, expect->has_nar_size, expect->nar_size);
	Assert(request->len <= CHECKER_REQUEST_MAX);
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

	check->state = CHECK_ENDED;
	check->pidfd = check->pipe = check->file = -1;
	check->has_deadline = timeout > 0;
	if (timeout > 0)
		check->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  timeout);
	check->callback.func = context_reset;
	check->callback.arg = check;
	MemoryContextRegisterResetCallback(CurrentMemoryContext,
									   &check->callback);
	/* the pipe, the pidfd and the file */
	for (; check->nfds < 3; check->nfds++)
	{
		if (!AcquireExternalFD())
			start_failed(check, "file descriptors");
	}
	return check;
}

/* Returns the end that is to be written to. */
static int
make_pipe(NarCheck *check)
{
	int			ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		start_failed(check, "pipe");
	check->pipe = ends[0];
	return ends[1];
}

static void
process_is(NarCheck *check, pid_t pid)
{
	check->pid = pid;
	check->state = CHECK_RUNS;
	/* nobody else reaps it, so the number is still its own */
	check->pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
	if (check->pidfd < 0)
		start_failed(check, "pidfd_open");
	close_fd(&check->file);
}

/* By a process that is started for it. */
static void
start_alone(NarCheck *check)
{
	char		parent[12];
	char	   *argv[2 + CHECKER_WORDS + 1] = {nar_checker_path(), parent};
	char	   *word = check->request.data;
	int			output = make_pipe(check);
	int			error;
	pid_t		pid;

	snprintf(parent, sizeof(parent), "%d", (int) getpid());
	for (int i = 0; i < CHECKER_WORDS; i++, word += strlen(word) + 1)
		argv[2 + i] = word;
	error = nar_checker_spawn(&pid, argv, check->file, output, false);
	close(output);
	errno = error;
	if (error != 0)
		start_failed(check, argv[0]);
	process_is(check, pid);
}

NarCheck *
nar_check_start(int fd, const NarExpectation *expect, int timeout)
{
	NarCheck   *check = make_check(timeout);
	int			output;

	make_request(&check->request, expect);
	check->file = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (check->file < 0)
		start_failed(check, "fcntl");
	output = make_pipe(check);
	check->zygote = nar_zygote_ask(check->request.data,
								   (size_t) check->request.len,
								   check->file, output);
	close(output);
	if (check->zygote != NULL)
		check->state = CHECK_ASKED;
	else
	{
		close_fd(&check->pipe);
		start_alone(check);
	}
	return check;
}

pgsocket
nar_check_socket(const NarCheck *check)
{
	return check->state == CHECK_ASKED ? check->pipe : check->pidfd;
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
		/* whoever tries addresses finds others the next time */
		if (check->zygote != NULL)
			nar_zygote_suspect(check->zygote);
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

/* Has the zygote made the process? */
static void
poll_asked(NarCheck *check)
{
	pid_t		pid;
	ssize_t		n = read(check->pipe, &pid, sizeof(pid));

	if (n == sizeof(pid) && pid > 0)
		process_is(check, pid);
	else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
	{
		NarZygote  *lost = check->zygote;

		check->zygote = NULL;
		check->state = CHECK_ENDED;
		close_fd(&check->pipe);
		nar_zygote_retire(lost);
		nar_zygote_release(lost);
		start_alone(check);
	}
}

static void
poll_running(NarCheck *check)
{
	int			status;
	pid_t		pid = waitpid(check->pid, &status, WNOHANG);

	if (pid == 0 || (pid < 0 && errno == EINTR))
		return;
	check->state = CHECK_ENDED;
	if (pid < 0)
		set_trouble(&check->result, "the check was lost");
	else
		judge(check, status);
	ended(check);
}

bool
nar_check_poll(NarCheck *check, NarCheckResult *result)
{
	if (check->state == CHECK_ASKED)
		poll_asked(check);
	if (check->state == CHECK_RUNS)
		poll_running(check);
	if (check->state != CHECK_ENDED)
	{
		if (nar_check_timeout(check) != 0)
			return false;
		stop(check);
		set_trouble(&check->result, "the check took too long");
	}
	*result = check->result;
	return true;
}
