--
-- Caches, and the paths that are valid in them.
--
-- The script inserts no row: rows on both sides would break the initial copy
-- of a replica, and restores.
--
CREATE TYPE visibility AS ENUM ('public', 'private');

COMMENT ON TYPE visibility IS
'who may read a cache: everybody, or the holders of a token';

CREATE TYPE divergence_action AS ENUM ('refuse', 'keep', 'replace');

COMMENT ON TYPE divergence_action IS
'what a cache does with a narinfo of a path that is valid with another NarHash';

CREATE TYPE late_action AS ENUM ('accept', 'refuse');

COMMENT ON TYPE late_action IS
'what who pushes is told when there are not enough copies in time: that it is published, or that it is refused';

CREATE FUNCTION is_cache_name(text) RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION is_cache_name(text) IS
'whether a cache may be called so: 1 to 63 of [a-z0-9_-], the first and the last of [a-z0-9], and not the beginning of another URL';

CREATE FUNCTION is_secret_key_name(text) RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION is_secret_key_name(text) IS
'whether a secret key may be called so: 1 to 128 of [A-Za-z0-9._+@-], not beginning with "." or "-"';

CREATE FUNCTION default_cache() RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE PARALLEL SAFE;

COMMENT ON FUNCTION default_cache() IS
'the cache that is meant when none is named: the setting pg_narinfo.cache';

CREATE TABLE cache (
	name text COLLATE "C" PRIMARY KEY,
	store_dir text NOT NULL DEFAULT '/nix/store',
	priority integer NOT NULL DEFAULT 40,
	want_mass_query boolean NOT NULL DEFAULT true,
	visibility visibility NOT NULL DEFAULT 'public',
	require_closure boolean NOT NULL DEFAULT true,
	min_signatures integer NOT NULL DEFAULT 0,
	on_divergence divergence_action NOT NULL DEFAULT 'refuse',
	filter text,
	hook text,
	sign_with text,
	push_copies integer NOT NULL DEFAULT 0,
	push_wait interval NOT NULL DEFAULT '10 s',
	push_when_late late_action NOT NULL DEFAULT 'accept',
	visible_copies integer NOT NULL DEFAULT 0,
	copies_include_files boolean NOT NULL DEFAULT false,
	CONSTRAINT cache_name_valid CHECK (is_cache_name(name)),
	CONSTRAINT cache_store_dir_valid CHECK (is_store_dir(store_dir)),
	CONSTRAINT cache_priority_valid CHECK (priority >= 0),
	CONSTRAINT cache_min_signatures_valid CHECK (min_signatures >= 0),
	CONSTRAINT cache_filter_valid CHECK (octet_length(filter) BETWEEN 1 AND 255),
	CONSTRAINT cache_hook_valid CHECK (octet_length(hook) BETWEEN 1 AND 255),
	CONSTRAINT cache_sign_with_valid CHECK (is_secret_key_name(sign_with)),
	CONSTRAINT cache_push_copies_valid CHECK (push_copies BETWEEN 0 AND 1000),
	CONSTRAINT cache_push_wait_valid CHECK (push_wait BETWEEN '0' AND '10 min'),
	CONSTRAINT cache_visible_copies_valid
		CHECK (visible_copies BETWEEN 0 AND 1000)
);

COMMENT ON TABLE cache IS
'binary caches of this database; "main" is there without its row, with the defaults, and gets it by the first write';
COMMENT ON COLUMN cache.name IS
'1 to 63 of [a-z0-9_-]; first part of the URLs of every cache but the default one';
COMMENT ON COLUMN cache.store_dir IS
'directory of the store paths in it';
COMMENT ON COLUMN cache.priority IS
'Priority of nix-cache-info: nix asks caches with a lower number first';
COMMENT ON COLUMN cache.want_mass_query IS
'WantMassQuery of nix-cache-info: whether nix may ask for many paths at once';
COMMENT ON COLUMN cache.visibility IS
'who may read it';
COMMENT ON COLUMN cache.require_closure IS
'whether a path may be valid only while all its references are';
COMMENT ON COLUMN cache.min_signatures IS
'how many of the trusted keys must have signed what is published';
COMMENT ON COLUMN cache.on_divergence IS
'what to do with another NarHash of a valid path: refuse it, keep the first, or replace it';
COMMENT ON COLUMN cache.filter IS
'name of a function (narinfo, text) that returns whether a narinfo may enter this cache';
COMMENT ON COLUMN cache.hook IS
'name of a function (text, bigint, bigint) that is called with the cache and the first and last number of the events of a transaction, before it commits';
COMMENT ON COLUMN cache.sign_with IS
'name of the secret key of the server that signs what is published without a valid signature by a trusted key; NULL: none does';

