/*-------------------------------------------------------------------------
 *
 * date.c
 *	  Dates as HTTP writes them.  See date.h.
 *
 * strftime() and strptime() are not used: they follow the locale, and HTTP
 * does not.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "http/date.h"

static const char day_names[] = "SunMonTueWedThuFriSat";
static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* What is still to be read of a date. */
typedef struct Reader
{
	const char *at;
	const char *end;
	bool		ok;
} Reader;

static void
put_digits(char *dest, int value, int digits)
{
	while (digits-- > 0)
	{
		dest[digits] = '0' + value % 10;
		value /= 10;
	}
}

void
http_date_format(time_t when, char *dest)
{
	struct tm	tm;

	if (gmtime_r(&when, &tm) == NULL)
	{
		when = 0;
		gmtime_r(&when, &tm);
	}
	memcpy(dest, "Ddd, 00 Mmm 0000 00:00:00 GMT", HTTP_DATE_LEN + 1);
	memcpy(dest, day_names + 3 * tm.tm_wday, 3);
	put_digits(dest + 5, tm.tm_mday, 2);
	memcpy(dest + 8, month_names + 3 * tm.tm_mon, 3);
	put_digits(dest + 12, tm.tm_year + 1900, 4);
	put_digits(dest + 17, tm.tm_hour, 2);
	put_digits(dest + 20, tm.tm_min, 2);
	put_digits(dest + 23, tm.tm_sec, 2);
}

static void
expect(Reader *reader, const char *literal)
{
	size_t		len = strlen(literal);

	if ((size_t) (reader->end - reader->at) < len ||
		memcmp(reader->at, literal, len) != 0)
		reader->ok = false;
	else
		reader->at += len;
}

/* A number of exactly so many digits, no more than max. */
static int
number(Reader *reader, int digits, int max)
{
	int			value = 0;

	for (; digits > 0; digits--)
	{
		if (reader->at == reader->end ||
			*reader->at < '0' || *reader->at > '9')
		{
			reader->ok = false;
			return 0;
		}
		value = value * 10 + (*reader->at++ - '0');
	}
	if (value > max)
		reader->ok = false;
	return value;
}

static int
month(Reader *reader)
{
	if (reader->end - reader->at >= 3)
	{
		for (int i = 0; i < 12; i++)
		{
			if (memcmp(reader->at, month_names + 3 * i, 3) == 0)
			{
				reader->at += 3;
				return i;
			}
		}
	}
	reader->ok = false;
	return 0;
}

static void
clock_time(Reader *reader, struct tm *tm)
{
	tm->tm_hour = number(reader, 2, 23);
	expect(reader, ":");
	tm->tm_min = number(reader, 2, 59);
	expect(reader, ":");
	tm->tm_sec = number(reader, 2, 60);
}

/* "06 Nov 1994 08:49:37 GMT", behind "Sun, " */
static void
imf_fixdate(Reader *reader, struct tm *tm)
{
	tm->tm_mday = number(reader, 2, 31);
	expect(reader, " ");
	tm->tm_mon = month(reader);
	expect(reader, " ");
	tm->tm_year = number(reader, 4, 9999) - 1900;
	expect(reader, " ");
	clock_time(reader, tm);
	expect(reader, " GMT");
}

/*
 * "06-Nov-94 08:49:37 GMT", behind "Sunday, ".  A year that would lie more
 * than 50 years ahead is of the century before.
 */
static void
rfc850_date(Reader *reader, struct tm *tm)
{
	time_t		now = time(NULL);
	struct tm	today;

	tm->tm_mday = number(reader, 2, 31);
	expect(reader, "-");
	tm->tm_mon = month(reader);
	expect(reader, "-");
	tm->tm_year = number(reader, 2, 99) + 100;
	if (gmtime_r(&now, &today) != NULL && tm->tm_year > today.tm_year + 50)
		tm->tm_year -= 100;
	expect(reader, " ");
	clock_time(reader, tm);
	expect(reader, " GMT");
}

/* "Nov  6 08:49:37 1994", behind "Sun " */
static void
asctime_date(Reader *reader, struct tm *tm)
{
	tm->tm_mon = month(reader);
	expect(reader, " ");
	if (reader->at < reader->end && *reader->at == ' ')
	{
		reader->at++;
		tm->tm_mday = number(reader, 1, 9);
	}
	else
		tm->tm_mday = number(reader, 2, 31);
	expect(reader, " ");
	clock_time(reader, tm);
	expect(reader, " ");
	tm->tm_year = number(reader, 4, 9999) - 1900;
}

bool
http_date_parse(Span text, time_t *when)
{
	Reader		reader = {text.data, text.data + text.len, true};
	struct tm	tm = {0};
	const char *comma = text.len ? memchr(text.data, ',', text.len) : NULL;

	if (text.len < 4)
		return false;
	if (comma == NULL)
	{
		reader.at += 4;
		if (reader.at[-1] != ' ')
			return false;
		asctime_date(&reader, &tm);
	}
	else
	{
		reader.at = comma + 1;
		expect(&reader, " ");
		if (comma - text.data == 3)
			imf_fixdate(&reader, &tm);
		else
			rfc850_date(&reader, &tm);
	}

	if (!reader.ok || reader.at != reader.end || tm.tm_mday == 0)
		return false;
	*when = timegm(&tm);
	return true;
}
