/*-------------------------------------------------------------------------
 *
 * sites_files.c
 *	  A mirror has the files of what is published, where a cache wants that
 *	  (copies_include_files); part of the worker of sites.
 *
 *	  the events behind site_cache.files, or, when they are not kept or nothing
 *	  is known, all valid paths
 *		|	read on, as long as there are less than WANTS_MAX wants
 *		v
 *	  is the file of the path here?  if it is young, it is fsynced ----> passed
 *		| no
 *		v
 *	  a want ---- its path is not valid any more, or it has come ------> passed
 *		|	^
 *		|	+-- it fails: again, after pauses that double
 *		v
 *	  claimed, fetched, stored (serve/bring.h)
 *
 * What lies before the first want has been passed, and that is the number of
 * the cache: written down, and told at once.  All else is only in memory, and
 * found again when the worker starts anew.  A number is of the history that
 * this site has followed since node.since; with another one all begins anew.
 *
 * No transaction is open while something is fetched.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>
#include <unistd.h>

#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "fetch/fetch.h"
#include "nar/named.h"
#include "nar/root.h"
#include "nar/temp.h"
#include "serve/bring.h"
#include "serve/jobs.h"
#include "serve/serve.h"
#include "sites/copies.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "worker/worker.h"

#define WANTS_MAX	256			/* of a cache */
#define READ_ROWS	200			/* in a query, */
#define READ_MAX	1000		/* and in a turn */

#define IDLE_PAUSE	1000		/* ms between looks while no cache wants it, */
#define LOOK_PAUSE	200			/* while one does, */
#define BUSY_PAUSE	5			/* and when events come all the time */

#define WANT_PAUSE	1000		/* ms between looks for a wanted file */
#define TRY_MIN		1000		/* ms between tries to fetch it: first, */
#define TRY_MAX		60000		/* and at most */

#define YOUNG		60			/* s: it may not be on disk yet */

#define UNKNOWN		(-1)		/* number of a cache: NULL */

#define SINCE_MAX	64

/* A file that is not here. */
typedef struct Want
{
	dlist_node	node;
	int64		seq;			/* of the event; 0: found among valid paths */
	char	   *hash;			/* of the path, as text */
	NamedFile	file;			/* its texts are copies */
	bool		running;		/* "claim" is valid */
	ClaimRef	claim;
	bool		kept;			/* what was fetched is on disk */
	bool		failed;
	int			pause;			/* ms */
	TimestampTz next_look;
	TimestampTz next_try;
} Want;

/* A cache that wants it. */
typedef struct Follow
{
	dlist_node	node;
	MemoryContext context;		/* has all of it */
	char		cache[CACHE_NAME_MAX + 1];
	bool		known;			/* what site_cache has was read */
	int64		last;			/* event of the cache, as seen last */
	int64		noted;			/* what site_cache has */
	char	   *noted_problem;	/* or NULL */
	int64		reached;		/* events up to this one were read */
	bool		scanning;		/* valid paths are read, */
	int64		scan_to;		/* which are those of this event, */
	char		scanned[STORE_HASH_TEXT_LEN + 1];	/* up to it, if any */
	dlist_head	wants;
	int			nwants;
} Follow;

static dlist_head follows = DLIST_STATIC_INIT(follows);
static char since[SINCE_MAX] = "";
static TimestampTz next_look = 0;
static int	nrunning = 0;		/* wants of all caches */
static bool changed = false;	/* a number was written */

/*-------------------------------------------------------------------------
 * Wants
 *-------------------------------------------------------------------------
 */

/* Only what is young may not be on disk: whoever puts a file fsyncs it. */
static void
make_durable(const char *cache, const char *path, int fd)
{
	int			directory = nar_open_cache(cache);

	if (directory < 0)
		return;
	PG_TRY();
	{
		if (pg_fsync(fd) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not fsync \"%s\": %m", path)));
		temp_sync_directories(directory, path);
	}
	PG_FINALLY();
	{
		close(directory);
	}
	PG_END_TRY();
}

