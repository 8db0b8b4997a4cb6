#
# Several sites: what replication of narinfos costs against that of a plain
# table, and what waiting for copies costs against PostgreSQL's own way.
#
#   apply    rows a second that a mirror applies, behind by so many
#            transactions of 1,000, against a plain table with the same bytes
#   copy     the initial copy, by join_site() with all that it does, against
#            the plain table's
#   proof    verify_site() against a sequential scan
#   wait     single publishes that wait for k copies, at a distance, against
#            synchronous_standby_names
#
#   BENCH_SITES         steps: "copy proof apply wait", done in this order
#   BENCH_SITES_ROWS    narinfos of copy and proof (1,000,000)
#   BENCH_SITES_APPLY   narinfos of a round of apply (100,000)
#
# The servers, their proxy and their clients share all processors.
#
use strict;
use warnings;
use Bench;
use Proxy;
use Site;
use Time::HiRes qw(time sleep);

my $rows = $ENV{BENCH_SITES_ROWS} || 1_000_000;
my $apply_rows = $ENV{BENCH_SITES_APPLY} || 100_000;
my @all_steps = qw(copy proof apply wait);    # each leaves what the next needs
my %wanted = map { $_ => 1 } $ENV{BENCH_SITES} ? split ' ', $ENV{BENCH_SITES}
	: @all_steps;
my @steps = grep { delete $wanted{$_} } @all_steps;
die "no step @{[ sort keys %wanted ]}\n" if %wanted;
my $batch = 1000;
my $own = "$dir/sites";

system('rm', '-rf', $own);
mkdir $own or die "$own: $!\n";

my $proxy = Proxy->new;
my %site = map {
	$_ => Site->new(name => $_, dir => $own, bindir => $Bench::bindir,
		proxy => $proxy, conf => <<~'END')
		shared_buffers = 512MB
		max_wal_size = 8GB
		checkpoint_timeout = 30min
		END
} qw(paris oslo bonn);
my ($paris, $oslo, $bonn) = @site{qw(paris oslo bonn)};
$_->init, $_->start, $_->sql('CREATE EXTENSION pg_narinfo')
	for $paris, $oslo, $bonn;

sub until_true
{
	my ($site, $condition) = @_;
	# one statement, so that it is no transaction block
	$site->sql("DO \$\$ BEGIN WHILE NOT coalesce(($condition), false) LOOP"
		. ' COMMIT; PERFORM pg_sleep(0.01); END LOOP; END $$');
}

sub timed
{
	my ($code) = @_;
	my $begin = time;
	$code->();
	return time - $begin;
}

# ---- the data: narinfos, and the same bytes in a plain table

sub shell
{
	my ($command) = @_;
	system('sh', '-c', $command) == 0 or die "failed: $command\n";
}

sub quoted { return join ' ', map { "'$_'" } @_ }

sub make_tables
{
	# the packed bytes of a narinfo as a bytea, and back
	$_->sql(<<~'END') for $paris, $oslo;
		CREATE SCHEMA bench;
		CREATE CAST (narinfo.narinfo AS bytea) WITHOUT FUNCTION;
		CREATE TABLE bench.plain (cache text COLLATE "C", hash bytea,
			info bytea NOT NULL, registered timestamptz NOT NULL DEFAULT now(),
			PRIMARY KEY (cache, hash));
		ALTER TABLE bench.plain ALTER info SET STORAGE external;
		END
	$paris->sql('CREATE PUBLICATION plain FOR TABLE bench.plain');
}

my $hash_bytes = q{convert_to(narinfo.store_hash(info)::text, 'UTF8')};

