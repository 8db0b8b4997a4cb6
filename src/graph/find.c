/*-------------------------------------------------------------------------
 *
 * find.c
 *	  Which path somebody means, and which package it is of.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "cache/cache.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(graph_locate);
PG_FUNCTION_INFO_V1(graph_package_name);
PG_FUNCTION_INFO_V1(graph_package_version);

/*-------------------------------------------------------------------------
 * What somebody means
 *-------------------------------------------------------------------------
 */

/* A hash part, or what is as long and can be nothing else. */
static bool
find_hash(Span text, StorePath *path, ParseError *error)
{
	if (store_hash_decode(text.data, path->hash))
		return true;
	return parse_error(error,
					   "hash part has a character that is no nix32 digit");
}

/*
 * The first part of the text that is HASH-NAME, in a directory that can be a
 * store's.  The error is that of the part that should have been it.
 */
static bool
find_path(Span text, Span store_dir, StorePath *path, ParseError *error)
{
	size_t		begin = 0;
	bool		is_blamed = false;

	while (begin <= text.len)
	{
		Span		rest = span_skip(text, begin);
		const char *slash = memchr(rest.data, '/', rest.len);
		Span		part = span_of(rest.data, slash ?
								   (size_t) (slash - rest.data) : rest.len);
		Span		dir = begin > 1 ? span_of(text.data, begin - 1) :
		span_of("", 0);
		bool		is_in_store = span_equal(dir, store_dir);
		ParseError	here;

		if (store_base_name_parse(part, path, &here) &&
			(begin == 0 || store_dir_check(dir, &here)))
		{
			path->dir = begin == 0 ? store_dir : dir;
			return true;
		}
		if (!is_blamed)
			*error = here;
		is_blamed = is_blamed || is_in_store;
		begin += part.len + 1;
	}
	return false;
}

static void
report_invalid(const ParseError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid store path: %s", error->message),
			 errhint("Give a hash part, HASH-NAME, or a path such as /nix/store/HASH-NAME/bin/x.")));
}

/* locate(what text, cache text, OUT hash store_hash, OUT path store_path) */
Datum
graph_locate(PG_FUNCTION_ARGS)
{
	text	   *what = PG_GETARG_TEXT_PP(0);
	Span		asked = span_of(VARDATA_ANY(what), VARSIZE_ANY_EXHDR(what));
	CacheInfo	cache;
	TupleDesc	desc;
	StorePath	path;
	ParseError	error;
	Datum		values[2] = {0};
	bool		nulls[2] = {false};

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(1)), &cache);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	nulls[1] = asked.len == STORE_HASH_TEXT_LEN &&
		memchr(asked.data, '/', asked.len) == NULL;
	if (!(nulls[1] ? find_hash(asked, &path, &error) :
		  find_path(asked, span_of(cache.store_dir, strlen(cache.store_dir)),
					&path, &error)))
		report_invalid(&error);
	if (!nulls[1])
		values[1] = PointerGetDatum(store_path_make(&path));
	values[0] = PointerGetDatum(path.hash);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

/*-------------------------------------------------------------------------
 * Packages, as nix store diff-closures tells them
 *-------------------------------------------------------------------------
 */

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* What nix takes for the name of an output: [a-z]+, lib32, lib64. */
static bool
is_output(Span text)
{
	if (span_is(text, "lib32") || span_is(text, "lib64"))
		return true;
	for (size_t i = 0; i < text.len; i++)
	{
		if (text.data[i] < 'a' || text.data[i] > 'z')
			return false;
	}
	return text.len > 0;
}

/*
 * Without the output at its end, the name of a package ends before the first
 * dash that no letter follows, and its version is what stands behind it.
 * Source: nix, src/nix/diff-closures.cc, src/libexpr/names.cc.
 */
static void
split_name(Span text, Span *name, Span *version)
{
	const char *dash = memrchr(text.data, '-', text.len);

	if (dash && is_output(span_skip(text, dash + 1 - text.data)))
		text.len = dash - text.data;
	*name = text;
	*version = span_of("", 0);
	for (size_t i = 0; i + 1 < text.len; i++)
	{
		if (text.data[i] == '-' && !is_letter(text.data[i + 1]))
		{
			name->len = i;
			*version = span_skip(text, i + 1);
			return;
		}
	}
}

/* package_name(store_path) -> text */
Datum
graph_package_name(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));
	Span		name;
	Span		version;

	split_name(path.name, &name, &version);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(name.data, name.len));
}

/* package_version(store_path) -> text */
Datum
graph_package_version(PG_FUNCTION_ARGS)
{
	StorePath	path = store_path_parts(PG_GETARG_VARLENA_PP(0));
	Span		name;
	Span		version;

	split_name(path.name, &name, &version);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(version.data, version.len));
}
