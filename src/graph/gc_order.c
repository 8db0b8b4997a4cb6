/*-------------------------------------------------------------------------
 *
 * gc_order.c
 *	  In which order dead paths can go; see gc_order.h.
 *
 * First those without a dead referrer, then those that have none any more,
 * and so on (Kahn): in the order in which they come up, or from a heap, the
 * one used longest ago at its top.  What is left then lies on cycles or behind
 * them.  Its strongly connected components come from Pearce's form of
 * Tarjan's algorithm ("A space-efficient algorithm for finding strongly
 * connected components", 2016), whose single number a path takes the place
 * of the count of referrers; components get falling numbers, dependencies
 * first, so that rising ones have the referrers first.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/gc_order.h"

#include "miscadmin.h"

#define CHECK_AFTER 4096

#define COUNT_GONE PG_UINT32_MAX	/* of a path that was visited */

typedef struct Ordering
{
	Dense	   *dense;
	const uint8 *marks;
	uint8		alive;
	uint32	   *queue;
	uint32	   *counts;			/* dead referrers that have not gone */
	GcOrderVisitor visit;
	void	   *arg;
} Ordering;

static inline bool
is_dead(const Ordering *order, uint32 path)
{
	return (order->marks[path] & order->alive) == 0;
}

/* Not visited, after visit_free(). */
static inline bool
is_left(const Ordering *order, uint32 path)
{
	return is_dead(order, path) && order->counts[path] != COUNT_GONE;
}

