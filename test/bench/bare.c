/*-------------------------------------------------------------------------
 *
 * bare.c
 *	  What libsodium does on its own: signs or verifies one message over and
 *	  over, as long as a fingerprint of a narinfo with a dozen references,
 *	  and prints how often a second.
 *
 *	  bare verify|sign SECONDS
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MESSAGE_LEN 850			/* bytes */

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	unsigned char public[crypto_sign_PUBLICKEYBYTES];
	unsigned char secret[crypto_sign_SECRETKEYBYTES];
	unsigned char sig[crypto_sign_BYTES];
	unsigned char message[MESSAGE_LEN];
	double		begin;
	double		seconds;
	long		n = 0;
	bool		verify = argc == 3 && strcmp(argv[1], "verify") == 0;

	if (argc != 3 || (!verify && strcmp(argv[1], "sign") != 0) ||
		sodium_init() < 0)
		return 2;
	seconds = atof(argv[2]);
	randombytes_buf(message, sizeof(message));
	crypto_sign_keypair(public, secret);
	crypto_sign_detached(sig, NULL, message, sizeof(message), secret);
	begin = now();
	while (now() - begin < seconds)
	{
		for (int i = 0; i < 100; i++, n++)
		{
			if (!verify)
				crypto_sign_detached(sig, NULL, message, sizeof(message),
									 secret);
			else if (crypto_sign_verify_detached(sig, message,
												 sizeof(message), public) != 0)
				return 1;
		}
	}
	printf("%.0f\n", (double) n / (now() - begin));
	return 0;
}
