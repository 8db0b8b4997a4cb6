--
-- The files of NARs on this site.
--
CREATE FUNCTION check_nar(info narinfo, cache text DEFAULT default_cache())
	RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	COST 100000;

COMMENT ON FUNCTION check_nar(narinfo, text) IS
'what is wrong with the file that a narinfo''s URL names below pg_narinfo.file_root: its FileHash, FileSize, compression, NarHash, NarSize, or the structure of the NAR; NULL when it is good. A process of its own looks into it';

REVOKE ALL ON FUNCTION check_nar(narinfo, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION check_nar(narinfo, text) TO narinfo_admin;
