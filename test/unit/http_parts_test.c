/*-------------------------------------------------------------------------
 *
 * http_parts_test.c
 *	  Unit tests of the small parts of src/http, as TAP: dates, conditional
 *	  requests, proxies, lists of addresses, counts of addresses.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/conditional.h"
#include "http/date.h"
#include "http/peers.h"
#include "http/proxy.h"
#include "http_test.h"

static void
test_dates(void)
{
	static const char *const good[] = {
		"Sun, 06 Nov 1994 08:49:37 GMT",
		"Sunday, 06-Nov-94 08:49:37 GMT",
		"Sun Nov  6 08:49:37 1994"
	};
	static const char *const bad[] = {
		"", "Sun", "Sun,", "Sun, 06 Nov 1994 08:49:37", "Sun Nov 6 08:49:37 1994",
		"Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nox 1994 08:49:37 GMT",
		"Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ",
		"Sun, 32 Nov 1994 08:49:37 GMT", "784111777"
	};
	char		text[HTTP_DATE_LEN + 1];
	time_t		when;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		ok(http_date_parse(str(good[i]), &when) && when == 784111777,
		   "date \"%s\"", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(!http_date_parse(str(bad[i]), &when), "no date: \"%s\"", bad[i]);
	http_date_format(784111777, text);
	ok(strcmp(text, good[0]) == 0, "date is written as IMF-fixdate");
}

typedef struct SelectCase
{
	const char *name;
	HttpMethod	method;
	const char *if_none_match;
	const char *if_modified_since;
	const char *range;
	const char *if_range;
	int			status;
	int			offset;
	int			length;
} SelectCase;

#define MTIME		"Sun, 06 Nov 1994 08:49:37 GMT"
#define EARLIER		"Sun, 06 Nov 1994 08:49:36 GMT"

/* A file of 100 bytes, ETag "x", last modified at MTIME. */
static const SelectCase selections[] = {
	{"plain", HTTP_GET, NULL, NULL, NULL, NULL, 200, 0, 100},
	{"tag matches", HTTP_GET, "\"x\"", NULL, NULL, NULL, 304, 0, 0},
	{"tag matches weakly", HTTP_HEAD, "W/\"x\"", NULL, NULL, NULL, 304, 0, 0},
	{"tag in a list", HTTP_GET, "\"a,b\" ,, W/\"y\", \"x\"", NULL, NULL, NULL,
	304, 0, 0},
	{"*", HTTP_GET, "*", NULL, NULL, NULL, 304, 0, 0},
	{"other tag", HTTP_GET, "\"y\"", NULL, NULL, NULL, 200, 0, 100},
	{"tag without quotes", HTTP_GET, "x", NULL, NULL, NULL, 200, 0, 100},
	{"tag beats date", HTTP_GET, "\"y\"", MTIME, NULL, NULL, 200, 0, 100},
	{"unchanged since", HTTP_GET, NULL, MTIME, NULL, NULL, 304, 0, 0},
	{"changed since", HTTP_GET, NULL, EARLIER, NULL, NULL, 200, 0, 100},
	{"since rubbish", HTTP_GET, NULL, "rubbish", NULL, NULL, 200, 0, 100},
	{"unchanged beats range", HTTP_GET, "\"x\"", NULL, "bytes=1-", NULL, 304,
	0, 0},
	{"PUT", HTTP_PUT, "*", MTIME, "bytes=1-", NULL, 200, 0, 100},
	{"HEAD ignores ranges", HTTP_HEAD, NULL, NULL, "bytes=1-", NULL, 200, 0, 100},
	{"bytes=10-", HTTP_GET, NULL, NULL, "bytes=10-", NULL, 206, 10, 90},
	{"bytes=10- and a blank", HTTP_GET, NULL, NULL, "bytes=10- ", NULL, 206, 10,
	90},
	{"bytes=10-19", HTTP_GET, NULL, NULL, "bytes=10-19", NULL, 206, 10, 10},
	{"bytes=0-0", HTTP_GET, NULL, NULL, "bytes=0-0", NULL, 206, 0, 1},
	{"bytes=90-1000", HTTP_GET, NULL, NULL, "bytes=90-1000", NULL, 206, 90, 10},
	{"bytes=99-99", HTTP_GET, NULL, NULL, "Bytes= 99-99 ", NULL, 206, 99, 1},
	{"bytes=-10", HTTP_GET, NULL, NULL, "bytes=-10", NULL, 206, 90, 10},
	{"bytes=-1000", HTTP_GET, NULL, NULL, "bytes=-1000", NULL, 206, 0, 100},
	{"bytes=100-", HTTP_GET, NULL, NULL, "bytes=100-", NULL, 416, 0, 0},
	{"bytes=-0", HTTP_GET, NULL, NULL, "bytes=-0", NULL, 416, 0, 0},
	{"far beyond", HTTP_GET, NULL, NULL, "bytes=99999999999999999999-", NULL,
	416, 0, 0},
	{"end far beyond", HTTP_GET, NULL, NULL, "bytes=1-99999999999999999999",
	NULL, 206, 1, 99},
	{"bytes=20-10", HTTP_GET, NULL, NULL, "bytes=20-10", NULL, 200, 0, 100},
	{"several ranges", HTTP_GET, NULL, NULL, "bytes=0-1,5-6", NULL, 200, 0, 100},
	{"bytes=", HTTP_GET, NULL, NULL, "bytes=", NULL, 200, 0, 100},
	{"bytes=-", HTTP_GET, NULL, NULL, "bytes=-", NULL, 200, 0, 100},
	{"bytes=a-b", HTTP_GET, NULL, NULL, "bytes=a-b", NULL, 200, 0, 100},
	{"bytes=1-b", HTTP_GET, NULL, NULL, "bytes=1-b", NULL, 200, 0, 100},
	{"other unit", HTTP_GET, NULL, NULL, "lines=1-2", NULL, 200, 0, 100},
	{"If-Range matches", HTTP_GET, NULL, NULL, "bytes=1-", "\"x\"", 206, 1, 99},
	{"If-Range does not", HTTP_GET, NULL, NULL, "bytes=1-", "\"y\"", 200, 0, 100},
	{"If-Range is weak", HTTP_GET, NULL, NULL, "bytes=1-", "W/\"x\"", 200, 0,
	100},
	{"If-Range with the date", HTTP_GET, NULL, NULL, "bytes=1-", MTIME, 206, 1,
	99},
	{"If-Range, other date", HTTP_GET, NULL, NULL, "bytes=1-", EARLIER, 200, 0,
	100}
};

