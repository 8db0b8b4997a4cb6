/*-------------------------------------------------------------------------
 *
 * accessors.c
 *	  The fields of a narinfo, in SQL.
 *
 * What the packed form has at a fixed place is read there, from a slice of
 * the value if it is stored out of line; for all else the text is made and
 * parsed again, so that there is one reading of each field.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "types/types.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(narinfo_kind);
PG_FUNCTION_INFO_V1(narinfo_store_path);
PG_FUNCTION_INFO_V1(narinfo_store_hash);
PG_FUNCTION_INFO_V1(narinfo_url);
PG_FUNCTION_INFO_V1(narinfo_urls);
PG_FUNCTION_INFO_V1(narinfo_compression);
PG_FUNCTION_INFO_V1(narinfo_compressions);
PG_FUNCTION_INFO_V1(narinfo_file_hash);
PG_FUNCTION_INFO_V1(narinfo_file_size);
PG_FUNCTION_INFO_V1(narinfo_file_sizes);
PG_FUNCTION_INFO_V1(narinfo_nar_hash);
PG_FUNCTION_INFO_V1(narinfo_nar_size);
PG_FUNCTION_INFO_V1(narinfo_refs);
PG_FUNCTION_INFO_V1(narinfo_ref_hashes);
PG_FUNCTION_INFO_V1(narinfo_deriver);
PG_FUNCTION_INFO_V1(narinfo_system);
PG_FUNCTION_INFO_V1(narinfo_sigs);
PG_FUNCTION_INFO_V1(narinfo_ca);
PG_FUNCTION_INFO_V1(narinfo_signature);
PG_FUNCTION_INFO_V1(narinfo_fields);
PG_FUNCTION_INFO_V1(narinfo_packed_size);

/*-------------------------------------------------------------------------
 * Reading values
 *-------------------------------------------------------------------------
 */

static void
report_damaged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("damaged narinfo")));
}

/* At least the first n bytes of the payload, where it has that many. */
static struct varlena *
slice(Datum datum, size_t n)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(datum);

	if (VARATT_IS_COMPRESSED(value) || VARATT_IS_EXTERNAL(value))
		return detoast_attr_slice(value, 0, (int32) n);
	return value;
}

/* The header; in a slice, the references may be missing. */
static const uint8 *
header(Datum datum)
{
	struct varlena *value = slice(datum, PACKED_HEADER);
	const uint8 *packed = NARINFO_PACKED(value);

	if (NARINFO_PACKED_LEN(value) < PACKED_HEADER ||
		packed[0] != PACKED_VERSION)
		report_damaged();
	return packed;
}

/* The narinfo parsed again from its text; its Spans point into that. */
static Narinfo
parse(Datum datum)
{
	size_t		len;
	char	   *text = narinfo_to_text(PG_DETOAST_DATUM_PACKED(datum), &len);
	Narinfo		info;
	ParseError	error;

	if (!narinfo_parse(text, len, &info, &error))
		report_damaged();
	return info;
}

static Datum
span_text(Span span)
{
	return PointerGetDatum(cstring_to_text_with_len(span.data,
													(int) span.len));
}

