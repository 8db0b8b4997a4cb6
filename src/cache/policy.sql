--
-- Making and altering caches, and what their policies leave behind.
--
CREATE TABLE divergence (
	cache text COLLATE "C" NOT NULL,
	hash store_hash NOT NULL,
	at timestamptz NOT NULL,
	who text NOT NULL,
	old_nar_hash nar_hash NOT NULL,
	new_nar_hash nar_hash NOT NULL,
	action divergence_action NOT NULL
);

COMMENT ON TABLE divergence IS
'narinfos of valid paths that came with another NarHash, on this site';
COMMENT ON COLUMN divergence.cache IS 'name of the cache';
COMMENT ON COLUMN divergence.hash IS 'hash part of the path';
COMMENT ON COLUMN divergence.at IS 'when it came';
COMMENT ON COLUMN divergence.who IS 'the user who published it';
COMMENT ON COLUMN divergence.old_nar_hash IS 'NarHash of the path as it was valid';
COMMENT ON COLUMN divergence.new_nar_hash IS 'NarHash that was offered';
COMMENT ON COLUMN divergence.action IS 'what the cache did';

CREATE INDEX divergence_hash ON divergence (cache, hash);

CREATE TABLE touched (
	cache text COLLATE "C" NOT NULL,
	hash store_hash NOT NULL,
	at timestamptz NOT NULL,
	PRIMARY KEY (cache, hash)
) WITH (fillfactor = 70);

COMMENT ON TABLE touched IS
'paths that were published again as they were, on this site: such a publish is no event, but collection spares what it names';
COMMENT ON COLUMN touched.cache IS 'name of the cache';
COMMENT ON COLUMN touched.hash IS 'hash part of the path';
COMMENT ON COLUMN touched.at IS 'when it was published last, or up to 10 seconds earlier';

CREATE FUNCTION policy_function(name text, is_hook boolean) RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION policy_function(text, boolean) IS
'the full name of a function, when the one who calls owns it and it can be a filter, or a hook';

CREATE FUNCTION policy_key(name text) RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION policy_key(text) IS
'the name of a secret key, when this server has it and can sign with it';

CREATE FUNCTION create_cache(
		name text,
		store_dir text DEFAULT '/nix/store',
		priority integer DEFAULT 40,
		want_mass_query boolean DEFAULT true,
		visibility visibility DEFAULT 'public',
		require_closure boolean DEFAULT true,
		min_signatures integer DEFAULT 0,
		on_divergence divergence_action DEFAULT 'refuse',
		filter text DEFAULT NULL,
		hook text DEFAULT NULL,
		sign_with text DEFAULT NULL,
		push_copies integer DEFAULT 0,
		push_wait interval DEFAULT '10 s',
		push_when_late late_action DEFAULT 'accept',
		visible_copies integer DEFAULT 0,
		copies_include_files boolean DEFAULT false)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wanted narinfo.cache := ROW(name, store_dir, priority, want_mass_query,
		visibility, require_closure, min_signatures, on_divergence,
		narinfo.policy_function(filter, false),
		narinfo.policy_function(hook, true), narinfo.policy_key(sign_with),
		push_copies, push_wait, push_when_late, visible_copies,
		copies_include_files);
	there narinfo.cache;
BEGIN
	INSERT INTO narinfo.cache SELECT wanted.* ON CONFLICT DO NOTHING;
	IF FOUND THEN
		RETURN true;
	END IF;
	SELECT c.* INTO there FROM narinfo.cache AS c
		WHERE c.name = create_cache.name;
	IF there IS DISTINCT FROM wanted THEN
		RAISE duplicate_object USING
			MESSAGE = format('cache "%s" exists, and is different', name),
			HINT = 'narinfo.alter_cache() changes it.';
	END IF;
	RETURN false;
END
$$;

COMMENT ON FUNCTION create_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean) IS
'makes a cache; false if it is there already and is the same';

CREATE FUNCTION alter_cache(
		name text,
		store_dir text DEFAULT NULL,
		priority integer DEFAULT NULL,
		want_mass_query boolean DEFAULT NULL,
		visibility visibility DEFAULT NULL,
		require_closure boolean DEFAULT NULL,
		min_signatures integer DEFAULT NULL,
		on_divergence divergence_action DEFAULT NULL,
		filter text DEFAULT NULL,
		hook text DEFAULT NULL,
		sign_with text DEFAULT NULL,
		push_copies integer DEFAULT NULL,
		push_wait interval DEFAULT NULL,
		push_when_late late_action DEFAULT NULL,
		visible_copies integer DEFAULT NULL,
		copies_include_files boolean DEFAULT NULL)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old narinfo.cache;
	new narinfo.cache;
