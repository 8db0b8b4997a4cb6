/*-------------------------------------------------------------------------
 *
 * root_pin.c
 *	  pin(), pin_file() and unpin(): the rows of narinfo.root.
 *
 *	  check the arguments, the owner, the paths
 *	  lock the name, so that its generations come one after the other
 *	  the newest generation, seen with a fresh snapshot:
 *		  has these paths:	its attributes become those that were given
 *		  else:				these paths are the next generation
 *	  remove the generations of the name that count no more
 *
 * What the gate wants of pins (root_rule.c) it checks at the end of the
 * transaction, whoever has written the rows; a path that is not valid is told
 * here already, since it is known here.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/root.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "graph/root_query.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(root_pin);
PG_FUNCTION_INFO_V1(root_pin_file);
PG_FUNCTION_INFO_V1(root_unpin);

/* The attributes of a generation, in the order of the functions' arguments. */
enum
{
	ATTRIBUTE_OWNER,
	ATTRIBUTE_ENVIRONMENT,
	ATTRIBUTE_EXPIRES,
	ATTRIBUTE_WANTED,
	ATTRIBUTE_KEEP_LAST,
	ATTRIBUTE_KEEP_FOR,
	ATTRIBUTES
};

/* Arguments of both pin() and pin_file() that stand before the attributes. */
#define ARGUMENTS_BEFORE 2

typedef struct Pinning
{
	CacheInfo	cache;
	char	   *name;
	char	   *owner;
	bool		wanted;
	Datum		attributes[ATTRIBUTES];
	bool		nulls[ATTRIBUTES];
	Datum	   *paths;			/* store_path */
	int			n;
} Pinning;

static RootQuery newest_query = {
	.sql = "SELECT generation, path, owner FROM narinfo.root "
	"WHERE cache = $1 AND name = $2 AND generation = (SELECT max(generation) "
	"FROM narinfo.root WHERE cache = $1 AND name = $2) ORDER BY path",
	.types = "tt"
};

static RootQuery insert_query = {
	.sql = "INSERT INTO narinfo.root (cache, name, generation, path, owner, "
	"environment, expires, wanted, keep_last, keep_for, pinned_at) "
	"SELECT $1, $2, $3, p, $5, $6, $7, $8, $9, $10, now() "
	"FROM unnest($4) AS p",
	.types = "ttiPttzbiv"
};

static RootQuery update_query = {
	.sql = "UPDATE narinfo.root SET owner = $4, environment = $5, "
	"expires = $6, wanted = $7, keep_last = $8, keep_for = $9 "
	"WHERE cache = $1 AND name = $2 AND generation = $3 "
	"AND (owner, environment, expires, wanted, keep_last, keep_for) "
	"IS DISTINCT FROM ($4, $5, $6, $7, $8, $9)",
	.types = "ttittzbiv"
};

static RootQuery owners_query = {
	.sql = "SELECT DISTINCT owner FROM narinfo.root "
	"WHERE cache = $1 AND name = $2 AND ($3 IS NULL OR generation = $3) "
	"AND ($4 IS NULL OR path = $4)",
	.types = "ttip"
};

static RootQuery delete_query = {
	.sql = "DELETE FROM narinfo.root "
	"WHERE cache = $1 AND name = $2 AND ($3 IS NULL OR generation = $3) "
	"AND ($4 IS NULL OR path = $4)",
	.types = "ttip"
};

/*-------------------------------------------------------------------------
 * Who may
 *-------------------------------------------------------------------------
 */

/*
 * Pins of an owner are made and removed by the role of this name, its members,
 * and those of narinfo_admin; else quotas and other people's pins would be
 * worth nothing.  The user is the one outside of our functions.
 */
static void
check_owner(const char *owner)
{
	Oid			user = GetOuterUserId();
	Oid			role = get_role_oid(owner, true);
	Oid			admin = get_role_oid("narinfo_admin", true);

	if ((OidIsValid(role) && has_privs_of_role(user, role)) ||
		(OidIsValid(admin) && has_privs_of_role(user, admin)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for pins of owner \"%s\"", owner),
			 errhint("Their owner, and narinfo_admin, may change them.")));
}

/*-------------------------------------------------------------------------
 * Arguments
 *-------------------------------------------------------------------------
 */

