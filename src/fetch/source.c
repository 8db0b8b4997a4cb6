/*-------------------------------------------------------------------------
 *
 * source.c
 *	  Where files are asked for that are missing here: narinfo.file_source,
 *	  and the tokens that sources want to see.
 *
 * Tokens are neither in a table nor in a log: pg_narinfo.source_tokens names
 * a file, the server's alone, with lines of "URL TOKEN".  A token is shown to
 * nobody but that very URL, whatever the table says.
 *
 * The table is read each time: it has few rows, and is asked only for files
 * that are missing.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/key.h"
#include "fetch/fetch.h"

#define COLUMN_CACHE	1
#define COLUMN_URL		2
#define COLUMN_POSITION 3

#define TOKENS_FILE_MAX (64 * 1024)
#define TOKEN_MAX		1000

/* The same trouble with the file of tokens is logged that often, in ms. */
#define TROUBLE_PAUSE	60000

int			fetch_patience = 30 * 1000;
int			fetch_max = 16;

static char *tokens_file = NULL;

void
fetch_init(void)
{
	DefineCustomIntVariable("pg_narinfo.fetch_timeout",
							"Time in which 16 kB of a file that is fetched "
							"must come.",
							"Then the next source is asked.",
							&fetch_patience, 30 * 1000, 100, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_fetches",
							"Files that this server fetches at a time.",
							"Requests for further ones wait.",
							&fetch_max, 16, 1, CLAIMS_MAX / 2,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.source_tokens",
							   "File of the tokens that sources of files "
							   "want to see.",
							   "Each line is a URL, a blank, and a token.",
							   &tokens_file, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, key_check_path, NULL,
							   NULL);
}

uint64
fetch_site_number(void)
{
	return GetSystemIdentifier();
}

/* ---- tokens ---- */

static void
log_trouble(const char *trouble)
{
	static TimestampTz last = 0;
	static const char *last_trouble = NULL;
	TimestampTz now = GetCurrentTimestamp();

	if (trouble == last_trouble &&
		!TimestampDifferenceExceeds(last, now, TROUBLE_PAUSE))
		return;
	last = now;
	last_trouble = trouble;
	ereport(LOG,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("pg_narinfo does not read the file of pg_narinfo.source_tokens: %s",
					trouble),
			 errhint("It must be a regular file of the server's user, with mode 0600 or 0400.")));
}

/* NULL if it is the server's alone. */
static const char *
file_trouble(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return "it cannot be looked at";
	if (!S_ISREG(st.st_mode))
		return "it is no regular file";
	if (st.st_uid != geteuid())
		return "it belongs to somebody else";
	if ((st.st_mode & 07777) != 0600 && (st.st_mode & 07777) != 0400)
		return "others may read or write it";
	return st.st_size > TOKENS_FILE_MAX ? "it is too long" : NULL;
}

