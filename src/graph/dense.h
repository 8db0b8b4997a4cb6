/*-------------------------------------------------------------------------
 *
 * dense.h
 *	  The graph of one cache in memory: its paths as numbers from 0 on, in
 *	  about the order of the table, and the references of each as such numbers.
 *
 *		for a path:	hash						20 bytes
 *					where its references are	 8
 *					nar size, file size			10
 *					when it was published		 8
 *					slots to find it by			 5
 *		for an edge:							 4
 *
 * That leaves 9 bytes a path, of the 60 that are promised, for those who
 * walk: marks, queues and counts are made by dense_array(), which counts them.
 * While it is read, what is referred to and has no row takes as much as what
 * has one.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_DENSE_H
#define NARINFO_GRAPH_DENSE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/store_path.h"

#define DENSE_NONE PG_UINT32_MAX

typedef struct Dense Dense;

/* The setting pg_narinfo.graph_memory; called once by _PG_init. */
extern void dense_init(void);

/*
 * What a cache's graph will take, from the statistics of the tables and of
 * the reverse index; nothing is read but those.
 */
typedef struct DenseEstimate
{
	double		paths;
	double		edges;
	double		bytes;
	double		share;			/* of the table that is of this cache */
	bool		is_bound;		/* nobody knows: of all caches */
} DenseEstimate;

extern void dense_estimate(const char *cache, DenseEstimate *estimate);

/*
 * The valid paths of a cache as the active snapshot has them.  Needs SELECT
 * on valid_path.  All is allocated in a child of the current memory context.
 * References to what has no row are left out, and so are those of a path to
 * itself; the order of the others is that of the narinfo.
 *
 * Raises ERRCODE_CONFIGURATION_LIMIT_EXCEEDED when it takes more than
 * pg_narinfo.graph_memory: before anything is read if the statistics say so.
 * It tells how far it is by progress_report() with PROGRESS_LOADING: whoever
 * wants that to be seen has called progress_start().
 */
extern Dense *dense_load(const char *cache);
extern void dense_free(Dense *dense);

extern uint32 dense_count(const Dense *dense);
extern uint64 dense_edges(const Dense *dense);

/* References that were left out since they have no row. */
extern uint64 dense_dangling(const Dense *dense);

/* The path of this hash, or DENSE_NONE. */
extern uint32 dense_find(const Dense *dense,
						 const uint8 hash[STORE_HASH_LEN]);

extern const uint8 *dense_hash(const Dense *dense, uint32 path);

/* The references of a path, n of them; they live as long as the graph. */
extern const uint32 *dense_refs(const Dense *dense, uint32 path, uint32 *n);

/* Bytes; those of 2^40 and more are cut off there. */
extern int64 dense_nar_size(const Dense *dense, uint32 path);
extern int64 dense_file_size(const Dense *dense, uint32 path);

/* When it was published; dense_use() moves that to a later time. */
extern TimestampTz dense_when(const Dense *dense, uint32 path);
extern void dense_use(Dense *dense, uint32 path, TimestampTz at);

/*
 * Zeros, so many bytes for each path; counted in dense_memory(), and refused
 * like the graph itself.
 */
extern void *dense_array(Dense *dense, Size bytes_each);
extern void dense_array_free(Dense *dense, void *array, Size bytes_each);

/* The same of any size: from so many bytes to so many, not zeroed. */
extern void *dense_resize(Dense *dense, void *array, Size old, Size new);

/* Bytes that were taken at most at one time, the arrays included. */
extern Size dense_memory(const Dense *dense);

/*
 * Sets a bit in the marks (an array of one byte each) of a path and of all
 * that it needs.  What has the bit already is not passed: its closure has it
 * too.  The queue is an array of four bytes each, whose contents do not
 * matter.  How many got the bit; they are the beginning of the queue, the
 * path itself first.
 */
extern uint32 dense_mark(const Dense *dense, uint32 path, uint8 bit,
						 uint8 *marks, uint32 *queue);

/*
 * The same from many paths at once: the first n of the queue, which have the
 * bit already, each once.  Faster than one after the other.
 */
extern uint32 dense_walk(const Dense *dense, uint8 bit, uint8 *marks,
						 uint32 *queue, uint32 n);

#endif							/* NARINFO_GRAPH_DENSE_H */