static char *
get_text_argument(FunctionCallInfo fcinfo, int number, const char *what)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of a pin must not be NULL", what)));
	return text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
get_arguments(FunctionCallInfo fcinfo, int cache_number, Pinning *pinning)
{
	pinning->name = get_text_argument(fcinfo, 0, "name");
	cache_require(get_text_argument(fcinfo, cache_number, "cache"),
				  &pinning->cache);
	for (int i = 0; i < ATTRIBUTES; i++)
	{
		pinning->attributes[i] = PG_GETARG_DATUM(ARGUMENTS_BEFORE + i);
		pinning->nulls[i] = PG_ARGISNULL(ARGUMENTS_BEFORE + i);
	}
	pinning->owner = pinning->nulls[ATTRIBUTE_OWNER] ?
		GetUserNameFromId(GetOuterUserId(), false) :
		TextDatumGetCString(pinning->attributes[ATTRIBUTE_OWNER]);
	pinning->attributes[ATTRIBUTE_OWNER] = CStringGetTextDatum(pinning->owner);
	pinning->nulls[ATTRIBUTE_OWNER] = false;
	pinning->wanted = !pinning->nulls[ATTRIBUTE_WANTED] &&
		DatumGetBool(pinning->attributes[ATTRIBUTE_WANTED]);
	pinning->attributes[ATTRIBUTE_WANTED] = BoolGetDatum(pinning->wanted);
	pinning->nulls[ATTRIBUTE_WANTED] = false;
	if (!pinning->nulls[ATTRIBUTE_EXPIRES] &&
		DatumGetTimestampTz(pinning->attributes[ATTRIBUTE_EXPIRES]) <=
		GetCurrentTransactionStartTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the pin would have expired by now")));
	check_owner(pinning->owner);
}

/* Those of the one argument, or of the other, or of both. */
static void
get_paths(FunctionCallInfo fcinfo, int path_number, int array_number,
		  Pinning *pinning)
{
	ArrayType  *array = PG_ARGISNULL(array_number) ? NULL :
	PG_GETARG_ARRAYTYPE_P(array_number);
	Datum	   *elements = NULL;
	bool	   *nulls = NULL;
	int			n = 0;

	if (array)
		deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_INT,
						  &elements, &nulls, &n);
	pinning->paths = palloc_extended(sizeof(Datum) * ((Size) n + 1),
									 MCXT_ALLOC_HUGE);
	pinning->n = 0;
	if (!PG_ARGISNULL(path_number))
		pinning->paths[pinning->n++] = PG_GETARG_DATUM(path_number);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("path %d of %d is NULL", i + 1, n)));
		pinning->paths[pinning->n++] = elements[i];
	}
}

/*-------------------------------------------------------------------------
 * A list of paths
 *-------------------------------------------------------------------------
 */

/* How many lines a text has, to allocate for. */
static Size
count_lines(Span text)
{
	Size		n = 1;

	for (size_t i = 0; i < text.len; i++)
		n += text.data[i] == '\n';
	return n;
}

static void
refuse_line(uint32 number, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid list of store paths: line %u: %s", number,
					message),
			 errhint("Each line is a full store path, or empty.")));
}

static void
read_lines(Span text, Pinning *pinning)
{
	uint32		number = 0;

	pinning->paths = palloc_extended(sizeof(Datum) * count_lines(text),
									 MCXT_ALLOC_HUGE);
	pinning->n = 0;
	while (text.len > 0)
	{
		const char *end = memchr(text.data, '\n', text.len);
		size_t		len = end ? (size_t) (end - text.data) : text.len;
		Span		line = span_of(text.data, len);
		StorePath	path;
		ParseError	error;

		CHECK_FOR_INTERRUPTS();
		number++;
		text.data += end ? len + 1 : len;
		text.len -= end ? len + 1 : len;
		if (line.len == 0)
			continue;
		if (!store_path_parse(line, &path, &error))
			refuse_line(number, error.message);
		pinning->paths[pinning->n++] =
			PointerGetDatum(store_path_make(&path));
	}
}

/*-------------------------------------------------------------------------
 * Paths
 *-------------------------------------------------------------------------
 */

static StorePath
parts_of(Datum path)
{
	return store_path_parts(PG_DETOAST_DATUM_PACKED(path));
}

