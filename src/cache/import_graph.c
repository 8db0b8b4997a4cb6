/*-------------------------------------------------------------------------
 *
 * import_graph.c
 *	  In which order the narinfos of a directory go into a cache, and which
 *	  of them do not.
 *
 * Every store path that has a file, or that a file refers to, is a node of a
 * hash table; the narinfos themselves go into a temporary file, so that
 * memory grows with the number of paths and not with their size, and no file
 * is read twice.  The order is that in which Tarjan's algorithm finishes the
 * strongly connected components: whatever a component refers to is finished
 * before it, so that every prefix is closed.  The walk keeps its own stack,
 * with the references of the paths on it and of no others.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/import.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define WRITE_BUFFER	(256 * 1024)	/* bytes */
#define READ_AHEAD		2048	/* most narinfos are shorter */

struct ImportGraph
{
	MemoryContext context;
	HTAB	   *nodes;
	File		spill;
	int64		spill_size;		/* bytes in the file */
	int			buffered;		/* bytes in the buffer behind it */
	char	   *buffer;
	MemoryContextCallback callback;
};

struct ImportCursor
{
	HASH_SEQ_STATUS status;
};

static void
close_spill(void *arg)
{
	ImportGraph *graph = arg;

	FileClose(graph->spill);
}

ImportGraph *
import_graph_create(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ImportGraph *graph = palloc0(sizeof(ImportGraph));
	HASHCTL		control;

	graph->context = context;
	graph->buffer = palloc(WRITE_BUFFER);
	control.keysize = STORE_HASH_LEN;
	control.entrysize = sizeof(ImportNode);
	control.hcxt = context;
	graph->nodes = hash_create("narinfo import", 1024, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	/* it outlives transactions: the context closes it */
	graph->spill = OpenTemporaryFile(true);
	graph->callback.func = close_spill;
	graph->callback.arg = graph;
	MemoryContextRegisterResetCallback(context, &graph->callback);
	MemoryContextSwitchTo(old);
	return graph;
}

ImportNode *
import_graph_node(ImportGraph *graph, const uint8 *hash)
{
	bool		found;
	ImportNode *node = hash_search(graph->nodes, hash, HASH_ENTER, &found);

	if (!found)
		memset((char *) node + STORE_HASH_LEN, 0,
			   sizeof(ImportNode) - STORE_HASH_LEN);
	return node;
}

/*-------------------------------------------------------------------------
 * The spill file: narinfos one behind the other, each with its varlena header
 *-------------------------------------------------------------------------
 */

static void
spill_write(ImportGraph *graph, const char *data, int n)
{
	errno = 0;
	if (FileWrite(graph->spill, (char *) data, n, graph->spill_size,
				  WAIT_EVENT_BUFFILE_WRITE) != n)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to temporary file: %m")));
	}
	graph->spill_size += n;
}

static void
spill_flush(ImportGraph *graph)
{
	if (graph->buffered > 0)
		spill_write(graph, graph->buffer, graph->buffered);
	graph->buffered = 0;
}

static void
spill_read(ImportGraph *graph, char *data, int n, int64 offset)
{
	int			done = FileRead(graph->spill, data, n, offset,
								WAIT_EVENT_BUFFILE_READ);

	if (done != n)
		ereport(ERROR,
				(errcode_for_file_access(),
				 done < 0 ? errmsg("could not read from temporary file: %m") :
				 errmsg("temporary file is shorter than what was written")));
}

void
import_graph_add(ImportGraph *graph, ImportNode *node,
				 const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);
	int			size = (int) VARSIZE(info);

	if (graph->buffered + size > WRITE_BUFFER)
		spill_flush(graph);
	node->offset = graph->spill_size + graph->buffered;
	if (size > WRITE_BUFFER)
		spill_write(graph, (const char *) info, size);
	else
	{
		memcpy(graph->buffer + graph->buffered, info, size);
		graph->buffered += size;
	}
	node->state = IMPORT_READ;
	for (uint32 i = 0; i < packed_nrefs(packed); i++)
		import_graph_node(graph, packed_ref(packed, i));
}

struct varlena *
import_graph_get(ImportGraph *graph, const ImportNode *node)
{
	union
	{
		struct varlena header;
		char		bytes[READ_AHEAD];
	}			start;
	struct varlena *info;
	int			size;
	int			n;

	spill_flush(graph);
	n = (int) Min(READ_AHEAD, graph->spill_size - node->offset);
	spill_read(graph, start.bytes, n, node->offset);
	size = (int) VARSIZE(&start.header);
	info = palloc(size);
	memcpy(info, start.bytes, Min(n, size));
	if (size > n)
		spill_read(graph, (char *) info + n, size - n, node->offset + n);
	return info;
}

/*-------------------------------------------------------------------------
 * Walking
 *-------------------------------------------------------------------------
 */

ImportCursor *
import_graph_scan(ImportGraph *graph)
{
	ImportCursor *cursor = palloc(sizeof(ImportCursor));

	/* scans of a frozen table may outlive a transaction */
	hash_freeze(graph->nodes);
	hash_seq_init(&cursor->status, graph->nodes);
	return cursor;
}