/* Its text, palloc'd; NULL if there is none. */
static char *
read_tokens(void)
{
	const char *trouble;
	char	   *text;
	ssize_t		len = 0;
	ssize_t		n = 1;
	int			fd;

	if (tokens_file[0] == '\0')
		return NULL;
	text = palloc(TOKENS_FILE_MAX + 1);
	fd = open(tokens_file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY |
			  O_CLOEXEC);
	trouble = fd < 0 ? "it cannot be opened" : file_trouble(fd);
	while (trouble == NULL && n > 0 && len < TOKENS_FILE_MAX)
	{
		n = read(fd, text + len, (size_t) (TOKENS_FILE_MAX - len));
		len += Max(n, 0);
	}
	if (fd >= 0)
		close(fd);
	if (trouble != NULL)
	{
		log_trouble(trouble);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

/* Palloc'd; NULL if there is none for this URL. */
static char *
find_token(const char *tokens, const char *url)
{
	size_t		url_len = strlen(url);

	while (tokens != NULL && *tokens != '\0')
	{
		size_t		len = strcspn(tokens, "\n");
		const char *token = tokens + url_len + 1;

		if (len > url_len + 1 && tokens[url_len] == ' ' &&
			memcmp(tokens, url, url_len) == 0)
		{
			size_t		token_len = strcspn(token, " \t\r\n");

			return token_len > 0 && token_len <= TOKEN_MAX ?
				pnstrdup(token, token_len) : NULL;
		}
		tokens += len;
		tokens += *tokens == '\n' ? 1 : 0;
	}
	return NULL;
}

/* ---- the table ---- */

typedef struct SourceRow
{
	char	   *url;
	bool		of_all;			/* caches, each in a directory of its own */
	int32		position;
} SourceRow;

/* That of the cache itself first, where positions are equal. */
static int
compare_rows(const ListCell *a, const ListCell *b)
{
	const SourceRow *row_a = lfirst(a);
	const SourceRow *row_b = lfirst(b);

	if (row_a->position != row_b->position)
		return row_a->position < row_b->position ? -1 : 1;
	if (row_a->of_all != row_b->of_all)
		return row_a->of_all ? 1 : -1;
	return strcmp(row_a->url, row_b->url);
}

static List *
read_rows(Relation table, const char *cache)
{
	TupleTableSlot *slot = table_slot_create(table, NULL);
	TableScanDesc scan = table_beginscan(table, GetActiveSnapshot(), 0, NULL);
	List	   *rows = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		SourceRow  *row = palloc(sizeof(SourceRow));
		bool		isnull;
		Datum		datum = slot_getattr(slot, COLUMN_CACHE, &row->of_all);

		if (!row->of_all && strcmp(TextDatumGetCString(datum), cache) != 0)
			continue;
		row->url = TextDatumGetCString(slot_getattr(slot, COLUMN_URL,
													&isnull));
		row->position = DatumGetInt32(slot_getattr(slot, COLUMN_POSITION,
												   &isnull));
		rows = lappend(rows, row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	list_sort(rows, compare_rows);
	return rows;
}

static FetchSource *
make_source(const SourceRow *row, const char *cache, const char *tokens)
{
	FetchSource *source = palloc(sizeof(FetchSource));
	size_t		len = strlen(row->url);
	char	   *token;

	while (len > 0 && row->url[len - 1] == '/')
		len--;
	source->base = pnstrdup(row->url, len);
	token = find_token(tokens, row->url);
	if (token == NULL)
		token = find_token(tokens, source->base);
	if (row->of_all && strcmp(cache, CACHE_MAIN) != 0)
	{
		source->base = psprintf("%s/%s", source->base, cache);
		token = find_token(tokens, source->base);
	}
	source->token = token;
	return source;
}

List *
fetch_sources(const CacheInfo *cache)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			oid = InvalidOid;
	List	   *sources = NIL;
	List	   *rows;
	ListCell   *cell;
	Relation	table;
	char	   *tokens;

	if (catalog != NULL)
		oid = get_relname_relid("file_source",
								get_rel_namespace(catalog->valid_path_rel));
	if (!OidIsValid(oid))
		return NIL;
	table = table_open(oid, AccessShareLock);
	rows = read_rows(table, cache->name);
	table_close(table, AccessShareLock);
	if (rows == NIL)
		return NIL;
	tokens = read_tokens();
	foreach(cell, rows)
	{
		FetchSource *source = make_source(lfirst(cell), cache->name, tokens);

		if (!cache->is_private || source->token != NULL)
			sources = lappend(sources, source);
	}
	return sources;
}

List *
fetch_add_site(List *sources, const char *url, const CacheInfo *cache)
{
	SourceRow	row = {0};
	size_t		len = strlen(url);
	char	   *tokens = read_tokens();
	FetchSource *source;

	while (len > 0 && url[len - 1] == '/')
		len--;
	row.url = psprintf("%.*s/%s", (int) len, url, cache->name);
	source = make_source(&row, cache->name, tokens);
	if (source->token == NULL && strcmp(cache->name, CACHE_MAIN) == 0)
		source->token = find_token(tokens, url);
	if (cache->is_private && source->token == NULL)
		return sources;
	return lappend(sources, source);
}
