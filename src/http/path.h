/*-------------------------------------------------------------------------
 *
 * path.h
 *	  From the target of a request to its path and query.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_HTTP_PATH_H
#define NARINFO_HTTP_PATH_H

#include "base/text.h"

/*
 * Parts the target at the '?' and takes "http://host" off an absolute-form.
 * path->data points into target, or at a constant when the target has no
 * path; query->data is NULL when there is no '?'.  False when the target is
 * neither an absolute path nor an http URL.
 */
extern bool http_target_split(Span target, Span *path, Span *query);

/*
 * Decodes %XX into dest, which has room for text.len bytes and may be
 * text.data itself, and sets *len.  False for a malformed escape and for one
 * that stands for a control byte; in dest == text.data lies rubble then.
 */
extern bool http_percent_decode(Span text, char *dest, size_t *len);

/*
 * Is this decoded path one that means what it says: beginning with '/', no
 * component "." or "..", no empty one except behind the last '/'?
 */
extern bool http_path_is_plain(Span path);

#endif							/* NARINFO_HTTP_PATH_H */
