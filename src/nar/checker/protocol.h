/*-------------------------------------------------------------------------
 *
 * protocol.h
 *	  What the program pg_narinfo_check and those who start it agree on.
 *
 *	  pg_narinfo_check PARENT COMPRESSION FILE_HASH FILE_SIZE NAR_HASH NAR_SIZE
 *
 * The compressed NAR is standard input, read from its beginning if it is a
 * file.  PARENT is the process with which the program ends, 0 for none.  A
 * hash is ALGO:DIGITS, a size bytes in decimal, and either is "-" when nobody
 * knows it.  One line is printed:
 *
 *	  status 0	what was found: FILE_HASH FILE_SIZE NAR_HASH NAR_SIZE
 *	  status 1	what is wrong with the file, for whoever sent it
 *	  status 2	why it could not be checked
 *
 *	  pg_narinfo_check PARENT
 *
 * makes a process of itself for each request (zygote.c), as a child of
 * PARENT's.  Requests come by standard input, a SOCK_SEQPACKET: the words from
 * COMPRESSION on, each with its NUL, and two descriptors (SCM_RIGHTS).  The
 * child writes its pid (a pid_t) to the pipe, before everything else, and its
 * line when it ends, with the status, as above.  A pipe that ends without a
 * pid says that there is no child.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_CHECKER_PROTOCOL_H
#define NARINFO_NAR_CHECKER_PROTOCOL_H

#define CHECKER_PROGRAM "pg_narinfo_check"
#define CHECKER_UNKNOWN "-"

typedef enum CheckerStatus
{
	CHECKER_GOOD = 0,
	CHECKER_BAD = 1,
	CHECKER_TROUBLE = 2
} CheckerStatus;

/*
 * The line with its newline; so it goes into a pipe at once (PIPE_BUF), and
 * the program never waits for a reader.
 */
#define CHECKER_LINE_MAX 1024

/* COMPRESSION FILE_HASH FILE_SIZE NAR_HASH NAR_SIZE */
#define CHECKER_WORDS	5
#define CHECKER_REQUEST_MAX 1024

/* What comes with a request. */
enum
{
	CHECKER_FD_NAR,
	CHECKER_FD_PIPE,
	CHECKER_FDS
};

#endif							/* NARINFO_NAR_CHECKER_PROTOCOL_H */
