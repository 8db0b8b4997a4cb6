--
-- narinfo: the text of a .narinfo file
--
SET search_path = narinfo, public;

\set path 'StorePath: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a-1\n'
\set gnu 'StorePath: /gnu/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a-1\n'
\set url 'URL: nar/x.nar.zst\n'
\set hash 'NarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n'
\set size 'NarSize: 5\n'
\set refs 'References: \n'
\set sig 'Sig: key-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n'
\set signature 'Signature: 1;host;aGFsbG8=\n'
\set minimum :path :url :hash :size
\set guix :gnu :hash :size :refs :signature :url

--
-- Fields
--
CREATE TABLE samples (name text PRIMARY KEY, info narinfo);
INSERT INTO samples SELECT name, value::narinfo FROM (VALUES
('everything', 'StorePath: /nix/store/h3ls035wybjcycm8jbknkwlixwzfr0rj-diamond-top
URL: nar/1vlaqx5i9gpxbmy50xgi7wvx0lvbi94i321m9p4vh4djn6dk4n1q.nar.zst
Compression: zstd
FileHash: sha256:1vlaqx5i9gpxbmy50xgi7wvx0lvbi94i321m9p4vh4djn6dk4n1q
FileSize: 284
NarHash: sha256:0kh657s2g9asdx25sb5z76cwyr880p6k6z5l3mjl0va7cdi0j3ad
NarSize: 456
References: gyv3r6lqf3di56rvb8xh41h9shqiv8bb-diamond-L9-4 h3ls035wybjcycm8jbknkwlixwzfr0rj-diamond-top kcklzwj4wb9jax6vzinwpqh6wkgjvp21-diamond-L9-0
Deriver: a2ggsf1ck2szy5l717ma45mc5hcy2fcj-diamond-top.drv
System: x86_64-linux
Sig: narpg-test-1:9GA0Fr2BwlXNXDuhTrJSaHdUolkLbYvHxTUbwZQanevWdHLBAuCdo7s2i4dyH2vjqcoEgHgXxNnMnbZlZQABDA==
Sig: second.example.org-2:f6rrzz+1vvttuvdLwysgWH9vJVe2gN0ppmBqzBR9tlqiiwj2rxpOt1w/qlA/C2fS7kfBj8Upz3SPzm/kIMp/Ag==
CA: fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73
X-Unknown: kept as it is
'),
('guix', 'StorePath: /gnu/store/921ixqy43yfdrfjy97s3a9kks2csb4c1-gchain-27
NarHash: sha256:08r6ylwh0r03hfwkrm13cn65hm0hmjp9nqkbk5mg5avh324chl0s
NarSize: 176
References: fw0hm80rpcy0lcg169nlx7zi5kxqy46g-gchain-26
Deriver: d5y0xy39kxbr35xw3qdpm0l94hkpz88f-gchain-27.drv
Signature: 1;vm;KHNpZ25hdHVyZSk=
URL: nar/gzip/921ixqy43yfdrfjy97s3a9kks2csb4c1-gchain-27
Compression: gzip
FileSize: 138
URL: nar/lzip/921ixqy43yfdrfjy97s3a9kks2csb4c1-gchain-27
Compression: lzip
FileSize: 148
URL: nar/zstd/921ixqy43yfdrfjy97s3a9kks2csb4c1-gchain-27
Compression: zstd
FileSize: 136
'),
('guix, least', :'guix'),
('least', :'minimum'),
('no references', :'minimum' || :'refs'),
('odd directory', replace(:'minimum', '/nix/store', '/odd/dir')),
('sha512', :'path' || :'url' || 'NarHash: sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==
FileHash: md5:d41d8cd98f00b204e9800998ecf8427e
FileSize: 18446744073709551615
NarSize: 18446744073709551615
')) AS t (name, value);

\x on
SELECT name, kind(info), store_path(info), store_hash(info), url(info),
	urls(info), compression(info), compressions(info), file_hash(info),
	file_size(info), file_sizes(info), nar_hash(info), nar_size(info),
	refs(info), ref_hashes(info), deriver(info), system(info),
	array_length(sigs(info), 1) AS sigs, (sigs(info))[2] AS second_sig,
	ca(info), signature(info)
FROM samples ORDER BY name COLLATE "C";
\x off

-- as they are written
SELECT * FROM fields((SELECT info FROM samples WHERE name = 'guix'))
	WHERE length(value) < 60;
SELECT * FROM fields((:'minimum' || E'Deriver: unknown-deriver\n'
	|| E'X-Any:\ttext: with \\ and "  \nX-Empty: \n: z\nother:y\n')::narinfo);
SELECT name, line, field, value
FROM samples, fields(info)
WHERE name = 'least' ORDER BY line;

-- everything is strict
SELECT kind(NULL::narinfo) IS NULL AND refs(NULL) IS NULL
	AND url(NULL) IS NULL AND nar_size(NULL) IS NULL AS strict;
SELECT count(*) FROM fields(NULL);

--
-- What nix and guix take when a field is repeated: nix the last, guix the
-- first; and what else is not what it seems
--
\set other 'StorePath: /nix/store/0000000000000000000000000000000a-other\n'
SELECT what, kind(info), store_name(store_path(info)) AS name, url(info),
	compression(info), file_size(info), nar_size(info),
	left(digest(nar_hash(info))::text, 6) AS digest,
	array_length(refs(info), 1) AS refs, store_name(deriver(info)) AS deriver,
	system(info)
FROM (SELECT what, value::narinfo AS info FROM (VALUES
	('StorePath', :'minimum' || :'other'),
	('URL', :'minimum' || E'URL: nar/y.nar\nCompression: xz\nURL: nar/z\n'),
	('Compression', :'minimum' || E'Compression: xz\nCompression: none\n'),
	('Compression is empty', :'minimum' || E'Compression: \n'),
	('FileSize', :'minimum' || E'FileSize: 1\nFileSize: 2\n'),
	('NarSize', :'minimum' || E'NarSize: 6\n'),
	('NarHash', :'minimum' || E'NarHash: md5:d41d8cd98f00b204e9800998ecf8427e\n'),
	('References, the first empty', :'minimum' || :'refs'
		|| E'References: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\n'),
	('References, more blanks', :'minimum'
		|| E'References:   gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a  gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-b \n'),
	('Deriver, then unknown', :'minimum'
		|| E'Deriver: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a.drv\nDeriver: unknown-deriver\n'),
	('System', :'minimum' || E'System: a\nSystem: b\n'),
	('guix: StorePath', :'guix' || :'other'),
	('guix: NarSize', :'guix' || E'NarSize: 6\n'),
	('guix: NarSize 0', replace(:'guix', 'NarSize: 5', 'NarSize: 0')),
	('guix: NarHash', :'guix' || E'NarHash: md5:d41d8cd98f00b204e9800998ecf8427e\n'),
	('guix: Deriver is empty', :'guix' || E'Deriver: \n'),
	('guix: System', :'guix' || E'System: a\nSystem: b\n'),
	('guix: a comment', :'guix' || E'# any: comment\n'),
	('Signature in /nix/store', :'minimum' || :'refs' || :'signature'),
	('Sig in /gnu/store', :'gnu' || :'url' || :'hash' || :'size' || :'sig'),
	('size with +', replace(:'minimum', 'NarSize: 5', 'NarSize: +5')),
	('size with zeros', replace(:'minimum', 'NarSize: 5', 'NarSize: 005')),
	('tab behind the colon', replace(:'minimum', 'NarSize: 5', E'NarSize:\t5'))
) AS v (what, value)) AS t;

--
-- Every text comes back, byte for byte, and equal
--
SELECT name, info::text::narinfo = info AS equal,
	info::text::narinfo::text = info::text AS same,
	convert_from(narinfo_send(info), 'UTF8') = info::text AS sent,
	octet_length(info::text) AS text, packed_size(info) AS packed
FROM samples ORDER BY name COLLATE "C";

--
-- Traps: every one is refused, with its line and its field
--
CREATE FUNCTION pg_temp.refused(value text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN format('accepted: %s', value::narinfo.narinfo);
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END
$$;

SELECT what, pg_temp.refused(value)
FROM (VALUES
	('empty', ''),
	('no final newline', rtrim(:'minimum', E'\n')),
	('no final newline, unknown field', :'minimum' || 'X: y'),
	('line without colon', :'path' || E'nonsense\n' || :'url' || :'hash' || :'size'),
	('last line without colon', :'minimum' || E'nonsense\n'),
	('empty line', :'path' || E'\n' || :'url' || :'hash' || :'size'),
	('empty line at the end', :'minimum' || E'\n'),
	('CRLF', replace(:'minimum', E'\n', E'\r\n')),
	('CRLF on one line', replace(:'minimum', E'.zst\n', E'.zst\r\n')),
	('a bare CR', replace(:'minimum', E'.zst\n', E'\r.zst\n')),
	('no StorePath', :'url' || :'hash' || :'size'),
	('no URL', :'path' || :'hash' || :'size'),
	('no NarHash', :'path' || :'url' || :'size'),
	('no NarSize', :'path' || :'url' || :'hash'),
	('guix: no References', :'gnu' || :'url' || :'hash' || :'size' || :'signature'),
	('empty URL', replace(:'minimum', 'nar/x.nar.zst', '')),
	('NarSize 0', replace(:'minimum', 'NarSize: 5', 'NarSize: 0')),
	('NarSize 00', replace(:'minimum', 'NarSize: 5', 'NarSize: 00')),
	('NarSize empty', replace(:'minimum', 'NarSize: 5', 'NarSize: ')),
	('NarSize negative', replace(:'minimum', 'NarSize: 5', 'NarSize: -5')),
	('NarSize with a blank', replace(:'minimum', 'NarSize: 5', 'NarSize: 5 ')),
	('NarSize with two blanks', replace(:'minimum', 'NarSize: 5', 'NarSize:  5')),
	('NarSize without a blank', replace(:'minimum', 'NarSize: 5', 'NarSize:55')),
	('NarSize in hex', replace(:'minimum', 'NarSize: 5', 'NarSize: 0x5')),
	('NarSize over 64 bits', replace(:'minimum', 'NarSize: 5', 'NarSize: 18446744073709551616')),
	('NarSize far over', replace(:'minimum', 'NarSize: 5', 'NarSize: 99999999999999999999999')),
	('FileSize over 64 bits', :'minimum' || E'FileSize: 18446744073709551616\n'),
	('FileSize, the one that does not count', :'minimum' || E'FileSize: x\nFileSize: 5\n'),
	('NarHash too short', replace(:'minimum', '9c73', '9c7')),
	('NarHash with a wrong digit', replace(:'minimum', '9c73', '9c7e')),
	('NarHash of an unknown kind', replace(:'minimum', 'sha256', 'sha3')),
	('NarHash, the one that does not count', replace(:'minimum', :'hash', E'NarHash: x\n' || :'hash')),
	('FileHash', :'minimum' || E'FileHash: sha256:0\n'),
	('StorePath without directory', replace(:'minimum', '/nix/store/', '')),
	('StorePath with a bad hash', replace(:'minimum', '/gr3j', '/er3j')),
	('StorePath with a bad name', replace(:'minimum', 'a-1', 'a/1')),
	('StorePath called ..', replace(:'minimum', 'mx-a-1', 'mx-..')),
	('References: without its blank', :'minimum' || E'References:\nDeriver: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a.drv\n'),
	('References: alone, last', :'minimum' || E'References:\n'),
	('unknown field, nothing behind its colon', :'minimum' || E'X:\n'),
	('a whole path in References', :'minimum' || E'References: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\n'),
	('a hash in References', :'minimum' || E'References: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx\n'),
	('the second reference', :'minimum' || E'References: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a x\n'),
	('References twice', :'minimum' || E'References: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\nReferences: gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\n'),
	('Deriver empty', :'minimum' || E'Deriver: \n'),
	('Deriver', :'minimum' || E'Deriver: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a.drv\n'),
	('Sig empty', :'minimum' || E'Sig: \n'),
	('Sig without key', :'minimum' || E'Sig: AAAA\n'),
	('Sig with an empty key', :'minimum' || replace(:'sig', 'key-1', '')),
	('Sig too short', :'minimum' || E'Sig: key-1:AAAA\n'),
	('Sig too long', :'minimum' || replace(:'sig', '==', 'A=')),
	('Sig not base 64', :'minimum' || replace(:'sig', '==', '*=')),
	('the second Sig', :'minimum' || :'sig' || E'Sig: key-1:x\n'),
	('CA', :'minimum' || E'CA: nonsense\n'),
	('CA with a bad hash', :'minimum' || E'CA: fixed:r:sha256:0\n'),
	('CA twice', :'minimum' || E'CA: text:md5:d41d8cd98f00b204e9800998ecf8427e\nCA: \n'),
	('Signature without base 64', :'guix' || E'Signature: 1;host\n'),
	('Signature of version 2', replace(:'guix', '1;host', '2;host')),
	('Signature not base 64', replace(:'guix', 'aGFsbG8=', 'aGFsbG8*')),
	('guix: FileSize not of each URL', :'guix' || E'URL: y\nFileSize: 5\n'),
	('guix: Compression not of each URL', :'guix' || E'URL: y\nCompression: none\n'),
	('guix: a field that begins oddly', :'guix' || E'+ a: b\n'),
	('17 URLs', :'minimum' || repeat(:'url', 16)),
	('an unknown field of a long name', :'minimum' || repeat('x', 60) || E':\n')
) AS t (what, value);

-- once with everything that is said
SELECT narinfo E'StorePath: x\n';

-- the longest text is 16 MiB less one byte
SELECT octet_length(info::text) AS text, packed_size(info) - octet_length(info::text) < 1000 AS packed,
	store_hash(info), info = info::text::narinfo AS equal
FROM (SELECT (:'minimum' || 'X: '
	|| repeat('x', 16777215 - octet_length(:'minimum') - 4) || E'\n')
	::narinfo AS info) AS longest;
SELECT pg_temp.refused(:'minimum' || 'X: '
	|| repeat('x', 16777215 - octet_length(:'minimum') - 3) || E'\n');

--
-- Operators: ordered by store hash, then by text
--
SELECT row_number() OVER () AS row, a < b AS lt, a <= b AS le, a = b AS eq,
	a <> b AS ne, a >= b AS ge, a > b AS gt, narinfo_cmp(a, b) AS cmp
FROM (SELECT a::narinfo, b::narinfo FROM (VALUES
	(:'minimum' || E'Z: z\n', replace(:'minimum', '/gr3j', '/hr3j')),
	(:'minimum', :'minimum'),
	(:'minimum' || E'X: b\n', :'minimum' || E'X: a\n'),
	(:'minimum', :'minimum' || E'X: a\n'),
	-- the same fields, other texts
	(:'minimum', :'path' || :'url' || :'size' || :'hash')
) AS v (a, b)) AS t;

CREATE TEMP TABLE assigned (t text, i narinfo);
INSERT INTO assigned VALUES ((:'minimum')::narinfo, (:'minimum')::text::narinfo);
SELECT t = :'minimum' AS t, i::text = t AS i FROM assigned;

-- many: some have a hash that others have too
CREATE TABLE narinfos AS
	SELECT i, replace(replace(:'minimum', 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx',
			translate(md5((i % 1500)::text), 'e', 'z')), 'NarSize: 5',
			'NarSize: ' || i)::narinfo AS info
	FROM generate_series(1, 3000) AS i;
INSERT INTO narinfos SELECT i + 3000, info FROM narinfos WHERE i <= 500;
ANALYZE narinfos;

SELECT count(*), count(DISTINCT info), count(DISTINCT info::text),
	count(DISTINCT store_hash(info))
FROM narinfos;

SET work_mem = '64kB';
SELECT array_agg(i ORDER BY info, i)
	= array_agg(i ORDER BY store_hash(info)::text COLLATE "C",
		info::text COLLATE "C", i) AS sorted,
	array_agg(i ORDER BY info DESC, i)
	= array_agg(i ORDER BY store_hash(info)::text COLLATE "C" DESC,
		info::text COLLATE "C" DESC, i) AS backwards
FROM narinfos;
RESET work_mem;

SELECT count(*) AS wrong FROM narinfos
WHERE narinfo_hash(info)::bigint & 4294967295
	<> narinfo_hash_extended(info, 0) & 4294967295
	OR narinfo_hash_extended(info, 1) = narinfo_hash_extended(info, 0);
SELECT count(DISTINCT narinfo_hash_extended(info, 0)) AS without,
	count(DISTINCT narinfo_hash_extended(info, 99)) AS seeded
FROM narinfos;

CREATE INDEX narinfos_btree ON narinfos (info);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT a.i FROM narinfos AS b, narinfos AS a
	WHERE a.info = b.info AND b.i = 7;
SELECT i FROM narinfos WHERE info = (SELECT info FROM narinfos WHERE i = 7)
	ORDER BY i;
DROP INDEX narinfos_btree;
CREATE INDEX narinfos_hash ON narinfos USING hash (info);
EXPLAIN (COSTS OFF) SELECT a.i FROM narinfos AS b, narinfos AS a
	WHERE a.info = b.info AND b.i = 7;
SELECT i FROM narinfos WHERE info = (SELECT info FROM narinfos WHERE i = 7)
	ORDER BY i;
DROP INDEX narinfos_hash;
RESET enable_seqscan;
RESET enable_bitmapscan;

SET enable_nestloop = off;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT count(*)
	FROM narinfos AS a JOIN narinfos AS b USING (info);
SELECT count(*) FROM narinfos AS a JOIN narinfos AS b USING (info);
SET enable_hashjoin = off;
SET enable_mergejoin = on;
SELECT count(*) FROM narinfos AS a JOIN narinfos AS b USING (info);
RESET enable_hashjoin;
RESET enable_nestloop;
DROP TABLE narinfos;

--
-- Large ones, out of line or compressed: the same comes out
--
CREATE TABLE large (storage text, info narinfo);
INSERT INTO large
	SELECT 'external', (:'minimum' || 'References: '
		|| string_agg(translate(md5(i::text), 'e', 'z') || '-a-name-' || i,
			' ' ORDER BY i)
		|| E'\nX: ' || repeat('x', 100000) || E'\n' || :'sig')::narinfo
	FROM generate_series(1, 2000) AS i;
ALTER TABLE large ALTER COLUMN info SET STORAGE EXTENDED;
INSERT INTO large SELECT 'extended', info::text::narinfo FROM large;
ALTER TABLE large ALTER COLUMN info SET STORAGE EXTERNAL;
INSERT INTO large VALUES ('small', :'minimum');
SELECT storage, packed_size(info) > 100000 AS large,
	pg_column_size(info) < packed_size(info) AS smaller,
	pg_column_compression(info) IS NOT NULL AS compressed,
	kind(info), store_hash(info), nar_size(info),
	file_size(info) IS NULL AS none,
	array_length(refs(info), 1) AS refs,
	array_length(ref_hashes(info), 1) AS hashes,
	store_name((refs(info))[2000]) AS last, url(info)
FROM large ORDER BY storage COLLATE "C";
SELECT a.storage, b.storage, a.info = b.info AS eq, a.info < b.info AS lt,
	narinfo_hash(a.info) = narinfo_hash(b.info) AS hash,
	refs(a.info) = refs(b.info) AS refs,
	ref_hashes(a.info) = ref_hashes(b.info) AS hashes,
	a.info::text = b.info::text AS text
FROM large AS a, large AS b
WHERE a.storage <= b.storage
ORDER BY a.storage COLLATE "C", b.storage COLLATE "C";
SELECT storage, ref_hashes(info) = (SELECT array_agg(store_hash(ref) ORDER BY n)
	FROM unnest(refs(info)) WITH ORDINALITY AS r (ref, n)) AS agree
FROM large WHERE storage <> 'small' ORDER BY storage COLLATE "C";

--
-- Binary: the text, whatever its bytes are, but for those that are no text
--
CREATE TABLE samples_again (LIKE samples);
\copy samples to program 'cat >"$PG_ABS_BUILDDIR/results/narinfo.bin"' with (format binary)
\copy samples_again from program 'cat "$PG_ABS_BUILDDIR/results/narinfo.bin"' with (format binary)
SELECT count(*), count(*) FILTER (WHERE a.info = b.info
	AND a.info::text = b.info::text) AS same
FROM samples AS a JOIN samples_again AS b USING (name);
-- and in text
\copy samples to program 'cat >"$PG_ABS_BUILDDIR/results/narinfo.txt"'
TRUNCATE samples_again;
\copy samples_again from program 'cat "$PG_ABS_BUILDDIR/results/narinfo.txt"'
SELECT count(*), count(*) FILTER (WHERE a.info = b.info
	AND a.info::text = b.info::text) AS same
FROM samples AS a JOIN samples_again AS b USING (name);
DROP TABLE samples_again;

-- what only this way can come in: a stream with one narinfo of these bytes
CREATE FUNCTION pg_temp.stream(value bytea) RETURNS oid
LANGUAGE sql AS $$
	SELECT lo_from_bytea(0, '\x5047434f50590aff0d0a000000000000000000'::bytea
		|| int2send(1::int2) || int4send(length(value)) || value
		|| int2send(-1::int2))
$$;
\getenv results PG_ABS_BUILDDIR
\set file :results '/results/narinfo_bytes.bin'
CREATE TABLE received (info narinfo);

SELECT pg_temp.stream(convert_to(:'minimum', 'UTF8')) AS oid \gset
\lo_export :oid :file
SELECT lo_unlink(:oid);
\copy received from program 'cat "$PG_ABS_BUILDDIR/results/narinfo_bytes.bin"' with (format binary)
SELECT info::text = :'minimum' AS same FROM received;

SELECT pg_temp.stream(convert_to(:'minimum' || 'X: ', 'UTF8') || '\x6100620a') AS oid \gset
\lo_export :oid :file
SELECT lo_unlink(:oid);
\copy received from program 'cat "$PG_ABS_BUILDDIR/results/narinfo_bytes.bin"' with (format binary)

SELECT pg_temp.stream('') AS oid \gset
\lo_export :oid :file
SELECT lo_unlink(:oid);
\copy received from program 'cat "$PG_ABS_BUILDDIR/results/narinfo_bytes.bin"' with (format binary)
SELECT count(*) FROM received;

DROP TABLE received, samples, large;
