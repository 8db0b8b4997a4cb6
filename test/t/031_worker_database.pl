# What may happen to the database under a worker: locks, a missing extension
# or table, a damaged row.  Each costs as little as it must.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('database');
my $port = $node->{http_port};
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my ($nar) = map { m{(nar/[^/]+)$} } glob "$cache_dir/nar/*";

sub sql { return $node->safe_psql('postgres', @_) }

sub status
{
	my ($path) = @_;
	return http_get($port, $path)->{status};
}

sub worker_pid
{
	return sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'http'});
}

sub load { return sql("CALL narinfo.import_cache('$cache_dir')") }

load();
my $pid = worker_pid();
is(status("/$hash.narinfo"), 200, 'it serves');

# ---- a table that is locked

sub locked
{
	my ($table) = @_;
	my $locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN');
	$locker->query_safe("LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	return $locker;
}

my $locker = locked('narinfo.valid_path');
for my $round (1 .. 5)
{
	my $start = time;
	my $reply = http_get($port, "/$hash.narinfo");
	my $took = time - $start;
	is($reply->{status}, 503, 'locked: 503');
	like($reply->{headers}{'retry-after'}, qr/^\d+$/, 'with Retry-After');
	cmp_ok($took, '<', 0.2, 'within 200 ms');
}

# Many at once do not wait for each other.
my $start = time;
my $socket = http_connect($port);
print $socket "GET /$hash.narinfo HTTP/1.1\r\nHost: h\r\n\r\n" x 1000;
is(scalar(grep { read_reply($socket)->{status} == 503 } 1 .. 1000), 1000,
	'1000 pipelined requests: 503');
cmp_ok(time - $start, '<', 0.6, 'soon');
my @sockets = map { http_connect($port) } 1 .. 50;
$start = time;
print $_ "GET /$hash.narinfo HTTP/1.1\r\nHost: h\r\n\r\n" for @sockets;
is(scalar(grep { read_reply($_)->{status} == 503 } @sockets), 50,
	'50 connections: 503');
cmp_ok(time - $start, '<', 0.5, 'soon');

$start = time;
is(status('/health'), 200, 'health is no matter of that table');
is(status("/$nar"), 200, 'nor are files');
is(status('/nix-cache-info'), 200, 'nor is nix-cache-info');
cmp_ok(time - $start, '<', 0.5, 'and they are fast');

$locker->query_safe('COMMIT');
$locker->quit;
is(status("/$hash.narinfo"), 200, 'fine again with the next request');

$locker = locked('narinfo.cache');
$start = time;
like(status('/nix-cache-info'), qr/^(?:200|503)$/, 'narinfo.cache locked');
cmp_ok(time - $start, '<', 0.2, 'an answer within 200 ms');
$locker->query_safe('COMMIT');
$locker->quit;
is(status('/nix-cache-info'), 200, 'fine again');

# ---- a table that is missing or renamed

sql('ALTER TABLE narinfo.valid_path RENAME TO elsewhere');
my $reply = http_get($port, "/$hash.narinfo");
is($reply->{status}, 503, 'a renamed table: 503');
ok($reply->{headers}{'retry-after'}, 'with Retry-After');
sql('ALTER TABLE narinfo.elsewhere RENAME TO valid_path');
is(status("/$hash.narinfo"), 200, 'named back: 200');

sql('ALTER TABLE narinfo.cache RENAME TO elsewhere');
is(status('/health'), 503, 'the other table: no health');
is(status("/$hash.narinfo"), 503, 'nor narinfos');
sql('ALTER TABLE narinfo.elsewhere RENAME TO cache');
is(status("/$hash.narinfo"), 200, 'named back: 200');
is(status('/health'), 200, 'healthy');

# ---- rewritten, truncated, re-indexed while it is served

sql('VACUUM FULL narinfo.valid_path');
is(status("/$hash.narinfo"), 200, 'after VACUUM FULL');
sql('REINDEX TABLE narinfo.valid_path');
is(status("/$hash.narinfo"), 200, 'after REINDEX');
sql('DELETE FROM narinfo.valid_path');
is(status("/$hash.narinfo"), 404, 'deleted: 404');
load();
is(status("/$hash.narinfo"), 200, 'and back');

# ---- a damaged row: the last bytes of a narinfo are cut off

my ($bad) = map { m{([^/]+)\.narinfo$} ? $1 : () }
	grep { !/$hash/ } glob "$cache_dir/*.narinfo";
# the gate would not have it
my ($ret, $out, $err) = $node->psql('postgres', qq{
	SET session_replication_role = replica;
	CREATE CAST (bytea AS narinfo.narinfo) WITHOUT FUNCTION;
	CREATE CAST (narinfo.narinfo AS bytea) WITHOUT FUNCTION;
	UPDATE narinfo.valid_path SET info =
		substring(info::bytea FROM 1 FOR length(info::bytea) - 9)
			::narinfo.narinfo
		WHERE cache = 'main' AND hash::text = '$bad';
	DROP CAST (bytea AS narinfo.narinfo);
	DROP CAST (narinfo.narinfo AS bytea);
}, on_error_stop => 1);
is($ret, 0, 'a row can be damaged') or diag($err);

my $offset = -s $node->logfile;
is(status("/$bad.narinfo"), 500, 'a damaged row: 500');
is(status("/$hash.narinfo"), 200, 'its neighbour: 200');
ok($node->log_contains(qr/damaged.*\n.*HTTP request for "\/$bad/,
	$offset), 'the log says what and where');

# Between good ones, on one connection.
$socket = http_connect($port);
print $socket map { "GET /$_.narinfo HTTP/1.1\r\nHost: h\r\n\r\n" }
	($hash, $bad, $hash, $bad, $hash);
is(join(' ', map { read_reply($socket)->{status} } 1 .. 5),
	'200 500 200 500 200', 'costs its own request alone');
sql("SET session_replication_role = replica; DELETE FROM narinfo.valid_path WHERE hash::text = '$bad'");

# ---- what the role may be set to does not matter

sql(q{ALTER ROLE narinfo_worker SET default_transaction_isolation =
	'serializable'});

# ---- the extension goes and comes

sql('DROP EXTENSION pg_narinfo CASCADE');
is(status("/$hash.narinfo"), 503, 'dropped: 503');
is(status('/health'), 503, 'no health');
is(status("/$nar"), 503, 'no files');
is(status('/nope'), 404, 'what is no route is still absent');
sql('CREATE EXTENSION pg_narinfo');
is(status('/health'), 200, 'created again: healthy');
is(status("/$hash.narinfo"), 404, 'and empty');
load();
is(status("/$hash.narinfo"), 200, 'and full');

# ---- dropped while the janitor waits for one of its locks

for my $round (1 .. 3)
{
	$offset = -s $node->logfile;
	sql(q{
		BEGIN;
		DROP EXTENSION pg_narinfo CASCADE;
		DO $$
		DECLARE
			janitor int := (SELECT pid FROM pg_stat_activity
				WHERE backend_type = 'pg_narinfo janitor');
		BEGIN
			FOR i IN 1 .. 10000 LOOP
				IF EXISTS (SELECT FROM pg_locks
					WHERE pid = janitor AND NOT granted)
				THEN
					RETURN;
				END IF;
				PERFORM pg_sleep(0.001);
			END LOOP;
			RAISE 'the janitor waits for nothing';
		END $$;
		COMMIT;
		CREATE EXTENSION pg_narinfo;
	});
	load();
	sleep 1;
	ok(!$node->log_contains(qr/ERROR: |exited with exit code/, $offset),
		"dropped while the janitor waits, time $round: no error");
}

# ---- created and dropped again and again, while it is asked

my $worst = 0;
for my $round (1 .. 20)
{
	my $asking = http_connect($port);
	print $asking "GET /$hash.narinfo HTTP/1.1\r\nHost: h\r\n\r\n"
		for 1 .. 50;
	sql('DROP EXTENSION pg_narinfo CASCADE; CREATE EXTENSION pg_narinfo');
	for (1 .. 50)
	{
		my $status = read_reply($asking)->{status};
		$worst = $status if $status !~ /^(?:200|404|503)$/;
	}
}
is($worst, 0, 'no answer but 200, 404 and 503');
load();
is(status("/$hash.narinfo"), 200, 'fine');

is(worker_pid(), $pid, 'it was the same worker all the time');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed');

done_testing();
