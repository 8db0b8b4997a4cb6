#
# The gate under many sessions: see tools/bench, and GateStress.pm for the
# first of its four steps.
#
#   stress     sessions that change caches in every way, backends that are
#              ended and killed; what must be true afterwards
#   copy       many narinfos in one transaction, and small publishers beside it
#   rates      single publishes and batches, against the same rows without the
#              gate
#   snapshot   whether publishing stays as fast while an old snapshot is held
#
# BENCH_GATE chooses some of them; BENCH_SEED does the same stress again.
#
use strict;
use warnings;
use Bench;
use GateStress;
use IPC::Open2;
use Time::HiRes qw(time sleep);

my $stress_seconds = $ENV{BENCH_GATE_SECONDS} || 60;
my $snapshot_seconds = $ENV{BENCH_SNAPSHOT_SECONDS} || 600;
my $copy_rows = $ENV{BENCH_COPY_ROWS} || 1_000_000;
my @steps = split ' ', $ENV{BENCH_GATE} || 'stress copy rates snapshot';

# As a site has it.
cluster_anywhere();
sql('ALTER SYSTEM SET autovacuum = on');
sql('SELECT pg_reload_conf()');
sql('DROP EXTENSION IF EXISTS pg_narinfo CASCADE');
sql('DROP SCHEMA IF EXISTS bench CASCADE');
sql('CREATE EXTENSION pg_narinfo');

# ---- narinfos, made where they are published

my @base = map { "b$_" } 0 .. 9;

# Some 900 bytes with eight references.
sub make_functions
{
	my $refs = join ' ', map {
		(Digest::MD5::md5_hex($_) =~ tr/e/z/r) . "-$_" } @base[0 .. 7];
	sql(<<~END);
		CREATE SCHEMA bench;
		CREATE FUNCTION bench.info(name text, refs text DEFAULT '$refs',
				version int DEFAULT 1)
			RETURNS narinfo.narinfo LANGUAGE sql IMMUTABLE AS \$\$
			SELECT format(E'StorePath: /nix/store/%1\$s-%2\$s\\n'
				'URL: nar/%1\$s.nar.xz\\nCompression: xz\\nFileSize: %5\$s\\n'
				'NarHash: sha256:0%3\$s\\nNarSize: 5000\\nReferences: %4\$s\\n'
				'Sig: cache.nixos.org-1:%6\$s==\\n',
				h, name, substr(h || h, 1, 51), refs, version, repeat('A', 86)
				)::narinfo.narinfo
			FROM translate(md5(name), 'e', 'z') AS h \$\$;
		END
}

sub make_cache
{
	my ($cache) = @_;
	sql("SELECT narinfo.create_cache('$cache')");
	sql(qq{SELECT narinfo.publish_many(ARRAY(SELECT bench.info(b, '')
		FROM unnest('{@{[join ',', @base]}}'::text[]) AS b), '$cache')});
}

my $scripts = 0;

# A file for pgbench.
sub script
{
	my (@lines) = @_;
	my $file = "$dir/gate-" . $scripts++ . '.sql';
	open my $out, '>', $file or die "$file: $!\n";
	print $out map { "$_\n" } @lines;
	close $out;
	return $file;
}

# Transactions a second.
sub pgbench
{
	my ($clients, $time, $options, @files) = @_;
	my $command = join ' ', "'$Bench::bindir/pgbench'", '-n', '-h', "'$dir'",
		'-p', 5432, '-U', 'postgres', '-c', $clients, '-j', 1, '-T',
		int($time + 0.5), $options, map({ "-f '$_'" } @files), 'narinfo';
	my $text = qx($command 2>&1);
	my ($rate) = $text =~ /^tps = ([\d.]+)/m;
	die "pgbench: $text\n" if $? || !defined $rate || $text =~ /aborted/;
	return $rate;
}

# ---- the steps

