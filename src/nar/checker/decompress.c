/*-------------------------------------------------------------------------
 *
 * decompress.c
 *	  The compressions that narinfos name: Brotli by libbrotlidec, "none" by
 *	  itself, the others by libarchive, as nix does it.
 *
 * Several streams behind each other, as parallel compressors write them, are
 * one, as nix takes them (Brotli has no such thing).  What nix and guix would
 * not look at is refused: bytes behind the last stream, and a stream inside
 * of a stream.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <archive.h>
#include <brotli/decode.h>
#include <errno.h>
#include <inttypes.h>

#include "nar/checker/checker.h"

#define OUTPUT_SIZE (128 * 1024)

static const struct
{
	const char *name;
	int			code;			/* libarchive's */
	int			(*enable) (struct archive *);
}			filters[] = {
	{"xz", ARCHIVE_FILTER_XZ, archive_read_support_filter_xz},
	{"zstd", ARCHIVE_FILTER_ZSTD, archive_read_support_filter_zstd},
	{"gzip", ARCHIVE_FILTER_GZIP, archive_read_support_filter_gzip},
	{"bzip2", ARCHIVE_FILTER_BZIP2, archive_read_support_filter_bzip2},
	{"lzip", ARCHIVE_FILTER_LZIP, archive_read_support_filter_lzip},
	{"lz4", ARCHIVE_FILTER_LZ4, archive_read_support_filter_lz4},
};

#define NFILTERS (sizeof(filters) / sizeof(filters[0]))

/* Its place in filters; -1 if it is not there. */
static int
find_filter(Span compression)
{
	for (size_t i = 0; i < NFILTERS; i++)
	{
		if (span_is(compression, filters[i].name))
			return (int) i;
	}
	return -1;
}

bool
compression_known(Span compression)
{
	return span_is(compression, "none") || span_is(compression, "br") ||
		find_filter(compression) >= 0;
}

static bool
too_large(Verdict *verdict)
{
	return verdict_bad(verdict,
					   "decompression takes more than %llu MiB of memory",
					   WINDOW_MAX >> 20);
}

static bool
bytes_behind(uint64_t end, Verdict *verdict)
{
	return verdict_bad(verdict, "more bytes behind the end of the compressed "
					   "stream, which is at byte %" PRIu64, end);
}

/*-------------------------------------------------------------------------
 * none
 *-------------------------------------------------------------------------
 */

static bool
copy(Source *source, Sink *sink)
{
	const void *data;
	ssize_t		n;

	while ((n = source_read(source, &data)) > 0)
	{
		if (!sink_write(sink, data, (size_t) n))
			return false;
	}
	return n == 0;
}

/*-------------------------------------------------------------------------
 * Brotli
 *-------------------------------------------------------------------------
 */

static bool
brotli_failed(const BrotliDecoderState *state, Verdict *verdict)
{
	BrotliDecoderErrorCode code = BrotliDecoderGetErrorCode(state);

	if (code <= BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES &&
		code >= BROTLI_DECODER_ERROR_ALLOC_BLOCK_TYPE_TREES)
		return too_large(verdict);
	return verdict_bad(verdict, "br cannot be decompressed: %s",
					   BrotliDecoderErrorString(code));
}

