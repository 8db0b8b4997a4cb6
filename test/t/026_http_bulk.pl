# Bulk questions: POST /narinfos, POST /missing, GET /HASH.closure; their
# bounds, and what is refused.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('bulk');
my $port = $node->{http_port};

# Its operators are found by the search path.
sub sql
{
	return $node->safe_psql('postgres', "SET search_path = narinfo, public;\n"
		. $_[0]);
}

# A POST; more headers may follow, and undef takes Content-Length away.
sub post
{
	my ($path, $body, %headers) = @_;
	my $socket = http_connect($port);
	%headers = (Host => 'h', Connection => 'close',
		'Content-Length' => length $body, %headers);
	local $SIG{PIPE} = 'IGNORE';
	print $socket "POST $path HTTP/1.1\r\n",
		(map { "$_: $headers{$_}\r\n" } grep { defined $headers{$_} }
			sort keys %headers), "\r\n", $body;
	my $reply = read_reply($socket);
	$reply = read_reply($socket) if $reply->{status} == 100;
	return $reply;
}

# The hash parts of narinfos, in their order.
sub hashes
{
	my ($text) = @_;
	return map { m{^StorePath: /nix/store/([^-]+)-}m ? $1 : $_ }
		split /\n\n/, $text;
}

sub bytes_of { return join "\n", map { slurp_bytes("$cache_dir/$_.narinfo") } @_ }

sql("CALL narinfo.import_cache('$cache_dir')");
sql(q{SELECT narinfo.create_cache('secret', visibility => 'private'),
	narinfo.create_cache('team')});

my @all = map { m{([^/]+)\.narinfo$} } glob "$cache_dir/*.narinfo";
my ($top) = $top_path =~ m{/nix/store/([^-]+)-};
my @absent = map { ('0' x 31) . $_ } 1 .. 5;

# ---- /narinfos

my $body = join '', map { "$_\n" } @all;
my $reply = post('/narinfos', $body);
is($reply->{status}, 200, 'POST /narinfos');
is($reply->{body}, bytes_of(@all), 'all narinfos, byte for byte');
is($reply->{headers}{'content-type'}, 'text/x-nix-narinfo', 'its type');
is($reply->{headers}{'cache-control'}, 'no-store', 'not to be kept');
is(post('/main/narinfos', $body)->{body}, bytes_of(@all), 'of a cache by name');

my @mixed = ($top, $absent[0], $all[5], $absent[1], $all[3], $top);
is(post('/narinfos', join("\n", @mixed))->{body},
	bytes_of(@mixed[ 0, 2, 4, 5 ]),
	'those that are there, in the order of the request');
is(post('/narinfos', "$absent[0]\n")->{body}, '', 'none');
is(post('/narinfos', '')->{status}, 200, 'of none');
is(post('/team/narinfos', $body)->{body}, '', 'another cache has none of them');

# ---- /missing

is(post('/missing', join("\n", $absent[3], @all, @absent[ 2, 1 ], ''))->{body},
	"$absent[3]\n$absent[2]\n$absent[1]\n", 'POST /missing');
is(post('/missing', $body)->{body}, '', 'nothing is missing');
is(post('/team/missing', $body)->{body}, $body, 'all of it in another cache');
is(post('/missing', '')->{body}, '', 'of none');

