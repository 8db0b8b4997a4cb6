/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Rows of another site's tables, which may be of another version.
 *
 * They come as JSON, with the names of their columns, and go into the columns
 * that both sites have: while sites are upgraded, a mirror has columns that
 * its upstream does not know yet, which get their defaults, as they do by
 * replication.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/rows.h"

#include "sites/local.h"

char *
rows_fetch(Remote *remote, const char *table, const char *condition,
		   int nparams, const char *const *params)
{
	return remote_ask(remote,
					  psprintf("SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') "
							   "FROM narinfo.%s AS t WHERE %s", table,
							   condition), nparams, params);
}

char *
rows_insert_query(const char *table, const char *rows)
{
	const char *params[] = {table, rows};
	char	   *columns =
	local_ask("SELECT string_agg(quote_ident(a.attname), ', ' "
			  "ORDER BY a.attnum) FROM pg_attribute AS a "
			  "WHERE a.attrelid = format('narinfo.%I', $1)::regclass "
			  "AND a.attnum > 0 AND NOT a.attisdropped "
			  "AND $2::jsonb->0 ? a.attname", 2, params);

	if (columns == NULL)
		return NULL;
	return psprintf("INSERT INTO narinfo.%s (%s) SELECT %s FROM "
					"jsonb_populate_recordset(NULL::narinfo.%s, $1::jsonb)",
					table, columns, columns, table);
}
