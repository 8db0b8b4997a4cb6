/*-------------------------------------------------------------------------
 *
 * key_file.c
 *	  Secret keys: each a file of pg_narinfo.key_directory, called like the
 *	  key, as nix and guix write them.
 *
 * A key must be the server's alone: a regular file of the server's user with
 * mode 0600 or 0400, in a directory that nobody else can write to.  It is
 * never opened through a link.  No message tells anything of what is in the
 * file, nor where the directory is; memory that held a secret is wiped.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/key.h"
#include "cache/transfer.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "types/types.h"

PG_FUNCTION_INFO_V1(is_secret_key_name);
PG_FUNCTION_INFO_V1(policy_key);
PG_FUNCTION_INFO_V1(generate_key);

#define FILE_MODE 0600

/* Bytes of a file; Nix's keys have some 100, Guix's some 250. */
#define FILE_MAX 2048

static char *key_directory;

bool
key_check_path(char **value, void **extra, GucSource source)
{
	(void) extra;
	(void) source;
	if ((*value)[0] == '\0' || is_absolute_path(*value))
		return true;
	GUC_check_errdetail("It must be an absolute path, or empty.");
	return false;
}

void
key_init(void)
{
	DefineCustomStringVariable("pg_narinfo.key_directory",
							   "Directory of the secret keys that narinfos are signed with.",
							   "Each is a file that is called like the key.",
							   &key_directory, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, key_check_path, NULL,
							   NULL);
}

/*-------------------------------------------------------------------------
 * Names and directories
 *-------------------------------------------------------------------------
 */

/*
 * A name is a file's and, Nix's, what stands before a ':'; Guix's stands
 * between two ';'.  So: no '/', no '.' at the beginning, none of these.
 */
static bool
name_is_good(const char *name, size_t len)
{
	if (len == 0 || len > SECRET_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-' ||
			  c == '+' || c == '@'))
			return false;
	}
	return true;
}

static void
check_name(const char *name)
{
	if (!name_is_good(name, strlen(name)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid key name \"%s\"", name),
				 errdetail("A key is called by 1 to %d of [A-Za-z0-9._+@-], not beginning with \".\" or \"-\".",
						   SECRET_NAME_MAX)));
}

/* is_secret_key_name(text): the constraint of cache.sign_with */
Datum
is_secret_key_name(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);

	PG_RETURN_BOOL(name_is_good(VARDATA_ANY(name),
								VARSIZE_ANY_EXHDR(name)));
}

/* The key directory, open.  No error may be raised before it is closed. */
static int
open_directory(void)
{
	struct stat status;
	int			fd;

	if (key_directory[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server has no directory of keys"),
				 errhint("Set pg_narinfo.key_directory.")));
	fd = open(key_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the directory of keys: %m"),
				 errhint("See pg_narinfo.key_directory.")));
	if (fstat(fd, &status) == 0 &&
		(status.st_uid == geteuid() || status.st_uid == 0) &&
		(status.st_mode & (S_IWGRP | S_IWOTH)) == 0)
		return fd;
	close(fd);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("the directory of keys can be written by others"),
			 errdetail("It must belong to the server's user or to root, and be writable by its owner alone."),
			 errhint("chmod 700 pg_narinfo.key_directory, as the server's user.")));
}

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

typedef enum FileFault
{
	FILE_GOOD,
	FILE_UNREADABLE,			/* errno tells why */
	FILE_NOT_REGULAR,
	FILE_OWNER,
	FILE_PERMISSIONS,
	FILE_TOO_LONG
} FileFault;

static FileFault
check_file(int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return FILE_UNREADABLE;
	if (!S_ISREG(status.st_mode))
		return FILE_NOT_REGULAR;
	if (status.st_uid != geteuid())
		return FILE_OWNER;
	if ((status.st_mode & 07777) != 0600 && (status.st_mode & 07777) != 0400)
		return FILE_PERMISSIONS;
	return FILE_GOOD;
}

