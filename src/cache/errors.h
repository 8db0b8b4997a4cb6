/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  SQLSTATEs of our own: class NI, listed in the README.
 *
 * An application tells by them why a cache refused a change; the message is
 * for people.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_ERRORS_H
#define NARINFO_CACHE_ERRORS_H

#include "postgres.h"

/* A policy of the cache refuses it: signatures, filter, store directory. */
#define ERRCODE_NARINFO_REFUSED		MAKE_SQLSTATE('N', 'I', '0', '0', '1')

/* A valid path would refer to one that is not. */
#define ERRCODE_NARINFO_DANGLING	MAKE_SQLSTATE('N', 'I', '0', '0', '2')

/* The path is valid already, with another NarHash. */
#define ERRCODE_NARINFO_DIVERGENT	MAKE_SQLSTATE('N', 'I', '0', '0', '3')

/* What was asked for is not here yet, or not here any more. */
#define ERRCODE_NARINFO_BEHIND		MAKE_SQLSTATE('N', 'I', '0', '0', '4')

/* This server may not publish (or serve) before somebody says so. */
#define ERRCODE_NARINFO_FENCED		MAKE_SQLSTATE('N', 'I', '0', '0', '5')

/* A limit of the cache or of the one who publishes is reached. */
#define ERRCODE_NARINFO_QUOTA		MAKE_SQLSTATE('N', 'I', '0', '0', '6')

/* What the roots are cannot be told, so nothing may be collected. */
#define ERRCODE_NARINFO_ROOTS		MAKE_SQLSTATE('N', 'I', '0', '0', '7')

/* A cache without a root is not collected: all of it would go. */
#define ERRCODE_NARINFO_NO_ROOTS	MAKE_SQLSTATE('N', 'I', '0', '0', '8')

/* More of a cache would go than was said it may. */
#define ERRCODE_NARINFO_TOO_MUCH	MAKE_SQLSTATE('N', 'I', '0', '0', '9')

/* This server is a mirror: changes are for the primary. */
#define ERRCODE_NARINFO_MIRROR		MAKE_SQLSTATE('N', 'I', '0', '1', '0')

/* What a site has is not what its events tell of, or its primary has. */
#define ERRCODE_NARINFO_UNEQUAL		MAKE_SQLSTATE('N', 'I', '0', '1', '1')

/* No room is left for what would have to be kept for mirrors. */
#define ERRCODE_NARINFO_OVERLOAD	MAKE_SQLSTATE('N', 'I', '0', '1', '4')

/* Another site is about to publish instead of this one: try again. */
#define ERRCODE_NARINFO_SWITCHING	MAKE_SQLSTATE('N', 'I', '0', '2', '0')

#endif							/* NARINFO_CACHE_ERRORS_H */
