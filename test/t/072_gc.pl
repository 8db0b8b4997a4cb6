# Collection: what nix itself would collect, going on after an interruption,
# and what is told meanwhile.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('gc');
my $cache = $node->{file_root};

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', "SET search_path = narinfo; $query");
}

sub paths
{
	return join "\n", sort @_;
}

# ---- the same paths and roots in a store of nix

sql("CALL import_cache('$cache')");
my @paths = split /\n/, sql('SELECT store_path(info) FROM valid_path');
is(scalar @paths, 82, 'the small cache is there');

my $home = PostgreSQL::Test::Utils::tempdir();
my ($status, $out, $err) = nix($home, 'nix', 'copy', '--no-check-sigs',
	'--from', "file://$cache", @paths);
is($status, 0, 'and in a store of nix') or diag($err);
my $gcroots = "$home/root/nix/var/nix/gcroots";
ok(-d $gcroots, 'which has a directory of roots');

# Nothing of it was published long ago.
sub dead
{
	my ($fraction) = @_;
	my $plan = sql("SELECT gc_plan('0', max_fraction => 1)");
	return ($plan, split /\n/, sql(<<~END));
		SELECT store_path(v.info) FROM gc_plan_path JOIN valid_path AS v
			USING (hash) WHERE plan = $plan AND v.cache = 'main' ORDER BY place
		END
}

# Fixed, so that a failure comes again: the top, single paths, pairs of them.
my @sorted = sort @paths;
my $plan;
for my $roots ([$top_path], [$sorted[3]], [@sorted[10, 40]],
	[@sorted[5, 25, 45, 65]], [grep { /-lib/ } @sorted], [@sorted])
{
	unlink glob "$gcroots/test-*";
	my $n = 0;
	symlink $_, "$gcroots/test-" . $n++ for @$roots;
	sql('DELETE FROM root; SELECT '
		. join ', ', map { "pin('r$_', '$roots->[$_]')" } 0 .. $#$roots);
	($status, $out, $err) = nix($home, 'nix-store', '--gc', '--print-dead');
	is($status, 0, 'nix-store --gc --print-dead') or diag($err);
	my @theirs = grep { m{^/nix/store/} && !m{/\.links} } split /\n/, $out;
	($plan, my @ours) = dead();
	is(paths(@ours), paths(@theirs), scalar(@$roots) . ' roots: '
		. scalar(@theirs) . ' paths are dead, as nix says');
	is(sql("SELECT planned FROM gc_plan WHERE plan = $plan"), scalar @ours,
		'each of them is valid');
}

# Carried out by both, the same is left.
unlink glob "$gcroots/test-*";
symlink $top_path, "$gcroots/test-0";
sql("DELETE FROM root; SELECT pin('top', '$top_path')");
($plan) = dead();
($status, $out, $err) = nix($home, 'nix-store', '--gc');
is($status, 0, 'nix-store --gc') or diag($err);
sql("CALL gc_run($plan, batch => 7, share => 1)");
($status, $out, $err) = nix($home, 'nix', 'path-info', '--all');
is(paths(split /\n/, sql('SELECT store_path(info) FROM valid_path')),
	paths(split /\n/, $out), 'the same paths are left');
($status) = nix($home, 'nix', 'path-info', '--store',
	"http://127.0.0.1:$node->{http_port}", '--recursive', $top_path);
is($status, 0, 'and the closure of the root is served');
sql('SELECT undelete(ARRAY(SELECT store_path(info) FROM trash))');
is(sql('SELECT count(*) FROM valid_path'), 82, 'what was removed came back');

# ---- ended in the middle, and called again

sql(<<'END');
	WITH p AS (SELECT n, translate(md5(n::text), 'e', 'z') AS h
		FROM generate_series(0, 1999) AS n)
	SELECT publish_many(array_agg(format(E'StorePath: /nix/store/%1$s-%2$s\n'
		'URL: nar/%1$s\nNarHash: sha256:0%3$s\nNarSize: 1\nReferences: %4$s\n',
		h, n, substr(h || h, 1, 51), CASE WHEN n > 0
			THEN translate(md5((n / 2)::text), 'e', 'z') || '-' || n / 2 END
		)::narinfo)) FROM p;
END
my $sound = <<'END';
	SELECT (SELECT count(*) = max(seq) FROM event WHERE cache = 'main')
		AND cache_digest() = (SELECT digest FROM event WHERE cache = 'main'
			ORDER BY seq DESC LIMIT 1)
		AND NOT EXISTS (SELECT FROM valid_path AS v,
				unnest(ref_hashes(v.info)) AS r
			WHERE NOT EXISTS (SELECT FROM valid_path AS w WHERE w.hash = r))
END
$plan = sql("SELECT gc_plan('0', max_fraction => 1)");
my $planned = sql("SELECT planned FROM gc_plan WHERE plan = $plan");
cmp_ok($planned, '>', 2000, 'there is much to do');

# Statements in a session of their own.
sub start
{
	my (@statements) = @_;
	return IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres'),
		map { ('-c', $_) } @statements ], '<', \undef, '>', \my $out,
		'2>', \my $err);
}

sub removed { return sql("SELECT removed FROM gc_plan WHERE plan = $plan"); }

