#
# Five million narinfos, several times what shared_buffers holds, in the
# memory of the machine; 70 % of the requests are for absent ones, the rest
# drawn by popularity.  How fast, and how much later do answers come while an
# import and a pg_dump run?
#
# Three ways to ask: "paced", 64 connections that each wait up to 10 ms between
# a reply and the next request, so that the server has time to spare; and 16
# and 64 that never wait.
#
# A busy program beside the server on its processor costs it some 4 ms at a
# time, a tick of the scheduler, whatever the server is; so import and dump run
# on the client's processor, and there the client goes first.  How it is
# when all run anywhere at equal priority is told without a bar; where there
# are four processors or more, that is all there is.
#
# "constant" is the same loop without a database, asked at the same times:
# what its answers are late by, the machine makes late.
#
use strict;
use warnings;
use Bench;

my $rows = $ENV{BENCH_ROWS} || 5_000_000;
my $roomy = processors() >= 4;
die "with fewer than four processors this needs root, or ulimit -r 10\n"
	unless $roomy || can_go_first();

need_rows($rows);
my $zipf = paths_file("zipf $rows 500000");
my $files = narinfo_files(200_000);
my ($one) = glob "$files/0*.narinfo";
my $constant = constant_start($one);
my $size = sql(q{SELECT pg_size_pretty(
	pg_total_relation_size('narinfo.valid_path'))});
progress("$rows narinfos in $size, shared_buffers "
	. sql('SHOW shared_buffers'));

# Imports into ever another cache, and dumps, one after the other, until told
# to end.
sub load_start
{
	my $sql = "$dir/import.sql";
	open my $out, '>', $sql or die "$sql: $!\n";
	my $first = time;
	for (1 .. 100)
	{
		my $name = "load-$first-$_";
		print $out "INSERT INTO narinfo.cache (name) VALUES ('$name');\n",
			"CALL narinfo.import_cache('$files', '$name');\n";
	}
	close $out;

	local $ENV{PGAPPNAME} = 'load';
	my $import = spawn('import', "$dir/import.out", psql_command(),
		'-f', $sql);
	my @dump = map { "'$_'" } dump_command();
	my $dump = spawn('dump', "$dir/dump.out", 'sh', '-c',
		'while :; do ' . join(' ', @dump) . ' >/dev/null || exit 1; done');
	my @load = ($import, $dump);

	# Both have begun to work, not only connected.
	until (backends() >= 2)
	{
		select undef, undef, undef, 0.1;
	}
	select undef, undef, undef, 2;
	return \@load;
}

# The load's processes run beside the client or anywhere.
sub load_place
{
	my ($state, $load) = @_;
	place($state eq 'loaded' && !$roomy ? 'client' : 'any', backends(),
		map { ($_, children($_)) } @$load);
}

# Their processes in the server, but not the one that is asked.
sub backends
{
	return split /\n/, sql(q{SELECT pid FROM pg_stat_activity
		WHERE application_name IN ('load', 'pg_dump')
		AND backend_type = 'client backend' AND pid <> pg_backend_pid()});
}

sub load_end
{
	my ($load) = @_;
	for my $pid (@$load)
	{
		die "the import or the dump ended early: see $dir/import.out,"
			. " $dir/dump.out\n" unless kill 0, $pid;
	}
	end_process($_) for @$load;
	sql(q{SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
		WHERE application_name IN ('load', 'pg_dump')});
	{
		# without events, which would take as long again
		local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
		sql(q{DELETE FROM narinfo.cache WHERE name LIKE 'load-%'});
		sql("DELETE FROM narinfo.$_ WHERE cache LIKE 'load-%'")
			for qw(valid_path event referrer_state referrer_run referrer_page);
	}
	sql('VACUUM narinfo.valid_path');
	sql('CHECKPOINT');
	rest();
}

# Until the janitor has nothing to do with what was there.
sub rest
{
	my $calm = 0;
	while ($calm < 8)
	{
		select undef, undef, undef, 0.25;
		$calm = sql(q{SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'pg_narinfo janitor' AND state <> 'idle'})
			? 0 : $calm + 1;
	}
	return;
}

my @ways = (
	['paced', connections => 64, delay => 10],
	['16 connections', connections => 16],
	['64 connections', connections => 64]
);

my %result;    # "WAY, STATE" => [result of each round]

sub measure
{
	my ($state, $load) = @_;
	for my $way (@ways)
	{
		# A dump that begins anew has other processes.
		load_place($state, $load) if $load;
		my ($name, @options) = @$way;
		my $r = wrk($ours, $zipf, @options,
			first => $state ne 'crowded');
		my $absent = $r->{status} / $r->{requests};
		die "$absent of the requests were for absent ones, not 0.7\n"
			if $absent < 0.65 || $absent > 0.75;
		push @{ $result{"$name, $state"} }, $r;
		push @{ $result{"constant, $name, $state"} },
			wrk($constant, $zipf, @options, first => $state ne 'crowded')
			if $state ne 'crowded';
		progress(sprintf '%-24s %.0f/s  p50 %.2f  p99 %.2f  p999 %.2f'
			. '  busy %.2f', "$name, $state",
			@$r{qw(rate p50 p99 p999 busy)});
	}
}

progress('warming up');
keep_in_memory('narinfo.valid_path');
warm($ours, $zipf, 500_000);

my @states = $roomy ? ('loaded') : ('loaded', 'crowded');
for my $round (1 .. $rounds)
{
	progress("round $round");
	measure('idle');
	for my $state (@states)
	{
		my $load = load_start();
		measure($state, $load);
		load_end($load);
	}
}

for my $way (@ways)
{
	my $name = $way->[0];
	my $what = sprintf '%gM, 70%% absent, %s', $rows / 1e6, $name;
	info($what, 'req/s', median(map { $_->{rate} }
		@{ $result{"$name, idle"} }));
	for my $key (qw(p50 p99 p999))
	{
		compare("$what: import + dump, $key", \%result,
			"$name, loaded", "$name, idle", $key,
			$key eq 'p99' ? (most => 2) : ());
	}
	compare("$what: no database: import + dump, p99", \%result,
		"constant, $name, loaded", "constant, $name, idle", 'p99');
	next if $roomy;
	compare("$what: the same at equal priority, p99", \%result,
		"$name, crowded", "$name, idle", 'p99');
}
busy($rows, \%result, grep { /idle/ } sort keys %result);
end_process($constant->{pid});
1;
