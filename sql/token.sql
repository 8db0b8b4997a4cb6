--
-- Tokens, and keys that may push
--
SET search_path = narinfo, public;
\set VERBOSITY default
INSERT INTO cache (name) VALUES ('token_closed'), ('token_other');

-- one that is shown once: its prefix, and 256 bits
SELECT create_token('ci', ARRAY['push', 'read', 'push'], NULL, 'token_closed')
	AS token \gset
SELECT :'token' ~ '^narinfo_[0-9a-df-np-sv-z]{52}$' AS looks_right;
SELECT cache, name, rights, secret_hash = sha256(:'token') AS is_hash,
	created <= clock_timestamp() AS is_past, expires
FROM token;
SELECT create_token('second', ARRAY['admin'], 'infinity', 'token_closed') <> :'token'
	AS differs;
SELECT create_token('third', ARRAY['read'], now() + interval '1 hour', 'token_other')
	IS NOT NULL AS made;
-- names are a cache's own
SELECT create_token('ci', ARRAY['read'], cache => 'token_other') IS NOT NULL AS made;
SELECT cache, name, rights, expires > now() AS expires FROM token
ORDER BY cache, name;

-- none of these
SELECT create_token('ci', ARRAY['read'], NULL, 'token_closed');
SELECT create_token('x', ARRAY['read', 'write'], NULL, 'token_closed');
SELECT create_token('x', ARRAY['READ'], NULL, 'token_closed');
SELECT create_token('x', ARRAY['read', NULL], NULL, 'token_closed');
SELECT create_token('x', ARRAY[]::text[], NULL, 'token_closed');
SELECT create_token('x', ARRAY['read'], now() - interval '1 second', 'token_closed');
SELECT create_token('x', ARRAY['read'], '-infinity', 'token_closed');
SELECT create_token('x', ARRAY['read'], NULL, 'nope');
SELECT create_token(NULL, ARRAY['read'], NULL, 'token_closed');
SELECT create_token('x', NULL, NULL, 'token_closed');
SELECT create_token('x', ARRAY['read'], NULL, NULL);
\set VERBOSITY terse
SELECT create_token('', ARRAY['read'], NULL, 'token_closed');
SELECT create_token(E'a\nb', ARRAY['read'], NULL, 'token_closed');
SELECT create_token(repeat('x', 129), ARRAY['read'], NULL, 'token_closed');
\set VERBOSITY default

-- nor by INSERT
SELECT is_token_rights(r::text[]) FROM (VALUES ('{read}'), ('{read,push,admin}'),
	('{push,read}'), ('{read,read}'), ('{}'), ('{read,NULL}'), ('{{read}}'),
	('{write}'), ('[0:0]={read}')) AS rights (r);
\set VERBOSITY terse
INSERT INTO token (cache, name, rights, secret_hash)
VALUES ('token_closed', 'x', '{push,read}', sha256('x'));
INSERT INTO token (cache, name, rights, secret_hash)
VALUES ('token_closed', 'x', '{read}', 'x');
INSERT INTO token (cache, name, rights, secret_hash, expires)
VALUES ('token_closed', 'x', '{read}', sha256('x'), '2000-01-01');
INSERT INTO token (cache, name, rights, secret_hash)
VALUES ('nope', 'x', '{read}', sha256('x'));
UPDATE token SET name = 'y' WHERE name = 'second';
TRUNCATE token;
\set VERBOSITY default

-- each change is an event, and in the digest
UPDATE token SET expires = now() + interval '1 day' WHERE name = 'second';
SELECT revoke_token('second', 'token_closed');
SELECT revoke_token('second', 'token_closed');
SELECT revoke_token('second', 'nope');
BEGIN;
SELECT revoke_token('ci', 'token_closed');
ROLLBACK;
BEGIN;
SELECT create_token('short', ARRAY['read'], NULL, 'token_closed') IS NOT NULL AS made;
SELECT revoke_token('short', 'token_closed');
COMMIT;
SELECT seq, kind, name FROM event WHERE cache = 'token_closed' ORDER BY seq;
SELECT cache, digest = cache_digest(cache) AS same FROM event
WHERE (cache, seq) IN (SELECT cache, max(seq) FROM event
	WHERE cache IN ('token_closed', 'token_other') GROUP BY cache) ORDER BY cache;

-- main is there without its row
BEGIN;
SELECT create_token('x', ARRAY['read']) IS NOT NULL AS made;
SELECT cache, name FROM token WHERE name = 'x';
ROLLBACK;

-- keys that may push: a trusted one of Nix, when it is said so
\set key 'cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY='
\set guix '(public-key (ecc (curve Ed25519) (q #AC55331C81B52EA13301BE4D8C844263A901297B509383AA6299B80F9122A437#)))'
SELECT allow_push(:'key', true, 'token_other');
SELECT trust_key(:'key', 'token_other'), trust_key(:'guix', 'token_other');
SELECT kind, may_push FROM key WHERE cache = 'token_other' ORDER BY kind;
SELECT allow_push(:'key', cache => 'token_other');
SELECT allow_push(:'key', cache => 'token_other');
SELECT kind, may_push FROM key WHERE cache = 'token_other' ORDER BY kind;
SELECT allow_push(:'key', false, 'token_other');
SELECT allow_push(:'guix', true, 'token_other');
SELECT allow_push(:'key', true, 'token_closed');
\set VERBOSITY terse
UPDATE key SET may_push = true WHERE cache = 'token_other' AND kind = 'guix';
\set VERBOSITY default
SELECT seq, kind, left(name, 19) AS name FROM event WHERE cache = 'token_other'
ORDER BY seq;
SELECT digest = cache_digest('token_other') AS same FROM event
WHERE cache = 'token_other' ORDER BY seq DESC LIMIT 1;

-- who may
CREATE ROLE token_somebody;
CREATE ROLE token_admin IN ROLE narinfo_admin;
GRANT USAGE ON SCHEMA narinfo TO token_somebody;
SET ROLE token_somebody;
SELECT create_token('x', ARRAY['read'], NULL, 'token_closed');
SELECT revoke_token('ci', 'token_closed');
SELECT allow_push(:'key', true, 'token_other');
SELECT count(*) FROM token;
SET ROLE token_admin;
SELECT create_token('x', ARRAY['read'], NULL, 'token_closed') IS NOT NULL AS made;
SELECT revoke_token('x', 'token_closed');
SELECT allow_push(:'key', true, 'token_other');
SELECT cache_digest('token_closed') IS NOT NULL AS digest;
RESET ROLE;
DROP OWNED BY token_somebody;
DROP ROLE token_somebody, token_admin;

-- a cache goes with its tokens
DELETE FROM cache WHERE name = 'token_closed';
SELECT drop_cache('token_closed'), drop_cache('token_other');
SELECT count(*) FROM token;
SELECT cache_digest('token_closed');