/* Whole, as far as its size tells, and on disk, unless that is known. */
static bool
is_here(const char *cache, const NamedFile *file, bool is_durable)
{
	struct stat st;
	int			fd = nar_open_path(cache, file->path, &st);
	bool		right;

	if (fd < 0)
		return false;
	right = !file->has_size || (uint64) st.st_size == file->size;
	PG_TRY();
	{
		if (right && !is_durable && st.st_ctime > time(NULL) - YOUNG)
			make_durable(cache, file->path, fd);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
	return right;
}

static void
copy_file(Follow *follow, NamedFile *to, const NamedFile *from)
{
	*to = *from;
	to->path = MemoryContextStrdup(follow->context, from->path);
	to->url = MemoryContextStrdup(follow->context, from->url);
}

static void
add_want(Follow *follow, int64 seq, const char *hash, const NamedFile *file)
{
	Want	   *want = MemoryContextAllocZero(follow->context, sizeof(Want));

	want->seq = seq;
	want->hash = MemoryContextStrdup(follow->context, hash);
	copy_file(follow, &want->file, file);
	want->pause = TRY_MIN;
	dlist_push_tail(&follow->wants, &want->node);
	follow->nwants++;
}

static void
stop_running(Want *want)
{
	nrunning -= want->running ? 1 : 0;
	want->running = false;
}

static void
drop_want(Follow *follow, Want *want)
{
	stop_running(want);
	dlist_delete(&want->node);
	follow->nwants--;
	pfree(want->hash);
	pfree(want->file.path);
	pfree(want->file.url);
	pfree(want);
}

/*-------------------------------------------------------------------------
 * Caches
 *-------------------------------------------------------------------------
 */

static void
begin_anew(Follow *follow, int64 noted)
{
	while (!dlist_is_empty(&follow->wants))
		drop_want(follow, dlist_head_element(Want, node, &follow->wants));
	follow->noted = noted;
	follow->reached = noted;
	follow->scanning = false;
}

static void
drop_follow(Follow *follow)
{
	begin_anew(follow, UNKNOWN);
	dlist_delete(&follow->node);
	MemoryContextDelete(follow->context);
}

static void
drop_all(void)
{
	while (!dlist_is_empty(&follows))
		drop_follow(dlist_head_element(Follow, node, &follows));
}

static Follow *
find_follow(const char *cache)
{
	MemoryContext context;
	dlist_iter	iter;
	Follow	   *follow;

	dlist_foreach(iter, &follows)
	{
		follow = dlist_container(Follow, node, iter.cur);
		if (strcmp(follow->cache, cache) == 0)
			return follow;
	}
	context = AllocSetContextCreate(TopMemoryContext, "narinfo files of site",
									ALLOCSET_DEFAULT_SIZES);
	follow = MemoryContextAllocZero(context, sizeof(Follow));
	follow->context = context;
	strlcpy(follow->cache, cache, sizeof(follow->cache));
	dlist_init(&follow->wants);
	dlist_push_tail(&follows, &follow->node);
	return follow;
}

static void
note_problem(Follow *follow, const char *problem)
{
	if (follow->noted_problem)
		pfree(follow->noted_problem);
	follow->noted_problem = problem ?
		MemoryContextStrdup(follow->context, problem) : NULL;
}

/* A row of site_file_caches(); whatever it has is what others are told. */
static void
take_row(uint64 row)
{
	Follow	   *follow = find_follow(local_value(row, 0));
	char	   *files = local_value(row, 1);
	int64		noted = files ? pg_strtoint64(files) : UNKNOWN;

	if (!follow->known || noted != follow->noted)
		begin_anew(follow, noted);
	note_problem(follow, local_value(row, 2));
	follow->last = pg_strtoint64(local_value(row, 3));
	follow->known = true;
}

static void
list_caches(void)
{
	dlist_mutable_iter iter;
	uint64		n = local_sql("SELECT f.cache, f.files, f.problem, f.last, "
							  "f.since FROM narinfo.site_file_caches() AS f",
							  0, NULL);

	if (n > 0 && strcmp(local_value(0, 4), since) != 0)
	{
		drop_all();
		strlcpy(since, local_value(0, 4), sizeof(since));
	}
	dlist_foreach_modify(iter, &follows)
	{
		Follow	   *follow = dlist_container(Follow, node, iter.cur);
		bool		found = false;

		for (uint64 i = 0; i < n && !found; i++)
			found = strcmp(local_value(i, 0), follow->cache) == 0;
		if (!found)
			drop_follow(follow);
	}
	for (uint64 i = 0; i < n; i++)
		take_row(i);
}

/*-------------------------------------------------------------------------
 * Reading on
 *-------------------------------------------------------------------------
 */

/* Of the row of the last query: its narinfo, and the hash beside it. */
static void
want_files(Follow *follow, int64 seq, uint64 row, int hash, int info)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, info + 1,
									  &isnull);
	ListCell   *cell;

	if (isnull)
		return;
	foreach(cell, named_files(PG_DETOAST_DATUM_PACKED(datum)))
	{
		NamedFile  *file = lfirst(cell);

		if (!is_here(follow->cache, file, false))
			add_want(follow, seq, local_value(row, hash), file);
	}
}

