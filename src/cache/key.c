/*-------------------------------------------------------------------------
 *
 * key.c
 *	  The public keys that each cache trusts, what signatures are worth by
 *	  them, and which of them may push.
 *
 * Like the caches, the keys are few and asked for often: a process reads them
 * all at once and keeps them, parsed, until a trigger on narinfo.key says, by
 * an invalidation of the table's relcache entry, that one has changed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/key.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/fingerprint.h"
#include "cache/remember.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(trust_key);
PG_FUNCTION_INFO_V1(untrust_key);
PG_FUNCTION_INFO_V1(allow_push);
PG_FUNCTION_INFO_V1(is_public_key);
PG_FUNCTION_INFO_V1(narinfo_verify);

/* Columns of narinfo.key that are read here */
#define COLUMN_CACHE		1
#define COLUMN_PUBLIC_KEY	4
#define COLUMN_MAY_PUSH		6

const char *const key_kind_names[] = {"nix", "guix"};
static const char *const status_names[] = {"valid", "invalid", "unknown"};

typedef struct KnownCache
{
	char		name[CACHE_NAME_MAX + 1];	/* the hash table's key, first */
	int			nkeys;
	int			max;
	PublicKey  *keys;
} KnownCache;

static HTAB *known;				/* KnownCache */

void
key_libraries(void)
{
	static bool ready = false;

	if (ready)
		return;
	if (!nix_signature_init() || !guix_signature_init())
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not initialize libsodium and libgcrypt")));
	ready = true;
}

/*-------------------------------------------------------------------------
 * Public keys as text
 *-------------------------------------------------------------------------
 */

static bool
public_key_parse(Span text, PublicKey *key, ParseError *error)
{
	NixPublicKey nix;
	GuixPublicKey guix;
	Span		rest = text;

	key_libraries();
	while (rest.len > 0 && strchr(" \t\r\n", rest.data[0]))
		rest = span_skip(rest, 1);
	if (rest.len > 0 && rest.data[0] == '(')
	{
		key->kind = KEY_GUIX;
		key->name = span_of(NULL, 0);
		if (!guix_public_key_parse(rest, &guix, error))
			return false;
		memcpy(key->bytes, guix.q, KEY_BYTES);
	}
	else
	{
		key->kind = KEY_NIX;
		if (!nix_public_key_parse(rest, &nix, error))
			return false;
		key->name = nix.name;
		memcpy(key->bytes, nix.bytes, KEY_BYTES);
	}
	return true;
}

char *
public_key_text(const PublicKey *key)
{
	char	   *text;
	size_t		len;

	if (key->kind == KEY_GUIX)
	{
		GuixPublicKey guix;

		memcpy(guix.q, key->bytes, KEY_BYTES);
		text = palloc(GUIX_KEY_MAX);
		len = guix_public_key_print(&guix, text);
	}
	else
	{
		NixPublicKey nix = {.name = key->name};

		memcpy(nix.bytes, key->bytes, KEY_BYTES);
		len = NIX_PUBLIC_LEN(nix.name.len);
		text = palloc(len + 1);
		nix_public_key_print(&nix, text);
	}
	text[len] = '\0';
	return text;
}

static text *
span_text(Span span)
{
	return cstring_to_text_with_len(span.data, (int) span.len);
}

static Span
text_span(text *value)
{
	return span_of(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Is the enum value of this label? */
static bool
has_label(Oid value, const char *label)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	bool		same = HeapTupleIsValid(tuple) &&
		strcmp(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel),
			   label) == 0;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return same;
}

/*
 * is_public_key(public_key text, kind key_kind, name text): the constraint of
 * narinfo.key, so that plain INSERT can write nothing but what trust_key does.
 */
Datum
is_public_key(PG_FUNCTION_ARGS)
{
	PublicKey	key;
	ParseError	error;
	Span		spelling;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	spelling = text_span(PG_GETARG_TEXT_PP(0));
	if (!public_key_parse(spelling, &key, &error) ||
		!span_is(spelling, public_key_text(&key)) ||
		!has_label(PG_GETARG_OID(1), key_kind_names[key.kind]))
		PG_RETURN_BOOL(false);
	if (PG_ARGISNULL(2))
		PG_RETURN_BOOL(key.kind == KEY_GUIX);
	PG_RETURN_BOOL(key.kind == KEY_NIX &&
				   span_equal(text_span(PG_GETARG_TEXT_PP(2)), key.name));
}

