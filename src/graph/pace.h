/*-------------------------------------------------------------------------
 *
 * pace.h
 *	  Long work that leaves the processors to those who publish.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_PACE_H
#define NARINFO_GRAPH_PACE_H

#include "postgres.h"

#define PACE_SHARE_MIN 0.001

/*
 * From now on so much of the time, while others write; 1: all of it.  Below
 * that, this transaction must be one that may write, too.
 */
extern void pace_begin(double share);

/*
 * The rest that belongs to so many ms of work, a second at most; may be
 * interrupted.
 */
extern void pace_rest(double worked, double share);

/*
 * To be called every millisecond or so; may sleep, and may be interrupted.
 * Nothing that others wait for may be held.
 */
extern void pace(void);

#endif							/* NARINFO_GRAPH_PACE_H */
