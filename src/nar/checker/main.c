/*-------------------------------------------------------------------------
 *
 * main.c
 *	  pg_narinfo_check: is this file the NAR that a narinfo says it is?
 *
 * A program of its own, since a crash in a process of PostgreSQL restarts the
 * whole server, and since a decompressor reads what strangers send.  How it is
 * called and what it prints: protocol.h.
 *
 * Whatever is wrong inside, a file that is not the one that was announced is
 * told by FileSize and FileHash first: it was cut, damaged or mixed up on its
 * way, and everything else follows from that.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nar/checker/checker.h"

#define BUFFER_SIZE (256 * 1024)

/*
 * Processor time: what it takes to begin, and for each byte that goes in or
 * out; bzip2, the slowest, does some 20 MiB a second.
 */
#define SECONDS_BASE	30
#define BYTES_A_SECOND	(1024 * 1024)

typedef struct Expectation
{
	Span		compression;
	bool		has_file_hash;
	bool		has_file_size;
	bool		has_nar_hash;
	bool		has_nar_size;
	Digest		file_hash;
	uint64_t	file_size;
	Digest		nar_hash;
	uint64_t	nar_size;
} Expectation;

/*-------------------------------------------------------------------------
 * Verdicts
 *-------------------------------------------------------------------------
 */

static void verdict_set(Verdict *verdict, CheckerStatus status,
						const char *format, va_list args)
			__attribute__((format(printf, 3, 0)));

static void
verdict_set(Verdict *verdict, CheckerStatus status, const char *format,
			va_list args)
{
	if (verdict->status != CHECKER_GOOD)
		return;
	verdict->status = status;
	vsnprintf(verdict->message, sizeof(verdict->message), format, args);
}

bool
verdict_bad(Verdict *verdict, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	verdict_set(verdict, CHECKER_BAD, format, args);
	va_end(args);
	return false;
}

bool
verdict_trouble(Verdict *verdict, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	verdict_set(verdict, CHECKER_TROUBLE, format, args);
	va_end(args);
	return false;
}

/*-------------------------------------------------------------------------
 * Counting and hashing
 *-------------------------------------------------------------------------
 */

static int
gcrypt_algo(HashAlgo algo)
{
	switch (algo)
	{
		case HASH_MD5:
			return GCRY_MD_MD5;
		case HASH_SHA1:
			return GCRY_MD_SHA1;
		case HASH_SHA512:
			return GCRY_MD_SHA512;
		default:
			return GCRY_MD_SHA256;
	}
}

static bool
measure_begin(Measure *measure, HashAlgo algo, Verdict *verdict)
{
	measure->algo = algo;
	measure->size = 0;
	if (gcry_md_open(&measure->hash, gcrypt_algo(algo), 0) != 0)
		return verdict_trouble(verdict, "libgcrypt does not do %s",
							   hash_algo_name(algo));
	return true;
}

static void
measure_add(Measure *measure, const void *data, size_t len)
{
	measure->size += len;
	if (measure->hash != NULL)
		gcry_md_write(measure->hash, data, len);
}

static void
measure_digest(Measure *measure, Digest *digest)
{
	digest->algo = measure->algo;
	memcpy(digest->bytes, gcry_md_read(measure->hash, 0),
		   hash_algo_bytes(measure->algo));
}

ssize_t
source_read(Source *source, const void **data)
{
	ssize_t		n;

	*data = source->buffer;
	if (source->ended)
		return 0;
	do
		n = read(STDIN_FILENO, source->buffer, BUFFER_SIZE);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		verdict_trouble(source->verdict, "could not read the file: %m");
	source->ended = n <= 0;
	if (n > 0)
		measure_add(&source->measure, source->buffer, (size_t) n);
	return n;
}

bool
sink_write(Sink *sink, const void *data, size_t len)
{
	ParseError	error;

	if (len > sink->limit - sink->measure.size)
	{
		if (sink->limit_is_size)
			return verdict_bad(sink->verdict, "NarSize: %" PRIu64
							   " expected, more found", sink->limit);
		return verdict_bad(sink->verdict, "more than %" PRIu64
						   " bytes come out of the file", sink->limit);
	}
	measure_add(&sink->measure, data, len);
	if (!nar_feed(&sink->parser, data, len, &error))
		return verdict_bad(sink->verdict, "no NAR: %s", error.message);
	return true;
}

/*-------------------------------------------------------------------------
 * Arguments
 *-------------------------------------------------------------------------
 */