sub run_stress
{
	my $seed = $ENV{BENCH_SEED} // int rand 2**31;
	my $stress = GateStress->new(psql => [psql_without_stop()],
		seed => $seed, log => "$dir/log", dir => $dir, sessions => 8);
	my (%bad, @names);

	progress("stress for $stress_seconds s: BENCH_SEED=$seed");
	$stress->prepare;
	for my $how ([], [terminate => 1], [terminate => 1, crash => 1], [])
	{
		$stress->phase($stress_seconds / 4, @$how);
		for ($stress->verify)
		{
			my ($what, $ok, $why) = @$_;
			push @names, $what unless exists $bad{$what};
			$bad{$what} += !$ok;
			progress("WRONG: $what: $why") unless $ok;
		}
	}
	my $counts = $stress->{counts};
	info("gate stress: $_", '', $counts->{$_}) for sort keys %$counts;
	info('gate stress: backends ended', '', $stress->{terminated});
	info('gate stress: crashes', '', $stress->{crashes},
		$stress->{crashes} ? 'ok' : 'MISSED');
	info("gate stress: $_, times wrong", '', $bad{$_},
		$bad{$_} ? 'MISSED' : 'ok') for @names;
}

# Errors are what it is about.
sub psql_without_stop
{
	return grep { !/ON_ERROR_STOP|^-v$/ } psql_command();
}

