# A physical hot standby serves while the primary writes.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $database = 'cachedb';
my $primary = narinfo_node('primary', init => [ allows_streaming => 1 ],
	database => $database,
	conf => "max_standby_streaming_delay = 100ms\nautovacuum = off\n");
$primary->backup('copy');

my $standby = PostgreSQL::Test::Cluster->new('standby');
my $port = PostgreSQL::Test::Cluster::get_free_port();
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf',
	"pg_narinfo.listen = '127.0.0.1:$port'\n");
$standby->start;
ok(wait_for_http($port), 'the standby serves');
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't',
	'and is a standby');

my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
is(http_get($port, "/$hash.narinfo")->{status}, 404, 'nothing there yet');
is(http_get($port, '/health')->{status}, 200, 'healthy');

$primary->safe_psql($database, "CALL narinfo.import_cache('$cache_dir')");
$primary->wait_for_catchup($standby);
is(http_get($port, "/$hash.narinfo")->{body},
	slurp_bytes("$cache_dir/$hash.narinfo"), 'what the primary was given');
is(http_get($port, '/changes?limit=50&after=20')->{body},
	http_get($primary->{http_port}, '/changes?limit=50&after=20')->{body},
	'and its events');

# Rows that are rewritten and vacuumed away conflict with whoever reads them.
my %seen;
for my $round (1 .. 20)
{
	$primary->safe_psql($database, q{
		UPDATE narinfo.valid_path SET info = info;
		VACUUM (FREEZE, TRUNCATE) narinfo.valid_path;
	}) if $round % 2;
	$primary->safe_psql($database, 'VACUUM FULL narinfo.valid_path')
		if $round % 5 == 0;
	my $socket = http_connect($port);
	print $socket "GET /$hash.narinfo HTTP/1.1\r\nHost: h\r\n\r\n"
		for 1 .. 100;
	$seen{ read_reply($socket)->{status} }++ for 1 .. 100;
}
$primary->wait_for_catchup($standby);
is($seen{404}, undef, 'a path that is there is never absent');
is(join(' ', grep { !/^(?:200|503)$/ } keys %seen), '',
	'no answer but 200 and 503');
is(http_get($port, "/$hash.narinfo")->{status}, 200, 'and 200 at the end');

# A private cache is private there, too, as soon as it is replayed.
$primary->safe_psql($database, q{INSERT INTO narinfo.cache (name)
	VALUES ('team')});
$primary->wait_for_catchup($standby);
is(http_get($port, '/team/nix-cache-info')->{status}, 200, 'a new cache');
$primary->safe_psql($database, q{UPDATE narinfo.cache
	SET visibility = 'private' WHERE name = 'team'});
$primary->wait_for_catchup($standby);
is(http_get($port, '/team/nix-cache-info')->{status}, 401, 'made private');

# The database is dropped under the standby's worker, and made again.
$primary->safe_psql('postgres', 'DROP DATABASE cachedb WITH (FORCE)');
$primary->wait_for_catchup($standby);
ok(poll_until(sub { !eval { http_get($port, '/health') } }),
	'without the database, nobody serves');
$primary->safe_psql('postgres', 'CREATE DATABASE cachedb');
$primary->safe_psql($database, 'CREATE EXTENSION pg_narinfo');
$primary->safe_psql($database, "CALL narinfo.import_cache('$cache_dir')");
$primary->wait_for_catchup($standby);
ok(wait_for_http($port), 'the standby serves the new one');

$standby->promote;
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f',
	'promoted');
is(http_get($port, "/$hash.narinfo")->{status}, 200, 'it serves on');
unlike(slurp_file($standby->logfile), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed');

done_testing();
