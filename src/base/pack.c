/*-------------------------------------------------------------------------
 *
 * pack.c
 *	  From the text of a narinfo to its packed form.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/packed_lines.h"

static void
put_le(uint8_t *bytes, uint64_t value, int n)
{
	for (int i = 0; i < n; i++)
		bytes[i] = (uint8_t) (value >> 8 * i);
}

/* Where the packer writes; PACKED_BOUND leaves room for whatever comes. */
typedef struct Packer
{
	uint8_t    *next;
	const Narinfo *info;
	const NarinfoUrl *url;		/* the one in the header */
	bool		has_file_digest;
	bool		file_is_nar;	/* FileHash is the same as NarHash */
	uint8_t		file_digest[SHA256_BYTES];
} Packer;

static void
put_byte(Packer *packer, uint8_t byte)
{
	*packer->next++ = byte;
}

static void
put_bytes(Packer *packer, const void *bytes, size_t n)
{
	memcpy(packer->next, bytes, n);
	packer->next += n;
}

static void
put_varint(Packer *packer, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		put_byte(packer, (uint8_t) (value | 0x80));
	put_byte(packer, (uint8_t) value);
}

/* At most STRING_MAX_LEN. */
static void
put_string(Packer *packer, Span string)
{
	put_byte(packer, (uint8_t) string.len);
	put_bytes(packer, string.data, string.len);
}

/* At most STORE_NAME_MAX. */
static void
put_name(Packer *packer, Span name)
{
	uint8_t    *start = packer->next;
	uint32_t	bits = 0;
	int			nbits = 0;

	put_byte(packer, (uint8_t) name.len);
	for (size_t i = 0; i < name.len; i++)
	{
		const char *digit = memchr(packed_digits, name.data[i], 64);

		if (digit == NULL)
		{
			packer->next = start;
			put_byte(packer, NAME_PLAIN);
			put_string(packer, name);
			return;
		}
		bits |= (uint32_t) (digit - packed_digits) << nbits;
		nbits += 6;
		if (nbits >= 8)
		{
			put_byte(packer, (uint8_t) bits);
			bits >>= 8;
			nbits -= 8;
		}
	}
	if (nbits > 0)
		put_byte(packer, (uint8_t) bits);
}

/*-------------------------------------------------------------------------
 * Packing: each of these writes an operation that gives back exactly this
 * value, or writes nothing and returns false
 *-------------------------------------------------------------------------
 */

static uint8_t
dir_flag(Span dir)
{
	if (span_equal(dir, packed_dir(PACKED_DIR_NIX)))
		return PACKED_DIR_NIX;
	if (span_equal(dir, packed_dir(PACKED_DIR_GNU)))
		return PACKED_DIR_GNU;
	return PACKED_DIR_OTHER;
}

/* "sha256:" and nix32 digits: the notation that we print. */
static bool
canonical_sha256(Span value, uint8_t digest[SHA256_BYTES])
{
	return value.len == 7 + SHA256_DIGITS && span_starts(value, "sha256:") &&
		nix32_decode(value.data + 7, digest, SHA256_BYTES);
}

static bool
is_decimal(Span value, uint64_t number)
{
	char		text[DECIMAL_MAX];

	return span_equal(value, span_of(text, print_decimal(number, text)));
}

static bool
pack_store_path(Packer *packer, Span value)
{
	/* a repeated line that does not count is another text */
	if (value.data != packer->info->store_path.dir.data)
		return false;
	put_byte(packer, OP_STORE_PATH);
	return true;
}

/* nar/DIGITS.nar and anything up to 255 bytes behind it */
static bool
pack_url_digest(Packer *packer, Span value)
{
	size_t		prefix = 4 + SHA256_DIGITS + 4;
	uint8_t		digest[SHA256_BYTES];
	Span		suffix;

	if (value.len < prefix || value.len - prefix > STRING_MAX_LEN ||
		!span_starts(value, "nar/") ||
		!span_starts(span_skip(value, prefix - 4), ".nar") ||
		!nix32_decode(value.data + 4, digest, SHA256_BYTES))
		return false;
	suffix = span_skip(value, prefix);

	/* NarHash first: a FileHash that is the same is not kept again */
	if (packer->info->nar_hash.algo == HASH_SHA256 &&
		memcmp(digest, packer->info->nar_hash.bytes, SHA256_BYTES) == 0)
		put_byte(packer, OP_URL_NAR);
	else if (packer->has_file_digest &&
			 memcmp(digest, packer->file_digest, SHA256_BYTES) == 0)
		put_byte(packer, OP_URL_FILE);
	else
	{
		put_byte(packer, OP_URL_DIGEST);
		put_bytes(packer, digest, SHA256_BYTES);
	}
	put_string(packer, suffix);
	return true;
}

