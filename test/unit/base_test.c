/*-------------------------------------------------------------------------
 *
 * base_test.c
 *	  Unit tests of src/base, as TAP.  Arguments: directories of narinfos that
 *	  must be accepted, packed and given back byte for byte.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/packed.h"

static int	ntests;
static int	nfailed;

static void
ok(bool good, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++ntests);
	nfailed += !good;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static Span
str(const char *text)
{
	return span_of(text, strlen(text));
}

/*-------------------------------------------------------------------------
 * Encodings
 *-------------------------------------------------------------------------
 */

/* Hash of the empty text in each notation, from the sha256sum and nix tools */
static const char *const empty_sha256[] = {
	"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
	"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
	"sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
	"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
	"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
};

static const char *const bad_hashes[] = {
	"", "sha256", "sha256:", "sha256-", "md4:00", "sha257:00",
	"sha256:2mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
	"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c7",
	"sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9ce3",
	"sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
	"sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
};

static void
test_hashes(void)
{
	ParseError	error;
	Digest		hash;

	for (size_t i = 0; i < sizeof(empty_sha256) / sizeof(char *); i++)
	{
		char		text[HASH_TEXT_MAX];
		size_t		len = 0;
		bool		good = hash_parse(str(empty_sha256[i]), &hash, &error);

		if (good)
			len = hash_print(&hash, text);
		ok(good && span_equal(span_of(text, len), str(empty_sha256[2])),
		   "hash %s", empty_sha256[i]);
	}
	for (size_t i = 0; i < sizeof(bad_hashes) / sizeof(char *); i++)
		ok(!hash_parse(str(bad_hashes[i]), &hash, &error),
		   "no hash: \"%s\"", bad_hashes[i]);
}

/* Every length of bytes comes back from every notation. */
static void
test_round_trips(void)
{
	bool		nix32 = true;
	bool		base16 = true;
	bool		base64 = true;

	for (size_t n = 0; n <= 64; n++)
	{
		for (int round = 0; round < 50; round++)
		{
			uint8_t		bytes[64];
			uint8_t		again[64];
			char		text[160];

			for (size_t i = 0; i < n; i++)
				bytes[i] = (uint8_t) rand();
			nix32_encode(bytes, n, text);
			nix32 = nix32 && nix32_decode(text, again, n) &&
				memcmp(bytes, again, n) == 0;
			base16_encode(bytes, n, text);
			base16 = base16 && base16_decode(text, again, n) &&
				memcmp(bytes, again, n) == 0;
			base64_encode(bytes, n, text);
			base64 = base64 &&
				base64_decode(span_of(text, BASE64_LEN(n)), again, n) &&
				memcmp(bytes, again, n) == 0;
		}
	}
	ok(nix32, "nix32 comes back");
	ok(base16, "base 16 comes back");
	ok(base64, "base 64 comes back");
}

/* The order of store hashes is that of their texts. */
static void
test_store_hash_order(void)
{
	bool		good = true;

	for (int round = 0; round < 1000; round++)
	{
		uint8_t		a[STORE_HASH_LEN];
		uint8_t		b[STORE_HASH_LEN];
		uint8_t		again[STORE_HASH_LEN];
		char		text_a[STORE_HASH_TEXT_LEN];
		char		text_b[STORE_HASH_TEXT_LEN];
		int			bytes;
		int			texts;

		for (int i = 0; i < STORE_HASH_LEN; i++)
		{
			a[i] = (uint8_t) rand();
			b[i] = i < round % STORE_HASH_LEN ? a[i] : (uint8_t) rand();
		}
		store_hash_encode(a, text_a);
		store_hash_encode(b, text_b);
		bytes = memcmp(a, b, sizeof(a));
		texts = memcmp(text_a, text_b, sizeof(text_a));
		good = good && (bytes < 0) == (texts < 0) &&
			(bytes > 0) == (texts > 0) && store_hash_decode(text_a, again) &&
			memcmp(a, again, sizeof(a)) == 0;
	}
	ok(good, "store hashes come back and sort as their texts");
}

#define H "gr3jxf1l9gnghmbkmfc1x3pr7j6198mx"

