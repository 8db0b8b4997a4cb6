/*-------------------------------------------------------------------------
 *
 * fetch.c
 *	  One file, from one source after another.
 *
 *	  fetch_begin		a temporary file
 *		|
 *		v
 *	  ask_next <------------------------------+		the next source, for what
 *		|									  |		is still missing
 *		+-- it fails, stalls or dies ---------+
 *		|									  |
 *		v									  |		from the beginning: a new
 *	  whole --- another hash -----------------+		round
 *		|
 *		v
 *	  CLAIM_GOOD ---> FetchGood ---> fetch_kept
 *
 * The hash is computed as the bytes come in.  When it turns out wrong with
 * bytes of one source, that one is left out; with bytes of several, nobody
 * knows whose they are, and each is asked for all of it from then on.
 *
 * Guix's narinfos have no FileHash: their NAR is looked into when it is to be
 * stored, and until then it is still coming.
 *
 * Sources are gone through PASSES_MAX times, each further time only if the
 * last one has brought something.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <gcrypt.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/guix_signature.h"
#include "fetch/fetch.h"
#include "fetch/exchange.h"
#include "http/sink.h"

#define PASSES_MAX		3

/* Others are not woken more often for what has come, in ms. */
#define TELL_PAUSE		20

typedef struct Fetch
{
	dlist_node	node;
	MemoryContext context;		/* has all of it */
	FetchFile	file;			/* its texts are copies */
	ClaimRef	claim;
	ClaimLook	look;			/* as we have told it last */
	FetchGood	good;
	FetchSource *sources;
	bool	   *bad;			/* of each: it has sent something wrong */
	int			nsources;
	int			current;		/* whose exchange runs */
	int			next;
	int			pass;
	uint64		pass_began;		/* with so many bytes */
	bool		alone;			/* each source is asked for all of it */
	int			sender;			/* whose bytes these are; -1: none yet */
	bool		mixed;			/* of several */
	Exchange   *exchange;
	uint64		skip;			/* of a reply that begins at 0: bytes that are
								 * here already */
	HttpSink	sink;			/* sink.length: what is here */
	gcry_md_hd_t hash;
	int			write_error;	/* errno */
	TimestampTz told;
	char		error[EXCHANGE_ERROR_MAX + 200];
} Fetch;

static dlist_head fetches = DLIST_STATIC_INIT(fetches);

static void ask_next(Fetch *fetch);

/* ---- telling ---- */

static void
tell(Fetch *fetch, ClaimState state, bool wake)
{
	fetch->look.state = state;
	fetch->look.there = fetch->sink.length;
	claim_set(&fetch->claim, &fetch->look, wake);
}

void
fetch_tell(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	dlist_foreach(iter, &fetches)
	{
		Fetch	   *fetch = dlist_container(Fetch, node, iter.cur);
		bool		due = TimestampDifferenceExceeds(fetch->told, now,
													 TELL_PAUSE);

		if (fetch->sink.length == fetch->look.there)
			continue;
		tell(fetch, CLAIM_COMING, due);
		if (due)
			fetch->told = now;
	}
}

/* ---- the end ---- */

static void
free_fetch(Fetch *fetch)
{
	if (fetch->exchange != NULL)
		exchange_cancel(fetch->exchange);
	if (fetch->hash != NULL)
		gcry_md_close(fetch->hash);
	if (fetch->sink.fd >= 0)
		close(fetch->sink.fd);
	dlist_delete(&fetch->node);
	MemoryContextDelete(fetch->context);
}

static void
fail(Fetch *fetch)
{
	ereport(LOG,
			(errmsg("pg_narinfo could not fetch \"%s\" of cache \"%s\"",
					fetch->file.path, fetch->file.cache),
			 errdetail("%s", fetch->error)));
	fetch_count(FETCH_FAILED, 1);
	tell(fetch, CLAIM_FAILED, true);
	store_discard(fetch->file.cache, &fetch->look.temp);
	free_fetch(fetch);
}

static void
finish(Fetch *fetch)
{
	fetch->look.has_size = true;
	fetch->look.size = fetch->sink.length;
	tell(fetch, fetch->file.has_hash ? CLAIM_GOOD : CLAIM_COMING, true);
	fetch->good(&fetch->file, &fetch->look.temp, &fetch->claim);
	free_fetch(fetch);
}

void
fetch_kept(const ClaimRef *claim, bool kept)
{
	ClaimLook	look;

	if (!claim_look(claim, &look))
		return;
	if (kept)
		look.state = CLAIM_KEPT;
	else
		look.state = look.state == CLAIM_GOOD ? CLAIM_UNKEPT : CLAIM_FAILED;
	if (look.state != CLAIM_UNKEPT)
		fetch_count(kept ? FETCH_KEPT : FETCH_FAILED, 1);
	claim_set(claim, &look, true);
}