/* nar/COMPRESSION/HASH-NAME, of our own hash and name */
static bool
pack_url_guix(Packer *packer, Span value)
{
	const StorePath *path = &packer->info->store_path;
	size_t		base = STORE_HASH_TEXT_LEN + 1 + path->name.len;
	uint8_t		hash[STORE_HASH_LEN];
	Span		tail;

	if (value.len < 4 + 1 + base || value.len - 5 - base > STRING_MAX_LEN ||
		!span_starts(value, "nar/"))
		return false;
	tail = span_skip(value, value.len - base - 1);
	if (tail.data[0] != '/' ||
		!store_hash_decode(tail.data + 1, hash) ||
		memcmp(hash, path->hash, STORE_HASH_LEN) != 0 ||
		tail.data[1 + STORE_HASH_TEXT_LEN] != '-' ||
		!span_equal(span_skip(tail, STORE_HASH_TEXT_LEN + 2), path->name))
		return false;
	put_byte(packer, OP_URL_GUIX);
	put_string(packer, span_of(value.data + 4, value.len - 5 - base));
	return true;
}

static bool
pack_compression(Packer *packer, Span value)
{
	if (value.len > STRING_MAX_LEN)
		return false;
	put_byte(packer, OP_COMPRESSION);
	put_string(packer, value);
	return true;
}

static bool
pack_file_hash(Packer *packer, Span value)
{
	if (!packer->has_file_digest || value.data != packer->url->file_hash.data)
		return false;
	put_byte(packer, packer->file_is_nar ? OP_FILE_HASH_NAR : OP_FILE_HASH);
	return true;
}

static bool
pack_file_size(Packer *packer, Span value)
{
	if (is_decimal(value, packer->url->file_size))
	{
		put_byte(packer, OP_FILE_SIZE);
		return true;
	}
	for (int i = 0; i < packer->info->nurls; i++)
	{
		if (!is_decimal(value, packer->info->urls[i].file_size))
			continue;
		put_byte(packer, OP_FILE_SIZE_N);
		put_varint(packer, packer->info->urls[i].file_size);
		return true;
	}
	return false;
}

static bool
pack_nar_hash(Packer *packer, Span value)
{
	uint8_t		digest[SHA256_BYTES];

	if (!canonical_sha256(value, digest) ||
		packer->info->nar_hash.algo != HASH_SHA256 ||
		memcmp(digest, packer->info->nar_hash.bytes, SHA256_BYTES) != 0)
		return false;
	put_byte(packer, OP_NAR_HASH);
	return true;
}

static bool
pack_nar_size(Packer *packer, Span value)
{
	if (!is_decimal(value, packer->info->nar_size))
		return false;
	put_byte(packer, OP_NAR_SIZE);
	return true;
}

static bool
pack_refs(Packer *packer, Span value)
{
	const Narinfo *info = packer->info;
	size_t		len = 0;
	Span		rest = info->refs;
	StorePath	ref;

	if (value.data != info->refs.data)
		return false;
	while (narinfo_next_ref(&rest, &ref))
		len += STORE_HASH_TEXT_LEN + 1 + ref.name.len + (rest.len > 0);
	if (len != value.len)
		return false;			/* more than one blank somewhere */
	put_byte(packer, OP_REFERENCES);
	return true;
}

static bool
pack_deriver(Packer *packer, Span value)
{
	Span		own = packer->info->store_path.name;
	uint8_t		hash[STORE_HASH_LEN];
	Span		name;
	size_t		common = 0;

	if (value.len < STORE_HASH_TEXT_LEN + 2 + 4 ||
		value.len > STORE_BASE_NAME_MAX ||
		value.data[STORE_HASH_TEXT_LEN] != '-' ||
		!store_hash_decode(value.data, hash) ||
		!span_starts(span_skip(value, value.len - 4), ".drv"))
		return false;
	name = span_of(value.data + STORE_HASH_TEXT_LEN + 1,
				   value.len - STORE_HASH_TEXT_LEN - 1 - 4);
	while (common < own.len && common < name.len &&
		   own.data[common] == name.data[common])
		common++;
	put_byte(packer, OP_DERIVER);
	put_bytes(packer, hash, STORE_HASH_LEN);
	put_byte(packer, (uint8_t) common);
	put_name(packer, span_skip(name, common));
	return true;
}

