/*-------------------------------------------------------------------------
 *
 * text.c
 *	  The error that every parser of src/base returns.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

bool
parse_error(ParseError *error, const char *format,...)
{
	va_list		args;

	error->line = 0;
	error->field[0] = '\0';
	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	return false;
}
