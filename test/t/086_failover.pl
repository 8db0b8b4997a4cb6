# The primary is lost: a mirror is promoted, if nothing that was acknowledged
# would be lost, and the others follow it by themselves; the old one comes
# back, takes no publish, and rejoins.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use SitesTest qw(sql fails works publish state reason digest votes);
use Test::More;

my ($paris, $oslo, $bonn) = map { narinfo_site($_) } qw(paris oslo bonn);

sub epoch { return sql($_[0], 'SELECT epoch FROM narinfo.node') }

# Stops what a mirror applies, so that it has less than the primary.
sub hold
{
	my ($node) = @_;
	sql($node, 'ALTER SUBSCRIPTION narinfo DISABLE');
	poll_until(sub { sql($node, q{SELECT count(*) FROM pg_stat_subscription
		WHERE pid IS NOT NULL}) == 0 });
}

sub follows
{
	my ($node, $primary) = @_;
	my $name = $primary->name;
	return poll_until(sub { sql($node, qq{SELECT EXISTS (SELECT
		FROM narinfo.mirror_state AS m, narinfo.node AS n
		WHERE m.upstream = '$name' AND m.joined
		AND n.epoch = @{[ epoch($primary) ]} AND NOT n.bound)}) eq 't' }, 60);
}

for my $node ($paris, $oslo, $bonn)
{
	$node->append_conf('postgresql.conf', "pg_narinfo.site_conninfo = '"
		. site_conninfo($node) . "'\n");
	$node->append_conf('postgresql.conf', "pg_narinfo.site = 'paris'\n")
		if $node == $paris;
	$node->reload;
}
sql($paris, "CALL narinfo.import_cache('$cache_dir')");
publish($paris, 1, 500);
is(join_site($_, $paris), 'joined', $_->name) for $oslo, $bonn;
ok(votes($paris, $_), "$_ votes") for qw(oslo bonn);
ok(poll_until(sub { sql($oslo, q{SELECT count(*) FROM narinfo.site
	WHERE conninfo IS NOT NULL}) == 3 }), 'all know each other');

# ---- what is refused while all is well

fails($oslo, 'CALL narinfo.promote()',
	qr/55000.*site "paris", is alive and publishes in epoch 1.*narinfo.switchover\('oslo'\)/s,
	'the primary is alive');
is(sql($oslo, 'SELECT promised, bound FROM narinfo.node'), '0|f', 'nothing was promised');
works($paris, 'CALL narinfo.promote()', qr/primary already/, 'the primary itself');
is(sql($bonn, q{SELECT narinfo.site_promise(2, 'x')->>'refused' IS NULL}), 't',
	'a promise is given');
like(sql($bonn, q{SELECT narinfo.site_promise(2, 'y')}),
	qr/promised epoch 2 to site \\"x\\"/, 'and not twice');
ok(poll_until(sub { sql($bonn, q{SELECT narinfo.site_positions(2, 'x')
	IS NOT NULL}) eq 't' }), 'nothing is applied any more');
fails($bonn, q{SET session_replication_role = replica; INSERT INTO narinfo.event
	SELECT cache, seq + 1, epoch, at, kind, hash, name, lsn, digest
	FROM narinfo.event ORDER BY seq DESC LIMIT 1},
	qr/NI005.*has epoch 1, which is over/s,
	'an event of the old primary, whoever enables the subscription');
ok(poll_until(sub { state($paris) eq 'closed' }),
	'the primary hears of it, and closes itself');
like(reason($paris), qr/while site "x" may become the primary/, 'and says why');
fails($paris, 'SELECT narinfo.create_cache(\'no\')',
	qr/NI005.*because of site "x"/s, 'and takes nothing');
is(sql($bonn, 'SELECT narinfo.release_promise()'), 't', 'it is taken back by hand');
is(sql($paris, 'SELECT narinfo.reopen_site()'), 3,
	'the primary is opened again, in an epoch that nobody has been promised');
is(publish($paris, 501, 510), 10, 'and publishes');
ok(follows($_, $paris), $_->name . ' goes on') for $oslo, $bonn;
ok(caught_up($_, $paris), $_->name . ' has it all') for $oslo, $bonn;

