#
# Filling a cache: COPY and publish_many with the gate on and the reverse index
# following, until it has caught up; with signatures checked; single publishes;
# and how many bytes a narinfo is on disk.
#
#   BENCH_LOAD_ROWS    narinfos of COPY, and of publish_many (1,000,000)
#   BENCH_LOAD         steps: "copy many checked single"
#
# Every load begins with an empty database, as a site has it.
#
use strict;
use warnings;
use Bench;
use Time::HiRes qw(time sleep);

my $rows = $ENV{BENCH_LOAD_ROWS} || 1_000_000;
my @steps = split ' ', $ENV{BENCH_LOAD} || 'copy many checked single';
my $copied = 20_000;       # narinfos in a transaction
my $published = 1000;
my $checked = 100_000;
my $least = 30_000;        # a second
my $some = 100_000;        # narinfos, at most, that SQLite has to take

cluster_anywhere();
sql('ALTER SYSTEM SET autovacuum = on');
sql('SELECT pg_reload_conf()');

sub start_anew
{
	sql('SET client_min_messages = warning; DROP SCHEMA IF EXISTS bench CASCADE');
	sql('SET client_min_messages = warning; DROP EXTENSION pg_narinfo CASCADE');
	sql('CREATE EXTENSION pg_narinfo');
	sql(q{SELECT narinfo.create_cache('load')});
	sql('CREATE SCHEMA bench');
	sql('CHECKPOINT');
}

sub psql_script
{
	my ($name, @lines) = @_;
	my $file = "$dir/load-$name.sql";
	open my $out, '>', $file or die "$file: $!\n";
	print $out map { "$_\n" } @lines;
	close $out or die "$file: $!\n";
	return $file;
}

# Runs scripts side by side; seconds until they have ended.
sub run_scripts
{
	my @files = @_;
	my $begin = time;
	my %pid = map { spawn('load', "$_.out", psql_command(), '-f', $_) => $_ }
		@files;
	for my $pid (keys %pid)
	{
		waitpid $pid, 0;
		die slurp("$pid{$pid}.out") if $?;
	}
	return time - $begin;
}

# The janitor has seen the last event.
sub wait_for_index
{
	sleep 0.05 until sql(q{SELECT coalesce((SELECT seq
		FROM narinfo.referrer_state WHERE cache = 'load'), 0)
		>= narinfo.last_event('load')}) eq 't';
}

sub check_load
{
	my ($what, $wanted) = @_;
	my $right = sql(qq{SELECT count(*) = max(seq) AND (array_agg(digest
		ORDER BY seq DESC))[1] = narinfo.cache_digest('load') AND
		(SELECT count(*) FROM narinfo.valid_path WHERE cache = 'load') = $wanted
		FROM narinfo.event WHERE cache = 'load'}) eq 't';
	info("$what: all there, gapless, digest right", '', $right ? 1 : 0,
		$right ? 'ok' : 'MISSED');
}

sub load_row
{
	my ($what, $n, $took, $caught_up) = @_;
	info("$what: until the last commit", '/s', $n / $took);
	bar("$what: until the reverse index has caught up", '/s',
		$n / $caught_up, 'wanted', $least, hold => 1);
}

# ---- COPY

sub write_parts
{
	my @parts;
	for (my $i = 0; $i * $copied < $rows; $i++)
	{
		my ($first, $end) = ($i * $copied, ($i + 1) * $copied);
		$end = $rows if $end > $rows;
		push @parts, "$dir/load-part-$i";
		system("'$Bench::programs/gen' copy $first $end load > '$parts[-1]'")
			== 0 or die "gen failed\n";
	}
	return @parts;
}

sub run_copy
{
	start_anew();
	my @parts = write_parts();
	my $script = psql_script('copy', map { "COPY narinfo.valid_path (cache, "
		. "hash, info) FROM '$_';" } @parts);
	my $begin = time;
	my $took = run_scripts($script);
	wait_for_index();
	my $caught_up = time - $begin;
	unlink @parts;
	load_row("load: COPY of $copied a transaction", $rows, $took, $caught_up);
	check_load('load: COPY', $rows);
	compare_bytes();
}

# ---- bytes

sub table_bytes
{
	my ($condition) = @_;
	return sql(qq{SELECT coalesce(sum(pg_total_relation_size(oid)), 0)
		FROM pg_class WHERE relnamespace = 'narinfo'::regnamespace
		AND relkind = 'r' AND $condition}) / $rows;
}