/* Nothing in here raises an error. */
static FileFault
read_file(int directory, const char *name, char text[FILE_MAX], size_t *len)
{
	int			fd = openat(directory, name, O_RDONLY | O_NOFOLLOW |
							O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	FileFault	fault;
	ssize_t		n = 1;

	*len = 0;
	if (fd < 0)
		return errno == ELOOP ? FILE_NOT_REGULAR : FILE_UNREADABLE;
	fault = check_file(fd);
	while (fault == FILE_GOOD && n > 0)
	{
		n = read(fd, text + *len, FILE_MAX - *len);
		if (n > 0)
			*len += (size_t) n;
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0)
			fault = FILE_UNREADABLE;
		if (*len == FILE_MAX)
			fault = FILE_TOO_LONG;
	}
	if (fault == FILE_UNREADABLE)
	{
		int			save_errno = errno;

		close(fd);
		errno = save_errno;
	}
	else
		close(fd);
	return fault;
}

static void
report_fault(FileFault fault, const char *name)
{
	switch (fault)
	{
		case FILE_GOOD:
			return;
		case FILE_UNREADABLE:
			if (errno == ENOENT)
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_OBJECT),
						 errmsg("there is no secret key \"%s\"", name),
						 errhint("Make one with generate_key(), or put its file into pg_narinfo.key_directory.")));
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read the file of key \"%s\": %m",
							name)));
		case FILE_NOT_REGULAR:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("the file of key \"%s\" is not a regular file",
							name)));
		case FILE_OWNER:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("the file of key \"%s\" belongs to another user",
							name),
					 errhint("It must belong to the user that runs the server.")));
		case FILE_PERMISSIONS:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("the file of key \"%s\" has wrong permissions",
							name),
					 errdetail("Its mode must be 0600 or 0400."),
					 errhint("chmod 600 it, and if others could read it, make a new key.")));
		case FILE_TOO_LONG:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("the file of key \"%s\" is too long for a key",
							name)));
	}
}

static void
wipe_callback(void *arg)
{
	secret_key_wipe(arg);
}

void
secret_key_wipe(SecretKey *key)
{
	nix_secret_key_wipe(&key->nix);
	guix_secret_key_wipe(&key->guix);
}

static SecretKey *
make_secret_key(const char *name)
{
	SecretKey  *key = palloc0(sizeof(SecretKey));

	key->name = pstrdup(name);
	key->nix.name = span_of(key->name, strlen(name));
	key->callback.func = wipe_callback;
	key->callback.arg = key;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &key->callback);
	return key;
}

/* Nothing in here raises an error, for the text has to be wiped first. */
static bool
parse_secret(SecretKey *key, Span text, ParseError *error)
{
	Span		name = key->nix.name;

	while (text.len > 0 && strchr(" \t\r\n", text.data[0]))
		text = span_skip(text, 1);
	if (text.len > 0 && text.data[0] == '(')
	{
		key->kind = KEY_GUIX;
		return guix_secret_key_parse(text, &key->guix, error);
	}
	key->kind = KEY_NIX;
	if (!nix_secret_key_parse(text, &key->nix, error))
		return false;
	if (!span_equal(key->nix.name, name))
	{
		nix_secret_key_wipe(&key->nix);
		return parse_error(error, "key has another name than its file");
	}
	key->nix.name = name;
	return true;
}

SecretKey *
secret_key_load(const char *name)
{
	SecretKey  *key;
	ParseError	error;
	char		text[FILE_MAX];
	size_t		len;
	int			directory;
	FileFault	fault;
	bool		good = false;
	int			save_errno;

	check_name(name);
	key_libraries();
	key = make_secret_key(name);
	directory = open_directory();
	fault = read_file(directory, name, text, &len);
	save_errno = errno;
	if (fault == FILE_GOOD)
		good = parse_secret(key, span_of(text, len), &error);
	sodium_memzero(text, sizeof(text));
	close(directory);
	errno = save_errno;
	report_fault(fault, name);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("invalid file of key \"%s\": %s", name,
						error.message)));
	return key;
}

