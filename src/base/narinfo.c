/*-------------------------------------------------------------------------
 *
 * narinfo.c
 *	  The grammar of narinfos, Nix's and Guix's.
 *
 * The text is read twice: first into lines, noting where each field stands;
 * then, once it is known whose kind it is and so which of several lines of
 * one field counts, the values.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/narinfo.h"

typedef enum FieldId
{
	FIELD_STORE_PATH,
	FIELD_URL,
	FIELD_COMPRESSION,
	FIELD_FILE_HASH,
	FIELD_FILE_SIZE,
	FIELD_NAR_HASH,
	FIELD_NAR_SIZE,
	FIELD_REFERENCES,
	FIELD_DERIVER,
	FIELD_SYSTEM,
	FIELD_SIG,
	FIELD_CA,
	FIELD_SIGNATURE,
	FIELD_UNKNOWN
} FieldId;

#define NFIELDS FIELD_UNKNOWN

#define FIELD_NAME(name) {name, sizeof(name) - 1}

static const Span field_names[NFIELDS] = {
	FIELD_NAME("StorePath"), FIELD_NAME("URL"), FIELD_NAME("Compression"),
	FIELD_NAME("FileHash"), FIELD_NAME("FileSize"), FIELD_NAME("NarHash"),
	FIELD_NAME("NarSize"), FIELD_NAME("References"), FIELD_NAME("Deriver"),
	FIELD_NAME("System"), FIELD_NAME("Sig"), FIELD_NAME("CA"),
	FIELD_NAME("Signature")
};

/* A field as it stands in the text; line 0 when it does not. */
typedef struct Field
{
	Span		value;
	uint32_t	line;
} Field;

typedef struct Parser
{
	Narinfo    *info;
	ParseError *error;
	Field		first[NFIELDS];
	Field		last[NFIELDS];
	uint32_t	count[NFIELDS];
	/* what Guix has several of, in order */
	Field		lists[4][NARINFO_URLS_MAX];
	Field		known_deriver;	/* the last that is not "unknown-deriver" */
	uint32_t	odd_line;		/* the first that guix reads differently */
} Parser;

/* Rows of Parser.lists */
#define LIST_OF(id) ((id) - FIELD_URL)

/*-------------------------------------------------------------------------
 * Errors
 *-------------------------------------------------------------------------
 */

/*
 * Say where the error is that a smaller parser has described.  The name of a
 * field we do not know may be any bytes, so only what prints is told.
 */
static bool
error_at(ParseError *error, uint32_t line, Span name)
{
	size_t		len = name.len < sizeof(error->field) ? name.len :
		sizeof(error->field) - 1;

	error->line = line;
	for (size_t i = 0; i < len; i++)
		error->field[i] = name.data[i] >= ' ' && name.data[i] <= '~' ?
			name.data[i] : '?';
	error->field[len] = '\0';
	return false;
}

/* The same for a known field. */
static bool
value_error(Parser *parser, FieldId id, uint32_t line)
{
	return error_at(parser->error, line, field_names[id]);
}

static bool
field_error(Parser *parser, FieldId id, uint32_t line, const char *message)
{
	parse_error(parser->error, "%s", message);
	return value_error(parser, id, line);
}

static uint32_t
line_of(const char *text, const char *where)
{
	uint32_t	line = 1;

	for (; text < where; text++)
		line += *text == '\n';
	return line;
}

static bool
check_bytes(const char *text, size_t len, ParseError *error)
{
	const char *bad;

	if (len == 0)
		return parse_error(error, "text is empty");
	if (len > NARINFO_TEXT_MAX)
		return parse_error(error, "text is longer than %d bytes",
						   NARINFO_TEXT_MAX);
	if ((bad = memchr(text, '\0', len)) != NULL)
	{
		parse_error(error, "text has a NUL byte");
		return error_at(error, line_of(text, bad), span_of("", 0));
	}
	if ((bad = memchr(text, '\r', len)) != NULL)
	{
		parse_error(error, "line has a carriage return");
		return error_at(error, line_of(text, bad), span_of("", 0));
	}
	if (text[len - 1] != '\n')
	{
		parse_error(error, "last line does not end with a newline");
		return error_at(error, line_of(text, text + len), span_of("", 0));
	}
	return true;
}

/*-------------------------------------------------------------------------
 * Values
 *-------------------------------------------------------------------------
 */

/*
 * Decimal, as nix (boost::lexical_cast) and guix (string->number) both read
 * it: digits, perhaps behind a '+'.
 */
