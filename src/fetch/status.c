/*-------------------------------------------------------------------------
 *
 * status.c
 *	  The figures of narinfo.stat_fetch.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "fetch/claim.h"

PG_FUNCTION_INFO_V1(narinfo_fetch_status);

/* fetch_status() */
Datum
narinfo_fetch_status(PG_FUNCTION_ARGS)
{
	Datum		values[1 + FETCH_FIGURES];
	bool		nulls[1 + FETCH_FIGURES] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "fetch_status() returns a row");
	values[0] = Int32GetDatum(claim_running());
	for (int i = 0; i < FETCH_FIGURES; i++)
		values[1 + i] = Int64GetDatum((int64) fetch_figure((FetchFigure) i));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