BEGIN
	-- main may not have its row yet
	IF name = 'main' THEN
		INSERT INTO narinfo.cache (name) VALUES ('main')
			ON CONFLICT DO NOTHING;
	END IF;
	SELECT c.* INTO old FROM narinfo.cache AS c
		WHERE c.name = alter_cache.name FOR UPDATE;
	IF NOT FOUND THEN
		RAISE undefined_object USING
			MESSAGE = format('cache "%s" does not exist', name);
	END IF;
	new := ROW(old.name, coalesce(store_dir, old.store_dir),
		coalesce(priority, old.priority),
		coalesce(want_mass_query, old.want_mass_query),
		coalesce(visibility, old.visibility),
		coalesce(require_closure, old.require_closure),
		coalesce(min_signatures, old.min_signatures),
		coalesce(on_divergence, old.on_divergence),
		CASE WHEN filter IS NULL THEN old.filter WHEN filter <> ''
			THEN narinfo.policy_function(filter, false) END,
		CASE WHEN hook IS NULL THEN old.hook WHEN hook <> ''
			THEN narinfo.policy_function(hook, true) END,
		CASE WHEN sign_with IS NULL THEN old.sign_with WHEN sign_with <> ''
			THEN narinfo.policy_key(sign_with) END,
		coalesce(push_copies, old.push_copies),
		coalesce(push_wait, old.push_wait),
		coalesce(push_when_late, old.push_when_late),
		coalesce(visible_copies, old.visible_copies),
		coalesce(copies_include_files, old.copies_include_files));
	IF new IS NOT DISTINCT FROM old THEN
		RETURN false;
	END IF;
	UPDATE narinfo.cache AS c
		SET store_dir = new.store_dir, priority = new.priority,
			want_mass_query = new.want_mass_query,
			visibility = new.visibility,
			require_closure = new.require_closure,
			min_signatures = new.min_signatures,
			on_divergence = new.on_divergence, filter = new.filter,
			hook = new.hook, sign_with = new.sign_with,
			push_copies = new.push_copies, push_wait = new.push_wait,
			push_when_late = new.push_when_late,
			visible_copies = new.visible_copies,
			copies_include_files = new.copies_include_files
		WHERE c.name = alter_cache.name;
	RETURN true;
END
$$;

COMMENT ON FUNCTION alter_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean) IS
'changes a cache where an argument is not NULL, a filter, hook or sign_with of '''' is none; whether that changed anything';

CREATE FUNCTION drop_cache(name text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM narinfo.cache AS c WHERE c.name = drop_cache.name;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	DELETE FROM narinfo.valid_path AS v WHERE v.cache = drop_cache.name;
	DELETE FROM narinfo.key AS k WHERE k.cache = drop_cache.name;
	DELETE FROM narinfo.token AS t WHERE t.cache = drop_cache.name;
	DELETE FROM narinfo.trash AS t WHERE t.cache = drop_cache.name;
	DELETE FROM narinfo.root AS r WHERE r.cache = drop_cache.name;
	DELETE FROM narinfo.root_source AS s WHERE s.cache = drop_cache.name;
	DELETE FROM narinfo.quota AS q WHERE q.cache = drop_cache.name;
	DELETE FROM narinfo.usage_sample AS u WHERE u.cache = drop_cache.name;
	DELETE FROM narinfo.file_source AS f WHERE f.cache = drop_cache.name;
	RETURN true;
END
$$;

COMMENT ON FUNCTION drop_cache(text) IS
'removes a cache and all that is in it, as one event; false if there is none. Its events stay, and a new cache of this name goes on behind them';

--
-- Roles are a cluster's: made where they are absent, left by DROP EXTENSION.
--
DO $$
DECLARE
	made text;
BEGIN
	FOREACH made IN ARRAY ARRAY['narinfo_reader', 'narinfo_publisher',
		'narinfo_admin']
	LOOP
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = made)
		THEN
			EXECUTE format('CREATE ROLE %I NOLOGIN', made);
			EXECUTE format('COMMENT ON ROLE %I IS %L', made,
				'to be granted: what pg_narinfo lets its holders do');
		END IF;
	END LOOP;
END
$$;

GRANT USAGE ON SCHEMA narinfo
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT SELECT ON cache, valid_path, key, token, event, divergence,
		touched, node,
		stat_progress
	TO narinfo_reader, narinfo_publisher, narinfo_admin;

REVOKE ALL ON FUNCTION
	create_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean),
	alter_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean),
	drop_cache(text), policy_key(text)
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
	create_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean),
	alter_cache(text, text, integer, boolean, visibility, boolean, integer, divergence_action, text, text, text, integer, interval, late_action, integer, boolean),
	drop_cache(text), trust_key(text, text), untrust_key(text, text),
	allow_push(text, boolean, text),
	create_token(text, text[], timestamptz, text), revoke_token(text, text)
	TO narinfo_admin;
GRANT EXECUTE ON FUNCTION generate_key(text, text),
	sign_narinfo(narinfo, text)
	TO narinfo_admin;
GRANT EXECUTE ON PROCEDURE resign_cache(text, text) TO narinfo_admin;
GRANT EXECUTE ON FUNCTION changes(bigint, integer, text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION publish(narinfo, text), publish_many(narinfo[], text),
	touch(store_hash[], text) TO narinfo_publisher, narinfo_admin;

SELECT pg_catalog.pg_extension_config_dump('divergence', '');
