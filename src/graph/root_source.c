/*-------------------------------------------------------------------------
 *
 * root_source.c
 *	  Sources of roots: queries of the application, and predicates over the
 *	  valid paths.
 *
 * A query runs with the rights of the role that added it, never with those of
 * who collects, nor with those of the extension's owner: whoever may add a
 * source gets no right by it.  It runs
 *
 *	  in a subtransaction that may only read, and cannot stop to
 *	  as a "security-restricted operation", so that it cannot become another
 *		role, nor leave anything behind in the session
 *	  with search_path pg_catalog, narinfo, pg_temp, so that nobody else's
 *		objects are taken for those that were meant
 *	  for pg_narinfo.root_source_timeout at most
 *	  with the snapshot of who asks
 *
 * What fails in it becomes one error that names the source; a cancellation of
 * the statement as a whole stays what it is.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/root_query.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/tuplestore.h"

#include "cache/errors.h"
#include "graph/root.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(add_root_source);
PG_FUNCTION_INFO_V1(drop_root_source);
PG_FUNCTION_INFO_V1(root_source_hashes);

#define KIND_QUERY "query"
#define FETCH 1000				/* rows at once */

static int	source_timeout = 60 * 1000; /* ms */

/* One of these runs at a time. */
static bool running = false;
static TimeoutId timer;
static volatile sig_atomic_t timed_out = false;

/*-------------------------------------------------------------------------
 * What a source asks
 *-------------------------------------------------------------------------
 */

/* Predicates: queries of ours, on a cache and a pattern. */
static const struct
{
	const char *kind;
	const char *query;
}			predicates[] = {

	{"content_addressed",
		"SELECT v.hash FROM narinfo.valid_path AS v WHERE v.cache = $1 "
	"AND narinfo.ca(v.info) IS NOT NULL"},
	{"like",
		"SELECT v.hash FROM narinfo.valid_path AS v WHERE v.cache = $1 AND "
	"narinfo.store_name(narinfo.store_path(v.info)) COLLATE \"C\" LIKE $2"},
	{"regex",
		"SELECT v.hash FROM narinfo.valid_path AS v WHERE v.cache = $1 AND "
	"narinfo.store_name(narinfo.store_path(v.info)) COLLATE \"C\" ~ $2"}
};

static SPIPlanPtr
prepare_source(const RootSource *source)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	const char *query = source->query;
	int			nargs = 0;
	SPIPlanPtr	plan;

	for (size_t i = 0; i < lengthof(predicates); i++)
	{
		if (strcmp(source->kind, predicates[i].kind) == 0)
		{
			query = predicates[i].query;
			nargs = lengthof(types);
		}
	}
	plan = SPI_prepare_cursor(query, nargs, types, CURSOR_OPT_NO_SCROLL);
	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("it cannot be prepared: %s",
						SPI_result_code_string(SPI_result))));
	return plan;
}

/*
 * The role whose rights it has.  Predicates are our own queries, and read what
 * whoever asks for roots is told anyway.
 */
static void
become_owner_of(const RootSource *source)
{
	Oid			role;

	if (strcmp(source->kind, KIND_QUERY) != 0)
	{
		(void) cache_become_owner();
		return;
	}
	role = get_role_oid(source->owner, true);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which added it, does not exist",
						source->owner)));
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

/*-------------------------------------------------------------------------
 * Its rows
 *-------------------------------------------------------------------------
 */

/* A full path, a base name, or a hash part alone. */
static void
read_path_text(const char *text, size_t len, uint8 *hash)
{
	StorePath	path;
	ParseError	error;
	bool		good;

	if (len == STORE_HASH_TEXT_LEN && store_hash_decode(text, hash))
		return;
	good = len > 0 && text[0] == '/' ?
		store_path_parse(span_of(text, len), &path, &error) :
		store_base_name_parse(span_of(text, len), &path, &error);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("it returns \"%.*s\", which is no store path: %s",
						(int) Min(len, 300), text, error.message)));
	memcpy(hash, path.hash, STORE_HASH_LEN);
}

static void
read_value(Oid type, Datum value, uint8 *hash)
{
	const CacheCatalog *catalog = cache_catalog();
	struct varlena *bytes;
	StorePath	path;

	if (type == catalog->store_hash_type)
	{
		memcpy(hash, DatumGetStoreHash(value), STORE_HASH_LEN);
		return;
	}
	bytes = PG_DETOAST_DATUM_PACKED(value);
	if (type != catalog->store_path_type)
	{
		read_path_text(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), hash);
		return;
	}
	path = store_path_parts(bytes);
	memcpy(hash, path.hash, STORE_HASH_LEN);
}

