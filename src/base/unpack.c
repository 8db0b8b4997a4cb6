/*-------------------------------------------------------------------------
 *
 * unpack.c
 *	  From the packed form of a narinfo to its text, or to its references.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/packed_lines.h"

/*
 * Where the unpacker reads and writes.  Whatever would leave either buffer
 * sets "bad" and reads as zeros.
 */
typedef struct Unpacker
{
	const uint8_t *packed;		/* the header */
	const uint8_t *next;
	const uint8_t *end;
	bool		bad;
	char	   *text;
	char	   *text_end;
	const uint8_t *file_digest; /* or NULL */
	Span		dir;
	Span		name;			/* of the store path */
	char		name_buffer[STORE_NAME_MAX];
	const uint8_t *ref_names;	/* the first of them */
} Unpacker;

static const uint8_t *
get_bytes(Unpacker *unpacker, size_t n)
{
	static const uint8_t zeros[256];
	const uint8_t *bytes = unpacker->next;

	if (n > (size_t) (unpacker->end - unpacker->next))
	{
		unpacker->bad = true;
		unpacker->next = unpacker->end;
		return zeros;			/* nobody asks for more than 256 unchecked */
	}
	unpacker->next += n;
	return bytes;
}

static uint8_t
get_byte(Unpacker *unpacker)
{
	return *get_bytes(unpacker, 1);
}

static uint64_t
get_varint(Unpacker *unpacker)
{
	uint64_t	value = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8_t		byte = get_byte(unpacker);

		value |= (uint64_t) (byte & 0x7F) << shift;
		if (byte < 0x80)
			return value;
	}
	unpacker->bad = true;
	return 0;
}

static Span
get_string(Unpacker *unpacker)
{
	uint8_t		n = get_byte(unpacker);

	return span_of((const char *) get_bytes(unpacker, n), n);
}

static Span
get_name(Unpacker *unpacker, char name[STORE_NAME_MAX])
{
	uint8_t		n = get_byte(unpacker);
	const uint8_t *bytes;
	uint32_t	bits;
	int			nbits = 0;
	int			i = 0;

	if (n == NAME_PLAIN)
		return get_string(unpacker);
	if (n > STORE_NAME_MAX)
	{
		unpacker->bad = true;
		n = 0;
	}
	bytes = get_bytes(unpacker, ((size_t) n * 6 + 7) / 8);
	/* three bytes are four digits */
	for (; i + 4 <= n; i += 4, bytes += 3)
	{
		bits = (uint32_t) bytes[2] << 16 | (uint32_t) bytes[1] << 8 | bytes[0];
		name[i] = packed_digits[bits & 0x3F];
		name[i + 1] = packed_digits[bits >> 6 & 0x3F];
		name[i + 2] = packed_digits[bits >> 12 & 0x3F];
		name[i + 3] = packed_digits[bits >> 18];
	}
	bits = 0;
	for (; i < n; i++)
	{
		if (nbits < 6)
		{
			bits |= (uint32_t) *bytes++ << nbits;
			nbits += 8;
		}
		name[i] = packed_digits[bits & 0x3F];
		bits >>= 6;
		nbits -= 6;
	}
	return span_of(name, n);
}

/* Room for n characters of text; NULL when the text is full. */
static char *
text_room(Unpacker *unpacker, size_t n)
{
	char	   *room = unpacker->text;

	if (n > (size_t) (unpacker->text_end - unpacker->text))
	{
		unpacker->bad = true;
		return NULL;
	}
	unpacker->text += n;
	return room;
}

static void
write_span(Unpacker *unpacker, Span span)
{
	char	   *room = text_room(unpacker, span.len);

	if (room && span.len > 0)
		memcpy(room, span.data, span.len);
}

static void
write_char(Unpacker *unpacker, char c)
{
	char	   *room = text_room(unpacker, 1);

	if (room)
		*room = c;
}

static inline void
write_string(Unpacker *unpacker, const char *string)
{
	write_span(unpacker, span_of(string, strlen(string)));
}