/* Sizes have 64 bits without a sign, more than a bigint. */
static Datum
size_numeric(uint64 size)
{
	char		digits[24];

	if (size <= PG_INT64_MAX)
		return NumericGetDatum(int64_to_numeric((int64) size));
	snprintf(digits, sizeof(digits), UINT64_FORMAT, size);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static Datum
text_array(Datum *texts, int n)
{
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* An array of what this function was declared to return an array of. */
static Datum
declared_array(FunctionCallInfo fcinfo, Datum *values, int n)
{
	Oid			array = get_fn_expr_rettype(fcinfo->flinfo);
	Oid			element = get_element_type(array);
	int16		len;
	bool		by_value;
	char		align;

	if (!OidIsValid(element))	/* called without an expression */
		element = get_element_type(get_func_rettype(fcinfo->flinfo->fn_oid));
	get_typlenbyvalalign(element, &len, &by_value, &align);
	return PointerGetDatum(construct_array(values, n, element, len, by_value,
										   align));
}

#define RETURN_TEXT_OR_NULL(span) \
	do { \
		Span		span_ = (span); \
		if (span_.data == NULL) \
			PG_RETURN_NULL(); \
		return span_text(span_); \
	} while (0)

/*-------------------------------------------------------------------------
 * From the packed form
 *-------------------------------------------------------------------------
 */

Datum
narinfo_kind(PG_FUNCTION_ARGS)
{
	const uint8 *packed = header(PG_GETARG_DATUM(0));

	PG_RETURN_TEXT_P(cstring_to_text((packed[1] & PACKED_GUIX) ? "guix" :
									 "nix"));
}

Datum
narinfo_store_hash(PG_FUNCTION_ARGS)
{
	uint8	   *hash = palloc(STORE_HASH_LEN);

	memcpy(hash, packed_store_hash(header(PG_GETARG_DATUM(0))),
		   STORE_HASH_LEN);
	PG_RETURN_POINTER(hash);
}

Datum
narinfo_nar_size(PG_FUNCTION_ARGS)
{
	return size_numeric(packed_nar_size(header(PG_GETARG_DATUM(0))));
}

Datum
narinfo_file_size(PG_FUNCTION_ARGS)
{
	const uint8 *packed = header(PG_GETARG_DATUM(0));

	if (!(packed[1] & PACKED_FILE_SIZE))
		PG_RETURN_NULL();
	return size_numeric(packed_file_size(packed));
}

Datum
narinfo_nar_hash(PG_FUNCTION_ARGS)
{
	const uint8 *packed = header(PG_GETARG_DATUM(0));
	Digest		hash;

	if (packed[1] & PACKED_NAR_SHA256)
	{
		hash.algo = HASH_SHA256;
		memcpy(hash.bytes, packed_nar_digest(packed),
			   hash_algo_bytes(HASH_SHA256));
	}
	else
		hash = parse(PG_GETARG_DATUM(0)).nar_hash;
	PG_RETURN_POINTER(nar_hash_make(&hash));
}

Datum
narinfo_store_path(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_VARLENA_PP(0);
	PackedRefs	refs;
	StorePath	path;

	if (!packed_open(NARINFO_PACKED(value), NARINFO_PACKED_LEN(value), &refs,
					 &path))
		report_damaged();
	PG_RETURN_POINTER(store_path_make(&path));
}

Datum
narinfo_refs(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_VARLENA_PP(0);
	const uint8 *packed = NARINFO_PACKED(value);
	PackedRefs	refs;
	StorePath	path;
	Datum	   *paths;
	uint32		n = 0;

	if (!packed_open(packed, NARINFO_PACKED_LEN(value), &refs, &path))
		report_damaged();
	paths = palloc(sizeof(Datum) * Max(packed_nrefs(packed), 1));
	while (packed_next_ref(&refs, &path))
		paths[n++] = PointerGetDatum(store_path_make(&path));
	if (n != packed_nrefs(packed))
		report_damaged();
	return declared_array(fcinfo, paths, (int) n);
}

Datum
narinfo_ref_hashes(PG_FUNCTION_ARGS)
{
	Datum		datum = PG_GETARG_DATUM(0);
	uint32		n = packed_nrefs(header(datum));
	struct varlena *value = slice(datum, PACKED_HEADER +
								  (size_t) n * STORE_HASH_LEN);
	Datum	   *hashes = palloc(sizeof(Datum) * Max(n, 1));

	if (!packed_check(NARINFO_PACKED(value), NARINFO_PACKED_LEN(value)))
		report_damaged();
	for (uint32 i = 0; i < n; i++)
		hashes[i] = PointerGetDatum(packed_ref(NARINFO_PACKED(value), i));
	return declared_array(fcinfo, hashes, (int) n);
}

/* Bytes of the packed form, before any compression. */
Datum
narinfo_packed_size(PG_FUNCTION_ARGS)
{
	struct varlena *value = PG_GETARG_VARLENA_PP(0);

	PG_RETURN_INT32((int32) NARINFO_PACKED_LEN(value));
}

/*-------------------------------------------------------------------------
 * From the text
 *-------------------------------------------------------------------------
 */

Datum
narinfo_url(PG_FUNCTION_ARGS)
{
	return span_text(parse(PG_GETARG_DATUM(0)).urls[0].url);
}

Datum
narinfo_urls(PG_FUNCTION_ARGS)
{
	Narinfo		info = parse(PG_GETARG_DATUM(0));
	Datum		urls[NARINFO_URLS_MAX];

	for (int i = 0; i < info.nurls; i++)
		urls[i] = span_text(info.urls[i].url);
	return text_array(urls, info.nurls);
}

Datum
narinfo_compression(PG_FUNCTION_ARGS)
{
	return span_text(parse(PG_GETARG_DATUM(0)).urls[0].compression);
}

Datum
narinfo_compressions(PG_FUNCTION_ARGS)
{
	Narinfo		info = parse(PG_GETARG_DATUM(0));
	Datum		compressions[NARINFO_URLS_MAX];

	for (int i = 0; i < info.nurls; i++)
		compressions[i] = span_text(info.urls[i].compression);
	return text_array(compressions, info.nurls);
}

Datum
narinfo_file_hash(PG_FUNCTION_ARGS)
{
	Span		text = parse(PG_GETARG_DATUM(0)).urls[0].file_hash;
	Digest		hash;
	ParseError	error;

	if (text.data == NULL)
		PG_RETURN_NULL();
	if (!hash_parse(text, &hash, &error))
		report_damaged();
	PG_RETURN_POINTER(nar_hash_make(&hash));
}

/* One a URL, NULL where there is none. */
Datum
narinfo_file_sizes(PG_FUNCTION_ARGS)
{
	Narinfo		info = parse(PG_GETARG_DATUM(0));
	Datum		sizes[NARINFO_URLS_MAX];
	bool		nulls[NARINFO_URLS_MAX];
	int			dims = info.nurls;
	int			lower = 1;

	for (int i = 0; i < info.nurls; i++)
	{
		nulls[i] = !info.urls[i].has_file_size;
		sizes[i] = nulls[i] ? (Datum) 0 :
			size_numeric(info.urls[i].file_size);
	}
	PG_RETURN_ARRAYTYPE_P(construct_md_array(sizes, nulls, 1, &dims, &lower,
											 NUMERICOID, -1, false,
											 TYPALIGN_INT));
}

Datum
narinfo_deriver(PG_FUNCTION_ARGS)
{
	Narinfo		info = parse(PG_GETARG_DATUM(0));
	StorePath	path;
	ParseError	error;

	if (info.deriver.data == NULL)
		PG_RETURN_NULL();
	if (!store_base_name_parse(info.deriver, &path, &error))
		report_damaged();
	path.dir = info.store_path.dir;
	PG_RETURN_POINTER(store_path_make(&path));
}

Datum
narinfo_system(PG_FUNCTION_ARGS)
{
	RETURN_TEXT_OR_NULL(parse(PG_GETARG_DATUM(0)).system);
}

Datum
narinfo_ca(PG_FUNCTION_ARGS)
{
	RETURN_TEXT_OR_NULL(parse(PG_GETARG_DATUM(0)).ca);
}

Datum
narinfo_signature(PG_FUNCTION_ARGS)
{
	RETURN_TEXT_OR_NULL(parse(PG_GETARG_DATUM(0)).signature);
}

Datum
narinfo_sigs(PG_FUNCTION_ARGS)
{
	size_t		len;
	char	   *text = narinfo_to_text(PG_GETARG_VARLENA_PP(0), &len);
	Span		rest = span_of(text, len);
	ArrayBuildState *sigs = initArrayResult(TEXTOID, CurrentMemoryContext,
											false);
	Span		name;
	Span		value;

	while (narinfo_next_field(&rest, &name, &value))
	{
		if (span_is(name, "Sig"))
			sigs = accumArrayResult(sigs, span_text(value), false, TEXTOID,
									CurrentMemoryContext);
	}
	return makeArrayResult(sigs, CurrentMemoryContext);
}

/* Every line: its number, its field and its value. */
Datum
narinfo_fields(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	size_t		len;
	char	   *text = narinfo_to_text(PG_GETARG_VARLENA_PP(0), &len);
	Span		rest = span_of(text, len);
	Span		name;
	Span		value;
	int32		line = 0;

	InitMaterializedSRF(fcinfo, 0);
	while (narinfo_next_field(&rest, &name, &value))
	{
		Datum		columns[3];
		bool		nulls[3] = {false, false, false};

		CHECK_FOR_INTERRUPTS();
		columns[0] = Int32GetDatum(++line);
		columns[1] = span_text(name);
		columns[2] = span_text(value);
		tuplestore_putvalues(result->setResult, result->setDesc, columns,
							 nulls);
	}
	return (Datum) 0;
}