COMMENT ON COLUMN cache.push_copies IS
'on how many other sites a narinfo that is put by HTTP must be before this is answered';
COMMENT ON COLUMN cache.push_wait IS
'for how long that is waited for: 0 to 10 minutes';
COMMENT ON COLUMN cache.push_when_late IS
'what is answered then: accept is 200 or 201, refuse is 409; it is published either way, and the copies come when they can';
COMMENT ON COLUMN cache.visible_copies IS
'HTTP shows a narinfo when so many other sites have its event, see site_cache.watermark; 0: at once';
COMMENT ON COLUMN cache.copies_include_files IS
'whether a site has an event only when it also has the files of all that was published up to it, see site_cache.files';

-- No foreign key to cache, no edge table: see the design of the gate.
CREATE TABLE valid_path (
	cache text COLLATE "C" NOT NULL DEFAULT default_cache(),
	hash store_hash NOT NULL,
	info narinfo NOT NULL,
	registered timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (cache, hash),
	CONSTRAINT valid_path_hash_matches CHECK (hash = store_hash(info))
);

COMMENT ON TABLE valid_path IS
'the narinfos of each cache, one a store path';
COMMENT ON COLUMN valid_path.cache IS
'name of the cache';
COMMENT ON COLUMN valid_path.hash IS
'hash part of the store path; filled in from info when it is left out';
COMMENT ON COLUMN valid_path.info IS
'the narinfo';
COMMENT ON COLUMN valid_path.registered IS
'when the path became valid in this cache';

CREATE FUNCTION valid_path_fill_hash() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION valid_path_fill_hash() IS
'trigger that fills in valid_path.hash from info';

CREATE TRIGGER fill_hash BEFORE INSERT ON valid_path
	FOR EACH ROW EXECUTE FUNCTION valid_path_fill_hash();

CREATE FUNCTION valid_path_sign() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION valid_path_sign() IS
'trigger that signs what comes unsigned, where the cache has a key for that';

-- Not where a change is replicated: it has been signed by then.
CREATE TRIGGER sign BEFORE INSERT OR UPDATE OF info ON valid_path
	FOR EACH ROW EXECUTE FUNCTION valid_path_sign();

-- Every process remembers the rows of cache; this tells them to forget.  It
-- also fires where a change is replicated.
CREATE FUNCTION cache_changed() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION cache_changed() IS
'trigger that makes every process read the rows of cache again';

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON cache
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE cache ENABLE ALWAYS TRIGGER changed;