/* Events are not kept any more, or nothing is known. */
static void
begin_scan(Follow *follow)
{
	follow->scanning = true;
	follow->scan_to = follow->last;
	follow->scanned[0] = '\0';
}

static uint64
read_events(Follow *follow)
{
	const char *params[] = {
		follow->cache, psprintf(INT64_FORMAT, follow->reached),
		psprintf("%d", READ_ROWS)
	};
	uint64		n = local_sql("SELECT e.seq, e.hash, v.info "
							  "FROM narinfo.event AS e "
							  "LEFT JOIN narinfo.valid_path AS v "
							  "ON v.cache = e.cache "
							  "AND v.hash OPERATOR(narinfo.=) e.hash "
							  "AND e.kind IN ('publish', 'replace') "
							  "WHERE e.cache = $1 AND e.seq > $2::bigint "
							  "ORDER BY e.seq LIMIT $3::int", 3, params);

	for (uint64 i = 0; i < n; i++)
	{
		int64		seq = pg_strtoint64(local_value(i, 0));

		CHECK_FOR_INTERRUPTS();
		if (seq != follow->reached + 1)
		{
			begin_scan(follow);
			break;
		}
		want_files(follow, seq, i, 1, 2);
		follow->reached = seq;
	}
	return n;
}

static uint64
read_paths(Follow *follow)
{
	const char *params[] = {
		follow->cache, follow->scanned[0] != '\0' ? follow->scanned : NULL,
		psprintf("%d", READ_ROWS)
	};
	uint64		n = local_sql("SELECT v.hash, v.info "
							  "FROM narinfo.valid_path AS v "
							  "WHERE v.cache = $1 AND ($2 IS NULL "
							  "OR v.hash OPERATOR(narinfo.>) "
							  "$2::narinfo.store_hash) "
							  "ORDER BY v.hash LIMIT $3::int", 3, params);

	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		want_files(follow, 0, i, 0, 1);
		strlcpy(follow->scanned, local_value(i, 0), sizeof(follow->scanned));
	}
	if (n < READ_ROWS)
	{
		follow->scanning = false;
		follow->reached = follow->scan_to;
	}
	return n;
}

static bool
has_more(const Follow *follow)
{
	return follow->nwants < WANTS_MAX &&
		(follow->scanning || follow->reached < follow->last);
}

static void
read_on(Follow *follow)
{
	uint64		n = 0;

	if (follow->reached == UNKNOWN && !follow->scanning)
		begin_scan(follow);
	while (has_more(follow) && n < READ_MAX)
		n += follow->scanning ? read_paths(follow) : read_events(follow);
}

/*-------------------------------------------------------------------------
 * Fetching
 *-------------------------------------------------------------------------
 */

