/*-------------------------------------------------------------------------
 *
 * path.c
 *	  From the target of a request to its path and query.  See path.h.
 *
 * Paths are not normalised, they are refused: a client of a binary cache has
 * no reason to write "..", and who wants to normalise has to do it the same
 * way as every proxy in front.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <strings.h>

#include "http/path.h"

static const char root_path[] = "/";

/* Takes "http://host:port" off; false when there is no host. */
static bool
strip_authority(Span *target)
{
	size_t		len;

	if (target->len > 7 && strncasecmp(target->data, "http://", 7) == 0)
		*target = span_skip(*target, 7);
	else if (target->len > 8 && strncasecmp(target->data, "https://", 8) == 0)
		*target = span_skip(*target, 8);
	else
		return false;

	for (len = 0; len < target->len; len++)
	{
		char		c = target->data[len];

		if (c == '/' || c == '?')
			break;
		if (c == '@' || c == '\\' || c == '%')
			return false;
	}
	*target = span_skip(*target, len);
	return len > 0;
}

bool
http_target_split(Span target, Span *path, Span *query)
{
	const char *mark;

	if ((target.len == 0 || target.data[0] != '/') &&
		!strip_authority(&target))
		return false;

	*query = span_of(NULL, 0);
	mark = target.len > 0 ? memchr(target.data, '?', target.len) : NULL;
	if (mark != NULL)
	{
		*query = span_skip(target, mark + 1 - target.data);
		target.len = mark - target.data;
	}
	*path = target.len > 0 ? target : span_of(root_path, 1);
	return true;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
http_percent_decode(Span text, char *dest, size_t *len)
{
	char	   *to = dest;

	for (size_t i = 0; i < text.len; i++)
	{
		int			high;
		int			low;
		int			byte;

		if (text.data[i] != '%')
		{
			*to++ = text.data[i];
			continue;
		}
		if (text.len - i < 3)
			return false;
		high = hex_digit(text.data[i + 1]);
		low = hex_digit(text.data[i + 2]);
		if (high < 0 || low < 0)
			return false;
		byte = high * 16 + low;
		if (byte < 0x20 || byte == 0x7f)
			return false;
		*to++ = (char) byte;
		i += 2;
	}
	*len = to - dest;
	return true;
}

bool
http_path_is_plain(Span path)
{
	const char *at = path.data;
	const char *end = path.data + path.len;

	if (path.len == 0 || *at != '/')
		return false;
	while (at < end)
	{
		const char *component = at + 1;
		size_t		len;

		at = memchr(component, '/', end - component);
		if (at == NULL)
			at = end;
		len = at - component;
		if (len == 0 && at < end)
			return false;
		if (len == 1 && component[0] == '.')
			return false;
		if (len == 2 && component[0] == '.' && component[1] == '.')
			return false;
	}
	return true;
}
