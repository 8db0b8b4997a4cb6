/*-------------------------------------------------------------------------
 *
 * signature_test.c
 *	  Unit tests of the signatures of Nix and Guix, and of sealed texts, as
 *	  TAP.  Arguments: directories of narinfos; test/nix-cache.pub, a
 *	  directory's ../signing-key.pub and its INDEX.tsv tell what must verify.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <gcrypt.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fingerprint.h"
#include "base/guix_signature.h"
#include "base/nix_signature.h"
#include "base/seal.h"

#define NIXOS_KEY "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

/* How many bytes of a long text are changed, one at a time. */
#define MAX_FLIPS 1000

static int	ntests;
static int	nfailed;

static void
ok(bool good, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++ntests);
	nfailed += !good;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static Span
str(const char *text)
{
	return span_of(text, strlen(text));
}

static void *
allocate(size_t n)
{
	void	   *memory = malloc(n > 0 ? n : 1);

	if (memory == NULL)
		abort();
	return memory;
}

/* A whole file, data NULL if it cannot be read. */
static Span
slurp(const char *path)
{
	FILE	   *in = fopen(path, "rb");
	char	   *text = NULL;
	size_t		len = 0;

	if (in == NULL)
		return span_of(NULL, 0);
	for (size_t n = 1; n > 0; len += n)
	{
		text = realloc(text, len + 65536);
		if (text == NULL)
			abort();
		n = fread(text + len, 1, 65536, in);
	}
	fclose(in);
	return span_of(text, len);
}

/*-------------------------------------------------------------------------
 * Checking whole texts
 *-------------------------------------------------------------------------
 */

/* "written": with the references in that order; len 0 if it is no other. */
static Span
make_fingerprint(const Narinfo *info, bool written)
{
	char	   *text = allocate(fingerprint_bound(info));
	StorePath  *refs = allocate(sizeof(StorePath) * info->nrefs);
	size_t		len = written ? fingerprint_print_written(info, text) :
		fingerprint_print(info, refs, text);

	free(refs);
	return span_of(text, len);
}

/* Has it a signature of this key, and is that one good? */
static bool
nix_valid(Span text, const NixPublicKey *key)
{
	Narinfo		info;
	ParseError	error;
	Span		rest = text;
	Span		value;
	Span		fingerprint;
	Span		written;
	bool		valid = false;

	if (!narinfo_parse(text.data, text.len, &info, &error))
		return false;
	fingerprint = make_fingerprint(&info, false);
	written = make_fingerprint(&info, true);
	while (!valid && nix_next_sig(&rest, &value))
	{
		uint8_t		sig[NIX_SIG_BYTES];
		Span		name;

		nix_sig_parse(value, &name, sig);
		valid = span_equal(name, key->name) &&
			(nix_sig_verify(key, sig, fingerprint) ||
			 (written.len > 0 && nix_sig_verify(key, sig, written)));
	}
	free((char *) written.data);
	free((char *) fingerprint.data);
	return valid;
}

/* NULL as the key: the one in the signature. */
static bool
guix_valid(Span text, const GuixPublicKey *key)
{
	Narinfo		info;
	ParseError	error;
	GuixSignature signature;
	uint8_t		digest[GUIX_DIGEST_BYTES];
	Span		part;

	if (!narinfo_parse(text.data, text.len, &info, &error) ||
		info.signature.data == NULL ||
		!guix_signature_parse(info.signature, &signature) ||
		!guix_signed_part(text, &part))
		return false;
	guix_digest(part, digest);
	return guix_signature_verify(key ? key : &signature.key, &signature,
								 digest);
}

static bool
is_nix_signed(Span name)
{
	return span_is(name, "StorePath") || span_is(name, "NarHash") ||
		span_is(name, "NarSize") || span_is(name, "References");
}

/* What neither signs, and may be anything. */
static bool
is_free(Span name)
{
	return span_is(name, "URL") || span_is(name, "Deriver");
}

/*
 * Changes bytes of the text, one at a time, from one offset to another: how
 * many changes left the signature good.
 */
static int
flip_bytes(Span text, size_t from, size_t to, const NixPublicKey *nix,
		   const GuixPublicKey *guix, int *changes)
{
	char	   *copy = allocate(text.len);
	size_t		stride = (to - from) / MAX_FLIPS + 1;
	int			survived = 0;

	memcpy(copy, text.data, text.len);
	for (size_t i = from; i < to; i += stride)
	{
		Span		changed = span_of(copy, text.len);

		copy[i] ^= 1;
		survived += nix ? nix_valid(changed, nix) : guix_valid(changed, guix);
		copy[i] ^= 1;
		(*changes)++;
	}
	free(copy);
	return survived;
}

