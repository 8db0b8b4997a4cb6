/*-------------------------------------------------------------------------
 *
 * zygote.h
 *	  The process of pg_narinfo_check that makes one of itself for each NAR
 *	  that this process has looked into.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_ZYGOTE_H
#define NARINFO_NAR_ZYGOTE_H

#include "postgres.h"

typedef struct NarZygote NarZygote;

/*
 * Starts the program with this for its standard input and output (-1:
 * /dev/null) and no other descriptor of ours, no signal blocked or ignored and
 * an empty environment; argv[0] is its path.  A zygote leads a process group
 * of its own.  Returns errno, or 0.
 */
extern int	nar_checker_spawn(pid_t *pid, char **argv, int input, int output,
							  bool leads_group);

/* Where it is, in memory of the caller's. */
extern char *nar_checker_path(void);

/*
 * Asks for a child that looks into "nar" and writes to "pipe" (protocol.h
 * says what), starting a zygote when there is none that is young and of the
 * program as it is now.  NULL when that is not possible.  The caller has a
 * share in the zygote until nar_zygote_release().
 */
extern NarZygote *nar_zygote_ask(const char *request, size_t len, int nar,
								 int pipe);

/* The caller knows of no child of it any more that it has not reaped. */
extern void nar_zygote_release(NarZygote *zygote);

/*
 * Is asked for no child any more; when nobody has a share in it, it is killed,
 * with whatever children of its nobody knows of.
 */
extern void nar_zygote_retire(NarZygote *zygote);

/* Is replaced before anything is asked for again. */
extern void nar_zygote_suspect(NarZygote *zygote);

/* Retires the one that would be asked next, if there is one. */
extern void nar_zygote_dismiss(void);

#endif							/* NARINFO_NAR_ZYGOTE_H */
