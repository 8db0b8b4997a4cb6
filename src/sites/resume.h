/*-------------------------------------------------------------------------
 *
 * resume.h
 *	  The hooks of resume.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_RESUME_H
#define NARINFO_SITES_RESUME_H

/* Called once by sites_init(). */
extern void resume_init(void);

#endif							/* NARINFO_SITES_RESUME_H */