static void
write_decimal(Unpacker *unpacker, uint64_t value)
{
	char		digits[DECIMAL_MAX];

	write_span(unpacker, span_of(digits, print_decimal(value, digits)));
}

static void
write_digest(Unpacker *unpacker, const uint8_t *digest)
{
	char	   *room = text_room(unpacker, SHA256_DIGITS);

	if (digest == NULL)
		unpacker->bad = true;
	else if (room)
		nix32_encode(digest, SHA256_BYTES, room);
}

static void
write_store_hash(Unpacker *unpacker, const uint8_t *hash)
{
	char	   *room = text_room(unpacker, STORE_HASH_TEXT_LEN + 1);

	if (room)
	{
		store_hash_encode(hash, room);
		room[STORE_HASH_TEXT_LEN] = '-';
	}
}

static void
unpack_store_path(Unpacker *unpacker)
{
	write_string(unpacker, "StorePath: ");
	write_span(unpacker, unpacker->dir);
	write_char(unpacker, '/');
	write_store_hash(unpacker, packed_store_hash(unpacker->packed));
	write_span(unpacker, unpacker->name);
}

static void
unpack_url(Unpacker *unpacker, const uint8_t *digest)
{
	write_string(unpacker, "URL: nar/");
	write_digest(unpacker, digest);
	write_string(unpacker, ".nar");
	write_span(unpacker, get_string(unpacker));
}

static void
unpack_url_guix(Unpacker *unpacker)
{
	write_string(unpacker, "URL: nar/");
	write_span(unpacker, get_string(unpacker));
	write_char(unpacker, '/');
	write_store_hash(unpacker, packed_store_hash(unpacker->packed));
	write_span(unpacker, unpacker->name);
}

static void
unpack_refs(Unpacker *unpacker)
{
	Unpacker	names = {.next = unpacker->ref_names, .end = unpacker->end};
	uint32_t	nrefs = packed_nrefs(unpacker->packed);

	write_string(unpacker, "References: ");
	for (uint32_t i = 0; i < nrefs && !unpacker->bad; i++)
	{
		char		buffer[STORE_NAME_MAX];
		Span		name = get_name(&names, buffer);

		if (i > 0)
			write_char(unpacker, ' ');
		write_store_hash(unpacker, packed_ref(unpacker->packed, i));
		write_span(unpacker, name.len > 0 ? name : unpacker->name);
	}
}

static void
unpack_deriver(Unpacker *unpacker)
{
	const uint8_t *hash = get_bytes(unpacker, STORE_HASH_LEN);
	uint8_t		common = get_byte(unpacker);
	char		buffer[STORE_NAME_MAX];

	if (common > unpacker->name.len)
	{
		unpacker->bad = true;
		return;
	}
	write_string(unpacker, "Deriver: ");
	write_store_hash(unpacker, hash);
	write_span(unpacker, span_of(unpacker->name.data, common));
	write_span(unpacker, get_name(unpacker, buffer));
	write_string(unpacker, ".drv");
}

static void
unpack_sig(Unpacker *unpacker)
{
	Span		key = get_string(unpacker);
	const uint8_t *bytes = get_bytes(unpacker, SIG_BYTES);
	char	   *room;

	write_string(unpacker, "Sig: ");
	write_span(unpacker, key.len > 0 ? key :
			   span_of(packed_common_key, strlen(packed_common_key)));
	write_char(unpacker, ':');
	room = text_room(unpacker, BASE64_LEN(SIG_BYTES));
	if (room)
		base64_encode(bytes, SIG_BYTES, room);
}

static void
unpack_ca(Unpacker *unpacker)
{
	uint8_t		prefix = get_byte(unpacker);

	if (prefix >= PACKED_NCA)
	{
		unpacker->bad = true;
		return;
	}
	write_string(unpacker, "CA: ");
	write_string(unpacker, packed_ca_prefixes[prefix]);
	write_digest(unpacker, get_bytes(unpacker, SHA256_BYTES));
}

