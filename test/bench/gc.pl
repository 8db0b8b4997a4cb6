#
# Collection: see tools/bench, and GcStress.pm for the last of its three steps.
#
#   mark     gc_plan's marking against WITH RECURSIVE over the same table, with
#            the same answer; time and memory as the cache grows
#   beside   HTTP and publishing while gc_plan and gc_run work
#   stress   publishers, pushers and pins against collection after collection
#
# BENCH_GC chooses some of them; BENCH_GC_ROWS are the sizes of "mark", of which
# the largest below two million is compared; BENCH_SEED does the same stress
# again.
#
# Half of the paths are needed by the roots, which a source names.
#
use strict;
use warnings;
use Bench;
use GcStress;
use POSIX ();
use Time::HiRes qw(time sleep);

my @sizes = sort { $a <=> $b } split ' ',
	$ENV{BENCH_GC_ROWS} || '100000 1000000';
my ($compared) = reverse grep { $_ < 2_000_000 } @sizes;
my $stress_seconds = $ENV{BENCH_GC_SECONDS} || 600;
my @steps = split ' ', $ENV{BENCH_GC} || 'mark beside stress';

# So many narinfos, with roots.
sub prepare_rows
{
	my ($rows) = @_;
	need_rows($rows);
	sql('SET client_min_messages = warning;'
		. ' DROP TABLE IF EXISTS public.gc_roots');
	sql(<<~END);
		CREATE TABLE public.gc_roots AS SELECT hash, path
		FROM (SELECT hash, info, substring(narinfo.store_name(
				narinfo.store_path(info)) FROM '-(\\d+)\$')::int AS n
			FROM narinfo.valid_path WHERE cache = 'main') AS v,
			LATERAL narinfo.store_path(info) AS path
		WHERE n < $rows * 0.53 AND n % 7 = 0
		END
	sql(q{SELECT narinfo.add_root_source('bench',
		'SELECT path FROM public.gc_roots') WHERE NOT EXISTS (
			SELECT FROM narinfo.root_source WHERE name = 'bench')});
	# as a site's autovacuum leaves it, when all that loading began is done
	sql("VACUUM ANALYZE $_") for qw(narinfo.valid_path public.gc_roots);
	sleep 0.5 until sql(q{SELECT coalesce((SELECT seq FROM
		narinfo.referrer_state WHERE cache = 'main'), 0)
		>= narinfo.last_event('main')}) eq 't';
	sql('CHECKPOINT');
}

# ---- marking

# A process that has been at every page of the table before: on some virtual
# machines its first look at a page of shared_buffers takes longer than to read
# what is there, and neither side is about that.
my $warm = 'DO $$ BEGIN PERFORM count(*) FROM narinfo.valid_path'
	. ' WHERE narinfo.store_hash(info) IS NULL; END $$';

