/*-------------------------------------------------------------------------
 *
 * checker.h
 *	  What the files of pg_narinfo_check share.
 *
 *	  stdin --> source (FileHash) --> decompress --> sink (NarHash, structure)
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_CHECKER_CHECKER_H
#define NARINFO_NAR_CHECKER_CHECKER_H

#include <gcrypt.h>
#include <sys/types.h>

#include "base/hash.h"
#include "base/nar.h"
#include "nar/checker/protocol.h"

/*
 * The largest window, or dictionary, that a stream may want (xz -9 wants all
 * of it), and what a decompressor has beside it.
 */
#define WINDOW_MAX		(64ull * 1024 * 1024)
#define WORKING_MEMORY	(4ull * 1024 * 1024)

/* What may come out of a file: that much, and so many times its size. */
#define EXPANSION_BASE	(1024ull * 1024 * 1024)
#define EXPANSION_RATIO 2048

/* What went wrong; the first thing said is kept. */
typedef struct Verdict
{
	CheckerStatus status;
	char		message[CHECKER_LINE_MAX];
} Verdict;

/* Both return false. */
extern bool verdict_bad(Verdict *verdict, const char *format,...)
			__attribute__((format(printf, 2, 3)));
extern bool verdict_trouble(Verdict *verdict, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/* A stream of bytes that are counted and hashed. */
typedef struct Measure
{
	HashAlgo	algo;
	gcry_md_hd_t hash;			/* NULL: not hashed */
	uint64_t	size;
} Measure;

/* The compressed file. */
typedef struct Source
{
	Measure		measure;
	Verdict    *verdict;
	uint8_t    *buffer;
	bool		ended;
} Source;

/*
 * The next bytes, in *data until the next call; 0 at the end, -1 with the
 * verdict said when they cannot be read.
 */
extern ssize_t source_read(Source *source, const void **data);

/* The NAR. */
typedef struct Sink
{
	Measure		measure;
	Verdict    *verdict;
	uint64_t	limit;			/* bytes; no more are taken */
	bool		limit_is_size;	/* it is NarSize */
	NarParser	parser;
} Sink;

/* False with the verdict said when the NAR is bad by now. */
extern bool sink_write(Sink *sink, const void *data, size_t len);

/* Is this a compression that decompress() knows? */
extern bool compression_known(Span compression);

/*
 * Decompresses all of the source into the sink.  False with the verdict said
 * when that is not possible, or when the sink wants no more.
 */
extern bool decompress(Span compression, Source *source, Sink *sink,
					   Verdict *verdict);

/* Ends with this parent (0: with none).  False with the verdict said. */
extern bool end_with(pid_t parent, Verdict *verdict);

/*
 * Gives way to everybody else, and up what no process of ours needs.  False
 * with the verdict said.
 */
extern bool give_way(Verdict *verdict);

/*
 * From here on no more than WINDOW_MAX and WORKING_MEMORY beyond what is
 * there, no more than so many seconds of processor time, no file, no process,
 * and where the kernel can do so, no system call but those that are needed.
 */
extern bool confine(uint64_t seconds, Verdict *verdict);

/* What is the same for each NAR.  False with the verdict said. */
extern bool load_all(Verdict *verdict);

/* Looks into standard input; the words are those of protocol.h. */
extern void check_input(char **words, Verdict *verdict);

extern _Noreturn void say_and_exit(Verdict *verdict);

/* Makes processes for this parent until it is gone. */
extern _Noreturn void zygote(pid_t parent);

#endif							/* NARINFO_NAR_CHECKER_CHECKER_H */
