/*-------------------------------------------------------------------------
 *
 * parse.c
 *	  The head of one request.  The only file that knows llhttp.  See parse.h.
 *
 * llhttp as Debian builds it (LLHTTP_STRICT_MODE 0) tolerates some things
 * that two servers in a row may read differently, which is how requests are
 * smuggled.  They are refused here, in the scan or behind llhttp: bare LF and
 * bare CR, folded lines, a space before the colon, HTTP/0.9, RTSP and ICE,
 * bytes above 127 in the URL, two spaces in the request line, a
 * Transfer-Encoding that merely ends in "chunked", two Hosts or none.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <strings.h>

#include "http/parse.h"
#include "llhttp.h"

/* What a request line may hold beside the target: method, spaces, version. */
#define REQUEST_LINE_EXTRA	64

/* Content-Length digits that cannot overflow. */
#define MAX_LENGTH_DIGITS	18

/* Length of " HTTP/1.1". */
#define VERSION_LEN			9

/* The state of one http_head_parse(). */
typedef struct HeadParser
{
	HttpHead   *head;
	Span		name;			/* of the header being parsed */
	Span		value;
	int			hosts;
	int			lengths;
	int			encodings;
	bool		complete;
	int			status;			/* of the refusal; 0: none yet */
	const char *reason;
} HeadParser;

/* RFC 9110's tchar: letters, digits, and !#$%&'*+-.^_`|~ */
static inline bool
is_token_byte(unsigned char c)
{
	static const uint32_t token_bytes[8] = {
		0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff, 0, 0, 0, 0
	};

	return (token_bytes[c >> 5] >> (c & 31)) & 1;
}