static const char *const good_paths[] = {
	"/nix/store/" H "-a", "/gnu/store/" H "-a.b", "/a/" H "-+._?=-9Z",
	"/nix/store/" H "-.a", "/nix/store/" H "-..a", "/nix/store/" H "--",
	"/nix/store/" H "-...", "/a/b/c/d/e/" H "-x",
};

static const char *const bad_paths[] = {
	"", "/", H "-a", "/" H "-a", "nix/store/" H "-a", "/nix//store/" H "-a",
	"/nix/./store/" H "-a", "/nix/../store/" H "-a", "/nix/store/" H,
	"/nix/store/" H "-", "/nix/store/" H "a", "/nix/store/" H "-a/b",
	"/nix/store/" H "-a b", "/nix/store/" H "-\xc3\xa4",
	"/nix/store/" H "-.", "/nix/store/" H "-..", "/nix/store/" H "-.-a",
	"/nix/store/" H "-..-a", "/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198me-a",
	"/nix/store/Ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a", "/nix/store/-a",
	"/nix store/" H "-a", "/nix/store//" H "-a",
};

static void
test_paths(void)
{
	ParseError	error;
	StorePath	path;
	char		text[400] = "/nix/store/" H "-";
	size_t		len = strlen(text);

	for (size_t i = 0; i < sizeof(good_paths) / sizeof(char *); i++)
	{
		char		again[400];
		bool		good = store_path_parse(str(good_paths[i]), &path, &error);

		if (good)
			store_path_print(&path, again);
		ok(good && span_equal(span_of(again, store_path_len(&path)),
							  str(good_paths[i])),
		   "store path %s", good_paths[i]);
	}
	for (size_t i = 0; i < sizeof(bad_paths) / sizeof(char *); i++)
		ok(!store_path_parse(str(bad_paths[i]), &path, &error),
		   "no store path: \"%s\"", bad_paths[i]);
	memset(text + len, 'x', STORE_NAME_MAX + 1);
	ok(store_path_parse(span_of(text, len + STORE_NAME_MAX), &path, &error),
	   "a name of %d bytes", STORE_NAME_MAX);
	ok(!store_path_parse(span_of(text, len + STORE_NAME_MAX + 1), &path,
						 &error), "no name of %d bytes", STORE_NAME_MAX + 1);
}

/*-------------------------------------------------------------------------
 * Narinfos
 *-------------------------------------------------------------------------
 */

/* Do the store path and the references come out of the packed value? */
static bool
same_refs(const uint8_t *packed, size_t n, const Narinfo *info)
{
	PackedRefs	refs;
	StorePath	path;
	StorePath	ref;
	Span		rest = info->refs;
	StorePath	expected;

	if (!packed_open(packed, n, &refs, &path) ||
		!span_equal(path.dir, info->store_path.dir) ||
		!span_equal(path.name, info->store_path.name) ||
		memcmp(path.hash, info->store_path.hash, STORE_HASH_LEN) != 0)
		return false;
	while (narinfo_next_ref(&rest, &expected))
	{
		if (!packed_next_ref(&refs, &ref) ||
			!span_equal(ref.name, expected.name) ||
			!span_equal(ref.dir, path.dir) ||
			memcmp(ref.hash, expected.hash, STORE_HASH_LEN) != 0)
			return false;
	}
	return !packed_next_ref(&refs, &ref);
}

/* Pack and unpack; the packed length, or 0 if the text is not the same. */
static size_t
round_trip(const char *text, size_t len, const Narinfo *info)
{
	char	   *scratch = malloc(len);
	char	   *again = malloc(len);
	uint8_t    *packed = malloc(PACKED_BOUND(len));
	size_t		n = packed_from_text(text, len, info, scratch, packed);
	uint8_t    *exact = malloc(n);
	bool		good;

	/* in a buffer of its own size, so that a read behind it is noticed */
	memcpy(exact, packed, n);
	good = packed_check(exact, n) && packed_text_len(exact) == len &&
		packed_to_text(exact, n, again) && memcmp(text, again, len) == 0 &&
		packed_nrefs(exact) == info->nrefs && same_refs(exact, n, info) &&
		packed_nar_size(exact) == info->nar_size &&
		packed_file_size(exact) == info->urls[0].file_size &&
		memcmp(packed_store_hash(exact), info->store_path.hash,
			   STORE_HASH_LEN) == 0;
	/* no cut value may be read beyond its end */
	for (size_t cut = 0; cut < n && n < 2000; cut++)
	{
		uint8_t    *part = malloc(cut ? cut : 1);

		memcpy(part, exact, cut);
		if (packed_check(part, cut))
		{
			PackedRefs	refs;
			StorePath	path;

			packed_to_text(part, cut, again);
			if (packed_open(part, cut, &refs, &path))
				while (packed_next_ref(&refs, &path))
					;
		}
		free(part);
	}
	free(exact);
	free(packed);
	free(scratch);
	free(again);
	return good ? n : 0;
}

