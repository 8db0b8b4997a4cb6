/*-------------------------------------------------------------------------
 *
 * asked.h
 *	  Have the other sites been asked since this server was started?
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_ASKED_H
#define NARINFO_SITES_ASKED_H

#include "postgres.h"

/* When the extension is loaded: whoever publishes waits for asked_note(). */
extern void asked_init(void);

/* The worker of sites has asked all that can be asked. */
extern void asked_note(void);

/* In shared memory. */
extern Size asked_shmem_size(void);
extern void asked_shmem_init(void);

#endif							/* NARINFO_SITES_ASKED_H */
