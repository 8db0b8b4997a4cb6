/*-------------------------------------------------------------------------
 *
 * operators.h
 *	  What every type's operator classes are made of: one comparison behind
 *	  six operators, and XXH3 behind both hash functions.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_TYPES_OPERATORS_H
#define NARINFO_TYPES_OPERATORS_H

#include "types/types.h"

#include "utils/sortsupport.h"

/*
 * Defines the SQL functions TYPE_lt, _le, _eq, _ne, _ge, _gt and _cmp upon
 * "int compare(Datum, Datum)", which takes the arguments as they come, toasted
 * or not.
 */
#define DEFINE_OPERATOR(type, name, compare, test) \
PG_FUNCTION_INFO_V1(type##_##name); \
Datum \
type##_##name(PG_FUNCTION_ARGS) \
{ \
	int			cmp = compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)); \
	PG_RETURN_BOOL(cmp test 0); \
} \
extern int	no_such_variable

#define DEFINE_OPERATORS(type, compare) \
DEFINE_OPERATOR(type, lt, compare, <); \
DEFINE_OPERATOR(type, le, compare, <=); \
DEFINE_OPERATOR(type, eq, compare, ==); \
DEFINE_OPERATOR(type, ne, compare, !=); \
DEFINE_OPERATOR(type, ge, compare, >=); \
DEFINE_OPERATOR(type, gt, compare, >); \
PG_FUNCTION_INFO_V1(type##_cmp); \
Datum \
type##_cmp(PG_FUNCTION_ARGS) \
{ \
	int			cmp = compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)); \
	PG_RETURN_INT32((cmp > 0) - (cmp < 0)); \
} \
extern int	no_such_variable

/* Frees the copy that detoasting made, if it made one. */
#define FREE_COPY(pointer, datum) \
	do { \
		if ((const void *) (pointer) != DatumGetPointer(datum)) \
			pfree((void *) (pointer)); \
	} while (0)

/* XXH3: the extended hash with seed 0 ends in the plain one, as it has to. */
extern uint64 hash_bytes_xxh3(const void *bytes, size_t len, uint64 seed);

/* The same of a varlena's payload, for types that write a value in one way. */
extern uint64 hash_payload(Datum value, uint64 seed);

/*
 * Sets up sorting by the first bytes of each value, which are spread evenly
 * in all our types, so that abbreviating always pays.  "abbreviate" returns
 * them as a number whose order agrees with the full comparison.
 */
extern void setup_sort(SortSupport ssup,
					   int (*compare) (Datum, Datum, SortSupport),
					   Datum (*abbreviate) (Datum, SortSupport));

/* The first eight of these bytes as such a number. */
extern Datum abbreviate_bytes(const uint8 *bytes);

#endif							/* NARINFO_TYPES_OPERATORS_H */
