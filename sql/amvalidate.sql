--
-- The extension, and whether its operator classes are whole.
--
CREATE EXTENSION pg_narinfo;

SELECT am.amname, opc.opcname, opc.opcdefault, amvalidate(opc.oid)
FROM pg_opclass AS opc
	JOIN pg_am AS am ON am.oid = opc.opcmethod
WHERE opc.opcnamespace = 'narinfo'::regnamespace
ORDER BY am.amname COLLATE "C", opc.opcname COLLATE "C";

-- each type has one of both, all are of this extension
SELECT t.typname, count(*) FILTER (WHERE am.amname = 'btree') AS btree,
	count(*) FILTER (WHERE am.amname = 'hash') AS hash
FROM pg_type AS t
	LEFT JOIN pg_opclass AS opc ON opc.opcintype = t.oid AND opc.opcdefault
	LEFT JOIN pg_am AS am ON am.oid = opc.opcmethod
WHERE t.typnamespace = 'narinfo'::regnamespace AND t.typtype = 'b'
	AND t.typelem = 0
GROUP BY t.typname
ORDER BY t.typname COLLATE "C";

-- b-trees have abbreviated keys, hashes have a seed
SELECT opf.opfname,
	array_agg(p.amprocnum || ' ' || p.amproc::regproc::text
		ORDER BY p.amprocnum) AS functions
FROM pg_amproc AS p
	JOIN pg_opfamily AS opf ON opf.oid = p.amprocfamily
WHERE opf.opfnamespace = 'narinfo'::regnamespace
GROUP BY opf.opfname
ORDER BY opf.opfname COLLATE "C";