static bool
size_parse(Span text, uint64_t *size, ParseError *error)
{
	uint64_t	value = 0;

	if (text.len > 0 && text.data[0] == '+')
		text = span_skip(text, 1);
	if (text.len == 0)
		return parse_error(error, "size is not a number");
	for (size_t i = 0; i < text.len; i++)
	{
		uint64_t	digit = (uint8_t) text.data[i] - (uint64_t) '0';

		if (digit > 9)
			return parse_error(error, "size is not a number");
		if (value > (UINT64_MAX - digit) / 10)
			return parse_error(error, "size does not fit 64 bits");
		value = value * 10 + digit;
	}
	*size = value;
	return true;
}

/* KEYNAME:BASE64, 64 bytes of Ed25519. */
static bool
sig_check(Span text, ParseError *error)
{
	const char *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
	uint8_t		bytes[64];

	if (colon == NULL || colon == text.data)
		return parse_error(error, "signature has no key name");
	if (!base64_decode(span_skip(text, (size_t) (colon - text.data) + 1),
					   bytes, sizeof(bytes)))
		return parse_error(error, "signature is not 64 bytes in base 64");
	return true;
}

/* 1;HOST;BASE64 of an s-expression. */
static bool
signature_check(Span text, ParseError *error)
{
	const char *host = text.len > 0 ? memchr(text.data, ';', text.len) : NULL;
	const char *base64;
	size_t		digits;
	size_t		padding = 0;

	if (host == NULL)
		return parse_error(error, "signature is not VERSION;HOST;BASE64");
	if (!span_is(span_of(text.data, (size_t) (host - text.data)), "1"))
		return parse_error(error, "signature is not of version 1");
	host++;
	base64 = memchr(host, ';', (size_t) (text.data + text.len - host));
	if (base64 == NULL)
		return parse_error(error, "signature is not VERSION;HOST;BASE64");
	base64++;
	digits = (size_t) (text.data + text.len - base64);
	while (padding < 2 && padding < digits &&
		   base64[digits - padding - 1] == '=')
		padding++;
	if (digits == 0 || digits % 4 != 0)
		return parse_error(error, "signature is not base 64");
	for (size_t i = 0; i < digits - padding; i++)
	{
		char		c = base64[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			  (c >= '0' && c <= '9') || c == '+' || c == '/'))
			return parse_error(error, "signature is not base 64");
	}
	return true;
}

/* text:HASH, fixed:HASH, fixed:r:HASH, fixed:git:HASH; empty is none. */
static bool
ca_check(Span text, ParseError *error)
{
	Digest		hash;

	if (text.len == 0)
		return true;
	if (span_starts(text, "text:"))
		return hash_parse(span_skip(text, 5), &hash, error);
	if (!span_starts(text, "fixed:"))
		return parse_error(error,
						   "content address does not begin with text: or fixed:");
	text = span_skip(text, 6);
	if (span_starts(text, "r:"))
		text = span_skip(text, 2);
	else if (span_starts(text, "git:"))
		text = span_skip(text, 4);
	return hash_parse(text, &hash, error);
}

static bool
refs_check(Span text, uint32_t *nrefs, ParseError *error)
{
	size_t		pos = 0;

	*nrefs = 0;
	while (pos < text.len)
	{
		const char *blank;
		size_t		end;
		StorePath	ref;

		if (text.data[pos] == ' ')
		{
			pos++;
			continue;
		}
		blank = memchr(text.data + pos, ' ', text.len - pos);
		end = blank ? (size_t) (blank - text.data) : text.len;
		if (!store_base_name_parse(span_of(text.data + pos, end - pos), &ref,
								   error))
			return false;
		(*nrefs)++;
		pos = end;
	}
	return true;
}

static bool
deriver_check(Span text, ParseError *error)
{
	StorePath	path;

	return span_is(text, "unknown-deriver") ||
		store_base_name_parse(text, &path, error);
}

/* Is this a value that nix can read?  For what is not read otherwise. */
static bool
value_check(Parser *parser, FieldId id, Span value)
{
	ParseError *error = parser->error;
	StorePath	path;
	Digest		hash;
	uint64_t	size;
	uint32_t	nrefs;

	switch (id)
	{
		case FIELD_STORE_PATH:
			return store_path_parse(value, &path, error);
		case FIELD_FILE_HASH:
		case FIELD_NAR_HASH:
			return hash_parse(value, &hash, error);
		case FIELD_FILE_SIZE:
		case FIELD_NAR_SIZE:
			return size_parse(value, &size, error);
		case FIELD_REFERENCES:
			return refs_check(value, &nrefs, error);
		case FIELD_DERIVER:
			return (parser->info->kind == NARINFO_GUIX && value.len == 0) ||
				deriver_check(value, error);
		case FIELD_SIG:
			return sig_check(value, error);
		case FIELD_CA:
			return ca_check(value, error);
		case FIELD_SIGNATURE:
			return signature_check(value, error);
		default:
			return true;
	}
}

