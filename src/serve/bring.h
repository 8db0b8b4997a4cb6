/*-------------------------------------------------------------------------
 *
 * bring.h
 *	  A file of a cache is brought here: fetched from a source, and then stored
 *	  in its place by a writer worker, as what is put.
 *
 *	  claim_take ---> bring_begin ---> fetch_poll, serve_errands ---> its claim
 *
 * How it goes is seen by claim_look(): CLAIM_KEPT is the good end.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SERVE_BRING_H
#define NARINFO_SERVE_BRING_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "fetch/claim.h"
#include "nar/named.h"

/* Bytes of a URL that a client is sent to, or that a source is asked for. */
#define BRING_URL_MAX	4096

/* A URL goes to others as it is, so it must be one. */
extern bool bring_is_plain_url(const char *url);

/* Why it would never be fetched, from what its narinfo says; NULL: it may. */
extern const char *bring_trouble(const NamedFile *file);

/*
 * Begins, with a claim of this process.  False, or an error, when it cannot:
 * then the claim has ended.
 */
extern bool bring_begin(const char *cache, const char *path,
						const NamedFile *named, List *sources,
						const ClaimRef *claim);

#endif							/* NARINFO_SERVE_BRING_H */
