/*-------------------------------------------------------------------------
 *
 * root.h
 *	  The roots of a cache: the paths that somebody wants to stay, with all
 *	  that they need.
 *
 *	  narinfo.root			pins: generations of paths, each under a name
 *	  narinfo.root_source	queries of the application, and predicates over
 *							the valid paths
 *
 * A root need not be valid: a pin may be wanted before it comes, and a source
 * names what it likes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_ROOT_H
#define NARINFO_GRAPH_ROOT_H

#include "postgres.h"

#include "base/store_path.h"

/* The room's rules for the gate, and its settings; called by _PG_init. */
extern void root_init(void);

/*
 * Calls back with every store hash that is a root of the cache now, as the
 * active snapshot has it: of the pins that count, whether the path is there
 * or not, and of every source, with the name of the pin or source.  A hash
 * comes once for each pin and each source that names it, those of pins first,
 * in the order of the names.  Returns how many there were.
 *
 * The callback may do what it likes, but SPI is not connected by us.  "hash"
 * and "name" live for the call.
 *
 * Sources run with the rights of the role that added them, read-only, each in
 * a subtransaction and in at most pg_narinfo.root_source_timeout.  Raises
 * ERRCODE_NARINFO_ROOTS, which names the source, when one fails: who collects
 * must not go on then.
 */
typedef void (*RootVisitor) (void *arg, const uint8 *hash, const char *name);

extern int64 root_visit(const char *cache, RootVisitor visit, void *arg);

/*
 * Removes the pins of a cache that count no more: those that have expired, and
 * generations that the rule of their name lets go; those of 200 names at most.
 * Returns how many rows went, 0 when there are no more.  Names that are being
 * pinned at the moment are left out.  With the rights of the tables' owner;
 * leaves events like any change of the table.
 */
extern int64 root_prune(const char *cache);

/*
 * For the janitor: is it time to prune again?  Every
 * pg_narinfo.root_prune_interval, in this process.
 */
extern bool root_prune_is_due(void);

#endif							/* NARINFO_GRAPH_ROOT_H */