/* The same for every value of a field that "chosen" names. */
static int
flip_values(Span text, bool (*chosen) (Span name), const NixPublicKey *key,
			int *changes)
{
	Span		rest = text;
	Span		name;
	Span		value;
	int			survived = 0;

	while (narinfo_next_field(&rest, &name, &value))
	{
		size_t		from = (size_t) (value.data - text.data);

		if (chosen(name))
			survived += flip_bytes(text, from, from + value.len, key, NULL,
								   changes);
	}
	return survived;
}

/*
 * A changed last character of a URL or a Deriver keeps the narinfo readable:
 * how many of these changes left the signature good, of those from an offset
 * on, and of all.
 */
static int
change_free(Span text, const NixPublicKey *key, size_t from, int *changes,
			int *above)
{
	char	   *copy = allocate(text.len);
	Span		rest = text;
	Span		name;
	Span		value;
	int			survived = 0;

	memcpy(copy, text.data, text.len);
	while (narinfo_next_field(&rest, &name, &value))
	{
		size_t		last = (size_t) (value.data - text.data) + value.len - 1;
		char		old = copy[last];
		bool		good;

		if (!is_free(name) || value.len == 0 ||
			span_is(value, "unknown-deriver"))
			continue;
		copy[last] = old == 'z' ? 'y' : 'z';
		good = key ? nix_valid(span_of(copy, text.len), key) :
			guix_valid(span_of(copy, text.len), NULL);
		copy[last] = old;
		if (last < from)
			*above += good;
		else
		{
			survived += good;
			(*changes)++;
		}
	}
	free(copy);
	return survived;
}

/*-------------------------------------------------------------------------
 * Directories
 *-------------------------------------------------------------------------
 */

/* "verified" narinfos of INDEX.tsv name their key, or are Guix's. */
static bool
index_says_valid(Span index, const char *file, const char **key)
{
	const char *line = index.data ?
		memmem(index.data, index.len, file, strlen(file)) : NULL;
	const char *end;

	if (line == NULL)
		return false;
	end = memchr(line, '\n', (size_t) (index.data + index.len - line));
	*key = memmem(line, (size_t) (end - line), "cache.nixos.org-1=VALID",
				  23) ? NIXOS_KEY : NULL;
	return memmem(line, (size_t) (end - line), "\tverified\t", 10) != NULL;
}

static bool
nixos_valid(Span text)
{
	NixPublicKey key;
	ParseError	error;

	return nix_public_key_parse(str(NIXOS_KEY), &key, &error) &&
		nix_valid(text, &key);
}

static void
test_nix_file(const char *path, Span text, const char *key_text)
{
	NixPublicKey key;
	ParseError	error;
	int			changes = 0;
	int			above = 0;
	int			survived;

	if (!nix_public_key_parse(str(key_text), &key, &error) ||
		!nix_valid(text, &key))
	{
		ok(false, "%s verifies", path);
		return;
	}
	survived = flip_values(text, is_nix_signed, &key, &changes);
	ok(survived == 0 && changes > 0,
	   "%s verifies, and no more with any of %d changes", path, changes);
	changes = 0;
	survived = change_free(text, &key, 0, &changes, &above);
	ok(survived == changes && changes > 0,
	   "%s: %d changes of what is not signed do no harm", path, changes);
}

static void
test_guix_file(const char *path, Span text, const GuixPublicKey *key)
{
	const char *signature = memmem(text.data, text.len, "Signature:", 10);
	size_t		end = signature ? (size_t) (signature - text.data) : 0;
	int			changes = 0;
	int			above = 0;
	int			survived;

	if (!guix_valid(text, key))
	{
		ok(false, "%s verifies", path);
		return;
	}
	survived = flip_bytes(text, 0, end, NULL, key, &changes);
	ok(survived == 0 && changes > 0,
	   "%s verifies, and no more with any of %d changes", path, changes);
	changes = 0;
	survived = change_free(text, NULL, end, &changes, &above);
	ok(survived == changes && above == 0,
	   "%s: %d changes below the signature do no harm", path, changes);
}