# ---- lost, and one of two mirrors cannot be asked: k = 1

hold($oslo);
my $has = sql($oslo, 'SELECT narinfo.last_event()');
my ($next, $more) = ($has + 1, $has + 10);
publish($paris, 511, 520);
ok(caught_up($bonn, $paris), 'one copy is at bonn');
# what nobody has, and was acknowledged without a copy
hold($bonn);
publish($paris, 521, 525);
sql($paris, q{SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
	FROM narinfo.valid_path WHERE hash::text = translate(md5('7'), 'e', 'z')))});
sql($paris, q{SELECT narinfo.create_cache('late')});
publish($paris, 526, 526);
$paris->stop('immediate');
$bonn->stop('immediate');
sql($oslo, 'ALTER SUBSCRIPTION narinfo ENABLE');
fails($oslo, 'CALL narinfo.promote()',
	qr/Of 2 mirrors 1 have promised to follow, and 2 have to \(site "bonn".*acknowledged with 1 copy: .*cache "main" from event $next/s,
	'one of two mirrors');
$bonn->start;
ok(poll_until(sub { sql($oslo, 'SELECT bound FROM narinfo.node') eq 'f' }),
	'the promise is given up');
fails($oslo, 'CALL narinfo.promote()',
	qr/Site "bonn" has more: events of cache "main" up to $more, and this site up to $has.*promote\(\) at site "bonn"/s,
	'the other has more');
is(sql($bonn, 'SELECT promised > 3, bound FROM narinfo.node'), 't|f',
	'its promise was given back');
works($bonn, 'CALL narinfo.promote()', qr/"bonn" is the primary now, in epoch 6/,
	'promoted there');
is(state($bonn), 'primary', 'it is the primary');
is(publish($bonn, 601, 610), 10, 'and publishes at once');
is(sql($bonn, q{SELECT epoch FROM narinfo.event WHERE cache = 'main'
	ORDER BY seq DESC LIMIT 1}), 6, 'in its epoch');
ok(follows($oslo, $bonn), 'the other one follows');
ok(caught_up($oslo, $bonn), 'has it all');
is(digest($oslo), digest($bonn), 'and is equal');
ok(votes($bonn, 'oslo'), 'and votes again');
is(sql($bonn, 'SELECT count(*) FROM pg_replication_slots'), 1, 'one slot');

# ---- the old primary comes back

$paris->start;
fails($paris, 'SELECT narinfo.create_cache(\'no\')', qr/NI005/,
	'the old one is asked for a change at once');
is(state($paris), 'closed', 'it has closed itself');
like(reason($paris), qr/site "bonn" publishes instead, in epoch 6: CALL narinfo.rejoin/,
	'and says why');
fails($paris, 'SELECT narinfo.create_cache(\'no\')', qr/NI005.*The primary is site "bonn"/s,
	'it takes nothing');
my $token = eval { sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'])}) };
is($token, undef, 'not even a token');
is(http_get($paris->{http_port}, '/health')->{status}, 503, 'nobody is sent there');
is(state($bonn), 'primary', 'the new one is the primary still');
is(publish($bonn, 611, 620), 10, 'and publishes');

# ---- and rejoins

sql($bonn, 'CREATE ROLE mirrors LOGIN REPLICATION IN ROLE narinfo_site');
my $way = site_conninfo($bonn);
fails($paris, "CALL narinfo.rejoin('$way user=mirrors')",
	qr/42501.*GRANT narinfo_publisher TO mirrors/s, 'without the right to publish there');
is(sql($paris, 'SELECT count(*) FROM narinfo.orphan'), 0, 'nothing has changed');
fails($bonn, "CALL narinfo.rejoin('" . site_conninfo($oslo) . "')",
	qr/site "oslo" is mirror, and not the primary/, 'the primary');
sql($bonn, 'GRANT narinfo_publisher TO mirrors');
works($paris, "CALL narinfo.rejoin('$way user=mirrors')",
	qr/8 events that the primary does not have.*6 orphans were published again at site "bonn", and 2 wait/s,
	'rejoined');
is(state($paris), 'mirror', 'it is a mirror');
is(sql($paris, q{SELECT string_agg(kind || ' ' || state, ', ' ORDER BY orphan)
	FROM narinfo.orphan WHERE kind <> 'publish'}),
	'create_cache waiting, retract waiting', 'removals and others wait');
is(sql($paris, q{SELECT count(*) FROM narinfo.orphan WHERE state = 'republished'
	AND info IS NOT NULL AND settled IS NOT NULL}), 6, 'publishes do not');
is(sql($bonn, q{SELECT count(*) FROM generate_series(521, 526) AS i
	JOIN narinfo.valid_path AS v ON v.hash::text
	= translate(md5(i::text), 'e', 'z')}), 6,
	'the primary has them');
is(sql($bonn, q{SELECT count(*) FROM narinfo.valid_path
	WHERE hash::text = translate(md5('7'), 'e', 'z')}), 1,
	'and what was removed');
for my $node ($paris, $oslo)
{
	ok(caught_up($node, $bonn), $node->name . ' has it all');
	is(digest($node), digest($bonn), $node->name . ' is equal');
	is(sql($node, q{SELECT max(seq) - min(seq) + 1 - count(*) FROM narinfo.event
		WHERE cache = 'main'}), 0, $node->name . ' has no gap');
	ok(votes($bonn, $node->name), $node->name . ' votes');
}
is(sql($paris, q{SELECT count(*) FROM narinfo.cache WHERE name = 'late'}), 0,
	'the cache is not there');
is(sql($paris, 'SELECT count(*) FROM pg_replication_slots'), 0,
	'its old slots are gone');
is(sql($paris, 'SELECT narinfo.settle_orphans()'), 2, 'somebody settles the rest');
works($paris, "CALL narinfo.rejoin('$way user=mirrors')",
	qr/0 events that the primary does not have/s, 'called again');
# as if it had been interrupted between the two servers
my $last = sql($bonn, 'SELECT narinfo.last_event()');
sql($paris, q{UPDATE narinfo.orphan SET state = 'waiting', settled = NULL
	WHERE state = 'republished'});
works($paris, "CALL narinfo.rejoin('$way user=mirrors')",
	qr/6 orphans were published again at site "bonn", and 0 wait/,
	'interrupted, and called again');
is(sql($bonn, 'SELECT narinfo.last_event()'), $last, 'nothing was published twice');
publish($bonn, 621, 630);
ok(caught_up($paris, $bonn), 'it goes on');
is(digest($paris), digest($bonn), 'equal');

# ---- two primaries by mistake

sql($oslo, q{ALTER SUBSCRIPTION narinfo DISABLE;
	ALTER SUBSCRIPTION narinfo SET (slot_name = NONE);
	DROP SUBSCRIPTION narinfo; DELETE FROM narinfo.mirror_state;
	UPDATE narinfo.node SET role = 'primary'});
publish($oslo, 701, 702);
publish($bonn, 703, 704);
ok(poll_until(sub { reason($bonn) =~ /site "oslo" publishes, too, in the same epoch, 6/ }, 30),
	'one says so');
ok(poll_until(sub { reason($oslo) =~ /site "bonn" publishes, too, in the same epoch, 6/ }, 30),
	'and so does the other');
fails($oslo, "CALL narinfo.rejoin('$way')",
	qr/NI005.*has epoch 6, and this server 6.*reopen_site/s, 'neither mirrors the other');
is(sql($bonn, 'SELECT narinfo.reopen_site()'), 7, 'one is told to go on');
ok(poll_until(sub { state($oslo) eq 'closed' }, 30), 'the other one closes itself');
works($oslo, "CALL narinfo.rejoin('$way')",
	qr/2 events that the primary does not have.*2 orphans were published again/s,
	'and rejoins');
ok(follows($paris, $bonn), 'the third has gone on');
ok(caught_up($_, $bonn), $_->name . ' has it all') for $paris, $oslo;
is(digest($_), digest($bonn), $_->name . ' is equal') for $paris, $oslo;

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for $paris, $oslo, $bonn;

done_testing();
