/*-------------------------------------------------------------------------
 *
 * pg_narinfo.c
 *	  The library's beginning: each room sets itself up.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "cache/cache.h"
#include "cache/gate.h"
#include "fetch/fetch.h"
#include "graph/dense.h"
#include "graph/root.h"
#include "nar/root.h"
#include "serve/serve.h"
#include "sites/sites.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	cache_init();
	gate_init();
	dense_init();
	root_init();
	nar_init();
	sites_init();
	fetch_init();
	serve_init();
	worker_init();

	MarkGUCPrefixReserved("pg_narinfo");
}