/* Of the one column; raises an error when there are others. */
static Oid
result_type(TupleDesc desc)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			type = desc->natts == 1 ?
	getBaseType(TupleDescAttr(desc, 0)->atttypid) : InvalidOid;

	if (type != catalog->store_path_type && type != catalog->store_hash_type &&
		type != TEXTOID && type != VARCHAROID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("it does not return one column of store_path, store_hash or text")));
	return type;
}

static void
fetch_rows(Portal portal, MemoryContext context, HashList *list)
{
	Oid			type = result_type(portal->tupDesc);

	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			uint8		hash[STORE_HASH_LEN];
			bool		isnull;
			Datum		value = root_value(i, 1, &isnull);
			MemoryContext old;

			CHECK_FOR_INTERRUPTS();
			if (isnull)
				ereport(ERROR,
						(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("it returns NULL")));
			read_value(type, value, hash);
			old = MemoryContextSwitchTo(context);
			hash_list_add(list, hash);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
}

/*-------------------------------------------------------------------------
 * Its limits
 *-------------------------------------------------------------------------
 */

/* A signal handler. */
static void
at_timeout(void)
{
	timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
start_timeout(void)
{
	static bool registered = false;

	if (!registered)
		timer = RegisterTimeout(USER_TIMEOUT, at_timeout);
	registered = true;
	running = true;
	timed_out = false;
	if (source_timeout > 0)
		enable_timeout_after(timer, source_timeout);
}

/*
 * Whether it was reached.  That may have been after the last moment in which
 * anybody looked: then the cancellation is still to come, and is ours.
 */
static bool
end_timeout(void)
{
	disable_timeout(timer, false);
	running = false;
	if (timed_out)
		QueryCancelPending = false;
	return timed_out;
}

/* In the subtransaction, as the role, with SPI: the hashes. */
static void
run_query(const RootSource *source, MemoryContext context, HashList *list)
{
	Datum		values[2];
	char		nulls[] = {' ', source->query ? ' ' : 'n'};
	int			level;
	Portal		portal;

	values[0] = CStringGetTextDatum(source->cache);
	values[1] = source->query ? CStringGetTextDatum(source->query) : (Datum) 0;
	level = root_search_path();
	become_owner_of(source);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	portal = SPI_cursor_open(NULL, prepare_source(source), values, nulls,
							 true);
	fetch_rows(portal, context, list);
	SPI_cursor_close(portal);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	/* whatever it has set is undone */
	AtEOXact_GUC(false, level);
}

/*-------------------------------------------------------------------------
 * Running
 *-------------------------------------------------------------------------
 */

static void
refuse_nesting(const RootSource *source)
{
	if (running)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("root source \"%s\" is asked by another one",
						source->name),
				 errdetail("A source cannot be made of what is a root.")));
}

/* What failed, or NULL when it only took too long. */
static void
report(const RootSource *source, ErrorData *error, bool late)
{
	/* whoever cancelled the statement did not mean the source */
	if (!late && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (late)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_ROOTS),
				 errmsg("root source \"%s\" of cache \"%s\" takes too long",
						source->name, source->cache),
				 errdetail("It may take pg_narinfo.root_source_timeout, %d ms.",
						   source_timeout)));
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_ROOTS),
			 errmsg("root source \"%s\" of cache \"%s\" failed: %s",
					source->name, source->cache, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("Nothing is collected until it works again, or is dropped.")));
}

void
root_source_run(const RootSource *source, HashList *list)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	CacheUser	user;
	bool		late;

	refuse_nesting(source);
	hash_list_init(list);
	GetUserIdAndSecContext(&user.id, &user.context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	start_timeout();
	PG_TRY();
	{
		XactReadOnly = true;
		run_query(source, context, list);
		cache_become_user(user);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	late = end_timeout();
	if (late || error)
		report(source, error, late);
	hash_list_sort(list);
}

/*-------------------------------------------------------------------------
 * The table
 *-------------------------------------------------------------------------
 */

static RootQuery all_query = {
	.sql = "SELECT name, kind::text, query, owner FROM narinfo.root_source "
	"WHERE cache = $1 ORDER BY name",
	.types = "t"
};

static RootQuery add_query = {
	.sql = "INSERT INTO narinfo.root_source (cache, name, kind, query, owner, "
	"environment) VALUES ($1, $2, $3::narinfo.root_source_kind, $4, $5, $6) "
	"ON CONFLICT DO NOTHING",
	.types = "tttttt"
};

static RootQuery drop_query = {
	.sql = "DELETE FROM narinfo.root_source WHERE cache = $1 AND name = $2",
	.types = "tt"
};

static char *
copy_text(uint64 row, int column, MemoryContext context)
{
	char	   *text = root_text(row, column);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

int
root_source_read(const char *cache, RootSource **sources)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		value = CStringGetTextDatum(cache);
	RootSession session = root_begin();
	int			n;

	root_read(&all_query, &value, NULL);
	n = (int) SPI_processed;
	*sources = MemoryContextAlloc(context, sizeof(RootSource) *
								  ((Size) n + 1));
	for (int i = 0; i < n; i++)
	{
		RootSource *source = &(*sources)[i];

		source->cache = MemoryContextStrdup(context, cache);
		source->name = copy_text((uint64) i, 1, context);
		source->kind = copy_text((uint64) i, 2, context);
		source->query = copy_text((uint64) i, 3, context);
		source->owner = copy_text((uint64) i, 4, context);
	}
	root_end(session);
	return n;
}

/* A pattern that would fail when the first path is there fails at once. */
static void
check_pattern(const RootSource *source)
{
	Datum		name = CStringGetTextDatum("x");

	if (strcmp(source->kind, "regex") == 0)
		(void) DirectFunctionCall2Coll(textregexeq, C_COLLATION_OID, name,
									   CStringGetTextDatum(source->query));
}

static void
check_source(const RootSource *source)
{
	bool		is_query = strcmp(source->kind, KIND_QUERY) == 0;
	bool		needs_none = strcmp(source->kind, "content_addressed") == 0;

	if (source->query == NULL && !needs_none)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a source of this kind has a %s",
						is_query ? "query" : "pattern")));
	if (source->query != NULL && needs_none)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a source of kind content_addressed has no query")));
	check_pattern(source);
}

