/*-------------------------------------------------------------------------
 *
 * packed.h
 *	  The form in which a narinfo is kept: smaller than its text, with all
 *	  that a graph walk or a sum needs at fixed places, and from which the
 *	  text comes back byte for byte.
 *
 * Layout, all numbers little-endian:
 *
 *	 offset  bytes
 *	   0       1   version, 1
 *	   1       1   flags, PACKED_*
 *	   2       3   number of references, n
 *	   5       3   length of the text
 *	   8      20   store hash, most significant byte first
 *	  28       8   NarSize, bytes
 *	  36       8   FileSize, bytes, of the first URL; 0 if it is not there
 *	  44      32   digest of NarHash when it is a sha256, else zeros
 *	  76    20*n   store hashes of the references, as the text orders them
 *	 ...      32   digest of FileHash, with PACKED_FILE_HASH
 *	 ...     ...   store directory, with PACKED_DIR_OTHER
 *	 ...     ...   name of the store path
 *	 ...     ...   names of the references; an empty one is the store path's
 *	 ...     ...   the lines: one operation a line of the text, to the end
 *
 * How names and operations are written is told in packed.c.  A line that no
 * operation reproduces is kept as it is; and the packer unpacks what it made
 * and, should it differ in one byte, keeps the whole text behind the
 * references (PACKED_VERBATIM).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_PACKED_H
#define NARINFO_BASE_PACKED_H

#include "base/narinfo.h"

#define PACKED_VERSION		1
#define PACKED_HEADER		76		/* bytes before the references */

#define PACKED_DIR_MASK		0x03	/* how the store directory is kept: */
#define PACKED_DIR_NIX		0x00	/*   /nix/store */
#define PACKED_DIR_GNU		0x01	/*   /gnu/store */
#define PACKED_DIR_OTHER	0x02	/*   behind the references */
#define PACKED_GUIX			0x04	/* of Guix's kind */
#define PACKED_VERBATIM		0x08	/* the lines are the text itself */
#define PACKED_NAR_SHA256	0x10	/* NarHash is a sha256 */
#define PACKED_FILE_HASH	0x20	/* FileHash stands behind the references */
#define PACKED_FILE_SIZE	0x40	/* FileSize is there */

/* Bytes to allocate before packing a text of len bytes. */
#define PACKED_BOUND(len) (PACKED_HEADER + 32 + 2 * (size_t) (len))

/*
 * Packs a parsed text.  "scratch" has room for len bytes and is used to prove
 * that the text comes back.  Returns the number of bytes written to packed.
 */
extern size_t packed_from_text(const char *text, size_t len,
							   const Narinfo *info, char *scratch,
							   uint8_t *packed);

/*
 * Is this a packed narinfo of a version we know, whole as far as its header
 * and its references go?  The accessors below want a value that was checked.
 */
extern bool packed_check(const uint8_t *packed, size_t len);

extern size_t packed_text_len(const uint8_t *packed);

/*
 * Writes the text, packed_text_len() bytes, and returns true; or false, with
 * the output undefined, if the value is damaged.  Reads and writes nothing
 * out of bounds whatever the bytes are.
 */
extern bool packed_to_text(const uint8_t *packed, size_t len, char *text);

extern const uint8_t *packed_store_hash(const uint8_t *packed);

/* With PACKED_NAR_SHA256, the 32 bytes of NarHash. */
extern const uint8_t *packed_nar_digest(const uint8_t *packed);
extern uint64_t packed_nar_size(const uint8_t *packed);
extern uint64_t packed_file_size(const uint8_t *packed);
extern uint32_t packed_nrefs(const uint8_t *packed);

/* The i-th reference's store hash, i < packed_nrefs(). */
static inline const uint8_t *
packed_ref(const uint8_t *packed, uint32_t i)
{
	return packed + PACKED_HEADER + (size_t) i * STORE_HASH_LEN;
}

/*
 * The store path and the references with their names: open, then next as
 * often as it returns true.  The names live in this struct or in the packed
 * value; a reference's until the next one is asked for.  Nothing is parsed,
 * unless the value is kept verbatim.
 */
typedef struct PackedRefs
{
	const uint8_t *packed;
	const uint8_t *next;		/* next name; NULL: "text" instead */
	const uint8_t *end;
	uint32_t	index;			/* of the next reference */
	Span		text;
	StorePath	path;
	char		own_name[STORE_NAME_MAX];
	char		name[STORE_NAME_MAX];
} PackedRefs;

/* False if the value is damaged. */
extern bool packed_open(const uint8_t *packed, size_t len, PackedRefs *refs,
						StorePath *path);

/* False at the end: damaged if there were less than packed_nrefs(). */
extern bool packed_next_ref(PackedRefs *refs, StorePath *ref);

#endif							/* NARINFO_BASE_PACKED_H */