/*-------------------------------------------------------------------------
 * Trusting keys
 *-------------------------------------------------------------------------
 */

/*
 * The cache's name, and the key's parts with its text as it is stored, of a
 * function whose first argument is the key, and this one the cache.
 */
static void
get_arguments(FunctionCallInfo fcinfo, int cache_argument, PublicKey *key,
			  Datum values[4], char nulls[4])
{
	ParseError	error;
	CacheInfo	cache;

	if (!public_key_parse(text_span(PG_GETARG_TEXT_PP(0)), key, &error))
		report_parse_error(NULL, "public key", &error);
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(cache_argument)), &cache);
	values[0] = CStringGetTextDatum(cache.name);
	values[1] = CStringGetTextDatum(public_key_text(key));
	values[2] = CStringGetTextDatum(key_kind_names[key->kind]);
	memset(nulls, ' ', 4);
	if (key->name.data == NULL)
		nulls[3] = 'n';
	else
		values[3] = PointerGetDatum(span_text(key->name));
}

static bool
change_key(const char *query, int nargs, Datum *values, const char *nulls)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	uint64		changed;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args(query, nargs, types, values, nulls, false,
							  0) < 0)
		elog(ERROR, "could not change narinfo.key");
	changed = SPI_processed;
	SPI_finish();
	return changed > 0;
}

Datum
trust_key(PG_FUNCTION_ARGS)
{
	PublicKey	key;
	Datum		values[4];
	char		nulls[4];

	get_arguments(fcinfo, 1, &key, values, nulls);
	PG_RETURN_BOOL(change_key("INSERT INTO narinfo.key "
							  "(cache, public_key, kind, name) "
							  "VALUES ($1, $2, $3::narinfo.key_kind, $4) "
							  "ON CONFLICT DO NOTHING",
							  4, values, nulls));
}

Datum
untrust_key(PG_FUNCTION_ARGS)
{
	PublicKey	key;
	Datum		values[4];
	char		nulls[4];

	get_arguments(fcinfo, 1, &key, values, nulls);
	PG_RETURN_BOOL(change_key("DELETE FROM narinfo.key "
							  "WHERE cache = $1 AND public_key = $2",
							  2, values, nulls));
}

/*-------------------------------------------------------------------------
 * Remembering the keys
 *-------------------------------------------------------------------------
 */