static bool
pack_sig(Packer *packer, Span value)
{
	char		text[BASE64_LEN(SIG_BYTES)];
	uint8_t		bytes[SIG_BYTES];
	Span		key;
	Span		base64;

	if (value.len < sizeof(text) + 2 ||
		value.len - sizeof(text) - 1 > STRING_MAX_LEN)
		return false;
	key = span_of(value.data, value.len - sizeof(text) - 1);
	base64 = span_skip(value, key.len + 1);
	if (value.data[key.len] != ':' ||
		!base64_decode(base64, bytes, SIG_BYTES))
		return false;
	base64_encode(bytes, SIG_BYTES, text);
	if (!span_equal(base64, span_of(text, sizeof(text))))
		return false;
	put_byte(packer, OP_SIG);
	if (span_is(key, packed_common_key))
		key.len = 0;
	put_string(packer, key);
	put_bytes(packer, bytes, SIG_BYTES);
	return true;
}

static bool
pack_ca(Packer *packer, Span value)
{
	uint8_t		digest[SHA256_BYTES];

	for (size_t i = 0; i < PACKED_NCA; i++)
	{
		if (!span_starts(value, packed_ca_prefixes[i]) ||
			value.len != strlen(packed_ca_prefixes[i]) + SHA256_DIGITS ||
			!nix32_decode(value.data + value.len - SHA256_DIGITS, digest,
						  SHA256_BYTES))
			continue;
		put_byte(packer, OP_CA);
		put_byte(packer, (uint8_t) i);
		put_bytes(packer, digest, SHA256_BYTES);
		return true;
	}
	return false;
}

/*
 * Takes the hex strings out of a signature that follows the template:
 * upper-case digits, an even number of them, at most 255 bytes.
 */
static bool
split_sexp(Span sexp, Span hex[NHEX])
{
	for (int i = 0; i <= NHEX; i++)
	{
		const char *end;

		if (!span_starts(sexp, packed_signature[i]))
			return false;
		sexp = span_skip(sexp, strlen(packed_signature[i]));
		if (i == NHEX)
			break;
		end = memchr(sexp.data, '#', sexp.len);
		if (end == NULL)
			return false;
		hex[i] = span_of(sexp.data, (size_t) (end - sexp.data));
		if (hex[i].len % 2 != 0 || hex[i].len / 2 > STRING_MAX_LEN)
			return false;
		for (size_t j = 0; j < hex[i].len; j++)
		{
			char		c = hex[i].data[j];

			if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F')))
				return false;
		}
		sexp = span_skip(sexp, hex[i].len);
	}
	return sexp.len == 0;
}

static bool
pack_signature(Packer *packer, Span value)
{
	const char *host;
	const char *base64;
	uint8_t		sexp[SEXP_MAX];
	char		again[BASE64_LEN(SEXP_MAX)];
	Span		digits;
	Span		hex[NHEX];
	long		len;

	if (!span_starts(value, "1;"))
		return false;
	host = value.data + 2;
	base64 = memchr(host, ';', value.len - 2);
	if (base64 == NULL || base64 - host > STRING_MAX_LEN)
		return false;
	digits = span_skip(value, (size_t) (base64 + 1 - value.data));
	if (digits.len > SEXP_MAX)
		return false;
	len = base64_decode_any(digits, sexp);
	if (len < 0)
		return false;
	base64_encode(sexp, (size_t) len, again);
	if (!span_equal(digits, span_of(again, BASE64_LEN((size_t) len))) ||
		!split_sexp(span_of((char *) sexp, (size_t) len), hex))
		return false;

	put_byte(packer, OP_SIGNATURE);
	put_string(packer, span_of(host, (size_t) (base64 - host)));
	for (int i = 0; i < NHEX; i++)
	{
		size_t		n = hex[i].len / 2;

		put_byte(packer, (uint8_t) n);
		base16_decode(hex[i].data, packer->next, n);
		packer->next += n;
	}
	return true;
}

static bool
pack_value(Packer *packer, Span name, Span value)
{
	if (span_is(name, "StorePath"))
		return pack_store_path(packer, value);
	if (span_is(name, "URL"))
		return pack_url_digest(packer, value) || pack_url_guix(packer, value);
	if (span_is(name, "Compression"))
		return pack_compression(packer, value);
	if (span_is(name, "FileHash"))
		return pack_file_hash(packer, value);
	if (span_is(name, "FileSize"))
		return pack_file_size(packer, value);
	if (span_is(name, "NarHash"))
		return pack_nar_hash(packer, value);
	if (span_is(name, "NarSize"))
		return pack_nar_size(packer, value);
	if (span_is(name, "References"))
		return pack_refs(packer, value);
	if (span_is(name, "Deriver"))
		return pack_deriver(packer, value);
	if (span_is(name, "Sig"))
		return pack_sig(packer, value);
	if (span_is(name, "CA"))
		return pack_ca(packer, value);
	if (span_is(name, "Signature"))
		return pack_signature(packer, value);
	return false;
}

