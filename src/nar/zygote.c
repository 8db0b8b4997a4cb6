/*-------------------------------------------------------------------------
 *
 * zygote.c
 *	  Starting, asking and ending the process that the checks of NARs are
 *	  children of, in memory; by parentage they are ours.
 *
 *	  this process ---- spawn ----> zygote		  one process group, of which
 *			|						   :clone	  nobody else is
 *			+------- parent of -----> check
 *
 * One that may be wrong is not repaired but retired: the next request starts
 * another one, which costs what a single check cost before there were any.  So
 * it ends when the program was installed anew, when it is ten minutes old (a
 * library may have been installed anew), when a check of it crashed (the
 * addresses in the next one are others), when a request is lost, and when its
 * socket is closed or we are gone.
 *
 * A retired one is reaped when nobody has a share in it.  Then whatever is in
 * its group belongs to checks that were given up before they had told their
 * pid; since the number of the group is taken until its leader is reaped, that
 * is the moment to end them, too.  They are reaped by their group, and by no
 * other number: SIGCHLD and other children are not ours.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "nar/checker/protocol.h"
#include "nar/zygote.h"

#define LIFE_MS	(10 * 60 * 1000)

struct NarZygote
{
	NarZygote  *next;			/* in all */
	pid_t		pid;			/* and process group */
	int			socket;
	int			shares;
	bool		retired;
	bool		suspect;
	TimestampTz started;
	struct stat program;
};

static NarZygote *all = NULL;
static NarZygote *current = NULL;	/* the one that is asked */

char *
nar_checker_path(void)
{
	return psprintf("%s/%s", pkglib_path, CHECKER_PROGRAM);
}

/*-------------------------------------------------------------------------
 * Starting the program
 *-------------------------------------------------------------------------
 */

static int
give(posix_spawn_file_actions_t *actions, int fd, int as)
{
	if (fd < 0)
		return posix_spawn_file_actions_addopen(actions, as, "/dev/null",
												O_RDWR, 0);
	return posix_spawn_file_actions_adddup2(actions, fd, as);
}

static int
set_attributes(posix_spawnattr_t *attr, bool leads_group)
{
	short		flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
	sigset_t	none;
	sigset_t	every;
	int			error;

	sigemptyset(&none);
	sigfillset(&every);
	if ((error = posix_spawnattr_setsigmask(attr, &none)) == 0 &&
		(error = posix_spawnattr_setsigdefault(attr, &every)) == 0 &&
		(error = posix_spawnattr_setpgroup(attr, 0)) == 0)
		error = posix_spawnattr_setflags(attr, leads_group ?
										 flags | POSIX_SPAWN_SETPGROUP :
										 flags);
	return error;
}

int
nar_checker_spawn(pid_t *pid, char **argv, int input, int output,
				  bool leads_group)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char	   *environment[] = {NULL};
	int			error;

	error = posix_spawn_file_actions_init(&actions);
	if (error != 0)
		return error;
	error = posix_spawnattr_init(&attr);
	if (error != 0)
	{
		posix_spawn_file_actions_destroy(&actions);
		return error;
	}
	if ((error = give(&actions, input, 0)) == 0 &&
		(error = give(&actions, output, 1)) == 0 &&
		(error = give(&actions, -1, 2)) == 0 &&
		(error = posix_spawn_file_actions_addclosefrom_np(&actions, 3)) == 0 &&
		(error = set_attributes(&attr, leads_group)) == 0)
		error = posix_spawn(pid, argv[0], &actions, &attr, argv, environment);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/*-------------------------------------------------------------------------
 * The end
 *-------------------------------------------------------------------------
 */

/* With all that is in its group. */
static void
end(NarZygote *zygote)
{
	NarZygote **at = &all;

	while (*at != zygote)
		at = &(*at)->next;
	*at = zygote->next;

	close(zygote->socket);
	ReleaseExternalFD();
	kill(-zygote->pid, SIGKILL);
	while (waitpid(-zygote->pid, NULL, 0) > 0 || errno == EINTR)
		;
	pfree(zygote);
}

void
nar_zygote_retire(NarZygote *zygote)
{
	zygote->retired = true;
	if (zygote == current)
		current = NULL;
	if (zygote->shares == 0)
		end(zygote);
}

void
nar_zygote_release(NarZygote *zygote)
{
	if (--zygote->shares == 0 && zygote->retired)
		end(zygote);
}

