# join_site is interrupted wherever it may be: no slot stays that nobody reads,
# and another call goes on, or begins anew.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $paris = narinfo_site('paris', conf => "pg_narinfo.join_patience = '1s'\n");
my $oslo = narinfo_site('oslo');

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub slots { return sql($paris, q{SELECT count(*) FROM pg_replication_slots}) }

# A call that goes on by itself.
my ($said, $failed);
sub start_joining
{
	($said, $failed) = ('', '');
	return IPC::Run::start([ 'psql', '-X', '-d', $oslo->connstr('postgres'), '-c',
		"CALL narinfo.join_site('" . site_conninfo($paris) . "', 'oslo')" ],
		'>', \$said, '2>', \$failed);
}

my $joining = q{SELECT pid FROM pg_stat_activity WHERE state = 'active'
	AND query LIKE 'CALL narinfo.join_site%'};

# Whoever has a transaction with changes open keeps a slot from being ready.
my $holding;
my ($in, $held) = ('', '');
sub hold
{
	($in, $held) = ("BEGIN; SELECT txid_current(); SELECT 'held';\n", '');
	$holding = IPC::Run::start([ 'psql', '-X', '-q', '-d',
		$paris->connstr('postgres') ], '<', \$in, '>', \$held, '2>', \my $err);
	$holding->pump until $held =~ /held/;
}

sub let_go
{
	$in = "COMMIT;\n\\q\n";
	$holding->finish;
}

sql($paris, "CALL narinfo.import_cache('$cache_dir')");
sql($paris, q{SELECT narinfo.publish_many(array_agg(format(E'StorePath: }
	. q{/nix/store/%s-p\nURL: nar/%s\nNarHash: sha256:%s\nNarSize: 9\n}
	. q{References: \n', translate(md5(i::text), 'e', 'z'), i,
	repeat('0', 52))::narinfo.narinfo)) FROM generate_series(1, 20000) AS i});

# ---- cancelled while the slot is made

hold();
my $call = start_joining();
ok(poll_until(sub { slots() == 1 }), 'the slot is being made');
is(sql($oslo, "SELECT count(backend_xmin) FROM pg_stat_activity WHERE pid IN ($joining)"),
	0, 'the call holds no snapshot meanwhile');
sql($oslo, "SELECT pg_cancel_backend(pid) FROM ($joining) AS j");
$call->finish;
like($failed, qr/canceling statement/, 'cancelled');
let_go();
ok(poll_until(sub { slots() == 0 }), 'no slot is left');
is(sql($oslo, 'SELECT narinfo.node_state()'), 'mirror', 'it has begun');
is(http_get($oslo->{http_port}, '/nix-cache-info')->{status}, 503,
	'and does not serve yet');
is(http_get($oslo->{http_port}, '/health')->{status}, 503, 'nor is it healthy');

# ---- killed while the slot is made

hold();
$call = start_joining();
ok(poll_until(sub { slots() == 1 }), 'once more');
$oslo->stop('immediate');
$call->finish;
let_go();
ok(poll_until(sub { slots() == 0 }), 'the upstream drops the slot');
is(sql($paris, 'SELECT count(*) FROM narinfo.site_link'), 0, 'and forgets it');
$oslo->start;

# ---- cancelled, then killed, while rows are copied

$call = start_joining();
ok(poll_until(sub { sql($oslo, q{SELECT count(*) FROM narinfo.stat_progress
	WHERE command = 'join_site' AND phase = 'copying' AND done <= total}) == 1 }),
	'it copies, and tells how far it is');
sql($oslo, "SELECT pg_cancel_backend(pid) FROM ($joining) AS j");
$call->finish;
ok($failed =~ /canceling statement/ || $said =~ /CALL/,
	'cancelled, or just through');
$oslo->stop('immediate');
$oslo->start;
is(join_site($oslo, $paris), 'joined', 'the next call brings it to its end');
is(sql($oslo, 'SELECT narinfo.last_event(), narinfo.cache_digest()'),
	sql($paris, 'SELECT narinfo.last_event(), narinfo.cache_digest()'), 'equal');
is(slots(), 1, 'with its slot alone');
is(http_get($oslo->{http_port}, '/health')->{status}, 200, 'healthy');
is(sql($paris, q{SELECT bool_and(vote) FROM narinfo.stat_sites
	WHERE site = 'oslo'}), 't', 'it votes');

# ---- begun anew when the slot is gone meanwhile

my $bonn = narinfo_site('bonn');
sql($bonn, 'ALTER SYSTEM SET max_logical_replication_workers = 1');
sql($bonn, 'ALTER SYSTEM SET wal_level = replica');
$bonn->restart;
my $refused = join_site($bonn, $paris);
like($refused, qr/cannot mirror.*max_logical_replication_workers = 3/s,
	'too few workers: says so');
like($refused, qr/ALTER SYSTEM SET wal_level = logical, and restart/,
	'with all else that is to be changed');
sql($bonn, 'ALTER SYSTEM RESET wal_level');
is(slots(), 1, 'and makes no slot');
sql($bonn, 'ALTER SYSTEM RESET max_logical_replication_workers');
$bonn->restart;
is(join_site($bonn, $paris), 'joined', 'joined');
sql($bonn, 'UPDATE narinfo.mirror_state SET joined = false;
	UPDATE narinfo.node SET consistent = false;
	ALTER SUBSCRIPTION narinfo DISABLE');
sql($paris, q{UPDATE narinfo.site_link SET joined = false
	WHERE site = 'bonn'});
ok(poll_until(sub { sql($paris, q{SELECT count(*) FROM narinfo.site_link
	WHERE site = 'bonn'}) == 0 }), 'a mirror that never came to the end is forgotten');
is(join_site($bonn, $paris), 'joined', 'it begins anew');
is(sql($bonn, 'SELECT narinfo.last_event(), narinfo.cache_digest()'),
	sql($paris, 'SELECT narinfo.last_event(), narinfo.cache_digest()'), 'equal');

for my $node ($paris, $oslo, $bonn)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP/,
		$node->name . ': nothing crashed');
}

done_testing();
