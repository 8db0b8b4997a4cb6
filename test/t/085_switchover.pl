# A planned switchover while somebody publishes: writes are refused for
# moments, nothing that was acknowledged is lost, the third site follows by
# itself, and real nix reads a closure meanwhile.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use SitesTest qw(sql call fails state digest votes);
use Test::More;
use Time::HiRes qw(time sleep);

my ($paris, $oslo, $bonn) = map { narinfo_site($_) } qw(paris oslo bonn);
my @sites = ($paris, $oslo, $bonn);

sub upstream { return sql($_[0],
	q{SELECT coalesce(max(upstream), '-') FROM narinfo.mirror_state}) }

sub made
{
	my ($i) = @_;
	return "format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s\\nNarHash: "
		. "sha256:%s\\nNarSize: 9\\nReferences: \\n', translate(md5(($i)::text), "
		. "'e', 'z'), $i, repeat('0', 52))::narinfo.narinfo";
}

# ---- a publisher: tries the sites in turn until one takes it

# A session of psql that answers each statement with its SQLSTATE.
sub session
{
	my ($node) = @_;
	my %session = (in => '', out => '');
	$session{run} = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d',
		$node->connstr('postgres') ], '<', \$session{in}, '>', \$session{out},
		'2>', '/dev/null', IPC::Run::timeout(120));
	return \%session;
}

sub answer
{
	my ($session, $statement) = @_;
	$session->{out} = '';
	$session->{in} .= "$statement;\n\\echo state :SQLSTATE\n";
	$session->{run}->pump until $session->{out} =~ /state (\w+)\n/;
	return $1;
}

# 200 in a second, until the file is there; the ledger has what was taken.
sub publisher
{
	my ($ledger, $stop) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	my @sessions = map { session($_) } $paris, $oslo;
	my ($at, $i, $last, $longest, $refused) = (0, 0, time, 0, 0);
	open my $out, '>', $ledger or die "$ledger: $!";
	$out->autoflush(1);
	my $due = time;
	until (-e $stop)
	{
		my $state = answer($sessions[$at],
			'SELECT narinfo.publish(' . made(100000 + $i) . ')');
		if ($state eq '00000')
		{
			my $now = time;
			$longest = $now - $last if $now - $last > $longest;
			$last = $now;
			print $out 100000 + $i++, "\n";
			$due += 0.005;
			sleep($due - $now) if $due > $now;
			next;
		}
		die "refused with $state" unless $state =~ /^NI0(20|10)$/;
		$refused++;
		$at = 1 - $at;
		sleep 0.002;
	}
	printf $out "longest %d refused %d\n", $longest * 1000, $refused;
	close $out;
	POSIX::_exit(0);
}

for my $node (@sites)
{
	$node->append_conf('postgresql.conf', "pg_narinfo.site_conninfo = '"
		. site_conninfo($node) . "'\npg_narinfo.site = '" . $node->name . "'\n");
	$node->reload;
}
sql($paris, "CALL narinfo.import_cache('$cache_dir')");
is(join_site($_, $paris), 'joined', $_->name) for $oslo, $bonn;
ok(votes($paris, $_), "$_ votes") for qw(oslo bonn);

# ---- what is refused

fails($oslo, q{CALL narinfo.switchover('bonn')}, qr/only the primary/, 'at a mirror');
fails($paris, q{CALL narinfo.switchover('rome')}, qr/no other site/, 'to nobody');
fails($paris, q{CALL narinfo.switchover('paris')}, qr/no other site/, 'to itself');
sql($oslo, 'ALTER SYSTEM SET max_slot_wal_keep_size = 100');
$oslo->reload;
fails($paris, q{CALL narinfo.switchover('oslo')}, qr/max_slot_wal_keep_size/,
	'to one that we could not mirror');
sql($oslo, 'ALTER SYSTEM RESET max_slot_wal_keep_size');
$oslo->reload;
is(state($paris), 'primary', 'nothing has changed');

# ---- forth and back, under load