/* Who may have files of a cache: as is said, then the other sites. */
static List *
find_sources(const char *cache)
{
	List	   *sources = NIL;
	CacheInfo	info;
	uint64		n;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (cache_get(cache, &info))
		sources = fetch_sources(&info);
	else
		info.name[0] = '\0';
	PopActiveSnapshot();
	n = local_sql("SELECT f.url FROM narinfo.site_file_sources() AS f", 0,
				  NULL);
	for (uint64 i = 0; i < n && info.name[0] != '\0'; i++)
		sources = fetch_add_site(sources, local_value(i, 0), &info);
	return sources;
}

/* Looks at its path again; false when that does not name the file any more. */
static bool
is_still_wanted(Follow *follow, Want *want)
{
	const char *params[] = {follow->cache, want->hash};
	ListCell   *cell;
	bool		isnull;
	Datum		datum;

	if (local_sql("SELECT v.info FROM narinfo.valid_path AS v "
				  "WHERE v.cache = $1 AND v.hash OPERATOR(narinfo.=) "
				  "$2::narinfo.store_hash", 2, params) == 0)
		return false;
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	foreach(cell, named_files(PG_DETOAST_DATUM_PACKED(datum)))
	{
		NamedFile  *file = lfirst(cell);

		if (strcmp(file->path, want->file.path) != 0)
			continue;
		pfree(want->file.path);
		pfree(want->file.url);
		copy_file(follow, &want->file, file);
		return true;
	}
	return false;
}

/* False when it is not fetched now. */
static bool
claim(Follow *follow, Want *want, List *sources)
{
	switch (claim_take(follow->cache, want->file.path, fetch_max,
					   &want->claim))
	{
		case CLAIM_MINE:
			if (!bring_begin(follow->cache, want->file.path, &want->file,
							 sources, &want->claim))
				return false;
			/* FALLTHROUGH */
		case CLAIM_SHARED:
			want->running = true;
			nrunning++;
			return true;
		case CLAIM_FAILED_LATELY:
		case CLAIM_FULL:
			break;
	}
	return false;
}

static void
try_want(Follow *follow, Want *want, List **sources)
{
	if (!is_still_wanted(follow, want))
	{
		drop_want(follow, want);
		return;
	}
	/* whatever happens, it is not tried again and again */
	want->next_try = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 want->pause);
	want->pause = Min(want->pause * 2, TRY_MAX);
	if (*sources == NIL)
		*sources = find_sources(follow->cache);
	if (*sources == NIL || bring_trouble(&want->file) != NULL ||
		!bring_is_plain_url(want->file.url) ||
		!claim(follow, want, *sources))
		want->failed = true;
}

/* True when it is at its end, well or not. */
static bool
has_ended(Want *want)
{
	ClaimLook	look;

	if (!want->running)
		return false;
	if (!claim_look(&want->claim, &look))
		return true;
	want->kept = look.state == CLAIM_KEPT;
	return look.state == CLAIM_FREE || look.state >= CLAIM_KEPT;
}

static void
look_at_want(Follow *follow, Want *want, List **sources)
{
	TimestampTz now = GetCurrentTimestamp();

	if (has_ended(want))
	{
		stop_running(want);
		want->failed = true;
		want->next_look = now;
	}
	if (want->running)
		return;
	if (now >= want->next_look)
	{
		want->next_look = TimestampTzPlusMilliseconds(now, WANT_PAUSE);
		if (is_here(follow->cache, &want->file, want->kept))
		{
			drop_want(follow, want);
			return;
		}
	}
	/* clients who wait for a file may fetch, too */
	if (now >= want->next_try && nrunning < Max(fetch_max / 2, 1) &&
		claim_running() < fetch_max)
		try_want(follow, want, sources);
}

/*-------------------------------------------------------------------------
 * The number
 *-------------------------------------------------------------------------
 */

static int64
number_of(const Follow *follow)
{
	int64		number = follow->reached;
	dlist_iter	iter;

	if (follow->scanning)
		return follow->noted;
	dlist_foreach(iter, &((Follow *) follow)->wants)
	{
		const Want *want = dlist_container(Want, node, iter.cur);

		if (want->seq == 0)
			return follow->noted;
		number = Min(number, want->seq - 1);
	}
	return Max(number, follow->noted);
}