# A file with these tables, filled from statements as CSV.
sub sqlite_bytes
{
	my ($n, $schema, %tables) = @_;
	my $file = "$dir/load.sqlite";
	unlink $file;
	open my $sqlite, '|-', "sqlite3 '$file' >/dev/null" or die "sqlite3: $!\n";
	my $psql = join ' ', map { "'$_'" } psql_command();
	print $sqlite "PRAGMA journal_mode = off; PRAGMA synchronous = off;\n",
		"$schema\n";
	for my $table (sort keys %tables)
	{
		my $csv = "$dir/load-$table.csv";
		system("$psql -c \"COPY ($tables{$table}) TO STDOUT (FORMAT csv)\" > '$csv'")
			== 0 or die "COPY TO failed\n";
		print $sqlite ".import --csv '$csv' $table\n";
	}
	close $sqlite or die "sqlite3 failed\n";
	unlink glob "$dir/load-*.csv";
	my $size = -s $file;
	unlink $file;
	return $size / $n;
}

sub compare_bytes
{
	sql('VACUUM narinfo.valid_path, narinfo.event, narinfo.referrer_page');
	my $text = sql(q{SELECT sum(octet_length(info::text))
		FROM narinfo.valid_path WHERE cache = 'load'}) / $rows;
	my $narinfos = table_bytes("relname = 'valid_path'");
	my $all = table_bytes('true');
	my $n = $rows < $some ? $rows : $some;
	my $schema = 'CREATE TABLE narinfo (hash TEXT PRIMARY KEY,'
		. ' info TEXT NOT NULL);';
	my $narinfo = qq{SELECT hash, info FROM narinfo.valid_path
		WHERE cache = 'load' ORDER BY registered, ctid LIMIT $n};
	my $plain = sqlite_bytes($n, $schema, narinfo => $narinfo);
	my $linked = sqlite_bytes($n, $schema . 'CREATE TABLE ref (referrer TEXT, reference TEXT,'
		. ' PRIMARY KEY (referrer, reference)) WITHOUT ROWID;'
		. 'CREATE INDEX ref_reference ON ref (reference, referrer);',
		narinfo => $narinfo,
		ref => qq{SELECT v.hash, narinfo.store_hash(r)
			FROM ($narinfo) AS v, unnest(narinfo.refs(v.info)) AS r});
	bar('load: bytes of a narinfo and its key', 'B', $narinfos, 'text', $text);
	bar('load: bytes of a narinfo and its key', 'B', $narinfos, 'SQLite',
		$plain);
	bar('load: bytes of a narinfo with everything', 'B', $all, 'text', $text);
	bar('load: bytes of a narinfo with everything', 'B', $all,
		'SQLite, references', $linked);
	info("load: bytes of its $_->[0]", 'B', table_bytes("relname LIKE '$_->[1]'"))
		for ['event', 'event'], ['part of the reverse index', 'referrer%'];
}

# ---- publish_many

# Narinfos by their number, as an application has them at hand.
sub make_source
{
	my ($n) = @_;
	sql('CREATE UNLOGGED TABLE bench.raw (cache text, hash text,
		info narinfo.narinfo, n bigserial)');
	my $psql = join ' ', map { "'$_'" } psql_command();
	system("'$Bench::programs/gen' copy 0 $n load | $psql -c "
		. "'COPY bench.raw (cache, hash, info) FROM STDIN'") == 0
		or die "gen or COPY failed\n";
	sql('CREATE INDEX ON bench.raw (n)');
	sql('VACUUM ANALYZE bench.raw');
}

# Scripts that publish numbers 1 to n of a table, one for each session.
sub publishing
{
	my ($table, $n, $sessions) = @_;
	my @lines;
	for (my $i = 0; $i * $published < $n; $i++)
	{
		push @{ $lines[$i % $sessions] }, sprintf
			'SELECT narinfo.publish_many(ARRAY(SELECT info FROM %s'
			. ' WHERE n > %d AND n <= %d), \'load\');', $table,
			$i * $published, ($i + 1) * $published;
	}
	return map { psql_script("many-$_", @{ $lines[$_] }) } 0 .. $#lines;
}

sub run_many
{
	start_anew();
	make_source($rows);
	my @scripts = publishing('bench.raw', $rows, 1);
	my $begin = time;
	my $took = run_scripts(@scripts);
	wait_for_index();
	my $caught_up = time - $begin;
	load_row("load: publish_many of $published", $rows, $took, $caught_up);
	check_load('load: publish_many', $rows);
}

# ---- signatures