/* The order of the type, but for what no cache can have both of. */
static int
compare_paths(const void *a, const void *b)
{
	StorePath	one = parts_of(*(const Datum *) a);
	StorePath	other = parts_of(*(const Datum *) b);

	return memcmp(one.hash, other.hash, STORE_HASH_LEN);
}

static bool
same_path(const StorePath *a, const StorePath *b)
{
	return memcmp(a->hash, b->hash, STORE_HASH_LEN) == 0 &&
		span_equal(a->name, b->name) && span_equal(a->dir, b->dir);
}

static char *
print_path(const StorePath *path)
{
	size_t		len = store_path_len(path);
	char	   *text = palloc(len + 1);

	store_path_print(path, text);
	text[len] = '\0';
	return text;
}

static void
check_store_dir(const Pinning *pinning, const StorePath *path)
{
	Span		dir = span_of(pinning->cache.store_dir,
							  strlen(pinning->cache.store_dir));

	if (!span_equal(path->dir, dir))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_REFUSED),
				 errmsg("%s is not in the store directory of cache \"%s\", %s",
						print_path(path), pinning->cache.name,
						pinning->cache.store_dir)));
}

/* In the order of the hashes, and each once. */
static void
sort_paths(Pinning *pinning)
{
	int			kept = 0;

	if (pinning->n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no path to pin as \"%s\"", pinning->name)));
	qsort(pinning->paths, (size_t) pinning->n, sizeof(Datum), compare_paths);
	for (int i = 0; i < pinning->n; i++)
	{
		StorePath	path = parts_of(pinning->paths[i]);
		StorePath	last;

		CHECK_FOR_INTERRUPTS();
		check_store_dir(pinning, &path);
		if (kept > 0)
			last = parts_of(pinning->paths[kept - 1]);
		if (kept > 0 &&
			memcmp(last.hash, path.hash, STORE_HASH_LEN) == 0)
		{
			if (!same_path(&last, &path))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("%s and %s cannot both be pinned",
								print_path(&last), print_path(&path)),
						 errdetail("A cache has one path of a hash.")));
			continue;
		}
		pinning->paths[kept++] = pinning->paths[i];
	}
	pinning->n = kept;
}

/* Is it there, under this name? */
static bool
is_there(ValidPathScan *scan, const char *cache, const StorePath *path,
		 char **other)
{
	struct varlena *info = valid_path_find(scan, cache, path->hash);
	PackedRefs	refs;
	StorePath	there;

	*other = NULL;
	if (info == NULL)
		return false;
	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &there))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	if (same_path(&there, path))
		return true;
	*other = print_path(&there);
	return false;
}

static void
refuse_path(const Pinning *pinning, const StorePath *path, const char *other)
{
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_BEHIND),
			 errmsg("%s is not valid in cache \"%s\", so it cannot be pinned",
					print_path(path), pinning->cache.name),
			 other ? errdetail("The cache has %s.", other) : 0,
			 other ? 0 :
			 errhint("Publish it first, or pin it with wanted => true.")));
}

/* The gate looks again; this is for the sake of who calls. */
static void
check_there(const Pinning *pinning)
{
	ValidPathScan *scan;

	PushActiveSnapshot(GetLatestSnapshot());
	scan = valid_path_begin();
	for (int i = 0; i < pinning->n; i++)
	{
		StorePath	path = parts_of(pinning->paths[i]);
		char	   *other;

		CHECK_FOR_INTERRUPTS();
		if (!is_there(scan, pinning->cache.name, &path, &other) &&
			(other || !pinning->wanted))
			refuse_path(pinning, &path, other);
	}
	valid_path_end(scan);
	PopActiveSnapshot();
}

/*-------------------------------------------------------------------------
 * Pinning
 *-------------------------------------------------------------------------
 */

/*
 * The newest generation of the name, 0 if there is none; *same tells whether
 * it has exactly these paths.
 */
static int32
read_newest(const Pinning *pinning, Datum *key, bool *same)
{
	int32		generation;

	*same = false;
	root_read_latest(&newest_query, key, NULL);
	if (SPI_processed == 0)
		return 0;
	generation = DatumGetInt32(root_value(0, 1, NULL));
	check_owner(root_text(0, 3));
	*same = SPI_processed == (uint64) pinning->n;
	for (int i = 0; i < pinning->n && *same; i++)
	{
		StorePath	there = parts_of(root_value((uint64) i, 2, NULL));
		StorePath	path = parts_of(pinning->paths[i]);

		*same = same_path(&there, &path);
	}
	SPI_freetuptable(SPI_tuptable);
	return generation;
}

