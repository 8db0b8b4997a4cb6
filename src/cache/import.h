/*-------------------------------------------------------------------------
 *
 * import.h
 *	  What the parts of import_cache share.
 *
 *	  import.c			the procedure: batches, rows, progress
 *	  import_files.c	from a directory to narinfos, one at a time
 *	  import_graph.c	in which order they go in, and which do not
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_IMPORT_H
#define NARINFO_CACHE_IMPORT_H

#include "postgres.h"

#include "cache/cache.h"
#include "types/types.h"

/*-------------------------------------------------------------------------
 * Files
 *-------------------------------------------------------------------------
 */

/* Where a file lies below the directory: Nix's or guix publish's layout. */
typedef enum ImportLayout
{
	LAYOUT_NIX = 0,				/* HASH.narinfo */
	LAYOUT_GUIX = 1				/* COMPRESSION/HASH-NAME.narinfo; further
								 * numbers for further compressions */
} ImportLayout;

typedef struct ImportFile
{
	int			layout;
	uint8		hash[STORE_HASH_LEN];
	bool		good_name;		/* the hash could be read */
	char	   *name;			/* without its directory */
} ImportFile;

typedef struct ImportDirectory ImportDirectory;

/* Opens the directory, or raises why not; closed with the context. */
extern ImportDirectory *import_open(const char *path, MemoryContext context);

/* The next file called *.narinfo, its name palloc'd; false at the end. */
extern bool import_next(ImportDirectory *directory, ImportFile *file);

/*
 * Its narinfo, palloc'd; or NULL with the error filled in, when it cannot be
 * read, is no narinfo, is not of this name, or not of this store directory.
 */
extern struct varlena *import_read(ImportDirectory *directory,
								   const ImportFile *file,
								   const char *store_dir, ParseError *error);

/* Its path below the directory, palloc'd. */
extern char *import_file_path(const ImportFile *file);

/* The same of the file that holds this narinfo. */
extern char *import_path_of(int layout, const struct varlena *info);

/*-------------------------------------------------------------------------
 * Graph
 *-------------------------------------------------------------------------
 */

typedef struct ImportGraph ImportGraph;

typedef enum ImportState
{
	IMPORT_UNKNOWN = 0,			/* only referred to so far */
	IMPORT_READ,				/* its file has been read */
	IMPORT_VALID,				/* valid in the cache, before or by now */
	IMPORT_LEFT_OUT,			/* its file is no good, or refers to such */
	IMPORT_NOWHERE				/* neither in the cache nor the directory */
} ImportState;

/* One store path.  Some 80 bytes with what the hash table adds. */
typedef struct ImportNode
{
	uint8		hash[STORE_HASH_LEN];	/* the key, first */
	uint8		state;			/* an ImportState */
	uint8		layout;			/* of its file */
	bool		on_stack;
	bool		bad;			/* refers to what is left out or nowhere */
	uint32		index;			/* Tarjan's, 0 before the visit */
	uint32		low;
	int64		offset;			/* of its narinfo in the spill file */
} ImportNode;

/* The graph lives in this context, its spill file as long. */
extern ImportGraph *import_graph_create(MemoryContext context);
extern ImportNode *import_graph_node(ImportGraph *graph, const uint8 *hash);

/* Keeps a narinfo for later, and makes nodes of its references. */
extern void import_graph_add(ImportGraph *graph, ImportNode *node,
							 const struct varlena *info);

/* The narinfo that was kept, palloc'd. */
extern struct varlena *import_graph_get(ImportGraph *graph,
										const ImportNode *node);

/* Walks the nodes of one state; from the first scan on, none may be made. */
typedef struct ImportCursor ImportCursor;
extern ImportCursor *import_graph_scan(ImportGraph *graph);
extern ImportNode *import_graph_scan_next(ImportCursor *cursor,
										  ImportState state);

/*
 * What visits the nodes, references before referrers: a component is one
 * node, or several that refer to each other in a circle and must go in
 * together.  "bad" says that one of them refers to what is left out or
 * nowhere, and is never set unless closures are required.
 */
typedef void (*ImportVisitor) (void *arg, ImportNode **component, int n,
							   bool bad);

extern void import_graph_walk(ImportGraph *graph, bool require_closure,
							  ImportVisitor visit, void *arg);

/* A reference of this narinfo that is left out or nowhere; NULL: none. */
extern ImportNode *import_graph_blame(ImportGraph *graph,
									  const struct varlena *info);

#endif							/* NARINFO_CACHE_IMPORT_H */
