/*-------------------------------------------------------------------------
 *
 * store_hash.c
 *	  The type store_hash: 20 bytes, most significant byte first, read and
 *	  printed as 32 nix32 digits.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "types/operators.h"

#include "libpq/pqformat.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(store_hash_in);
PG_FUNCTION_INFO_V1(store_hash_out);
PG_FUNCTION_INFO_V1(store_hash_recv);
PG_FUNCTION_INFO_V1(store_hash_send);
PG_FUNCTION_INFO_V1(store_hash_hash);
PG_FUNCTION_INFO_V1(store_hash_hash_extended);
PG_FUNCTION_INFO_V1(store_hash_sortsupport);

Datum
store_hash_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	uint8	   *hash = palloc(STORE_HASH_LEN);
	ParseError	error;

	if (strlen(text) != STORE_HASH_TEXT_LEN)
		parse_error(&error, "it has %zu characters, not %d", strlen(text),
					STORE_HASH_TEXT_LEN);
	else if (store_hash_decode(text, hash))
		PG_RETURN_POINTER(hash);
	else
		parse_error(&error, "it has a character that is no nix32 digit");
	return report_parse_error(fcinfo->context, "store hash", &error);
}

Datum
store_hash_out(PG_FUNCTION_ARGS)
{
	char	   *text = palloc(STORE_HASH_TEXT_LEN + 1);

	store_hash_encode(PG_GETARG_STORE_HASH(0), text);
	text[STORE_HASH_TEXT_LEN] = '\0';
	PG_RETURN_CSTRING(text);
}

/* Any 20 bytes are a store hash. */
Datum
store_hash_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	uint8	   *hash = palloc(STORE_HASH_LEN);

	pq_copymsgbytes(message, (char *) hash, STORE_HASH_LEN);
	PG_RETURN_POINTER(hash);
}

Datum
store_hash_send(PG_FUNCTION_ARGS)
{
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendbytes(&message, (const char *) PG_GETARG_STORE_HASH(0),
				 STORE_HASH_LEN);
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

static int
compare(Datum a, Datum b)
{
	return memcmp(DatumGetStoreHash(a), DatumGetStoreHash(b), STORE_HASH_LEN);
}

DEFINE_OPERATORS(store_hash, compare);

static int
compare_sort(Datum a, Datum b, SortSupport ssup)
{
	(void) ssup;
	return compare(a, b);
}

static Datum
abbreviate(Datum value, SortSupport ssup)
{
	(void) ssup;
	return abbreviate_bytes(DatumGetStoreHash(value));
}

Datum
store_hash_sortsupport(PG_FUNCTION_ARGS)
{
	setup_sort((SortSupport) PG_GETARG_POINTER(0), compare_sort, abbreviate);
	PG_RETURN_VOID();
}

Datum
store_hash_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) hash_bytes_xxh3(PG_GETARG_STORE_HASH(0),
											STORE_HASH_LEN, 0));
}

Datum
store_hash_hash_extended(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) hash_bytes_xxh3(PG_GETARG_STORE_HASH(0),
											STORE_HASH_LEN,
											(uint64) PG_GETARG_INT64(1)));
}
