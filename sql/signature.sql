--
-- Keys and signatures
--
SET search_path = narinfo, public;

-- real ones: of cache.nixos.org, one of its old ones, whose references were
-- signed as they stand there, and of guix publish
\set nixos 'cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY='
\set nix_info 'StorePath: /nix/store/n5glp21rsz314qssw9fbvfswgy3kc68f-hello-2.12.1\nURL: nar/1lid9xrpirkzcpqsxfq02qwiq0yd70chfl860wzsqd1739ih0nri.nar.xz\nCompression: xz\nFileHash: sha256:1lid9xrpirkzcpqsxfq02qwiq0yd70chfl860wzsqd1739ih0nri\nFileSize: 50160\nNarHash: sha256:07kc6swib31psygpmwi8952lvywlpqn474059yxl7grwsvr6k0fj\nNarSize: 226552\nReferences: n5glp21rsz314qssw9fbvfswgy3kc68f-hello-2.12.1 qdcbgcj27x2kpxj2sf9yfvva7qsgg64g-glibc-2.38-77\nDeriver: 1zpqmcicrg8smi9jlqv6dmd7v20d2fsn-hello-2.12.1.drv\nSig: cache.nixos.org-1:MadTCU1OSFCGUw4aqCKpLCZJpqBc7AbLvO7wgdlls0eq1DwaSnF/82SZE+wJGEiwlHbnZR+14daSaec0W3XoBQ==\nSig: nix-cache.cluster.nasreddine.com:zcbCC5rjkEtQvM/XckDfBk9+q/XsbEuX/Z0YblZ/THjL5lnQgteQSI2u6fXirdF+bfTv4PvSEbPqeIYIFQNSCA==\n'
\set old_info 'StorePath: /nix/store/xi429w4ddvb1r77978hm7jfb2jsn559r-gcc-3.4.6\nURL: nar/1hr09cgkyw1hcsfkv5qp5jlpmf2mqrkrqs3xj5zklq9c1h9544ff.nar.bz2\nCompression: bzip2\nFileHash: sha256:1hr09cgkyw1hcsfkv5qp5jlpmf2mqrkrqs3xj5zklq9c1h9544ff\nFileSize: 4006\nNarHash: sha256:0ik9mpqxpd9hv325hdblj2nawqj5w7951qdyy8ikxgwr6fq7m11c\nNarSize: 21264\nReferences: a8922c0h87iilxzzvwn2hmv8x210aqb9-glibc-2.7 7w2acjgalb0cm7b3bg8yswza4l7iil9y-binutils-2.18 mm631h09mj964hm9q04l5fd8vw12j1mm-bash-3.2-p39 nx2zs2qd6snfcpzw4a0jnh26z9m0yihz-gcc-3.4.6 xi429w4ddvb1r77978hm7jfb2jsn559r-gcc-3.4.6\nDeriver: 2dzpn70c1hawczwhg9aavqk18zp9zsva-gcc-3.4.6.drv\nSig: cache.nixos.org-1:o1DTsjCz0PofLJ216P2RBuSulI8BAb6zHxWE4N+tzlcELk5Uk/GO2SCxWTRN5wJutLZZ+cHTMdWqOHF88KGQDg==\n'
\set guix_q '#AC55331C81B52EA13301BE4D8C844263A901297B509383AA6299B80F9122A437#'
\set guix_info 'StorePath: /gnu/store/0bni28g01h4dc1bwddkyq6cd7imz5p9h-gdiamond-0-3\nNarHash: sha256:0qfmj6110653c0vnlngg442fvw7sxxhcwribr3kpbnlx02lfx9gv\nNarSize: 288\nReferences: \nDeriver: afzdpnpdkg0mhfpg90bwm4a1q5wsvqzc-gdiamond-0-3.drv\nSignature: 1;vm;KHNpZ25hdHVyZSAKIChkYXRhIAogIChmbGFncyByZmM2OTc5KQogIChoYXNoIHNoYTI1NiAjMzgxODkwRDU3M0Y3NTUxQUM0MDhEQUVCN0ZDRjJCQjAxRUUwOTQ3NkI3NDRDRjI2NzU1QjRBNzVGMjA4MUE0NCMpCiAgKQogKHNpZy12YWwgCiAgKGVjZHNhIAogICAociAjMDFCNDI2QjM5MUQ0RDgzNDAwMTdDRjlDOTg5ODFENkEzMkEwREQ5MEEzQkZFRjUwQzU4N0JEMjNBRTQzQ0RCMiMpCiAgIChzICMwNUMyNzIwNEFGRTI0RTYyODVDNzAzRUEwNUJEMDdCMjI4QkQ0NkJFN0U0QkUxNUNENEQ0NzZBODI5OURBRDg2IykKICAgKQogICkKIChwdWJsaWMta2V5IAogIChlY2MgCiAgIChjdXJ2ZSBFZDI1NTE5KQogICAocSAjQUM1NTMzMUM4MUI1MkVBMTMzMDFCRTREOEM4NDQyNjNBOTAxMjk3QjUwOTM4M0FBNjI5OUI4MEY5MTIyQTQzNyMpCiAgICkKICApCiApCg==\nURL: nar/gzip/0bni28g01h4dc1bwddkyq6cd7imz5p9h-gdiamond-0-3\nCompression: gzip\nFileSize: 125\nURL: nar/lzip/0bni28g01h4dc1bwddkyq6cd7imz5p9h-gdiamond-0-3\nCompression: lzip\nFileSize: 134\nURL: nar/zstd/0bni28g01h4dc1bwddkyq6cd7imz5p9h-gdiamond-0-3\nCompression: zstd\nFileSize: 126\n'
INSERT INTO cache (name) VALUES ('signed'), ('other');

