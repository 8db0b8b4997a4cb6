/*-------------------------------------------------------------------------
 *
 * sign.c
 *	  Signing narinfos: sign_narinfo(info, key_name), and
 *	  CALL resign_cache(key_name, cache) for all of a cache.
 *
 * Signatures of Nix are added to those that are there, so during a rotation a
 * narinfo has the old key's and the new one's.  Guix reads one signature, so
 * there the new one takes the old one's place; the bytes above it stay as
 * they are.
 *
 * resign_cache goes through the cache in the order of the hashes, in batches
 * that each commit.  What has the signature is left alone, so it is called
 * again to go on, or for what was published with another key meanwhile.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/key.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "base/fingerprint.h"
#include "cache/progress.h"
#include "cache/transfer.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(sign_narinfo);
PG_FUNCTION_INFO_V1(resign_cache);

/*
 * Rows a transaction; their locks are held until it commits.  A signature of
 * Guix takes 0.2 ms, one of Nix 0.02 ms.
 */
#define BATCH 500
#define BATCH_TEXT "500"

/*-------------------------------------------------------------------------
 * One narinfo
 *-------------------------------------------------------------------------
 */

/* The narinfo of a text with one line put in the place of another, or none. */
static struct varlena *
with_line(Span text, Span old, const char *name, Span value,
		  ParseError *error)
{
	size_t		before = (size_t) (old.data - text.data);
	size_t		name_len = strlen(name);
	size_t		len = text.len - old.len + name_len + 2 + value.len + 1;
	char	   *result = palloc(len);
	char	   *next = result;
	struct varlena *info;

	memcpy(next, text.data, before);
	next += before;
	memcpy(next, name, name_len);
	next += name_len;
	*next++ = ':';
	*next++ = ' ';
	memcpy(next, value.data, value.len);
	next += value.len;
	*next++ = '\n';
	memcpy(next, old.data + old.len, text.len - before - old.len);
	info = narinfo_from_text(result, len, error);
	pfree(result);
	return info;
}

/* Does a Sig line hold this signature, or another good one of this key? */
static bool
has_sig(Span text, const NixPublicKey *key, Span fingerprint, Span value)
{
	Span		rest = text;
	Span		other;

	while (nix_next_sig(&rest, &other))
	{
		uint8_t		sig[NIX_SIG_BYTES];
		Span		name;

		if (span_equal(other, value))
			return true;
		nix_sig_parse(other, &name, sig);
		if (span_equal(name, key->name) &&
			nix_sig_verify(key, sig, fingerprint))
			return true;
	}
	return false;
}

static struct varlena *
sign_nix(const NixSecretKey *secret, struct varlena *info, Span text,
		 const Narinfo *parsed, ParseError *error)
{
	char	   *print = palloc(fingerprint_bound(parsed));
	StorePath  *refs = palloc(sizeof(StorePath) *
							  ((Size) parsed->nrefs + 1));
	size_t		len = fingerprint_print(parsed, refs, print);
	Span		value = span_of(palloc(NIX_SIG_LEN(secret->name.len)),
								NIX_SIG_LEN(secret->name.len));
	NixPublicKey public;

	if (parsed->signature.data != NULL)
	{
		parse_error(error, "it has a signature of Guix");
		return NULL;
	}
	if (len == 0)
	{
		parse_error(error, "NarSize is 0");
		return NULL;
	}
	nix_key_public(secret, &public);
	nix_sign(secret, span_of(print, len), (char *) value.data);
	if (has_sig(text, &public, span_of(print, len), value))
		return info;
	return with_line(text, span_of(text.data + nix_sig_place(text, value), 0),
					 "Sig", value, error);
}

/* Is it signed with this key? */
static bool
has_signature(const Narinfo *parsed, const GuixSecretKey *secret,
			  const uint8_t *digest)
{
	GuixSignature signature;
	GuixPublicKey public;

	guix_key_public(secret, &public);
	return parsed->signature.data != NULL &&
		guix_signature_parse(parsed->signature, &signature) &&
		guix_signature_verify(&public, &signature, digest);
}