# Paths that refer to what is there, so that sessions need not wait for each
# other.
sub make_signed
{
	sql("SELECT narinfo.generate_key('bench-1')") unless -e "$dir/keys/bench-1";
	my $key = sql("SELECT regexp_replace(s, ':.*', ':' || encode(substr(decode(
		regexp_replace(s, '.*:', ''), 'base64'), 33), 'base64'))
		FROM (SELECT pg_read_file('$dir/keys/bench-1')) AS t (s)");
	sql("SELECT narinfo.trust_key('$key', 'load')");
	make_source($checked);
	sql(qq{SELECT narinfo.publish_many(array_agg(info ORDER BY n), 'load')
		FROM bench.raw});
	sql(q{CREATE UNLOGGED TABLE bench.signed AS
		SELECT n, narinfo.sign_narinfo(regexp_replace(info::text,
			'(?<=^StorePath: /nix/store/).{32}',
			translate(md5(n::text), 'e', 'z'))::narinfo.narinfo, 'bench-1') AS info
		FROM bench.raw});
	sql('CREATE INDEX ON bench.signed (n)');
	sql('VACUUM ANALYZE bench.signed');
}

sub publish_signed
{
	my ($wanted, $sessions) = @_;
	my @scripts = publishing('bench.signed', $checked, $sessions);
	sql("SELECT narinfo.alter_cache('load', min_signatures => $wanted)");
	sql(q{DELETE FROM narinfo.valid_path AS v USING bench.signed AS s
		WHERE v.cache = 'load' AND v.hash OPERATOR(narinfo.=) narinfo.store_hash(s.info)});
	sql('VACUUM narinfo.valid_path');
	wait_for_index();
	my $begin = time;
	run_scripts(@scripts);
	wait_for_index();
	return { rate => $checked / (time - $begin) };
}

sub run_checked
{
	my $sessions = processors();
	start_anew();
	make_signed();
	my $r = rounds('bare verify' => sub { { rate => bare('verify') } },
		"checked, $sessions sessions" => sub { publish_signed(1, $sessions) },
		'checked, 1 session' => sub { publish_signed(1, 1) },
		'unchecked, 1 session' => sub { publish_signed(0, 1) });
	compare("load: publish_many, signatures checked, $sessions sessions", $r,
		"checked, $sessions sessions", 'bare verify', 'rate');
	compare('load: publish_many, signatures checked, 1 session', $r,
		'checked, 1 session', 'bare verify', 'rate');

	# What the loop allows: one session that has to wait for it as well.
	$r->{'unchecked and bare verify'} = [map { { rate => 1 /
		(1 / $r->{'unchecked, 1 session'}[$_]{rate}
			+ 1 / $r->{'bare verify'}[$_]{rate}) } } 0 .. $rounds - 1];
	compare('load: publish_many, signatures checked, 1 session', $r,
		'checked, 1 session', 'unchecked and bare verify', 'rate', hold => 0.8);
	check_load('load: signatures', 2 * $checked);
}

# ---- single publishes

sub run_single
{
	start_anew();
	make_source($checked);
	sql(qq{SELECT narinfo.publish_many(array_agg(info ORDER BY n), 'load')
		FROM bench.raw});
	sql(q{CREATE FUNCTION bench.single(name text, n bigint) RETURNS narinfo.narinfo
		LANGUAGE sql STABLE AS $$ SELECT regexp_replace(info::text,
			'(?<=^StorePath: /nix/store/).{32}',
			translate(md5(name), 'e', 'z'))::narinfo.narinfo
		FROM bench.raw AS r WHERE r.n = single.n $$});
	my $script = psql_script('single', '\set k random(1, 9000000000)',
		"\\set n random(1, $checked)",
		q{SELECT narinfo.publish(bench.single('s:client_id-:k', :n), 'load')});
	for my $sessions (1, 8, 32)
	{
		my @rates = map { pgbench($sessions, $script) } 1 .. $rounds;
		info("load: single publishes, $sessions sessions", '/s', median(@rates));
	}
	wait_for_index();
	my $seq = sql(q{SELECT narinfo.last_event('load')});
	check_load('load: single publishes', $seq - 1);
}

sub pgbench
{
	my ($clients, $script) = @_;
	my $text = qx('$Bench::bindir/pgbench' -n -h '$dir' -p 5432 -U postgres -c $clients -j 1 -T $seconds -f '$script' narinfo 2>&1);
	my ($rate) = $text =~ /^tps = ([\d.]+)/m;
	die "pgbench: $text\n" if $? || !defined $rate || $text =~ /aborted/;
	return $rate;
}

my %step = (copy => \&run_copy, many => \&run_many, checked => \&run_checked,
	single => \&run_single);
for (@steps)
{
	my $run = $step{$_} or die "no step $_\n";
	progress("load: $_");
	$run->();
}
start_anew();
sql('DROP SCHEMA bench');
sql(q{SELECT narinfo.drop_cache('load')});
sql('ALTER SYSTEM RESET autovacuum');
unlink glob "$dir/load-*";
Bench::forget_rows();
1;