-- nothing is trusted
SELECT * FROM verify(:'nix_info', 'signed');
SELECT * FROM verify(:'old_info', 'signed');
SELECT * FROM verify(:'guix_info', 'signed');

-- trusting, in any spelling, once
SELECT trust_key(:'nixos', 'signed'), trust_key(:'nixos', 'signed');
SELECT trust_key(E' \t' || :'nixos' || E'\n', 'signed');
SELECT trust_key('(public-key (ecc (curve Ed25519) (q ' || :'guix_q' || ')))',
	'signed');
SELECT trust_key(E'(public-key \n (ecc \n  (curve Ed25519)\n  (q ' || :'guix_q'
	|| E')\n  )\n )\n', 'signed');
SELECT trust_key('(10:public-key(3:ecc(5:curve7:Ed25519)(1:q |rFUzHIG1LqEzAb5NjIRCY6kBKXtQk4OqYpm4D5EipDc=|)))',
	'signed');
SELECT cache, name, kind, public_key FROM key ORDER BY public_key;

-- what they are worth
SELECT * FROM verify(:'nix_info', 'signed');
SELECT * FROM verify(:'old_info', 'signed');
SELECT * FROM verify(:'guix_info', 'signed');
SELECT * FROM verify(:'nix_info', 'other');
SELECT * FROM verify(replace(:'nix_info', 'NarSize: ', 'NarSize: 1')::narinfo,
	'signed');
SELECT * FROM verify(replace(:'nix_info', 'URL: nar/', 'URL: x/')::narinfo,
	'signed');
SELECT * FROM verify(replace(:'guix_info', 'NarSize: ', 'NarSize: 1')::narinfo,
	'signed');
SELECT * FROM verify(replace(:'guix_info', 'nar/', 'x/')::narinfo, 'signed');
SELECT * FROM verify(regexp_replace(:'guix_info', '1;vm;\S+', '1;vm;KCk=')::narinfo,
	'signed');

-- every signature is a row, in the order of the text
SELECT * FROM verify((:'nix_info' || E'Sig: cache.nixos.org-1:'
	|| replace(encode(decode(repeat('78', 64), 'hex'), 'base64'), E'\n', '')
	|| E'\nSig: nobody-1:'
	|| replace(encode(decode(repeat('78', 64), 'hex'), 'base64'), E'\n', '')
	|| E'\n')::narinfo, 'signed');
SELECT count(*) FROM verify(regexp_replace(:'nix_info', E'Sig:[^\n]*\n', '', 'g')::narinfo,
	'signed');
SELECT count(*) FROM verify(NULL, 'signed');