#define PATH "StorePath: /nix/store/" H "-a\n"
#define URL "URL: nar/x.nar\n"
#define HASH "NarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n"
#define SIZE "NarSize: 5\n"
#define REFS "References: \n"
#define SIGNATURE "Signature: 1;host;aGFsbG8=\n"
#define SIG "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define GNU "StorePath: /gnu/store/" H "-a\n"

static const char *const good_infos[] = {
	PATH URL HASH SIZE,
	PATH URL HASH SIZE REFS,
	SIZE HASH REFS URL PATH,
	PATH URL HASH SIZE "References: " H "-a  " H "-b \n",
	PATH URL HASH SIZE "References:  " H "-a\n",
	PATH URL HASH SIZE "References: \nReferences: " H "-a\n",
	PATH URL HASH SIZE "Deriver: unknown-deriver\n",
	PATH URL HASH SIZE "Deriver: " H "-a.drv\nDeriver: unknown-deriver\n",
	PATH URL HASH SIZE "Unknown: x\nOther:y\n: z\n9: z\n+ a: b\n",
	PATH URL HASH SIZE "Sig: " SIG "==\nSig: " SIG "\n",
	PATH URL HASH "NarSize: 18446744073709551615\n",
	PATH URL HASH "NarSize: +5\n",
	PATH URL HASH "NarSize: 007\n",
	PATH URL HASH "NarSize:\t7\n",
	PATH URL HASH SIZE "NarSize: 6\nURL: nar/y.nar\n" HASH PATH,
	PATH URL HASH SIZE "CA: \nCA: fixed:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n",
	PATH URL HASH SIZE "FileSize: 0\nFileHash: md5:00000000000000000000000000000000\n",
	PATH URL "NarHash: sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e\n" SIZE,
	GNU URL HASH SIZE REFS SIGNATURE "URL: nar/y\n",
	GNU URL HASH "NarSize: 0\n" REFS "Deriver: \n" SIGNATURE,
	GNU URL HASH SIZE REFS "# a: comment\n" SIGNATURE,
	"StorePath: /odd/dir/" H "-a\n" URL HASH SIZE,
};

typedef struct BadInfo
{
	const char *text;
	uint32_t	line;
	const char *field;
} BadInfo;