static void
test_selections(void)
{
	HttpSelection sel;
	HttpConditions none = {.method = HTTP_GET};

	for (size_t i = 0; i < sizeof(selections) / sizeof(*selections); i++)
	{
		const SelectCase *test = &selections[i];
		HttpConditions conditions = {
			.method = test->method,
			.if_none_match = str(test->if_none_match),
			.if_modified_since = str(test->if_modified_since),
			.range = str(test->range),
			.if_range = str(test->if_range)
		};

		http_select_by(&conditions, "\"x\"", 784111777, 100, &sel);
		ok(sel.status == test->status && sel.offset == test->offset &&
		   sel.length == test->length, "selection: %s: %d", test->name,
		   test->status);
	}

	none.range = str("bytes=10-19");
	http_select_by(&none, "\"x\"", 784111777, 100, &sel);
	ok(strcmp(sel.headers, "ETag: \"x\"\r\nLast-Modified: " MTIME "\r\n"
			  "Accept-Ranges: bytes\r\nContent-Range: bytes 10-19/100\r\n") == 0,
	   "headers of 206");
	none.range = str("bytes=-1");
	http_select_by(&none, NULL, 0, 0, &sel);
	ok(sel.status == 200 && strcmp(sel.headers, "Accept-Ranges: bytes\r\n") == 0,
	   "range of an empty file");
	none.range = str("bytes=0-");
	http_select_by(&none, NULL, 0, 0, &sel);
	ok(sel.status == 416 &&
	   strcmp(sel.headers, "Content-Range: bytes */0\r\n") == 0,
	   "416 of an empty file");
}

