/*-------------------------------------------------------------------------
 *
 * fuzz_narinfo.c
 *	  libFuzzer target for src/base: texts of narinfos, packed narinfos, store
 *	  paths and hashes.
 *
 * The first byte of the input chooses what the rest is:
 *
 *	  1		packed bytes, which nobody has checked
 *	  2		a store path, or a base name
 *	  3		a hash, or the digits of one
 *	  4		damage (1 byte: how many changes; 4 bytes each: where, 3 bytes
 *			little-endian, and what), then the text of a narinfo that is packed
 *			and damaged
 *
 * Any other byte is the first of a narinfo's text, so that the files of the
 * corpus are seeds as they are.
 *
 * Buffers are as large as their owners say that they have to be, and on the
 * heap, so that AddressSanitizer sees one byte too many.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/packed.h"

#define MODE_PACKED		1
#define MODE_STORE_PATH 2
#define MODE_HASH		3
#define MODE_DAMAGE		4

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What has to hold whatever the input is. */
#define MUST(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

static void *
allocate(size_t n)
{
	void	   *memory = malloc(n > 0 ? n : 1);

	if (memory == NULL)
		abort();
	return memory;
}

/* Reads every byte, which it has to be allowed to. */
static void
touch(Span span)
{
	static volatile char sink;

	for (size_t i = 0; i < span.len; i++)
		sink = span.data[i];
	(void) sink;
}

/* An error is fit to be shown: terminated, and not empty. */
static void
check_error(const ParseError *error)
{
	MUST(memchr(error->field, '\0', sizeof(error->field)) != NULL);
	MUST(memchr(error->message, '\0', sizeof(error->message)) != NULL);
	MUST(error->message[0] != '\0');
	for (const char *c = error->field; *c; c++)
		MUST(*c >= ' ' && *c <= '~');
}

/*-------------------------------------------------------------------------
 * Packed bytes
 *-------------------------------------------------------------------------
 */

/* Whatever the bytes are: no harm, and no more references than they say. */
static void
check_packed(const uint8_t *packed, size_t len)
{
	PackedRefs	refs;
	StorePath	path;
	size_t		text_len;
	char	   *text;

	if (!packed_check(packed, len))
	{
		char		nothing;

		MUST(!packed_open(packed, len, &refs, &path));
		MUST(!packed_to_text(packed, len, &nothing));
		return;
	}
	for (uint32_t i = 0; i < packed_nrefs(packed); i++)
		touch(span_of((const char *) packed_ref(packed, i), STORE_HASH_LEN));
	if (packed_open(packed, len, &refs, &path))
	{
		uint32_t	n = 0;

		touch(path.dir);
		touch(path.name);
		while (packed_next_ref(&refs, &path))
		{
			touch(path.dir);
			touch(path.name);
			n++;
		}
		MUST(n <= packed_nrefs(packed));
	}
	text_len = packed_text_len(packed);
	text = allocate(text_len);
	if (packed_to_text(packed, len, text))
		touch(span_of(text, text_len));
	free(text);
}

/*-------------------------------------------------------------------------
 * Texts
 *-------------------------------------------------------------------------
 */

static bool
same_path(const StorePath *a, const StorePath *b)
{
	return memcmp(a->hash, b->hash, STORE_HASH_LEN) == 0 &&
		span_equal(a->name, b->name);
}

static bool
same_span(Span a, Span b)
{
	return (a.data == NULL) == (b.data == NULL) && span_equal(a, b);
}

static void
check_same_url(const NarinfoUrl *a, const NarinfoUrl *b)
{
	MUST(same_span(a->url, b->url));
	MUST(same_span(a->compression, b->compression));
	MUST(same_span(a->file_hash, b->file_hash));
	MUST(a->file_size == b->file_size);
	MUST(a->has_file_size == b->has_file_size);
}

