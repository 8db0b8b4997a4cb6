/*-------------------------------------------------------------------------
 *
 * growth.c
 *	  Files that are sent while they grow.  See growth.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "http/client.h"
#include "http/growth.h"

HttpGrowth *
http_growth_create(void)
{
	HttpGrowth *growth = calloc(1, sizeof(*growth));

	if (growth == NULL)
		return NULL;
	growth->holders = 1;
	growth->state = HTTP_GROWTH_COMING;
	link_init(&growth->waiting);
	return growth;
}

void
http_growth_hold(HttpGrowth *growth)
{
	growth->holders++;
}

void
http_growth_release(HttpGrowth *growth)
{
	if (--growth->holders == 0)
		free(growth);
}

void
http_growth_set(HttpGrowth *growth, off_t size, HttpGrowthState state)
{
	HttpLink	turn;

	growth->size = size;
	growth->state = state;

	/* those that wait hold it, and may be the last to do so */
	http_growth_hold(growth);
	link_take(&growth->waiting, &turn);
	while (!link_alone(&turn))
	{
		HttpClient *client = CLIENT_OF(turn.next, growing);

		link_remove(&client->growing);
		http_client_settle(client);
	}
	http_growth_release(growth);
}