static bool
is_token(Span text)
{
	if (text.len == 0)
		return false;
	for (size_t i = 0; i < text.len; i++)
	{
		if (!is_token_byte((unsigned char) text.data[i]))
			return false;
	}
	return true;
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

Span
http_trim(Span text)
{
	while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
		text = span_skip(text, 1);
	while (text.len > 0 && (text.data[text.len - 1] == ' ' ||
							text.data[text.len - 1] == '\t'))
		text.len--;
	return text;
}

/*
 * From pos on, the first byte that is a control byte, or end.  Eight bytes at
 * a time: the usual tricks for "some byte is less than 0x20" and "some byte
 * is 0x7f", which may err only towards looking closer.
 */
static size_t
skip_plain(const char *data, size_t pos, size_t end)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	const uint64_t highs = UINT64_C(0x8080808080808080);

	for (; pos + 8 <= end; pos += 8)
	{
		uint64_t	word;
		uint64_t	del;

		memcpy(&word, data + pos, 8);
		del = word ^ (ones * 0x7f);
		if ((((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & highs)
			break;
	}
	for (; pos < end; pos++)
	{
		unsigned char c = (unsigned char) data[pos];

		if (c < 0x20 || c == 0x7f)
			break;
	}
	return pos;
}

/*
 * METHOD SP TARGET SP HTTP/1.x, with nothing more and nothing less.  Control
 * bytes were refused before.
 */
static int
check_request_line(Span line, size_t max_target, const char **reason)
{
	const char *space = memchr(line.data, ' ', line.len);
	const char *version = memrchr(line.data, ' ', line.len);
	Span		target;

	*reason = "malformed request line";
	if (space == NULL || version == space ||
		!is_token(span_of(line.data, space - line.data)))
		return 400;
	if (line.data + line.len - version != VERSION_LEN ||
		memcmp(version, " HTTP/", 6) != 0 ||
		!is_digit(version[6]) || version[7] != '.' || !is_digit(version[8]))
		return 400;
	if (version[6] != '1' || (version[8] != '0' && version[8] != '1'))
	{
		*reason = "HTTP version is neither 1.0 nor 1.1";
		return 505;
	}

	target = span_of(space + 1, version - space - 1);
	if (target.len > max_target)
	{
		*reason = "URL too long";
		return 414;
	}
	for (size_t i = 0; i < target.len; i++)
	{
		if ((unsigned char) target.data[i] > 0x7f || target.data[i] == ' ' ||
			target.data[i] == '#')
		{
			*reason = "URL has a byte that must be percent-encoded";
			return 400;
		}
	}
	return target.len == 0 ? 400 : 0;
}

/* A line ended at scan->pos: HTTP_SCAN_MORE, _COMPLETE or a refusal. */
static int
end_line(HttpScan *scan, const char *data, size_t max_target,
		 const char **reason)
{
	Span		line = span_of(data + scan->line, scan->pos - 2 - scan->line);
	int			status;

	scan->line = scan->pos;
	if (!scan->in_headers)
	{
		/* RFC 9112, 2.2: ignore empty lines in front of the request line */
		if (line.len == 0)
		{
			scan->begin = scan->pos;
			return HTTP_SCAN_MORE;
		}
		status = check_request_line(line, max_target, reason);
		if (status != 0)
			return status;
		scan->in_headers = true;
		return HTTP_SCAN_MORE;
	}
	if (line.len == 0)
		return HTTP_SCAN_COMPLETE;
	if (line.data[0] == ' ' || line.data[0] == '\t')
	{
		*reason = "folded header line";
		return 400;
	}
	return HTTP_SCAN_MORE;
}

static int
too_long(const HttpScan *scan, const char **reason)
{
	*reason = scan->in_headers ? "headers too large" : "URL too long";
	return scan->in_headers ? 431 : 414;
}

int
http_head_scan(HttpScan *scan, const char *data, size_t len,
			   size_t max_head, size_t max_target, const char **reason)
{
	for (;;)
	{
		size_t		limit = max_head;
		size_t		end;
		int			status;

		/*
		 * Nothing at or above the limit is looked at, so that a refusal is
		 * the same whether the bytes come in one piece or in many.
		 */
		if (!scan->in_headers && limit > max_target + REQUEST_LINE_EXTRA)
			limit = max_target + REQUEST_LINE_EXTRA;
		end = len < limit ? len : limit;
		scan->pos = skip_plain(data, scan->pos, end);
		if (scan->pos >= limit)
			return too_long(scan, reason);
		if (scan->pos == end)
			return HTTP_SCAN_MORE;

		if (data[scan->pos] == '\t' && scan->in_headers)
		{
			scan->pos++;
			continue;
		}
		if (data[scan->pos] != '\r')
		{
			*reason = data[scan->pos] == '\n' ? "LF without CR" :
				"control byte in the head";
			return 400;
		}
		if (scan->pos + 1 >= limit)
			return too_long(scan, reason);
		if (scan->pos + 1 == end)
			return HTTP_SCAN_MORE;
		if (data[scan->pos + 1] != '\n')
		{
			*reason = "CR without LF";
			return 400;
		}
		scan->pos += 2;
		status = end_line(scan, data, max_target, reason);
		if (status != HTTP_SCAN_MORE)
			return status;
	}
}

/* Remembers a refusal; fit to be returned by a callback of llhttp. */
static int
refuse(HeadParser *parser, int status, const char *reason)
{
	parser->status = status;
	parser->reason = reason;
	return -1;
}

static int
content_length(HeadParser *parser, Span value)
{
	HttpHead   *head = parser->head;

	if (++parser->lengths > 1)
		return refuse(parser, 400, "two Content-Length headers");
	if (value.len == 0 || value.len > MAX_LENGTH_DIGITS)
		return refuse(parser, 400, "invalid Content-Length");
	head->content_length = 0;
	for (size_t i = 0; i < value.len; i++)
	{
		if (!is_digit(value.data[i]))
			return refuse(parser, 400, "invalid Content-Length");
		head->content_length = head->content_length * 10 +
			(value.data[i] - '0');
	}
	head->has_length = true;
	return 0;
}

static int
transfer_encoding(HeadParser *parser, Span value)
{
	if (++parser->encodings > 1)
		return refuse(parser, 400, "two Transfer-Encoding headers");
	if (value.len != 7 || strncasecmp(value.data, "chunked", 7) != 0)
		return refuse(parser, 400, "Transfer-Encoding is not \"chunked\"");
	parser->head->chunked = true;
	return 0;
}

static void
expectation(HttpHead *head, Span value)
{
	head->expect = true;
	if (value.len != 12 || strncasecmp(value.data, "100-continue", 12) != 0)
		head->expect_other = true;
}

static int
host(HeadParser *parser, Span value)
{
	if (++parser->hosts > 1)
		return refuse(parser, 400, "two Host headers");
	for (size_t i = 0; i < value.len; i++)
	{
		if (strchr(" \t,/?#@\\\"<>", value.data[i]) != NULL)
			return refuse(parser, 400, "invalid Host");
	}
	return 0;
}

/* Looks at the header whose name and value llhttp found. */
static int
end_header(HeadParser *parser)
{
	Span		name = parser->name;
	Span		value = http_trim(parser->value);

	if (name.data == NULL)
		return 0;
	if (!is_token(name))
		return refuse(parser, 400, "invalid header name");
	parser->name = parser->value = span_of(NULL, 0);

	switch (name.len)
	{
		case 4:
			if (strncasecmp(name.data, "Host", 4) == 0)
				return host(parser, value);
			break;
		case 6:
			if (strncasecmp(name.data, "Expect", 6) == 0)
				expectation(parser->head, value);
			break;
		case 14:
			if (strncasecmp(name.data, "Content-Length", 14) == 0)
				return content_length(parser, value);
			break;
		case 17:
			if (strncasecmp(name.data, "Transfer-Encoding", 17) == 0)
				return transfer_encoding(parser, value);
			break;
	}
	return 0;
}

static int
on_url(llhttp_t *llhttp, const char *at, size_t len)
{
	HeadParser *parser = llhttp->data;

	/* The scan found the target by itself; the two must agree. */
	if (!span_equal(parser->head->target, span_of(at, len)))
		return refuse(parser, 400, "malformed URL");
	return 0;
}

static int
on_header_field(llhttp_t *llhttp, const char *at, size_t len)
{
	HeadParser *parser = llhttp->data;

	if (end_header(parser) != 0)
		return -1;
	parser->name = span_of(at, len);
	return 0;
}

static int
on_header_value(llhttp_t *llhttp, const char *at, size_t len)
{
	HeadParser *parser = llhttp->data;

	/* In a head of one piece and without folding a value is one piece. */
	if (parser->value.data != NULL)
		return refuse(parser, 400, "malformed header");
	parser->value = span_of(at, len);
	return 0;
}

static int
on_headers_complete(llhttp_t *llhttp)
{
	HeadParser *parser = llhttp->data;
	HttpHead   *head = parser->head;

	if (end_header(parser) != 0)
		return -1;
	if (parser->lengths > 0 && parser->encodings > 0)
		return refuse(parser, 400,
					  "both Content-Length and Transfer-Encoding");
	if (parser->hosts == 0 && !head->http_1_0)
		return refuse(parser, 400, "no Host header");
	if (head->chunked && head->http_1_0)
		return refuse(parser, 400, "Transfer-Encoding in HTTP/1.0");
	if (llhttp->method == HTTP_CONNECT)
		return refuse(parser, 501, "CONNECT");

	head->method = llhttp_method_name((llhttp_method_t) llhttp->method);
	head->is_get = llhttp->method == HTTP_GET;
	head->is_head = llhttp->method == HTTP_HEAD;
	head->is_put = llhttp->method == HTTP_PUT;
	head->is_post = llhttp->method == HTTP_POST;
	head->keep_alive = llhttp_should_keep_alive(llhttp) != 0;
	parser->complete = true;

	/*
	 * llhttp's work ends here.  Were it to go on, it would take what follows
	 * an Upgrade or CONNECT for another protocol, and read bodies.
	 */
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = on_url,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
};

int
http_head_parse(const HttpScan *scan, const char *data,
				HttpHead *head, const char **reason)
{
	HeadParser	parser = {.head = head};
	llhttp_t	llhttp;
	llhttp_errno_t result;
	Span		text = span_of(data + scan->begin, scan->pos - scan->begin);
	const char *line_end = memchr(text.data, '\r', text.len);
	const char *space = memchr(text.data, ' ', text.len);

	/* The scan made sure of this shape. */
	memset(head, 0, sizeof(*head));
	head->target = span_of(space + 1, line_end - VERSION_LEN - space - 1);
	head->headers = span_of(line_end + 2,
							text.data + text.len - 2 - (line_end + 2));
	head->http_1_0 = line_end[-1] == '0';

	llhttp_init(&llhttp, HTTP_REQUEST, &settings);
	llhttp.data = &parser;
	result = llhttp_execute(&llhttp, text.data, text.len);

	if (parser.complete)
		return 0;
	if (parser.status != 0)
	{
		*reason = parser.reason;
		return parser.status;
	}
	if (result == HPE_INVALID_METHOD)
	{
		*reason = "unknown method";
		return 501;
	}
	*reason = llhttp_get_error_reason(&llhttp);
	if (*reason == NULL || **reason == '\0')
		*reason = "malformed request";
	return 400;
}

Span
http_header_next(Span *lines, const char *name)
{
	size_t		name_len = strlen(name);

	while (lines->len > 0)
	{
		const char *end = memchr(lines->data, '\r', lines->len);
		Span		line;

		if (end == NULL || lines->data + lines->len - end < 2)
			break;
		line = span_of(lines->data, end - lines->data);
		*lines = span_skip(*lines, line.len + 2);
		if (line.len > name_len && line.data[name_len] == ':' &&
			strncasecmp(line.data, name, name_len) == 0)
			return http_trim(span_skip(line, name_len + 1));
	}
	return span_of(NULL, 0);
}