-- a key that comes and goes with its transaction
BEGIN;
SELECT untrust_key(:'nixos', 'signed'), untrust_key(:'nixos', 'signed');
SELECT * FROM verify(:'nix_info', 'signed');
ROLLBACK;
SELECT * FROM verify(:'nix_info', 'signed');
BEGIN;
SELECT trust_key(:'nixos', 'other');
SELECT * FROM verify(:'nix_info', 'other');
ROLLBACK;
SELECT * FROM verify(:'nix_info', 'other');

-- two keys of one name: either will do
SELECT trust_key('cache.nixos.org-1:' || encode(decode(repeat('78', 32), 'hex'),
	'base64'), 'signed');
SELECT * FROM verify(:'nix_info', 'signed');
SELECT untrust_key(:'nixos', 'signed');
SELECT * FROM verify(:'nix_info', 'signed');

-- bad keys, and no such cache
\set VERBOSITY sqlstate
SELECT trust_key('', 'signed');
SELECT trust_key('nixos', 'signed');
SELECT trust_key(':AAAA', 'signed');
SELECT trust_key('a:AAAA', 'signed');
SELECT trust_key('(public-key', 'signed');
SELECT trust_key('(public-key (ecc (curve Ed25519)))', 'signed');
SELECT trust_key(:'nixos', 'nowhere');
SELECT verify(:'nix_info', 'nowhere');
\set VERBOSITY terse
SELECT trust_key('nixos', 'signed');
SELECT trust_key('a:AAAA', 'signed');
SELECT untrust_key('(public-key (rsa (n #00#)))', 'signed');
SELECT trust_key('(public-key (ecc (curve Ed25519) (flags eddsa) (q ' || :'guix_q' || ')))',
	'signed');

-- plain INSERT can write what trust_key does, and no other
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('other', 'nix', 'cache.nixos.org-1', :'nixos');
SELECT * FROM verify(:'nix_info', 'other');
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('other', 'nix', 'cache.nixos.org', :'nixos');
INSERT INTO key (cache, kind, public_key) VALUES ('other', 'nix', :'nixos');
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('other', 'guix', 'cache.nixos.org-1', :'nixos');
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('other', 'nix', 'cache.nixos.org-1', :'nixos' || ' ');
INSERT INTO key (cache, kind, public_key)
	VALUES ('other', 'guix', '(public-key (ecc (curve Ed25519) (q #00#)))');
DELETE FROM key WHERE cache = 'other';
SELECT * FROM verify(:'nix_info', 'other');

-- in parallel workers
CREATE TABLE many AS SELECT :'nix_info'::narinfo AS info FROM generate_series(1, 500);
ALTER TABLE many SET (parallel_workers = 2);
SELECT trust_key(:'nixos', 'signed');
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT status, count(*) FROM many, verify(info, 'signed') GROUP BY 1 ORDER BY 1;
ROLLBACK;
DROP TABLE many;

-- names of secret keys are checked before anything is opened
SELECT sign_narinfo(:'nix_info', '../key');
SELECT sign_narinfo(:'nix_info', '.key');
SELECT sign_narinfo(:'nix_info', '');
SELECT sign_narinfo(:'nix_info', 'a/b');
SELECT sign_narinfo(:'nix_info', 'a:b');
SELECT sign_narinfo(:'nix_info', repeat('a', 129));
SELECT generate_key('a;b');
SELECT generate_key('good', 'bad');
BEGIN;
CALL resign_cache('good', 'signed');
ROLLBACK;
CALL resign_cache(NULL, 'signed');
CALL resign_cache('good', 'nowhere');

-- what the owner alone may call
CREATE ROLE regress_narinfo_nobody;
GRANT USAGE ON SCHEMA narinfo TO regress_narinfo_nobody;
SET ROLE regress_narinfo_nobody;
SELECT trust_key(:'nixos', 'signed');
SELECT untrust_key(:'nixos', 'signed');
SELECT generate_key('x');
SELECT sign_narinfo(:'nix_info', 'x');
CALL resign_cache('x', 'signed');
SELECT count(*) FROM key;
SET pg_narinfo.key_directory = '/tmp';
SELECT * FROM verify(:'nix_info', 'signed');
RESET ROLE;
REVOKE USAGE ON SCHEMA narinfo FROM regress_narinfo_nobody;
DROP ROLE regress_narinfo_nobody;

DELETE FROM key;
DELETE FROM cache WHERE name IN ('signed', 'other');
