/*-------------------------------------------------------------------------
 *
 * store_path.c
 *	  The type store_path: a directory, a hash and a name, ordered by hash,
 *	  then name, then directory.
 *
 * A value is a varlena whose payload is
 *
 *	 offset  bytes
 *	   0       1   version, 1
 *	   1       1   directory: 0 /nix/store, 1 /gnu/store, else its length
 *	   2      20   hash, most significant byte first
 *	  22       n   directory, if it is another one
 *	 ...     ...   name, to the end
 *
 * No directory is one byte long, so that 0 and 1 are free.
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
#define DIR_NIX			0
#define DIR_GNU			1
#define HEADER_BYTES	22

PG_FUNCTION_INFO_V1(store_path_in);
PG_FUNCTION_INFO_V1(store_path_out);
PG_FUNCTION_INFO_V1(store_path_recv);
PG_FUNCTION_INFO_V1(store_path_send);
PG_FUNCTION_INFO_V1(store_path_hash);
PG_FUNCTION_INFO_V1(store_path_hash_extended);
PG_FUNCTION_INFO_V1(store_path_sortsupport);
PG_FUNCTION_INFO_V1(store_path_store_hash);
PG_FUNCTION_INFO_V1(store_path_store_dir);
PG_FUNCTION_INFO_V1(store_path_store_name);
PG_FUNCTION_INFO_V1(store_path_base_name);
PG_FUNCTION_INFO_V1(is_store_dir);

static const Span nix_dir = {"/nix/store", 10};
static const Span gnu_dir = {"/gnu/store", 10};

struct varlena *
store_path_make(const StorePath *path)
{
	uint8		dir = span_equal(path->dir, nix_dir) ? DIR_NIX :
		span_equal(path->dir, gnu_dir) ? DIR_GNU : (uint8) path->dir.len;
	size_t		dir_len = dir > DIR_GNU ? path->dir.len : 0;
	size_t		size = VARHDRSZ + HEADER_BYTES + dir_len + path->name.len;
	struct varlena *value = palloc(size);
	uint8	   *payload = (uint8 *) VARDATA(value);

	SET_VARSIZE(value, size);
	payload[0] = VERSION;
	payload[1] = dir;
	memcpy(payload + 2, path->hash, STORE_HASH_LEN);
	memcpy(payload + HEADER_BYTES, path->dir.data, dir_len);
	memcpy(payload + HEADER_BYTES + dir_len, path->name.data, path->name.len);
	return value;
}

StorePath
store_path_parts(const struct varlena *value)
{
	const uint8 *payload = (const uint8 *) VARDATA_ANY(value);
	size_t		len = VARSIZE_ANY_EXHDR(value);
	size_t		dir_len;
	StorePath	path;

	if (len < HEADER_BYTES || payload[0] != VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged store_path")));
	dir_len = payload[1] > DIR_GNU ? payload[1] : 0;
	if (len <= HEADER_BYTES + dir_len ||
		len > HEADER_BYTES + dir_len + STORE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged store_path")));
	path.dir = payload[1] == DIR_NIX ? nix_dir :
		payload[1] == DIR_GNU ? gnu_dir :
		span_of((const char *) payload + HEADER_BYTES, dir_len);
	memcpy(path.hash, payload + 2, STORE_HASH_LEN);
	path.name = span_of((const char *) payload + HEADER_BYTES + dir_len,
						len - HEADER_BYTES - dir_len);
	return path;
}

static Datum
from_text(Span text, struct Node *context)
{
	StorePath	path;
	ParseError	error;

	if (!store_path_parse(text, &path, &error))
		return report_parse_error(context, "store path", &error);
	return PointerGetDatum(store_path_make(&path));
}

static char *
to_text(Datum value)
{
	struct varlena *detoasted = PG_DETOAST_DATUM_PACKED(value);
	StorePath	path = store_path_parts(detoasted);
	size_t		len = store_path_len(&path);
	char	   *text = palloc(len + 1);

	store_path_print(&path, text);
	text[len] = '\0';
	return text;
}

Datum
store_path_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);

	return from_text(span_of(text, strlen(text)), fcinfo->context);
}

Datum
store_path_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(to_text(PG_GETARG_DATUM(0)));
}

/* The binary form is the text, so that it outlives the stored one. */
Datum
store_path_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			len = message->len - message->cursor;

	return from_text(span_of(pq_getmsgbytes(message, len), (size_t) len),
					 NULL);
}

Datum
store_path_send(PG_FUNCTION_ARGS)
{
	char	   *text = to_text(PG_GETARG_DATUM(0));
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendbytes(&message, text, strlen(text));
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}

static int
compare_spans(Span a, Span b)
{
	int			cmp = memcmp(a.data, b.data, Min(a.len, b.len));

	return cmp != 0 ? cmp : (a.len > b.len) - (a.len < b.len);
}

static int
compare(Datum a, Datum b)
{
	struct varlena *value_a = PG_DETOAST_DATUM_PACKED(a);
	struct varlena *value_b = PG_DETOAST_DATUM_PACKED(b);
	StorePath	path_a = store_path_parts(value_a);
	StorePath	path_b = store_path_parts(value_b);
	int			cmp = memcmp(path_a.hash, path_b.hash, STORE_HASH_LEN);

	if (cmp == 0)
		cmp = compare_spans(path_a.name, path_b.name);
	if (cmp == 0)
		cmp = compare_spans(path_a.dir, path_b.dir);
	FREE_COPY(value_a, a);
	FREE_COPY(value_b, b);
	return cmp;
}

DEFINE_OPERATORS(store_path, compare);

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
	StorePath	path = store_path_parts(detoasted);

	(void) ssup;
	FREE_COPY(detoasted, value);
	return abbreviate_bytes(path.hash);
}

Datum
store_path_sortsupport(PG_FUNCTION_ARGS)
{
	setup_sort((SortSupport) PG_GETARG_POINTER(0), compare_sort, abbreviate);
	PG_RETURN_VOID();
}

Datum
store_path_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) hash_payload(PG_GETARG_DATUM(0), 0));
}

Datum
store_path_hash_extended(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) hash_payload(PG_GETARG_DATUM(0),
									   (uint64) PG_GETARG_INT64(1)));
}

/*-------------------------------------------------------------------------
 * Parts
 *-------------------------------------------------------------------------
 */

Datum
store_path_store_hash(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));
	uint8	   *hash = palloc(STORE_HASH_LEN);

	memcpy(hash, path.hash, STORE_HASH_LEN);
	PG_RETURN_POINTER(hash);
}

Datum
store_path_store_dir(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text_with_len(path.dir.data, path.dir.len));
}

Datum
store_path_store_name(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text_with_len(path.name.data, path.name.len));
}

Datum
store_path_base_name(PG_FUNCTION_ARGS)
{
	char	   *text = to_text(PG_GETARG_DATUM(0));

	PG_RETURN_TEXT_P(cstring_to_text(strrchr(text, '/') + 1));
}

Datum
is_store_dir(PG_FUNCTION_ARGS)
{
	text	   *dir = PG_GETARG_TEXT_PP(0);
	ParseError	error;

	PG_RETURN_BOOL(store_dir_check(span_of(VARDATA_ANY(dir),
										   VARSIZE_ANY_EXHDR(dir)), &error));
}
