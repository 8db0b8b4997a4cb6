# Four sites, and copies at two others acknowledged: the primary and one mirror
# are lost, and who is promoted has everything; refused where too few answer.
# Then rejoin() and promote() are killed in the middle.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use SitesTest;
use Test::More;

my ($paris, $oslo, $bonn, $rome) = make_sites(qw(paris oslo bonn rome));
my @sites = ($paris, $oslo, $bonn, $rome);

# Stops what a mirror applies, so that it has less than the primary.
sub stop_applying
{
	my ($node) = @_;
	sql($node, 'ALTER SUBSCRIPTION narinfo DISABLE');
	poll_until(sub { sql($node, q{SELECT count(*) FROM pg_stat_subscription
		WHERE pid IS NOT NULL}) == 0 });
}

sub bound { return ask($_[0], 'SELECT bound FROM narinfo.node') // 'away' }

sub last_event { return sql($_[0], 'SELECT narinfo.last_event()') }

sub orphans
{
	my ($node) = @_;
	return sql($node, q{SELECT concat_ws(', ', kind, state, count(*))
		FROM narinfo.orphan GROUP BY kind, state ORDER BY kind, state});
}

whole('at first', @sites);

# ---- two copies of everything, and two sites are lost

my $token = sql($paris, q{SELECT narinfo.alter_cache('main', push_copies => 2,
	push_wait => '20 s');
	SELECT narinfo.create_token('p', ARRAY['push'])}) =~ s/.*\n//sr;
acknowledged($paris, 2, 1, 20);
ok(caught_up($_, $paris), $_->name . ' has it') for $oslo, $bonn, $rome;
stop_applying($rome);
my $less = last_event($rome);
acknowledged($paris, 2, 21, 30);
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
sql($paris, "SELECT narinfo.retract(ARRAY['$top_path']::narinfo.store_path[])");
my $reply = http_put($paris->{http_port}, "/$hash.narinfo",
	slurp_bytes("$cache_dir/$hash.narinfo"),
	Authorization => "Bearer $token");
is("$reply->{status} " . ($reply->{headers}{'narinfo-copies'} // '-'),
	'201 2/2', 'a PUT has two copies');
my $has = last_event($paris);
ok(caught_up($_, $paris), $_->name . ' has all') for $oslo, $bonn;
# what nobody has, and was acknowledged to nobody
stop_applying($_) for $oslo, $bonn;
publish($paris, 501, 504);
sql($paris, q{SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
	FROM narinfo.valid_path WHERE hash::text = } . made_hash(7) . '))');
kill_all($paris, $bonn, $rome);
sql($oslo, 'ALTER SUBSCRIPTION narinfo ENABLE');
my $next = $has + 1;
fails($oslo, 'CALL narinfo.promote()',
	qr/Of 3 mirrors 1 have promised to follow, and 2 have to \(site "bonn": .*site "rome": .*acknowledged with 2 copies: .*cache "main" from event $next on/s,
	'one of three');
ok(poll_until(sub { bound($oslo) eq 'f' }, 30), 'the promise is given up');
$rome->start;
my $behind = $less + 1;
fails($rome, 'CALL narinfo.promote()',
	qr/Site "oslo" has more: events of cache "main" up to $has, and this site up to $less\..*promote\(\) at site "oslo"/s,
	'two of three, and one has more');
ok(poll_until(sub { bound($oslo) . bound($rome) eq 'ff' }, 30),
	'the promises are given back');
works($oslo, 'CALL narinfo.promote()', qr/"oslo" is the primary now/,
	'two of three, and none has more');
is(sql($oslo, "SELECT count(*) FROM narinfo.valid_path WHERE hash::text = '$hash'"), 1,
	'what was put is there');
acknowledged($oslo, 1, 31, 35);
is(sql($rome, q{SELECT upstream FROM narinfo.mirror_state}), 'oslo',
	'a copy is at the one that had less');
$bonn->start;

# ---- the old primary comes back, and rejoin() is killed

$paris->start;
ok(poll_until(sub { state($paris) eq 'closed' }, 30), 'the old primary is closed');
my $rejoin = "CALL narinfo.rejoin('" . site_conninfo($oslo) . "')";
ok(poll_until(sub { (ask($bonn, q{SELECT upstream FROM narinfo.mirror_state})
	// '') eq 'oslo' }, 45), 'bonn follows');
acknowledged($oslo, 2, 36, 40);
my $before = last_event($oslo);
my $events = last_event($paris);

{
	my $what = 'rejoin, while rows are fetched';
	my $hold = hold($paris, 'LOCK TABLE narinfo.trash IN ACCESS EXCLUSIVE MODE');
	my $call = begin($paris, $rejoin);
	ok(waits($paris, 'CALL narinfo.rejoin'), "$what: at this moment");
	is(sql($oslo, q{SELECT count(*) FROM pg_replication_slots
		WHERE slot_name = 'narinfo_paris'}), 1, "$what: there is a slot");
	kill_all($paris);
	ok(!finish($call), "$what: the call has failed");
	let_go($hold);
	$paris->start;
	is(orphans($paris) . ' ' . last_event($paris), " $events",
		"$what: nothing has changed");
	is(state($paris), 'closed', "$what: closed");
}

{
	my $what = 'rejoin, just before its transaction';
	my $hold = hold($paris, 'SELECT FROM narinfo.node FOR SHARE');
	my $call = begin($paris, $rejoin);
	ok(waits($paris, 'CALL narinfo.rejoin'), "$what: at this moment");
	kill_all($paris);
	ok(!finish($call), "$what: the call has failed");
	let_go($hold);
	$paris->start;
	is(orphans($paris) . ' ' . last_event($paris), " $events",
		"$what: nothing has changed");
	is(state($paris), 'closed', "$what: closed");
}

{
	my $what = 'rejoin, just after its transaction';
	my $hold = hold($oslo, 'LOCK TABLE narinfo.valid_path IN SHARE MODE');
	my $call = begin($paris, $rejoin);
	ok(waits($oslo, 'SELECT narinfo.publish_many'), "$what: at this moment");
	is(state($paris), 'mirror', "$what: it is a mirror");
	is(orphans($paris), "publish, waiting, 4\nretract, waiting, 1",
		"$what: its orphans wait");
	kill_all($paris);
	ok(!finish($call), "$what: the call has failed");
	$paris->start;
	# what it had asked for is done, and it has not heard so
	let_go($hold);
	ok(poll_until(sub { last_event($oslo) == $before + 4 }, 30),
		"$what: they are published again");
	is(orphans($paris), "publish, waiting, 4\nretract, waiting, 1",
		"$what: it does not know");
}

{
	my $what = 'rejoin, and the primary is killed';
	my $hold = hold($oslo, 'LOCK TABLE narinfo.valid_path IN SHARE MODE');
	my $call = begin($paris, $rejoin);
	ok(waits($oslo, 'SELECT narinfo.publish_many'), "$what: at this moment");
	kill_all($oslo);
	ok(!finish($call), "$what: the call has failed");
	like($call->{err}, qr/publishing again was interrupted.*Call rejoin\(\) again/s,
		"$what: and says what to do");
	let_go($hold);
	$oslo->start;
	is(orphans($paris), "publish, waiting, 4\nretract, waiting, 1",
		"$what: they wait");
}

works($paris, $rejoin, qr/4 orphans were published again at site "oslo", and 1 wait/,
	'called again');
is(orphans($paris), "publish, republished, 4\nretract, waiting, 1",
	'none is lost');
is(last_event($oslo), $before + 4, 'and none doubled');
is(sql($oslo, q{SELECT count(*) FROM generate_series(501, 504) AS i JOIN
	narinfo.valid_path AS v ON v.hash::text = } . made_hash('i')), 4,
	'all are there');
sql($paris, 'SELECT narinfo.settle_orphans()');
whole('rejoined', $oslo, $paris, $bonn, $rome);

# ---- promote() is killed while others are bound by its promise

# The primary is lost; bonn has promises, and does not come to publish while
# its identity is held.
sub promising
{
	my ($what, $primary) = @_;
	my @others = grep { $_ != $primary && $_ != $bonn } @sites;
	kill_all($primary);
	my $hold = hold($others[0], 'SELECT FROM narinfo.node FOR SHARE');
	my $call = begin($bonn, 'CALL narinfo.promote()');
	ok(waits($others[0], 'SELECT narinfo.site_promise'), "$what: it asks");
	my $own = hold($bonn, 'SELECT FROM narinfo.node FOR SHARE');
	let_go($hold);
	ok(poll_until(sub { !grep { bound($_) ne 't' } @others }, 30),
		"$what: others are bound");
	ok(waits($bonn, 'CALL narinfo.promote'), "$what: at this moment");
	is(state($bonn), 'mirror', "$what: it is not the primary yet");
	return ($call, $own, @others);
}

sub half_promoted
{
	my ($what, $primary) = @_;
	my ($call, $own, @others) = promising($what, $primary);
	kill_all($bonn);
	ok(!finish($call), "$what: the call has failed");
	let_go($own);
	is(bound($_), 't', "$what: " . $_->name . ' is bound') for @others;
	return @others;
}

{
	my $what = 'the candidate is killed, and comes back';
	my @others = half_promoted($what, $oslo);
	$bonn->start;
	ok(poll_until(sub { !grep { bound($_) ne 'f' } @others, $bonn }, 30),
		"$what: they are free");
	$oslo->start;
	whole($what, $oslo, $paris, $bonn, $rome);
	acknowledged($oslo, 2, 41, 45);
}

{
	my $what = 'the candidate is killed, and stays away';
	my @others = half_promoted($what, $oslo);
	works($rome, 'CALL narinfo.promote()', qr/"rome" is the primary now/,
		"$what: another one is promoted");
	acknowledged($rome, 1, 46, 50);
	$_->start for $bonn, $oslo;
	ok(poll_until(sub { state($oslo) eq 'closed' }, 30),
		"$what: the old primary is closed");
	works($oslo, "CALL narinfo.rejoin('" . site_conninfo($rome) . "')",
		qr/mirror of site "rome" now.*0 events/s, "$what: and rejoins");
	whole($what, $rome, $oslo, $paris, $bonn);
}

{
	my $what = 'the candidate is killed, having just become the primary';
	my ($call, $own, @others) = promising($what, $rome);
	my @holds = map { hold($_, 'LOCK TABLE narinfo.site IN SHARE MODE') }
		@others;
	let_go($own);
	ok(poll_until(sub { state($bonn) eq 'primary' }, 30), "$what: at this moment");
	kill_all($bonn);
	is(bound($_), 't', "$what: " . $_->name . ' is bound') for @others;
	let_go($_) for @holds;
	finish($call);
	$bonn->start;
	$rome->start;
	ok(poll_until(sub { state($rome) eq 'closed' }, 30),
		"$what: the old primary is closed");
	works($rome, "CALL narinfo.rejoin('" . site_conninfo($bonn) . "')",
		qr/mirror of site "bonn" now.*0 events/s, "$what: and rejoins");
	whole($what, $bonn, $oslo, $paris, $rome);
}

unlike(slurp_file($_->logfile), qr/PANIC|TRAP/, $_->name . ': nothing crashed')
	for @sites;

done_testing();