my $dir = PostgreSQL::Test::Utils::tempdir;
my ($ledger, $stop) = ("$dir/ledger", "$dir/stop");
my $pid = publisher($ledger, $stop);
ok(poll_until(sub { -s $ledger && -s $ledger > 700 }), 'somebody publishes');
my $home = "$dir/nix";
my $reading = IPC::Run::start(sub {
	my $key = slurp_file("$test_dir/nix-cache.pub") =~ s/\s+$//r;
	my ($status, $out, $err) = nix($home, 'nix', 'copy', '--from',
		"http://127.0.0.1:$bonn->{http_port}", '--option', 'trusted-public-keys',
		$key, '--option', 'require-sigs', 'true', $top_path);
	print STDERR $err if $status;
	POSIX::_exit($status ? 1 : 0);
}, '>', \my $said, '2>', \my $failed);
my @refused;
for my $round (1 .. 2)
{
	my ($from, $to) = $round % 2 ? ($paris, $oslo) : ($oslo, $paris);
	my $name = $to->name;
	ok(votes($from, $name), "round $round: $name votes");
	my ($ret, $err) = call($from, "CALL narinfo.switchover('$name')");
	is($ret, 0, "round $round: to $name") or diag $err;
	like($err, qr/"$name" is the primary now, in epoch @{[ $round + 1 ]}/,
		"round $round: and says so");
	push @refused, $1 if $err =~ /refused for (\d+) ms/;
	is(state($to), 'primary', "round $round: it publishes");
	is(state($from) . upstream($from), "mirror$name", "round $round: the old one mirrors it");
	ok(poll_until(sub { upstream($bonn) eq $name }, 60),
		"round $round: the third follows by itself");
	ok(caught_up($bonn, $to), "round $round: and has it all");
}
ok(IPC::Run::finish($reading), 'real nix has read a closure from a mirror')
	or diag $failed;
open my $touch, '>', $stop or die "$stop: $!";
waitpid $pid, 0;
is($?, 0, 'the publisher has met no other refusal');
my @ledger = split /\n/, slurp_file($ledger);
my ($longest) = (pop @ledger) =~ /^longest (\d+) refused/;
note("measured: writes were refused for @refused ms by the primary's clock; the longest "
	. "time without a publish was $longest ms; " . @ledger . ' were published');
cmp_ok($_, '<', 2000, "refused for $_ ms") for @refused;
ok(caught_up($_, $paris), $_->name . ' has it all') for $oslo, $bonn;
for my $node (@sites)
{
	my $name = $node->name;
	my $list = join ',', @ledger;
	is(sql($node, qq{SELECT count(*) FROM unnest('{$list}'::int[]) AS i
		WHERE NOT EXISTS (SELECT FROM narinfo.valid_path AS v WHERE v.hash::text
			= translate(md5(i::text), 'e', 'z'))}), 0,
		"$name: nothing that was acknowledged is lost");
	is(sql($node, q{SELECT max(seq) - min(seq) + 1 - count(*) FROM narinfo.event
		WHERE cache = 'main'}), 0, "$name: no gap");
	is(digest($node), digest($paris), "$name: equal");
	is(sql($node, q{SELECT digest = narinfo.cache_digest() FROM narinfo.event
		WHERE cache = 'main' ORDER BY seq DESC LIMIT 1}), 't', "$name: as its events tell");
}
is(sql($paris, q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name)
	FROM pg_replication_slots}), 'narinfo_bonn narinfo_oslo', 'two slots');
is(sql($_, 'SELECT count(*) FROM pg_replication_slots'), 0,
	$_->name . ': none') for $oslo, $bonn;

# ---- the new one cannot be asked in the middle

my $token = sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'])});
$oslo->stop('immediate');
sql($paris, q{UPDATE narinfo.node SET closed = 'switchover', closed_for = 'oslo',
	closed_epoch = 9});
fails($paris, 'SELECT narinfo.publish(' . made(7) . ')',
	qr/NI020.*site "oslo" is to do so instead/s, 'a publish meanwhile');
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my $reply = http_put($paris->{http_port}, "/$hash.narinfo", 'x',
	Authorization => "Bearer $token");
is($reply->{status}, 503, 'PUT meanwhile');
ok($reply->{headers}{'retry-after'}, 'with Retry-After');
fails($paris, q{CALL narinfo.switchover('oslo')}, qr/08.*could not connect/s,
	'called again');
is(state($paris), 'closed', 'it stays closed, since nobody can say who publishes');
is(http_get($paris->{http_port}, '/health')->{status}, 503, 'and is not healthy');
$oslo->start;
ok(poll_until(sub { state($paris) eq 'primary' }, 30), 'then it is open again');
is(sql($paris, 'SELECT narinfo.publish(' . made(7) . ')'), 't', 'and publishes');
is(sql($oslo, 'SELECT promised, bound FROM narinfo.node'), '9|f',
	'the other one will never take over in that epoch');
ok(caught_up($oslo, $paris), 'but goes on');
ok(votes($paris, 'oslo'), 'and votes');
my ($ret, $err) = call($paris, q{CALL narinfo.switchover('oslo')});
is($ret, 0, 'the next switchover') or diag $err;
like($err, qr/in epoch 10/, 'is in the epoch behind');

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for @sites;

done_testing();
