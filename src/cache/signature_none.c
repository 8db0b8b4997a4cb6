/*-------------------------------------------------------------------------
 *
 * signature_none.c
 *	  Stands where signatures are verified.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/policy.h"

int
signatures_valid(const struct varlena *info, const char *cache)
{
	(void) info;
	(void) cache;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("signatures cannot be verified by this build")));
}
