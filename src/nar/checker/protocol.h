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

#endif							/* NARINFO_NAR_CHECKER_PROTOCOL_H */