void
fetch_leave(void)
{
	while (!dlist_is_empty(&fetches))
	{
		Fetch	   *fetch = dlist_head_element(Fetch, node, &fetches);

		store_discard(fetch->file.cache, &fetch->look.temp);
		free_fetch(fetch);
	}
	claim_leave();
}

/* ---- hashes ---- */

static int
gcrypt_algorithm(HashAlgo algo)
{
	switch (algo)
	{
		case HASH_MD5:
			return GCRY_MD_MD5;
		case HASH_SHA1:
			return GCRY_MD_SHA1;
		case HASH_SHA256:
			return GCRY_MD_SHA256;
		case HASH_SHA512:
			return GCRY_MD_SHA512;
	}
	return GCRY_MD_NONE;
}

static bool
has_right_hash(Fetch *fetch)
{
	HashAlgo	algo = fetch->file.hash.algo;
	const unsigned char *digest;

	if (fetch->hash == NULL)
		return true;			/* as far as we can tell */
	digest = gcry_md_read(fetch->hash, gcrypt_algorithm(algo));
	return digest != NULL &&
		memcmp(digest, fetch->file.hash.bytes, hash_algo_bytes(algo)) == 0;
}

/* ---- what comes; with curl on the stack ---- */

static const char *
take_size(Fetch *fetch, uint64 size)
{
	if (fetch->look.has_size)
		return size == fetch->look.size ? NULL : "it has another size";
	if (size > fetch->file.max_size)
		return "it is larger than pg_narinfo.max_upload_size";
	if (!store_has_space(fetch->sink.fd, size))
	{
		fetch->write_error = ENOSPC;
		return "no space is left for it";
	}
	fetch->look.has_size = true;
	fetch->look.size = size;
	return NULL;
}

static const char *
take_head(void *arg, const ExchangeHead *head)
{
	Fetch	   *fetch = arg;
	uint64		here = fetch->sink.length;

	fetch->skip = 0;
	if (head->status == 206)
	{
		if (here == 0 || head->from < 0 || (uint64) head->from != here)
			return "it sent another part than was asked for";
		return head->length < 0 ? NULL :
			take_size(fetch, here + (uint64) head->length);
	}
	fetch->skip = here;
	return head->length < 0 ? NULL : take_size(fetch, (uint64) head->length);
}

static void
note_sender(Fetch *fetch)
{
	if (fetch->sender >= 0 && fetch->sender != fetch->current)
		fetch->mixed = true;
	fetch->sender = fetch->current;
}

static const char *
take_body(void *arg, Span piece)
{
	Fetch	   *fetch = arg;
	uint64		skip = Min(fetch->skip, piece.len);
	uint64		max = fetch->look.has_size ? fetch->look.size :
	fetch->file.max_size;

	fetch_count(FETCH_BYTES, piece.len);
	fetch->skip -= skip;
	piece = span_skip(piece, skip);
	if (piece.len == 0)
		return NULL;
	if (piece.len > max - fetch->sink.length)
		return "it is longer than it should be";
	if (!fetch->look.has_size &&
		!store_has_space(fetch->sink.fd, piece.len))
	{
		fetch->write_error = ENOSPC;
		return "no space is left for it";
	}
	note_sender(fetch);
	if (fetch->hash != NULL)
		gcry_md_write(fetch->hash, piece.data, piece.len);
	if (http_sink_write(&fetch->sink, piece))
		return NULL;
	fetch->write_error = errno;
	return "the temporary file could not be written";
}

/* ---- one source after another ---- */

static void
note_error(Fetch *fetch, const char *error)
{
	snprintf(fetch->error, sizeof(fetch->error), "%.190s: %s",
			 fetch->sources[fetch->current].base, error);
}

/* Throws away what has come; false when even that cannot be done. */
static bool
begin_round(Fetch *fetch)
{
	fetch->look.round++;
	fetch->look.has_size = fetch->file.has_size;
	fetch->look.size = fetch->file.size;
	fetch->sink.length = 0;
	tell(fetch, CLAIM_ASKING, true);
	fetch->sender = -1;
	fetch->mixed = false;
	if (fetch->hash != NULL)
		gcry_md_reset(fetch->hash);
	return ftruncate(fetch->sink.fd, 0) == 0 &&
		lseek(fetch->sink.fd, 0, SEEK_SET) == 0;
}

/* The whole file is here, and is another one. */
static void
wrong(Fetch *fetch)
{
	const char *whose = fetch->mixed ? "several sources" :
	fetch->sources[fetch->current].base;

	fetch_count(FETCH_WRONG, 1);
	ereport(LOG,
			(errmsg("pg_narinfo fetched a file with another hash"),
			 errdetail("\"%s\" of cache \"%s\" came from %s.",
					   fetch->file.path, fetch->file.cache, whose)));
	note_error(fetch, "it has another hash");
	if (!fetch->mixed)
		fetch->bad[fetch->current] = true;
	fetch->alone |= fetch->mixed;
	fetch->next = 0;
	fetch->pass = 0;
	fetch->pass_began = 0;
	if (begin_round(fetch))
		ask_next(fetch);
	else
		fail(fetch);
}

