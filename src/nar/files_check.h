/*-------------------------------------------------------------------------
 *
 * files_check.h
 *	  Comparing the files of a cache with its narinfos.
 *
 *	  walk nar/			each file into a hash table: 32 bytes
 *	  all narinfos		mark the files that they name; what is not there, or
 *						has another size, is a problem
 *	  walk nar/ again	what is in the table and not marked is one, too
 *
 * The table takes at most FILE_BYTES_MAX bytes of memory a file, while it
 * grows, and no names; those are read once more instead.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_FILES_CHECK_H
#define NARINFO_NAR_FILES_CHECK_H

#include "postgres.h"

#include <sys/stat.h>

/* 32 bytes at a load of 0.45 to 0.9, and the half of it while it grows. */
#define FILE_BYTES_MAX 110

/* In the order of the enum file_problem_kind of files.sql. */
typedef enum FileProblemKind
{
	FILE_UNREFERENCED,
	FILE_MISSING,
	FILE_SIZE
} FileProblemKind;

typedef struct FileKey
{
	uint64		words[2];		/* XXH3-128 of the path */
} FileKey;

typedef struct FileEntry
{
	FileKey		key;
	int64		bytes;
	bool		named;
	char		status;
} FileEntry;

typedef struct FileTable FileTable;

extern FileTable *file_table_create(MemoryContext context);
extern FileEntry *file_table_add(FileTable *table, const char *path,
								 int64 bytes);
extern FileEntry *file_table_find(FileTable *table, const char *path);
extern uint64 file_table_count(const FileTable *table);

/* Files below nar/ of a cache; "path" is relative to its directory. */
typedef void (*FileVisitor) (void *arg, const char *path,
							 const struct stat *st);

extern void files_walk(const char *cache, FileVisitor visit, void *arg);

/* A file of nar/: its size, or -1 if it is not there. */
extern int64 files_size(const char *cache, const char *path);

#endif							/* NARINFO_NAR_FILES_CHECK_H */