static struct varlena *
sign_guix(const SecretKey *key, struct varlena *info, Span text,
		  const Narinfo *parsed, ParseError *error)
{
	Span		host = span_of(key->name, strlen(key->name));
	char	   *value = palloc(GUIX_SIGNATURE_MAX(host.len));
	uint8_t		digest[GUIX_DIGEST_BYTES];
	Span		part;
	Span		old;
	size_t		len;

	if (parsed->nsigs > 0)
	{
		parse_error(error, "it has signatures of Nix");
		return NULL;
	}
	if (!guix_signature_place(text, &old))
	{
		parse_error(error, "\"Signature:\" stands inside of another line");
		return NULL;
	}
	if (!guix_signed_part(text, &part))
	{
		parse_error(error,
					"StorePath, NarHash and References do not all stand above the signature");
		return NULL;
	}
	guix_digest(part, digest);
	if (has_signature(parsed, &key->guix, digest))
		return info;
	len = guix_sign(&key->guix, host, digest, value);
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("libgcrypt could not sign")));
	return with_line(text, old, "Signature", span_of(value, len), error);
}

struct varlena *
secret_key_sign(const SecretKey *key, struct varlena *info, ParseError *error)
{
	Narinfo		parsed;
	size_t		len;
	char	   *text = narinfo_to_text(info, &len);

	if (!narinfo_parse(text, len, &parsed, error))
		return NULL;
	if (key->kind == KEY_GUIX)
		return sign_guix(key, info, span_of(text, len), &parsed, error);
	return sign_nix(&key->nix, info, span_of(text, len), &parsed, error);
}

Datum
sign_narinfo(PG_FUNCTION_ARGS)
{
	struct varlena *info = PG_GETARG_VARLENA_PP(0);
	SecretKey  *key =
		secret_key_load(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	ParseError	error;
	struct varlena *result = secret_key_sign(key, info, &error);

	secret_key_wipe(key);
	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("narinfo cannot be signed with key \"%s\": %s",
						key->name, describe_parse_error(&error))));
	PG_RETURN_POINTER(result);
}

/*-------------------------------------------------------------------------
 * All of a cache
 *-------------------------------------------------------------------------
 */

typedef struct Resign
{
	MemoryContext batch_context;	/* for one batch */
	CacheInfo	cache;
	SecretKey  *key;
	SPIPlanPtr	read_plan;
	SPIPlanPtr	write_plan;
	uint8		next[STORE_HASH_LEN];	/* the least hash not looked at yet */
	int64		total;
	int64		done;
	int64		resigned;
	int64		unchanged;
	int64		left_out;
} Resign;

/* What is read is locked, so that nothing changes before it is written. */
static void
prepare_plans(Resign *resign)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			read_types[] = {TEXTOID, catalog->store_hash_type};
	Oid			write_types[] = {
		TEXTOID, catalog->store_hash_array_type, catalog->narinfo_array_type
	};

	resign->read_plan = transfer_prepare(
				"SELECT hash, info FROM narinfo.valid_path "
				"WHERE cache = $1 AND "
				"hash OPERATOR(narinfo.>=) $2 "
				"ORDER BY hash LIMIT " BATCH_TEXT
				" FOR NO KEY UPDATE",
				lengthof(read_types), read_types);
	resign->write_plan = transfer_prepare(
				"UPDATE narinfo.valid_path AS v "
				"SET info = t.info "
				"FROM ROWS FROM (pg_catalog.unnest($2), "
				"pg_catalog.unnest($3)) AS t (hash, info) "
				"WHERE v.cache = $1 AND "
				"v.hash OPERATOR(narinfo.=) t.hash",
				lengthof(write_types), write_types);
}

static void
count_rows(Resign *resign)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(resign->cache.name)};
	bool		isnull;

	if (SPI_execute_with_args("SELECT pg_catalog.count(*) "
							  "FROM narinfo.valid_path WHERE cache = $1",
							  1, types, values, NULL, true, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not count the paths of cache \"%s\"",
			 resign->cache.name);
	resign->total = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, 1,
												&isnull));
}

/* The hash behind this one; false if there is none. */
static bool
step(uint8 next[STORE_HASH_LEN], const uint8 *hash)
{
	memcpy(next, hash, STORE_HASH_LEN);
	for (int i = STORE_HASH_LEN - 1; i >= 0; i--)
	{
		if (++next[i] != 0)
			return true;
	}
	return false;
}

/* Signs one row; true if it changed, with what is to be written. */
static bool
resign_row(Resign *resign, uint64 row, Datum *hash, Datum *info)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	HeapTuple	tuple = SPI_tuptable->vals[row];
	struct varlena *old;
	struct varlena *new;
	ParseError	error;
	bool		isnull;

	*hash = SPI_getbinval(tuple, desc, 1, &isnull);
	old = PG_DETOAST_DATUM_PACKED(SPI_getbinval(tuple, desc, 2, &isnull));
	new = secret_key_sign(resign->key, old, &error);
	resign->done++;
	if (new == NULL)
		resign->left_out++;
	else if (new == old)
		resign->unchanged++;
	else
		resign->resigned++;
	*info = PointerGetDatum(new);
	return new != NULL && new != old;
}

