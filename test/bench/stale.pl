#
# Publishes, replaces, removes, vacuums and truncates under load, and asks
# after each commit: no answer may be older than it, nor newer.
#
# Everything is asked twice, on a connection that stays open and on a new one.
# Meanwhile wrk walks the same paths, so that the worker is in the middle of
# them all the time.
#
use strict;
use warnings;
use Bench;
use IPC::Open2;
use Time::HiRes qw(time);
use IO::Socket::INET;

my $time = $ENV{BENCH_STALE_SECONDS} || 90;
my $count = 2_000;      # narinfos under load
my $busy_ones = 200;    # those of them that change

need_rows($count);
my $walk = paths_file("walk $count");
my (%text, @hashes);    # hash => what must be answered; absent: 404
my %original;

open my $rows, '-|', "$Bench::programs/gen", 'copy', 0, $count or die;
while (<$rows>)
{
	chomp;
	my (undef, $hash, $text) = split /\t/;
	$original{$hash} = $text =~ s/\\n/\n/gr;
	push @hashes, $hash;
}
close $rows;
%text = %original;
my @changing = @hashes[$count - $busy_ones .. $count - 1];

# A closure is not what is tested; any order of changes is to be allowed.
sql(q{INSERT INTO narinfo.cache (name, require_closure) VALUES ('main', false)
	ON CONFLICT (name) DO UPDATE SET require_closure = false});

# ---- psql, kept open; returns when it has done all

my $psql = open2(my $from_psql, my $to_psql, psql_command());

sub execute
{
	my (@statements) = @_;
	print $to_psql "$_;\n" for @statements;
	print $to_psql "\\echo done\n";
	my $line = <$from_psql>;
	die "psql ended: @statements\n" unless defined $line;
	die "psql: $line" unless $line eq "done\n";
}

# Where the operators of store_hash are; and as where replication applies,
# since it is not the rules of what may change that are tested.
execute('SET search_path TO narinfo, public',
	'SET session_replication_role = replica');

sub quoted
{
	return "'" . $_[0] =~ s/'/''/gr . "'";
}

# ---- asking

my $port = $ours->{port};
my $kept;

sub connection
{
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port,
		Timeout => 30) // die "no connection: $@\n";
}

# Status and body.
sub ask
{
	my ($socket, $hash) = @_;
	my $buffer = '';
	syswrite $socket, "GET /$hash.narinfo HTTP/1.1\r\nHost: h\r\n\r\n";
	while (1)
	{
		if ($buffer =~ /^HTTP\/1\.1 (\d+).*?\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n/si
			&& length($buffer) >= $+[0] + $2)
		{
			return ($1, substr $buffer, $+[0], $2);
		}
		sysread($socket, $buffer, 65536, length $buffer)
			or die "the connection ended: $buffer\n";
	}
}

my ($asked, $unavailable) = (0, 0);

# One narinfo must be as %text says; with "locked" 503 is right, too.
sub check
{
	my ($hash, $when, $locked) = @_;
	my $want = $text{$hash};
	$kept //= connection();
	for my $socket ($kept, connection())
	{
		my ($status, $body) = ask($socket, $hash);
		$asked++;
		if ($locked && $status == 503)
		{
			$unavailable++;
			next;
		}
		my $right = defined $want ? $status == 200 && $body eq $want
			: $status == 404;
		next if $right;
		die sprintf "STALE after %s: %s is %s, should be %s\n--- got\n%s"
			. "--- wanted\n%s", $when, $hash, $status,
			defined $want ? 200 : 404, $body, $want // '';
	}
	# Now and then a client goes away.
	undef $kept if rand() < 0.02;
}

# ---- changes; each returns nothing and leaves %text as it must be

my $version = 0;

sub one { return $changing[ rand @changing ] }

sub other_text
{
	my ($hash) = @_;
	$version++;
	my $text = $original{$hash} =~ s/^FileSize: .*/FileSize: $version/mr;
	# Longer and shorter ones, to be moved to other pages.
	$text .= "Sig: other-$version:" . ('A' x 86) . "==\n"
		for 1 .. rand 8;
	return $text;
}

sub publish
{
	my ($hash, $text) = @_;
	return 'INSERT INTO narinfo.valid_path (cache, hash, info) VALUES'
		. " ('main', '$hash', " . quoted($text) . ')'
		. ' ON CONFLICT (cache, hash) DO UPDATE SET info = EXCLUDED.info';
}

sub withdraw
{
	my ($hash) = @_;
	return "DELETE FROM narinfo.valid_path WHERE cache = 'main'"
		. " AND hash = '$hash'";
}