static void
unpack_signature(Unpacker *unpacker)
{
	static const char upper[] = "0123456789ABCDEF";
	char		sexp[SEXP_MAX];
	size_t		len = 0;
	Span		host = get_string(unpacker);
	char	   *room;

	/* the template and four hex strings of 510 digits fit SEXP_MAX */
	for (int i = 0; i <= NHEX; i++)
	{
		Span		bytes;

		memcpy(sexp + len, packed_signature[i],
			   strlen(packed_signature[i]));
		len += strlen(packed_signature[i]);
		if (i == NHEX)
			break;
		bytes = get_string(unpacker);
		for (size_t j = 0; j < bytes.len; j++)
		{
			sexp[len++] = upper[(uint8_t) bytes.data[j] >> 4];
			sexp[len++] = upper[(uint8_t) bytes.data[j] & 0x0F];
		}
	}
	write_string(unpacker, "Signature: 1;");
	write_span(unpacker, host);
	write_char(unpacker, ';');
	room = text_room(unpacker, BASE64_LEN(len));
	if (room)
		base64_encode((uint8_t *) sexp, len, room);
}

static void
unpack_raw(Unpacker *unpacker)
{
	uint64_t	n = get_varint(unpacker);

	if (n > (uint64_t) (unpacker->end - unpacker->next))
		unpacker->bad = true;
	else
		write_span(unpacker,
				   span_of((const char *) get_bytes(unpacker, n), n));
}

static void
unpack_line(Unpacker *unpacker)
{
	const uint8_t *nar_digest = packed_nar_digest(unpacker->packed);

	switch (get_byte(unpacker))
	{
		case OP_RAW:
			unpack_raw(unpacker);
			break;
		case OP_STORE_PATH:
			unpack_store_path(unpacker);
			break;
		case OP_URL_FILE:
			unpack_url(unpacker, unpacker->file_digest);
			break;
		case OP_URL_NAR:
			unpack_url(unpacker, nar_digest);
			break;
		case OP_URL_DIGEST:
			unpack_url(unpacker, get_bytes(unpacker, SHA256_BYTES));
			break;
		case OP_URL_GUIX:
			unpack_url_guix(unpacker);
			break;
		case OP_COMPRESSION:
			write_string(unpacker, "Compression: ");
			write_span(unpacker, get_string(unpacker));
			break;
		case OP_FILE_HASH:
			write_string(unpacker, "FileHash: sha256:");
			write_digest(unpacker, unpacker->file_digest);
			break;
		case OP_FILE_HASH_NAR:
			write_string(unpacker, "FileHash: sha256:");
			write_digest(unpacker, nar_digest);
			break;
		case OP_FILE_SIZE:
			write_string(unpacker, "FileSize: ");
			write_decimal(unpacker, packed_file_size(unpacker->packed));
			break;
		case OP_FILE_SIZE_N:
			write_string(unpacker, "FileSize: ");
			write_decimal(unpacker, get_varint(unpacker));
			break;
		case OP_NAR_HASH:
			write_string(unpacker, "NarHash: sha256:");
			write_digest(unpacker, nar_digest);
			break;
		case OP_NAR_SIZE:
			write_string(unpacker, "NarSize: ");
			write_decimal(unpacker, packed_nar_size(unpacker->packed));
			break;
		case OP_REFERENCES:
			unpack_refs(unpacker);
			break;
		case OP_DERIVER:
			unpack_deriver(unpacker);
			break;
		case OP_SIG:
			unpack_sig(unpacker);
			break;
		case OP_CA:
			unpack_ca(unpacker);
			break;
		case OP_SIGNATURE:
			unpack_signature(unpacker);
			break;
		default:
			unpacker->bad = true;
			return;
	}
	write_char(unpacker, '\n');
}

/*
 * Read what all lines share, up to the names of the references; the caller
 * has checked the header.
 */
