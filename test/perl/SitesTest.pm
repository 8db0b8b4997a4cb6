#
# SitesTest: what tests of several sites share that stop, kill and hold them.
#
#   my @sites = make_sites('paris', 'oslo', 'bonn');   the first is the primary
#   publish($sites[0], 1, 10);        acknowledged($sites[0], 1, 11, 20);
#   my $hold = hold($node, 'LOCK TABLE narinfo.event IN SHARE MODE');
#   my $call = begin($node, "CALL narinfo.switchover('oslo')");
#   kill_all($node);                  as if its machine had lost its power
#   let_go($hold); finish($call); $node->start;
#   whole('after it', $primary, @mirrors);
#
# Whatever is acknowledged stands in a ledger, and has to be everywhere in the
# end; whole() tells.
#
package SitesTest;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(make_sites sql ask call works fails state reason publish
	acknowledged wait_copies hold let_go begin finish kill_all kill_backend
	kill_postmaster waits made_hash whole);
our @EXPORT_OK = qw(digest votes);

my @all;        # sites
my @ledger;     # numbers of paths

# A server whose process was killed starts again by itself, as anywhere.
sub make_sites
{
	my ($first, @others) = @_;
	@all = map { narinfo_site($_, conf => "restart_after_crash = on\n"
		. "log_lock_waits = on\ndeadlock_timeout = 5s\n") } $first, @others;
	for my $node (@all)
	{
		$node->append_conf('postgresql.conf', "pg_narinfo.site_conninfo = '"
			. site_conninfo($node) . "'\npg_narinfo.site = '" . $node->name
			. "'\n");
		$node->reload;
	}
	sql($all[0], "CALL narinfo.import_cache('$cache_dir')");
	is(join_site($_, $all[0]), 'joined', $_->name . ' joins')
		for @all[1 .. $#all];
	return @all;
}

# ---- asking

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

# The same of a server that may be away: undef then.
sub ask
{
	my ($node, $sql) = @_;
	my ($ret, $out) = $node->psql('postgres', $sql);
	return $ret == 0 ? $out : undef;
}

sub call
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$sql", on_error_stop => 1);
	return ($ret, $err);
}

sub fails
{
	my ($node, $sql, $pattern, $what) = @_;
	my ($ret, $err) = call($node, $sql);
	isnt($ret, 0, "$what: refused");
	like($err, $pattern, "$what: and says why");
}

sub works
{
	my ($node, $sql, $pattern, $what) = @_;
	my ($ret, $err) = call($node, $sql);
	is($ret, 0, $what) or diag $err;
	like($err, $pattern, "$what: and says so");
}

