/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Which source has a file?  Each is asked by HEAD, one after the other.
 *
 * A client is sent only to where the file is: a site that would send it on,
 * or back, does not answer 200 to us.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "fetch/fetch.h"
#include "fetch/exchange.h"

typedef struct Probe
{
	MemoryContext context;		/* has all of it */
	int			nsources;
	int			next;			/* of these that is to be asked */
	FetchSource *sources;
	char	   *url;
	char	   *asked;			/* the URL that is being asked for */
	bool		has_size;
	uint64		size;
	ProbeDone	done;
	void	   *arg;
} Probe;

static bool ask_next(Probe *probe);

static void
finish(Probe *probe, const char *found, uint64 size)
{
	probe->done(probe->arg, found, size);
	MemoryContextDelete(probe->context);
}

/* ---- called with curl on the stack ---- */

static const char *
take_head(void *arg, const ExchangeHead *head)
{
	Probe	   *probe = arg;

	if (head->length < 0)
		return "it does not say its size";
	if (probe->has_size && (uint64) head->length != probe->size)
		return "it has another size";
	return NULL;
}

static const char *
take_body(void *arg, Span piece)
{
	(void) arg;
	return piece.len > 0 ? "a body came to a HEAD" : NULL;
}

/* ---- and without ---- */

static void
answered(void *arg, const ExchangeEnd *end)
{
	Probe	   *probe = arg;

	if (end->status == 0)
		fetch_note_down(&probe->sources[probe->next - 1]);
	if (end->whole && end->status == 200)
		finish(probe, probe->asked, (uint64) end->length);
	else if (!ask_next(probe))
		finish(probe, NULL, 0);
}

/* False when there is none left. */
static bool
ask_next(Probe *probe)
{
	while (probe->next < probe->nsources)
	{
		const FetchSource *source = &probe->sources[probe->next++];
		MemoryContext old = MemoryContextSwitchTo(probe->context);
		ExchangeWish wish = {
			.token = source->token, .head_only = true, .arg = probe,
			.head = take_head, .body = take_body, .end = answered
		};

		probe->asked = psprintf("%s/%s", source->base, probe->url);
		MemoryContextSwitchTo(old);
		wish.url = probe->asked;
		if (exchange_begin(&wish) != NULL)
			return true;
	}
	return false;
}

bool
probe_begin(List *sources, const char *url, bool has_size, uint64 size,
			ProbeDone done, void *arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_narinfo probe",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Probe	   *probe = palloc0(sizeof(Probe));

	probe->context = context;
	probe->sources = fetch_copy_sources(sources, &probe->nsources);
	probe->url = pstrdup(url);
	probe->has_size = has_size;
	probe->size = size;
	probe->done = done;
	probe->arg = arg;
	MemoryContextSwitchTo(old);
	if (ask_next(probe))
		return true;
	MemoryContextDelete(context);
	return false;
}