sub change_one
{
	my $hash = one();
	if (defined $text{$hash} && rand() < 0.4)
	{
		execute(withdraw($hash));
		delete $text{$hash};
		check($hash, 'a removal');
	}
	else
	{
		my $what = defined $text{$hash} ? 'a replacement' : 'a publication';
		my $new = other_text($hash);
		execute(publish($hash, $new));
		$text{$hash} = $new;
		check($hash, $what);
	}
	check(one(), 'something else');
}

# Before the commit the old is seen, and after a rollback, too.
sub change_in_transaction
{
	my ($hash, $commit) = (one(), rand() < 0.5);
	my $new = other_text($hash);
	execute('BEGIN', withdraw($hash), 'SAVEPOINT a', publish($hash, $new));
	check($hash, 'an uncommitted change');
	execute($commit ? 'COMMIT' : 'ROLLBACK');
	$text{$hash} = $new if $commit;
	check($hash, $commit ? 'a commit' : 'a rollback');
}

# A removal of many at the end of the table, and vacuum gives the pages back.
sub remove_many
{
	my @gone = grep { rand() < 0.5 } @changing;
	execute(map { withdraw($_) } @gone);
	delete @text{@gone};
	check($_, 'many removals') for @gone[0 .. 9];
	execute('VACUUM narinfo.valid_path');
	check($_, 'vacuum') for (@gone)[0 .. 9], one(), one();
	# Others take the places that became free.
	my @back = grep { rand() < 0.7 } @gone;
	for my $hash (@back)
	{
		$text{$hash} = other_text($hash);
		execute(publish($hash, $text{$hash}));
	}
	check($_, 'places taken again') for @gone[0 .. 19];
}

sub rewrite_table
{
	my ($how) = ('VACUUM FULL narinfo.valid_path',
		'REINDEX TABLE narinfo.valid_path',
		'CLUSTER narinfo.valid_path USING valid_path_pkey',
		'VACUUM FREEZE narinfo.valid_path')[ rand 4 ];
	execute($how);
	check(one(), $how) for 1 .. 5;
}

sub truncate_and_reload
{
	my %before = %text;
	execute('BEGIN', 'TRUNCATE narinfo.valid_path');
	check(one(), 'an uncommitted truncate', 1) for 1 .. 3;
	if (rand() < 0.3)
	{
		execute('ROLLBACK');
		check(one(), 'a truncate rolled back') for 1 .. 5;
		return;
	}
	execute('COMMIT');
	%text = ();
	check($hashes[ rand @hashes ], 'a truncate') for 1 .. 5;
	%text = rand() < 0.5 ? %original : %before;
	execute('BEGIN', (map { publish($_, $text{$_}) } keys %text), 'COMMIT');
	check($hashes[ rand @hashes ], 'a reload') for 1 .. 20;
}

# The database makes the cache private and public again.
sub hide
{
	my $hash = one();
	execute(q{UPDATE narinfo.cache SET visibility = 'private'
		WHERE name = 'main'});
	my ($status) = ask($kept //= connection(), $hash);
	$asked++;
	die "STALE: a private cache answers $status\n" if $status != 401;
	execute(q{UPDATE narinfo.cache SET visibility = 'public'
		WHERE name = 'main'});
	check($hash, 'a cache made public');
}

my @changes = (
	[1000, 'single changes', \&change_one],
	[300, 'transactions', \&change_in_transaction],
	[10, 'many removals, vacuum', \&remove_many],
	[5, 'rewritten tables', \&rewrite_table],
	[4, 'truncates', \&truncate_and_reload],
	[5, 'visibility', \&hide]
);
my $sum = 0;
$sum += $_->[0] for @changes;

# ---- load beside

my $load = spawn('wrk', "$dir/stale-wrk.out", 'wrk', '-t1', '-c32', '-d',
	$time + 60, '-s', "$dir/bench/walk.lua", "http://127.0.0.1:$port", '--',
	$walk);

my $seed = time ^ $$;
srand $seed;
progress("for $time s; srand($seed)");
my $end = time + $time;
my $next_word = time + 15;
my %times;
while (time < $end)
{
	my $at = rand $sum;
	for my $change (@changes)
	{
		$at -= $change->[0];
		next if $at >= 0;
		$change->[2]->();
		$times{ $change->[1] }++;
		last;
	}
	if (time > $next_word)
	{
		progress("$asked answers were right");
		$next_word += 15;
	}
}
die "the load ended early: see $dir/stale-wrk.out\n" unless kill 0, $load;
end_process($load);
close $to_psql;
waitpid $psql, 0;

# Leaves what other parts expect: nothing.
need_rows(0);

for my $change (@changes)
{
	my $name = $change->[1];
	info("stale: $name", '', $times{$name} // 0, $times{$name} ? '' : 'MISSED');
}
info('stale: answers as just committed', '', $asked, 'ok');
info('stale: 503 while a truncate was open', '', $unavailable);
1;