sub state { return ask($_[0], 'SELECT narinfo.node_state()') // 'away' }

sub digest
{
	my ($node) = @_;
	return sql($node, 'SELECT narinfo.last_event(), narinfo.cache_digest()');
}

# Until that site's copies count.
sub votes
{
	my ($primary, $site) = @_;
	return poll_until(sub { sql($primary, qq{SELECT coalesce(bool_and(vote), false)
		FROM narinfo.stat_sites WHERE site = '$site'}) eq 't' }, 60);
}

sub reason
{
	my ($node) = @_;
	return ask($node, q{SELECT coalesce(narinfo.site_reason(), 'fine')})
		// 'away';
}

# ---- publishing

# In SQL, of a number in SQL.
sub made_hash { my ($i) = @_; return "translate(md5(($i)::text), 'e', 'z')" }

sub publishing
{
	my ($first, $last) = @_;
	return "SELECT narinfo.publish_many(array_agg(format(E'StorePath: "
		. "/nix/store/%s-p\\nURL: nar/%s\\nNarHash: sha256:%s\\nNarSize: 9\\n"
		. "References: \\n', " . made_hash('i') . ', i, '
		. "repeat('0', 52))::narinfo.narinfo)) "
		. "FROM generate_series($first, $last) AS i";
}

# Not in the ledger: it may be lost with the primary.
sub publish { my ($node, @range) = @_; return sql($node, publishing(@range)) }

sub wait_copies
{
	my ($node, $copies) = @_;
	return sql($node, "CALL narinfo.wait_copies(narinfo.last_event(), $copies, "
		. "'20 s')");
}

# With so many copies: no loss of a primary loses it.
sub acknowledged
{
	my ($node, $copies, $first, $last) = @_;
	publish($node, $first, $last);
	my $confirmed = $copies ? wait_copies($node, $copies) : 0;
	cmp_ok($confirmed, '>=', $copies, "$first to $last are at $confirmed "
		. 'other sites');
	push @ledger, $first .. $last;
}

# ---- sessions that go on by themselves

# One that has a transaction open with what this statement has locked.
sub hold
{
	my ($node, $sql) = @_;
	my %hold = (in => "BEGIN;\n$sql;\n\\echo held\n", out => '', err => '');
	$hold{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-d', $node->connstr('postgres') ], '<', \$hold{in}, '>', \$hold{out},
		'2>', \$hold{err}, IPC::Run::timeout(120));
	$hold{run}->pump until $hold{out} =~ /held/;
	return \%hold;
}

# Also when its server was killed.
sub let_go
{
	my ($hold) = @_;
	local $SIG{PIPE} = 'IGNORE';
	$hold->{in} .= "ROLLBACK;\n\\q\n";
	eval { $hold->{run}->finish };
	return;
}

sub begin
{
	my ($node, $sql) = @_;
	my %call = (out => '', err => '');
	$call{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-d', $node->connstr('postgres'), '-c', $sql ], '<', \undef, '>',
		\$call{out}, '2>', \$call{err}, IPC::Run::timeout(120));
	return \%call;
}

# Whether it came to a good end.
sub finish { my ($call) = @_; return $call->{run}->finish }

# Until a session there that does this waits for a lock.
sub waits
{
	my ($node, $pattern) = @_;
	return poll_until(sub { (ask($node, qq{SELECT count(*) FROM
		pg_stat_activity WHERE query LIKE '$pattern%' AND state = 'active'
		AND wait_event_type = 'Lock'}) // 0) > 0 }, 30);
}

# ---- killing

# The process and what it has started.
sub family
{
	my ($pid) = @_;
	my %children;
	for my $file (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $file or next;
		my ($child, $parent) = (<$in> // '') =~ /^(\d+) .*\) \S+ (\d+) /
			or next;
		push @{ $children{$parent} }, $child;
	}
	my @found = ($pid);
	for (my $i = 0; $i < @found; $i++)
	{
		push @found, @{ $children{ $found[$i] } // [] };
	}
	return @found;
}

# Does it run?  A zombie does not.
sub lives
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/stat" or return 0;
	return (<$in> // '') =~ /^\d+ .*\) [^ZX] /;
}

# Until init has, a zombie would be taken for a running server.
sub bury
{
	my ($node) = @_;
	unlink $node->data_dir . '/postmaster.pid',
		$node->host . '/.s.PGSQL.' . $node->port . '.lock';
	$node->{_pid} = undef;
}

# All of its processes at once, by signal 9.
sub kill_all
{
	my (@nodes) = @_;
	my @pids;
	for my $node (@nodes)
	{
		note('killing ' . $node->name);
		kill 'STOP', $node->{_pid};
		push @pids, reverse family($node->{_pid});
	}
	kill 'KILL', @pids;
	poll_until(sub { !grep { lives($_) } @pids }) or die "they live: @pids";
	bury($_) for @nodes;
}

# The postmaster alone: all others have to see that, and leave.
sub kill_postmaster
{
	my ($node) = @_;
	my ($postmaster, @others) = family($node->{_pid});
	note('killing the postmaster of ' . $node->name);
	kill 'KILL', $postmaster;
	my $gone = poll_until(sub { !grep { lives($_) } @others }, 30);
	kill 'KILL', grep { lives($_) } @others;
	bury($node);
	return $gone;
}

# One of its sessions, which does this: the server starts anew by itself.
sub kill_backend
{
	my ($node, $pattern) = @_;
	my $offset = -s $node->logfile;
	my $pid = sql($node, qq{SELECT pid FROM pg_stat_activity
		WHERE query LIKE '$pattern%' AND state = 'active'});
	kill 'KILL', $pid or die "kill $pid: $!";
	return poll_until(sub { $node->log_contains(
		qr/reinitializing.*ready to accept connections/s, $offset) });
}

# ---- whether all is well

# What a site is, and has: in the end it stays so.
sub facts
{
	my ($node) = @_;
	return ask($node, q{SELECT concat_ws(' ', narinfo.node_state(),
		(SELECT m.upstream FROM narinfo.mirror_state AS m), 'epoch', n.epoch,
		CASE WHEN n.bound THEN 'bound' END, 'event', narinfo.last_event(),
		left(narinfo.cache_digest()::text, 12), 'gaps',
		(SELECT max(e.seq) - min(e.seq) + 1 - count(*) FROM narinfo.event AS e
			WHERE e.cache = 'main'), 'slots', (SELECT string_agg(r.slot_name
			|| CASE WHEN r.active THEN '' ELSE ' (unread)' END, ' '
			ORDER BY r.slot_name) FROM pg_replication_slots AS r), 'votes',
		CASE WHEN narinfo.node_state() = 'primary' THEN (SELECT string_agg(
			s.site, ' ' ORDER BY s.site) FROM narinfo.stat_sites AS s
			WHERE s.cache = 'main' AND s.vote AND s.role = 'mirror') END,
		'lost', (SELECT count(*) FROM unnest('{LEDGER}'::int[]) AS i
			WHERE NOT EXISTS (SELECT FROM narinfo.valid_path AS v
			WHERE v.cache = 'main' AND v.hash::text = MADE)),
		coalesce(narinfo.site_reason(), 'fine'))
		FROM narinfo.node AS n} =~ s/LEDGER/join ',', @ledger/er
		=~ s/MADE/made_hash('i')/er) // 'away';
}

# As they are when all follow the primary.
sub expected_facts
{
	my ($primary, @mirrors) = @_;
	my @names = sort map { $_->name } @mirrors;
	my ($epoch, $has) = split /\|/, ask($primary, q{SELECT epoch,
		concat_ws(' ', 'event', narinfo.last_event(),
		left(narinfo.cache_digest()::text, 12)) FROM narinfo.node}) // '0|';
	my %facts = map { $_->name => "mirror @{[ $primary->name ]} epoch $epoch "
		. "$has gaps 0 slots votes lost 0 fine" } @mirrors;
	$facts{ $primary->name } = "primary epoch $epoch $has gaps 0 slots "
		. join(' ', map { "narinfo_$_" } @names) . " votes @names lost 0 fine";
	return \%facts;
}

# Slots that nobody reads go when their readers were not seen for 30 s: let
# that be now.
sub grow_old
{
	my ($node) = @_;
	ask($node, q{UPDATE narinfo.site_link SET seen = seen - interval '31 s'
		WHERE slot IN (SELECT r.slot_name FROM pg_replication_slots AS r
			WHERE NOT r.active)});
}

# Waits until they are so, with all that was acknowledged everywhere; never two
# primaries meanwhile.
sub whole
{
	my ($what, $primary, @mirrors) = @_;
	my ($expected, %facts);
	my ($most, $n) = (0, 0);
	my $well = poll_until(sub {
		$expected = expected_facts($primary, @mirrors);
		%facts = map { $_->name => facts($_) } $primary, @mirrors;
		my $now = grep { /^primary/ } values %facts;
		$most = $now if $now > $most;
		grow_old($_) for $n++ > 5 ? @mirrors : ();
		return !grep { $facts{$_} ne $expected->{$_} } keys %facts;
	}, 45);
	ok($well, "$what: all follow " . $primary->name . ', and have all');
	is(join("\n", map { "$_: $facts{$_}" } sort keys %facts),
		join("\n", map { "$_: $expected->{$_}" } sort keys %facts),
		"$what: what they are") unless $well;
	cmp_ok($most, '<=', 1, "$what: never two primaries");
}

1;
