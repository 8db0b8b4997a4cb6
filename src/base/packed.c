/*-------------------------------------------------------------------------
 *
 * packed.c
 *	  What stands at fixed places in a packed narinfo, and the tables that
 *	  packer and unpacker share.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "base/packed_lines.h"

const char	packed_digits[65] =
"abcdefghijklmnopqrstuvwxyz0123456789-._+ABCDEFGHIKLMNOPRSTUVWXYZ";

const char	packed_common_key[] = "cache.nixos.org-1";

const char *const packed_ca_prefixes[PACKED_NCA] = {
	"fixed:r:sha256:", "fixed:sha256:", "text:sha256:"
};

const char *const packed_signature[NHEX + 1] = {
	"(signature \n (data \n  (flags rfc6979)\n  (hash sha256 #",
	"#)\n  )\n (sig-val \n  (ecdsa \n   (r #",
	"#)\n   (s #",
	"#)\n   )\n  )\n (public-key \n  (ecc \n   (curve Ed25519)\n   (q #",
	"#)\n   )\n  )\n )\n"
};

Span
packed_dir(uint8_t flags)
{
	return (flags & PACKED_DIR_MASK) == PACKED_DIR_NIX ?
		span_of("/nix/store", 10) : span_of("/gnu/store", 10);
}

size_t
print_decimal(uint64_t value, char text[DECIMAL_MAX])
{
	char		digits[DECIMAL_MAX];
	size_t		n = 0;

	do
	{
		digits[n++] = (char) ('0' + value % 10);
		value /= 10;
	} while (value > 0);
	for (size_t i = 0; i < n; i++)
		text[i] = digits[n - 1 - i];
	return n;
}

static uint64_t
get_le(const uint8_t *bytes, int n)
{
	uint64_t	value = 0;

	for (int i = n - 1; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

bool
packed_check(const uint8_t *packed, size_t len)
{
	return len >= PACKED_HEADER && packed[0] == PACKED_VERSION &&
		(packed[1] & PACKED_DIR_MASK) <= PACKED_DIR_OTHER &&
		packed_nrefs(packed) <= (len - PACKED_HEADER) / STORE_HASH_LEN;
}

size_t
packed_text_len(const uint8_t *packed)
{
	return (size_t) get_le(packed + 5, 3);
}

const uint8_t *
packed_store_hash(const uint8_t *packed)
{
	return packed + 8;
}

uint64_t
packed_nar_size(const uint8_t *packed)
{
	return get_le(packed + 28, 8);
}

uint64_t
packed_file_size(const uint8_t *packed)
{
	return get_le(packed + 36, 8);
}

uint32_t
packed_nrefs(const uint8_t *packed)
{
	return (uint32_t) get_le(packed + 2, 3);
}

const uint8_t *
packed_nar_digest(const uint8_t *packed)
{
	return packed + 44;
}
