/*-------------------------------------------------------------------------
 *
 * gen.c
 *	  The data of the benchmarks: narinfos out of nothing but their number.
 *
 *	  gen files FIRST END DIR		HASH.narinfo for each number below END
 *	  gen copy FIRST END [CACHE]	the same as rows (cache, hash, info) for
 *									COPY valid_path ... FROM STDIN
 *	  gen paths walk END			URL paths of all, each once, shuffled
 *	  gen paths absent COUNT		of narinfos that are not there
 *	  gen paths zipf END COUNT		70 % absent, the rest drawn from those
 *									below END with frequency 1/rank
 *
 * Every number has its narinfo, the same wherever it is asked for: of Nix's
 * kind, some 950 bytes, with 0 to 16 references to lower numbers, two in
 * three of them to the lowest 5,000 as to the libraries of a distribution.
 * So the first N are a closed set for any N.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/nix32.h"

#define TEXT_MAX	4096
#define NAME_SIZE	64
#define REFS_MAX	16
#define COMMON		5000		/* numbers that most references go to */

/* What a number's digests are for: each its own salt. */
enum
{
	SALT_PATH = 1,
	SALT_FILE,
	SALT_NAR,
	SALT_SIG,
	SALT_DERIVER,
	SALT_ABSENT
};

/* ---- numbers that look random (splitmix64) ---- */

static uint64_t
mix(uint64_t x)
{
	x += 0x9E3779B97F4A7C15u;
	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
	return x ^ (x >> 31);
}

static uint64_t random_state = 1;

static uint64_t
random_below(uint64_t end)
{
	return mix(random_state++) % end;
}

/* In (0, 1]. */
static double
random_fraction(void)
{
	return (double) ((mix(random_state++) >> 11) + 1) / 9007199254740992.0;
}

static void
digest_of(uint64_t number, int salt, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i += 8)
	{
		uint64_t	word = mix(mix(number) + (uint64_t) salt * 1000003 + i);

		memcpy(bytes + i, &word, (len - i < 8) ? len - i : 8);
	}
}

/* ---- parts of a narinfo ---- */

static void
hash_of(uint64_t number, int salt, char hash[STORE_HASH_TEXT_LEN + 1])
{
	uint8_t		bytes[STORE_HASH_LEN];

	digest_of(number, salt, bytes, sizeof(bytes));
	store_hash_encode(bytes, hash);
	hash[STORE_HASH_TEXT_LEN] = '\0';
}

static void
sha256_of(uint64_t number, int salt, char digits[NIX32_LEN(32) + 1])
{
	uint8_t		bytes[32];

	digest_of(number, salt, bytes, sizeof(bytes));
	nix32_encode(bytes, sizeof(bytes), digits);
	digits[NIX32_LEN(32)] = '\0';
}

static void
name_of(uint64_t number, char name[NAME_SIZE])
{
	static const char *const names[] = {
		"glibc-2.39-52", "bash-5.2p26", "perl5.38.2-HTTP-Cookies-6.01",
		"python3.11-httpauth-0.2", "gcc-13.2.0-lib", "hello-2.12.1",
		"texlive-babel-french-3.5l", "openssl-3.0.13", "zlib-1.3.1",
		"ncurses-6.4", "linux-6.6.30-modules", "haskell-lens-5.2.3-doc",
		"rust_serde-1.0.197", "source", "stdenv-linux", "ghc-9.6.5"
	};

	snprintf(name, NAME_SIZE, "%s-%u", names[mix(number) % 16],
			 (unsigned) (number % 1000));
}

static size_t
print_references(uint64_t number, char *text, size_t size)
{
	uint64_t	seen[REFS_MAX];
	uint64_t	wanted = mix(number * 3 + 1) % (REFS_MAX + 1);
	size_t		len = 0;
	int			n = 0;

	for (uint64_t i = 0; i < wanted && i < number; i++)
	{
		int			common = mix(number * 31 + i) % 3 != 0 && number > COMMON;
		uint64_t	ref = mix(number * 77 + i) % (common ? COMMON : number);
		char		hash[STORE_HASH_TEXT_LEN + 1];
		char		name[NAME_SIZE];
		int			known = 0;

		for (int k = 0; k < n; k++)
			known |= (seen[k] == ref);
		if (known)
			continue;
		seen[n++] = ref;
		hash_of(ref, SALT_PATH, hash);
		name_of(ref, name);
		len += (size_t) snprintf(text + len, size - len, "%s%s-%s",
								 (n > 1) ? " " : "", hash, name);
	}
	text[len] = '\0';
	return len;
}