# Narinfos below a number, in transactions of many.
sub load
{
	progress("sites: loading $rows narinfos");
	$paris->sql(q{SELECT narinfo.create_cache('load')});
	for (my $first = 0; $first < $rows; $first += 50_000)
	{
		my $end = $first + 50_000 < $rows ? $first + 50_000 : $rows;
		shell("'$Bench::programs/gen' copy $first $end load | "
			. quoted($paris->psql('-v', 'ON_ERROR_STOP=1', '-c',
				'COPY narinfo.valid_path (cache, hash, info) FROM STDIN')));
	}
	$paris->sql("INSERT INTO bench.plain SELECT cache, $hash_bytes,
		info::bytea, registered FROM narinfo.valid_path WHERE cache = 'load'");
	$paris->sql('VACUUM ANALYZE narinfo.valid_path, narinfo.event, bench.plain');
	$paris->sql('CHECKPOINT');
}

my $loaded = 0;

sub need_load
{
	return if $loaded++;
	make_tables();
	load();
}

sub subscribe_plain
{
	my $conninfo = $paris->conninfo;
	$oslo->sql("CREATE SUBSCRIPTION plain CONNECTION '$conninfo'
		PUBLICATION plain WITH (binary = true, synchronous_commit = local)");
	until_true($oslo, q{SELECT bool_and(srsubstate = 'r')
		FROM pg_subscription_rel AS r JOIN pg_subscription AS s
		ON s.oid = r.srsubid WHERE s.subname = 'plain'});
}

my $joined = 0;

sub need_join
{
	need_load();
	return if $joined++;
	$oslo->join_to($paris);
	subscribe_plain();
}

# ---- the initial copy

sub run_copy
{
	need_load();
	$joined++;
	my $plain = timed(\&subscribe_plain);
	my $ours = timed(sub { $oslo->join_to($paris) });
	bar("sites: join_site with $rows narinfos, all of it", 'rows/s',
		$rows / $ours, 'plain table', $rows / $plain);
	my $equal = $oslo->sql(q{SELECT narinfo.last_event('load') || ' '
		|| narinfo.cache_digest('load')}) eq $paris->sql(
		q{SELECT narinfo.last_event('load') || ' '
		|| narinfo.cache_digest('load')});
	info('sites: join_site: equal', '', $equal ? 1 : 0,
		$equal ? 'ok' : 'MISSED');
	info('sites: join_site: seconds', 's', $ours);
}

# ---- the proof

# Of a statement at the mirror, the second time in a session: a process that
# has not yet touched the pages of shared memory is slow.  What is parallel on
# one side must not be on the other.
sub milliseconds
{
	my ($statement) = @_;
	my $psql = quoted($oslo->psql('-v', 'ON_ERROR_STOP=1', '-c',
		'SET max_parallel_workers_per_gather = 0', '-c', '\\timing on', '-c',
		$statement, '-c', $statement));
	my $text = qx($psql 2>&1);
	my ($first, $ms) = $text =~ /^Time: ([\d.]+) ms/mg;
	die "psql: $text\n" if $? || !defined $ms;
	return $ms;
}

sub run_proof
{
	need_join();
	$oslo->sql('VACUUM ANALYZE narinfo.valid_path, narinfo.event');
	# count(*) does not look at rows of pages that all can see
	my $scan = 'SELECT max(registered) FROM narinfo.valid_path';
	my $r = rounds(
		'verify_site' => sub { { p50 => milliseconds(
			'CALL narinfo.verify_site()') } },
		'sequential scan' => sub { { p50 => milliseconds($scan) } });
	compare("sites: proof of equality of $rows narinfos", $r, 'verify_site',
		'sequential scan', 'p50', most => 6);
}

# ---- applying

# Rows behind which the mirror has to come, while its subscription rests.
sub apply_narinfos
{
	my ($first) = @_;
	$oslo->sql('ALTER SUBSCRIPTION narinfo DISABLE');
	until_true($oslo, q{SELECT NOT EXISTS (SELECT FROM pg_stat_subscription
		WHERE subname = 'narinfo' AND pid IS NOT NULL)});
	$paris->sql(<<~END);
		DO \$\$ BEGIN FOR i IN 0 .. @{[ $apply_rows / $batch - 1 ]} LOOP
			PERFORM narinfo.publish_many(ARRAY(SELECT info FROM bench.raw
				WHERE n > $first + i * $batch AND n <= $first + (i + 1) * $batch),
				'load');
			COMMIT;
		END LOOP; END \$\$
		END
	my $last = $paris->sql(q{SELECT narinfo.last_event('load')});
	settle('plain');
	return { rate => $apply_rows / timed(sub {
		$oslo->sql('ALTER SUBSCRIPTION narinfo ENABLE');
		until_true($oslo, "SELECT narinfo.last_event('load') >= $last");
	}) };
}

sub apply_plain
{
	my ($first) = @_;
	$oslo->sql('ALTER SUBSCRIPTION plain DISABLE');
	until_true($oslo, q{SELECT NOT EXISTS (SELECT FROM pg_stat_subscription
		WHERE subname = 'plain' AND pid IS NOT NULL)});
	$paris->sql(<<~END);
		DO \$\$ BEGIN FOR i IN 0 .. @{[ $apply_rows / $batch - 1 ]} LOOP
			INSERT INTO bench.plain SELECT 'more', $hash_bytes, info::bytea
				FROM bench.raw
				WHERE n > $first + i * $batch AND n <= $first + (i + 1) * $batch;
			COMMIT;
		END LOOP; END \$\$
		END
	settle('narinfo_oslo');
	my $key = $paris->sql("SELECT encode($hash_bytes, 'hex') FROM bench.raw
		WHERE n = $first + $apply_rows");
	return { rate => $apply_rows / timed(sub {
		$oslo->sql('ALTER SUBSCRIPTION plain ENABLE');
		until_true($oslo, "SELECT EXISTS (SELECT FROM bench.plain
			WHERE cache = 'more' AND hash = decode('$key', 'hex'))");
	}) };
}

# A slot's reader has come to the end of the log.
sub settle
{
	my ($slot) = @_;
	my $lsn = $paris->sql('SELECT pg_current_wal_flush_lsn()');
	until_true($paris, "SELECT confirmed_flush_lsn >= '$lsn'
		FROM pg_replication_slots WHERE slot_name = '$slot'");
}

sub run_apply
{
	need_join();
	progress('sites: narinfos to be applied');
	my $n = $apply_rows * $rounds;
	my $end = $rows + $n;
	$paris->sql('CREATE UNLOGGED TABLE bench.raw (cache text, hash text,
		info narinfo.narinfo, n bigserial)');
	shell("'$Bench::programs/gen' copy $rows $end load | "
		. quoted($paris->psql('-v', 'ON_ERROR_STOP=1', '-c',
			'COPY bench.raw (cache, hash, info) FROM STDIN')));
	$paris->sql('CREATE INDEX ON bench.raw (n)');
	$paris->sql('VACUUM ANALYZE bench.raw');
	my ($ours, $theirs) = (0, 0);
	my $r = rounds(
		'narinfos' => sub {
			$ours += $apply_rows;
			return apply_narinfos($ours - $apply_rows) },
		'plain rows' => sub {
			$theirs += $apply_rows;
			return apply_plain($theirs - $apply_rows) });
	my ($narinfos, $plain) = map { my $side = $_;
		[map { $_->{rate} } @{ $r->{$side} }] } 'narinfos', 'plain rows';
	for ([1, "narinfos applied, each with its event, $batch a transaction"],
		[2, 'rows applied, those of events among them'])
	{
		my ($rows, $what) = @$_;
		bar("sites: $what", '/s', $rows * median(@$narinfos),
			'plain rows', median(@$plain), ratios => [map {
				$rows * $narinfos->[$_] / $plain->[$_] } 0 .. $#$plain]);
	}
	my $digest = q{SELECT narinfo.cache_digest('load')};
	my $equal = $oslo->sql($digest) eq $paris->sql($digest);
	info('sites: applied: equal', '', $equal ? 1 : 0,
		$equal ? 'ok' : 'MISSED');
}

# ---- waiting

# Single publishes by so many sessions; "wait" is what each does then.
sub publishes
{
	my ($name, $sessions, @wait) = @_;
	my $file = "$own/$name.pgbench";
	open my $out, '>', $file or die "$file: $!\n";
	print $out "\\set n random(1, 9000000000000)\n",
		"SELECT narinfo.publish(bench.made('$name :client_id', :n), 'wait');\n",
		map { "$_\n" } @wait;
	close $out or die "$file: $!\n";
	my $text = qx('$Bench::bindir/pgbench' -n -h 127.0.0.1 -p $paris->{port} -U postgres -c $sessions -j 1 -T $seconds -f '$file' postgres 2>&1);
	my ($rate) = $text =~ /^tps = ([\d.]+)/m;
	my ($latency) = $text =~ /^latency average = ([\d.]+)/m;
	die "pgbench: $text\n" if $? || !defined $rate || $text =~ /aborted/;
	return { rate => $rate, p50 => $latency };
}

sub with_copies
{
	my ($k, $sessions) = @_;
	return publishes('ours', $sessions, $k == 0 ? () :
		"CALL narinfo.wait_copies(narinfo.last_event('wait'), $k, '30 s', NULL, 'wait');");
}

# PostgreSQL's own: the same subscriptions are its synchronous standbys.
sub synchronously
{
	my ($k, $sessions) = @_;
	standbys($k == 0 ? '' : "ANY $k (*)");
	my $r = eval { publishes('theirs', $sessions) };
	my $error = $@;
	standbys('');
	die $error unless $r;
	return $r;
}

sub standbys
{
	my ($names) = @_;
	$paris->sql("ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$paris->sql('SELECT pg_reload_conf()');
	until_true($paris, "SELECT current_setting('synchronous_standby_names') = '$names'
		AND (SELECT count(*) FROM pg_stat_replication
			WHERE sync_state <> 'async') = " . ($names eq '' ? 0 : 2));
}

sub prepare_wait
{
	# what the other steps have made is none of this one's
	$paris->sql(q{DROP PUBLICATION IF EXISTS plain}) if $loaded;
	$oslo->sql('DROP SUBSCRIPTION IF EXISTS plain') if $joined;
	$paris->sql(q{SELECT narinfo.create_cache('wait')});
	$paris->sql('CREATE SCHEMA IF NOT EXISTS bench');
	$paris->sql(<<~'END');
		CREATE FUNCTION bench.made(name text, n bigint) RETURNS narinfo.narinfo
		LANGUAGE sql IMMUTABLE AS $$
			SELECT format(E'StorePath: /nix/store/%1$s-p\nURL: nar/%1$s.nar.xz\n'
				'Compression: xz\nFileSize: 5000\nNarHash: sha256:0%2$s\n'
				'NarSize: 5000\nReferences: \nSig: cache.nixos.org-1:%3$s==\n',
				h, substr(h || h, 1, 51), repeat('A', 86))::narinfo.narinfo
			FROM translate(md5(name || ' ' || n), 'e', 'z') AS h $$
		END
	$oslo->join_to($paris) unless $joined++;
	$bonn->join_to($paris);
	until_true($paris, q{SELECT count(*) = 2 FROM narinfo.stat_sites
		WHERE cache = 'wait' AND vote AND role = 'mirror'});
}

sub run_wait
{
	prepare_wait();
	for my $distance (0, 40)
	{
		$proxy->delay('paris', $distance / 1000);
		for my $k (0, 1, 2)
		{
			for my $sessions (1, 8, 32)
			{
				my $r = rounds('ours' => sub { with_copies($k, $sessions) },
					'synchronous' => sub { synchronously($k, $sessions) });
				my $what = "sites: k = $k, $distance ms, $sessions publishers";
				compare($what, $r, 'ours', 'synchronous', 'rate',
					$k > 0 && $distance == 40 && $sessions == 32
					? (hold => 5) : ());
				compare("$what: latency", $r, 'ours', 'synchronous', 'p50');
			}
		}
	}
	$proxy->delay('paris', 0);
	for my $mirror ($oslo, $bonn)
	{
		my $digest = q{SELECT narinfo.last_event('wait') || ' '
			|| narinfo.cache_digest('wait')};
		my $wanted = $paris->sql($digest);
		my ($seq) = split ' ', $wanted;
		until_true($mirror, "SELECT narinfo.last_event('wait') >= $seq");
		my $equal = $mirror->sql($digest) eq $wanted;
		info("sites: waited: $mirror->{name} is equal", '', $equal ? 1 : 0,
			$equal ? 'ok' : 'MISSED');
	}
}

my %step = (copy => \&run_copy, proof => \&run_proof, apply => \&run_apply,
	wait => \&run_wait);
my $ok = eval {
	for (@steps)
	{
		progress("sites: $_");
		$step{$_}->();
	}
	1;
};
my $error = $@;
eval { $_->stop('immediate') } for $bonn, $oslo, $paris;
$proxy->end;
system('rm', '-rf', $own);
die $error unless $ok;
1;