/* Two narinfos of two copies of one text. */
static void
check_same(const Narinfo *a, const Narinfo *b)
{
	MUST(a->kind == b->kind);
	MUST(same_path(&a->store_path, &b->store_path));
	MUST(span_equal(a->store_path.dir, b->store_path.dir));
	MUST(a->nar_hash.algo == b->nar_hash.algo);
	MUST(memcmp(a->nar_hash.bytes, b->nar_hash.bytes,
				hash_algo_bytes(a->nar_hash.algo)) == 0);
	MUST(a->nar_size == b->nar_size);
	MUST(a->nurls == b->nurls);
	for (int i = 0; i < a->nurls; i++)
		check_same_url(&a->urls[i], &b->urls[i]);
	MUST(same_span(a->refs, b->refs));
	MUST(a->nrefs == b->nrefs);
	MUST(a->refs_line == b->refs_line);
	MUST(same_span(a->deriver, b->deriver));
	MUST(same_span(a->system, b->system));
	MUST(same_span(a->ca, b->ca));
	MUST(a->nsigs == b->nsigs);
	MUST(same_span(a->signature, b->signature));
}

/* What the packed form has at fixed places is what was parsed. */
static void
check_header(const uint8_t *packed, size_t len, const Narinfo *info)
{
	bool		sha256 = info->nar_hash.algo == HASH_SHA256;

	MUST(packed_check(packed, len));
	MUST(((packed[1] & PACKED_GUIX) != 0) == (info->kind == NARINFO_GUIX));
	MUST(((packed[1] & PACKED_NAR_SHA256) != 0) == sha256);
	if (sha256)
		MUST(memcmp(packed_nar_digest(packed), info->nar_hash.bytes, 32) == 0);
	MUST(memcmp(packed_store_hash(packed), info->store_path.hash,
				STORE_HASH_LEN) == 0);
	MUST(packed_nar_size(packed) == info->nar_size);
	MUST(((packed[1] & PACKED_FILE_SIZE) != 0) ==
		 info->urls[0].has_file_size);
	MUST(packed_file_size(packed) == info->urls[0].file_size);
	MUST(packed_nrefs(packed) == info->nrefs);
}

/* The references of the packed form are those of the text, in order. */
static void
check_refs(const uint8_t *packed, size_t len, const Narinfo *info)
{
	PackedRefs	refs;
	StorePath	path;
	StorePath	ref;
	StorePath	packed_path;
	Span		rest = info->refs;
	uint32_t	n = 0;

	MUST(packed_open(packed, len, &refs, &path));
	MUST(same_path(&path, &info->store_path));
	MUST(span_equal(path.dir, info->store_path.dir));
	while (narinfo_next_ref(&rest, &ref))
	{
		MUST(packed_next_ref(&refs, &packed_path));
		MUST(same_path(&ref, &packed_path));
		MUST(span_equal(packed_path.dir, info->store_path.dir));
		MUST(memcmp(packed_ref(packed, n), ref.hash, STORE_HASH_LEN) == 0);
		n++;
	}
	MUST(!packed_next_ref(&refs, &packed_path));
	MUST(n == info->nrefs);
}

/* The text, packed, on the heap; or NULL when it is no narinfo. */
static uint8_t *
pack(const char *text, size_t len, Narinfo *info, size_t *packed_len)
{
	ParseError	error;
	uint8_t    *bound;
	uint8_t    *packed;
	char	   *scratch;

	if (!narinfo_parse(text, len, info, &error))
	{
		check_error(&error);
		return NULL;
	}
	bound = allocate(PACKED_BOUND(len));
	scratch = allocate(len);
	*packed_len = packed_from_text(text, len, info, scratch, bound);
	MUST(*packed_len <= PACKED_BOUND(len));
	packed = allocate(*packed_len);
	memcpy(packed, bound, *packed_len);
	free(scratch);
	free(bound);
	return packed;
}

static void
check_text(const char *text, size_t len)
{
	Narinfo		info;
	Narinfo		again;
	ParseError	error;
	size_t		packed_len;
	uint8_t    *packed = pack(text, len, &info, &packed_len);
	char	   *printed;

	if (packed == NULL)
		return;
	check_header(packed, packed_len, &info);
	check_refs(packed, packed_len, &info);

	MUST(packed_text_len(packed) == len);
	printed = allocate(len);
	MUST(packed_to_text(packed, packed_len, printed));
	MUST(memcmp(text, printed, len) == 0);
	MUST(narinfo_parse(printed, len, &again, &error));
	check_same(&info, &again);

	/* a slice with the references alone is good enough to read these */
	MUST(packed_check(packed, PACKED_HEADER +
					  (size_t) info.nrefs * STORE_HASH_LEN));
	free(printed);
	free(packed);
}

