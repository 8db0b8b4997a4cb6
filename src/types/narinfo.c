/*-------------------------------------------------------------------------
 *
 * narinfo.c
 *	  The type narinfo: reads the text of a .narinfo file and prints exactly
 *	  those bytes.  What is stored is drawn in base/packed.h.
 *
 * Ordered by store hash, then by the bytes of the text.  Two values are equal
 * when their texts are, whatever versions of the packed form they are in.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "types/operators.h"

#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(narinfo_in);
PG_FUNCTION_INFO_V1(narinfo_out);
PG_FUNCTION_INFO_V1(narinfo_recv);
PG_FUNCTION_INFO_V1(narinfo_send);
PG_FUNCTION_INFO_V1(narinfo_hash);
PG_FUNCTION_INFO_V1(narinfo_hash_extended);
PG_FUNCTION_INFO_V1(narinfo_sortsupport);

char *
describe_parse_error(const ParseError *error)
{
	if (error->line > 0 && error->field[0] != '\0')
		return psprintf("line %u, field %s: %s", error->line, error->field,
						error->message);
	if (error->line > 0)
		return psprintf("line %u: %s", error->line, error->message);
	if (error->field[0] != '\0')
		return psprintf("field %s: %s", error->field, error->message);
	return pstrdup(error->message);
}

Datum
report_parse_error(struct Node *context, const char *what,
				   const ParseError *error)
{
	ereturn(context, (Datum) 0,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid %s: %s", what, describe_parse_error(error))));
}

/*
 * The grammar lets fields that it does not know hold any bytes; what is shown
 * as text must be text in this database.
 */
static bool
check_encoding(const char *text, size_t len, ParseError *error)
{
	int			encoding = GetDatabaseEncoding();
	int			good = pg_encoding_verifymbstr(encoding, text, (int) len);

	if (good == (int) len)
		return true;
	parse_error(error, "text is not valid in encoding %s",
				pg_encoding_to_char(encoding));
	error->line = 1;
	for (int i = 0; i < good; i++)
		error->line += text[i] == '\n';
	return false;
}

struct varlena *
narinfo_from_text(const char *text, size_t len, ParseError *error)
{
	Narinfo		info;
	struct varlena *value;
	struct varlena *result;
	char	   *scratch;
	size_t		size;

	if (!narinfo_parse(text, len, &info, error) ||
		!check_encoding(text, len, error))
		return NULL;
	value = palloc(VARHDRSZ + PACKED_BOUND(len));
	scratch = palloc(len);
	size = VARHDRSZ + packed_from_text(text, len, &info, scratch,
									   (uint8_t *) VARDATA(value));
	pfree(scratch);
	SET_VARSIZE(value, size);
	/* the bound is several times what is needed: give the rest back */
	result = palloc(size);
	memcpy(result, value, size);
	pfree(value);
	return result;
}

char *
narinfo_try_text(const struct varlena *info, size_t *len)
{
	const uint8_t *packed = NARINFO_PACKED(info);
	size_t		packed_len = NARINFO_PACKED_LEN(info);
	char	   *text;

	if (!packed_check(packed, packed_len))
		return NULL;
	*len = packed_text_len(packed);
	text = palloc(*len + 1);
	text[*len] = '\0';
	return packed_to_text(packed, packed_len, text) ? text : NULL;
}

char *
narinfo_to_text(const struct varlena *info, size_t *len)
{
	char	   *text = narinfo_try_text(info, len);

	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	return text;
}

static Datum
from_text(const char *text, size_t len, struct Node *context)
{
	ParseError	error;
	struct varlena *value = narinfo_from_text(text, len, &error);

	if (value == NULL)
		return report_parse_error(context, "narinfo", &error);
	return PointerGetDatum(value);
}

Datum
narinfo_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);

	return from_text(text, strlen(text), fcinfo->context);
}

Datum
narinfo_out(PG_FUNCTION_ARGS)
{
	size_t		len;

	PG_RETURN_CSTRING(narinfo_to_text(PG_GETARG_VARLENA_PP(0), &len));
}

/* The binary form is the text, its bytes as they are. */
Datum
narinfo_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			len = message->len - message->cursor;

	return from_text(pq_getmsgbytes(message, len), (size_t) len, NULL);
}

Datum
narinfo_send(PG_FUNCTION_ARGS)
{
	size_t		len;
	char	   *text = narinfo_to_text(PG_GETARG_VARLENA_PP(0), &len);
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendbytes(&message, text, (int) len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

static int
compare_texts(const struct varlena *a, const struct varlena *b)
{
	size_t		len_a;
	size_t		len_b;
	char	   *text_a = narinfo_to_text(a, &len_a);
	char	   *text_b = narinfo_to_text(b, &len_b);
	int			cmp = memcmp(text_a, text_b, Min(len_a, len_b));

	pfree(text_a);
	pfree(text_b);
	return cmp != 0 ? cmp : (len_a > len_b) - (len_a < len_b);
}

static const uint8 *
store_hash_of(const struct varlena *value)
{
	if (!packed_check(NARINFO_PACKED(value), NARINFO_PACKED_LEN(value)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	return packed_store_hash(NARINFO_PACKED(value));
}

static int
compare(Datum a, Datum b)
{
	struct varlena *value_a = PG_DETOAST_DATUM_PACKED(a);
	struct varlena *value_b = PG_DETOAST_DATUM_PACKED(b);
	size_t		len = NARINFO_PACKED_LEN(value_a);
	int			cmp = memcmp(store_hash_of(value_a), store_hash_of(value_b),
							 STORE_HASH_LEN);

	if (cmp == 0 && (len != NARINFO_PACKED_LEN(value_b) ||
					 memcmp(NARINFO_PACKED(value_a), NARINFO_PACKED(value_b),
							len) != 0))
		cmp = compare_texts(value_a, value_b);
	FREE_COPY(value_a, a);
	FREE_COPY(value_b, b);
	return cmp;
}

DEFINE_OPERATORS(narinfo, compare);

static int
compare_sort(Datum a, Datum b, SortSupport ssup)
{
	(void) ssup;
	return compare(a, b);
}

static Datum
abbreviate(Datum value, SortSupport ssup)
{
	struct varlena *detoasted = PG_DETOAST_DATUM_PACKED(value);
	Datum		key = abbreviate_bytes(store_hash_of(detoasted));

	(void) ssup;
	FREE_COPY(detoasted, value);
	return key;
}

Datum
narinfo_sortsupport(PG_FUNCTION_ARGS)
{
	setup_sort((SortSupport) PG_GETARG_POINTER(0), compare_sort, abbreviate);
	PG_RETURN_VOID();
}

/* Of the text, so that it outlives the stored form. */
static uint64
hash_text(struct varlena *value, uint64 seed)
{
	size_t		len;
	char	   *text = narinfo_to_text(value, &len);
	uint64		hash = hash_bytes_xxh3(text, len, seed);

	pfree(text);
	return hash;
}

Datum
narinfo_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) hash_text(PG_GETARG_VARLENA_PP(0), 0));
}

Datum
narinfo_hash_extended(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) hash_text(PG_GETARG_VARLENA_PP(0),
									  (uint64) PG_GETARG_INT64(1)));
}
