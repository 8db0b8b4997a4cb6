/*-------------------------------------------------------------------------
 *
 * gc_order.h
 *	  In which order dead paths can go: nothing before what refers to it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_GC_ORDER_H
#define NARINFO_GRAPH_GC_ORDER_H

#include "postgres.h"

#include "graph/dense.h"

/*
 * Paths that can only go together: one, or all of a cycle.  False ends the
 * order here: what was visited so far is closed under referrers.
 */
typedef bool (*GcOrderVisitor) (void *arg, const uint32 *paths, uint32 n);

/*
 * Visits the paths whose marks have none of these bits, which nothing that
 * has one of them is referred to by.  With "by_age" those come first that
 * were used longest ago (dense_when) as far as their referrers let them; of
 * cycles, and what only cycles lead to, the last.  The queue is an array of
 * four bytes each, whose contents do not matter; four bytes a path more are
 * taken meanwhile, and where there are cycles four for each path on the
 * longest way through them.
 */
extern void gc_order_visit(Dense *dense, const uint8 *marks, uint8 alive,
						   uint32 *queue, bool by_age, GcOrderVisitor visit,
						   void *arg);

#endif							/* NARINFO_GRAPH_GC_ORDER_H */
