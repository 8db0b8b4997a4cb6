/*-------------------------------------------------------------------------
 *
 * compare.c
 *	  Which rows of this site differ from those of another one.
 *
 *	  here								there, one repeatable snapshot
 *	  ----------------------------------------------------------------------
 *	  our last number
 *										its last number; what events behind
 *										the lesser of both have changed;
 *										a digest for each bucket of paths
 *	  buckets that differ
 *										hash and digest of each row of these
 *	  rows that differ, but for those
 *	  that events behind the lesser
 *	  number have changed, on either
 *	  side
 *
 * A bucket has about 256 paths, so a damaged row costs the digests of the
 * buckets and 256 rows.  Rows of the other tables of a cache are few: they are
 * compared one by one, unless events are changing them.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/compare.h"

#include "utils/builtins.h"

#include "sites/local.h"

#define BUCKET_PATHS 256
#define BUCKET_BITS_MAX 16

#define PATH_KINDS "('publish', 'replace', 'retract')"

const SmallTable small_tables[] = {
	{"cache", "name", "t.name"},
	{"key", "cache", "t.public_key"},
	{"token", "cache", "t.name"},
	{"root", "cache",
		"concat_ws(' ', t.name, t.generation, t.path::text)"},
	{"root_source", "cache", "t.name"},
	{"quota", "cache", "concat_ws(' ', t.owner, t.environment)"}
};

const int	small_tables_count = lengthof(small_tables);

/* What we know of one cache while we compare it. */
typedef struct Comparing
{
	Remote	   *remote;
	const char *cache;
	const char *least;			/* the lesser number */
	const char *bits;
	const char *touched;		/* hash parts there, a JSON array */
	bool		others_touched; /* events of other tables there */
} Comparing;

static const char *
choose_bits(const char *cache)
{
	int64		n = pg_strtoint64(local_ask("SELECT count(*) "
											"FROM narinfo.valid_path AS v "
											"WHERE v.cache = $1", 1, &cache));
	int			bits = 0;

	while (bits < BUCKET_BITS_MAX && (n >> bits) > BUCKET_PATHS)
		bits++;
	return psprintf("%d", bits);
}

static void
begin_remote(Comparing *comparing, const char *seq)
{
	const char *params[] = {comparing->cache, seq};

	(void) remote_query(comparing->remote,
						"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
						0, NULL);
	comparing->least = remote_ask(comparing->remote,
								  "SELECT least($2::bigint, narinfo.last_event($1))",
								  2, params);
	params[1] = comparing->least;
	comparing->touched =
		remote_ask(comparing->remote,
				   "SELECT coalesce(jsonb_agg(DISTINCT e.hash::text), '[]') "
				   "FROM narinfo.event AS e WHERE e.cache = $1 "
				   "AND e.seq > $2::bigint AND e.kind IN " PATH_KINDS,
				   2, params);
	comparing->others_touched =
		remote_query(comparing->remote,
					 "SELECT FROM narinfo.event AS e WHERE e.cache = $1 "
					 "AND e.seq > $2::bigint AND e.kind NOT IN " PATH_KINDS
					 " LIMIT 1", 2, params) > 0;
}

/*-------------------------------------------------------------------------
 * Paths
 *-------------------------------------------------------------------------
 */

static const char *
differing_buckets(Comparing *comparing)
{
	const char *params[] = {comparing->cache, comparing->bits, NULL};
	char	   *buckets;

	params[2] = remote_ask(comparing->remote,
						   "SELECT coalesce(jsonb_object_agg(b.b, b.d), '{}') "
						   "FROM (SELECT narinfo.site_bucket(v.hash, $2::int), "
						   "encode(narinfo.sum_digest(narinfo.row_digest(v)), "
						   "'hex') FROM narinfo.valid_path AS v "
						   "WHERE v.cache = $1 GROUP BY 1) AS b (b, d)",
						   2, params);
	buckets = local_ask("SELECT "
						"array_agg(coalesce(o.b::text, t.key)::int)::text "
						"FROM (SELECT narinfo.site_bucket(v.hash, $2::int), "
						"encode(narinfo.sum_digest(narinfo.row_digest(v)), "
						"'hex') FROM narinfo.valid_path AS v "
						"WHERE v.cache = $1 GROUP BY 1) AS o (b, d) "
						"FULL JOIN jsonb_each_text($3::jsonb) AS t "
						"ON t.key = o.b::text "
						"WHERE o.d IS DISTINCT FROM t.value", 3, params);
	local_commit();
	return buckets;
}

