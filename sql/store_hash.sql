--
-- store_hash: 20 bytes, 32 nix32 digits
--
SET search_path = narinfo, public;

SELECT store_hash 'h3ls035wybjcycm8jbknkwlixwzfr0rj' AS hash;
SELECT store_hash '00000000000000000000000000000000' AS lowest,
	store_hash 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz' AS highest;

-- what it is not; and once with everything that is said
CREATE FUNCTION pg_temp.refused(value text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN format('accepted: %s', value::narinfo.store_hash);
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END
$$;

SELECT value, pg_temp.refused(value)
FROM (VALUES (''), ('h3ls035wybjcycm8jbknkwlixwzfr0r'),
	('h3ls035wybjcycm8jbknkwlixwzfr0rjj'),
	('e3ls035wybjcycm8jbknkwlixwzfr0rj'),
	('o3ls035wybjcycm8jbknkwlixwzfr0rj'),
	('u3ls035wybjcycm8jbknkwlixwzfr0rj'),
	('t3ls035wybjcycm8jbknkwlixwzfr0rj'),
	('H3ls035wybjcycm8jbknkwlixwzfr0rj'),
	(' 3ls035wybjcycm8jbknkwlixwzfr0rj'),
	('h3ls035wybjcycm8jbknkwlixwzfr0r-'),
	('/nix/store/h3ls035wybjcycm8jbknkwlixwzfr0rj-diamond-top')) AS t (value);
SELECT store_hash 'nonsense';

-- operators
SELECT a, b, a < b AS lt, a <= b AS le, a = b AS eq, a <> b AS ne,
	a >= b AS ge, a > b AS gt, store_hash_cmp(a, b) AS cmp
FROM (VALUES
	(store_hash '00000000000000000000000000000000',
	 store_hash '00000000000000000000000000000001'),
	('00000000000000000000000000000001', '00000000000000000000000000000001'),
	('10000000000000000000000000000000', '0zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz'),
	('9zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz', 'a0000000000000000000000000000000')
) AS t (a, b);

-- casts
SELECT 'h3ls035wybjcycm8jbknkwlixwzfr0rj'::text::store_hash::text;
SELECT '/nix/store/h3ls035wybjcycm8jbknkwlixwzfr0rj-diamond-top'::store_path
	::store_hash;
CREATE TEMP TABLE assigned (t text, h store_hash);
INSERT INTO assigned VALUES (
	store_hash 'h3ls035wybjcycm8jbknkwlixwzfr0rj',
	store_path '/gnu/store/kcklzwj4wb9jax6vzinwpqh6wkgjvp21-x');
SELECT * FROM assigned;

-- many, of which some share more bytes than an abbreviated key has
CREATE TABLE store_hashes AS
	SELECT i, (CASE i % 10 WHEN 0 THEN '0123456789abcdfgh'
			|| substr(translate(md5(i::text), 'e', 'z'), 18)
		ELSE translate(md5(i::text), 'e', 'z') END)::store_hash AS hash
	FROM generate_series(1, 20000) AS i;
INSERT INTO store_hashes SELECT i + 20000, hash FROM store_hashes
	WHERE i <= 5000;
ANALYZE store_hashes;

SELECT count(*), count(DISTINCT hash), count(DISTINCT hash::text)
FROM store_hashes;

SET work_mem = '64kB';
SELECT array_agg(hash::text ORDER BY hash, i)
	= array_agg(hash::text ORDER BY hash::text COLLATE "C", i) AS sorted,
	array_agg(i ORDER BY hash DESC, i)
	= array_agg(i ORDER BY hash::text COLLATE "C" DESC, i) AS backwards
FROM store_hashes;
RESET work_mem;

-- hashes: those of equal values are equal, the seed counts, and the plain one
-- is the lower half of the other without a seed
SELECT count(*) AS wrong FROM store_hashes
WHERE store_hash_hash(hash)::bigint & 4294967295
	<> store_hash_hash_extended(hash, 0) & 4294967295
	OR store_hash_hash_extended(hash, 1) = store_hash_hash_extended(hash, 0);
SELECT count(DISTINCT store_hash_hash_extended(hash, 0)) AS without,
	count(DISTINCT store_hash_hash_extended(hash, 7)) AS seeded,
	count(DISTINCT store_hash_hash(hash)) > 14900 AS spread
FROM store_hashes WHERE i <= 15000;

-- indexes
CREATE INDEX store_hashes_btree ON store_hashes (hash);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT i FROM store_hashes
	WHERE hash = translate(md5('7'), 'e', 'z')::store_hash;
SELECT i FROM store_hashes
	WHERE hash = translate(md5('7'), 'e', 'z')::store_hash ORDER BY i;
EXPLAIN (COSTS OFF) SELECT hash FROM store_hashes
	WHERE hash >= store_hash 'zz000000000000000000000000000000'
	ORDER BY hash;
SELECT count(*),
	count(*) = (SELECT count(*) FROM store_hashes
		WHERE hash::text COLLATE "C" >= 'zz') AS same
FROM store_hashes
WHERE hash >= store_hash 'zz000000000000000000000000000000';
DROP INDEX store_hashes_btree;
CREATE INDEX store_hashes_hash ON store_hashes USING hash (hash);
EXPLAIN (COSTS OFF) SELECT i FROM store_hashes
	WHERE hash = translate(md5('7'), 'e', 'z')::store_hash;
SELECT i FROM store_hashes
	WHERE hash = translate(md5('7'), 'e', 'z')::store_hash ORDER BY i;
DROP INDEX store_hashes_hash;
RESET enable_seqscan;
RESET enable_bitmapscan;

-- joins
SET enable_nestloop = off;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT count(*)
	FROM store_hashes AS a JOIN store_hashes AS b USING (hash);
SELECT count(*) FROM store_hashes AS a JOIN store_hashes AS b USING (hash);
SET enable_hashjoin = off;
SET enable_mergejoin = on;
EXPLAIN (COSTS OFF) SELECT count(*)
	FROM store_hashes AS a JOIN store_hashes AS b USING (hash);
SELECT count(*) FROM store_hashes AS a JOIN store_hashes AS b USING (hash);
RESET enable_hashjoin;
RESET enable_nestloop;

-- partitions by hash use the seed
CREATE TABLE parted (hash store_hash) PARTITION BY HASH (hash);
CREATE TABLE parted_0 PARTITION OF parted
	FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_1 PARTITION OF parted
	FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parted SELECT hash FROM store_hashes;
SELECT count(*), count(*) FILTER (WHERE tableoid = 'parted_0'::regclass)
	BETWEEN 12000 AND 13000 AS halved FROM parted;
DROP TABLE parted;

-- binary: 20 bytes, most significant first
SELECT store_hash_send('00000000000000000000000000000001'),
	store_hash_send('zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0');
CREATE TABLE store_hashes_again (LIKE store_hashes);
\copy store_hashes to program 'cat >"$PG_ABS_BUILDDIR/results/store_hash.bin"' with (format binary)
\copy store_hashes_again from program 'cat "$PG_ABS_BUILDDIR/results/store_hash.bin"' with (format binary)
SELECT count(*), count(*) FILTER (WHERE a.hash = b.hash
	AND a.hash::text = b.hash::text) AS same
FROM store_hashes AS a JOIN store_hashes_again AS b USING (i);
DROP TABLE store_hashes_again, store_hashes;