static void
test_file(const char *path, const char *name, Span index,
		  const GuixPublicKey *guix, const char *nix)
{
	Span		text = slurp(path);
	Narinfo		info;
	ParseError	error;
	const char *key = NULL;

	if (!narinfo_parse(text.data, text.len, &info, &error))
		ok(false, "%s is a narinfo: %s", path, error.message);
	else if (index.data != NULL)
	{
		if (!index_says_valid(index, name, &key))
			ok(info.kind == NARINFO_GUIX ? !guix_valid(text, NULL) :
			   !nixos_valid(text),
			   "%s is not said to be valid, and is not", path);
		else if (info.kind == NARINFO_GUIX)
			test_guix_file(path, text, NULL);
		else
			test_nix_file(path, text, key);
	}
	else if (info.kind == NARINFO_NIX)
		test_nix_file(path, text, nix);
	else
	{
		/* one came from elsewhere, signed with another key */
		bool		ours = guix && guix_valid(text, guix);

		ok(ours || guix_valid(text, NULL), "%s is signed by %s", path,
		   ours ? "signing-key.pub" : "another key");
		test_guix_file(path, text, ours ? guix : NULL);
	}
	free((char *) text.data);
}

static void
test_directory(const char *directory, const char *nix)
{
	DIR		   *dir = opendir(directory);
	struct dirent *entry;
	char		path[1024];
	Span		index;
	Span		key_text;
	GuixPublicKey guix;
	ParseError	error;
	bool		has_guix;

	snprintf(path, sizeof(path), "%s/INDEX.tsv", directory);
	index = slurp(path);
	snprintf(path, sizeof(path), "%s/../signing-key.pub", directory);
	key_text = slurp(path);
	has_guix = key_text.data != NULL &&
		guix_public_key_parse(key_text, &guix, &error);
	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		size_t		len = strlen(entry->d_name);

		if (len < 8 || strcmp(entry->d_name + len - 8, ".narinfo") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		test_file(path, entry->d_name, index, has_guix ? &guix : NULL, nix);
	}
	ok(dir != NULL, "%s can be read", directory);
	if (dir != NULL)
		closedir(dir);
	free((char *) index.data);
	free((char *) key_text.data);
}

/*-------------------------------------------------------------------------
 * Keys
 *-------------------------------------------------------------------------
 */

static const char *const bad_nix_keys[] = {
	"", ":", "name", "name:", ":6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
	"name:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShj==",
	"name:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjYA",
	"na me:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
	"name:6NCHdD59X431o0gWypbMrAURkbJ16ZPM*FGspcDShjY=",
	"name:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY= x",
};

#define Q "#AC55331C81B52EA13301BE4D8C844263A901297B509383AA6299B80F9122A437#"

static const char *const good_guix_keys[] = {
	"(public-key (ecc (curve Ed25519) (q " Q ")))",
	"(public-key \n (ecc \n  (curve Ed25519)\n  (q " Q ")\n  )\n )\n",
	"(\"public-key\"(ecc(curve \"Ed25519\")(q "
	"|rFUzHIG1LqEzAb5NjIRCY6kBKXtQk4OqYpm4D5EipDc=|)))",
};

static const char *const bad_guix_keys[] = {
	"", "(", "()", "(public-key)", "(public-key (ecc (curve Ed25519)))",
	"(public-key (ecc (curve Ed448) (q " Q ")))",
	"(public-key (ecc (curve Ed25519) (q #00#)))",
	"(public-key (ecc (curve Ed25519) (flags eddsa) (q " Q ")))",
	"(public-key (ecc (curve Ed25519) (q " Q ") (d #00#)))",
	"(private-key (ecc (curve Ed25519) (q " Q ")))",
	"(public-key (rsa (n " Q ") (e #010001#)))",
	"(public-key (ecc (curve Ed25519) (q " Q "))) (x)",
};

