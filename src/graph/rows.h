/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  The valid paths of one cache, all of them, as fast as they can be read.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_ROWS_H
#define NARINFO_GRAPH_ROWS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* What is handed out lives for one call; its memory context is reset then. */
typedef void (*RowVisitor) (void *arg, const uint8 *hash,
							const struct varlena *info, TimestampTz when);

/*
 * As the active snapshot has them, in no order.  "share" of the table, about,
 * are rows of this cache.  Needs SELECT on valid_path.
 */
extern void rows_visit(const char *cache, double share, RowVisitor visit,
					   void *arg);

#endif							/* NARINFO_GRAPH_ROWS_H */
