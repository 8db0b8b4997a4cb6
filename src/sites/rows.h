/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Rows of another site's tables: see rows.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_ROWS_H
#define NARINFO_SITES_ROWS_H

#include "postgres.h"

#include "sites/remote.h"

/*
 * The rows of a table of the other site as a JSON array of objects, palloc'd.
 * The condition is about its row t.
 */
extern char *rows_fetch(Remote *remote, const char *table,
						const char *condition, int nparams,
						const char *const *params);

/*
 * The statement that inserts such an array, its only parameter, here; NULL
 * when it is empty.
 */
extern char *rows_insert_query(const char *table, const char *rows);

#endif							/* NARINFO_SITES_ROWS_H */