static bool
is_whole(const Fetch *fetch)
{
	return fetch->look.has_size ? fetch->sink.length == fetch->look.size :
		fetch->sink.length > 0;
}

static void
ended(void *arg, const ExchangeEnd *end)
{
	Fetch	   *fetch = arg;

	fetch->exchange = NULL;
	if (end->whole && is_whole(fetch))
	{
		if (has_right_hash(fetch))
			finish(fetch);
		else
			wrong(fetch);
		return;
	}
	note_error(fetch, end->whole ? "it is too short" : end->error);
	if (end->status == 0)
		fetch_note_down(&fetch->sources[fetch->current]);
	if (fetch->write_error != 0)
	{
		errno = fetch->write_error;
		snprintf(fetch->error, sizeof(fetch->error), "%s: %s",
				 fetch->look.temp.name, strerror(errno));
		fail(fetch);
		return;
	}
	ereport(DEBUG1,
			(errmsg_internal("pg_narinfo leaves a source: %s",
							 fetch->error)));
	if (fetch->alone && fetch->sink.length > 0 && !begin_round(fetch))
		fail(fetch);
	else
		ask_next(fetch);
}

static bool
ask(Fetch *fetch, int number)
{
	const FetchSource *source = &fetch->sources[number];
	MemoryContext old = MemoryContextSwitchTo(fetch->context);
	char	   *url = psprintf("%s/%s", source->base, fetch->file.url);
	ExchangeWish wish = {
		.url = url, .token = source->token, .from = fetch->sink.length,
		.arg = fetch, .head = take_head, .body = take_body, .end = ended
	};

	MemoryContextSwitchTo(old);
	fetch->current = number;
	fetch->exchange = exchange_begin(&wish);
	pfree(url);
	return fetch->exchange != NULL;
}

/* Is it worth going through them once more? */
static bool
begin_pass(Fetch *fetch)
{
	if (fetch->alone || fetch->sink.length <= fetch->pass_began ||
		++fetch->pass >= PASSES_MAX)
		return false;
	fetch->pass_began = fetch->sink.length;
	fetch->next = 0;
	return true;
}

static void
ask_next(Fetch *fetch)
{
	do
	{
		while (fetch->next < fetch->nsources)
		{
			int			number = fetch->next++;

			if (!fetch->bad[number] && ask(fetch, number))
				return;
		}
	} while (begin_pass(fetch));
	fail(fetch);
}

/* ---- beginning ---- */

static Fetch *
make_fetch(const FetchFile *file, List *sources, const ClaimRef *claim,
		   FetchGood good)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_narinfo fetch",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->context = context;
	fetch->file = *file;
	fetch->file.cache = pstrdup(file->cache);
	fetch->file.path = pstrdup(file->path);
	fetch->file.url = pstrdup(file->url);
	fetch->claim = *claim;
	fetch->good = good;
	fetch->sources = fetch_copy_sources(sources, &fetch->nsources);
	fetch->bad = palloc0(sizeof(bool) * Max(fetch->nsources, 1));
	fetch->sender = -1;
	fetch->sink.fd = -1;
	fetch->look.state = CLAIM_ASKING;
	fetch->look.has_size = file->has_size;
	fetch->look.size = file->size;
	MemoryContextSwitchTo(old);
	dlist_push_tail(&fetches, &fetch->node);
	return fetch;
}

static bool
open_file(Fetch *fetch)
{
	const FetchFile *file = &fetch->file;

	fetch->sink.fd = store_create(file->cache, file->path, &fetch->look.temp);
	if (fetch->sink.fd >= 0 &&
		store_has_space(fetch->sink.fd, file->has_size ? file->size : 0))
		return true;
	strlcpy(fetch->error, "No space is left for it.", sizeof(fetch->error));
	return false;
}

static bool
open_hash(Fetch *fetch)
{
	if (!fetch->file.has_hash)
		return true;
	if (guix_signature_init() &&
		gcry_md_open(&fetch->hash,
					 gcrypt_algorithm(fetch->file.hash.algo), 0) == 0)
		return true;
	strlcpy(fetch->error, "Its hash cannot be computed here.",
			sizeof(fetch->error));
	return false;
}

bool
fetch_begin(const FetchFile *file, List *sources, const ClaimRef *claim,
			FetchGood good)
{
	Fetch	   *fetch = make_fetch(file, sources, claim, good);
	volatile bool opened = false;

	fetch_count(FETCH_BEGUN, 1);
	PG_TRY();
	{
		opened = open_file(fetch) && open_hash(fetch);
	}
	PG_CATCH();
	{
		strlcpy(fetch->error, "The temporary file could not be made.",
				sizeof(fetch->error));
		fail(fetch);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!opened)
	{
		fail(fetch);
		return false;
	}
	tell(fetch, CLAIM_ASKING, true);
	ask_next(fetch);
	return true;
}