static void
start_known(MemoryContext context)
{
	HASHCTL		control;

	control.keysize = CACHE_NAME_MAX + 1;
	control.entrysize = sizeof(KnownCache);
	control.hcxt = context;
	known = hash_create("narinfo keys", 16, &control,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static void
read_row(TupleTableSlot *slot, MemoryContext context)
{
	bool		isnull;
	Datum		name = slot_getattr(slot, COLUMN_CACHE, &isnull);
	Datum		value = slot_getattr(slot, COLUMN_PUBLIC_KEY, &isnull);
	Datum		may_push = slot_getattr(slot, COLUMN_MAY_PUSH, &isnull);
	MemoryContext old = MemoryContextSwitchTo(context);
	char	   *cache = TextDatumGetCString(name);
	char	   *spelling = TextDatumGetCString(value);
	PublicKey	key;
	ParseError	error;

	/* its name points into the spelling, which stays */
	if (strlen(cache) <= CACHE_NAME_MAX &&
		public_key_parse(span_of(spelling, strlen(spelling)), &key, &error))
	{
		bool		found;
		KnownCache *entry = hash_search(known, cache, HASH_ENTER, &found);

		if (!found)
		{
			entry->nkeys = 0;
			entry->max = 4;
			entry->keys = palloc(sizeof(PublicKey) * 4);
		}
		else if (entry->nkeys == entry->max)
		{
			entry->max *= 2;
			entry->keys = repalloc(entry->keys,
								   sizeof(PublicKey) * (Size) entry->max);
		}
		key.may_push = DatumGetBool(may_push);
		entry->keys[entry->nkeys++] = key;
	}
	pfree(cache);
	MemoryContextSwitchTo(old);
}

static Remembered key_rows = {
	.table = "key", .start = start_known, .read_row = read_row
};

uint64
key_generation(void)
{
	remember_rows(&key_rows);
	return key_rows.generation;
}

/* They stay until the next invalidation; NULL: there are none. */
static const KnownCache *
find_keys(const char *cache)
{
	remember_rows(&key_rows);
	return strlen(cache) > CACHE_NAME_MAX ? NULL :
		hash_search(known, cache, HASH_FIND, NULL);
}

bool
key_any(const char *cache)
{
	return find_keys(cache) != NULL;
}

/* The keys that a cache, which must be there, trusts. */
static const KnownCache *
keys_of(const char *cache)
{
	static const KnownCache none;
	const KnownCache *found = find_keys(cache);
	CacheInfo	info;

	if (found != NULL)
		return found;
	cache_require(cache, &info);
	return &none;
}

/*-------------------------------------------------------------------------
 * Keys that may push
 *-------------------------------------------------------------------------
 */

/* A key of Nix that the cache trusts, or NULL. */
static const PublicKey *
find_nix_key(const char *cache, const uint8 bytes[KEY_BYTES])
{
	const KnownCache *found = find_keys(cache);

	for (int i = 0; found != NULL && i < found->nkeys; i++)
	{
		const PublicKey *key = &found->keys[i];

		if (key->kind == KEY_NIX &&
			memcmp(key->bytes, bytes, KEY_BYTES) == 0)
			return key;
	}
	return NULL;
}

bool
key_may_push(const char *cache, const uint8 bytes[KEY_BYTES])
{
	const PublicKey *key = find_nix_key(cache, bytes);

	return key != NULL && key->may_push;
}

/* Names are no identity: several keys may have the same. */
bool
key_check_proof(const char *cache, Span name, const uint8 sig[NIX_SIG_BYTES],
				Span text, uint8 bytes[KEY_BYTES])
{
	const KnownCache *found = find_keys(cache);

	key_libraries();
	for (int i = 0; found != NULL && i < found->nkeys; i++)
	{
		const PublicKey *key = &found->keys[i];
		NixPublicKey nix;

		if (key->kind != KEY_NIX || !key->may_push ||
			!span_equal(key->name, name))
			continue;
		memcpy(nix.bytes, key->bytes, KEY_BYTES);
		if (nix_sig_verify(&nix, sig, text))
		{
			memcpy(bytes, key->bytes, KEY_BYTES);
			return true;
		}
	}
	return false;
}

/*
 * allow_push(public_key text, allowed boolean, cache text) -> boolean
 *
 * Whoever signs what is in a cache need not be one who puts it there, so this
 * is a word of its own.
 */
Datum
allow_push(PG_FUNCTION_ARGS)
{
	PublicKey	key;
	Datum		values[4];
	char		nulls[4];

	get_arguments(fcinfo, 2, &key, values, nulls);
	if (key.kind != KEY_NIX)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("only keys of Nix can be proved over HTTP"),
				 errhint("Use narinfo.create_token().")));
	if (find_nix_key(TextDatumGetCString(values[0]), key.bytes) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cache \"%s\" does not trust this key",
						TextDatumGetCString(values[0])),
				 errhint("narinfo.trust_key() makes it do so.")));
	values[2] = CStringGetTextDatum(PG_GETARG_BOOL(1) ? "true" : "false");
	PG_RETURN_BOOL(change_key("UPDATE narinfo.key "
							  "SET may_push = $3::pg_catalog.bool "
							  "WHERE cache = $1 AND public_key = $2 "
							  "AND may_push <> $3::pg_catalog.bool",
							  3, values, nulls));
}

/*-------------------------------------------------------------------------
 * Checking signatures
 *-------------------------------------------------------------------------
 */

/* What Nix signs of the narinfo, when it is first needed. */
static Span
get_fingerprint(SignatureCheck *check)
{
	const Narinfo *info = &check->info;
	char	   *text;
	StorePath  *refs;

	if (check->fingerprint.data != NULL)
		return check->fingerprint;
	text = palloc(fingerprint_bound(info));
	refs = palloc(sizeof(StorePath) * ((Size) info->nrefs + 1));
	check->fingerprint = span_of(text, fingerprint_print(info, refs, text));
	pfree(refs);
	return check->fingerprint;
}

