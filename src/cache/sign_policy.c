/*-------------------------------------------------------------------------
 *
 * sign_policy.c
 *	  The signature that a cache puts on what comes unsigned.
 *
 * One rule, whichever way a narinfo comes: where the cache has a key for
 * that, and what is offered has no valid signature by a key that the cache
 * trusts, it is signed before it is stored.  Whoever may write valid_path, by
 * the functions or by INSERT, COPY and UPDATE, has shown PostgreSQL who he
 * is, and that is the authentication that this asks for.
 *
 * What is there already with signatures is what the unsigned one was made
 * into, by whatever key: so publishing that again changes nothing, also while
 * one key takes the place of another.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/policy.h"

#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/key.h"
#include "types/types.h"

/*
 * The secret keys that this transaction has signed with: a file is read once
 * for all its rows, and a secret is wiped when the transaction ends.
 */
typedef struct KeptKey
{
	struct KeptKey *next;
	const SecretKey *key;
	MemoryContextCallback callback;
} KeptKey;

static KeptKey *kept_keys = NULL;

static void
forget_keys(void *arg)
{
	(void) arg;
	kept_keys = NULL;
}

static const SecretKey *
find_key(const char *name)
{
	MemoryContext old;
	KeptKey    *kept;

	for (kept = kept_keys; kept != NULL; kept = kept->next)
	{
		if (strcmp(kept->key->name, name) == 0)
			return kept->key;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	kept = palloc0(sizeof(KeptKey));
	kept->key = secret_key_load(name);
	kept->callback.func = forget_keys;
	MemoryContextRegisterResetCallback(TopTransactionContext,
									   &kept->callback);
	kept->next = kept_keys;
	kept_keys = kept;
	MemoryContextSwitchTo(old);
	return kept->key;
}

/* Is "there" what was offered, with signatures of ours or others added? */
static bool
is_signed_form(struct varlena *there, struct varlena *offered)
{
	Span		signed_text;
	Span		text;

	signed_text.data = narinfo_to_text(there, &signed_text.len);
	text.data = narinfo_to_text(offered, &text.len);
	return narinfo_signed_further(text, signed_text);
}

static struct varlena *
sign_offered(const char *cache, const char *key_name,
			 struct varlena *offered, struct varlena *there)
{
	struct varlena *base = offered;
	struct varlena *result;
	ParseError	error;

	if (policy_count_signatures(cache, offered, 1) > 0)
		return offered;
	if (there != NULL && is_signed_form(there, offered))
	{
		base = there;
		if (policy_count_signatures(cache, base, 1) > 0)
			return base;
	}
	result = secret_key_sign(find_key(key_name), base, &error);
	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_REFUSED),
				 errmsg("key \"%s\" cannot sign %s: %s", key_name,
						policy_name_of(offered),
						describe_parse_error(&error))));
	return result;
}

static void
add_context(void *arg)
{
	errcontext("signing a narinfo for cache \"%s\"", (const char *) arg);
}

struct varlena *
policy_sign(const char *cache, struct varlena *offered,
			struct varlena *there)
{
	CachePolicies policies;
	MemoryContext context;
	MemoryContext old;
	ErrorContextCallback callback;
	struct varlena *result;

	if (!cache_get_policies(cache, &policies) ||
		policies.sign_with[0] == '\0')
		return offered;
	context = AllocSetContextCreate(CurrentMemoryContext,
									"narinfo signing",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	callback.callback = add_context;
	callback.arg = unconstify(char *, cache);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	result = sign_offered(cache, policies.sign_with, offered, there);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);
	if (result != offered && result != there)
		result = (struct varlena *) PG_DETOAST_DATUM_COPY(result);
	MemoryContextDelete(context);
	return result;
}