static bool
hash_argument(const char *text, Digest *hash, bool *known, Verdict *verdict)
{
	ParseError	error;

	*known = strcmp(text, CHECKER_UNKNOWN) != 0;
	if (*known && !hash_parse(span_of(text, strlen(text)), hash, &error))
		return verdict_trouble(verdict, "argument \"%s\": %s", text,
							   error.message);
	if (!*known)
		hash->algo = HASH_SHA256;
	return true;
}

static bool
number_argument(const char *text, uint64_t *number, bool *known,
				Verdict *verdict)
{
	char	   *end;

	*known = strcmp(text, CHECKER_UNKNOWN) != 0;
	*number = 0;
	if (!*known)
		return true;
	errno = 0;
	*number = strtoull(text, &end, 10);
	if (errno != 0 || *text < '0' || *text > '9' || *end != '\0')
		return verdict_trouble(verdict, "argument \"%s\" is no number", text);
	return true;
}

static bool
take_words(char **words, Expectation *expect, Verdict *verdict)
{
	expect->compression = span_of(words[0], strlen(words[0]));
	return hash_argument(words[1], &expect->file_hash,
						 &expect->has_file_hash, verdict) &&
		number_argument(words[2], &expect->file_size, &expect->has_file_size,
						verdict) &&
		hash_argument(words[3], &expect->nar_hash, &expect->has_nar_hash,
					  verdict) &&
		number_argument(words[4], &expect->nar_size, &expect->has_nar_size,
						verdict);
}

/*-------------------------------------------------------------------------
 * The check
 *-------------------------------------------------------------------------
 */

static bool
check_size(const char *field, uint64_t expected, uint64_t found,
		   Verdict *verdict)
{
	if (expected == found)
		return true;
	return verdict_bad(verdict, "%s: %" PRIu64 " expected, %" PRIu64 " found",
					   field, expected, found);
}

static bool
check_hash(const char *field, const Digest *expected, const Digest *found,
		   Verdict *verdict)
{
	char		expected_text[HASH_TEXT_MAX];
	char		found_text[HASH_TEXT_MAX];

	if (memcmp(expected->bytes, found->bytes,
			   hash_algo_bytes(found->algo)) == 0)
		return true;
	return verdict_bad(verdict, "%s: %.*s expected, %.*s found", field,
					   (int) hash_print(expected, expected_text),
					   expected_text,
					   (int) hash_print(found, found_text), found_text);
}

/* Bytes of the file, if that can be told; else what is expected, or 0. */
static bool
size_ahead(const Expectation *expect, uint64_t *size, Verdict *verdict)
{
	struct stat st;

	*size = expect->file_size;
	if (fstat(STDIN_FILENO, &st) != 0)
		return verdict_trouble(verdict, "standard input: %m");
	if (!S_ISREG(st.st_mode))
		return true;
	if (lseek(STDIN_FILENO, 0, SEEK_SET) != 0)
		return verdict_trouble(verdict, "standard input: %m");
	*size = (uint64_t) st.st_size;
	return !expect->has_file_size ||
		check_size("FileSize", expect->file_size, *size, verdict);
}

/*
 * Whoever announces a large NAR may have one; but a small file that a NAR
 * beyond all measure is to come out of is there to keep us busy.
 */
static bool
set_limit(const Expectation *expect, uint64_t file_size, Sink *sink,
		  Verdict *verdict)
{
	uint64_t	bound = EXPANSION_BASE;

	if (__builtin_mul_overflow(file_size, EXPANSION_RATIO, &bound) ||
		__builtin_add_overflow(bound, EXPANSION_BASE, &bound))
		bound = UINT64_MAX;
	sink->limit = bound;
	sink->limit_is_size = expect->has_nar_size;
	if (!expect->has_nar_size)
		return true;
	sink->limit = expect->nar_size;
	if (expect->nar_size <= bound)
		return true;
	return verdict_bad(verdict, "NarSize: %" PRIu64
					   " bytes out of a file of %" PRIu64 " are not believed",
					   expect->nar_size, file_size);
}

/* The file to its end, whatever is inside, and whether it is the right one. */
static bool
check_file(const Expectation *expect, Source *source, Digest *found,
		   Verdict *verdict)
{
	const void *data;
	ssize_t		n;

	while ((n = source_read(source, &data)) > 0)
		;
	measure_digest(&source->measure, found);
	if (n < 0 || verdict->status == CHECKER_TROUBLE)
		return false;
	if (expect->has_file_size &&
		!check_size("FileSize", expect->file_size, source->measure.size,
					verdict))
		return false;
	return !expect->has_file_hash ||
		check_hash("FileHash", &expect->file_hash, found, verdict);
}

