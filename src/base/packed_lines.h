/*-------------------------------------------------------------------------
 *
 * packed_lines.h
 *	  What packer and unpacker share: the lines of a packed narinfo.
 *
 * What stands before the lines is drawn in packed.h.  A line is a byte that
 * names an operation, and its operands:
 *
 *	 RAW			n as varint, n bytes		the line as it is
 *	 STORE_PATH		-							from before the lines
 *	 URL_FILE		string						nar/FILEHASH.nar STRING
 *	 URL_NAR		string						nar/NARHASH.nar STRING
 *	 URL_DIGEST		32 bytes, string			nar/THESE.nar STRING
 *	 URL_GUIX		string						nar/STRING/HASH-NAME
 *	 COMPRESSION	string
 *	 FILE_HASH		-							from before the lines
 *	 FILE_HASH_NAR	-							the same as NarHash
 *	 FILE_SIZE		-							from the header
 *	 FILE_SIZE_N	varint						of a further URL
 *	 NAR_HASH		-							from the header
 *	 NAR_SIZE		-							from the header
 *	 REFERENCES		-							from before the lines
 *	 DERIVER		20 bytes, n, name			n bytes of our name, NAME.drv
 *	 SIG			string, 64 bytes			empty: cache.nixos.org-1
 *	 CA				1 byte, 32 bytes			see ca_prefixes
 *	 SIGNATURE		string, 4 strings			host; hex of the template
 *
 * A string is one byte of length and the bytes.  A name is one byte, the
 * number of characters, and six bits a character (the first in the lowest
 * bits of the first byte); or, if it has a character that six bits have no
 * room for, NAME_PLAIN and a string.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_PACKED_LINES_H
#define NARINFO_BASE_PACKED_LINES_H

#include "base/packed.h"

/* Stored: never renumber, only add. */
typedef enum Operation
{
	OP_RAW = 0,
	OP_STORE_PATH = 1,
	OP_URL_FILE = 2,
	OP_URL_NAR = 3,
	OP_URL_DIGEST = 4,
	OP_URL_GUIX = 5,
	OP_COMPRESSION = 6,
	OP_FILE_HASH = 7,
	OP_FILE_HASH_NAR = 8,
	OP_FILE_SIZE = 9,
	OP_FILE_SIZE_N = 10,
	OP_NAR_HASH = 11,
	OP_NAR_SIZE = 12,
	OP_REFERENCES = 13,
	OP_DERIVER = 14,
	OP_SIG = 15,
	OP_CA = 16,
	OP_SIGNATURE = 17
} Operation;

#define SHA256_BYTES	32
#define SHA256_DIGITS	NIX32_LEN(SHA256_BYTES)
#define SIG_BYTES		64
#define DECIMAL_MAX		20		/* digits of 2^64 - 1 */
#define STRING_MAX_LEN	255
#define NAME_PLAIN		255		/* longer than any name */


/* The 64 characters that names are mostly made of, by their six bits. */
extern const char packed_digits[65];

/* The key whose name is left out. */
extern const char packed_common_key[];

/* What stands before the digits of a CA, by its stored number. */
#define PACKED_NCA 3
extern const char *const packed_ca_prefixes[PACKED_NCA];

/*
 * What libgcrypt prints for a signature of Guix, cut at the hex strings: the
 * hash, r, s and q.
 */
#define NHEX 4
extern const char *const packed_signature[NHEX + 1];

/* Longest text of such a signature; hex strings have at most 255 bytes. */
#define SEXP_MAX 4096

/* The store directory that PACKED_DIR_NIX or PACKED_DIR_GNU means. */
extern Span packed_dir(uint8_t flags);

/* Decimal digits of the value into text; returns how many. */
extern size_t print_decimal(uint64_t value, char text[DECIMAL_MAX]);

#endif							/* NARINFO_BASE_PACKED_LINES_H */