static void
count_referrers(Ordering *order)
{
	for (uint32 path = 0; path < dense_count(order->dense); path++)
	{
		uint32		n;
		const uint32 *refs = dense_refs(order->dense, path, &n);

		if (path % CHECK_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		if (!is_dead(order, path))
			continue;
		for (uint32 i = 0; i < n; i++)
			order->counts[refs[i]]++;
	}
}

/*-------------------------------------------------------------------------
 * A heap in the queue
 *-------------------------------------------------------------------------
 */

static inline bool
is_older(const Ordering *order, uint32 a, uint32 b)
{
	TimestampTz one = dense_when(order->dense, a);
	TimestampTz other = dense_when(order->dense, b);

	if (one != other)
		return one < other;
	/* numbers are in no certain order: a plan is to be the same again */
	return memcmp(dense_hash(order->dense, a), dense_hash(order->dense, b),
				  STORE_HASH_LEN) < 0;
}

static void
heap_push(Ordering *order, uint32 n, uint32 path)
{
	uint32		at = n;

	while (at > 0 && is_older(order, path, order->queue[(at - 1) / 2]))
	{
		order->queue[at] = order->queue[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	order->queue[at] = path;
}

/* Of n; n - 1 are left. */
static uint32
heap_pop(Ordering *order, uint32 n)
{
	uint32		top = order->queue[0];
	uint32		last = order->queue[n - 1];
	uint64		at = 0;

	for (;;)
	{
		uint64		child = 2 * at + 1;

		if (child >= n - 1)
			break;
		if (child + 1 < n - 1 &&
			is_older(order, order->queue[child + 1], order->queue[child]))
			child++;
		if (!is_older(order, order->queue[child], last))
			break;
		order->queue[at] = order->queue[child];
		at = child;
	}
	order->queue[at] = last;
	return top;
}

/*-------------------------------------------------------------------------
 * Without cycles
 *-------------------------------------------------------------------------
 */

/* False if the visitor has ended it. */
static bool
visit_free(Ordering *order, bool by_age)
{
	uint32		first = 0;		/* of the queue; a heap begins at 0 */
	uint32		n = 0;			/* in it, and before it */

	for (uint32 path = 0; path < dense_count(order->dense); path++)
	{
		if (!is_dead(order, path) || order->counts[path] > 0)
			continue;
		if (by_age)
			heap_push(order, n, path);
		else
			order->queue[n] = path;
		n++;
	}
	for (uint32 done = 0; first < n; done++)
	{
		uint32		path = by_age ? heap_pop(order, n) : order->queue[first];
		uint32		nrefs;
		const uint32 *refs = dense_refs(order->dense, path, &nrefs);

		if (done % CHECK_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		if (by_age)
			n--;
		else
			first++;
		order->counts[path] = COUNT_GONE;
		if (!order->visit(order->arg, &path, 1))
			return false;
		for (uint32 i = 0; i < nrefs; i++)
		{
			if (!is_dead(order, refs[i]) || --order->counts[refs[i]] > 0)
				continue;
			if (by_age)
				heap_push(order, n, refs[i]);
			else
				order->queue[n] = refs[i];
			n++;
		}
	}
	return true;
}

/*-------------------------------------------------------------------------
 * Cycles, and what is behind them
 *-------------------------------------------------------------------------
 */

#define FRAME_LOWER ((uint32) 1 << 31)	/* it reaches something earlier */

/*
 * The way to the path at hand lies at the beginning of the queue, what has no
 * component yet at its end: no path is in both.
 */
typedef struct Walk
{
	Ordering   *order;
	uint32	   *numbers;		/* the counts: 0 is not visited */
	uint32		index;
	uint32		component;
	uint32		depth;			/* of the way */
	uint32		waiting;		/* first of the queue's end */
	uint32	   *frames;			/* next reference of each on the way */
	uint32		frames_max;
} Walk;

static void
enter(Walk *walk, uint32 path)
{
	if (walk->depth == walk->frames_max)
	{
		uint32		max = Max(walk->frames_max * 2, 1024);

		walk->frames = dense_resize(walk->order->dense, walk->frames,
									sizeof(uint32) * walk->frames_max,
									sizeof(uint32) * max);
		walk->frames_max = max;
	}
	walk->order->queue[walk->depth] = path;
	walk->frames[walk->depth++] = 0;
	walk->numbers[path] = walk->index++;
}

/* All of its references have been visited. */
static void
leave(Walk *walk)
{
	uint32		path = walk->order->queue[--walk->depth];
	uint32	   *queue = walk->order->queue;

	if (walk->frames[walk->depth] & FRAME_LOWER)
	{
		queue[--walk->waiting] = path;
		return;
	}
	walk->index--;
	while (walk->waiting < dense_count(walk->order->dense) &&
		   walk->numbers[path] <= walk->numbers[queue[walk->waiting]])
	{
		walk->numbers[queue[walk->waiting++]] = walk->component;
		walk->index--;
	}
	walk->numbers[path] = walk->component--;
}

static void
walk_from(Walk *walk, uint32 start)
{
	uint64		steps = 0;

	enter(walk, start);
	while (walk->depth > 0)
	{
		uint32		path = walk->order->queue[walk->depth - 1];
		uint32	   *frame = &walk->frames[walk->depth - 1];
		uint32		next = *frame & ~FRAME_LOWER;
		uint32		nrefs;
		const uint32 *refs = dense_refs(walk->order->dense, path, &nrefs);

		if (++steps % CHECK_AFTER == 0)
			CHECK_FOR_INTERRUPTS();
		while (next < nrefs && !is_dead(walk->order, refs[next]))
			next++;
		if (next == nrefs)
		{
			leave(walk);
			continue;
		}
		*frame = next | (*frame & FRAME_LOWER);
		if (walk->numbers[refs[next]] == 0)
		{
			/* we come back to it when this one has its number */
			enter(walk, refs[next]);
			continue;
		}
		if (walk->numbers[refs[next]] < walk->numbers[path])
		{
			walk->numbers[path] = walk->numbers[refs[next]];
			*frame |= FRAME_LOWER;
		}
		(*frame)++;
	}
}

static int
compare_numbers(const void *a, const void *b, void *arg)
{
	const uint32 *numbers = arg;
	uint32		one = numbers[*(const uint32 *) a];
	uint32		other = numbers[*(const uint32 *) b];

	return one < other ? -1 : one > other;
}

/* Gives each path that is left the number of its component; how many. */
static uint32
find_components(Ordering *order)
{
	uint32		n = dense_count(order->dense);
	uint32		left = 0;
	Walk		walk = {0};

	for (uint32 path = 0; path < n; path++)
	{
		if (!is_left(order, path))
			continue;
		order->counts[path] = 0;
		left++;
	}
	if (left == 0)
		return 0;
	walk.order = order;
	walk.numbers = order->counts;
	walk.index = 1;
	walk.component = COUNT_GONE - 1;
	walk.waiting = n;
	for (uint32 path = 0; path < n; path++)
	{
		if (is_left(order, path) && walk.numbers[path] == 0)
			walk_from(&walk, path);
	}
	(void) dense_resize(order->dense, walk.frames,
						sizeof(uint32) * walk.frames_max, 0);
	return left;
}

static void
visit_cycles(Ordering *order)
{
	uint32		left = find_components(order);
	uint32	   *queue = order->queue;
	uint32		n = 0;
	uint32		end;

	if (left == 0)
		return;
	for (uint32 path = 0; path < dense_count(order->dense); path++)
	{
		if (is_left(order, path))
			queue[n++] = path;
	}
	qsort_arg(queue, n, sizeof(uint32), compare_numbers, order->counts);
	for (uint32 i = 0; i < n; i = end)
	{
		CHECK_FOR_INTERRUPTS();
		for (end = i + 1; end < n && order->counts[queue[end]] ==
			 order->counts[queue[i]];)
			end++;
		if (!order->visit(order->arg, queue + i, end - i))
			return;
	}
}

void
gc_order_visit(Dense *dense, const uint8 *marks, uint8 alive, uint32 *queue,
			   bool by_age, GcOrderVisitor visit, void *arg)
{
	Ordering	order = {0};

	order.dense = dense;
	order.marks = marks;
	order.alive = alive;
	order.queue = queue;
	order.visit = visit;
	order.arg = arg;
	order.counts = dense_array(dense, sizeof(uint32));
	count_referrers(&order);
	if (visit_free(&order, by_age))
		visit_cycles(&order);
	dense_array_free(dense, order.counts, sizeof(uint32));
}