/* Decompresses what there is of the input; *result says what comes next. */
static bool
brotli_some(BrotliDecoderState *state, const uint8_t **next, size_t *left,
			BrotliDecoderResult *result, Sink *sink)
{
	static uint8_t output[OUTPUT_SIZE];

	do
	{
		uint8_t    *out = output;
		size_t		room = sizeof(output);

		*result = BrotliDecoderDecompressStream(state, left, next, &room,
												&out, NULL);
		if (*result == BROTLI_DECODER_RESULT_ERROR)
			return brotli_failed(state, sink->verdict);
		if (out > output && !sink_write(sink, output, (size_t) (out - output)))
			return false;
	} while (*result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
	return true;
}

static bool
read_brotli(BrotliDecoderState *state, Source *source, Sink *sink,
			Verdict *verdict)
{
	BrotliDecoderResult result = BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT;
	const void *data;
	ssize_t		n;

	while ((n = source_read(source, &data)) > 0)
	{
		const uint8_t *next = data;
		size_t		left = (size_t) n;

		if (result == BROTLI_DECODER_RESULT_SUCCESS)
			return bytes_behind(source->measure.size - left, verdict);
		if (!brotli_some(state, &next, &left, &result, sink))
			return false;
		if (left > 0)
			return bytes_behind(source->measure.size - left, verdict);
	}
	if (n < 0)
		return false;
	if (result != BROTLI_DECODER_RESULT_SUCCESS)
		return verdict_bad(verdict, "br cannot be decompressed: truncated");
	return true;
}

static bool
decompress_brotli(Source *source, Sink *sink, Verdict *verdict)
{
	BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
	bool		good;

	if (state == NULL)
		return verdict_trouble(verdict, "out of memory");
	good = read_brotli(state, source, sink, verdict);
	BrotliDecoderDestroyInstance(state);
	return good;
}

/*-------------------------------------------------------------------------
 * The others
 *-------------------------------------------------------------------------
 */

static la_ssize_t
archive_source(struct archive *archive, void *arg, const void **data)
{
	ssize_t		n = source_read(arg, data);

	if (n < 0)
		archive_set_error(archive, EIO, "cannot be read");
	return n;
}

/*
 * libarchive tells lack of memory in several ways; some of its decompressors
 * have only words for it.
 */
static bool
archive_failed(struct archive *archive, const char *name, Verdict *verdict)
{
	const char *message = archive_error_string(archive);

	if (message == NULL)
		message = "damaged or cut short";
	if (archive_errno(archive) == ENOMEM ||
		strcasestr(message, "memory") != NULL ||
		strcasestr(message, "allocat") != NULL)
		return too_large(verdict);
	return verdict_bad(verdict, "%s cannot be decompressed: %s", name,
					   message);
}

/* Was it one stream of this kind, and not something else, or more? */
static bool
check_filters(struct archive *archive, int filter, Verdict *verdict)
{
	int			count = archive_filter_count(archive);

	/* the last one is the file itself */
	if (count < 2 || archive_filter_code(archive, 0) != filters[filter].code)
		return verdict_bad(verdict, "Compression: %s expected, but that is "
						   "not what the file has", filters[filter].name);
	if (count > 2)
		return verdict_bad(verdict, "the file is compressed more than once");
	return true;
}

static bool
read_archive(struct archive *archive, int filter, Source *source, Sink *sink,
			 Verdict *verdict)
{
	const char *name = filters[filter].name;
	struct archive_entry *entry;
	const void *data;
	size_t		len;
	la_int64_t	offset;
	uint64_t	used;
	int			result;

	if (archive_read_open(archive, source, NULL, archive_source, NULL) !=
		ARCHIVE_OK)
		return archive_failed(archive, name, verdict);
	if (!check_filters(archive, filter, verdict))
		return false;

	result = archive_read_next_header(archive, &entry);
	while (result == ARCHIVE_OK)
	{
		result = archive_read_data_block(archive, &data, &len, &offset);
		if (result == ARCHIVE_OK && !sink_write(sink, data, len))
			return false;
	}
	if (result != ARCHIVE_EOF)
		return archive_failed(archive, name, verdict);

	used = (uint64_t) archive_filter_bytes(archive, -1);
	while ((result = (int) source_read(source, &data)) > 0)
		;
	if (result < 0)
		return false;
	if (used != source->measure.size)
		return bytes_behind(used, verdict);
	return true;
}

static bool
decompress_archive(int filter, Source *source, Sink *sink, Verdict *verdict)
{
	struct archive *archive = archive_read_new();
	bool		good;

	if (archive == NULL)
		return verdict_trouble(verdict, "out of memory");

	/* a warning says that another program would have to do it */
	if (filters[filter].enable(archive) != ARCHIVE_OK ||
		archive_read_support_format_raw(archive) != ARCHIVE_OK ||
		archive_read_support_format_empty(archive) != ARCHIVE_OK)
		good = verdict_trouble(verdict, "this libarchive has no %s",
							   filters[filter].name);
	else
		good = read_archive(archive, filter, source, sink, verdict);
	archive_read_free(archive);
	return good;
}

bool
decompress(Span compression, Source *source, Sink *sink, Verdict *verdict)
{
	if (span_is(compression, "none"))
		return copy(source, sink);
	if (span_is(compression, "br"))
		return decompress_brotli(source, sink, verdict);
	return decompress_archive(find_filter(compression), source, sink,
							  verdict);
}
