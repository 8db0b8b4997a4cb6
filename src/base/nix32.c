/*-------------------------------------------------------------------------
 *
 * nix32.c
 *	  Nix's base 32, base 16 and base 64, between bytes and text.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/nix32.h"

static const char nix32_digits[] = "0123456789abcdfghijklmnpqrsvwxyz";

/* Two digits for each ten bits. */
#define PAIRS(d) \
	d "0" d "1" d "2" d "3" d "4" d "5" d "6" d "7" \
	d "8" d "9" d "a" d "b" d "c" d "d" d "f" d "g" \
	d "h" d "i" d "j" d "k" d "l" d "m" d "n" d "p" \
	d "q" d "r" d "s" d "v" d "w" d "x" d "y" d "z"

static const char nix32_pairs[] =
PAIRS("0") PAIRS("1") PAIRS("2") PAIRS("3") PAIRS("4") PAIRS("5") PAIRS("6")
PAIRS("7") PAIRS("8") PAIRS("9") PAIRS("a") PAIRS("b") PAIRS("c") PAIRS("d")
PAIRS("f") PAIRS("g") PAIRS("h") PAIRS("i") PAIRS("j") PAIRS("k") PAIRS("l")
PAIRS("m") PAIRS("n") PAIRS("p") PAIRS("q") PAIRS("r") PAIRS("s") PAIRS("v")
PAIRS("w") PAIRS("x") PAIRS("y") PAIRS("z");

static const char base16_digits[] = "0123456789abcdef";
static const char base64_digits[] =
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define NOT_A_DIGIT 0xFF

/*
 * The value of a digit in each notation, plus one so that what is not named
 * is 0; base 16 takes both cases.
 */
static const uint8_t nix32_values[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6,
	['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12,
	['c'] = 13, ['d'] = 14, ['f'] = 15, ['g'] = 16, ['h'] = 17, ['i'] = 18,
	['j'] = 19, ['k'] = 20, ['l'] = 21, ['m'] = 22, ['n'] = 23, ['p'] = 24,
	['q'] = 25, ['r'] = 26, ['s'] = 27, ['v'] = 28, ['w'] = 29, ['x'] = 30,
	['y'] = 31, ['z'] = 32
};

static inline uint8_t
nix32_value(char c)
{
	return (uint8_t) (nix32_values[(uint8_t) c] - 1);
}

static inline uint8_t
base16_value(char c)
{
	if (c >= '0' && c <= '9')
		return (uint8_t) (c - '0');
	if (c >= 'a' && c <= 'f')
		return (uint8_t) (c - 'a' + 10);
	if (c >= 'A' && c <= 'F')
		return (uint8_t) (c - 'A' + 10);
	return NOT_A_DIGIT;
}

static inline uint8_t
base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (uint8_t) (c - 'A');
	if (c >= 'a' && c <= 'z')
		return (uint8_t) (c - 'a' + 26);
	if (c >= '0' && c <= '9')
		return (uint8_t) (c - '0' + 52);
	if (c == '+')
		return 62;
	if (c == '/')
		return 63;
	return NOT_A_DIGIT;
}

/* The eight digits of forty bits, the most significant first. */
static inline void
write_group(uint64_t group, char *text)
{
	for (int shift = 30; shift >= 0; shift -= 10, text += 2)
		memcpy(text, nix32_pairs + 2 * (group >> shift & 0x3FF), 2);
}

/*
 * The last byte is the most significant, so the last digit written holds the
 * lowest five bits of the first byte: fill the text from its end.
 */
void
nix32_encode(const uint8_t *bytes, size_t n, char *text)
{
	char	   *next = text + NIX32_LEN(n);
	uint32_t	bits = 0;
	int			nbits = 0;

	/* five bytes are eight digits */
	for (; n >= 5; n -= 5, bytes += 5)
	{
		uint64_t	group = (uint64_t) bytes[4] << 32 |
			(uint64_t) bytes[3] << 24 | (uint64_t) bytes[2] << 16 |
			(uint64_t) bytes[1] << 8 | (uint64_t) bytes[0];

		next -= 8;
		write_group(group, next);
	}
	for (size_t i = 0; i < n; i++)
	{
		bits |= (uint32_t) bytes[i] << nbits;
		nbits += 8;
		while (nbits >= 5)
		{
			*--next = nix32_digits[bits & 0x1F];
			bits >>= 5;
			nbits -= 5;
		}
	}
	if (nbits > 0)
		*--next = nix32_digits[bits & 0x1F];
}