static char *
problem_of(const Follow *follow, int64 number)
{
	dlist_iter	iter;

	dlist_foreach(iter, &((Follow *) follow)->wants)
	{
		const Want *want = dlist_container(Want, node, iter.cur);

		if (want->failed)
			return psprintf("it lacks %s of path %s, and could not get it",
							want->file.path, want->hash);
	}
	return number == UNKNOWN ? "it is looking for its files" : NULL;
}

static void
note(Follow *follow, int64 number, const char *problem)
{
	const char *params[] = {
		follow->cache,
		number != UNKNOWN ? psprintf(INT64_FORMAT, number) : NULL,
		problem, since
	};

	if (number == follow->noted &&
		(problem == NULL) == (follow->noted_problem == NULL) &&
		(problem == NULL || strcmp(problem, follow->noted_problem) == 0))
		return;
	if (!local_is("SELECT narinfo.site_note_files($1, $2::bigint, $3, "
				  "$4::timestamptz)", 4, params))
		return;					/* the next look tells why */
	follow->noted = number;
	note_problem(follow, problem);
	changed = true;
}

/* What keeps this server from having files; NULL: nothing. */
static const char *
find_trouble(void)
{
	if (nar_root() < 0)
		return "it has no directory pg_narinfo.file_root";
	return job_room() == JOB_NEVER ? "it has no writer workers" : NULL;
}

static void
look_at_cache(Follow *follow)
{
	const char *trouble = find_trouble();
	dlist_mutable_iter iter;
	List	   *sources = NIL;

	if (trouble != NULL)
	{
		begin_anew(follow, follow->noted);
		follow->reached = UNKNOWN;
		note(follow, UNKNOWN, trouble);
		return;
	}
	read_on(follow);
	dlist_foreach_modify(iter, &follow->wants)
	{
		CHECK_FOR_INTERRUPTS();
		look_at_want(follow, dlist_container(Want, node, iter.cur),
					 &sources);
	}
	note(follow, number_of(follow), problem_of(follow, number_of(follow)));
}

/*-------------------------------------------------------------------------
 * The turn
 *-------------------------------------------------------------------------
 */

/* Each cache in a transaction of its own; the number commits with it. */
static void
look(void)
{
	dlist_iter	iter;

	if (!local_begin())
	{
		drop_all();
		return;
	}
	list_caches();
	copies_follow(!dlist_is_empty(&follows));
	dlist_foreach(iter, &follows)
	{
		local_commit();
		look_at_cache(dlist_container(Follow, node, iter.cur));
	}
	local_end();
	if (changed)
		sites_tell();
	changed = false;
}

/* Is there something that the last look has not seen to? */
static bool
is_due(void)
{
	dlist_iter	iter;
	dlist_iter	each;

	if (copies_applied())
		return true;
	dlist_foreach(iter, &follows)
	{
		Follow	   *follow = dlist_container(Follow, node, iter.cur);

		if (has_more(follow))
			return true;
		dlist_foreach(each, &follow->wants)
		{
			if (has_ended(dlist_container(Want, node, each.cur)))
				return true;
		}
	}
	return false;
}

long
sites_files_turn(bool *looked)
{
	static TimestampTz not_before = 0;
	static bool due = false;
	TimestampTz now;
	long		left;
	long		fetch;

	*looked = false;
	fetch_poll();
	(void) serve_errands(true);
	now = GetCurrentTimestamp();
	due |= is_due();
	if (now >= next_look || (due && now >= not_before))
	{
		due = false;
		/* if it fails */
		next_look = TimestampTzPlusMilliseconds(now, IDLE_PAUSE);
		not_before = next_look;
		look();
		*looked = true;
		not_before = TimestampTzPlusMilliseconds(now, BUSY_PAUSE);
		if (!dlist_is_empty(&follows))
			next_look = TimestampTzPlusMilliseconds(now, LOOK_PAUSE);
		due = is_due();
	}
	left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   due ? not_before : next_look);
	fetch = fetch_timeout();
	return fetch >= 0 ? Min(left, fetch) : left;
}