static void
test_key_texts(void)
{
	NixPublicKey nix;
	NixSecretKey secret;
	GuixPublicKey guix;
	ParseError	error;
	char		text[GUIX_KEY_MAX];
	size_t		len;

	for (size_t i = 0; i < sizeof(bad_nix_keys) / sizeof(char *); i++)
		ok(!nix_public_key_parse(str(bad_nix_keys[i]), &nix, &error),
		   "no key of Nix: \"%s\"", bad_nix_keys[i]);
	ok(nix_public_key_parse(str(" " NIXOS_KEY "\n"), &nix, &error) &&
	   span_is(nix.name, "cache.nixos.org-1"), "blanks around a key");
	nix_public_key_print(&nix, text);
	ok(span_is(span_of(text, NIX_PUBLIC_LEN(nix.name.len)), NIXOS_KEY),
	   "a key of Nix is printed as it was");
	for (size_t i = 0; i < sizeof(good_guix_keys) / sizeof(char *); i++)
	{
		ok(guix_public_key_parse(str(good_guix_keys[i]), &guix, &error),
		   "key of Guix, spelling %zu", i);
		len = guix_public_key_print(&guix, text);
		ok(span_is(span_of(text, len), good_guix_keys[0]),
		   "has one spelling when printed");
	}
	len = guix_public_key_print_file(&guix, text);
	ok(span_is(span_of(text, len), good_guix_keys[1]),
	   "is printed as guix writes it");
	for (size_t i = 0; i < sizeof(bad_guix_keys) / sizeof(char *); i++)
		ok(!guix_public_key_parse(str(bad_guix_keys[i]), &guix, &error),
		   "no key of Guix: %s", bad_guix_keys[i]);

	/* a secret key whose halves are two keys' would give itself away */
	nix_key_generate(&secret);
	secret.name = str("x");
	secret.bytes[40] ^= 1;
	nix_secret_key_print(&secret, text);
	ok(!nix_secret_key_parse(span_of(text, NIX_SECRET_LEN(1)), &secret,
							 &error) && sodium_is_zero(secret.bytes, 64),
	   "a secret key of Nix with a foreign public half");
}

/*-------------------------------------------------------------------------
 * Signing
 *-------------------------------------------------------------------------
 */

#define PATH_A "4mb7lzj9dgchfq0h9a032ddgcprwki7v-a"
#define PATH_B "6aah7v9aff39jpi5rczm4lq731mqq6db-b"
#define HASH_0 "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
#define NIX_HEAD \
	"StorePath: /nix/store/" PATH_A "\nURL: nar/a.nar\nNarHash: " HASH_0 \
	"\nNarSize: 120\nReferences: "

static bool
fingerprint_is(const char *text, const char *expected)
{
	Narinfo		info;
	ParseError	error;
	Span		fingerprint;
	bool		same;

	if (!narinfo_parse(text, strlen(text), &info, &error))
		return false;
	fingerprint = make_fingerprint(&info, false);
	same = span_is(fingerprint, expected);
	free((char *) fingerprint.data);
	return same;
}

static void
test_fingerprint(void)
{
	static const char expected[] = "1;/nix/store/" PATH_A ";" HASH_0 ";120;";
	static const char two[] = "1;/nix/store/" PATH_A ";" HASH_0
	";120;/nix/store/" PATH_A ",/nix/store/" PATH_A "b,/nix/store/" PATH_B;

	ok(fingerprint_is(NIX_HEAD "\n", expected), "no references");
	ok(fingerprint_is(NIX_HEAD PATH_A " " PATH_A "b " PATH_B "\n", two),
	   "references in order");
	ok(fingerprint_is(NIX_HEAD PATH_B "  " PATH_A "b " PATH_A " " PATH_B "\n",
					  two), "references out of order, one of them twice");
	ok(fingerprint_is("StorePath: /nix/store/" PATH_A "\nURL: nar/a.nar\n"
					  "NarHash: sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
					  "\nNarSize: 0120\n", expected),
	   "hash and size in another spelling, no References");
}

static void *kept[64];
static int	nkept;

/* Memory until the end. */
static void *
allocate_kept(size_t n)
{
	if (nkept == 64)
		abort();
	return kept[nkept++] = allocate(n);
}

/* The text with a line "NAME: VALUE" in the place of "old". */
static Span
with_line(Span text, Span old, const char *name, Span value)
{
	size_t		before = (size_t) (old.data - text.data);
	size_t		name_len = strlen(name);
	char	   *result = allocate_kept(text.len + name_len + value.len + 3);
	char	   *next = result;

	memcpy(next, text.data, before);
	next += before;
	memcpy(next, name, name_len);
	next += name_len;
	memcpy(next, ": ", 2);
	next += 2;
	memcpy(next, value.data, value.len);
	next += value.len;
	*next++ = '\n';
	memcpy(next, old.data + old.len, text.len - before - old.len);
	next += text.len - before - old.len;
	return span_of(result, (size_t) (next - result));
}

