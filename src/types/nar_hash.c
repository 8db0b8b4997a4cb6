/*-------------------------------------------------------------------------
 *
 * nar_hash.c
 *	  The type nar_hash: a digest with its algorithm.
 *
 * A value is a varlena whose payload is
 *
 *	 offset  bytes
 *	   0       1   version, 1
 *	   1       1   algorithm, a HashAlgo
 *	   2     ...   digest, as many bytes as the algorithm has
 *
 * Ordered by algorithm, then digest; printed as ALGO:nix32.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "types/operators.h"

#include "libpq/pqformat.h"
#include "utils/builtins.h"

#include "compat.h"

#define VERSION			1
#define HEADER_BYTES	2

PG_FUNCTION_INFO_V1(nar_hash_in);
PG_FUNCTION_INFO_V1(nar_hash_out);
PG_FUNCTION_INFO_V1(nar_hash_recv);
PG_FUNCTION_INFO_V1(nar_hash_send);
PG_FUNCTION_INFO_V1(nar_hash_hash);
PG_FUNCTION_INFO_V1(nar_hash_hash_extended);
PG_FUNCTION_INFO_V1(nar_hash_sortsupport);
PG_FUNCTION_INFO_V1(nar_hash_algorithm);
PG_FUNCTION_INFO_V1(nar_hash_digest);

struct varlena *
nar_hash_make(const Digest *hash)
{
	size_t		n = hash_algo_bytes(hash->algo);
	size_t		size = VARHDRSZ + HEADER_BYTES + n;
	struct varlena *value = palloc(size);
	uint8	   *payload = (uint8 *) VARDATA(value);

	SET_VARSIZE(value, size);
	payload[0] = VERSION;
	payload[1] = (uint8) hash->algo;
	memcpy(payload + HEADER_BYTES, hash->bytes, n);
	return value;
}

static Digest
parts(const struct varlena *value)
{
	const uint8 *payload = (const uint8 *) VARDATA_ANY(value);
	size_t		len = VARSIZE_ANY_EXHDR(value);
	Digest		hash;

	if (len <= HEADER_BYTES || payload[0] != VERSION ||
		hash_algo_bytes(payload[1]) != len - HEADER_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged nar_hash")));
	hash.algo = payload[1];
	memcpy(hash.bytes, payload + HEADER_BYTES, len - HEADER_BYTES);
	return hash;
}

static Datum
from_text(Span text, struct Node *context)
{
	Digest		hash;
	ParseError	error;

	if (!hash_parse(text, &hash, &error))
		return report_parse_error(context, "NAR hash", &error);
	return PointerGetDatum(nar_hash_make(&hash));
}

static size_t
to_text(Datum value, char text[HASH_TEXT_MAX])
{
	Digest		hash = parts(PG_DETOAST_DATUM_PACKED(value));

	return hash_print(&hash, text);
}

Datum
nar_hash_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);

	return from_text(span_of(text, strlen(text)), fcinfo->context);
}

Datum
nar_hash_out(PG_FUNCTION_ARGS)
{
	char		text[HASH_TEXT_MAX];

	PG_RETURN_CSTRING(pnstrdup(text, to_text(PG_GETARG_DATUM(0), text)));
}

/* The binary form is the text, so that it outlives the stored one. */
Datum
nar_hash_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			len = message->len - message->cursor;

	return from_text(span_of(pq_getmsgbytes(message, len), (size_t) len),
					 NULL);
}

Datum
nar_hash_send(PG_FUNCTION_ARGS)
{
	char		text[HASH_TEXT_MAX];
	size_t		len = to_text(PG_GETARG_DATUM(0), text);
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendbytes(&message, text, len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

static int
compare(Datum a, Datum b)
{
	struct varlena *value_a = PG_DETOAST_DATUM_PACKED(a);
	struct varlena *value_b = PG_DETOAST_DATUM_PACKED(b);
	Digest		hash_a = parts(value_a);
	Digest		hash_b = parts(value_b);

	FREE_COPY(value_a, a);
	FREE_COPY(value_b, b);
	if (hash_a.algo != hash_b.algo)
		return hash_a.algo < hash_b.algo ? -1 : 1;
	return memcmp(hash_a.bytes, hash_b.bytes, hash_algo_bytes(hash_a.algo));
}

DEFINE_OPERATORS(nar_hash, compare);

static int
compare_sort(Datum a, Datum b, SortSupport ssup)
{
	(void) ssup;
	return compare(a, b);
}

/* The algorithm, and seven bytes of the digest. */
static Datum
abbreviate(Datum value, SortSupport ssup)
{
	struct varlena *detoasted = PG_DETOAST_DATUM_PACKED(value);
	Digest		hash = parts(detoasted);
	uint8		bytes[8];

	(void) ssup;
	FREE_COPY(detoasted, value);
	bytes[0] = (uint8) hash.algo;
	memcpy(bytes + 1, hash.bytes, sizeof(bytes) - 1);
	return abbreviate_bytes(bytes);
}

Datum
nar_hash_sortsupport(PG_FUNCTION_ARGS)
{
	setup_sort((SortSupport) PG_GETARG_POINTER(0), compare_sort, abbreviate);
	PG_RETURN_VOID();
}

Datum
nar_hash_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) hash_payload(PG_GETARG_DATUM(0), 0));
}

Datum
nar_hash_hash_extended(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) hash_payload(PG_GETARG_DATUM(0),
									   (uint64) PG_GETARG_INT64(1)));
}

/*-------------------------------------------------------------------------
 * Parts
 *-------------------------------------------------------------------------
 */

Datum
nar_hash_algorithm(PG_FUNCTION_ARGS)
{
	Digest		hash = parts(PG_GETARG_VARLENA_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(hash_algo_name(hash.algo)));
}

Datum
nar_hash_digest(PG_FUNCTION_ARGS)
{
	Digest		hash = parts(PG_GETARG_VARLENA_PP(0));

	PG_RETURN_BYTEA_P(cstring_to_text_with_len((char *) hash.bytes,
											   hash_algo_bytes(hash.algo)));
}