/* With the owner's rights: who may call this may do no more by it. */
static void
execute_as_owner(SPIPlanPtr plan, Datum *values)
{
	CacheUser	user = cache_become_owner();

	transfer_execute(plan, values, false);
	cache_become_user(user);
}

static void
write_rows(Resign *resign, Datum *hashes, Datum *infos, int n)
{
	const CacheCatalog *catalog = cache_catalog();
	Datum		values[3];

	if (n == 0)
		return;
	values[0] = CStringGetTextDatum(resign->cache.name);
	values[1] = PointerGetDatum(construct_array(hashes, n,
												catalog->store_hash_type,
												STORE_HASH_LEN, false,
												TYPALIGN_CHAR));
	values[2] = PointerGetDatum(construct_array(infos, n,
												catalog->narinfo_type, -1,
												false, TYPALIGN_INT));
	execute_as_owner(resign->write_plan, values);
}

/* One transaction's worth; false when that was the last. */
static bool
resign_batch(Resign *resign)
{
	MemoryContext old = MemoryContextSwitchTo(resign->batch_context);
	Datum		hashes[BATCH];
	Datum		infos[BATCH];
	Datum		values[2];
	SPITupleTable *rows;
	uint64		nrows;
	int			n = 0;
	bool		more = false;

	values[0] = CStringGetTextDatum(resign->cache.name);
	values[1] = PointerGetDatum(resign->next);
	execute_as_owner(resign->read_plan, values);
	rows = SPI_tuptable;
	nrows = SPI_processed;
	for (uint64 row = 0; row < nrows; row++)
	{
		CHECK_FOR_INTERRUPTS();
		if (resign_row(resign, row, &hashes[n], &infos[n]))
			n++;
	}
	if (nrows > 0)
	{
		bool		isnull;
		Datum		last = SPI_getbinval(rows->vals[nrows - 1],
										 rows->tupdesc, 1, &isnull);

		more = step(resign->next, DatumGetStoreHash(last)) &&
			nrows == BATCH;
	}
	write_rows(resign, hashes, infos, n);
	MemoryContextSwitchTo(old);
	SPI_commit();
	MemoryContextReset(resign->batch_context);
	progress_report(PROGRESS_SIGNING, resign->done,
					Max(resign->done, resign->total), resign->resigned,
					resign->unchanged, resign->left_out);
	return more;
}

static void
run_resign(Resign *resign)
{
	prepare_plans(resign);
	count_rows(resign);
	progress_report(PROGRESS_SIGNING, 0, resign->total, 0, 0, 0);
	while (resign_batch(resign))
		CHECK_FOR_INTERRUPTS();
	SPI_freeplan(resign->read_plan);
	SPI_freeplan(resign->write_plan);
}

/* resign_cache(key_name text, cache text) */
Datum
resign_cache(PG_FUNCTION_ARGS)
{
	Resign		resign = {0};
	MemoryContext context;
	MemoryContext old;

	procedure_check_block(fcinfo, "resign_cache");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("resign_cache wants a key and a cache, not NULL")));

	/* the portal's memory is what survives a commit */
	context = AllocSetContextCreate(PortalContext, "narinfo resign",
									ALLOCSET_DEFAULT_SIZES);
	resign.batch_context = AllocSetContextCreate(context,
												 "narinfo resign batch",
												 ALLOCSET_DEFAULT_SIZES);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(1)), &resign.cache);
	old = MemoryContextSwitchTo(context);
	resign.key = secret_key_load(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	MemoryContextSwitchTo(old);
	progress_start(PROGRESS_RESIGN, cache_catalog()->valid_path_rel);

	run_resign(&resign);

	progress_end();
	ereport(NOTICE,
			(errmsg("signed " INT64_FORMAT " narinfos of cache \"%s\", "
					INT64_FORMAT " had the signature, " INT64_FORMAT
					" cannot have it",
					resign.resigned, resign.cache.name, resign.unchanged,
					resign.left_out),
			 resign.left_out == 0 ? 0 :
			 errhint("Signatures of Nix and of Guix do not go together.")));
	MemoryContextDelete(context);
	SPI_finish();
	PG_RETURN_VOID();
}
