/*-------------------------------------------------------------------------
 *
 * policy.c
 *	  Signatures, filter and hook of a cache.
 *
 * Filter and hook are functions of the application.  They run with the rights
 * of their owner, whoever publishes: they are the cache's, and neither may
 * the one who registers a function lend himself the publishers' rights nor
 * they borrow those of the gate.  Only who owns a function may register it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/policy.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "cache/errors.h"
#include "cache/key.h"
#include "compat.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(policy_function);
PG_FUNCTION_INFO_V1(outer_user);

struct PolicyCheck
{
	char	   *cache;
	Datum		cache_text;
	CachePolicies policies;
	Oid			filter_owner;
	FmgrInfo	filter;			/* if the policies have one */
};

/*-------------------------------------------------------------------------
 * Functions by name
 *-------------------------------------------------------------------------
 */

static Oid
function_owner(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Names are kept with their schemas, so no search_path has a say; the types of
 * the arguments are given.  Raises ERRCODE_UNDEFINED_FUNCTION.
 */
static Oid
find_function(const char *name, bool is_hook)
{
	Oid			filter_types[] = {cache_catalog()->narinfo_type, TEXTOID};
	Oid			hook_types[] = {TEXTOID, INT8OID, INT8OID};

	return LookupFuncName(compat_qualified_name(name),
						  is_hook ? lengthof(hook_types) :
						  lengthof(filter_types),
						  is_hook ? hook_types : filter_types, false);
}

static CacheUser
become(Oid owner)
{
	CacheUser	user;

	GetUserIdAndSecContext(&user.id, &user.context);
	SetUserIdAndSecContext(owner,
						   user.context | SECURITY_LOCAL_USERID_CHANGE);
	return user;
}

/*
 * policy_function(name text, is_hook boolean) -> text: its full name, when
 * the one who calls may register it as a filter or a hook.  Called by
 * functions that have their owner's rights, so the one who calls is the user
 * outside of them.
 */
Datum
policy_function(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		is_hook = PG_GETARG_BOOL(1);
	Oid			function = find_function(name, is_hook);
	const char *schema;

	if (!is_hook && get_func_rettype(function) != BOOLOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("filter %s does not return boolean", name)));
	if (get_func_prokind(function) != PROKIND_FUNCTION ||
		get_func_retset(function))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is no plain function", name)));
	if (!has_privs_of_role(GetOuterUserId(), function_owner(function)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of function %s", name)));
	schema = get_namespace_name(get_func_namespace(function));
	name = quote_qualified_identifier(schema, get_func_name(function));
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/* outer_user() -> text */
Datum
outer_user(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_TEXT_P(cstring_to_text(GetUserNameFromId(GetOuterUserId(),
													   false)));
}

/*-------------------------------------------------------------------------
 * Checking
 *-------------------------------------------------------------------------
 */

PolicyCheck *
policy_begin(const char *cache)
{
	PolicyCheck *check = palloc0(sizeof(PolicyCheck));

	check->cache = pstrdup(cache);
	check->cache_text = CStringGetTextDatum(cache);
	(void) cache_get_policies(cache, &check->policies);
	if (check->policies.filter[0] != '\0')
	{
		Oid			function = find_function(check->policies.filter, false);

		check->filter_owner = function_owner(function);
		fmgr_info(function, &check->filter);
	}
	return check;
}

static bool
passes_filter(PolicyCheck *check, const struct varlena *info)
{
	LOCAL_FCINFO(fcinfo, 2);
	CacheUser	user = become(check->filter_owner);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, &check->filter, 2,
							 InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(info);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = check->cache_text;
	fcinfo->args[1].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	cache_become_user(user);
	return !fcinfo->isnull && DatumGetBool(result);
}

char *
policy_name_of(const struct varlena *info)
{
	PackedRefs	refs;
	StorePath	path;
	char		hash[STORE_HASH_TEXT_LEN];

	if (!packed_open(NARINFO_PACKED(info), NARINFO_PACKED_LEN(info), &refs,
					 &path))
		return pstrdup("a damaged narinfo");
	store_hash_encode(path.hash, hash);
	return psprintf("%.*s-%.*s", STORE_HASH_TEXT_LEN, hash,
					(int) path.name.len, path.name.data);
}

int
policy_count_signatures(const char *cache, const struct varlena *info,
						int wanted)
{
	SignatureCheck check;
	const PublicKey **seen;
	int			n = 0;

	signature_check_begin(&check, cache, info);
	seen = palloc(sizeof(PublicKey *) * (Size) (check.nkeys + 1));
	while (n < wanted && signature_check_next(&check))
	{
		bool		known = check.status != SIGNATURE_VALID;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n && !known; i++)
			known = check.key->kind == seen[i]->kind &&
				memcmp(check.key->bytes, seen[i]->bytes, KEY_BYTES) == 0;
		if (!known)
			seen[n++] = check.key;
	}
	return n;
}

void
policy_check(PolicyCheck *check, const struct varlena *info)
{
	const CachePolicies *policies = &check->policies;
	int			wanted = policies->min_signatures;

	if (wanted > 0)
	{
		int			valid = policy_count_signatures(check->cache, info,
													wanted);

		if (valid < wanted)
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_REFUSED),
					 errmsg("%s has %d of the %d signatures that cache \"%s\" wants",
							policy_name_of(info), valid, wanted,
							check->cache),
					 policies->sign_with[0] == '\0' ? 0 :
					 errhint("The cache signs with key \"%s\": does it trust it?",
							 policies->sign_with)));
	}
	if (policies->filter[0] != '\0' && !passes_filter(check, info))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_REFUSED),
				 errmsg("the filter of cache \"%s\" refuses %s",
						check->cache, policy_name_of(info)),
				 errdetail("The filter is %s.", policies->filter)));
}

void
policy_call_hook(const char *cache, int64 first, int64 last)
{
	CachePolicies policies;
	Oid			function;
	CacheUser	user;

	LOCAL_FCINFO(fcinfo, 3);
	FmgrInfo	flinfo;

	if (!cache_get_policies(cache, &policies) || policies.hook[0] == '\0')
		return;
	function = find_function(policies.hook, true);
	fmgr_info(function, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(cache);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = Int64GetDatum(first);
	fcinfo->args[1].isnull = false;
	fcinfo->args[2].value = Int64GetDatum(last);
	fcinfo->args[2].isnull = false;
	user = become(function_owner(function));
	(void) FunctionCallInvoke(fcinfo);
	cache_become_user(user);
}