for my $how (qw(terminate cancel crash))
{
	my $before = removed();
	my $session = start("CALL narinfo.gc_run($plan,"
		. ' batch => 5, share => 0.2)');
	ok(poll_until(sub { removed() > $before + 20 }), "it removes some ($how)");
	like(sql(q{SELECT command || ' ' || phase || ' ' || (done > 0) || ' '
			|| total FROM stat_progress}), qr/^gc_run removing true $planned$/,
		'which stat_progress shows');
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		"CALL narinfo.gc_run($plan)");
	like($stderr, qr/cache "main" is being collected already/,
		'nobody else collects meanwhile');
	if ($how eq 'crash')
	{
		$node->stop('immediate');
		$session->finish;
		$node->start;
	}
	else
	{
		my $end = $how eq 'cancel' ? 'cancel' : 'terminate';
		sql("SELECT pg_${end}_backend(pid) FROM pg_stat_activity
			WHERE query LIKE 'CALL narinfo.gc_run%' AND pid <> pg_backend_pid()");
		$session->finish;
		ok(poll_until(sub { sql('SELECT count(*) FROM stat_progress') eq 0 }),
			'it ended');
	}
	is(sql("SELECT state FROM gc_plan WHERE plan = $plan"), 'running',
		'its plan is not done');
	is(sql($sound), 't', 'nothing dangles, numbers and digest are right');
	my $now = removed();
	cmp_ok($now, '<', $planned, 'something is left');
	is(sql('SELECT count(*) FROM trash'), $now, 'what was removed is in trash');
	is(sql('SELECT count(*) FROM valid_path'), 2082 - $now, 'and only that');
}
sql("CALL gc_run($plan, share => 1)");
is(sql("SELECT state, removed FROM gc_plan WHERE plan = $plan"),
	"done|$planned", 'called again, it comes to its end');
is(sql($sound), 't', 'and the cache is sound');
is(sql('SELECT count(*) FROM valid_path'), 2082 - $planned, 'with what lives');
is(sql(q{SELECT count(*) FROM event WHERE kind = 'retract'}),
	$planned + 21, 'each that went has its event');

# ---- who was stopped by an error lets others collect, and lives on

sql('SELECT undelete(ARRAY(SELECT store_path(info) FROM trash))');
$plan = sql("SELECT gc_plan('0', max_fraction => 1)");
my $session = start("SET statement_timeout = '500ms'",
	"CALL narinfo.gc_run($plan, batch => 5, share => 0.01)",
	'SET statement_timeout = 0', 'SELECT pg_sleep(1000)');
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity
	WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'}) eq 1 }),
	'gc_run ran into the timeout');
is(sql("SELECT state FROM gc_plan WHERE plan = $plan"), 'running',
	'its plan is not done');
sql("CALL gc_run($plan, share => 1)");
is(sql("SELECT state FROM gc_plan WHERE plan = $plan"), 'done',
	'another session goes on');
$session->kill_kill;

# ---- gc_plan leaves the processors to those who commit

sql(<<'END');
	CREATE TABLE public.busy (n int);
	WITH p AS (SELECT n, translate(md5('more ' || n), 'e', 'z') AS h
		FROM generate_series(1, 60000) AS n)
	SELECT publish_many(array_agg(format(E'StorePath: /nix/store/%1$s-%2$s\n'
		'URL: nar/%1$s\nNarHash: sha256:0%3$s\nNarSize: 1\nReferences: \n',
		h, n, substr(h || h, 1, 51))::narinfo)) FROM p;
END
my $busy = start('DO $$ BEGIN FOR i IN 1 .. 10000000 LOOP'
	. ' INSERT INTO public.busy VALUES (i); COMMIT; END LOOP; END $$');
$session = start("SELECT narinfo.gc_plan('0', max_fraction => 1, share => 0.001)");
my $planning = q{FROM pg_stat_activity WHERE state = 'active'
	AND query LIKE 'SELECT narinfo.gc_plan%'};
ok(poll_until(sub { sql("SELECT count(*) $planning
	AND wait_event_type = 'Extension'") eq 1 }), 'it rests while others commit');
like(sql('SELECT command || chr(32) || phase FROM stat_progress'),
	qr/^gc_plan (?:loading|marking|storing)$/, 'stat_progress shows where it is');
sql("SELECT pg_cancel_backend(pid) $planning");
ok(poll_until(sub { sql("SELECT count(*) $planning") eq 0 }),
	'and can be cancelled then');
$session->finish;
$busy->kill_kill;
sql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity'
	. q{ WHERE query LIKE 'DO %'});
sql("SELECT gc_plan('0', max_fraction => 1, share => 0.5)");
is(sql('SELECT paths > 60000 FROM gc_plan ORDER BY plan DESC LIMIT 1'), 't',
	'it finds all');

# ---- what takes much memory is said before

sql('ANALYZE valid_path');
my (undef, undef, $said) = $node->psql('postgres',
	"SELECT narinfo.gc_plan('0', max_fraction => 1)");
unlike($said, qr/MB/, 'nothing is said of a few MB');
sql(q{UPDATE pg_class SET reltuples = 3000000
	WHERE oid = 'narinfo.valid_path'::regclass});
(undef, undef, $said) = $node->psql('postgres',
	"SELECT narinfo.gc_plan('0', max_fraction => 1)");
like($said, qr/NOTICE: +marking cache "main" takes about 1\d\d MB/,
	'but of many, by the statistics');
sql('ANALYZE valid_path');
done_testing();