static Span
nix_signed(Span text, const NixSecretKey *key)
{
	Narinfo		info;
	ParseError	error;
	Span		fingerprint;
	char		value[512];
	Span		line = span_of(value, NIX_SIG_LEN(key->name.len));

	if (!narinfo_parse(text.data, text.len, &info, &error))
		abort();
	fingerprint = make_fingerprint(&info, false);
	nix_sign(key, fingerprint, value);
	free((char *) fingerprint.data);
	return with_line(text, span_of(text.data + nix_sig_place(text, line), 0),
					 "Sig", line);
}

static void
test_nix_signing(void)
{
	static const char head[] = NIX_HEAD PATH_B "\nDeriver: " PATH_A
	".drv\nSystem: x86_64-linux\n";
	static const char tail[] = "CA: fixed:r:" HASH_0 "\nOther: 1\n";
	char		text[1024];
	size_t		len = sizeof(head) - 1 + sizeof(tail) - 1;
	NixSecretKey keys[3];
	static const char *const names[] = {"b-1", "a-1", "c-1"};
	Span		signed_text;
	Span		rest;
	Span		value;
	const char *order = "abc";
	bool		good = true;

	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + sizeof(head) - 1, tail, sizeof(tail) - 1);
	signed_text = span_of(text, len);
	for (int i = 0; i < 3; i++)
	{
		nix_key_generate(&keys[i]);
		keys[i].name = str(names[i]);
		signed_text = nix_signed(signed_text, &keys[i]);
	}
	for (int i = 0; i < 3; i++)
	{
		NixPublicKey public;

		nix_key_public(&keys[i], &public);
		good = good && nix_valid(signed_text, &public);
		public.bytes[5] ^= 1;
		good = good && !nix_valid(signed_text, &public);
	}
	ok(good, "signed with three keys, all verify");
	rest = signed_text;
	while (nix_next_sig(&rest, &value))
		good = good && value.data[0] == *order++;
	ok(good && *order == '\0', "in the order of their names");
	ok(memcmp(signed_text.data, head, sizeof(head) - 1) == 0 &&
	   memmem(signed_text.data + sizeof(head) - 1, 5, "Sig: ", 5) != NULL &&
	   span_is(span_of(signed_text.data + signed_text.len - sizeof(tail) + 1,
					   sizeof(tail) - 1), tail),
	   "between System and CA, the rest as it was");
}

static Span
guix_signed(Span text, const GuixSecretKey *key)
{
	uint8_t		digest[GUIX_DIGEST_BYTES];
	char		value[GUIX_SIGNATURE_MAX(5)];
	Span		part;
	Span		old;

	if (!guix_signature_place(text, &old) || !guix_signed_part(text, &part))
		abort();
	guix_digest(part, digest);
	return with_line(text, old, "Signature",
					 span_of(value, guix_sign(key, str("our-1"), digest,
											  value)));
}

/*
 * By another way than ours: the expression as it stands, given to libgcrypt,
 * the hash by libsodium.
 */
static bool
raw_valid(Span text, char *plain, size_t size)
{
	const char *line = memmem(text.data, text.len, "Signature: 1;our-1;", 19);
	Span		base64 = span_skip(text, (size_t) (line - text.data) + 19);
	long		len;
	uint8_t		digest[crypto_hash_sha256_BYTES];
	char		hex[2 * sizeof(digest) + 1];
	gcry_sexp_t all;
	gcry_sexp_t data;
	gcry_sexp_t value;
	gcry_sexp_t public;
	bool		good;

	base64.len = (size_t) ((const char *) memchr(base64.data, '\n',
												 base64.len) - base64.data);
	len = base64_decode_any(base64, (uint8_t *) plain);
	if (len < 0 || (size_t) len >= size ||
		gcry_sexp_new(&all, plain, (size_t) len, 0) != 0)
		return false;
	plain[len] = '\0';
	crypto_hash_sha256(digest, (const uint8_t *) text.data,
					   (size_t) (line - text.data));
	sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
	for (char *c = hex; *c != '\0'; c++)
		*c = (char) (*c >= 'a' ? *c - 'a' + 'A' : *c);
	data = gcry_sexp_find_token(all, "data", 0);
	value = gcry_sexp_find_token(all, "sig-val", 0);
	public = gcry_sexp_find_token(all, "public-key", 0);
	good = strstr(plain, hex) != NULL &&
		gcry_pk_verify(value, data, public) == 0;
	gcry_sexp_release(data);
	gcry_sexp_release(value);
	gcry_sexp_release(public);
	gcry_sexp_release(all);
	return good;
}