/*-------------------------------------------------------------------------
 * Lines
 *-------------------------------------------------------------------------
 */

static FieldId
field_id(Span name)
{
	for (int id = 0; id < NFIELDS; id++)
	{
		if (span_equal(name, field_names[id]))
			return id;
	}
	return FIELD_UNKNOWN;
}

bool
narinfo_next_field(Span *rest, Span *name, Span *value)
{
	const char *colon;
	const char *newline;

	if (rest->len == 0)
		return false;
	newline = memchr(rest->data, '\n', rest->len);
	if (newline == NULL)
		return false;
	colon = memchr(rest->data, ':', (size_t) (newline - rest->data));
	if (colon == NULL || colon + 1 == newline)
		return false;
	*name = span_of(rest->data, (size_t) (colon - rest->data));
	*value = span_of(colon + 2, (size_t) (newline - colon - 2));
	*rest = span_skip(*rest, (size_t) (newline - rest->data) + 1);
	return true;
}

/* Why narinfo_next_field() stopped before the end. */
static bool
line_error(Parser *parser, Span rest, uint32_t line)
{
	const char *newline = memchr(rest.data, '\n', rest.len);
	const char *colon = memchr(rest.data, ':', (size_t) (newline - rest.data));

	if (colon == NULL)
	{
		parse_error(parser->error, newline == rest.data ? "line is empty" :
					"line has no colon");
		return error_at(parser->error, line, span_of("", 0));
	}
	parse_error(parser->error, "field has no blank behind its colon");
	return error_at(parser->error, line,
					span_of(rest.data, (size_t) (colon - rest.data)));
}

/* nix refuses what comes behind a value that it could not take back. */
static bool
check_extra(Parser *parser, FieldId id, uint32_t line)
{
	if ((id == FIELD_REFERENCES || id == FIELD_CA) &&
		parser->count[id] > 0 && parser->last[id].value.len > 0)
		return field_error(parser, id, line, "field is repeated");
	return true;
}

static bool
note_field(Parser *parser, FieldId id, Field field)
{
	if (!check_extra(parser, id, field.line))
		return false;
	if (id >= FIELD_URL && id <= FIELD_FILE_SIZE)
	{
		if (parser->count[id] >= NARINFO_URLS_MAX)
			return field_error(parser, id, field.line,
							   "field is repeated too often");
		parser->lists[LIST_OF(id)][parser->count[id]] = field;
	}
	if (id == FIELD_SIG && !sig_check(field.value, parser->error))
		return value_error(parser, id, field.line);
	if (id == FIELD_DERIVER && !span_is(field.value, "unknown-deriver"))
		parser->known_deriver = field;
	if (parser->count[id]++ == 0)
		parser->first[id] = field;
	parser->last[id] = field;
	return true;
}

