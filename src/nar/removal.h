/*-------------------------------------------------------------------------
 *
 * removal.h
 *	  Removing the files of narinfos that are gone.
 *
 *	  narinfo leaves valid_path or trash
 *		| row trigger, on every site (removal_queue.c)
 *		v
 *	  narinfo.file_removal: this site's queue
 *		| file_grace later (removal.c): up to RUN_MAX files a run
 *		v
 *	  one look at all narinfos (removal_names.c): who is still named?
 *		| not named									| named
 *		v											v
 *	  renamed to a name beside it that				out of the queue: it is
 *	  begins with a dot (removal_file.c)			queued again when that
 *		|											narinfo leaves
 *		v
 *	  whoever was writing narinfos then has ended
 *		|
 *		v
 *	  named by what was published since, or queued again?
 *		| no										| yes
 *		v											v
 *	  unlinked, out of the queue					renamed back
 *
 * So a queue that holds too much does no harm, and nothing that leaves is
 * forgotten: the entry commits with the change.  An entry stays until its
 * file is unlinked; what a crash leaves renamed is found by the same entry.
 *
 * Whoever pushes relies on what it is told is there.  A file that was pushed
 * again, that a pusher asked for or that was looked into for its narinfo has
 * a young modification time (removal_hold), and a file younger than the grace
 * stays.  Both look twice, so that no order of things fools them:
 *
 *		pusher		renew the time, then look whether the path is the same file
 *		removal		rename, then look at the time
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_REMOVAL_H
#define NARINFO_NAR_REMOVAL_H

#include "postgres.h"

#include <sys/stat.h>

#include "base/narinfo.h"
#include "base/text.h"
#include "datatype/timestamp.h"

/* Seconds; negative: for ever. */
extern int	removal_trash_grace;
extern int	removal_file_grace;

/* Defines the settings; called once by nar_init(). */
extern void removal_init(void);

/*
 * What is due, for the janitor: works about a second at a time, in
 * transactions of its own, and returns whether there is more to do.  It does
 * nothing on a standby, and on a server that may not publish.
 */
extern bool removal_work(void);

/* ---- names (removal_names.c) ---- */

/*
 * The paths, relative to the directory of its cache, under which a file may
 * lie that a URL names; palloc'd.  None if it can be no file below nar/, two
 * if it has a '?', which may be part of the name or not.
 */
#define REMOVAL_NAMES_MAX 2
extern int	removal_names_of_url(Span url, char *names[REMOVAL_NAMES_MAX]);

/* The text of a narinfo; good until the next call. */
extern Span removal_text_of(const struct varlena *info);

/*
 * Every narinfo that holds files: all of valid_path, then all of trash, as
 * the active snapshot sees them.  The cache's name and the narinfo live for
 * one call, and so does what the visitor allocates.
 */
typedef void (*HolderVisitor) (void *arg, const char *cache,
							   const uint8 *hash, const struct varlena *info,
							   bool valid);

extern void removal_visit_holders(HolderVisitor visit, void *arg);

typedef enum RemovalState
{
	REMOVAL_WAITING,
	REMOVAL_NAMED,				/* a narinfo of its cache names it */
	REMOVAL_NAMED_ELSEWHERE,	/* it is also what another path leads to */
	REMOVAL_YOUNG,
	REMOVAL_HIDDEN,				/* renamed to begin with a dot */
	REMOVAL_REMOVED,
	REMOVAL_ABSENT,
	REMOVAL_LATER,				/* somebody has queued it again meanwhile */
	REMOVAL_TROUBLE				/* no file, or it cannot be renamed */
} RemovalState;

/* One file that is due. */
typedef struct DueFile
{
	const char *cache;
	const char *path;
	uint32		next;			/* number of the next one of the same name, in
								 * whatever directory; 0: none */
	uint8		state;			/* RemovalState */
	bool		looked;			/* device and inode are known */
	uint32		first_entry;	/* of its entries in the queue */
	uint32		nentries;
	uint64		device;
	uint64		inode;
	int64		bytes;
	TimestampTz modified;
	TimestampTz later;			/* REMOVAL_LATER: when it was queued again,
								 * 0: not known */
} DueFile;

/* The files of a run by their names; files[0] is not used. */
typedef struct DueNames DueNames;

extern DueNames *due_names_build(DueFile *files, uint32 n,
								 MemoryContext context);

/* Strikes out those that this narinfo names. */
extern void due_names_strike(DueNames *names, const char *cache,
							 const struct varlena *info);

/* ---- files (removal_file.c) ---- */

/* Is there a root with something in it, rather than an empty mount point? */
extern bool removal_root_ready(void);

/*
 * The directory in which the file of this path lies, to be read and closed;
 * -1 if it is not there.
 */
extern int	removal_open_parent(const char *cache, const char *path);

/* Device, inode and so on of a path, links followed; false if not there. */
extern bool removal_stat(const char *cache, const char *path,
						 struct stat *st);

/*
 * Renames a file of the directory, unless it was modified behind this time:
 * REMOVAL_HIDDEN (perhaps for long), _YOUNG, _ABSENT or _TROUBLE, which is
 * logged.
 */
extern RemovalState removal_hide(int parent, DueFile *file,
								 TimestampTz modified_before);

/*
 * Renames it back, if it is renamed and nothing else is in its place; whether
 * anything changed.
 */
extern bool removal_put_back(int parent, const DueFile *file);

/* Unlinks what is renamed; false, and logged, if that cannot be done. */
extern bool removal_unlink(int parent, DueFile *file);

/*
 * A client is told that this open file, found by this path (and query, see
 * nar_open_asked), is there: keeps it from being removed for half of
 * file_grace at least.  False if it is not there any more, or cannot be kept:
 * then it has to be pushed.
 */
extern bool removal_hold(const char *cache, Span path, Span query, int fd,
						 struct stat *st);

/* The first half of that; false when the time cannot be renewed. */
extern bool removal_renew(int fd, struct stat *st);

#endif							/* NARINFO_NAR_REMOVAL_H */
