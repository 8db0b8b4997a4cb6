/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Where in this database the extension's tables and types are.
 *
 * They are found by name, so that a process outlives the extension being
 * dropped and made again, and remembered until one of them changes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/cache.h"

#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static CacheCatalog catalog;
static bool catalog_valid = false;
static bool callbacks_registered = false;

static void
forget_relation(Datum arg, Oid relid)
{
	(void) arg;
	if (relid == InvalidOid || relid == catalog.cache_rel ||
		relid == catalog.valid_path_rel || relid == catalog.valid_path_pkey ||
		relid == catalog.event_rel || relid == catalog.event_pkey ||
		relid == catalog.node_rel)
		catalog_valid = false;
}

static void
forget_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	(void) arg;
	(void) cacheid;
	(void) hashvalue;
	catalog_valid = false;
}

static Oid
find_type(const char *name, Oid schema)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   CStringGetDatum(name), ObjectIdGetDatum(schema));
}

const CacheCatalog *
cache_catalog(void)
{
	Oid			schema;

	if (catalog_valid)
		return &catalog;
	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
		callbacks_registered = true;
	}
	schema = get_namespace_oid("narinfo", true);
	if (!OidIsValid(schema))
		return NULL;

	/* what changes from here on makes it invalid again */
	catalog_valid = true;
	catalog.cache_rel = get_relname_relid("cache", schema);
	catalog.valid_path_rel = get_relname_relid("valid_path", schema);
	catalog.valid_path_pkey = get_relname_relid("valid_path_pkey", schema);
	catalog.event_rel = get_relname_relid("event", schema);
	catalog.event_pkey = get_relname_relid("event_pkey", schema);
	catalog.node_rel = get_relname_relid("node", schema);
	catalog.narinfo_type = find_type("narinfo", schema);
	catalog.store_hash_type = find_type("store_hash", schema);
	catalog.store_path_type = find_type("store_path", schema);
	if (!OidIsValid(catalog.cache_rel) ||
		!OidIsValid(catalog.valid_path_rel) ||
		!OidIsValid(catalog.valid_path_pkey) ||
		!OidIsValid(catalog.event_rel) ||
		!OidIsValid(catalog.event_pkey) ||
		!OidIsValid(catalog.node_rel) ||
		!OidIsValid(catalog.narinfo_type) ||
		!OidIsValid(catalog.store_hash_type) ||
		!OidIsValid(catalog.store_path_type))
	{
		catalog_valid = false;
		return NULL;
	}
	catalog.narinfo_array_type = get_array_type(catalog.narinfo_type);
	catalog.store_hash_array_type = get_array_type(catalog.store_hash_type);
	catalog.store_path_array_type = get_array_type(catalog.store_path_type);
	return &catalog;
}

const CacheCatalog *
cache_catalog_hold(void)
{
	for (;;)
	{
		Oid			extension = get_extension_oid("pg_narinfo", true);

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(extension))
			return NULL;
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		if (get_extension_oid("pg_narinfo", true) == extension)
			return cache_catalog();
		UnlockDatabaseObject(ExtensionRelationId, extension, 0,
							 AccessShareLock);
	}
}
