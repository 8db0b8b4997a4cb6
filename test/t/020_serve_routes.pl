# What each route answers: narinfos, nix-cache-info, health, other caches,
# private caches, and what is absent.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('routes');
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

sub status_is
{
	my ($method, $path, $status) = @_;
	my $reply = http_request($port, $method, $path);
	is($reply->{status}, $status, "$method $path is $status");
	return $reply;
}

sql("CALL narinfo.import_cache('$cache_dir')");

my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my $text = slurp_bytes("$cache_dir/$hash.narinfo");

# ---- a narinfo

my $reply = status_is('GET', "/$hash.narinfo", 200);
is($reply->{body}, $text, 'a narinfo has the bytes that were imported');
is($reply->{headers}{'content-type'}, 'text/x-nix-narinfo', 'its type');
is($reply->{headers}{'cache-control'}, 'public, max-age=86400', 'its age');
ok(!exists $reply->{headers}{'content-encoding'}, 'it is not encoded');
my $etag = $reply->{headers}{etag};
like($etag, qr/^"[0-9a-f]+"$/, 'it has a strong ETag');

is(http_get($port, "/main/$hash.narinfo")->{body}, $text, 'the same of /main/');

$reply = status_is('HEAD', "/$hash.narinfo", 200);
is($reply->{headers}{'content-length'}, length $text, 'HEAD has the length');

$reply = http_get($port, "/$hash.narinfo", 'If-None-Match' => $etag);
is($reply->{status}, 304, 'If-None-Match: 304');
is($reply->{headers}{etag}, $etag, '304 has the ETag');
is(http_get($port, "/$hash.narinfo", 'If-None-Match' => '"x"')->{status},
	200, 'another ETag: 200');

# ---- every narinfo, many on one connection, all asked before one is read

my @files = glob "$cache_dir/*.narinfo";
my $socket = http_connect($port);
for (@files)
{
	my ($name) = m{([^/]+)$};
	print $socket "GET /$name HTTP/1.1\r\nHost: h\r\n\r\n";
}
my $same = grep { read_reply($socket)->{body} eq slurp_bytes($_) } @files;
is($same, scalar @files, 'all narinfos, pipelined, in order');

# ---- what is absent

$reply = status_is('GET', '/' . ('0' x 32) . '.narinfo', 404);
is($reply->{headers}{'cache-control'}, 'public, max-age=60',
	'an absence is remembered for a minute');
status_is('HEAD', '/' . ('0' x 32) . '.narinfo', 404);
for my $path (
	'/', '/nope', '/main', '/main/', '/main/nope', '/nope/nix-cache-info',
	'/api/queue?nr=1000', '/.narinfo', '/e.narinfo',
	"/" . ('e' x 32) . '.narinfo',     # e is no digit of nix32
	"/" . uc($hash) . '.narinfo', "/${hash}0.narinfo", "/x/$hash.narinfo",
	"/main/main/$hash.narinfo", '/nar', '/nar/', '/health/', '/HEALTH',
	'/' . ('a' x 64) . '/nix-cache-info', "/$hash.narinfo/", '/.ls')
{
	status_is('GET', $path, 404);
}

# ---- methods

for my $method (qw(POST DELETE OPTIONS))
{
	$reply = status_is($method, '/nix-cache-info', 405);
	is($reply->{headers}{allow}, 'GET, HEAD', "$method: what is allowed");
}
status_is('PUT', "/$hash.narinfo", 401);
status_is('PUT', '/nar/new.nar.xz', 401);
status_is('PUT', '/nix-cache-info', 401);
status_is('POST', '/health', 405);
status_is('PUT', '/nope', 404);

# ---- nix-cache-info, health

$reply = status_is('GET', '/nix-cache-info', 200);
is($reply->{body}, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n",
	'main is implied');
is($reply->{headers}{'content-type'}, 'text/x-nix-cache-info', 'its type');
status_is('HEAD', '/main/nix-cache-info', 200);

$reply = status_is('GET', '/health', 200);
like($reply->{body}, qr/^\{"status": "ok", .*"reasons": \[\]\}$/, 'healthy');
is($reply->{headers}{'cache-control'}, 'no-store', 'health is never kept');

# ---- another cache, and a private one

sql(q{
	INSERT INTO narinfo.cache (name, store_dir, priority, want_mass_query)
	VALUES ('team', '/nix/store', 7, false);
	INSERT INTO narinfo.cache (name, visibility) VALUES ('secret', 'private');
});
is(http_get($port, '/team/nix-cache-info')->{body},
	"StoreDir: /nix/store\nWantMassQuery: 0\nPriority: 7\n",
	'the nix-cache-info of another cache');
status_is('GET', "/team/$hash.narinfo", 404);
sql("CALL narinfo.import_cache('$cache_dir', 'team')");
is(http_get($port, "/team/$hash.narinfo")->{body}, $text,
	'and what was imported there');

for my $path ('nix-cache-info', "$hash.narinfo", 'nar/x', 'nope', '')
{
	$reply = status_is('GET', "/secret/$path", 401);
	is($reply->{headers}{'www-authenticate'}, 'Basic realm="secret"',
		'says for what');
	is($reply->{headers}{'cache-control'}, 'no-store', 'not to be kept');
}
status_is('PUT', "/secret/$hash.narinfo", 401);

sql("UPDATE narinfo.cache SET visibility = 'private' WHERE name = 'team'");
status_is('GET', "/team/$hash.narinfo", 401);
sql("DELETE FROM narinfo.valid_path WHERE cache = 'team'");
sql("DELETE FROM narinfo.cache WHERE name = 'team'");
status_is('GET', "/team/$hash.narinfo", 404);

# ---- the default cache, and how long replies may be kept, are settings

$node->append_conf('postgresql.conf', "pg_narinfo.cache = 'secret'\n"
	. "pg_narinfo.narinfo_max_age = '1h'\npg_narinfo.absent_max_age = 5\n");
$node->reload;
ok(poll_until(sub { http_get($port, '/nix-cache-info')->{status} == 401 }),
	'another default cache after a reload');
$reply = status_is('GET', "/main/$hash.narinfo", 200);
is($reply->{headers}{'cache-control'}, 'public, max-age=3600', 'new age');
$reply = status_is('GET', '/nope', 404);
is($reply->{headers}{'cache-control'}, 'public, max-age=5', 'of absence, too');

# ---- figures

ok(poll_until(sub {
	sql('SELECT sum(requests) FROM narinfo.stat_workers') > 100
}), 'stat_workers counts requests');
# The one request after a pause, on a connection that stays open: nothing comes
# after it that would have it counted.
$socket = http_connect($port);
sleep 3;
my $counted = sql('SELECT sum(requests) FROM narinfo.stat_workers');
print $socket "GET /nix-cache-info HTTP/1.1\r\nHost: h\r\n\r\n";
read_reply($socket);
ok(poll_until(sub {
	sql('SELECT sum(requests) FROM narinfo.stat_workers') == $counted + 1
}), 'the last one, too');
ok(poll_until(sub {
	sql(q{SELECT kind || ' ' || state FROM narinfo.stat_workers ORDER BY 1})
		eq "http serving\nlauncher working\nwriter serving"
}), 'stat_workers shows the processes');
is(sql(q{SELECT backend_type, usename, datname, state, backend_xmin IS NULL
	FROM pg_stat_activity WHERE backend_type = 'pg_narinfo http worker'}),
	'pg_narinfo http worker|narinfo_worker|postgres|idle|t',
	'pg_stat_activity shows an idle worker without a transaction');

done_testing();
