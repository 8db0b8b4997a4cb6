--
-- The types store_hash, store_path, nar_hash and narinfo, their operators and
-- operator classes, their casts, and the fields of a narinfo.
--

CREATE TYPE store_hash;

CREATE FUNCTION store_hash_in(cstring) RETURNS store_hash
	AS 'MODULE_PATHNAME', 'store_hash_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_out(store_hash) RETURNS cstring
	AS 'MODULE_PATHNAME', 'store_hash_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_recv(internal) RETURNS store_hash
	AS 'MODULE_PATHNAME', 'store_hash_recv'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_send(store_hash) RETURNS bytea
	AS 'MODULE_PATHNAME', 'store_hash_send'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE store_hash (
	INPUT = store_hash_in,
	OUTPUT = store_hash_out,
	RECEIVE = store_hash_recv,
	SEND = store_hash_send,
	INTERNALLENGTH = 20,
	ALIGNMENT = char,
	STORAGE = plain
);

COMMENT ON TYPE store_hash IS
'hash part of a store path: 20 bytes, written as 32 nix32 digits';

CREATE FUNCTION store_hash_lt(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_lt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_le(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_le'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_eq(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_eq'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_ne(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_ne'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_ge(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_ge'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_gt(store_hash, store_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_hash_gt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_cmp(store_hash, store_hash) RETURNS integer
	AS 'MODULE_PATHNAME', 'store_hash_cmp'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_sortsupport(internal) RETURNS void
	AS 'MODULE_PATHNAME', 'store_hash_sortsupport'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_hash(store_hash) RETURNS integer
	AS 'MODULE_PATHNAME', 'store_hash_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_hash_hash_extended(store_hash, bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'store_hash_hash_extended'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_lt,
	COMMUTATOR = >, NEGATOR = >=,
	RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_le,
	COMMUTATOR = >=, NEGATOR = >,
	RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);

CREATE OPERATOR = (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_eq,
	COMMUTATOR = =, NEGATOR = <>,
	HASHES, MERGES, RESTRICT = eqsel, JOIN = eqjoinsel
);

CREATE OPERATOR <> (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_ne,
	COMMUTATOR = <>, NEGATOR = =,
	RESTRICT = neqsel, JOIN = neqjoinsel
);

CREATE OPERATOR >= (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_ge,
	COMMUTATOR = <=, NEGATOR = <,
	RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR > (
	LEFTARG = store_hash, RIGHTARG = store_hash, FUNCTION = store_hash_gt,
	COMMUTATOR = <, NEGATOR = <=,
	RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS store_hash_ops DEFAULT FOR TYPE store_hash USING btree AS
	OPERATOR 1 <,
	OPERATOR 2 <=,
	OPERATOR 3 =,
	OPERATOR 4 >=,
	OPERATOR 5 >,
	FUNCTION 1 store_hash_cmp(store_hash, store_hash),
	FUNCTION 2 store_hash_sortsupport(internal),
	FUNCTION 4 btequalimage(oid);

CREATE OPERATOR CLASS store_hash_hash_ops DEFAULT FOR TYPE store_hash USING hash AS
	OPERATOR 1 =,
	FUNCTION 1 store_hash_hash(store_hash),
	FUNCTION 2 store_hash_hash_extended(store_hash, bigint);

CREATE CAST (text AS store_hash) WITH INOUT;
CREATE CAST (store_hash AS text) WITH INOUT AS ASSIGNMENT;

COMMENT ON FUNCTION store_hash_in(cstring) IS 'I/O';
COMMENT ON FUNCTION store_hash_out(store_hash) IS 'I/O';
COMMENT ON FUNCTION store_hash_recv(internal) IS 'I/O';
COMMENT ON FUNCTION store_hash_send(store_hash) IS 'I/O';
COMMENT ON FUNCTION store_hash_lt(store_hash, store_hash) IS 'implementation of < operator';
COMMENT ON FUNCTION store_hash_le(store_hash, store_hash) IS 'implementation of <= operator';
COMMENT ON FUNCTION store_hash_eq(store_hash, store_hash) IS 'implementation of = operator';
COMMENT ON FUNCTION store_hash_ne(store_hash, store_hash) IS 'implementation of <> operator';
COMMENT ON FUNCTION store_hash_ge(store_hash, store_hash) IS 'implementation of >= operator';
COMMENT ON FUNCTION store_hash_gt(store_hash, store_hash) IS 'implementation of > operator';
COMMENT ON FUNCTION store_hash_cmp(store_hash, store_hash) IS 'less-equal-greater: -1, 0 or 1';
COMMENT ON FUNCTION store_hash_sortsupport(internal) IS 'sort support';
COMMENT ON FUNCTION store_hash_hash(store_hash) IS 'hash';
COMMENT ON FUNCTION store_hash_hash_extended(store_hash, bigint) IS 'hash with a seed';
COMMENT ON OPERATOR < (store_hash, store_hash) IS 'less than';
COMMENT ON OPERATOR <= (store_hash, store_hash) IS 'less than or equal';
COMMENT ON OPERATOR = (store_hash, store_hash) IS 'equal';
COMMENT ON OPERATOR <> (store_hash, store_hash) IS 'not equal';
COMMENT ON OPERATOR >= (store_hash, store_hash) IS 'greater than or equal';
COMMENT ON OPERATOR > (store_hash, store_hash) IS 'greater than';

CREATE TYPE store_path;

CREATE FUNCTION store_path_in(cstring) RETURNS store_path
	AS 'MODULE_PATHNAME', 'store_path_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_out(store_path) RETURNS cstring
	AS 'MODULE_PATHNAME', 'store_path_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_recv(internal) RETURNS store_path
	AS 'MODULE_PATHNAME', 'store_path_recv'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_send(store_path) RETURNS bytea
	AS 'MODULE_PATHNAME', 'store_path_send'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE store_path (
	INPUT = store_path_in,
	OUTPUT = store_path_out,
	RECEIVE = store_path_recv,
	SEND = store_path_send,
	INTERNALLENGTH = variable,
	ALIGNMENT = int4,
	STORAGE = extended
);

COMMENT ON TYPE store_path IS
'store path, DIRECTORY/HASH-NAME; ordered by hash, then name';

CREATE FUNCTION store_path_lt(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_lt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_le(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_le'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_eq(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_eq'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_ne(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_ne'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_ge(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_ge'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_gt(store_path, store_path) RETURNS boolean
	AS 'MODULE_PATHNAME', 'store_path_gt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_cmp(store_path, store_path) RETURNS integer
	AS 'MODULE_PATHNAME', 'store_path_cmp'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_sortsupport(internal) RETURNS void
	AS 'MODULE_PATHNAME', 'store_path_sortsupport'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_hash(store_path) RETURNS integer
	AS 'MODULE_PATHNAME', 'store_path_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION store_path_hash_extended(store_path, bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'store_path_hash_extended'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_lt,
	COMMUTATOR = >, NEGATOR = >=,
	RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_le,
	COMMUTATOR = >=, NEGATOR = >,
	RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);

CREATE OPERATOR = (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_eq,
	COMMUTATOR = =, NEGATOR = <>,
	HASHES, MERGES, RESTRICT = eqsel, JOIN = eqjoinsel
);

CREATE OPERATOR <> (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_ne,
	COMMUTATOR = <>, NEGATOR = =,
	RESTRICT = neqsel, JOIN = neqjoinsel
);

CREATE OPERATOR >= (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_ge,
	COMMUTATOR = <=, NEGATOR = <,
	RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR > (
	LEFTARG = store_path, RIGHTARG = store_path, FUNCTION = store_path_gt,
	COMMUTATOR = <, NEGATOR = <=,
	RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS store_path_ops DEFAULT FOR TYPE store_path USING btree AS
	OPERATOR 1 <,
	OPERATOR 2 <=,
	OPERATOR 3 =,
	OPERATOR 4 >=,
	OPERATOR 5 >,
	FUNCTION 1 store_path_cmp(store_path, store_path),
	FUNCTION 2 store_path_sortsupport(internal),
	FUNCTION 4 btequalimage(oid);

CREATE OPERATOR CLASS store_path_hash_ops DEFAULT FOR TYPE store_path USING hash AS
	OPERATOR 1 =,
	FUNCTION 1 store_path_hash(store_path),
	FUNCTION 2 store_path_hash_extended(store_path, bigint);

CREATE CAST (text AS store_path) WITH INOUT;
CREATE CAST (store_path AS text) WITH INOUT AS ASSIGNMENT;

COMMENT ON FUNCTION store_path_in(cstring) IS 'I/O';
COMMENT ON FUNCTION store_path_out(store_path) IS 'I/O';
COMMENT ON FUNCTION store_path_recv(internal) IS 'I/O';
COMMENT ON FUNCTION store_path_send(store_path) IS 'I/O';
COMMENT ON FUNCTION store_path_lt(store_path, store_path) IS 'implementation of < operator';
COMMENT ON FUNCTION store_path_le(store_path, store_path) IS 'implementation of <= operator';
COMMENT ON FUNCTION store_path_eq(store_path, store_path) IS 'implementation of = operator';
COMMENT ON FUNCTION store_path_ne(store_path, store_path) IS 'implementation of <> operator';
COMMENT ON FUNCTION store_path_ge(store_path, store_path) IS 'implementation of >= operator';
COMMENT ON FUNCTION store_path_gt(store_path, store_path) IS 'implementation of > operator';
COMMENT ON FUNCTION store_path_cmp(store_path, store_path) IS 'less-equal-greater: -1, 0 or 1';
COMMENT ON FUNCTION store_path_sortsupport(internal) IS 'sort support';
COMMENT ON FUNCTION store_path_hash(store_path) IS 'hash';
COMMENT ON FUNCTION store_path_hash_extended(store_path, bigint) IS 'hash with a seed';
COMMENT ON OPERATOR < (store_path, store_path) IS 'less than';
COMMENT ON OPERATOR <= (store_path, store_path) IS 'less than or equal';
COMMENT ON OPERATOR = (store_path, store_path) IS 'equal';
COMMENT ON OPERATOR <> (store_path, store_path) IS 'not equal';
COMMENT ON OPERATOR >= (store_path, store_path) IS 'greater than or equal';
COMMENT ON OPERATOR > (store_path, store_path) IS 'greater than';

CREATE TYPE nar_hash;

CREATE FUNCTION nar_hash_in(cstring) RETURNS nar_hash
	AS 'MODULE_PATHNAME', 'nar_hash_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_out(nar_hash) RETURNS cstring
	AS 'MODULE_PATHNAME', 'nar_hash_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_recv(internal) RETURNS nar_hash
	AS 'MODULE_PATHNAME', 'nar_hash_recv'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_send(nar_hash) RETURNS bytea
	AS 'MODULE_PATHNAME', 'nar_hash_send'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE nar_hash (
	INPUT = nar_hash_in,
	OUTPUT = nar_hash_out,
	RECEIVE = nar_hash_recv,
	SEND = nar_hash_send,
	INTERNALLENGTH = variable,
	ALIGNMENT = int4,
	STORAGE = extended
);

COMMENT ON TYPE nar_hash IS
'hash with its algorithm; reads ALGO:base16, nix32 or base64 and SRI, prints ALGO:nix32';

CREATE FUNCTION nar_hash_lt(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_lt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_le(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_le'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_eq(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_eq'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_ne(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_ne'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_ge(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_ge'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_gt(nar_hash, nar_hash) RETURNS boolean
	AS 'MODULE_PATHNAME', 'nar_hash_gt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_cmp(nar_hash, nar_hash) RETURNS integer
	AS 'MODULE_PATHNAME', 'nar_hash_cmp'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_sortsupport(internal) RETURNS void
	AS 'MODULE_PATHNAME', 'nar_hash_sortsupport'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_hash(nar_hash) RETURNS integer
	AS 'MODULE_PATHNAME', 'nar_hash_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION nar_hash_hash_extended(nar_hash, bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'nar_hash_hash_extended'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_lt,
	COMMUTATOR = >, NEGATOR = >=,
	RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_le,
	COMMUTATOR = >=, NEGATOR = >,
	RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);

CREATE OPERATOR = (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_eq,
	COMMUTATOR = =, NEGATOR = <>,
	HASHES, MERGES, RESTRICT = eqsel, JOIN = eqjoinsel
);

CREATE OPERATOR <> (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_ne,
	COMMUTATOR = <>, NEGATOR = =,
	RESTRICT = neqsel, JOIN = neqjoinsel
);

CREATE OPERATOR >= (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_ge,
	COMMUTATOR = <=, NEGATOR = <,
	RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR > (
	LEFTARG = nar_hash, RIGHTARG = nar_hash, FUNCTION = nar_hash_gt,
	COMMUTATOR = <, NEGATOR = <=,
	RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS nar_hash_ops DEFAULT FOR TYPE nar_hash USING btree AS
	OPERATOR 1 <,
	OPERATOR 2 <=,
	OPERATOR 3 =,
	OPERATOR 4 >=,
	OPERATOR 5 >,
	FUNCTION 1 nar_hash_cmp(nar_hash, nar_hash),
	FUNCTION 2 nar_hash_sortsupport(internal),
	FUNCTION 4 btequalimage(oid);

CREATE OPERATOR CLASS nar_hash_hash_ops DEFAULT FOR TYPE nar_hash USING hash AS
	OPERATOR 1 =,
	FUNCTION 1 nar_hash_hash(nar_hash),
	FUNCTION 2 nar_hash_hash_extended(nar_hash, bigint);

CREATE CAST (text AS nar_hash) WITH INOUT;
CREATE CAST (nar_hash AS text) WITH INOUT AS ASSIGNMENT;

COMMENT ON FUNCTION nar_hash_in(cstring) IS 'I/O';
COMMENT ON FUNCTION nar_hash_out(nar_hash) IS 'I/O';
COMMENT ON FUNCTION nar_hash_recv(internal) IS 'I/O';
COMMENT ON FUNCTION nar_hash_send(nar_hash) IS 'I/O';
COMMENT ON FUNCTION nar_hash_lt(nar_hash, nar_hash) IS 'implementation of < operator';
COMMENT ON FUNCTION nar_hash_le(nar_hash, nar_hash) IS 'implementation of <= operator';
COMMENT ON FUNCTION nar_hash_eq(nar_hash, nar_hash) IS 'implementation of = operator';
COMMENT ON FUNCTION nar_hash_ne(nar_hash, nar_hash) IS 'implementation of <> operator';
COMMENT ON FUNCTION nar_hash_ge(nar_hash, nar_hash) IS 'implementation of >= operator';
COMMENT ON FUNCTION nar_hash_gt(nar_hash, nar_hash) IS 'implementation of > operator';
COMMENT ON FUNCTION nar_hash_cmp(nar_hash, nar_hash) IS 'less-equal-greater: -1, 0 or 1';
COMMENT ON FUNCTION nar_hash_sortsupport(internal) IS 'sort support';
COMMENT ON FUNCTION nar_hash_hash(nar_hash) IS 'hash';
COMMENT ON FUNCTION nar_hash_hash_extended(nar_hash, bigint) IS 'hash with a seed';
COMMENT ON OPERATOR < (nar_hash, nar_hash) IS 'less than';
COMMENT ON OPERATOR <= (nar_hash, nar_hash) IS 'less than or equal';
COMMENT ON OPERATOR = (nar_hash, nar_hash) IS 'equal';
COMMENT ON OPERATOR <> (nar_hash, nar_hash) IS 'not equal';
COMMENT ON OPERATOR >= (nar_hash, nar_hash) IS 'greater than or equal';
COMMENT ON OPERATOR > (nar_hash, nar_hash) IS 'greater than';

CREATE TYPE narinfo;

CREATE FUNCTION narinfo_in(cstring) RETURNS narinfo
	AS 'MODULE_PATHNAME', 'narinfo_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_out(narinfo) RETURNS cstring
	AS 'MODULE_PATHNAME', 'narinfo_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_recv(internal) RETURNS narinfo
	AS 'MODULE_PATHNAME', 'narinfo_recv'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_send(narinfo) RETURNS bytea
	AS 'MODULE_PATHNAME', 'narinfo_send'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE narinfo (
	INPUT = narinfo_in,
	OUTPUT = narinfo_out,
	RECEIVE = narinfo_recv,
	SEND = narinfo_send,
	INTERNALLENGTH = variable,
	ALIGNMENT = int4,
	STORAGE = external
);

COMMENT ON TYPE narinfo IS
'text of a .narinfo file, Nix''s or Guix''s; kept packed, printed byte for byte';

CREATE FUNCTION narinfo_lt(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_lt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_le(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_le'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_eq(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_eq'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_ne(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_ne'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_ge(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_ge'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_gt(narinfo, narinfo) RETURNS boolean
	AS 'MODULE_PATHNAME', 'narinfo_gt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_cmp(narinfo, narinfo) RETURNS integer
	AS 'MODULE_PATHNAME', 'narinfo_cmp'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_sortsupport(internal) RETURNS void
	AS 'MODULE_PATHNAME', 'narinfo_sortsupport'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_hash(narinfo) RETURNS integer
	AS 'MODULE_PATHNAME', 'narinfo_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION narinfo_hash_extended(narinfo, bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'narinfo_hash_extended'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE OPERATOR < (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_lt,
	COMMUTATOR = >, NEGATOR = >=,
	RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_le,
	COMMUTATOR = >=, NEGATOR = >,
	RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);

CREATE OPERATOR = (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_eq,
	COMMUTATOR = =, NEGATOR = <>,
	HASHES, MERGES, RESTRICT = eqsel, JOIN = eqjoinsel
);

CREATE OPERATOR <> (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_ne,
	COMMUTATOR = <>, NEGATOR = =,
	RESTRICT = neqsel, JOIN = neqjoinsel
);

CREATE OPERATOR >= (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_ge,
	COMMUTATOR = <=, NEGATOR = <,
	RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR > (
	LEFTARG = narinfo, RIGHTARG = narinfo, FUNCTION = narinfo_gt,
	COMMUTATOR = <, NEGATOR = <=,
	RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);

CREATE OPERATOR CLASS narinfo_ops DEFAULT FOR TYPE narinfo USING btree AS
	OPERATOR 1 <,
	OPERATOR 2 <=,
	OPERATOR 3 =,
	OPERATOR 4 >=,
	OPERATOR 5 >,
	FUNCTION 1 narinfo_cmp(narinfo, narinfo),
	FUNCTION 2 narinfo_sortsupport(internal);

CREATE OPERATOR CLASS narinfo_hash_ops DEFAULT FOR TYPE narinfo USING hash AS
	OPERATOR 1 =,
	FUNCTION 1 narinfo_hash(narinfo),
	FUNCTION 2 narinfo_hash_extended(narinfo, bigint);

CREATE CAST (text AS narinfo) WITH INOUT;
CREATE CAST (narinfo AS text) WITH INOUT AS ASSIGNMENT;

COMMENT ON FUNCTION narinfo_in(cstring) IS 'I/O';
COMMENT ON FUNCTION narinfo_out(narinfo) IS 'I/O';
COMMENT ON FUNCTION narinfo_recv(internal) IS 'I/O';
COMMENT ON FUNCTION narinfo_send(narinfo) IS 'I/O';
COMMENT ON FUNCTION narinfo_lt(narinfo, narinfo) IS 'implementation of < operator';
COMMENT ON FUNCTION narinfo_le(narinfo, narinfo) IS 'implementation of <= operator';
COMMENT ON FUNCTION narinfo_eq(narinfo, narinfo) IS 'implementation of = operator';
COMMENT ON FUNCTION narinfo_ne(narinfo, narinfo) IS 'implementation of <> operator';
COMMENT ON FUNCTION narinfo_ge(narinfo, narinfo) IS 'implementation of >= operator';
COMMENT ON FUNCTION narinfo_gt(narinfo, narinfo) IS 'implementation of > operator';
COMMENT ON FUNCTION narinfo_cmp(narinfo, narinfo) IS 'less-equal-greater: -1, 0 or 1';
COMMENT ON FUNCTION narinfo_sortsupport(internal) IS 'sort support';
COMMENT ON FUNCTION narinfo_hash(narinfo) IS 'hash';
COMMENT ON FUNCTION narinfo_hash_extended(narinfo, bigint) IS 'hash with a seed';
COMMENT ON OPERATOR < (narinfo, narinfo) IS 'less than';
COMMENT ON OPERATOR <= (narinfo, narinfo) IS 'less than or equal';
COMMENT ON OPERATOR = (narinfo, narinfo) IS 'equal';
COMMENT ON OPERATOR <> (narinfo, narinfo) IS 'not equal';
COMMENT ON OPERATOR >= (narinfo, narinfo) IS 'greater than or equal';
COMMENT ON OPERATOR > (narinfo, narinfo) IS 'greater than';

--
-- Parts of the types, and the fields of a narinfo
--
CREATE FUNCTION store_hash(store_path) RETURNS store_hash
	AS 'MODULE_PATHNAME', 'store_path_store_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION store_hash(store_path) IS
'hash part of a store path';

CREATE FUNCTION store_dir(store_path) RETURNS text
	AS 'MODULE_PATHNAME', 'store_path_store_dir'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION store_dir(store_path) IS
'directory of a store path, such as /nix/store';

CREATE FUNCTION store_name(store_path) RETURNS text
	AS 'MODULE_PATHNAME', 'store_path_store_name'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION store_name(store_path) IS
'name of a store path, what stands behind the hash';

CREATE FUNCTION base_name(store_path) RETURNS text
	AS 'MODULE_PATHNAME', 'store_path_base_name'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION base_name(store_path) IS
'HASH-NAME of a store path, without its directory';

CREATE FUNCTION is_store_dir(text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'is_store_dir'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION is_store_dir(text) IS
'whether this is a directory that store paths may lie in';

CREATE FUNCTION algorithm(nar_hash) RETURNS text
	AS 'MODULE_PATHNAME', 'nar_hash_algorithm'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION algorithm(nar_hash) IS
'md5, sha1, sha256 or sha512';

CREATE FUNCTION digest(nar_hash) RETURNS bytea
	AS 'MODULE_PATHNAME', 'nar_hash_digest'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION digest(nar_hash) IS
'bytes of a hash: 16, 20, 32 or 64';

CREATE FUNCTION kind(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_kind'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION kind(narinfo) IS
'nix or guix: whose grammar the narinfo follows';

CREATE FUNCTION store_path(narinfo) RETURNS store_path
	AS 'MODULE_PATHNAME', 'narinfo_store_path'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION store_path(narinfo) IS
'field StorePath';

CREATE FUNCTION store_hash(narinfo) RETURNS store_hash
	AS 'MODULE_PATHNAME', 'narinfo_store_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION store_hash(narinfo) IS
'hash part of field StorePath';

CREATE FUNCTION url(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_url'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION url(narinfo) IS
'field URL, the first where Guix has several';

CREATE FUNCTION urls(narinfo) RETURNS text[]
	AS 'MODULE_PATHNAME', 'narinfo_urls'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION urls(narinfo) IS
'every field URL that counts, in order';

CREATE FUNCTION compression(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_compression'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION compression(narinfo) IS
'field Compression of the first URL; when it is missing, bzip2 for Nix and none for Guix';

CREATE FUNCTION compressions(narinfo) RETURNS text[]
	AS 'MODULE_PATHNAME', 'narinfo_compressions'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION compressions(narinfo) IS
'field Compression of each URL';

CREATE FUNCTION file_hash(narinfo) RETURNS nar_hash
	AS 'MODULE_PATHNAME', 'narinfo_file_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION file_hash(narinfo) IS
'field FileHash of the first URL, or NULL';

CREATE FUNCTION file_size(narinfo) RETURNS numeric
	AS 'MODULE_PATHNAME', 'narinfo_file_size'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION file_size(narinfo) IS
'field FileSize of the first URL, bytes, or NULL';

CREATE FUNCTION file_sizes(narinfo) RETURNS numeric[]
	AS 'MODULE_PATHNAME', 'narinfo_file_sizes'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION file_sizes(narinfo) IS
'field FileSize of each URL, bytes, or NULL';

CREATE FUNCTION nar_hash(narinfo) RETURNS nar_hash
	AS 'MODULE_PATHNAME', 'narinfo_nar_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION nar_hash(narinfo) IS
'field NarHash';

CREATE FUNCTION nar_size(narinfo) RETURNS numeric
	AS 'MODULE_PATHNAME', 'narinfo_nar_size'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION nar_size(narinfo) IS
'field NarSize, bytes';

CREATE FUNCTION refs(narinfo) RETURNS store_path[]
	AS 'MODULE_PATHNAME', 'narinfo_refs'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION refs(narinfo) IS
'field References, in the order of the text';

CREATE FUNCTION ref_hashes(narinfo) RETURNS store_hash[]
	AS 'MODULE_PATHNAME', 'narinfo_ref_hashes'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION ref_hashes(narinfo) IS
'hash parts of field References; reads a slice of a value that is stored out of line';

CREATE FUNCTION deriver(narinfo) RETURNS store_path
	AS 'MODULE_PATHNAME', 'narinfo_deriver'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION deriver(narinfo) IS
'field Deriver, or NULL when it is missing or unknown-deriver';

CREATE FUNCTION system(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_system'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION system(narinfo) IS
'field System, or NULL';

CREATE FUNCTION sigs(narinfo) RETURNS text[]
	AS 'MODULE_PATHNAME', 'narinfo_sigs'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION sigs(narinfo) IS
'every field Sig, Nix''s signatures as KEY:BASE64';

CREATE FUNCTION ca(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_ca'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION ca(narinfo) IS
'field CA, the content address, or NULL';

CREATE FUNCTION signature(narinfo) RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_signature'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION signature(narinfo) IS
'field Signature, Guix''s as 1;HOST;BASE64, or NULL';

CREATE FUNCTION packed_size(narinfo) RETURNS integer
	AS 'MODULE_PATHNAME', 'narinfo_packed_size'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION packed_size(narinfo) IS
'bytes of the packed form, before any compression';

CREATE FUNCTION fields(
	info narinfo, OUT line integer, OUT field text, OUT value text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'narinfo_fields'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION fields(narinfo) IS
'every line of a narinfo as it is written, with unknown fields and those that do not count';

CREATE CAST (store_path AS store_hash) WITH FUNCTION store_hash(store_path)
	AS ASSIGNMENT;
