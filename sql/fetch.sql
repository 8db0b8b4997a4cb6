--
-- Missing files: sources, and the index from a file to its narinfo
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

CREATE FUNCTION pg_temp.made(url text) RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\n'
		'URL: %s\nNarHash: sha256:%s\nNarSize: 100\nReferences: \n', url,
		repeat('0', 52))::narinfo $$;

-- sources
SELECT create_cache('team');
SELECT add_file_source('http://a.example:8080'),
	add_file_source('http://a.example:8080'),
	add_file_source('http://a.example:8080', 5),
	add_file_source('http://a.example:8080', 5);
SELECT add_file_source('https://[::1]:80/x/y%20z/', cache => 'team'),
	add_file_source('https://b', 7, NULL), add_file_source('https://b', 7, NULL);
SELECT cache, url, "position" FROM file_source ORDER BY url COLLATE "C";
\set VERBOSITY terse
SELECT add_file_source('http://a', cache => 'none');
SELECT add_file_source('http://user:word@a');
SELECT add_file_source('http://a/?x');
SELECT add_file_source('http://a/ x');
SELECT add_file_source('ftp://a');
SELECT add_file_source('http://' || repeat('a', 1000));
SELECT add_file_source('http://a', NULL);
\set VERBOSITY default
SELECT drop_file_source('https://b'), drop_file_source('https://b', NULL),
	drop_file_source('https://b', NULL);
SELECT drop_cache('team');
SELECT cache, url, "position" FROM file_source;

-- the key: of the cache and the path, however that is written
SELECT file_key(pg_temp.made('nar/a+b.nar'), 'main')
		= file_key(pg_temp.made('nar/a%2Bb%2enar'), 'main') AS same,
	file_key(pg_temp.made('nar/a.nar'), 'main')
		= file_key(pg_temp.made('nar/b.nar'), 'main') AS other_path,
	file_key(pg_temp.made('nar/a.nar'), 'main')
		= file_key(pg_temp.made('nar/a.nar'), 'team') AS other_cache,
	file_key(pg_temp.made('http://a/nar/a.nar'), 'main') AS elsewhere;

-- the index
SELECT index_files(), index_files();
SELECT publish(pg_temp.made('nar/a.nar'));
SET enable_seqscan = off;
SELECT count(*) FROM valid_path
	WHERE file_key(info, cache) = file_key(pg_temp.made('nar/a.nar'), 'main');
RESET enable_seqscan;
SELECT retract(ARRAY['/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a']::store_path[]);

-- figures, of a server that has no workers perhaps
SELECT count(*), bool_and(running = 0 AND failed >= 0) FROM stat_fetch;