/* Is it that text of corpus and guix, but for the digits? */
static bool
like_template(const char *text)
{
	static const char template[] =
	"(signature \n (data \n  (flags rfc6979)\n  (hash sha256 #X#)\n  )\n"
	" (sig-val \n  (ecdsa \n   (r #X#)\n   (s #X#)\n   )\n  )\n"
	" (public-key \n  (ecc \n   (curve Ed25519)\n   (q #X#)\n   )\n  )\n )\n";

	for (const char *t = template; *t != '\0'; t++)
	{
		if (*t == 'X')
			text += strspn(text, "0123456789ABCDEF");
		else if (*t != *text++)
			return false;
	}
	return *text == '\0';
}

#define GUIX_HEAD \
	"StorePath: /gnu/store/" PATH_A "\nNarHash: " HASH_0 \
	"\nNarSize: 120\nReferences: \n"
#define GUIX_TAIL "URL: nar/gzip/a\nCompression: gzip\nFileSize: 1\n"

static void
test_guix_signing(void)
{
	GuixSecretKey keys[2];
	GuixPublicKey public[2];
	char		plain[2048];
	char		file[GUIX_KEY_MAX];
	GuixSecretKey again;
	ParseError	error;
	Span		old;
	size_t		len;
	Span		first;
	Span		second;

	for (int i = 0; i < 2; i++)
	{
		ok(guix_key_generate(&keys[i]), "a new key of Guix");
		guix_key_public(&keys[i], &public[i]);
	}
	len = guix_secret_key_print_file(&keys[0], file);
	ok(guix_secret_key_parse(span_of(file, len), &again, &error) &&
	   memcmp(again.d.bytes, keys[0].d.bytes, keys[0].d.len) == 0,
	   "comes back from its file");
	again.q[3] ^= 1;
	len = guix_secret_key_print_file(&again, file);
	ok(!guix_secret_key_parse(span_of(file, len), &again, &error) &&
	   sodium_is_zero((uint8_t *) &again, sizeof(again)),
	   "a secret key of Guix with a foreign public half");

	first = guix_signed(str(GUIX_HEAD GUIX_TAIL), &keys[0]);
	ok(guix_valid(first, &public[0]) && !guix_valid(first, &public[1]),
	   "an unsigned text, signed at its end");
	ok(raw_valid(first, plain, sizeof(plain)), "libgcrypt says so, too");
	ok(like_template(plain), "in the spelling of guix publish");
	second = guix_signed(first, &keys[0]);
	ok(span_equal(first, second), "the same key signs the same");

	/* lines below the signature stay there, and are not signed */
	old = span_skip(first, first.len);
	first = with_line(first, old, "URL", str("nar/lzip/a\nCompression: lzip\nFileSize: 2"));
	second = guix_signed(first, &keys[1]);
	ok(guix_valid(second, &public[1]) && !guix_valid(second, &public[0]) &&
	   span_is(span_skip(second, second.len - 46),
			   "URL: nar/lzip/a\nCompression: lzip\nFileSize: 2\n"),
	   "another key takes its place, what is below stays");
}

/* "Signature:" anywhere ends what is signed. */
static void
test_guix_places(void)
{
	Span		old;
	Span		part;

	ok(!guix_signature_place(str("Note: Signature: 1\n" GUIX_HEAD GUIX_TAIL),
							 &old), "inside of another line");
	ok(!guix_signed_part(str("StorePath: /gnu/store/" PATH_A "\nSignature: 1\n"
							 "NarHash: x\nReferences: \n"), &part),
	   "NarHash and References below the signature");
	ok(guix_signed_part(str(GUIX_HEAD "Note: Signature:\n"), &part) &&
	   part.len == sizeof(GUIX_HEAD) + 5, "cut off in a field");
	ok(!guix_signed_part(str(GUIX_HEAD "Note-Signature: x\n"), &part),
	   "cut off in the name of a field");
}

