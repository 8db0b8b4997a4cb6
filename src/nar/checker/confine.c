/*-------------------------------------------------------------------------
 *
 * confine.c
 *	  What pg_narinfo_check takes from itself before it looks at a byte that
 *	  a stranger has sent.
 *
 * It runs as the user of the server, who may read and write every file of it
 * and signal every process: should a decompressor be talked into running code
 * of the stranger's, that code must not get further than its own memory.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nar/checker/checker.h"

/* How much we give way to the server's own processes. */
#define NICENESS 10

/* Of a short file, in which is a line with one number or some. */
static bool
read_numbers(const char *path, char *text, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return true;
}

/* When memory runs out, it is to be us, and never the server. */
static void
volunteer_for_oom(void)
{
	int			fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
	{
		/* where that cannot be written, the kernel has its own idea */
		if (write(fd, "1000", 4) < 0)
			errno = 0;
		close(fd);
	}
}

bool
end_with(pid_t parent, Verdict *verdict)
{
	if (parent == 0)
		return true;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return verdict_trouble(verdict, "PR_SET_PDEATHSIG: %m");
	/* it may have ended before we said so */
	if (getppid() != parent)
		return verdict_trouble(verdict, "the parent is gone");
	return true;
}

bool
give_way(Verdict *verdict)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return verdict_trouble(verdict, "PR_SET_NO_NEW_PRIVS: %m");
	/* with RLIMIT_FSIZE, a write that has an error is better than a signal */
	signal(SIGXFSZ, SIG_IGN);
	volunteer_for_oom();
	errno = 0;
	if (nice(NICENESS) == -1 && errno != 0)
		return verdict_trouble(verdict, "nice: %m");
	return true;
}

/*-------------------------------------------------------------------------
 * Limits
 *-------------------------------------------------------------------------
 */

static bool
limit(int resource, const char *name, uint64_t value, Verdict *verdict)
{
	struct rlimit wanted;

	if (getrlimit(resource, &wanted) != 0)
		return verdict_trouble(verdict, "%s: %m", name);
	/* never more than we may have by now */
	if (wanted.rlim_max == RLIM_INFINITY || value < wanted.rlim_max)
		wanted.rlim_max = value;
	wanted.rlim_cur = wanted.rlim_max;
	if (setrlimit(resource, &wanted) != 0)
		return verdict_trouble(verdict, "%s: %m", name);
	return true;
}

static bool
limit_memory(Verdict *verdict)
{
	char		text[128];
	uint64_t	pages;

	/* the first number is the size of the address space, in pages */
	if (!read_numbers("/proc/self/statm", text, sizeof(text)))
		return verdict_trouble(verdict, "/proc/self/statm: %m");
	pages = strtoull(text, NULL, 10);
	return limit(RLIMIT_AS, "RLIMIT_AS",
				 pages * (uint64_t) sysconf(_SC_PAGESIZE) + WINDOW_MAX +
				 WORKING_MEMORY, verdict);
}

/*-------------------------------------------------------------------------
 * System calls
 *-------------------------------------------------------------------------
 */

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef OUR_ARCHITECTURE

#define LOAD(field) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)

/* Skips the next one unless the number is this. */
#define UNLESS(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) (number), 0, 1)
#define ALLOW(call) UNLESS(__NR_##call), RETURN(SECCOMP_RET_ALLOW)

/*
 * Reading, memory, saying what was found, and ending.  Nothing opens, sends a
 * signal or makes a process.  What is not allowed fails, so that a library
 * that asks for something it can do without goes on.
 */
static struct sock_filter calls[] = {
	LOAD(arch),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0),
	RETURN(SECCOMP_RET_KILL_PROCESS),
	LOAD(nr),
	ALLOW(read),
	ALLOW(write),
	ALLOW(lseek),
	ALLOW(fstat),
	ALLOW(close),
	ALLOW(brk),
	ALLOW(mmap),
	ALLOW(munmap),
	ALLOW(mremap),
	ALLOW(mprotect),
	ALLOW(madvise),
	ALLOW(futex),
	ALLOW(getrandom),
	ALLOW(clock_gettime),
	ALLOW(rt_sigprocmask),
	ALLOW(rt_sigreturn),
	ALLOW(exit),
	ALLOW(exit_group),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
};

/* A kernel without it (EINVAL) leaves us with the limits. */
static bool
limit_calls(Verdict *verdict)
{
	struct sock_fprog program = {
		.len = sizeof(calls) / sizeof(calls[0]),
		.filter = calls
	};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0 &&
		errno != EINVAL)
		return verdict_trouble(verdict, "PR_SET_SECCOMP: %m");
	return true;
}

#else

static bool
limit_calls(Verdict *verdict)
{
	(void) verdict;
	return true;
}

#endif

bool
confine(uint64_t seconds, Verdict *verdict)
{
	return limit_memory(verdict) &&
		limit(RLIMIT_CPU, "RLIMIT_CPU", seconds, verdict) &&
		limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", 0, verdict) &&
		limit(RLIMIT_CORE, "RLIMIT_CORE", 0, verdict) &&
		limit(RLIMIT_NPROC, "RLIMIT_NPROC", 0, verdict) &&
		/* standard input, output and error are there */
		limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", 3, verdict) &&
		limit_calls(verdict);
}