static bool
read_lines(Parser *parser, Span rest)
{
	uint32_t	line = 0;
	Span		name;
	Span		value;

	while (line++, narinfo_next_field(&rest, &name, &value))
	{
		FieldId		id = field_id(name);
		Field		field = {value, line};

		if (id == FIELD_UNKNOWN)
		{
			char		c = name.len > 0 ? name.data[0] : ':';

			/* recutils: comments begin with '#', fields with these */
			if (parser->odd_line == 0 && c != '#' && c != '%' &&
				!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z'))
				parser->odd_line = line;
			continue;
		}
		if (value.data[-1] != ' ' && value.data[-1] != '\t')
			return field_error(parser, id, line,
							   "field has no blank behind its colon");
		if (!note_field(parser, id, field))
			return false;
	}
	return rest.len == 0 || line_error(parser, rest, line);
}

/*-------------------------------------------------------------------------
 * From fields to a narinfo
 *-------------------------------------------------------------------------
 */

/*
 * Guix signs with a Signature line, Nix with Sig lines; without either, the
 * store tells.
 */
static NarinfoKind
kind_of(const Parser *parser)
{
	if (parser->count[FIELD_SIGNATURE] > 0)
		return NARINFO_GUIX;
	if (parser->count[FIELD_SIG] > 0)
		return NARINFO_NIX;
	return span_starts(parser->first[FIELD_STORE_PATH].value, "/gnu/store/") ?
		NARINFO_GUIX : NARINFO_NIX;
}

/* The line that counts: nix's last, guix' first one. */
static const Field *
pick(const Parser *parser, FieldId id)
{
	return parser->info->kind == NARINFO_NIX ? &parser->last[id] :
		&parser->first[id];
}

static bool
take_store_path(Parser *parser)
{
	const Field *field = pick(parser, FIELD_STORE_PATH);

	if (field->line == 0)
		return field_error(parser, FIELD_STORE_PATH, 0, "field is missing");
	return store_path_parse(field->value, &parser->info->store_path,
							parser->error) ||
		value_error(parser, FIELD_STORE_PATH, field->line);
}

static bool
take_nar(Parser *parser)
{
	const Field *hash = pick(parser, FIELD_NAR_HASH);
	const Field *size = pick(parser, FIELD_NAR_SIZE);

	if (hash->line == 0)
		return field_error(parser, FIELD_NAR_HASH, 0, "field is missing");
	if (!hash_parse(hash->value, &parser->info->nar_hash, parser->error))
		return value_error(parser, FIELD_NAR_HASH, hash->line);
	if (size->line == 0)
		return field_error(parser, FIELD_NAR_SIZE, 0, "field is missing");
	if (!size_parse(size->value, &parser->info->nar_size, parser->error))
		return value_error(parser, FIELD_NAR_SIZE, size->line);
	if (parser->info->nar_size == 0 && parser->info->kind == NARINFO_NIX)
		return field_error(parser, FIELD_NAR_SIZE, size->line, "size is 0");
	return true;
}

/* One URL of the text, and what belongs to it. */
static bool
take_url(Parser *parser, NarinfoUrl *url, const Field *text,
		 const Field *compression, const Field *file_hash,
		 const Field *file_size)
{
	Digest		hash;

	if (text->value.len == 0)
		return field_error(parser, FIELD_URL, text->line, "URL is empty");
	url->url = text->value;
	url->compression = compression->value;
	if (url->compression.len == 0)
		url->compression = parser->info->kind == NARINFO_NIX ?
			span_of("bzip2", 5) : span_of("none", 4);
	url->file_hash = file_hash->value;
	if (file_hash->line > 0 &&
		!hash_parse(file_hash->value, &hash, parser->error))
		return value_error(parser, FIELD_FILE_HASH, file_hash->line);
	url->has_file_size = file_size->line > 0;
	url->file_size = 0;
	if (url->has_file_size &&
		!size_parse(file_size->value, &url->file_size, parser->error))
		return value_error(parser, FIELD_FILE_SIZE, file_size->line);
	return true;
}

/* The i-th of a list, or the absent field. */
static const Field *
list_get(const Parser *parser, FieldId id, uint32_t i)
{
	static const Field absent;

	return i < parser->count[id] ? &parser->lists[LIST_OF(id)][i] : &absent;
}

/* Guix zips the lists: each must be for all URLs or for none. */
static bool
check_list(Parser *parser, FieldId id)
{
	uint32_t	count = parser->count[id];

	if (count != 0 && count != parser->count[FIELD_URL])
		return field_error(parser, id, parser->last[id].line,
						   "field is not there as often as URL");
	return true;
}

static bool
take_urls(Parser *parser)
{
	Narinfo    *info = parser->info;

	if (parser->count[FIELD_URL] == 0)
		return field_error(parser, FIELD_URL, 0, "field is missing");
	if (info->kind == NARINFO_NIX)
	{
		info->nurls = 1;
		return take_url(parser, &info->urls[0], &parser->last[FIELD_URL],
						&parser->last[FIELD_COMPRESSION],
						&parser->last[FIELD_FILE_HASH],
						&parser->last[FIELD_FILE_SIZE]);
	}
	if (!check_list(parser, FIELD_COMPRESSION) ||
		!check_list(parser, FIELD_FILE_SIZE))
		return false;
	info->nurls = (int) parser->count[FIELD_URL];
	for (int i = 0; i < info->nurls; i++)
	{
		if (!take_url(parser, &info->urls[i], list_get(parser, FIELD_URL, i),
					  list_get(parser, FIELD_COMPRESSION, i),
					  list_get(parser, FIELD_FILE_HASH, i),
					  list_get(parser, FIELD_FILE_SIZE, i)))
			return false;
	}
	return true;
}

static bool
take_refs(Parser *parser)
{
	const Field *field = pick(parser, FIELD_REFERENCES);
	Narinfo    *info = parser->info;

	if (field->line == 0 && info->kind == NARINFO_GUIX)
		return field_error(parser, FIELD_REFERENCES, 0, "field is missing");
	info->refs = field->value;
	info->refs_line = field->line;
	return refs_check(field->value, &info->nrefs, parser->error) ||
		value_error(parser, FIELD_REFERENCES, field->line);
}

static bool
take_deriver(Parser *parser)
{
	const Field *field = pick(parser, FIELD_DERIVER);
	Narinfo    *info = parser->info;

	if (field->line > 0 && info->kind == NARINFO_NIX)
		field = &parser->known_deriver;
	info->deriver = span_of(NULL, 0);
	if (field->line == 0 || span_is(field->value, "unknown-deriver") ||
		(field->value.len == 0 && info->kind == NARINFO_GUIX))
		return true;
	info->deriver = field->value;
	return deriver_check(field->value, parser->error) ||
		value_error(parser, FIELD_DERIVER, field->line);
}

static bool
take_rest(Parser *parser)
{
	Narinfo    *info = parser->info;
	const Field *ca = &parser->last[FIELD_CA];
	const Field *signature = &parser->first[FIELD_SIGNATURE];

	info->system = pick(parser, FIELD_SYSTEM)->value;
	info->nsigs = parser->count[FIELD_SIG];
	info->ca = ca->value.len > 0 ? ca->value : span_of(NULL, 0);
	if (!ca_check(ca->value, parser->error))
		return value_error(parser, FIELD_CA, ca->line);
	info->signature = signature->value;
	if (signature->line > 0 &&
		!signature_check(signature->value, parser->error))
		return value_error(parser, FIELD_SIGNATURE, signature->line);
	return true;
}

/* nix reads every line, also those that do not count in the end. */
static bool
check_repeated(Parser *parser, Span rest)
{
	uint32_t	line = 0;
	Span		name;
	Span		value;

	while (line++, narinfo_next_field(&rest, &name, &value))
	{
		FieldId		id = field_id(name);

		if (id != FIELD_UNKNOWN && parser->count[id] > 1 &&
			!value_check(parser, id, value))
			return value_error(parser, id, line);
	}
	return true;
}

static bool
any_repeated(const Parser *parser)
{
	for (int id = 0; id < NFIELDS; id++)
	{
		/* signatures, and Guix' URLs, have all been read */
		if (parser->count[id] > 1 && id != FIELD_SIG)
			return true;
	}
	return false;
}

bool
narinfo_parse(const char *text, size_t len, Narinfo *info, ParseError *error)
{
	Parser		parser = {.info = info, .error = error};
	Span		whole = span_of(text, len);

	if (!check_bytes(text, len, error) || !read_lines(&parser, whole))
		return false;
	info->kind = kind_of(&parser);
	if (info->kind == NARINFO_GUIX && parser.odd_line > 0)
	{
		parse_error(error, "line begins with a character that guix refuses");
		return error_at(error, parser.odd_line, span_of("", 0));
	}
	return take_store_path(&parser) && take_urls(&parser) &&
		take_nar(&parser) && take_refs(&parser) && take_deriver(&parser) &&
		take_rest(&parser) &&
		(!any_repeated(&parser) || check_repeated(&parser, whole));
}

bool
narinfo_next_ref(Span *rest, StorePath *ref)
{
	const char *blank;
	size_t		len;

	while (rest->len > 0 && rest->data[0] == ' ')
		*rest = span_skip(*rest, 1);
	if (rest->len == 0)
		return false;
	blank = memchr(rest->data, ' ', rest->len);
	len = blank ? (size_t) (blank - rest->data) : rest->len;
	ref->dir = span_of(NULL, 0);
	store_hash_decode(rest->data, ref->hash);
	ref->name = span_of(rest->data + STORE_HASH_TEXT_LEN + 1,
						len - STORE_HASH_TEXT_LEN - 1);
	*rest = span_skip(*rest, len);
	return true;
}

/* The next field that is not Guix's signature. */
static bool
next_signed_field(Span *rest, Span *name, Span *value)
{
	bool		found;

	do
	{
		found = narinfo_next_field(rest, name, value);
	} while (found && span_is(*name, "Signature"));
	return found;
}

bool
narinfo_signed_further(Span text, Span signed_text)
{
	Span		name;
	Span		value;
	Span		signed_name;
	Span		signed_value;
	bool		more = next_signed_field(&text, &name, &value);

	while (next_signed_field(&signed_text, &signed_name, &signed_value))
	{
		if (more && span_equal(name, signed_name) &&
			span_equal(value, signed_value))
			more = next_signed_field(&text, &name, &value);
		else if (!span_is(signed_name, "Sig"))
			return false;
	}
	return !more;
}