sub plan
{
	my ($more) = @_;
	return sql("SET client_min_messages = warning; $warm;"
		. " SELECT narinfo.gc_plan('0', max_fraction => 1" . ($more // '')
		. ')');
}

sub column
{
	my ($plan, $column) = @_;
	return sql("SELECT $column FROM narinfo.gc_plan WHERE plan = $plan");
}

my $names = 'SET search_path = narinfo, public';
my $now = 'SELECT extract(epoch FROM clock_timestamp())';
my $alive = <<'END';
	WITH RECURSIVE alive AS (
		SELECT hash FROM public.gc_roots
		UNION
		SELECT r FROM alive JOIN narinfo.valid_path AS v USING (hash),
			unnest(narinfo.ref_hashes(v.info)) AS r WHERE v.cache = 'main')
	SELECT hash FROM alive
END

sub compare_with_recursion
{
	my ($rows) = @_;
	my $r = rounds('gc_plan' => sub {
		my $plan = plan();
		return { rate => 1000 / column($plan, 'load_ms + mark_ms') };
	}, 'WITH RECURSIVE' => sub {
		my ($begin, undef, $end) = split /\n/, sql("$names; $warm; $now;"
			. " SELECT count(*) FROM ($alive) AS a; $now");
		return { rate => 1 / ($end - $begin) };
	});
	compare("gc: marking $rows paths", $r, 'gc_plan', 'WITH RECURSIVE', 'rate',
		hold => 15);
	my $plan = plan();
	my $wrong = sql(<<~END);
		$names;
		WITH a AS MATERIALIZED ($alive),
			d AS MATERIALIZED (SELECT hash FROM narinfo.gc_plan_path
				WHERE plan = $plan)
		SELECT (SELECT count(*) FROM a JOIN d USING (hash))
			+ abs((SELECT count(*) FROM a) + (SELECT count(*) FROM d)
				- (SELECT count(*) FROM narinfo.valid_path
					WHERE cache = 'main'))
		END
	info('gc: paths that they do not agree on', '', $wrong,
		$wrong ? 'MISSED' : 'ok');
	info('gc: share of the paths that is alive', '', 1 - column($plan,
		'planned / paths::float8'));
}

sub run_mark
{
	cluster_anywhere();
	my (@ms, @rows);
	for my $rows (@sizes)
	{
		prepare_rows($rows);
		my $estimate = sql('SELECT bytes FROM narinfo.gc_estimate()');
		my @plans = map { plan() } 1 .. ($rows > 2_000_000 ? 1 : $rounds);
		my %median = map { my $column = $_;
			$column => median(map { column($_, $column) } @plans)
		} qw(load_ms mark_ms memory paths edges);
		push @rows, $rows;
		push @ms, $median{load_ms} + $median{mark_ms};
		my $per_path = ($median{memory} - 4 * $median{edges}) / $median{paths};
		progress(sprintf '%d paths, %d references: read in %.0f ms, marked in'
			. ' %.0f ms; %.0f MB, %.1f bytes a path and 4 a reference'
			. ' (estimated: %.0f MB)', @median{qw(paths edges load_ms mark_ms)},
			$median{memory} / 2**20, $per_path, $estimate / 2**20);
		info("gc: marking $rows paths", 'ms', $ms[-1]);
		info("gc: memory for $rows paths", 'MB', $median{memory} / 2**20,
			$median{memory} < 24 * 2**30 ? 'ok' : 'MISSED');
		info('gc: bytes a path, beside 4 a reference', '', $per_path,
			$per_path <= 60 ? 'ok' : 'MISSED');
		compare_with_recursion($rows) if $rows == $compared;
	}
	for (1 .. $#rows)
	{
		my $slope = log($ms[$_] / $ms[ $_ - 1 ])
			/ log($rows[$_] / $rows[ $_ - 1 ]);
		info("gc: slope from $rows[$_ - 1] to $rows[$_] paths, 1 is linear",
			'', $slope, $slope <= 1.25 ? 'ok' : 'MISSED');
	}
}

# ---- beside

# Statements in a session of its own, over and over, until it is ended.
sub spawn_session
{
	my ($name, $file) = @_;
	local $ENV{PGAPPNAME} = $name;
	my @psql = map { "'$_'" } psql_command();
	my $pid = spawn($name, "$dir/$name.out", 'sh', '-c',
		'while :; do ' . join(' ', @psql) . " -f '$file' || exit 1; done");
	my $backend;
	sleep 0.05 until ($backend = sql("SELECT pid FROM pg_stat_activity
		WHERE application_name = '$name' AND state = 'active' LIMIT 1"));
	place('client', $pid, $backend) unless processors() >= 4;
	return $pid;
}

sub end_session
{
	my ($name, $pid) = @_;
	die "$name ended early: " . slurp("$dir/$name.out") . "\n"
		unless kill 0, $pid;
	end_process($pid);
	sql("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
		WHERE application_name = '$name' AND backend_type = 'client backend'");
}

sub file
{
	my ($name, @lines) = @_;
	my $file = "$dir/$name.sql";
	open my $out, '>', $file or die "$file: $!\n";
	print $out map { "$_\n" } @lines;
	close $out;
	return $file;
}

# Narinfos of eight references a second, by four sessions; and the longest that
# one of them took, in ms.
sub publish_rate
{
	my $file = file('gc-publish', '\set n random(1, 9000000000)',
		"SELECT narinfo.publish(public.gc_info(':n'))");
	my $prefix = "$dir/gc-latency";
	unlink glob "$prefix*";
	my $text = qx('$Bench::bindir/pgbench' -n -h '$dir' -p 5432 -U postgres -c 4 -j 1 -T $seconds -l --log-prefix='$prefix' -f '$file' narinfo 2>&1);
	my ($rate) = $text =~ /^tps = ([\d.]+)/m;
	die "pgbench: $text\n" if $? || !defined $rate || $text =~ /aborted/;
	my $longest = 0;
	for my $log (glob "$prefix*")
	{
		my @us = map { (split ' ')[2] } split /\n/, slurp($log);
		$longest = $_ > $longest ? $_ : $longest for @us;
	}
	return { rate => $rate, max => $longest / 1000 };
}

sub run_beside
{
	my $rows = $compared;
	prepare_rows($rows);
	sql(<<~'END');
		CREATE OR REPLACE FUNCTION public.gc_info(name text)
			RETURNS narinfo.narinfo LANGUAGE sql VOLATILE AS $$
			SELECT format(E'StorePath: /nix/store/%1$s-%2$s\nURL: nar/%1$s.nar.xz\n'
				'Compression: xz\nFileSize: 1\nNarHash: sha256:0%3$s\n'
				'NarSize: 5000\nReferences: %4$s\n', h, name,
				substr(h || h, 1, 51), (SELECT string_agg(narinfo.base_name(path),
					' ') FROM (SELECT path FROM public.gc_roots LIMIT 8) AS r)
				)::narinfo.narinfo
			FROM translate(md5(name), 'e', 'z') AS h $$
		END
	sql('CALL narinfo.rebuild_referrers()');
	my $walk = paths_file("walk $rows");
	warm($ours, $walk, $rows);
	my $endless = file('gc-plan', 'SET client_min_messages = warning;',
		"SELECT narinfo.gc_plan('0', max_fraction => 1);");
	my %result;
	for my $round (1 .. $rounds)
	{
		my $state = 'idle';
		my $measure = sub {
			push @{ $result{"http, $state"} }, wrk($ours, $walk,
				connections => 64, delay => 10, first => 1);
			push @{ $result{"publish, $state"} }, publish_rate();
			progress(sprintf 'round %d, %s: p50 %.2f p99 %.2f ms, %.0f publishes/s,'
				. ' the longest %.0f ms', $round, $state,
				@{ $result{"http, $state"}[-1] }{qw(p50 p99)},
				@{ $result{"publish, $state"}[-1] }{qw(rate max)});
		};
		$measure->();
		$state = 'gc_plan';
		my $pid = spawn_session('gc-plan', $endless);
		$measure->();
		end_session('gc-plan', $pid);
		$state = 'gc_run';
		my $plan = plan();
		$pid = spawn_session('gc-run', file('gc-run',
			"CALL narinfo.gc_run($plan);"));
		my $removed = column($plan, 'removed');
		$measure->();
		end_session('gc-run', $pid);
		push @{ $result{removed} }, { rate => (column($plan, 'removed') - $removed)
			/ (2 * $seconds) };
	}
	for my $state (qw(gc_plan gc_run))
	{
		compare("gc: HTTP paced, while $state works, p99", \%result,
			"http, $state", 'http, idle', 'p99', most => 2);
		compare("gc: publishes while $state works", \%result,
			"publish, $state", 'publish, idle', 'rate', hold => 0.8);
		info("gc: longest publish while $state works", 'ms',
			median(map { $_->{max} } @{ $result{"publish, $state"} }));
	}
	info('gc: longest publish while nothing else works', 'ms',
		median(map { $_->{max} } @{ $result{'publish, idle'} }));
	info('gc: paths removed by gc_run beside these', '/s',
		median(map { $_->{rate} } @{ $result{removed} }));
	busy('gc', \%result, 'http, idle');
	sql('TRUNCATE narinfo.trash');
	# what is left is not what others expect
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	sql('TRUNCATE narinfo.valid_path');
	Bench::forget_rows();
}

# ---- stress

sub run_stress
{
	my $seed = $ENV{BENCH_SEED} // int rand 2**31;
	sql('DROP EXTENSION IF EXISTS pg_narinfo CASCADE');
	sql('CREATE EXTENSION pg_narinfo');
	my $stress = GcStress->new(seed => $seed, log => "$dir/log", dir => $dir,
		psql => [grep { !/ON_ERROR_STOP|^-v$/ } psql_command()]);
	progress("stress for $stress_seconds s: BENCH_SEED=$seed");
	$stress->prepare;
	$stress->phase($stress_seconds);
	for ($stress->verify)
	{
		my ($what, $ok, $why) = @$_;
		progress("WRONG: $what: $why") unless $ok;
		info("gc stress: $what", '', $ok ? 1 : 0, $ok ? 'ok' : 'MISSED');
	}
	my $counts = $stress->{counts};
	my %least = (publishes => 50_000 * $stress_seconds / 600,
		collections => 200 * $stress_seconds / 600);
	info("gc stress: $_", '', $counts->{$_}, !$least{$_} ? ''
		: $counts->{$_} >= $least{$_} ? 'ok' : 'MISSED')
		for sort keys %$counts;
	$stress->phase(15, blind => 1);
	$stress->verify;
	my $failures = @{ $stress->{last_failures} };
	info('gc stress: failures when gc_run does not look again', '', $failures,
		$failures ? 'ok' : 'MISSED');
	sql('DROP EXTENSION pg_narinfo CASCADE');
	sql('CREATE EXTENSION pg_narinfo');
	Bench::forget_rows();
}

my %step = (mark => \&run_mark, beside => \&run_beside,
	stress => \&run_stress);
for (@steps)
{
	my $run = $step{$_} or die "no step $_\n";
	progress("gc: $_");
	$run->();
}
sql('DROP TABLE IF EXISTS public.gc_roots CASCADE');
sql('DROP FUNCTION IF EXISTS public.gc_info(text)');
1;