bool
nix32_decode(const char *text, uint8_t *bytes, size_t n)
{
	const char *next = text + NIX32_LEN(n);
	uint32_t	bits = 0;
	int			nbits = 0;
	size_t		i = 0;

	while (next > text)
	{
		uint8_t		value = nix32_value(*--next);

		if (value == NOT_A_DIGIT)
			return false;
		bits |= (uint32_t) value << nbits;
		nbits += 5;
		if (nbits >= 8 && i < n)
		{
			bytes[i++] = (uint8_t) bits;
			bits >>= 8;
			nbits -= 8;
		}
	}
	/* what is left over of the first digit must be zero */
	return bits == 0;
}

void
base16_encode(const uint8_t *bytes, size_t n, char *text)
{
	for (size_t i = 0; i < n; i++)
	{
		*text++ = base16_digits[bytes[i] >> 4];
		*text++ = base16_digits[bytes[i] & 0x0F];
	}
}

bool
base16_decode(const char *text, uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		uint8_t		high = base16_value(*text++);
		uint8_t		low = base16_value(*text++);

		if (high == NOT_A_DIGIT || low == NOT_A_DIGIT)
			return false;
		bytes[i] = (uint8_t) (high << 4 | low);
	}
	return true;
}

void
base64_encode(const uint8_t *bytes, size_t n, char *text)
{
	for (; n >= 3; bytes += 3, n -= 3)
	{
		*text++ = base64_digits[bytes[0] >> 2];
		*text++ = base64_digits[(bytes[0] & 0x03) << 4 | bytes[1] >> 4];
		*text++ = base64_digits[(bytes[1] & 0x0F) << 2 | bytes[2] >> 6];
		*text++ = base64_digits[bytes[2] & 0x3F];
	}
	if (n > 0)
	{
		uint8_t		second = n == 2 ? bytes[1] : 0;

		*text++ = base64_digits[bytes[0] >> 2];
		*text++ = base64_digits[(bytes[0] & 0x03) << 4 | second >> 4];
		*text++ = n == 2 ? base64_digits[(second & 0x0F) << 2] : '=';
		*text++ = '=';
	}
}

long
base64_decode_any(Span text, uint8_t *bytes)
{
	const char *next = text.data;
	const char *end = text.data + text.len;
	uint8_t    *out = bytes;
	uint32_t	bits = 0;
	int			nbits = 0;

	/* at most two '=' at the end, and only where they fill up a group */
	for (int i = 0; i < 2 && end > next && end[-1] == '='; i++)
		end--;
	if (end != text.data + text.len && text.len % 4 != 0)
		return -1;
	if ((end - next) % 4 == 1)
		return -1;

	while (next < end)
	{
		uint8_t		value = base64_value(*next++);

		if (value == NOT_A_DIGIT)
			return -1;
		bits = bits << 6 | value;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			*out++ = (uint8_t) (bits >> nbits);
		}
	}
	return out - bytes;
}

bool
base64_decode(Span text, uint8_t *bytes, size_t n)
{
	/* digits without '=' that n bytes take */
	size_t		digits = (n * 8 + 5) / 6;

	if (text.len != digits && text.len != BASE64_LEN(n))
		return false;
	/* a longer run of digits than n bytes take must not be written */
	if (text.len > digits && text.data[digits] != '=')
		return false;
	return base64_decode_any(text, bytes) == (long) n;
}

void
store_hash_encode(const uint8_t hash[STORE_HASH_LEN],
				  char text[STORE_HASH_TEXT_LEN])
{
	for (int i = 0; i < STORE_HASH_LEN; i += 5, text += 8)
	{
		uint64_t	group = (uint64_t) hash[i] << 32 |
			(uint64_t) hash[i + 1] << 24 | (uint64_t) hash[i + 2] << 16 |
			(uint64_t) hash[i + 3] << 8 | (uint64_t) hash[i + 4];

		write_group(group, text);
	}
}

bool
store_hash_decode(const char *text, uint8_t hash[STORE_HASH_LEN])
{
	for (int i = 0; i < STORE_HASH_LEN; i += 5)
	{
		uint64_t	group = 0;

		for (int j = 0; j < 8; j++)
		{
			uint8_t		value = nix32_value(*text++);

			if (value == NOT_A_DIGIT)
				return false;
			group = group << 5 | value;
		}
		hash[i] = (uint8_t) (group >> 32);
		hash[i + 1] = (uint8_t) (group >> 24);
		hash[i + 2] = (uint8_t) (group >> 16);
		hash[i + 3] = (uint8_t) (group >> 8);
		hash[i + 4] = (uint8_t) group;
	}
	return true;
}