static bool
check_nar(const Expectation *expect, Sink *sink, Digest *found,
		  Verdict *verdict)
{
	ParseError	error;

	measure_digest(&sink->measure, found);
	if (!nar_end(&sink->parser, &error))
		return verdict_bad(verdict, "no NAR: %s", error.message);
	if (expect->has_nar_size &&
		!check_size("NarSize", expect->nar_size, sink->measure.size, verdict))
		return false;
	return !expect->has_nar_hash ||
		check_hash("NarHash", &expect->nar_hash, found, verdict);
}

static void
say_found(Source *source, const Digest *file_hash, Sink *sink,
		  const Digest *nar_hash, Verdict *verdict)
{
	char		file_text[HASH_TEXT_MAX];
	char		nar_text[HASH_TEXT_MAX];

	snprintf(verdict->message, sizeof(verdict->message),
			 "%.*s %" PRIu64 " %.*s %" PRIu64,
			 (int) hash_print(file_hash, file_text), file_text,
			 source->measure.size,
			 (int) hash_print(nar_hash, nar_text), nar_text,
			 sink->measure.size);
}

bool
load_all(Verdict *verdict)
{
	if (gcry_check_version(NULL) == NULL)
		return verdict_trouble(verdict, "libgcrypt cannot be used");
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	return true;
}

/* All memory that is ours is taken before the limits are set. */
static bool
prepare(const Expectation *expect, Source *source, Sink *sink,
		Verdict *verdict)
{
	uint64_t	file_size;
	uint64_t	seconds;

	if (!compression_known(expect->compression))
		return verdict_bad(verdict, "Compression: %.*s is not known here",
						   (int) (expect->compression.len < 64 ?
								  expect->compression.len : 64),
						   expect->compression.data);
	source->verdict = sink->verdict = verdict;
	source->buffer = malloc(BUFFER_SIZE);
	if (source->buffer == NULL)
		return verdict_trouble(verdict, "out of memory");
	nar_begin(&sink->parser);

	if (!measure_begin(&source->measure, expect->file_hash.algo, verdict) ||
		!measure_begin(&sink->measure, expect->nar_hash.algo, verdict) ||
		!size_ahead(expect, &file_size, verdict) ||
		!set_limit(expect, file_size, sink, verdict))
		return false;
	seconds = SECONDS_BASE + (file_size / BYTES_A_SECOND) +
		(sink->limit / BYTES_A_SECOND);
	return confine(seconds, verdict);
}

static bool
check(const Expectation *expect, Verdict *verdict)
{
	static Source source;
	static Sink sink;
	Verdict		inside = {CHECKER_GOOD, ""};
	Digest		file_hash;
	Digest		nar_hash;
	bool		good;

	if (!prepare(expect, &source, &sink, verdict))
		return false;

	sink.verdict = &inside;
	good = decompress(expect->compression, &source, &sink, &inside) &&
		check_nar(expect, &sink, &nar_hash, &inside);
	if (!check_file(expect, &source, &file_hash, verdict))
		return false;
	if (!good)
	{
		*verdict = inside;
		return false;
	}
	say_found(&source, &file_hash, &sink, &nar_hash, verdict);
	return true;
}

void
check_input(char **words, Verdict *verdict)
{
	static Expectation expect;

	if (take_words(words, &expect, verdict))
		check(&expect, verdict);
}

/* One line and no byte of a stranger that is not printable. */
void
say_and_exit(Verdict *verdict)
{
	size_t		len = strlen(verdict->message);
	ssize_t		n;

	for (size_t i = 0; i < len; i++)
	{
		if (verdict->message[i] < ' ' || verdict->message[i] > '~')
			verdict->message[i] = '?';
	}
	if (len > CHECKER_LINE_MAX - 2)
		len = CHECKER_LINE_MAX - 2;
	verdict->message[len++] = '\n';
	do
		n = write(STDOUT_FILENO, verdict->message, len);
	while (n < 0 && errno == EINTR);
	/* a status without its line is no verdict */
	if (n != (ssize_t) len)
		verdict->status = CHECKER_TROUBLE;
	/* nothing is left to be flushed, and no handler has a reason to run */
	_exit(verdict->status);
}

int
main(int argc, char **argv)
{
	static Verdict verdict;
	uint64_t	parent;
	bool		known;

	if (argc != 2 && argc != 2 + CHECKER_WORDS)
		verdict_trouble(&verdict, "usage: %s PARENT COMPRESSION "
						"FILE_HASH FILE_SIZE NAR_HASH NAR_SIZE",
						CHECKER_PROGRAM);
	else if (number_argument(argv[1], &parent, &known, &verdict))
	{
		if (argc == 2)
			zygote((pid_t) parent);
		if (end_with((pid_t) parent, &verdict) && give_way(&verdict) &&
			load_all(&verdict))
			check_input(argv + 2, &verdict);
	}
	say_and_exit(&verdict);
}
