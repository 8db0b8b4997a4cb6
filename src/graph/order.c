/*-------------------------------------------------------------------------
 *
 * order.c
 *	  Paths in the order of their dependencies.
 *
 * Tarjan's walk in depth, without recursion: a component, which is a path or
 * the paths of a cycle, is complete when all that it refers to is.  So
 * components come out in the order that is wanted, those of one cycle
 * together.
 *
 *	  frames		the way from the start to where the walk is
 *	  edges			what the paths on this way refer to; those of a path go
 *					when it is left
 *	  open			paths whose component is not complete
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/walk.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_dependency_order);

typedef struct Stack
{
	uint32	   *items;
	uint64		n;
	uint64		size;
} Stack;

typedef struct Frame
{
	uint32		number;
	uint64		edges;			/* where those of this path begin */
	uint64		next;			/* and the one that is next */
} Frame;

typedef struct Visit
{
	uint32		order;			/* of the first visit; 0: none yet */
	uint32		low;			/* the earliest open path that is reached */
	bool		is_open;
} Visit;

typedef struct Ordering
{
	Walk	   *walk;
	struct varlena **given;		/* the paths given, by number */
	uint32		ngiven;
	Visit	   *visits;			/* by number */
	uint32		nvisits;
	uint32		clock;
	Frame	   *frames;
	uint64		nframes;
	uint64		frames_size;
	Stack		edges;
	Stack		open;
	Stack		members;		/* those given of one component */
	int32		position;
	ReturnSetInfo *result;
} Ordering;

static void
stack_init(Stack *stack)
{
	stack->n = 0;
	stack->size = 64;
	stack->items = palloc(sizeof(uint32) * stack->size);
}

static void
push(Stack *stack, uint32 item)
{
	if (stack->n == stack->size)
	{
		stack->size *= 2;
		stack->items = repalloc_huge(stack->items,
									 sizeof(uint32) * stack->size);
	}
	stack->items[stack->n++] = item;
}

static void
push_frame(Ordering *ordering, uint32 number, uint64 edges)
{
	Frame	   *frame;

	if (ordering->nframes == ordering->frames_size)
	{
		ordering->frames_size *= 2;
		ordering->frames = repalloc_huge(ordering->frames, sizeof(Frame) *
										 ordering->frames_size);
	}
	frame = &ordering->frames[ordering->nframes++];
	frame->number = number;
	frame->edges = edges;
	frame->next = edges;
}

/* One for each node of the walk. */
static void
make_visits(Ordering *ordering)
{
	uint32		size = ordering->walk->size;

	if (ordering->nvisits >= size)
		return;
	ordering->visits = repalloc_huge(ordering->visits,
									 sizeof(Visit) * (uint64) size);
	memset(&ordering->visits[ordering->nvisits], 0,
		   sizeof(Visit) * (uint64) (size - ordering->nvisits));
	ordering->nvisits = size;
}

static void
enter(Ordering *ordering, uint32 number)
{
	Walk	   *walk = ordering->walk;
	struct varlena *info = walk_find(walk, walk->nodes[number].hash);
	Visit	   *visit = &ordering->visits[number];

	visit->order = visit->low = ++ordering->clock;
	visit->is_open = true;
	push(&ordering->open, number);
	push_frame(ordering, number, ordering->edges.n);
	if (info)
	{
		const uint8 *packed = NARINFO_PACKED(info);

		for (uint32 i = 0; i < packed_nrefs(packed); i++)
			push(&ordering->edges,
				 walk_meet(walk, packed_ref(packed, i), number));
	}
	make_visits(ordering);
}

static int
compare_numbers(const void *a, const void *b)
{
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;

	return (x > y) - (x < y);
}

/* Within a cycle, in the order in which they were given. */
static void
tell_members(Ordering *ordering)
{
	Stack	   *members = &ordering->members;

	qsort(members->items, members->n, sizeof(uint32), compare_numbers);
	for (uint64 i = 0; i < members->n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		values[0] = Int32GetDatum(++ordering->position);
		values[1] = PointerGetDatum(ordering->given[members->items[i]]);
		tuplestore_putvalues(ordering->result->setResult,
							 ordering->result->setDesc, values, nulls);
	}
	members->n = 0;
}

/* The component of which this path was visited first is complete. */
static void
close_component(Ordering *ordering, uint32 first)
{
	uint32		number;

	do
	{
		number = ordering->open.items[--ordering->open.n];
		ordering->visits[number].is_open = false;
		if (number < ordering->ngiven)
			push(&ordering->members, number);
	} while (number != first);
	tell_members(ordering);
}

static void
leave(Ordering *ordering)
{
	Frame	   *frame = &ordering->frames[--ordering->nframes];
	Visit	   *visit = &ordering->visits[frame->number];

	ordering->edges.n = frame->edges;
	if (visit->low == visit->order)
		close_component(ordering, frame->number);
	if (ordering->nframes > 0)
	{
		Visit	   *before = &ordering->visits[frame[-1].number];

		before->low = Min(before->low, visit->low);
	}
}

static void
order_from(Ordering *ordering, uint32 start)
{
	if (ordering->visits[start].order > 0)
		return;
	enter(ordering, start);
	while (ordering->nframes > 0)
	{
		Frame	   *frame = &ordering->frames[ordering->nframes - 1];
		uint32		number = frame->number;
		uint32		to;

		CHECK_FOR_INTERRUPTS();
		if (frame->next == ordering->edges.n)
		{
			leave(ordering);
			continue;
		}
		to = ordering->edges.items[frame->next++];
		if (ordering->visits[to].order == 0)
			enter(ordering, to);
		else if (ordering->visits[to].is_open)
			ordering->visits[number].low = Min(ordering->visits[number].low,
											   ordering->visits[to].order);
	}
}

/* Numbers the paths given, each once. */
static void
take_given(Ordering *ordering, struct varlena **paths, int n)
{
	ordering->given = palloc(sizeof(struct varlena *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		StorePath	path = store_path_parts(paths[i]);
		uint32		number = walk_require(ordering->walk, path);

		ordering->given[number] = paths[i];
	}
	ordering->ngiven = ordering->walk->n;
}

/* dependency_order(paths store_path[], cache text) -> table */
Datum
graph_dependency_order(PG_FUNCTION_ARGS)
{
	Ordering	ordering = {0};
	struct varlena **paths;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	ordering.result = (ReturnSetInfo *) fcinfo->resultinfo;
	ordering.walk = walk_begin(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	ordering.frames_size = 64;
	ordering.frames = palloc(sizeof(Frame) * ordering.frames_size);
	stack_init(&ordering.edges);
	stack_init(&ordering.open);
	stack_init(&ordering.members);
	paths = walk_array(PG_GETARG_ARRAYTYPE_P(0), &n);
	take_given(&ordering, paths, n);
	ordering.visits = palloc(sizeof(Visit));
	make_visits(&ordering);
	for (uint32 number = 0; number < ordering.ngiven; number++)
		order_from(&ordering, number);
	walk_end(ordering.walk);
	PG_RETURN_VOID();
}