ImportNode *
import_graph_scan_next(ImportCursor *cursor, ImportState state)
{
	ImportNode *node;

	while ((node = hash_seq_search(&cursor->status)) != NULL)
	{
		if (node->state == state)
			return node;
	}
	return NULL;
}

/* A node that is being visited, and how far. */
typedef struct Frame
{
	ImportNode *node;
	ImportNode **refs;
	uint32		nrefs;
	uint32		next;			/* the reference to look at */
} Frame;

typedef struct Walk
{
	ImportGraph *graph;
	MemoryContext context;		/* for what the walk itself needs */
	bool		require_closure;
	ImportVisitor visit;
	void	   *arg;
	uint32		last_index;
	Frame	   *frames;
	int			nframes;
	int			max_frames;
	ImportNode **stack;			/* nodes whose component is not finished */
	int			nstack;
	int			max_stack;
} Walk;

/* Doubles an array when it is full. */
#define GROW(array, n, max) \
	do { \
		if ((n) == (max)) \
		{ \
			(max) *= 2; \
			(array) = repalloc_huge((array), \
									sizeof(*(array)) * (Size) (max)); \
		} \
	} while (0)

static void
enter(Walk *walk, ImportNode *node)
{
	struct varlena *info = import_graph_get(walk->graph, node);
	const uint8 *packed = NARINFO_PACKED(info);
	Frame	   *frame;

	GROW(walk->frames, walk->nframes, walk->max_frames);
	GROW(walk->stack, walk->nstack, walk->max_stack);
	node->index = node->low = ++walk->last_index;
	node->on_stack = true;
	walk->stack[walk->nstack++] = node;

	frame = &walk->frames[walk->nframes++];
	frame->node = node;
	frame->next = 0;
	frame->nrefs = packed_nrefs(packed);
	frame->refs = NULL;
	if (frame->nrefs > 0)
		frame->refs = palloc_extended(sizeof(ImportNode *) * frame->nrefs,
									  MCXT_ALLOC_HUGE);
	for (uint32 i = 0; i < frame->nrefs; i++)
		frame->refs[i] = import_graph_node(walk->graph, packed_ref(packed, i));
	pfree(info);
}

static void
finish_component(Walk *walk, ImportNode *root)
{
	int			start = walk->nstack;
	bool		bad = false;

	do
	{
		ImportNode *node = walk->stack[--start];

		node->on_stack = false;
		bad = bad || node->bad;
	} while (walk->stack[start] != root);
	walk->visit(walk->arg, walk->stack + start, walk->nstack - start, bad);
	walk->nstack = start;
}

static void
leave(Walk *walk)
{
	Frame	   *frame = &walk->frames[--walk->nframes];
	ImportNode *node = frame->node;

	if (frame->refs)
		pfree(frame->refs);
	if (walk->nframes > 0)
	{
		ImportNode *parent = walk->frames[walk->nframes - 1].node;

		parent->low = Min(parent->low, node->low);
	}
	if (node->low == node->index)
		finish_component(walk, node);
	/* the parent sees what became of this one when it looks at it again */
}

/*
 * Look at the next reference; a node that was entered through it is looked at
 * again when it has been left.
 */
static void
step(Walk *walk)
{
	Frame	   *frame = &walk->frames[walk->nframes - 1];
	ImportNode *node = frame->node;
	ImportNode *ref = frame->refs[frame->next];

	if (ref->state == IMPORT_READ && ref->index == 0)
	{
		enter(walk, ref);
		return;
	}
	frame->next++;
	if (ref->on_stack)
		node->low = Min(node->low, ref->low);
	else if (walk->require_closure &&
			 (ref->state == IMPORT_LEFT_OUT || ref->state == IMPORT_NOWHERE))
		node->bad = true;
}

void
import_graph_walk(ImportGraph *graph, bool require_closure,
				  ImportVisitor visit, void *arg)
{
	Walk		walk = {.graph = graph, .require_closure = require_closure,
	.visit = visit, .arg = arg, .max_frames = 1024, .max_stack = 1024};
	ImportCursor *cursor;
	ImportNode *root;
	MemoryContext old;

	spill_flush(graph);
	walk.context = AllocSetContextCreate(graph->context, "narinfo import walk",
										 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(walk.context);
	walk.frames = palloc(sizeof(Frame) * walk.max_frames);
	walk.stack = palloc(sizeof(ImportNode *) * walk.max_stack);

	/* references have their nodes already, so the table does not change */
	cursor = import_graph_scan(graph);
	while ((root = import_graph_scan_next(cursor, IMPORT_READ)) != NULL)
	{
		if (root->index != 0)
			continue;
		enter(&walk, root);
		while (walk.nframes > 0)
		{
			Frame	   *frame = &walk.frames[walk.nframes - 1];

			CHECK_FOR_INTERRUPTS();
			if (frame->next < frame->nrefs)
				step(&walk);
			else
				leave(&walk);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(walk.context);
}

ImportNode *
import_graph_blame(ImportGraph *graph, const struct varlena *info)
{
	const uint8 *packed = NARINFO_PACKED(info);

	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		ImportNode *ref = import_graph_node(graph, packed_ref(packed, i));

		if (ref->state == IMPORT_LEFT_OUT || ref->state == IMPORT_NOWHERE)
			return ref;
	}
	return NULL;
}
