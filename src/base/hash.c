/*-------------------------------------------------------------------------
 *
 * hash.c
 *	  Digests with their algorithm, as NarHash, FileHash and CA have them.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/hash.h"

static const struct
{
	const char *name;
	size_t		bytes;
}			algos[] = {
	[HASH_MD5] = {"md5", 16},
	[HASH_SHA1] = {"sha1", 20},
	[HASH_SHA256] = {"sha256", 32},
	[HASH_SHA512] = {"sha512", 64},
};

size_t
hash_algo_bytes(int algo)
{
	return algo >= HASH_MD5 && algo <= HASH_SHA512 ? algos[algo].bytes : 0;
}

const char *
hash_algo_name(int algo)
{
	return hash_algo_bytes(algo) > 0 ? algos[algo].name : NULL;
}

bool
hash_digits_parse(Span text, HashAlgo algo, Digest *hash, ParseError *error)
{
	size_t		n = hash_algo_bytes(algo);
	bool		good;

	hash->algo = algo;
	if (text.len == BASE16_LEN(n))
		good = base16_decode(text.data, hash->bytes, n);
	else if (text.len == NIX32_LEN(n))
		good = nix32_decode(text.data, hash->bytes, n);
	else if (text.len == BASE64_LEN(n))
		good = base64_decode(text, hash->bytes, n);
	else
		return parse_error(error, "%s hash has %zu digits", algos[algo].name,
						   text.len);
	if (!good)
		return parse_error(error, "%s hash has a wrong digit",
						   algos[algo].name);
	return true;
}

bool
hash_parse(Span text, Digest *hash, ParseError *error)
{
	for (int algo = HASH_MD5; algo <= HASH_SHA512; algo++)
	{
		size_t		len = strlen(algos[algo].name);
		Span		digits;

		if (!span_starts(text, algos[algo].name) || text.len == len)
			continue;
		digits = span_skip(text, len + 1);
		if (text.data[len] == ':')
			return hash_digits_parse(digits, algo, hash, error);
		if (text.data[len] == '-')
		{
			hash->algo = algo;
			if (base64_decode(digits, hash->bytes, algos[algo].bytes))
				return true;
			return parse_error(error, "%s hash is not %zu bytes in base 64",
							   algos[algo].name, algos[algo].bytes);
		}
	}
	return parse_error(error,
					   "hash does not begin with md5:, sha1:, sha256: or sha512:");
}

size_t
hash_print(const Digest *hash, char *text)
{
	const char *name = algos[hash->algo].name;
	size_t		len = strlen(name);

	memcpy(text, name, len);
	text[len++] = ':';
	nix32_encode(hash->bytes, algos[hash->algo].bytes, text + len);
	return len + NIX32_LEN(algos[hash->algo].bytes);
}