static void
check_damage(const uint8_t *data, size_t size)
{
	size_t		nchanges = size > 0 ? data[0] % 16 : 0;
	size_t		skip = 1 + 4 * nchanges;
	Narinfo		info;
	size_t		len;
	uint8_t    *packed;

	if (size < skip)
		return;
	packed = pack((const char *) data + skip, size - skip, &info, &len);
	if (packed == NULL)
		return;
	for (size_t i = 0; i < nchanges; i++)
	{
		const uint8_t *change = data + 1 + 4 * i;
		size_t		where = change[0] | (size_t) change[1] << 8 |
			(size_t) change[2] << 16;

		packed[where % len] = change[3];
	}
	check_packed(packed, len);
	/* cut short, too */
	if (nchanges > 0)
	{
		size_t		part = data[1] * len / 256;
		uint8_t    *copy = allocate(part);

		memcpy(copy, packed, part);
		check_packed(copy, part);
		free(copy);
	}
	free(packed);
}

/*-------------------------------------------------------------------------
 * Store paths and hashes
 *-------------------------------------------------------------------------
 */

static void
check_store_path(Span text)
{
	StorePath	path;
	StorePath	again;
	ParseError	error;
	char	   *printed;

	if (store_base_name_parse(text, &path, &error))
	{
		char		digits[STORE_HASH_TEXT_LEN];

		store_hash_encode(path.hash, digits);
		MUST(memcmp(text.data, digits, sizeof(digits)) == 0);
		MUST(path.name.len <= STORE_NAME_MAX);
		MUST(store_name_check(path.name, &error));
	}
	else
		check_error(&error);

	if (!store_path_parse(text, &path, &error))
	{
		check_error(&error);
		return;
	}
	/* a path is written in one way only */
	MUST(store_path_len(&path) == text.len);
	printed = allocate(text.len);
	store_path_print(&path, printed);
	MUST(memcmp(printed, text.data, text.len) == 0);
	MUST(store_path_parse(span_of(printed, text.len), &again, &error));
	MUST(same_path(&path, &again));
	MUST(span_equal(path.dir, again.dir));
	MUST(path.dir.len <= STORE_DIR_MAX);
	MUST(path.name.len <= STORE_NAME_MAX);
	free(printed);
}

static void
check_hash_prints(const Digest *hash)
{
	char		printed[HASH_TEXT_MAX];
	char		printed_again[HASH_TEXT_MAX];
	Digest		again;
	ParseError	error;
	size_t		n = hash_algo_bytes(hash->algo);
	size_t		len = hash_print(hash, printed);

	MUST(n > 0 && len <= HASH_TEXT_MAX);
	MUST(hash_parse(span_of(printed, len), &again, &error));
	MUST(again.algo == hash->algo);
	MUST(memcmp(again.bytes, hash->bytes, n) == 0);
	MUST(hash_print(&again, printed_again) == len);
	MUST(memcmp(printed, printed_again, len) == 0);
}

static void
check_hash(Span text)
{
	Digest		hash;
	ParseError	error;
	uint8_t    *bytes = allocate(text.len / 4 * 3 + 3);

	if (hash_parse(text, &hash, &error))
		check_hash_prints(&hash);
	else
		check_error(&error);
	for (int algo = HASH_MD5; algo <= HASH_SHA512; algo++)
	{
		if (hash_digits_parse(text, algo, &hash, &error))
			check_hash_prints(&hash);
		else
			check_error(&error);
	}
	MUST(base64_decode_any(text, bytes) <= (long) (text.len / 4 * 3 + 3));
	free(bytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t		mode = size > 0 ? data[0] : 0;
	bool		whole = mode == 0 || mode > MODE_DAMAGE;
	size_t		len = whole ? size : size - 1;
	uint8_t    *input = allocate(len);
	Span		text = span_of((char *) input, len);

	if (len > 0)
		memcpy(input, whole ? data : data + 1, len);
	switch (mode)
	{
		case MODE_PACKED:
			check_packed(input, len);
			break;
		case MODE_STORE_PATH:
			check_store_path(text);
			break;
		case MODE_HASH:
			check_hash(text);
			break;
		case MODE_DAMAGE:
			check_damage(input, len);
			break;
		default:
			check_text(text.data, text.len);
			break;
	}
	free(input);
	return 0;
}
