/*-------------------------------------------------------------------------
 *
 * token.c
 *	  The table narinfo.token: making tokens, taking them away, and finding
 *	  what one may.
 *
 * Kept is SHA-256 of each.  That is no less than what is done to passwords: a
 * slow hash with a salt makes it hard to try the few words that people choose,
 * while nobody can try 256 random bits however fast the hash is; and this one
 * is computed with every request.
 *
 * A token is never an argument of a statement nor part of an error, so
 * neither the server's log nor pg_stat_activity can show it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/token.h"

#include <sodium.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/remember.h"

PG_FUNCTION_INFO_V1(create_token);
PG_FUNCTION_INFO_V1(revoke_token);
PG_FUNCTION_INFO_V1(is_token_rights);

/* Columns of narinfo.token that are read here */
#define COLUMN_CACHE		1
#define COLUMN_RIGHTS		3
#define COLUMN_SECRET_HASH	4
#define COLUMN_EXPIRES		6

/* The right of bit i, in the order in which they are stored. */
static const char *const right_names[] = {"read", "push", "admin"};

typedef struct KnownToken
{
	uint8		hash[TOKEN_HASH_BYTES];
	uint32		rights;
	TimestampTz expires;
} KnownToken;

typedef struct KnownCache
{
	char		name[CACHE_NAME_MAX + 1];	/* the hash table's key, first */
	int			ntokens;
	int			max;
	KnownToken *tokens;
} KnownCache;

static HTAB *known;				/* KnownCache */

/*-------------------------------------------------------------------------
 * Rights
 *-------------------------------------------------------------------------
 */

static uint32
right_of(const char *name)
{
	for (size_t i = 0; i < lengthof(right_names); i++)
	{
		if (strcmp(right_names[i], name) == 0)
			return 1U << i;
	}
	return 0;
}

/*
 * Those of an array; *strange is one that is no right, or NULL.  *sorted tells
 * whether they are as we store them.
 */
static uint32
read_rights(ArrayType *array, char **strange, bool *sorted)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	uint32		rights = 0;

	*strange = NULL;
	*sorted = ARR_NDIM(array) == 1 && ARR_LBOUND(array)[0] == 1;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		uint32		right = name ? right_of(name) : 0;

		if (right == 0)
			*strange = name ? name : "NULL";
		if (right <= rights)
			*sorted = false;
		rights |= right;
	}
	return rights;
}

static ArrayType *
print_rights(uint32 rights)
{
	Datum		elements[lengthof(right_names)];
	int			n = 0;

	for (size_t i = 0; i < lengthof(right_names); i++)
	{
		if (rights & (1U << i))
			elements[n++] = CStringGetTextDatum(right_names[i]);
	}
	return construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* The constraint of the table: each right once, in their order. */
Datum
is_token_rights(PG_FUNCTION_ARGS)
{
	char	   *strange;
	bool		sorted;
	uint32		rights = read_rights(PG_GETARG_ARRAYTYPE_P(0), &strange,
									 &sorted);

	PG_RETURN_BOOL(rights != 0 && strange == NULL && sorted);
}

/*-------------------------------------------------------------------------
 * Making and revoking
 *-------------------------------------------------------------------------
 */

void
token_hash(const char *token, size_t len, uint8 hash[TOKEN_HASH_BYTES])
{
	if (crypto_hash_sha256(hash, (const unsigned char *) token, len) != 0)
		elog(ERROR, "could not compute SHA-256");
}

/* A new token, palloc'd, and its hash. */
static text *
make_token(uint8 hash[TOKEN_HASH_BYTES])
{
	text	   *token = palloc(VARHDRSZ + TOKEN_LEN);
	char	   *data = VARDATA(token);
	uint8		secret[TOKEN_SECRET_BYTES];

	if (!pg_strong_random(secret, sizeof(secret)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
	SET_VARSIZE(token, VARHDRSZ + TOKEN_LEN);
	memcpy(data, TOKEN_PREFIX, strlen(TOKEN_PREFIX));
	nix32_encode(secret, sizeof(secret), data + strlen(TOKEN_PREFIX));
	sodium_memzero(secret, sizeof(secret));
	token_hash(data, TOKEN_LEN, hash);
	return token;
}

/* Runs a statement on the table; how many rows it changed. */
static uint64
change_tokens(const char *query, int nargs, Oid *types, Datum *values,
			  const char *nulls)
{
	uint64		changed;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args(query, nargs, types, values, nulls, false,
							  0) < 0)
		elog(ERROR, "could not change narinfo.token");
	changed = SPI_processed;
	SPI_finish();
	return changed;
}

static uint32
check_rights(ArrayType *array)
{
	char	   *strange;
	bool		sorted;
	uint32		rights = read_rights(array, &strange, &sorted);

	if (strange)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no right of a token", strange),
				 errhint("The rights are read, push and admin.")));
	if (rights == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a token without rights would be of no use"),
				 errhint("The rights are read, push and admin.")));
	return rights;
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"name", "rights", NULL, "cache"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (names[i] && PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s of a token must not be NULL", names[i])));
	}
	if (!PG_ARGISNULL(2) &&
		PG_GETARG_TIMESTAMPTZ(2) <= GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the token would have expired by now")));
}