/* The same with the references as written, len 0 if that is no other. */
static Span
get_written(SignatureCheck *check)
{
	char	   *text;

	if (check->written.data != NULL)
		return check->written;
	text = palloc(fingerprint_bound(&check->info));
	check->written = span_of(text, fingerprint_print_written(&check->info,
															 text));
	return check->written;
}

void
signature_check_begin(SignatureCheck *check, const char *cache,
					  const struct varlena *info)
{
	const KnownCache *known_cache = keys_of(cache);
	ParseError	error;
	size_t		len;

	memset(check, 0, sizeof(SignatureCheck));
	check->keys = known_cache->keys;
	check->nkeys = known_cache->nkeys;
	check->text.data = narinfo_to_text(info, &len);
	check->text.len = len;
	check->rest = check->text;
	if (!narinfo_parse(check->text.data, len, &check->info, &error))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	key_libraries();
}

static bool
verifies(SignatureCheck *check, const NixPublicKey *key, const uint8_t *sig)
{
	return (get_fingerprint(check).len > 0 &&
			nix_sig_verify(key, sig, check->fingerprint)) ||
		(get_written(check).len > 0 &&
		 nix_sig_verify(key, sig, check->written));
}

static void
check_sig(SignatureCheck *check, Span value)
{
	uint8_t		sig[NIX_SIG_BYTES];

	nix_sig_parse(value, &check->key_name, sig);
	check->status = SIGNATURE_UNKNOWN;
	check->key = NULL;
	for (int i = 0; i < check->nkeys; i++)
	{
		const PublicKey *key = &check->keys[i];
		NixPublicKey nix;

		if (key->kind != KEY_NIX || !span_equal(key->name, check->key_name))
			continue;
		memcpy(nix.bytes, key->bytes, KEY_BYTES);
		check->status = SIGNATURE_INVALID;
		if (verifies(check, &nix, sig))
		{
			check->status = SIGNATURE_VALID;
			check->key = key;
			return;
		}
	}
}

static void
check_signature(SignatureCheck *check, Span value)
{
	GuixSignature signature;
	uint8_t		digest[GUIX_DIGEST_BYTES];
	Span		part;

	check->key_name = guix_signature_host(value);
	check->status = SIGNATURE_INVALID;
	check->key = NULL;
	if (!guix_signature_parse(value, &signature))
		return;
	check->status = SIGNATURE_UNKNOWN;
	for (int i = 0; i < check->nkeys; i++)
	{
		const PublicKey *key = &check->keys[i];

		if (key->kind != KEY_GUIX ||
			memcmp(key->bytes, signature.key.q, KEY_BYTES) != 0)
			continue;
		check->status = SIGNATURE_INVALID;
		if (!guix_signed_part(check->text, &part))
			return;
		guix_digest(part, digest);
		if (guix_signature_verify(&signature.key, &signature, digest))
		{
			check->status = SIGNATURE_VALID;
			check->key = key;
		}
		return;
	}
}

bool
signature_check_next(SignatureCheck *check)
{
	Span		value;

	if (check->info.kind == NARINFO_GUIX)
	{
		if (check->done || check->info.signature.data == NULL)
			return false;
		check->done = true;
		check_signature(check, check->info.signature);
		return true;
	}
	if (!nix_next_sig(&check->rest, &value))
		return false;
	check_sig(check, value);
	return true;
}

static Oid
status_oid(Oid type, SignatureStatus status)
{
	return GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
						   ObjectIdGetDatum(type),
						   CStringGetDatum(status_names[status]));
}

/* verify(info narinfo, cache text) */
Datum
narinfo_verify(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	struct varlena *info = PG_GETARG_VARLENA_PP(0);
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	SignatureCheck check;
	Oid			status_type;

	InitMaterializedSRF(fcinfo, 0);
	status_type = TupleDescAttr(result->setDesc, 1)->atttypid;
	signature_check_begin(&check, cache, info);
	while (signature_check_next(&check))
	{
		Datum		columns[2];
		bool		nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		columns[0] = PointerGetDatum(span_text(check.key_name));
		columns[1] = ObjectIdGetDatum(status_oid(status_type, check.status));
		tuplestore_putvalues(result->setResult, result->setDesc, columns,
							 nulls);
	}
	return (Datum) 0;
}
