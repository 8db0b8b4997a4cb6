/*-------------------------------------------------------------------------
 *
 * local.h
 *	  SQL on this side, as the procedures and the worker of sites need it:
 *	  texts in, texts out, and names that nobody can redirect.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_LOCAL_H
#define NARINFO_SITES_LOCAL_H

#include "postgres.h"

#include "fmgr.h"

/* The mirror's subscription, in each database. */
#define SITE_SUBSCRIPTION "narinfo"

/* Its oid in this database, for a query; others have one of this name, too. */
#define OUR_SUBSCRIPTION \
	"(SELECT s.oid FROM pg_subscription AS s WHERE s.subname = '" \
	SITE_SUBSCRIPTION "' AND s.subdbid = (SELECT d.oid " \
	"FROM pg_database AS d WHERE d.datname = current_database()))"

/* Names of mirrors' slots begin so, and end with the name of the site. */
#define SITE_SLOT_PREFIX "narinfo_"

/*
 * Begins a procedure that commits on its way: refused in a transaction block,
 * and for users other than superusers.  Returns the memory context that lives
 * as long as the procedure, which is the current one now; SPI is connected.
 */
extern MemoryContext local_procedure(FunctionCallInfo fcinfo,
									 const char *name);
extern void local_procedure_end(MemoryContext context);

/*
 * Commits, in a procedure or the worker; what follows is a transaction without
 * a snapshot or a lock until something is asked.
 */
extern void local_commit(void);

/*
 * A transaction of the worker, with the rights of the extension's owner.
 * False, and no transaction, where the extension is not there.
 */
extern bool local_begin(void);
extern void local_end(void);

/*
 * Until the end of the transaction nothing fires that does not fire in the
 * apply of replication.
 */
extern void local_as_replica(void);

/* Runs a statement whose parameters are texts, or NULL; how many rows. */
extern uint64 local_sql(const char *query, int nparams,
						const char *const *params);

/* A value of the last statement's result, palloc'd, or NULL. */
extern char *local_value(uint64 row, int column);

/*
 * A parameter, which is a text, as an array: read once, and not anew for each
 * row that it is compared with.
 */
#define LOCAL_ARRAY(param, type) "((SELECT " param "::" type ")::" type ")"

/* The first value of its first row, palloc'd, or NULL. */
extern char *local_ask(const char *query, int nparams,
					   const char *const *params);

/* The same of one boolean; NULL is false. */
extern bool local_is(const char *query, int nparams,
					 const char *const *params);

/* An argument of the function as text, palloc'd; NULL. */
extern char *local_argument(FunctionCallInfo fcinfo, int number);

/* ALTER SUBSCRIPTION, which is not somebody's by hand. */
extern void local_alter(const char *statement);

/* True while we alter the subscription ourselves. */
extern bool local_altering;

/*
 * Enables or disables the subscription; then waits until its worker has gone,
 * so that nothing is applied any more.  Commits in between.
 */
extern void local_enable(void);
extern void local_disable(void);

/* Of the subscription: NULL if there is none. */
extern char *local_conninfo(void);

/* Sleeps so long, or until the latch is set; can be interrupted. */
extern void local_sleep(long ms);

#endif							/* NARINFO_SITES_LOCAL_H */
