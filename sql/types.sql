--
-- What the catalogs say of the extension's objects.
--

-- I/O, operators, support functions and casts: immutable, strict, safe
WITH own AS (
	SELECT objid AS oid FROM pg_depend
	WHERE classid = 'pg_proc'::regclass AND deptype = 'e'
		AND refclassid = 'pg_extension'::regclass
		AND refobjid = (SELECT oid FROM pg_extension
			WHERE extname = 'pg_narinfo')
), used (role, oid) AS (
	SELECT 'i/o', unnest(ARRAY[typinput, typoutput, typreceive, typsend]::oid[])
	FROM pg_type
	WHERE typnamespace = 'narinfo'::regnamespace AND typtype = 'b'
	UNION
	SELECT 'operator', oprcode FROM pg_operator
	WHERE oprnamespace = 'narinfo'::regnamespace
	UNION
	SELECT 'support', p.amproc
	FROM pg_amproc AS p JOIN pg_opfamily AS f ON f.oid = p.amprocfamily
	WHERE f.opfnamespace = 'narinfo'::regnamespace
	UNION
	SELECT 'cast', castfunc FROM pg_cast WHERE castfunc <> 0
)
SELECT role, count(*), count(*) FILTER (WHERE provolatile = 'i'
	AND proisstrict AND proparallel = 's') AS good
FROM own JOIN used USING (oid) JOIN pg_proc USING (oid)
GROUP BY role ORDER BY role COLLATE "C";

-- functions of one value: fields and parts
SELECT p.oid::regprocedure AS function, p.provolatile, p.proisstrict,
	p.proparallel
FROM pg_proc AS p
WHERE p.pronamespace = 'narinfo'::regnamespace AND p.pronargs = 1
	AND p.proname !~ '_(in|out|recv|send|hash)$' AND p.prokind = 'f'
	AND p.proargtypes[0] IN (SELECT oid FROM pg_type
		WHERE typnamespace = 'narinfo'::regnamespace AND typtype = 'b'
			AND typelem = 0)
	OR p.oid IN ('narinfo.is_store_dir(text)'::regprocedure,
		'narinfo.store_hash(narinfo.store_path)'::regprocedure,
		'narinfo.store_hash(narinfo.narinfo)'::regprocedure,
		'narinfo.nar_hash(narinfo.narinfo)'::regprocedure,
		'narinfo.file_hash(narinfo.narinfo)'::regprocedure)
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- operators know their commutators and negators
SELECT o.oid::regoperator AS lacks
FROM pg_operator AS o
WHERE o.oprnamespace = 'narinfo'::regnamespace
	AND (o.oprcom = 0 OR o.oprnegate = 0 OR o.oprrest = 0 OR o.oprjoin = 0
		OR o.oprname = '=' AND NOT (o.oprcanhash AND o.oprcanmerge));
SELECT castsource::regtype, casttarget::regtype, castcontext, castmethod
FROM pg_cast
WHERE castsource IN (SELECT oid FROM pg_type
		WHERE typnamespace = 'narinfo'::regnamespace)
	OR casttarget IN (SELECT oid FROM pg_type
		WHERE typnamespace = 'narinfo'::regnamespace)
ORDER BY castsource::regtype::text COLLATE "C",
	casttarget::regtype::text COLLATE "C";
SELECT typname, typlen, typbyval, typalign, typstorage
FROM pg_type
WHERE typnamespace = 'narinfo'::regnamespace AND typtype = 'b'
	AND typelem = 0
ORDER BY typname COLLATE "C";

-- every object that is the extension's has a comment: types, functions,
-- procedures, operators, tables and views
CREATE TEMP VIEW members AS
	SELECT classid, objid FROM pg_depend
	WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
		AND refobjid = (SELECT oid FROM pg_extension
			WHERE extname = 'pg_narinfo');
SELECT classid::regclass AS catalog, count(*) > 0 AS some
FROM members
WHERE classid IN ('pg_type'::regclass, 'pg_proc'::regclass,
	'pg_operator'::regclass, 'pg_class'::regclass)
GROUP BY 1 ORDER BY 1;
SELECT pg_describe_object(classid, objid, 0) AS without_comment
FROM members
WHERE classid IN ('pg_type'::regclass, 'pg_proc'::regclass,
		'pg_operator'::regclass, 'pg_class'::regclass)
	AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
	-- from 17 on, arrays and the rows of tables are members themselves
	AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type
		WHERE oid = objid AND (typcategory = 'A' OR typrelid <> 0)))
ORDER BY 1;
-- and so has every column of theirs
SELECT format('%s.%s', a.attrelid::regclass, a.attname) AS without_comment
FROM members AS m
	JOIN pg_class AS c ON m.classid = 'pg_class'::regclass
		AND m.objid = c.oid AND c.relkind IN ('r', 'p', 'v', 'm')
	JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
		AND NOT a.attisdropped
WHERE coalesce(col_description(a.attrelid, a.attnum), '') = ''
ORDER BY 1;
-- nothing lies about but what belongs to the extension
SELECT pg_describe_object('pg_proc'::regclass, oid, 0) AS stray FROM pg_proc
WHERE pronamespace = 'narinfo'::regnamespace
	AND oid NOT IN (SELECT objid FROM members);

-- what anybody may call and is not declared to change nothing; functions of
-- triggers cannot be called.  worker_status() only reads.
SELECT p.oid::regprocedure AS volatile_and_public
FROM members AS m
	JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid,
	aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
WHERE acl.grantee = 0 AND acl.privilege_type = 'EXECUTE'
	AND (p.provolatile = 'v' OR p.prokind = 'p')
	AND p.prorettype <> 'trigger'::regtype
ORDER BY 1;
-- tables are nobody's but those they were granted to, and PUBLIC is not
SELECT c.oid::regclass AS public_table, acl.privilege_type
FROM members AS m
	JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
	aclexplode(c.relacl) AS acl
WHERE acl.grantee = 0 AND acl.privilege_type <> 'SELECT'
ORDER BY 1, 2;
-- what runs with its owner's rights has its search_path pinned
SELECT p.oid::regprocedure AS definer_without_search_path
FROM members AS m
	JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting
	WHERE setting LIKE 'search_path=%');
DROP VIEW members;
