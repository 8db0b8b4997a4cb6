# Beginnings and ends: kill -9, a dropped database, a database or role that is
# not there yet, too few worker processes, two servers on one address, and a
# server that does not preload the library.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('lifecycle', database => 'cachedb',
	conf => "restart_after_crash = on\nmax_worker_processes = 6\n"
		. "pg_narinfo.http_workers = 2\n");
my $port = $node->{http_port};
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};

sub sql { return $node->safe_psql('cachedb', @_) }

sub status
{
	my ($path) = @_;
	my $reply = eval { http_get($port, $path) };
	return $reply ? $reply->{status} : 0;
}

sub launcher_state
{
	return $node->safe_psql('postgres', q{
		SELECT state FROM narinfo.stat_workers WHERE kind = 'launcher'});
}

sub count_log
{
	my ($pattern, $offset) = @_;
	my $log = slurp_file($node->logfile, $offset // 0);
	return scalar(() = $log =~ /$pattern/g);
}

sql("CALL narinfo.import_cache('$cache_dir')");
is(status("/$hash.narinfo"), 200, 'it serves');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_narinfo');

# ---- kill -9

my $pid = sql(q{SELECT min(pid) FROM narinfo.stat_workers WHERE kind = 'http'});
kill 'KILL', $pid;
ok(poll_until(sub { status("/$hash.narinfo") == 0
	|| eval { sql('SELECT 1') } ne '1' || 1 }), 'killed');
ok(poll_until(sub {
	my $out = eval { sql(q{SELECT count(*) FROM narinfo.stat_workers
		WHERE kind = 'http' AND state = 'serving'}) };
	defined $out && $out eq '2'
}), 'after a crash, both workers are back');
is(status("/$hash.narinfo"), 200, 'and serve');

# ---- more workers than max_worker_processes allows

my $offset = -s $node->logfile;
$node->append_conf('postgresql.conf', "pg_narinfo.http_workers = 8\n");
$node->reload;
$node->wait_for_log(qr/no room for another background worker/, $offset);
like(slurp_file($node->logfile, $offset), qr/HINT:.*max_worker_processes/,
	'the hint names the setting');
is(status("/$hash.narinfo"), 200, 'those that are there serve');
$node->append_conf('postgresql.conf', "pg_narinfo.http_workers = 1\n");
$node->reload;
ok(poll_until(sub { launcher_state() eq 'working' }), 'all is well again');

# ---- DROP DATABASE

my ($ret, $out, $err) = $node->psql('postgres', 'DROP DATABASE cachedb');
isnt($ret, 0, 'a database that is served cannot be dropped');
like($err, qr/being accessed by other users/, 'says PostgreSQL');

sql('SELECT narinfo.stop()');
is(status('/health'), 0, 'narinfo.stop(): nobody serves');
is(launcher_state(), 'stopped by narinfo.stop()', 'the launcher says why');
$node->safe_psql('postgres', 'ALTER DATABASE cachedb RENAME TO other');
$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO cachedb');
sql('SELECT narinfo.start()');
ok(wait_for_http($port), 'narinfo.start(): it serves');

sql('SELECT narinfo.stop()');
$node->safe_psql('postgres', 'DROP DATABASE cachedb');
pass('after narinfo.stop() it can be dropped');
$node->safe_psql('postgres', 'CREATE DATABASE cachedb');
sql('CREATE EXTENSION pg_narinfo');
sql('SELECT narinfo.start()');
ok(wait_for_http($port), 'made anew, and served');

$offset = -s $node->logfile;
$node->safe_psql('postgres', 'DROP DATABASE cachedb WITH (FORCE)');
pass('dropped by force');
ok(poll_until(sub { launcher_state() =~ /no database "cachedb"/ }),
	'the launcher knows');
is(status('/health'), 0, 'nobody serves');
my $start = time;
poll_until(sub { time - $start > 4 });
is(count_log(qr/no database "cachedb"/, $offset), 1,
	'one line in the log');
is(count_log(qr/starting background worker|exited with exit code/, $offset),
	0, 'no restart loop');

# It is served as soon as it is there, with 503 until the extension is.
$node->safe_psql('postgres', 'CREATE DATABASE cachedb');
ok(poll_until(sub { status('/health') == 503 }), 'there again: 503');
is(status("/$hash.narinfo"), 503, 'not 404');
sql('CREATE EXTENSION pg_narinfo');
is(status('/health'), 200, 'with the extension: 200');

# ---- narinfo.stop() in a database that is not served

($ret, $out, $err) = $node->psql('postgres', 'SELECT narinfo.stop()');
isnt($ret, 0, 'stop() elsewhere is refused');
like($err, qr/serve "cachedb"/, 'and says what is served');

($ret, $out, $err) = $node->psql('cachedb', 'CREATE ROLE nobody;
	GRANT USAGE ON SCHEMA narinfo TO nobody; SET ROLE nobody;
	SELECT narinfo.stop()');
like($err, qr/permission denied/, 'not everybody may stop the workers');

# ---- two servers on one address

my $second = narinfo_node('second', start => 0,
	conf => "pg_narinfo.listen = '127.0.0.1:$port'\n");
$second->start;
$second->safe_psql('postgres', 'CREATE EXTENSION pg_narinfo');
$second->wait_for_log(qr/127\.0\.0\.1:$port.*in use/);
like($second->safe_psql('postgres',
	q{SELECT state FROM narinfo.stat_workers WHERE kind = 'launcher'}),
	qr/in use/, 'the second server says that the address is taken');
like(slurp_file($second->logfile), qr/HINT:.*pg_narinfo\.listen/,
	'and what to do');
is($second->safe_psql('postgres',
	q{SELECT count(*) FROM narinfo.stat_workers WHERE kind = 'http'}), '0',
	'it does not serve');
is(status('/health'), 200, 'the first one does');
$node->stop;
ok(poll_until(sub { status('/health') == 200 }),
	'when the first is gone, the second serves');
$second->stop;

# ---- without shared_preload_libraries

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION pg_narinfo');
$plain->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");
is($plain->safe_psql('postgres', 'SELECT count(*) > 0 FROM narinfo.valid_path'),
	't', 'types and functions work');
# A database with an identity can be started without anybody to serve it.
for my $function (qw(start stop))
{
	($ret, $out, $err) =
		$plain->psql('postgres', "SELECT narinfo.$function()");
	is($ret, $function eq 'start' ? 0 : 3,
		"$function() has nothing to work with");
	like($err, qr/HINT:.*shared_preload_libraries/, 'and says what is missing');
}
$plain->safe_psql('postgres', 'CREATE DATABASE empty');
$plain->safe_psql('empty', 'CREATE EXTENSION pg_narinfo');
($ret, $out, $err) = $plain->psql('empty', 'SELECT narinfo.start()');
isnt($ret, 0, 'in an empty one there is nothing to start');
is($plain->safe_psql('postgres', 'SELECT count(*) FROM narinfo.stat_workers'),
	'0', 'no workers');
$plain->stop;

done_testing();