sub run_copy
{
	my $load = "'$Bench::programs/gen' copy 0 $copy_rows huge | PGAPPNAME=huge "
		. join(' ', map { "'$_'" } psql_command(), '-c',
		'COPY narinfo.valid_path (cache, hash, info) FROM STDIN');
	make_cache($_) for 'huge', 'small';
	my @files = map { script('\set n random(1, 9000000000)',
			"SELECT narinfo.publish(bench.info('$_:client_id-:n'), '$_')") }
		'huge', 'small';

	unlink glob "$dir/gate-latency*";
	my $begin = time;
	my $copy = spawn('copy', "$dir/gate-copy.out", 'sh', '-c', $load);
	my ($peak, $pid) = (0);
	my $publishers = spawn_publishers(@files);
	until (waitpid($copy, POSIX::WNOHANG()) == $copy)
	{
		$pid ||= sql("SELECT pid FROM pg_stat_activity
			WHERE application_name = 'huge'");
		my $memory = $pid ? eval { memory($pid) } : undef;
		$peak = $memory->{anon} if $memory && $memory->{anon} > $peak;
		sleep 0.05;
	}
	my ($status, $took) = ($?, time - $begin);
	end_process($publishers);
	die 'COPY: ' . slurp("$dir/gate-copy.out") . "\n" if $status;

	my $events = sql("SELECT narinfo.last_event('huge')");
	my @longest = longest_waits();
	info('gate COPY in one transaction: narinfos', '', $copy_rows,
		$events >= $copy_rows ? 'ok' : 'MISSED');
	info('gate COPY: time', 's', $took);
	info('gate COPY: narinfos a second', '/s', $copy_rows / $took);
	info('gate COPY: RssAnon of its backend at most', 'MB', $peak / 1024);
	info('gate COPY: longest publish beside it, same cache', 'ms', $longest[0]);
	info('gate COPY: longest publish beside it, another cache', 'ms',
		$longest[1]);
	check_digest($_) for 'huge', 'small';
}

sub check_digest
{
	my ($cache) = @_;
	my $right = sql("SELECT count(*) = max(seq)
			AND (array_agg(digest ORDER BY seq DESC))[1]
				= narinfo.cache_digest('$cache')
		FROM narinfo.event WHERE cache = '$cache'");
	info("gate: cache $cache is gapless, digest right", '', $right eq 't' ? 1 : 0,
		$right eq 't' ? 'ok' : 'MISSED');
}

# Until they are ended; each transaction's time is logged.
sub spawn_publishers
{
	my @files = @_;
	my $pid = fork // die "fork: $!\n";
	return $pid if $pid;
	my $end = 0;
	$SIG{TERM} = sub { $end = 1 };
	for (my $i = 0; !$end; $i++)
	{
		eval { pgbench(4, 2, "-l --log-prefix='$dir/gate-latency-$i'", @files) };
	}
	POSIX::_exit(0);
}

# ms, by script
sub longest_waits
{
	my @longest = (0, 0);
	for my $file (glob "$dir/gate-latency*")
	{
		for (split /\n/, slurp($file))
		{
			my (undef, undef, $us, $script) = split ' ';
			$longest[$script] = $us / 1e3 if $us / 1e3 > $longest[$script];
		}
	}
	return @longest;
}

sub run_rates
{
	my @caches = map { "g$_" } 0 .. 7;
	make_cache($_) for @caches;
	for my $count (1, 8)
	{
		my @begin = ('\set n random(1, 9000000000)',
			$count == 1 ? '\set c 0' : '\set c random(0, 7)');
		my $published = script(@begin, "SELECT narinfo.publish("
			. "bench.info('s:client_id-:n'), 'g:c')");
		my $inserted = script(@begin, <<~'END');
			WITH i AS MATERIALIZED (SELECT bench.info('s:client_id-:n') AS info)
			INSERT INTO narinfo.valid_path (cache, hash, info)
			SELECT 'p:c', narinfo.store_hash(info), info FROM i
			END
		for my $sessions (1, 8, 32)
		{
			my $r = rounds('publish' => sub {
				return { rate => pgbench($sessions, $seconds, '', $published) };
			}, 'plain INSERT' => sub {
				local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
				return { rate => pgbench($sessions, $seconds, '', $inserted) };
			});
			compare(sprintf('gate: publish, %d sessions, %d cache%s', $sessions,
				$count, $count > 1 ? 's' : ''), $r, 'publish', 'plain INSERT',
				'rate');
		}
	}
	compare_batches();
	check_digest('g0');
}

sub compare_batches
{
	my $names = "('s:client_id-:n-' || k)";
	my @begin = ('\set n random(1, 9000000000)');
	my $published = script(@begin, "SELECT narinfo.publish_many(ARRAY(SELECT "
		. "bench.info($names) FROM generate_series(1, 100) AS k), 'g0')");
	my $inserted = script(@begin, <<~END);
		WITH i AS MATERIALIZED (SELECT bench.info($names) AS info
			FROM generate_series(1, 100) AS k)
		INSERT INTO narinfo.valid_path (cache, hash, info)
		SELECT 'p0', narinfo.store_hash(info), info FROM i
		END
	for my $sessions (1, 8)
	{
		my $r = rounds('publish' => sub {
			return { rate => 100 * pgbench($sessions, $seconds, '', $published) };
		}, 'plain INSERT' => sub {
			local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
			return { rate => 100 * pgbench($sessions, $seconds, '', $inserted) };
		});
		compare("gate: narinfos, publish_many of 100, $sessions sessions", $r,
			'publish', 'plain INSERT', 'rate');
	}
}

# All kinds of change; popular paths are published again and again.
sub mixed_scripts
{
	my $name = "'m:n'";
	my $some = '\set n random(1, 20000)';
	return map { my ($weight, @lines) = @$_; script(@lines) . "\@$weight" } (
		[6, '\set n random(1, 9000000000)', "SELECT narinfo.publish("
			. "bench.info('n:client_id-:n'), 'mixed')"],
		[1, '\set n random(1, 9000000000)', "SELECT narinfo.publish_many(ARRAY("
			. "SELECT bench.info('n:client_id-:n-' || k)"
			. " FROM generate_series(1, 10) AS k), 'mixed')"],
		[2, $some, '\set v random(1, 1000000)', "SELECT narinfo.publish("
			. "bench.info($name, version => :v), 'mixed')"],
		[2, '\set k random(0, 9)',
			"SELECT narinfo.publish(bench.info('b:k', ''), 'mixed')"],
		[1, $some, "SELECT narinfo.retract(ARRAY[narinfo.store_path("
			. "bench.info($name))], false, 'mixed')"],
		[1, $some, "INSERT INTO narinfo.valid_path (cache, info) VALUES ("
			. "'mixed', bench.info($name)) ON CONFLICT DO NOTHING"]);
}

# The machine is up to twice as slow in one minute as in another, so each
# interval has one beside it of plain INSERTs, which no snapshot slows down.
sub run_snapshot
{
	my @files = mixed_scripts();
	my $plain = script('\set n random(1, 9000000000)',
		"INSERT INTO bench.plain SELECT narinfo.store_hash(i), i FROM "
		. "bench.info('p:n') AS i ON CONFLICT DO NOTHING");
	my $pair = sub {
		my ($rate, $inserts) =
			(pgbench(4, 6, '', @files), pgbench(4, 4, '', $plain));
		return { rate => $rate, inserts => $inserts,
			ratio => $rate / $inserts };
	};

	# What is cheap on an empty cache, to take out what is not there, is over
	# before the first measurement: all popular paths are, and it has run for a
	# while.
	make_cache('mixed');
	sql('CREATE TABLE bench.plain (hash narinfo.store_hash PRIMARY KEY,
		info narinfo.narinfo)');
	sql("SELECT narinfo.publish_many(ARRAY(SELECT bench.info('m' || n)
		FROM generate_series(1, 20000) AS n), 'mixed')");
	$pair->() for 1 .. 6;
	my @before = map { $pair->() } 1 .. 12;
	my $pid = open2(my $from, my $to, psql_command());
	print $to "BEGIN ISOLATION LEVEL REPEATABLE READ;\n"
		. "SELECT pg_export_snapshot();\n";
	chomp(my $snapshot = <$from>);
	my $begin = time;
	my $dump = spawn('pg_dump', "$dir/gate-dump.sql", dump_command(),
		"--snapshot=$snapshot");
	my @during;
	while (time < $begin + $snapshot_seconds || @during < 12)
	{
		push @during, $pair->();
		progress(sprintf '%.0f s with the snapshot: %.0f transactions/s, '
			. '%.0f INSERTs', time - $begin, $during[-1]{rate},
			$during[-1]{inserts});
	}
	waitpid $dump, 0;
	my $dumped = $? == 0;
	my $seconds = time - $begin;
	print $to "COMMIT;\n\\echo done\n";
	my $held = (readline($from) // '') eq "done\n";
	close $to;
	waitpid $pid, 0;
	unlink "$dir/gate-dump.sql";
	info('gate: the snapshot was held, and dumped', 's', $seconds,
		$held && $dumped ? 'ok' : 'MISSED');
	snapshot_bars(\@before, [@during[-12 .. -1]]);
	check_digest('mixed');
}

sub snapshot_bars
{
	my ($before, $during) = @_;
	my $of = sub { my ($key, $pairs) = @_;
		return median(map { $_->{$key} } @$pairs) };
	for (['before it', $before], ['at its end', $during])
	{
		info("gate: publishing $_->[0]", 'tx/s', $of->('rate', $_->[1]));
		info("gate: plain INSERTs $_->[0]", 'tx/s',
			$of->('inserts', $_->[1]));
	}
	bar('gate: publishing at its end, in INSERTs', '',
		$of->('ratio', $during), 'before', $of->('ratio', $before),
		hold => 0.8);
}

require Digest::MD5;
make_functions();
my %step = (stress => \&run_stress, copy => \&run_copy, rates => \&run_rates,
	snapshot => \&run_snapshot);
for (@steps)
{
	my $run = $step{$_} or die "no step $_\n";
	progress("gate: $_");
	$run->();
}
my @deadlocks = grep { /deadlock detected/ } split /\n/, slurp("$dir/log");
info('gate: deadlocks in the server\'s log', '', scalar @deadlocks,
	@deadlocks ? 'MISSED' : 'ok');

# Leaves what other parts expect: nothing.
sql('DROP SCHEMA bench CASCADE');
sql('DROP EXTENSION pg_narinfo CASCADE');
sql('CREATE EXTENSION pg_narinfo');
sql('ALTER SYSTEM RESET autovacuum');
Bench::forget_rows();
1;
