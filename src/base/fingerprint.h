/*-------------------------------------------------------------------------
 *
 * fingerprint.h
 *	  What Nix signs of a narinfo: 1;STOREPATH;NARHASH;NARSIZE;REF,REF...
 *
 * All paths are whole, the hash is ALGO:nix32, and the references are those
 * of a std::set: sorted by their bytes, each once.  Nothing else of the text
 * counts.  Source: nix, ValidPathInfo::fingerprint in
 * src/libstore/path-info.cc (2.8: store-api.cc).
 *
 * An old signature of cache.nixos.org (gcc-3.4.6 among the real narinfos of
 * the tests) is of the references in the order in which the narinfo has them,
 * where that is another one.  The key has signed the same then, though nix,
 * which sorts, cannot see it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_BASE_FINGERPRINT_H
#define NARINFO_BASE_FINGERPRINT_H

#include "base/narinfo.h"

/* Bytes to allocate before printing the fingerprint of a parsed narinfo. */
extern size_t fingerprint_bound(const Narinfo *info);

/*
 * Prints it without a NUL and returns its length; 0 if it has none, because
 * NarSize is 0.  "refs" is scratch for info->nrefs store paths.
 */
extern size_t fingerprint_print(const Narinfo *info, StorePath *refs,
								char *text);

/*
 * The same with the references as they are written; 0 if that is no other.
 */
extern size_t fingerprint_print_written(const Narinfo *info, char *text);

#endif							/* NARINFO_BASE_FINGERPRINT_H */