-- import and export
CREATE TABLE import_error (
	cache text COLLATE "C" NOT NULL,
	directory text NOT NULL,
	file text NOT NULL,
	line integer,
	field text,
	message text NOT NULL,
	at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE import_error IS
'files that the last import_cache of each directory left out, and why';
COMMENT ON COLUMN import_error.cache IS
'name of the cache';
COMMENT ON COLUMN import_error.directory IS
'directory that was imported';
COMMENT ON COLUMN import_error.file IS
'file, relative to the directory';
COMMENT ON COLUMN import_error.line IS
'line of the file, 1 for the first, where one is to blame';
COMMENT ON COLUMN import_error.field IS
'field of the narinfo, where one is to blame';
COMMENT ON COLUMN import_error.message IS
'what is wrong';
COMMENT ON COLUMN import_error.at IS
'when it was found';

CREATE INDEX import_error_directory ON import_error (cache, directory);

CREATE PROCEDURE import_cache(directory text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE import_cache(text, text) IS
'reads every narinfo of a directory on the server, in the layout of Nix (HASH.narinfo) or guix publish (COMPRESSION/HASH-NAME.narinfo), into a cache; commits on its way, and is called again to go on; needs pg_read_server_files, and INSERT and SELECT on valid_path';

CREATE PROCEDURE export_cache(directory text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE export_cache(text, text) IS
'writes every narinfo of a cache, as of one moment, to HASH.narinfo in a directory on the server, byte for byte, and its nix-cache-info; files that are right already are left alone; needs pg_write_server_files, and SELECT on valid_path';

CREATE PROCEDURE checkpoint_cache(directory text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE checkpoint_cache(text, text) IS
'an export that a follower can start from: export_cache, without files of narinfos that are not valid any more, and at last checkpoint.json, which has the number, epoch and digest of the last event of that very moment; then changes(seq) goes on';

REVOKE ALL ON PROCEDURE import_cache(text, text), export_cache(text, text),
	checkpoint_cache(text, text) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE import_cache(text, text) TO pg_read_server_files;
GRANT EXECUTE ON PROCEDURE export_cache(text, text),
	checkpoint_cache(text, text) TO pg_write_server_files;
GRANT SELECT ON import_error TO pg_read_server_files;

-- The parameters are those of src/cache/progress.c, one higher.
CREATE VIEW stat_progress AS
	SELECT p.pid,
		a.usename,
		CASE p.param11 WHEN 1 THEN 'import_cache' WHEN 2 THEN 'export_cache'
			WHEN 3 THEN 'resign_cache' WHEN 4 THEN 'checkpoint_cache'
			WHEN 5 THEN 'gc_plan' WHEN 6 THEN 'gc_run'
			WHEN 9 THEN 'check_files' WHEN 20 THEN 'join_site'
			WHEN 21 THEN 'repoint'
			END AS command,
		CASE p.param12 WHEN 1 THEN 'reading' WHEN 2 THEN 'writing'
			WHEN 3 THEN 'signing' WHEN 4 THEN 'loading'
			WHEN 5 THEN 'marking' WHEN 6 THEN 'storing'
			WHEN 7 THEN 'removing'
			WHEN 8 THEN 'files' WHEN 9 THEN 'narinfos'
			WHEN 20 THEN 'copying' WHEN 21 THEN 'proving' END AS phase,
		p.param13 AS done,
		nullif(p.param14, 0) AS total,
		p.param3 AS narinfos,
		p.param15 AS unchanged,
		p.param4 AS left_out,
		a.query_start AS started,
		a.query
	FROM pg_catalog.pg_stat_get_progress_info('COPY') AS p
		LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
	WHERE p.relid = 'valid_path'::regclass AND p.param11 > 0;

COMMENT ON VIEW stat_progress IS
'procedures that run now: what they do and how far they are';
COMMENT ON COLUMN stat_progress.pid IS 'process';
COMMENT ON COLUMN stat_progress.usename IS 'user';
COMMENT ON COLUMN stat_progress.command IS 'import_cache, export_cache, resign_cache, checkpoint_cache, gc_plan, gc_run, check_files, join_site or repoint';
COMMENT ON COLUMN stat_progress.phase IS 'reading files, writing or signing narinfos; loading paths, marking what is alive, storing the plan; removing paths; of check_files, looking at files or at narinfos; of join_site and repoint, copying rows, proving that they are equal';
COMMENT ON COLUMN stat_progress.done IS 'files read or looked at, narinfos written or looked at, or paths, in this phase';
COMMENT ON COLUMN stat_progress.total IS 'of how many, where that is known';
COMMENT ON COLUMN stat_progress.narinfos IS 'narinfos that went in or out, were signed, or were compared with their files';
COMMENT ON COLUMN stat_progress.unchanged IS 'narinfos that were there, or signed, already';
COMMENT ON COLUMN stat_progress.left_out IS 'files that were left out, see import_error, narinfos that cannot be signed, or problems that were found, see file_problem';
COMMENT ON COLUMN stat_progress.started IS 'when it was called';
COMMENT ON COLUMN stat_progress.query IS 'the call';

SELECT pg_catalog.pg_extension_config_dump('cache', '');
SELECT pg_catalog.pg_extension_config_dump('valid_path', '');

-- ---- keys and signatures: src/cache/key.c, key_file.c, sign.c

CREATE TYPE key_kind AS ENUM ('nix', 'guix');

COMMENT ON TYPE key_kind IS
'whose key it is: Ed25519 as Nix signs, or ECDSA over the curve Ed25519 as Guix does';

CREATE TYPE signature_status AS ENUM ('valid', 'invalid', 'unknown');

COMMENT ON TYPE signature_status IS
'what a signature is worth in a cache: by a trusted key; said to be by one, and wrong; by no key that is trusted';

CREATE FUNCTION is_public_key(public_key text, kind key_kind, name text)
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE PARALLEL SAFE;

COMMENT ON FUNCTION is_public_key(text, key_kind, text) IS
'whether this is a public key of that kind and name, in the spelling in which trust_key stores it; Guix'' keys have no name';

CREATE TABLE key (
	cache text COLLATE "C" NOT NULL,
	name text,
	kind key_kind NOT NULL,
	public_key text COLLATE "C" NOT NULL,
	added timestamptz NOT NULL DEFAULT now(),
	may_push boolean NOT NULL DEFAULT false,
	PRIMARY KEY (cache, public_key),
	CONSTRAINT key_valid CHECK (is_public_key(public_key, kind, name)),
	CONSTRAINT key_may_push_valid CHECK (kind = 'nix' OR NOT may_push)
);

COMMENT ON TABLE key IS
'public keys that a cache trusts';
COMMENT ON COLUMN key.cache IS
'name of the cache';
COMMENT ON COLUMN key.name IS
'name of the key, which its signatures bear; NULL for Guix, whose keys have none';
COMMENT ON COLUMN key.kind IS
'Nix''s or Guix''s';
COMMENT ON COLUMN key.public_key IS
'the key: NAME:BASE64 of 32 bytes, or (public-key (ecc (curve Ed25519) (q #...#)))';
COMMENT ON COLUMN key.added IS
'when the cache began to trust it';
COMMENT ON COLUMN key.may_push IS
'whether its holder may push over HTTP, too, with no other token than a proof that he has it; see allow_push()';

-- As with caches: every process remembers the keys.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON key
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE key ENABLE ALWAYS TRIGGER changed;

CREATE FUNCTION trust_key(public_key text, cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION trust_key(text, text) IS
'makes a cache trust a public key, Nix''s (NAME:BASE64) or Guix''s ((public-key ...) in any spacing); false if it did already';

CREATE FUNCTION untrust_key(public_key text, cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION untrust_key(text, text) IS
'makes a cache trust a public key no longer; false if it did not';

CREATE FUNCTION allow_push(public_key text, allowed boolean DEFAULT true,
		cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION allow_push(text, boolean, text) IS
'whether the holder of a key of Nix that a cache trusts may push over HTTP by proving that he has it (POST /auth); at first he may not; false if that was so already';

CREATE FUNCTION verify(info narinfo, cache text DEFAULT default_cache(),
		OUT key_name text, OUT status signature_status)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'narinfo_verify'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000 ROWS 1;

COMMENT ON FUNCTION verify(narinfo, text) IS
'what each signature of a narinfo is worth by the keys that a cache trusts, in the order of the text; the key''s name is, for Guix, the host that the signature names';

CREATE FUNCTION generate_key(key_name text, kind text DEFAULT 'nix')
	RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION generate_key(text, text) IS
'makes a secret key of kind nix or guix, a file of this name in pg_narinfo.key_directory, never over one that is there; returns the public key as the client wants it; no ROLLBACK takes the file away';

CREATE FUNCTION sign_narinfo(info narinfo, key_name text) RETURNS narinfo
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE
	COST 2000;

COMMENT ON FUNCTION sign_narinfo(narinfo, text) IS
'the narinfo with a signature by a secret key of this server: Nix''s is one more line, Guix'' takes the place of the one that was there; unchanged if it has that already';

CREATE PROCEDURE resign_cache(key_name text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE resign_cache(text, text) IS
'signs every narinfo of a cache that has no signature by this secret key of the server yet, as sign_narinfo does; commits on its way, and is called again to go on';

REVOKE ALL ON FUNCTION trust_key(text, text), untrust_key(text, text),
	allow_push(text, boolean, text),
	generate_key(text, text), sign_narinfo(narinfo, text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE resign_cache(text, text) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('key', '');

-- ---- tokens: src/cache/token.c

CREATE FUNCTION is_token_rights(rights text[]) RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION is_token_rights(text[]) IS
'whether these are rights as create_token stores them: some of read, push and admin, in this order';

CREATE TABLE token (
	cache text COLLATE "C" NOT NULL,
	name text COLLATE "C" NOT NULL,
	rights text[] NOT NULL,
	secret_hash bytea NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	expires timestamptz,
	PRIMARY KEY (cache, name),
	CONSTRAINT token_name_valid CHECK (octet_length(name) BETWEEN 1 AND 128
		AND name !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT token_rights_valid CHECK (is_token_rights(rights)),
	CONSTRAINT token_secret_hash_valid CHECK (octet_length(secret_hash) = 32),
	CONSTRAINT token_expires_valid CHECK (expires > created)
);

COMMENT ON TABLE token IS
'what lets clients into caches over HTTP; of each token it has the SHA-256 alone, from which nobody finds the token: that has 256 random bits';
COMMENT ON COLUMN token.cache IS
'name of the cache';
COMMENT ON COLUMN token.name IS
'what it is called here, 1 to 128 bytes; the client need not know it';
COMMENT ON COLUMN token.rights IS
'some of read, push, and admin, which is all';
COMMENT ON COLUMN token.secret_hash IS
'SHA-256 of the token, with its prefix';
COMMENT ON COLUMN token.created IS
'when it was made';
COMMENT ON COLUMN token.expires IS
'from when on it is worth nothing; NULL: never';

-- As with caches: every process remembers the tokens.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON token
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE token ENABLE ALWAYS TRIGGER changed;

CREATE FUNCTION create_token(name text, rights text[],
		expires timestamptz DEFAULT NULL, cache text DEFAULT default_cache())
	RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION create_token(text, text[], timestamptz, text) IS
'makes a token of a cache with these rights (read, push, admin) and returns it, this once: only its hash is kept';

CREATE FUNCTION revoke_token(name text, cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION revoke_token(text, text) IS
'takes a token away, from the next request on; false if there is none of this name';

REVOKE ALL ON FUNCTION create_token(text, text[], timestamptz, text),
	revoke_token(text, text) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('token', '');