static const BadInfo bad_infos[] = {
	{"", 0, ""},
	{PATH URL HASH "NarSize: 5", 4, ""},
	{PATH URL HASH SIZE "x", 5, ""},
	{PATH URL "no colon\n" HASH SIZE, 3, ""},
	{PATH "\n" URL HASH SIZE, 2, ""},
	{PATH "URL: x\r\n" HASH SIZE, 2, ""},
	{URL HASH SIZE, 0, "StorePath"},
	{PATH HASH SIZE, 0, "URL"},
	{PATH "URL: \n" HASH SIZE, 2, "URL"},
	{PATH URL SIZE, 0, "NarHash"},
	{PATH URL HASH, 0, "NarSize"},
	{PATH URL HASH "NarSize: 0\n", 4, "NarSize"},
	{PATH URL HASH "NarSize: \n", 4, "NarSize"},
	{PATH URL HASH "NarSize: 5 \n", 4, "NarSize"},
	{PATH URL HASH "NarSize:  5\n", 4, "NarSize"},
	{PATH URL HASH "NarSize: -5\n", 4, "NarSize"},
	{PATH URL HASH "NarSize: 0x5\n", 4, "NarSize"},
	{PATH URL HASH "NarSize:55\n", 4, "NarSize"},
	{PATH URL HASH "NarSize: 18446744073709551616\n", 4, "NarSize"},
	{PATH URL HASH "NarSize: 99999999999999999999999\n", 4, "NarSize"},
	{PATH URL HASH SIZE "FileSize: 18446744073709551616\n", 5, "FileSize"},
	{PATH URL HASH SIZE "FileSize: x\n", 5, "FileSize"},
	{PATH URL HASH SIZE "FileSize: x\nFileSize: 5\n", 5, "FileSize"},
	{PATH URL HASH SIZE "FileHash: sha256:0\n", 5, "FileHash"},
	{PATH URL "NarHash: sha256:0\n" SIZE, 3, "NarHash"},
	{PATH URL "NarHash: \n" SIZE, 3, "NarHash"},
	{PATH URL "NarHash: sha256:0\n" HASH SIZE, 3, "NarHash"},
	{"StorePath: nonsense\n" URL HASH SIZE, 1, "StorePath"},
	{"StorePath: nonsense\n" PATH URL HASH SIZE, 1, "StorePath"},
	{PATH URL HASH SIZE "References:\nDeriver: " H "-a.drv\n", 5, "References"},
	{PATH URL HASH SIZE "Unknown:\n", 5, "Unknown"},
	{PATH URL HASH SIZE "References: " H "\n", 5, "References"},
	{PATH URL HASH SIZE "References: /nix/store/" H "-a\n", 5, "References"},
	{PATH URL HASH SIZE "References: " H "-a\nReferences: " H "-b\n", 6, "References"},
	{PATH URL HASH SIZE "Deriver: \n", 5, "Deriver"},
	{PATH URL HASH SIZE "Deriver: x\n", 5, "Deriver"},
	{PATH URL HASH SIZE "Sig: \n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: AAAA\n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: k:AAAA\n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: k:\n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: :" SIG "==\n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: " SIG "A=\n", 5, "Sig"},
	{PATH URL HASH SIZE "Sig: " SIG "*\n", 5, "Sig"},
	{PATH URL HASH SIZE "CA: nonsense\n", 5, "CA"},
	{PATH URL HASH SIZE "CA: fixed:r:sha256:0\n", 5, "CA"},
	{GNU URL HASH SIZE REFS "Signature: 1;host\n", 6, "Signature"},
	{GNU URL HASH SIZE REFS "Signature: 2;host;aGFsbG8=\n", 6, "Signature"},
	{GNU URL HASH SIZE REFS "Signature: 1;host;*\n", 6, "Signature"},
	{GNU URL HASH SIZE SIGNATURE, 0, "References"},
	{GNU URL HASH SIZE REFS SIGNATURE "URL: y\nFileSize: 5\n", 8, "FileSize"},
	{GNU URL HASH SIZE REFS SIGNATURE "+ a: b\n", 7, ""},
};

static void
test_infos(void)
{
	ParseError	error;
	Narinfo		info;

	for (size_t i = 0; i < sizeof(good_infos) / sizeof(char *); i++)
	{
		Span		text = str(good_infos[i]);
		bool		good = narinfo_parse(text.data, text.len, &info, &error);

		ok(good && round_trip(text.data, text.len, &info) > 0,
		   "good narinfo %zu%s%s", i, good ? "" : ": ",
		   good ? "" : error.message);
	}
	for (size_t i = 0; i < sizeof(bad_infos) / sizeof(bad_infos[0]); i++)
	{
		Span		text = str(bad_infos[i].text);
		bool		good = narinfo_parse(text.data, text.len, &info, &error);

		ok(!good && error.line == bad_infos[i].line &&
		   strcmp(error.field, bad_infos[i].field) == 0,
		   "bad narinfo %zu: line %u, field %s: %s", i, error.line,
		   error.field, good ? "accepted" : error.message);
	}
	ok(!narinfo_parse(PATH URL HASH SIZE "a: b\0c\n",
					  sizeof(PATH URL HASH SIZE) - 1 + 7, &info, &error) &&
	   error.line == 5, "no NUL");
}