static void
pack_line(Packer *packer, Span line, Span name, Span value)
{
	if (value.data[-1] == ' ' && pack_value(packer, name, value))
		return;
	put_byte(packer, OP_RAW);
	put_varint(packer, line.len);
	put_bytes(packer, line.data, line.len);
}

static uint8_t *
pack_header(uint8_t *packed, size_t text_len, const Narinfo *info,
			uint8_t flags)
{
	Span		rest = info->refs;
	StorePath	ref;

	packed[0] = PACKED_VERSION;
	packed[1] = flags;
	put_le(packed + 2, info->nrefs, 3);
	put_le(packed + 5, text_len, 3);
	memcpy(packed + 8, info->store_path.hash, STORE_HASH_LEN);
	put_le(packed + 28, info->nar_size, 8);
	put_le(packed + 36, info->urls[0].file_size, 8);
	if (flags & PACKED_NAR_SHA256)
		memcpy(packed + 44, info->nar_hash.bytes, SHA256_BYTES);
	else
		memset(packed + 44, 0, SHA256_BYTES);
	packed += PACKED_HEADER;
	while (narinfo_next_ref(&rest, &ref))
	{
		memcpy(packed, ref.hash, STORE_HASH_LEN);
		packed += STORE_HASH_LEN;
	}
	return packed;
}

/* What all lines share, between the references and the lines. */
static void
pack_shared(Packer *packer)
{
	const StorePath *path = &packer->info->store_path;
	Span		rest = packer->info->refs;
	StorePath	ref;

	if (packer->has_file_digest && !packer->file_is_nar)
		put_bytes(packer, packer->file_digest, SHA256_BYTES);
	if (dir_flag(path->dir) == PACKED_DIR_OTHER)
		put_string(packer, path->dir);
	put_name(packer, path->name);
	while (narinfo_next_ref(&rest, &ref))
	{
		if (span_equal(ref.name, path->name))
			put_byte(packer, 0);
		else
			put_name(packer, ref.name);
	}
}

static void
find_file_digest(Packer *packer)
{
	const Narinfo *info = packer->info;

	packer->has_file_digest =
		canonical_sha256(packer->url->file_hash, packer->file_digest);
	packer->file_is_nar = packer->has_file_digest &&
		info->nar_hash.algo == HASH_SHA256 &&
		memcmp(packer->file_digest, info->nar_hash.bytes, SHA256_BYTES) == 0;
}

static uint8_t
find_flags(const Packer *packer)
{
	uint8_t		flags = dir_flag(packer->info->store_path.dir);

	if (packer->info->kind == NARINFO_GUIX)
		flags |= PACKED_GUIX;
	if (packer->info->nar_hash.algo == HASH_SHA256)
		flags |= PACKED_NAR_SHA256;
	if (packer->has_file_digest && !packer->file_is_nar)
		flags |= PACKED_FILE_HASH;
	if (packer->url->has_file_size)
		flags |= PACKED_FILE_SIZE;
	return flags;
}

size_t
packed_from_text(const char *text, size_t len, const Narinfo *info,
				 char *scratch, uint8_t *packed)
{
	Packer		packer = {.info = info, .url = &info->urls[0]};
	uint8_t    *tail;
	Span		rest = span_of(text, len);
	const char *start = text;
	Span		name;
	Span		value;

	find_file_digest(&packer);
	tail = pack_header(packed, len, info, find_flags(&packer));
	packer.next = tail;
	pack_shared(&packer);
	for (; narinfo_next_field(&rest, &name, &value); start = rest.data)
		pack_line(&packer, span_of(start, (size_t) (rest.data - start) - 1),
				  name, value);

	if (packer.next - tail < (ptrdiff_t) len &&
		packed_to_text(packed, (size_t) (packer.next - packed), scratch) &&
		memcmp(text, scratch, len) == 0)
		return (size_t) (packer.next - packed);

	packed[1] |= PACKED_VERBATIM;
	memcpy(tail, text, len);
	return (size_t) (tail - packed) + len;
}