/* Values of the attributes, behind those that are there; their nulls too. */
static void
add_attributes(const Pinning *pinning, Datum *values, char *nulls, int n)
{
	memset(nulls, ' ', (size_t) n);
	for (int i = 0; i < ATTRIBUTES; i++)
	{
		values[n + i] = pinning->attributes[i];
		nulls[n + i] = pinning->nulls[i] ? 'n' : ' ';
	}
}

static void
insert_generation(const Pinning *pinning, Datum *key, int32 generation)
{
	Oid			type = cache_catalog()->store_path_type;
	Datum		values[4 + ATTRIBUTES] = {key[0], key[1]};
	char		nulls[4 + ATTRIBUTES];

	values[2] = Int32GetDatum(generation);
	values[3] = PointerGetDatum(construct_array(pinning->paths, pinning->n,
												type, -1, false,
												TYPALIGN_INT));
	add_attributes(pinning, values, nulls, 4);
	root_change(&insert_query, values, nulls);
}

static void
update_generation(const Pinning *pinning, Datum *key, int32 generation)
{
	Datum		values[3 + ATTRIBUTES] = {key[0], key[1]};
	char		nulls[3 + ATTRIBUTES];

	values[2] = Int32GetDatum(generation);
	add_attributes(pinning, values, nulls, 3);
	root_change(&update_query, values, nulls);
}

static int32
pin_paths(Pinning *pinning)
{
	RootSession session;
	Datum		key[2];
	int32		generation;
	bool		same;

	sort_paths(pinning);
	check_there(pinning);
	(void) root_lock_name(pinning->cache.name, pinning->name, true);
	session = root_begin();
	key[0] = CStringGetTextDatum(pinning->cache.name);
	key[1] = CStringGetTextDatum(pinning->name);
	generation = read_newest(pinning, key, &same);
	if (same)
		update_generation(pinning, key, generation);
	else
		insert_generation(pinning, key, ++generation);
	(void) root_prune_name(pinning->cache.name, pinning->name);
	root_end(session);
	return generation;
}

/*
 * pin(name text, path store_path, owner text, environment text,
 *	   expires timestamptz, wanted boolean, keep_last integer,
 *	   keep_for interval, paths store_path[], cache text) -> integer
 */
Datum
root_pin(PG_FUNCTION_ARGS)
{
	Pinning		pinning;

	get_arguments(fcinfo, 9, &pinning);
	get_paths(fcinfo, 1, 8, &pinning);
	PG_RETURN_INT32(pin_paths(&pinning));
}

/* pin_file(name text, file_text text, …, cache text) -> integer */
Datum
root_pin_file(PG_FUNCTION_ARGS)
{
	Pinning		pinning;
	text	   *list;

	get_arguments(fcinfo, 8, &pinning);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the list of store paths is NULL")));
	list = PG_GETARG_TEXT_PP(1);
	read_lines(span_of(VARDATA_ANY(list), VARSIZE_ANY_EXHDR(list)), &pinning);
	PG_RETURN_INT32(pin_paths(&pinning));
}

/* unpin(name text, generation integer, path store_path, cache text) */
Datum
root_unpin(PG_FUNCTION_ARGS)
{
	char	   *name = get_text_argument(fcinfo, 0, "name");
	Datum		values[4];
	char		nulls[4] = {' ', ' ', ' ', ' '};
	CacheInfo	cache;
	RootSession session;
	int64		removed;

	cache_require(get_text_argument(fcinfo, 3, "cache"), &cache);
	values[0] = CStringGetTextDatum(cache.name);
	values[1] = CStringGetTextDatum(name);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	nulls[2] = PG_ARGISNULL(1) ? 'n' : ' ';
	nulls[3] = PG_ARGISNULL(2) ? 'n' : ' ';

	(void) root_lock_name(cache.name, name, true);
	session = root_begin();
	root_read_latest(&owners_query, values, nulls);
	for (uint64 i = 0; i < SPI_processed; i++)
		check_owner(root_text(i, 1));
	root_change(&delete_query, values, nulls);
	removed = (int64) SPI_processed;
	root_end(session);
	PG_RETURN_INT64(removed);
}
