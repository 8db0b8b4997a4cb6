--
-- nar_hash: an algorithm and a digest
--
SET search_path = narinfo, public;

-- the empty string in every notation
SELECT value::nar_hash, algorithm(value::nar_hash),
	length(digest(value::nar_hash)) AS bytes,
	digest(value::nar_hash) = CASE algorithm(value::nar_hash)
		WHEN 'md5' THEN decode(md5(''), 'hex')
		WHEN 'sha256' THEN sha256('')
		WHEN 'sha512' THEN sha512('') END AS right
FROM (VALUES
	('md5:d41d8cd98f00b204e9800998ecf8427e'),
	('md5-1B2M2Y8AsgTpgAmY7PhCfg=='),
	('sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709'),
	('sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk='),
	('sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'),
	('sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855'),
	('sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='),
	('sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='),
	('sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU'),
	('sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e'),
	('sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==')
) AS t (value);

CREATE FUNCTION pg_temp.refused(value text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN format('accepted: %s', value::narinfo.nar_hash);
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END
$$;

SELECT value, pg_temp.refused(value)
FROM (VALUES (''), ('sha256'), ('sha256:'), ('sha256-'), ('sha3:00'),
	('SHA256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c7'),
	('sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c733'),
	('sha256:emdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('sha256:zmdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'),
	('sha256-0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('sha512-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='),
	('sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=='),
	('sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73 '),
	('sha256: 0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73')
) AS t (value);
SELECT nar_hash 'nonsense';

-- operators: algorithm, then digest
SELECT row_number() OVER () AS row, a < b AS lt, a <= b AS le, a = b AS eq,
	a <> b AS ne, a >= b AS ge, a > b AS gt, nar_hash_cmp(a, b) > 0 AS cmp
FROM (VALUES
	(nar_hash 'md5:ffffffffffffffffffffffffffffffff',
	 nar_hash 'sha1:0000000000000000000000000000000000000000'),
	('sha256:0000000000000000000000000000000000000000000000000000',
	 'sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=='),
	('sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
	 'sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73'),
	('md5:00000000000000000000000000000001',
	 'md5:00000000000000000000000000000000'),
	('md5:10000000000000000000000000000000',
	 'md5:0fffffffffffffffffffffffffffffff')
) AS t (a, b);

-- casts
SELECT 'md5:d41d8cd98f00b204e9800998ecf8427e'::text::nar_hash::text;
CREATE TEMP TABLE assigned (t text);
INSERT INTO assigned VALUES (nar_hash 'md5-1B2M2Y8AsgTpgAmY7PhCfg==');
SELECT * FROM assigned;

-- many: four algorithms, some with more in common than an abbreviated key has
CREATE TABLE nar_hashes AS
	SELECT i, CASE i % 4
		WHEN 0 THEN 'md5:' || md5(i::text)
		WHEN 1 THEN 'sha1:0102030405060708' || substr(md5(i::text), 1, 24)
		WHEN 2 THEN 'sha256:' || encode(sha256(i::text::bytea), 'hex')
		ELSE 'sha512:' || encode(sha512(i::text::bytea), 'hex')
		END::nar_hash AS hash
	FROM generate_series(1, 20000) AS i;
INSERT INTO nar_hashes SELECT i + 20000, hash FROM nar_hashes
	WHERE i <= 5000;
ANALYZE nar_hashes;

SELECT count(*), count(DISTINCT hash), count(DISTINCT hash::text)
FROM nar_hashes;

SET work_mem = '64kB';
SELECT array_agg(i ORDER BY hash, i)
	= array_agg(i ORDER BY length(digest(hash)), digest(hash), i) AS sorted,
	array_agg(i ORDER BY hash DESC, i)
	= array_agg(i ORDER BY length(digest(hash)) DESC, digest(hash) DESC, i)
	AS backwards
FROM nar_hashes;
RESET work_mem;

SELECT count(*) AS wrong FROM nar_hashes
WHERE nar_hash_hash(hash)::bigint & 4294967295
	<> nar_hash_hash_extended(hash, 0) & 4294967295
	OR nar_hash_hash_extended(hash, 1) = nar_hash_hash_extended(hash, 0);
SELECT count(DISTINCT nar_hash_hash_extended(hash, 0)) AS without,
	count(DISTINCT nar_hash_hash_extended(hash, 12345678901)) AS seeded
FROM nar_hashes;
-- one value in several notations has one hash
SELECT nar_hash_hash(a) = nar_hash_hash(b) AS same
FROM (SELECT nar_hash 'sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855' AS a,
	nar_hash 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU' AS b) AS t;

-- indexes
CREATE INDEX nar_hashes_btree ON nar_hashes (hash);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT i FROM nar_hashes
	WHERE hash = ('md5:' || md5('8'))::nar_hash;
SELECT i FROM nar_hashes WHERE hash = ('md5:' || md5('8'))::nar_hash
	ORDER BY i;
DROP INDEX nar_hashes_btree;
CREATE INDEX nar_hashes_hash ON nar_hashes USING hash (hash);
EXPLAIN (COSTS OFF) SELECT i FROM nar_hashes
	WHERE hash = ('md5:' || md5('8'))::nar_hash;
SELECT i FROM nar_hashes WHERE hash = ('md5:' || md5('8'))::nar_hash
	ORDER BY i;
DROP INDEX nar_hashes_hash;
RESET enable_seqscan;
RESET enable_bitmapscan;

SET enable_nestloop = off;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT count(*)
	FROM nar_hashes AS a JOIN nar_hashes AS b USING (hash);
SELECT count(*) FROM nar_hashes AS a JOIN nar_hashes AS b USING (hash);
SET enable_hashjoin = off;
SET enable_mergejoin = on;
SELECT count(*) FROM nar_hashes AS a JOIN nar_hashes AS b USING (hash);
RESET enable_hashjoin;
RESET enable_nestloop;

-- binary: the text
SELECT convert_from(nar_hash_send('md5-1B2M2Y8AsgTpgAmY7PhCfg=='), 'UTF8');
CREATE TABLE nar_hashes_again (LIKE nar_hashes);
\copy nar_hashes to program 'cat >"$PG_ABS_BUILDDIR/results/nar_hash.bin"' with (format binary)
\copy nar_hashes_again from program 'cat "$PG_ABS_BUILDDIR/results/nar_hash.bin"' with (format binary)
SELECT count(*), count(*) FILTER (WHERE a.hash = b.hash
	AND a.hash::text = b.hash::text) AS same
FROM nar_hashes AS a JOIN nar_hashes_again AS b USING (i);
DROP TABLE nar_hashes_again, nar_hashes;
