/*-------------------------------------------------------------------------
 *
 * transfer.h
 *	  How import_cache, export_cache and checkpoint_cache begin and end, and
 *	  what those that move many narinfos share.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_TRANSFER_H
#define NARINFO_CACHE_TRANSFER_H

#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"

#include "cache/cache.h"

typedef struct TransferArguments
{
	MemoryContext context;		/* lives through the procedure's commits */
	char	   *directory;
	CacheInfo	cache;
} TransferArguments;

/*
 * Raises an error when a procedure that commits on its way was called inside a
 * transaction block.
 */
extern void procedure_check_block(FunctionCallInfo fcinfo,
								  const char *procedure);

/*
 * Reads the arguments (directory text, cache text) of a procedure, and
 * connects SPI.  Raises an error when the user is not of this predefined
 * role, when there is no such cache, or when a procedure that commits on its
 * way runs inside a transaction block.
 */
extern void transfer_begin(FunctionCallInfo fcinfo, const char *procedure,
						   Oid role, bool commits,
						   TransferArguments *arguments);

/* Frees the context and disconnects SPI. */
extern void transfer_end(TransferArguments *arguments);

/* A plan that outlives transactions; SPI must be connected. */
extern SPIPlanPtr transfer_prepare(const char *query, int nargs, Oid *types);

/*
 * Runs one, or raises an error; in the caller's memory context again when it
 * is done, for SPI leaves its own.
 */
extern void transfer_execute(SPIPlanPtr plan, Datum *values, bool read_only);

/* Writes all of it to a file; false with errno set. */
extern bool transfer_write(int fd, const char *bytes, size_t len);

#endif							/* NARINFO_CACHE_TRANSFER_H */