/* create_token(name text, rights text[], expires timestamptz, cache text) */
Datum
create_token(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTARRAYOID, BYTEAOID,
	TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	char		nulls[] = {' ', ' ', ' ', ' ', ' '};
	bytea	   *hash = palloc(VARHDRSZ + TOKEN_HASH_BYTES);
	CacheInfo	cache;
	uint32		rights;
	text	   *token;

	check_arguments(fcinfo);
	rights = check_rights(PG_GETARG_ARRAYTYPE_P(1));
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(3)), &cache);
	SET_VARSIZE(hash, VARHDRSZ + TOKEN_HASH_BYTES);
	token = make_token((uint8 *) VARDATA(hash));

	values[0] = CStringGetTextDatum(cache.name);
	values[1] = PG_GETARG_DATUM(0);
	values[2] = PointerGetDatum(print_rights(rights));
	values[3] = PointerGetDatum(hash);
	values[4] = PG_GETARG_DATUM(2);
	if (PG_ARGISNULL(2))
		nulls[4] = 'n';
	if (change_tokens("INSERT INTO narinfo.token "
					  "(cache, name, rights, secret_hash, expires, created) "
					  "VALUES ($1, $2, $3, $4, $5, "
					  "pg_catalog.clock_timestamp()) "
					  "ON CONFLICT (cache, name) DO NOTHING",
					  lengthof(types), types, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("cache \"%s\" has a token \"%s\" already", cache.name,
						TextDatumGetCString(values[1])),
				 errhint("narinfo.revoke_token() takes that one away.")));
	PG_RETURN_TEXT_P(token);
}

/* revoke_token(name text, cache text) -> boolean */
Datum
revoke_token(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	CacheInfo	cache;

	cache_require(TextDatumGetCString(values[1]), &cache);
	PG_RETURN_BOOL(change_tokens("DELETE FROM narinfo.token "
								 "WHERE name = $1 AND cache = $2",
								 lengthof(types), types, values, NULL) > 0);
}

/*-------------------------------------------------------------------------
 * Remembering
 *-------------------------------------------------------------------------
 */

static void
start_known(MemoryContext context)
{
	HASHCTL		control;

	control.keysize = CACHE_NAME_MAX + 1;
	control.entrysize = sizeof(KnownCache);
	control.hcxt = context;
	known = hash_create("narinfo tokens", 16, &control,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Room for one more token of a cache. */
static KnownToken *
add_token(const char *cache, MemoryContext context)
{
	bool		found;
	KnownCache *entry = hash_search(known, cache, HASH_ENTER, &found);

	if (!found)
	{
		entry->ntokens = 0;
		entry->max = 4;
		entry->tokens = MemoryContextAlloc(context, sizeof(KnownToken) * 4);
	}
	else if (entry->ntokens == entry->max)
	{
		entry->max *= 2;
		entry->tokens = repalloc(entry->tokens,
								 sizeof(KnownToken) * (Size) entry->max);
	}
	return &entry->tokens[entry->ntokens++];
}

static void
read_row(TupleTableSlot *slot, MemoryContext context)
{
	bool		isnull;
	char	   *cache;
	bytea	   *hash;
	ArrayType  *array;
	KnownToken *token;
	Datum		expires;
	char	   *strange;
	bool		sorted;

	cache = TextDatumGetCString(slot_getattr(slot, COLUMN_CACHE, &isnull));
	hash = DatumGetByteaPP(slot_getattr(slot, COLUMN_SECRET_HASH, &isnull));
	array = DatumGetArrayTypeP(slot_getattr(slot, COLUMN_RIGHTS, &isnull));
	expires = slot_getattr(slot, COLUMN_EXPIRES, &isnull);
	if (strlen(cache) > CACHE_NAME_MAX ||
		VARSIZE_ANY_EXHDR(hash) != TOKEN_HASH_BYTES)
		return;
	token = add_token(cache, context);
	memcpy(token->hash, VARDATA_ANY(hash), TOKEN_HASH_BYTES);
	token->rights = read_rights(array, &strange, &sorted);
	token->expires = isnull ? DT_NOEND : DatumGetTimestampTz(expires);
}

/* They stay until the next invalidation; NULL: there are none. */
static const KnownCache *
find_tokens(const char *cache)
{
	static Remembered rows = {
		.table = "token", .start = start_known, .read_row = read_row
	};

	remember_rows(&rows);
	return strlen(cache) > CACHE_NAME_MAX ? NULL :
		hash_search(known, cache, HASH_FIND, NULL);
}

bool
token_any(const char *cache)
{
	return find_tokens(cache) != NULL;
}

/* All are looked at, whichever it is. */
bool
token_find(const char *cache, const uint8 hash[TOKEN_HASH_BYTES],
		   uint32 *rights, TimestampTz *expires)
{
	const KnownCache *found = find_tokens(cache);
	const KnownToken *token = NULL;

	for (int i = 0; found != NULL && i < found->ntokens; i++)
	{
		if (sodium_memcmp(found->tokens[i].hash, hash, TOKEN_HASH_BYTES) == 0)
			token = &found->tokens[i];
	}
	if (token == NULL)
		return false;
	*rights = token->rights;
	*expires = token->expires;
	return true;
}
