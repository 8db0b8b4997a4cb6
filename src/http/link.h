/*-------------------------------------------------------------------------
 *
 * link.h
 *	  Circular lists of links that are parts of what is listed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_LINK_H
#define NARINFO_HTTP_LINK_H

#include <stdbool.h>

/* A link of a circular list; a link that is in none points at itself. */
typedef struct HttpLink
{
	struct HttpLink *prev;
	struct HttpLink *next;
} HttpLink;

static inline void
link_init(HttpLink *link)
{
	link->prev = link->next = link;
}

static inline bool
link_alone(const HttpLink *link)
{
	return link->next == link;
}

static inline void
link_remove(HttpLink *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link_init(link);
}

static inline void
link_append(HttpLink *list, HttpLink *link)
{
	link->prev = list->prev;
	link->next = list;
	list->prev->next = link;
	list->prev = link;
}

/* Puts the links of one list before those of another; the first is gone. */
static inline void
link_prepend_all(HttpLink *list, HttpLink *first)
{
	if (link_alone(first))
		return;
	first->prev->next = list->next;
	list->next->prev = first->prev;
	first->next->prev = list;
	list->next = first->next;
}

/* Empties "list" into "to", an uninitialised one. */
static inline void
link_take(HttpLink *list, HttpLink *to)
{
	link_init(to);
	if (link_alone(list))
		return;
	*to = *list;
	to->next->prev = to;
	to->prev->next = to;
	link_init(list);
}

#endif							/* NARINFO_HTTP_LINK_H */