/* What counts when a field is repeated depends on whose kind it is. */
static void
test_repeated(void)
{
	static const char nix[] = PATH URL HASH SIZE
		"URL: nar/last\nCompression: xz\nNarSize: 7\nFileSize: 9\n"
		"Deriver: " H "-a.drv\nDeriver: unknown-deriver\n";
	static const char guix[] = GNU URL "Compression: gzip\nFileSize: 3\n" HASH
		SIZE REFS SIGNATURE
		"URL: nar/2\nCompression: zstd\nFileSize: 4\n" "NarSize: 7\n";
	ParseError	error;
	Narinfo		info;

	ok(narinfo_parse(nix, strlen(nix), &info, &error) &&
	   info.kind == NARINFO_NIX && info.nurls == 1 && info.nar_size == 7 &&
	   span_is(info.urls[0].url, "nar/last") &&
	   span_is(info.deriver, H "-a.drv"), "nix takes the last");
	ok(narinfo_parse(guix, strlen(guix), &info, &error) &&
	   info.kind == NARINFO_GUIX && info.nurls == 2 && info.nar_size == 5 &&
	   span_is(info.urls[1].url, "nar/2") && info.urls[1].file_size == 4 &&
	   span_is(info.urls[0].compression, "gzip"),
	   "guix takes the first, and all URLs");
	ok(narinfo_parse(PATH URL HASH SIZE, strlen(PATH URL HASH SIZE), &info,
					 &error) && span_is(info.urls[0].compression, "bzip2"),
	   "nix' default compression");
}

static void
test_bound(void)
{
	size_t		len = NARINFO_TEXT_MAX;
	char	   *text = malloc(len + 1);
	size_t		pos = strlen(PATH URL HASH SIZE "References:");
	uint32_t	nrefs = 0;
	ParseError	error;
	Narinfo		info;

	memcpy(text, PATH URL HASH SIZE "References:", pos);
	for (; pos + 35 < len; pos += 35, nrefs++)
		memcpy(text + pos, " " H "-x", 35);
	memset(text + pos, ' ', len - pos);
	text[len - 1] = '\n';
	ok(narinfo_parse(text, len, &info, &error) && info.nrefs == nrefs &&
	   round_trip(text, len, &info) > 0, "a text of %zu bytes", len);
	text[len - 1] = ' ';
	text[len] = '\n';
	ok(!narinfo_parse(text, len + 1, &info, &error), "no longer one");
	free(text);
}

/*-------------------------------------------------------------------------
 * Real ones
 *-------------------------------------------------------------------------
 */

typedef struct Totals
{
	int			count[2];		/* by kind */
	double		ratio[2];
} Totals;

static void
test_file(const char *path, Totals *totals)
{
	static char text[NARINFO_TEXT_MAX];
	FILE	   *file = fopen(path, "rb");
	size_t		len = file ? fread(text, 1, sizeof(text), file) : 0;
	char	   *exact = malloc(len ? len : 1);
	ParseError	error = {0};
	Narinfo		info;
	size_t		n = 0;

	if (file)
		fclose(file);
	memcpy(exact, text, len);
	if (narinfo_parse(exact, len, &info, &error))
	{
		n = round_trip(exact, len, &info);
		totals->count[info.kind]++;
		totals->ratio[info.kind] += (double) n / (double) len;
	}
	ok(n > 0, "%s%s%s", path, error.message[0] ? ": " : "", error.message);
	free(exact);
}

static void
test_directory(const char *path, Totals *totals)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;

	ok(dir != NULL, "directory %s", path);
	while (dir && (entry = readdir(dir)) != NULL)
	{
		char		file[1024];
		size_t		len = strlen(entry->d_name);

		if (len < 8 || strcmp(entry->d_name + len - 8, ".narinfo") != 0)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		test_file(file, totals);
	}
	if (dir)
		closedir(dir);
}

int
main(int argc, char **argv)
{
	Totals		totals = {0};

	test_hashes();
	test_round_trips();
	test_store_hash_order();
	test_paths();
	test_infos();
	test_repeated();
	test_bound();
	for (int i = 1; i < argc; i++)
		test_directory(argv[i], &totals);
	if (argc > 1)
	{
		double		nix = totals.ratio[NARINFO_NIX] /
		totals.count[NARINFO_NIX];

		printf("# packed/text, mean: %.3f of %d of Nix' kind, %.3f of %d of Guix'\n",
			   nix, totals.count[NARINFO_NIX],
			   totals.ratio[NARINFO_GUIX] / totals.count[NARINFO_GUIX],
			   totals.count[NARINFO_GUIX]);
		ok(nix <= 0.65, "packed, narinfos of Nix' kind take at most 0.65");
	}
	printf("1..%d\n", ntests);
	return nfailed > 0;
}