/* Writes at most TEXT_MAX bytes and a NUL; returns the length. */
static size_t
print_narinfo(uint64_t number, char *text)
{
	char		hash[STORE_HASH_TEXT_LEN + 1];
	char		deriver[STORE_HASH_TEXT_LEN + 1];
	char		name[NAME_SIZE];
	char		file[NIX32_LEN(32) + 1];
	char		nar[NIX32_LEN(32) + 1];
	char		refs[REFS_MAX * (STORE_HASH_TEXT_LEN + NAME_SIZE)];
	uint8_t		sig_bytes[64];
	char		sig[BASE64_LEN(64) + 1];

	hash_of(number, SALT_PATH, hash);
	hash_of(number, SALT_DERIVER, deriver);
	name_of(number, name);
	sha256_of(number, SALT_FILE, file);
	sha256_of(number, SALT_NAR, nar);
	print_references(number, refs, sizeof(refs));
	digest_of(number, SALT_SIG, sig_bytes, sizeof(sig_bytes));
	base64_encode(sig_bytes, sizeof(sig_bytes), sig);
	sig[BASE64_LEN(64)] = '\0';

	return (size_t) snprintf(text, TEXT_MAX + 1,
							 "StorePath: /nix/store/%s-%s\n"
							 "URL: nar/%s.nar.xz\n"
							 "Compression: xz\n"
							 "FileHash: sha256:%s\n"
							 "FileSize: %u\n"
							 "NarHash: sha256:%s\n"
							 "NarSize: %u\n"
							 "References: %s\n"
							 "Deriver: %s-%s.drv\n"
							 "Sig: cache.nixos.org-1:%s\n",
							 hash, name, file, file,
							 (unsigned) (mix(number) % 1000000 + 100),
							 nar, (unsigned) (mix(number + 5) % 5000000 + 100),
							 refs, deriver, name, sig);
}

/* ---- commands ---- */

static int
files(uint64_t first, uint64_t end, const char *dir)
{
	char		text[TEXT_MAX + 1];

	if (chdir(dir) != 0)
	{
		perror(dir);
		return 1;
	}
	for (uint64_t i = first; i < end; i++)
	{
		char		hash[STORE_HASH_TEXT_LEN + 1];
		char		name[STORE_HASH_TEXT_LEN + sizeof(".narinfo")];
		size_t		len = print_narinfo(i, text);
		int			fd;

		hash_of(i, SALT_PATH, hash);
		snprintf(name, sizeof(name), "%s.narinfo", hash);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || write(fd, text, len) != (ssize_t) len || close(fd) != 0)
		{
			perror(name);
			return 1;
		}
	}
	return 0;
}

static int
copy(uint64_t first, uint64_t end, const char *cache)
{
	char		text[TEXT_MAX + 1];

	for (uint64_t i = first; i < end; i++)
	{
		char		hash[STORE_HASH_TEXT_LEN + 1];

		hash_of(i, SALT_PATH, hash);
		print_narinfo(i, text);
		printf("%s\t%s\t", cache, hash);
		for (const char *p = text; *p != '\0'; p++)
		{
			if (*p == '\n')
				fputs("\\n", stdout);
			else
				putchar(*p);
		}
		putchar('\n');
	}
	return (fflush(stdout) == 0) ? 0 : 1;
}

static void
print_path(uint64_t number, int salt)
{
	char		hash[STORE_HASH_TEXT_LEN + 1];

	hash_of(number, salt, hash);
	printf("/%s.narinfo\n", hash);
}

/* Fisher and Yates. */
static int
paths_walk(uint64_t end)
{
	uint64_t   *order = malloc(end * sizeof(*order));

	if (order == NULL)
		return 1;
	for (uint64_t i = 0; i < end; i++)
		order[i] = i;
	for (uint64_t i = end; i > 1; i--)
	{
		uint64_t	other = random_below(i);
		uint64_t	kept = order[i - 1];

		order[i - 1] = order[other];
		order[other] = kept;
	}
	for (uint64_t i = 0; i < end; i++)
		print_path(order[i], SALT_PATH);
	free(order);
	return 0;
}

static int
paths_absent(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		print_path(i, SALT_ABSENT);
	return 0;
}

/*
 * Ranks are spread over the numbers, so that what is popular is not what lies
 * together.  A density of 1/x between 1 and end has the inverse end^u.
 */
static int
paths_zipf(uint64_t end, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
	{
		if (random_below(10) < 7)
			print_path(random_below(UINT64_MAX), SALT_ABSENT);
		else
		{
			double		rank = pow((double) end, random_fraction());

			print_path(mix((uint64_t) rank) % end, SALT_PATH);
		}
	}
	return 0;
}

static uint64_t
number(const char *text)
{
	return strtoull(text, NULL, 10);
}

int
main(int argc, char **argv)
{
	const char *what = (argc > 1) ? argv[1] : "";
	const char *which = (argc > 2) ? argv[2] : "";

	if (argc == 5 && strcmp(what, "files") == 0)
		return files(number(argv[2]), number(argv[3]), argv[4]);
	if ((argc == 4 || argc == 5) && strcmp(what, "copy") == 0)
		return copy(number(argv[2]), number(argv[3]),
					(argc == 5) ? argv[4] : "main");
	if (strcmp(what, "paths") == 0)
	{
		if (argc == 4 && strcmp(which, "walk") == 0)
			return paths_walk(number(argv[3]));
		if (argc == 4 && strcmp(which, "absent") == 0)
			return paths_absent(number(argv[3]));
		if (argc == 5 && strcmp(which, "zipf") == 0)
			return paths_zipf(number(argv[3]), number(argv[4]));
	}
	fprintf(stderr, "usage: see the head of gen.c\n");
	return 2;
}