# What was missing is not any more, and the other way round.
is(post('/team/missing', "$all[0]\n")->{body}, "$all[0]\n", 'missing');
sql("SELECT narinfo.alter_cache('team', require_closure => false)");
sql("INSERT INTO narinfo.valid_path (cache, info)
	SELECT 'team', info FROM narinfo.valid_path WHERE hash::text = '$all[0]'");
is(post('/team/missing', "$all[0]\n")->{body}, '', 'published');
sql("DELETE FROM narinfo.valid_path WHERE cache = 'team'");
is(post('/team/missing', "$all[0]\n")->{body}, "$all[0]\n", 'taken out');

# ---- /HASH.closure

$reply = http_get($port, "/$top.closure");
is($reply->{status}, 200, 'GET /HASH.closure');
my @closure = hashes($reply->{body});
is(scalar @closure, 61, 'a closure of 61 paths');
is($closure[0], $top, 'the path itself is the first');
is($reply->{body}, bytes_of(@closure), 'byte for byte');
is_deeply([ sort @closure ], [ split /\n/, sql(<<~"END") ], 'what SQL finds');
	WITH RECURSIVE c(hash) AS (
		SELECT '$top'::narinfo.store_hash
		UNION
		SELECT r FROM c JOIN narinfo.valid_path AS v USING (hash),
			unnest(narinfo.ref_hashes(v.info)) AS r WHERE v.cache = 'main')
	SELECT hash FROM c ORDER BY hash
	END
is(http_get($port, "/main/$top.closure")->{body}, $reply->{body},
	'of a cache by name');
is(http_request($port, 'HEAD', "/$top.closure")->{headers}{'content-length'},
	length $reply->{body}, 'HEAD');
is(http_get($port, "/$_.closure")->{status}, 404, "$_.closure is absent")
	for $absent[0], 'nonsense', '';
is(http_get($port, "/team/$top.closure")->{status}, 404, 'in another cache');

sql("INSERT INTO narinfo.valid_path (cache, info)
	SELECT 'team', info FROM narinfo.valid_path WHERE hash::text = '$top'");
is(http_get($port, "/team/$top.closure")->{body}, bytes_of($top),
	'references that are not valid are left out');

# ---- how a body may come

my $chunks = join '', map { sprintf "%x\r\n%s\r\n", length $_, $_ }
	$body =~ /(.{1,100})/gs;
is(post('/narinfos', "${chunks}0\r\n\r\n", 'Content-Length' => undef,
	'Transfer-Encoding' => 'chunked')->{body}, bytes_of(@all), 'in chunks');
is(post('/narinfos', $body, Expect => '100-continue')->{body},
	bytes_of(@all), 'behind 100 Continue');

my $socket = http_connect($port);
print $socket "POST /missing HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\n",
	"$absent[0]\nGET /$top.narinfo HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST /narinfos HTTP/1.1\r\nHost: h\r\nContent-Length: 32\r\n\r\n$top";
is(read_reply($socket)->{body}, "$absent[0]\n", 'pipelined: the first,');
is(read_reply($socket)->{body}, bytes_of($top), 'a GET,');
is(read_reply($socket)->{body}, bytes_of($top), 'and the last');

# Slowly, while others are answered.
print $socket "POST /missing HTTP/1.1\r\nHost: h\r\nContent-Length: 66\r\n\r\n";
for my $part ($absent[0], "\n", $absent[1])
{
	print $socket $part;
	is(http_get($port, "/$top.narinfo")->{status}, 200, 'others go on');
}
print $socket "\n";
is(read_reply($socket)->{body}, "$absent[0]\n$absent[1]\n", 'a slow body');

# ---- what is refused

for ([ 2, "$all[0]\n\n$all[1]\n" ], [ 1, "\n" ], [ 1, "$all[0]\r\n" ],
	[ 3, "$all[0]\n$all[1]\n$all[2]x\n" ], [ 1, "e$absent[0]" ],
	[ 2, "$all[0]\n" . ('e' x 32) ], [ 1, "/nix/store/$top-x\n" ])
{
	my ($line, $bad) = @$_;
	for my $path ('/narinfos', '/missing')
	{
		$reply = post($path, $bad);
		is($reply->{status}, 400, "$path: malformed");
		like($reply->{body}, qr/^line $line /, "line $line is named");
	}
}
for my $path ('/narinfos', '/missing', '/main/missing')
{
	for my $method (qw(GET HEAD PUT DELETE))
	{
		$reply = http_request($port, $method, $path);
		is($reply->{status}, 405, "$method $path is 405");
		is($reply->{headers}{allow}, 'POST', 'and says what is allowed');
	}
	next if $path =~ /main/;
	is(post("/secret$path", $body)->{status}, 401, "/secret$path is 401");
	is(post("/nowhere$path", $body)->{status}, 404, "/nowhere$path is 404");
}
is(http_get($port, "/secret/$top.closure")->{status}, 401,
	'the closure of a private cache is 401');
$reply = post("/$top.closure", '');
is($reply->{status}, 405, 'POST of a closure is 405');
is($reply->{headers}{allow}, 'GET, HEAD', 'and says what is allowed');
is(post('/nix-cache-info', $body)->{status}, 405, 'POST elsewhere');
is(post('/missing', $body, Expect => 'miracles')->{status}, 417,
	'another expectation');

# ---- bounds

sql('ALTER SYSTEM SET pg_narinfo.max_bulk_paths = 61');
$node->reload;
ok(poll_until(sub { post('/missing', $body)->{status} == 413 }),
	'too many paths: 413');
$reply = post('/missing', $body);
like($reply->{body}, qr/more than 61 paths/, 'that says so');
is(post('/missing', join('', map { "$_\n" } @all[ 0 .. 60 ]))->{status}, 200,
	'as many as are allowed');
is(post('/missing', "${chunks}0\r\n\r\n", 'Content-Length' => undef,
	'Transfer-Encoding' => 'chunked')->{status}, 413, 'too many in chunks');
is(http_get($port, "/$top.closure")->{status}, 200, 'a closure that is allowed');
sql('ALTER SYSTEM SET pg_narinfo.max_bulk_paths = 60');
$node->reload;
ok(poll_until(sub { http_get($port, "/$top.closure")->{status} == 413 }),
	'one path more');

sql('ALTER SYSTEM SET pg_narinfo.max_bulk_paths = 10000');
sql('ALTER SYSTEM SET pg_narinfo.max_bulk_reply = 64');
$node->reload;
my $many = "$top\n" x 1000;
ok(poll_until(sub { post('/narinfos', $many)->{status} == 413 }),
	'a reply that is too large: 413');
like(post('/narinfos', $many)->{body}, qr/more than 64 kB/, 'that says so');
is(post('/missing', $many)->{status}, 200, 'though the list is not');

sql('ALTER SYSTEM SET pg_narinfo.body_timeout = 200');
$node->reload;
$socket = http_connect($port);
ok(poll_until(sub {
	my $late = http_connect($port);
	print $late "POST /missing HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n";
	my $got = eval { read_reply($late, timeout => 5) };
	return $got && $got->{status} == 408;
}), 'a body that does not come: 408');

# ---- nobody waits for the table for long

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK narinfo.valid_path');
$reply = post('/missing', $body);
is($reply->{status}, 503, 'a locked table: 503');
ok($reply->{headers}{'retry-after'}, 'with Retry-After');
$locker->query_safe('ROLLBACK');
$locker->quit;
ok(poll_until(sub { post('/missing', $body)->{status} == 200 }), 'and again');

done_testing();