static void
insert_source(const RootSource *source, Datum environment, bool no_environment)
{
	RootSession session = root_begin();
	Datum		values[6];
	char		nulls[] = {' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = CStringGetTextDatum(source->cache);
	values[1] = CStringGetTextDatum(source->name);
	values[2] = CStringGetTextDatum(source->kind);
	if (source->query)
		values[3] = CStringGetTextDatum(source->query);
	else
		nulls[3] = 'n';
	values[4] = CStringGetTextDatum(source->owner);
	values[5] = environment;
	if (no_environment)
		nulls[5] = 'n';
	root_change(&add_query, values, nulls);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("cache \"%s\" has a root source \"%s\" already",
						source->cache, source->name),
				 errhint("narinfo.drop_root_source() removes that one.")));
	root_end(session);
}

/*
 * add_root_source(name text, query text, kind root_source_kind,
 *				   environment text, cache text) -> bigint
 */
Datum
add_root_source(PG_FUNCTION_ARGS)
{
	RootSource	source;
	CacheInfo	cache;
	HashList	list;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, kind and cache of a root source must not be NULL")));
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(4)), &cache);
	source.cache = cache.name;
	source.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	source.kind = DatumGetCString(DirectFunctionCall1(enum_out,
													  PG_GETARG_DATUM(2)));
	source.query = PG_ARGISNULL(1) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	source.owner = GetUserNameFromId(GetOuterUserId(), false);
	check_source(&source);
	insert_source(&source, PG_GETARG_DATUM(3), PG_ARGISNULL(3));
	/* one that has its own row, as it will have */
	PushActiveSnapshot(GetLatestSnapshot());
	root_source_run(&source, &list);
	PopActiveSnapshot();
	PG_RETURN_INT64((int64) list.n);
}

/* drop_root_source(name text, cache text) -> boolean */
Datum
drop_root_source(PG_FUNCTION_ARGS)
{
	Datum		values[] = {PG_GETARG_DATUM(1), PG_GETARG_DATUM(0)};
	CacheInfo	cache;
	RootSession session;
	bool		dropped;

	cache_require(TextDatumGetCString(values[0]), &cache);
	session = root_begin();
	root_change(&drop_query, values, NULL);
	dropped = SPI_processed > 0;
	root_end(session);
	PG_RETURN_BOOL(dropped);
}

/* root_source_hashes(name text, cache text) -> setof store_hash */
Datum
root_source_hashes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CacheInfo	cache;
	RootSource *sources;
	HashList	list = {0};
	int			n;
	int			i = 0;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(1)), &cache);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	n = root_source_read(cache.name, &sources);
	while (i < n && strcmp(sources[i].name, name) != 0)
		i++;
	if (i == n)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cache \"%s\" has no root source \"%s\"", cache.name,
						name)));
	root_source_run(&sources[i], &list);
	for (uint64 j = 0; j < list.n; j++)
	{
		Datum		hash = PointerGetDatum(hash_list_get(&list, j));
		bool		isnull = false;

		CHECK_FOR_INTERRUPTS();
		tuplestore_putvalues(result->setResult, result->setDesc, &hash,
							 &isnull);
	}
	return (Datum) 0;
}

void
root_source_init(void)
{
	DefineCustomIntVariable("pg_narinfo.root_source_timeout",
							"Time that a source of roots may take.",
							"0 is no limit.",
							&source_timeout, 60 * 1000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
}