/*
 * policy_key(name text): what cache.sign_with may become.  Tried when it is
 * set, and not by whoever publishes first.
 */
Datum
policy_key(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);

	secret_key_wipe(secret_key_load(text_to_cstring(name)));
	PG_RETURN_TEXT_P(name);
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

/* False with errno set. */
static bool
write_bytes(int fd, const char *text, size_t len)
{
	return transfer_write(fd, text, len) &&
		fchmod(fd, FILE_MODE) == 0 && fsync(fd) == 0;
}

/*
 * Whole or not at all, and never over what is there: link() refuses that.
 * Nothing in here raises an error.  False with errno set.
 */
static bool
write_file(int directory, const char *name, const char *text, size_t len)
{
	char		temporary[SECRET_NAME_MAX + 32];
	int			save_errno;
	bool		good;
	int			fd;

	snprintf(temporary, sizeof(temporary), ".%s.%08x.tmp", name,
			 randombytes_random());
	fd = openat(directory, temporary,
				O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				FILE_MODE);
	if (fd < 0)
		return false;
	good = write_bytes(fd, text, len);
	save_errno = errno;
	if (close(fd) < 0 && good)
	{
		good = false;
		save_errno = errno;
	}
	if (good && linkat(directory, temporary, directory, name, 0) < 0)
	{
		good = false;
		save_errno = errno;
	}
	unlinkat(directory, temporary, 0);
	if (good && fsync(directory) < 0)
	{
		good = false;
		save_errno = errno;
	}
	errno = save_errno;
	return good;
}

/* Makes a key and prints its file; returns the length, 0 if it failed. */
static size_t
generate(SecretKey *key, char text[FILE_MAX])
{
	size_t		len;

	if (key->kind == KEY_GUIX)
		return guix_key_generate(&key->guix) ?
			guix_secret_key_print_file(&key->guix, text) : 0;
	nix_key_generate(&key->nix);
	len = NIX_SECRET_LEN(key->nix.name.len);
	nix_secret_key_print(&key->nix, text);
	return len;
}

/* The public half, as the client's own files have it. */
static text *
public_half(const SecretKey *key)
{
	char		text[FILE_MAX];
	size_t		len;

	if (key->kind == KEY_GUIX)
	{
		GuixPublicKey guix;

		guix_key_public(&key->guix, &guix);
		len = guix_public_key_print_file(&guix, text);
		/* the newline at the end is the file's */
		while (len > 0 && text[len - 1] == '\n')
			len--;
	}
	else
	{
		NixPublicKey nix;

		nix_key_public(&key->nix, &nix);
		nix_public_key_print(&nix, text);
		len = NIX_PUBLIC_LEN(nix.name.len);
	}
	return cstring_to_text_with_len(text, (int) len);
}

static KeyKind
kind_of(const char *label)
{
	for (int kind = KEY_NIX; kind <= KEY_GUIX; kind++)
	{
		if (strcmp(label, key_kind_names[kind]) == 0)
			return kind;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no kind of key \"%s\"", label),
			 errhint("It is nix or guix.")));
}

/* generate_key(key_name text, kind text) */
Datum
generate_key(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SecretKey  *key;
	text	   *result;
	char		file[FILE_MAX];
	size_t		len;
	int			directory;
	bool		good;
	int			save_errno;

	check_name(name);
	key_libraries();
	key = make_secret_key(name);
	key->kind = kind_of(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	directory = open_directory();
	len = generate(key, file);
	good = len > 0 && write_file(directory, name, file, len);
	save_errno = errno;
	sodium_memzero(file, sizeof(file));
	close(directory);
	errno = save_errno;
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("libgcrypt could not make a key")));
	if (!good && errno == EEXIST)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is a file of key \"%s\" already", name),
				 errdetail("A key is never overwritten.")));
	if (!good)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write the file of key \"%s\": %m", name)));
	result = public_half(key);
	secret_key_wipe(key);
	PG_RETURN_TEXT_P(result);
}