static void
compare_paths(Comparing *comparing)
{
	const char *buckets = differing_buckets(comparing);
	const char *params[] = {
		comparing->cache, comparing->bits, buckets, NULL,
		comparing->least, comparing->touched
	};

	if (buckets == NULL)
		return;
	params[3] = remote_ask(comparing->remote,
						   "SELECT coalesce(jsonb_object_agg(v.hash::text, "
						   "encode(narinfo.row_digest(v), 'hex')), '{}') "
						   "FROM narinfo.valid_path AS v WHERE v.cache = $1 "
						   "AND narinfo.site_bucket(v.hash, $2::int) = "
						   "ANY ($3::int[])", 3, params);
	local_sql("INSERT INTO narinfo.site_difference "
			  "(cache, table_name, key, kind) "
			  "SELECT $1, 'valid_path', coalesce(o.h, t.key), "
			  "CASE WHEN o.h IS NULL THEN 'missing' "
			  "WHEN t.key IS NULL THEN 'extra' ELSE 'different' END "
			  "FROM (SELECT v.hash::text, encode(narinfo.row_digest(v), 'hex') "
			  "FROM narinfo.valid_path AS v WHERE v.cache = $1 "
			  "AND narinfo.site_bucket(v.hash, $2::int) "
			  "= ANY " LOCAL_ARRAY("$3", "int[]") ") "
			  "AS o (h, d) FULL JOIN jsonb_each_text($4::jsonb) AS t "
			  "ON t.key = o.h WHERE o.d IS DISTINCT FROM t.value "
			  "AND coalesce(o.h, t.key) NOT IN "
			  "(SELECT jsonb_array_elements_text($6::jsonb)) "
			  "AND coalesce(o.h, t.key) NOT IN "
			  "(SELECT e.hash::text FROM narinfo.event AS e "
			  "WHERE e.cache = $1 AND e.seq > $5::bigint "
			  "AND e.hash IS NOT NULL)", 6, params);
	local_commit();
}

/*-------------------------------------------------------------------------
 * Other tables
 *-------------------------------------------------------------------------
 */

static void
compare_small(Comparing *comparing, const SmallTable *table)
{
	const char *params[] = {comparing->cache, NULL, comparing->least};
	char	   *rows =
	psprintf("SELECT %s AS k, encode(narinfo.row_digest(t), 'hex') AS d "
			 "FROM narinfo.%s AS t WHERE t.%s = $1",
			 table->key, table->name, table->cache_column);

	params[1] = remote_ask(comparing->remote,
						   psprintf("SELECT coalesce(jsonb_object_agg(r.k, r.d), "
									"'{}') FROM (%s) AS r", rows), 1, params);
	local_sql(psprintf("INSERT INTO narinfo.site_difference "
					   "(cache, table_name, key, kind) "
					   "SELECT $1, '%s', coalesce(o.k, t.key), "
					   "CASE WHEN o.k IS NULL THEN 'missing' "
					   "WHEN t.key IS NULL THEN 'extra' ELSE 'different' END "
					   "FROM (%s) AS o FULL JOIN jsonb_each_text($2::jsonb) "
					   "AS t ON t.key = o.k "
					   "WHERE o.d IS DISTINCT FROM t.value AND NOT EXISTS "
					   "(SELECT FROM narinfo.event AS e WHERE e.cache = $1 "
					   "AND e.seq > $3::bigint AND e.kind NOT IN " PATH_KINDS
					   ")", table->name, rows), 3, params);
	local_commit();
}

/*-------------------------------------------------------------------------
 * All of it
 *-------------------------------------------------------------------------
 */

void
compare_cache(Remote *remote, const char *cache)
{
	Comparing	comparing = {.remote = remote, .cache = cache};
	const char *seq = local_ask("SELECT narinfo.last_event($1)", 1, &cache);

	comparing.bits = choose_bits(cache);
	local_sql("DELETE FROM narinfo.site_difference AS d WHERE d.cache = $1",
			  1, &cache);
	local_commit();
	begin_remote(&comparing, seq);
	compare_paths(&comparing);
	for (int i = 0; i < small_tables_count && !comparing.others_touched; i++)
		compare_small(&comparing, &small_tables[i]);
}

uint64
compare_problem_caches(char ***caches)
{
	uint64		n = local_sql("SELECT c.cache FROM narinfo.site_cache AS c "
							  "WHERE c.site = narinfo.site_name() "
							  "AND c.problem IS NOT NULL ORDER BY c.cache",
							  0, NULL);

	*caches = palloc(sizeof(char *) * (n + 1));
	for (uint64 i = 0; i < n; i++)
		(*caches)[i] = local_value(i, 0);
	local_commit();
	return n;
}

void
compare_all(Remote *remote)
{
	char	  **caches;
	uint64		n = compare_problem_caches(&caches);

	for (uint64 i = 0; i < n; i++)
	{
		compare_cache(remote, caches[i]);
		(void) remote_query(remote, "COMMIT", 0, NULL);
	}
}
