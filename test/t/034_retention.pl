# How long events are kept: the janitor removes them by the setting, and never
# what a replication slot or the reverse index has not seen, nor the last one.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use Test::More;

my $node = narinfo_node('retention', conf => "wal_level = logical\n");
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

sub publish
{
	my ($first, $n, $cache) = @_;
	return sql("SELECT narinfo.publish_many(array_agg(format(E'StorePath: "
		. "/nix/store/%s-p\\nURL: nar/%s\\nNarHash: sha256:%s\\nNarSize: 9\\n"
		. "References: \\n', translate(md5(i::text), 'e', 'z'), i, "
		. "repeat('0', 52))::narinfo.narinfo), '$cache')
		FROM generate_series($first, $first + $n - 1) AS i");
}

# The numbers of a cache's events, such as 3-8.
sub kept
{
	my ($cache) = @_;
	return sql("SELECT min(seq) || '-' || max(seq) FROM narinfo.event
		WHERE cache = '$cache'");
}

sub setting
{
	my ($value) = @_;
	$node->append_conf('postgresql.conf',
		"pg_narinfo.event_retention = '$value'\n");
	$node->reload;
	return;
}

is(sql('SHOW pg_narinfo.event_retention'), '30d', 'the default');
sql("SELECT narinfo.create_cache('small'), narinfo.create_cache('gone')");
is(publish(1, 2500, 'main'), 2500, 'published');
is(publish(1, 3, 'small'), 3, 'and to another cache');
sql("SELECT narinfo.drop_cache('gone')");
ok(poll_until(sub { sql('SELECT count(*) FROM narinfo.referrer_state
	WHERE seq = narinfo.last_event(cache)') == 3 }),
	'the janitor has seen them');
is(join(' ', map { kept($_) } qw(main small gone)), '1-2501 1-4 1-2',
	'nothing is old enough');

# ---- what a slot has not confirmed stays

sql("SELECT pg_create_logical_replication_slot('site', 'pgoutput')");
is(publish(5001, 20, 'main'), 20, 'behind a slot');
setting('1s');
ok(poll_until(sub { kept('main') eq '2502-2521' }),
	'what the slot has confirmed goes, in several batches');
ok(poll_until(sub { kept('small') eq '4-4' }),
	'of another cache all but the last event');
ok(poll_until(sub { kept('gone') eq '2-2' }), 'of one that is gone, too');
ok(poll_until(sub { sql(q{SELECT min(at) < now() - interval '2 seconds'
	FROM narinfo.event WHERE cache = 'main'}) eq 't' }), 'the rest is old');
ok(poll_until(sub { sql(q{SELECT seq = narinfo.last_event()
	FROM narinfo.referrer_state WHERE cache = 'main'}) eq 't' }),
	'and seen');
is(sql("SELECT narinfo.cut_events('0', 1000)"), 0, 'and not to be removed');
is(http_get($port, '/changes?after=2501')->{status}, 200,
	'a follower may still ask');
is(http_get($port, '/changes?after=2500')->{status}, 410, 'but not before');

sql("SELECT pg_replication_slot_advance('site', pg_current_wal_lsn())");
ok(poll_until(sub { kept('main') eq '2521-2521' }),
	'when the slot has gone on, they go');
is(sql("SELECT digest = narinfo.cache_digest() FROM narinfo.event
	WHERE cache = 'main'"), 't', 'the last one tells the digest');

# One that has been made and not used since keeps all there is from then on.
is(publish(6001, 5, 'main'), 5, 'again');
ok(poll_until(sub { kept('main') eq '2522-2526' }),
	'what was the last event goes');
is(sql("SELECT narinfo.cut_events('0', 1000)"), 0, 'an idle slot keeps them');
sql("SELECT pg_drop_replication_slot('site')");
ok(poll_until(sub { kept('main') eq '2526-2526' }), 'until it is dropped');

# ---- the numbers go on

is(publish(7001, 5, 'main'), 5, 'published behind what was removed');
is(sql('SELECT narinfo.last_event()'), 2531, 'no number comes twice');
ok(poll_until(sub { kept('main') eq '2531-2531' }), 'removed again');
is(sql("SELECT count(*) FROM narinfo.referrers(
	'/nix/store/" . '0' x 32 . "-p')"), 0, 'the reverse index is none the worse');

# ---- for ever

setting('0');
ok(poll_until(sub { sql('SHOW pg_narinfo.event_retention') eq '0' }),
	'for ever');
is(publish(8001, 5, 'main'), 5, 'and again');
ok(poll_until(sub { sql(q{SELECT min(at) < now() - interval '3 seconds'
	FROM narinfo.event WHERE cache = 'main' AND seq > 2531}) eq 't' }),
	'some seconds old');
is(kept('main'), '2531-2536', 'they are kept');
is(sql("SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'pg_narinfo janitor'"), 1, 'the janitor is well');

$node->stop;
done_testing();