/* Bytes of the expression changed: never good, never a crash. */
static void
test_guix_damage(void)
{
	GuixSecretKey key;
	GuixPublicKey public;
	Span		text;
	const char *line;
	size_t		from;
	int			changes = 0;
	int			survived;

	if (!guix_key_generate(&key))
		abort();
	guix_key_public(&key, &public);
	text = guix_signed(str(GUIX_HEAD GUIX_TAIL), &key);
	line = memmem(text.data, text.len, ";our-1;", 7);
	from = (size_t) (line - text.data) + 7;
	survived = flip_bytes(text, from, text.len - 3, NULL, &public, &changes);
	/* blanks and the spelling of the word data are no part of it */
	ok(survived < changes / 4, "a changed expression: %d of %d are the same",
	   survived, changes);
}

/*-------------------------------------------------------------------------
 * Texts that differ by signatures
 *-------------------------------------------------------------------------
 */

#define SIG(c) "Sig: " c "-1:xyz\n"
#define SIGNATURE(c) "Signature: 1;" c ";KCk=\n"
#define HEAD NIX_HEAD "\n"

typedef struct FurtherCase
{
	const char *text;
	const char *other;
	bool		further;
} FurtherCase;

static const FurtherCase further_cases[] = {
	{HEAD, HEAD, true},
	{HEAD, HEAD SIG("a"), true},
	{HEAD, HEAD SIG("a") SIG("b"), true},
	{HEAD "X: 1\n", HEAD SIG("a") "X: 1\n" SIG("b"), true},
	{HEAD SIG("b"), HEAD SIG("a") SIG("b") SIG("b"), true},
	{HEAD, HEAD SIGNATURE("a"), true},
	{HEAD SIGNATURE("a"), HEAD SIGNATURE("b"), true},
	{HEAD SIGNATURE("a") "X: 1\n", HEAD "X: 1\n", true},
	{HEAD SIG("a"), HEAD, false},
	{HEAD SIG("a"), HEAD SIG("b"), false},
	{HEAD SIG("a") SIG("a"), HEAD SIG("a"), false},
	{HEAD, HEAD "X: 1\n" SIG("a"), false},
	{HEAD "X: 1\n", HEAD SIG("a"), false},
	{HEAD "X: 1\n", HEAD SIG("a") "X: 2\n", false},
	{HEAD "X: 1\nY: 1\n", HEAD "Y: 1\nX: 1\n" SIG("a"), false},
	{HEAD SIG("a") SIG("b"), HEAD SIG("b") SIG("a"), false},
};

static void
test_further(void)
{
	for (size_t i = 0; i < sizeof(further_cases) / sizeof(FurtherCase); i++)
	{
		const FurtherCase *test = &further_cases[i];

		ok(narinfo_signed_further(str(test->text), str(test->other)) ==
		   test->further, "signed further, case %zu", i);
	}
}

/* Texts with a MAC: no other byte, length or key will do. */
static void
test_seal(void)
{
	static const char text[] = "kind.main.1764100000";
	uint8_t		key[SEAL_KEY_BYTES] = {1, 2, 3};
	char		sealed[sizeof(text) - 1 + SEAL_LEN];
	size_t		len = sizeof(text) - 1;
	Span		opened;
	bool		any = false;

	memcpy(sealed, text, len);
	seal_text(key, sealed, len);
	ok(seal_open(key, span_of(sealed, sizeof(sealed)), &opened) &&
	   span_is(opened, text), "a sealed text opens");
	for (size_t i = 0; i < sizeof(sealed); i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			sealed[i] ^= (char) (1 << bit);
			any |= seal_open(key, span_of(sealed, sizeof(sealed)), &opened);
			sealed[i] ^= (char) (1 << bit);
		}
		any |= seal_open(key, span_of(sealed, i), &opened);
	}
	ok(!any, "not with another bit, nor when it is cut off");
	key[0] ^= 1;
	ok(!seal_open(key, span_of(sealed, sizeof(sealed)), &opened),
	   "nor with another key");
}

int
main(int argc, char **argv)
{
	Span		nix = slurp("test/nix-cache.pub");
	char		key[256] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	ok(nix_signature_init() && guix_signature_init(), "libraries");
	if (nix.data != NULL && nix.len < sizeof(key))
		memcpy(key, nix.data, nix.len);
	test_key_texts();
	test_fingerprint();
	test_nix_signing();
	test_guix_signing();
	test_guix_places();
	test_guix_damage();
	test_further();
	test_seal();
	for (int i = 1; i < argc; i++)
		test_directory(argv[i], key);
	while (nkept > 0)
		free(kept[--nkept]);
	free((char *) nix.data);
	printf("1..%d\n", ntests);
	return nfailed > 0;
}