void
nar_zygote_suspect(NarZygote *zygote)
{
	zygote->suspect = true;
}

void
nar_zygote_dismiss(void)
{
	if (current != NULL)
		nar_zygote_retire(current);
}

/* They would end with us, but nobody would reap them. */
static void
end_all(int code, Datum arg)
{
	(void) code;
	(void) arg;
	current = NULL;
	while (all != NULL)
		end(all);
}

/*-------------------------------------------------------------------------
 * The beginning
 *-------------------------------------------------------------------------
 */

/* Is it of the program as it is now, young, and above suspicion? */
static bool
is_fresh(const NarZygote *zygote, const struct stat *program)
{
	TimestampTz now = GetCurrentTimestamp();

	return !zygote->suspect &&
		zygote->program.st_dev == program->st_dev &&
		zygote->program.st_ino == program->st_ino &&
		zygote->program.st_ctim.tv_sec == program->st_ctim.tv_sec &&
		zygote->program.st_ctim.tv_nsec == program->st_ctim.tv_nsec &&
		now >= zygote->started &&
		now < TimestampTzPlusMilliseconds(zygote->started, LIFE_MS);
}

static void
register_exit(void)
{
	static bool registered = false;

	if (!registered)
		on_proc_exit(end_all, (Datum) 0);
	registered = true;
}

/* The other end of its socket is left in *theirs. */
static NarZygote *
make(const struct stat *program, int *theirs)
{
	NarZygote  *zygote;
	int			ends[2];

	register_exit();
	zygote = MemoryContextAllocZero(TopMemoryContext, sizeof(NarZygote));
	zygote->program = *program;
	zygote->started = GetCurrentTimestamp();
	if (!AcquireExternalFD())
	{
		pfree(zygote);
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
	{
		ReleaseExternalFD();
		pfree(zygote);
		return NULL;
	}
	zygote->socket = ends[0];
	*theirs = ends[1];
	return zygote;
}

static NarZygote *
start(char *path, const struct stat *program)
{
	char		parent[12];
	char	   *argv[] = {path, parent, NULL};
	int			theirs;
	int			error;
	NarZygote  *zygote = make(program, &theirs);

	if (zygote == NULL)
		return NULL;
	snprintf(parent, sizeof(parent), "%d", (int) getpid());
	error = nar_checker_spawn(&zygote->pid, argv, theirs, -1, true);
	close(theirs);
	if (error != 0)
	{
		close(zygote->socket);
		ReleaseExternalFD();
		pfree(zygote);
		return NULL;
	}
	zygote->next = all;
	all = zygote;
	return zygote;
}

static NarZygote *
get(void)
{
	char	   *path = nar_checker_path();
	struct stat program;

	if (stat(path, &program) != 0)
		memset(&program, 0, sizeof(program));
	if (current != NULL && !is_fresh(current, &program))
		nar_zygote_retire(current);
	if (current == NULL)
		current = start(path, &program);
	pfree(path);
	return current;
}

/*-------------------------------------------------------------------------
 * Asking
 *-------------------------------------------------------------------------
 */

static bool
say(const NarZygote *zygote, const char *request, size_t len, const int *fds)
{
	union
	{
		struct cmsghdr align;
		char		space[CMSG_SPACE(sizeof(int) * CHECKER_FDS)];
	}			control;
	struct iovec text = {unconstify(char *, request), len};
	struct msghdr message = {
		.msg_iov = &text,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	memset(&control, 0, sizeof(control));
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int) * CHECKER_FDS);
	memcpy(CMSG_DATA(header), fds, sizeof(int) * CHECKER_FDS);
	/* one that does not take it at once has stopped */
	return sendmsg(zygote->socket, &message,
				   MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t) len;
}

NarZygote *
nar_zygote_ask(const char *request, size_t len, int nar, int pipe)
{
	int			fds[CHECKER_FDS] = {
		[CHECKER_FD_NAR] = nar, [CHECKER_FD_PIPE] = pipe
	};

	/* one may have ended since it was last asked; the next is just started */
	for (int i = 0; i < 2; i++)
	{
		NarZygote  *zygote = get();

		if (zygote == NULL)
			return NULL;
		if (say(zygote, request, len, fds))
		{
			zygote->shares++;
			return zygote;
		}
		nar_zygote_retire(zygote);
	}
	return NULL;
}