static void
test_proxies(void)
{
	static const struct
	{
		const char *headers;
		const char *client;
	}			cases[] =
	{
		{"X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"},
		{"X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", "1.2.3.4"},
		{"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.1.2.3\r\n", "1.2.3.4"},
		{"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"},
		{"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\n", "1.2.3.4"},
		{"X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "10.0.0.1"},
		{"X-Forwarded-For: 6.6.6.6, nonsense, 10.0.0.2\r\n", "10.0.0.2"},
		{"X-Forwarded-For: 6.6.6.6, nonsense\r\n", "10.0.0.9"},
		{"X-Forwarded-For: 1.2.3.4:5678\r\n", "1.2.3.4"},
		{"X-Forwarded-For: [2001:db8::1]:443\r\n", "2001:db8::1"},
		{"X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4"},
		{"X-Forwarded-For:\r\n", "10.0.0.9"},
		{"X-Other: 1.2.3.4\r\n", "10.0.0.9"}
	};
	static const char *const bad[] = {
		"10.0.0.0/33", "10.0.0/8", "::/129", "a", "10.0.0.0/", "10.0.0.0/8,,::1",
		"10.0.0.0/-1", "10.0.0.0/8 x"
	};
	HttpNetworks trusted = {0};
	HttpAddress peer;
	HttpAddress client;
	char		error[200];
	char		text[HTTP_ADDRESS_LEN];

	ok(http_networks_parse("10.0.0.0/8, 2001:db8:ffff::/48,127.0.0.1,unix:",
						   &trusted, error, sizeof(error)) &&
	   trusted.count == 4, "networks are read");
	http_address_parse(str("10.0.0.9"), &peer);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
	{
		http_forwarded_for(&trusted, str(cases[i].headers), &peer, &client);
		http_address_text(&client, text);
		ok(strcmp(text, cases[i].client) == 0, "X-Forwarded-For %zu: %s", i + 1,
		   text);
	}
	http_address_parse(str("2001:db8:ffff:1::1"), &peer);
	ok(http_networks_contain(&trusted, &peer), "IPv6 inside");
	http_address_parse(str("2001:db8:fffe:1::1"), &peer);
	ok(!http_networks_contain(&trusted, &peer), "IPv6 outside");
	http_address_parse(str("127.0.0.2"), &peer);
	ok(!http_networks_contain(&trusted, &peer), "IPv4 outside");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(!http_networks_parse(bad[i], &trusted, error, sizeof(error)) &&
		   trusted.count == 4, "not networks: %s", error);
	ok(http_networks_parse("0.0.0.0/0", &trusted, error, sizeof(error)) &&
	   http_networks_contain(&trusted, &peer), "0.0.0.0/0 is all of IPv4");
	http_networks_free(&trusted);
}

static void
test_addresses(void)
{
	static const char *const good[] = {
		"", " ", "127.0.0.1:1", "*:5000", "localhost:65535",
		"[::1]:80, unix:/tmp/x,a.b:1"
	};
	static const char *const bad[] = {
		"127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", ":80", "::1:80",
		"[]:80", "[::1]", "a:1,", "a:1,,b:2", "unix:x", "unix:", "a:b", "a:+1"
	};
	char		error[200];

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		ok(http_addresses_check(good[i], error, sizeof(error)),
		   "addresses \"%s\"", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ok(!http_addresses_check(bad[i], error, sizeof(error)),
		   "not addresses: \"%s\": %s", bad[i], error);
}

static void
test_peers(void)
{
	HttpPeers	peers = {0};
	HttpAddress address = {.is_ip = true};
	bool		good = true;

	for (int round = 0; round < 3; round++)
	{
		for (int i = 0; i < 5000; i++)
		{
			memcpy(address.bytes, &i, sizeof(i));
			good = good && http_peers_add(&peers, &address) == round + 1;
		}
	}
	for (int round = 0; round < 3; round++)
	{
		for (int i = 0; i < 5000; i += 2)
		{
			memcpy(address.bytes, &i, sizeof(i));
			http_peers_remove(&peers, &address);
		}
	}
	for (int i = 0; i < 5000; i++)
	{
		memcpy(address.bytes, &i, sizeof(i));
		good = good && http_peers_add(&peers, &address) == (i % 2 ? 4 : 1);
	}
	ok(good && peers.used == 5000, "counts of addresses");
	http_peers_free(&peers);
}

int
main(void)
{
	test_dates();
	test_selections();
	test_proxies();
	test_addresses();
	test_peers();
	return done_testing();
}
