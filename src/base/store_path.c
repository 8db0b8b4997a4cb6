/*-------------------------------------------------------------------------
 *
 * store_path.c
 *	  The grammar of store paths: DIRECTORY/HASH-NAME.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/store_path.h"

/* One for each character a name may have. */
static const uint8_t name_characters[256] = {
	['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
	['+'] = 1, ['-'] = 1, ['.'] = 1, ['_'] = 1, ['?'] = 1, ['='] = 1
};

static bool
component_check(Span component, ParseError *error)
{
	if (component.len == 0)
		return parse_error(error, "store directory has an empty component");
	if (span_is(component, ".") || span_is(component, ".."))
		return parse_error(error,
						   "store directory has a component \".\" or \"..\"");
	return true;
}

bool
store_dir_check(Span dir, ParseError *error)
{
	size_t		start = 1;

	if (dir.len == 0 || dir.data[0] != '/')
		return parse_error(error, "store directory is not absolute");
	if (dir.len > STORE_DIR_MAX)
		return parse_error(error, "store directory is longer than %d bytes",
						   STORE_DIR_MAX);
	for (size_t i = 1; i <= dir.len; i++)
	{
		if (i < dir.len && (dir.data[i] <= ' ' || dir.data[i] > '~'))
			return parse_error(error,
							   "store directory has a character that is not printable ASCII");
		if (i < dir.len && dir.data[i] != '/')
			continue;
		if (!component_check(span_of(dir.data + start, i - start), error))
			return false;
		start = i + 1;
	}
	return true;
}

bool
store_name_check(Span name, ParseError *error)
{
	if (name.len == 0)
		return parse_error(error, "store path has no name");
	if (name.len > STORE_NAME_MAX)
		return parse_error(error, "store path name is longer than %d bytes",
						   STORE_NAME_MAX);
	for (size_t i = 0; i < name.len; i++)
	{
		if (!name_characters[(uint8_t) name.data[i]])
			return parse_error(error, name.data[i] > ' ' && name.data[i] <= '~'
							   ? "store path name has the character \"%c\""
							   : "store path name has the byte 0x%02x",
							   (uint8_t) name.data[i]);
	}
	if (name.data[0] == '.')
	{
		Span		rest = span_skip(name, 1);

		if (rest.len > 0 && rest.data[0] == '.')
			rest = span_skip(rest, 1);
		if (rest.len == 0 || rest.data[0] == '-')
			return parse_error(error,
							   "store path name is or begins like \".\" or \"..\"");
	}
	return true;
}

bool
store_base_name_parse(Span text, StorePath *path, ParseError *error)
{
	if (text.len < STORE_HASH_TEXT_LEN + 2)
		return parse_error(error, "store path is too short");
	if (text.data[STORE_HASH_TEXT_LEN] != '-')
		return parse_error(error, "store path has no \"-\" behind %d digits",
						   STORE_HASH_TEXT_LEN);
	if (!store_hash_decode(text.data, path->hash))
		return parse_error(error,
						   "store path has a hash with a character that is no nix32 digit");
	path->dir = span_of(NULL, 0);
	path->name = span_skip(text, STORE_HASH_TEXT_LEN + 1);
	return store_name_check(path->name, error);
}

bool
store_path_parse(Span text, StorePath *path, ParseError *error)
{
	size_t		slash = text.len;

	while (slash > 0 && text.data[slash - 1] != '/')
		slash--;
	if (slash == 0)
		return parse_error(error, "store path has no directory");
	slash--;
	if (!store_dir_check(span_of(text.data, slash), error))
		return false;
	if (!store_base_name_parse(span_skip(text, slash + 1), path, error))
		return false;
	path->dir = span_of(text.data, slash);
	return true;
}

size_t
store_path_len(const StorePath *path)
{
	return path->dir.len + 1 + STORE_HASH_TEXT_LEN + 1 + path->name.len;
}

void
store_path_print(const StorePath *path, char *text)
{
	memcpy(text, path->dir.data, path->dir.len);
	text += path->dir.len;
	*text++ = '/';
	store_hash_encode(path->hash, text);
	text += STORE_HASH_TEXT_LEN;
	*text++ = '-';
	memcpy(text, path->name.data, path->name.len);
}
