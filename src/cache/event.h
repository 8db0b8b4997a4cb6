/*-------------------------------------------------------------------------
 *
 * event.h
 *	  The event log: one row of narinfo.event for each change of a cache,
 *	  numbered without a gap.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_EVENT_H
#define NARINFO_CACHE_EVENT_H

#include "postgres.h"

#include "access/sdir.h"
#include "executor/tuptable.h"

/*
 * In the order of the enum event_kind of event.sql: keep both in step, and
 * add new ones at the end.
 */
typedef enum EventKind
{
	EVENT_PUBLISH,
	EVENT_REPLACE,
	EVENT_RETRACT,
	EVENT_CREATE_CACHE,
	EVENT_ALTER_CACHE,
	EVENT_DROP_CACHE,
	EVENT_TRUST_KEY,
	EVENT_UNTRUST_KEY,
	EVENT_CREATE_TOKEN,
	EVENT_REVOKE_TOKEN,
	EVENT_PIN,
	EVENT_UNPIN,
	EVENT_ADD_ROOT_SOURCE,
	EVENT_DROP_ROOT_SOURCE,
	EVENT_SET_QUOTA,
	EVENT_DROP_QUOTA
} EventKind;

#define EVENT_KINDS (EVENT_DROP_QUOTA + 1)

/* Columns of narinfo.event, from 0. */
#define EVENT_COLUMN_CACHE	0
#define EVENT_COLUMN_SEQ	1
#define EVENT_COLUMN_EPOCH	2
#define EVENT_COLUMN_AT		3
#define EVENT_COLUMN_KIND	4
#define EVENT_COLUMN_HASH	5
#define EVENT_COLUMN_NAME	6
#define EVENT_COLUMN_LSN	7
#define EVENT_COLUMN_DIGEST 8
#define EVENT_COLUMNS		9

/* The label of a value of the enum, palloc'd. */
extern char *event_kind_label(Oid value);

/*
 * The events of a cache behind a number, as the active snapshot sees them, in
 * their order or backwards.  What "next" returns lives until the next one.
 */
typedef struct EventScan EventScan;

extern EventScan *event_scan_begin(const char *cache, int64 after);
extern TupleTableSlot *event_scan_next(EventScan *scan,
									   ScanDirection direction);
extern void event_scan_end(EventScan *scan);

/* The end of a cache's log. */
typedef struct EventPosition
{
	int64		seq;			/* 0 before the first event */
	int32		epoch;
	uint8		digest[16];		/* of the state after it */
} EventPosition;

/* Of a row of narinfo.event. */
extern void event_read_position(TupleTableSlot *slot,
								EventPosition *position);

/* The last event of a cache, as the active snapshot sees it. */
extern void event_read_last(const char *cache, EventPosition *position);

/*
 * True while somebody writes events of another site as rows, and looks himself
 * whether they follow ours: the trigger for replicas lets them pass.
 */
extern bool event_taking_rows;

/* The number of the first event that is kept, 0 if there is none. */
extern int64 event_first_seq(const char *cache);

/*
 * Writes events one behind the other.  Their rows go in without triggers, so
 * neither the guard of the table nor a trigger of the user's fires for them;
 * what wants to be told uses the cache's hook or LISTEN.
 */
typedef struct EventWriter EventWriter;

extern EventWriter *event_writer_begin(const char *cache,
									   const EventPosition *last);

/*
 * "hash" and "name" may be NULL.  Both and "digest" must live until the
 * writer's end.  Takes the next number and returns it.
 */
extern int64 event_write(EventWriter *writer, EventKind kind,
						 const uint8 *hash, const char *name,
						 const uint8 *digest);
extern void event_writer_end(EventWriter *writer);

/* Has this transaction written events?  Reset by who asks at its end. */
extern bool event_written;

/* The same of events that replication applies. */
extern bool event_applied;

#endif							/* NARINFO_CACHE_EVENT_H */