static void
unpack_shared(Unpacker *unpacker, const uint8_t *packed, size_t len)
{
	uint8_t		flags = packed[1];

	unpacker->packed = packed;
	unpacker->next = packed_ref(packed, packed_nrefs(packed));
	unpacker->end = packed + len;
	unpacker->bad = false;
	unpacker->file_digest = NULL;
	if (flags & PACKED_FILE_HASH)
		unpacker->file_digest = get_bytes(unpacker, SHA256_BYTES);
	unpacker->dir = (flags & PACKED_DIR_MASK) == PACKED_DIR_OTHER ?
		get_string(unpacker) : packed_dir(flags);
	unpacker->name = get_name(unpacker, unpacker->name_buffer);
	unpacker->ref_names = unpacker->next;
}

static void
skip_ref_names(Unpacker *unpacker)
{
	for (uint32_t n = packed_nrefs(unpacker->packed); n > 0; n--)
	{
		uint8_t		len = get_byte(unpacker);

		if (len == NAME_PLAIN)
			len = get_byte(unpacker);
		else
			len = (uint8_t) (((size_t) len * 6 + 7) / 8);
		get_bytes(unpacker, len);
	}
}

static Span
verbatim_text(const uint8_t *packed, size_t len)
{
	const uint8_t *text = packed_ref(packed, packed_nrefs(packed));

	return span_of((const char *) text, (size_t) (packed + len - text));
}

bool
packed_to_text(const uint8_t *packed, size_t len, char *text)
{
	Unpacker	unpacker;

	if (!packed_check(packed, len))
		return false;
	if (packed[1] & PACKED_VERBATIM)
	{
		Span		verbatim = verbatim_text(packed, len);

		if (verbatim.len != packed_text_len(packed))
			return false;
		memcpy(text, verbatim.data, verbatim.len);
		return true;
	}
	unpack_shared(&unpacker, packed, len);
	skip_ref_names(&unpacker);
	unpacker.text = text;
	unpacker.text_end = text + packed_text_len(packed);
	while (unpacker.next < unpacker.end && !unpacker.bad)
		unpack_line(&unpacker);
	return !unpacker.bad && unpacker.text == unpacker.text_end;
}

bool
packed_open(const uint8_t *packed, size_t len, PackedRefs *refs,
			StorePath *path)
{
	Unpacker	unpacker;

	if (!packed_check(packed, len))
		return false;
	refs->packed = packed;
	refs->index = 0;
	refs->next = NULL;
	if (packed[1] & PACKED_VERBATIM)
	{
		Span		text = verbatim_text(packed, len);
		Narinfo		info;
		ParseError	error;

		if (!narinfo_parse(text.data, text.len, &info, &error) ||
			info.nrefs != packed_nrefs(packed))
			return false;
		refs->text = info.refs;
		refs->path = info.store_path;
		*path = info.store_path;
		return true;
	}
	unpack_shared(&unpacker, packed, len);
	memcpy(refs->path.hash, packed_store_hash(packed), STORE_HASH_LEN);
	refs->path.dir = unpacker.dir;
	refs->path.name = unpacker.name;
	if (unpacker.name.data == unpacker.name_buffer)
	{
		memcpy(refs->own_name, unpacker.name_buffer, unpacker.name.len);
		refs->path.name.data = refs->own_name;
	}
	refs->next = unpacker.ref_names;
	refs->end = unpacker.end;
	*path = refs->path;
	return !unpacker.bad;
}

bool
packed_next_ref(PackedRefs *refs, StorePath *ref)
{
	Unpacker	unpacker = {.next = refs->next, .end = refs->end};

	if (refs->index >= packed_nrefs(refs->packed))
		return false;
	if (refs->next == NULL)
	{
		if (!narinfo_next_ref(&refs->text, ref))
			return false;
	}
	else
	{
		memcpy(ref->hash, packed_ref(refs->packed, refs->index),
			   STORE_HASH_LEN);
		ref->name = get_name(&unpacker, refs->name);
		if (unpacker.bad)
			return false;
		if (ref->name.len == 0)
			ref->name = refs->path.name;
		refs->next = unpacker.next;
	}
	ref->dir = refs->path.dir;
	refs->index++;
	return true;
}
