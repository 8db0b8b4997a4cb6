# What a client that may push is told is there was touched before it is told;
# what others ask for by lists is touched, too, when there is time for it.
use strict;
use warnings;

use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $base = PostgreSQL::Test::Utils::tempdir();
make_path("$base/files");
my $node = narinfo_node('use', file_root => "$base/files");
my $port = $node->{http_port};

sub sql
{
	return $node->safe_psql('postgres', "SET search_path = narinfo, public;\n"
		. $_[0]);
}

sql("CALL import_cache('$cache_dir')");
my $pusher = sql(q{SELECT create_token('pusher', '{push,read}')});
my $reader = sql(q{SELECT create_token('reader', '{read}')});
ok(poll_until(sub { sql(q{SELECT count(*) FROM stat_workers
	WHERE kind = 'writer' AND state = 'serving'}) eq '1' }),
	'a writer serves');

my @all = map { m{([^/]+)\.narinfo$} } glob "$cache_dir/*.narinfo";
my ($top) = $top_path =~ m{/nix/store/([^-]+)-};
my @closure = split /\n/, sql(<<~END);
	WITH RECURSIVE c (hash) AS (
		SELECT '$top'::store_hash
		UNION SELECT r FROM c JOIN valid_path AS v USING (hash),
			unnest(ref_hashes(v.info)) AS r
			WHERE v.cache = 'main')
	SELECT hash FROM c ORDER BY hash
	END
my $absent = '0' x 32;

sub as
{
	my ($token) = @_;
	return $token ? (Authorization => "Bearer $token") : ();
}

sub request
{
	my ($method, $path, $body, %headers) = @_;
	my $socket = http_connect($port);
	%headers = (Host => 'h', Connection => 'close', %headers);
	$headers{'Content-Length'} = length $body if defined $body;
	print $socket "$method $path HTTP/1.1\r\n",
		(map { "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n",
		$body // '';
	return read_reply($socket, $method eq 'HEAD' ? (head => 1) : ());
}

sub touched { return sql('SELECT hash FROM touched ORDER BY hash') }
sub forget { sql('DELETE FROM touched'); return }

# ---- one path

is(http_get($port, "/$top.narinfo")->{status}, 200, 'anybody asks');
is(http_get($port, "/$top.narinfo", as($reader))->{status}, 200,
	'one who may read asks');
is(touched(), '', 'neither touches it');
my $reply = http_get($port, "/$top.narinfo", as($pusher));
is(touched(), $top, 'one who may push has touched it, before the reply');
is($reply->{status}, 200, 'which is a 200');
is($reply->{body}, slurp_bytes("$cache_dir/$top.narinfo"), 'and the narinfo');
forget();
is(request('HEAD', "/$top.narinfo", undef, as($pusher))->{status}, 200,
	'by HEAD');
is(touched(), $top, 'as well');
forget();
is(http_get($port, "/$absent.narinfo", as($pusher))->{status}, 404,
	'what is not there is a 404');
is(touched(), '', 'and not touched');
is(http_get($port, "/$top.narinfo", as('narinfo_' . 'x' x 43))->{status}, 200,
	'a wrong token does not keep anybody from what is public');
is(touched(), '', 'nor does it touch anything');

# ---- lists and closures

for (['missing', '/missing', 'POST'], ['narinfos', '/narinfos', 'POST'],
	['closure', "/$top.closure", 'GET'])
{
	my ($what, $path, $method) = @$_;
	my @asked = $method eq 'POST' ? @all : @closure;
	my $body = $method eq 'POST' ? join("\n", $absent, @all) : undef;
	my $wanted = join "\n", split /\n/, sql("SELECT unnest('{"
		. join(',', @asked) . "}'::store_hash[]) ORDER BY 1");

	forget();
	my $with = request($method, $path, $body, as($pusher));
	is($with->{status}, 200, "$what: answered");
	is(touched(), $wanted, "$what: all was touched before the reply");

	forget();
	my $without = request($method, $path, $body);
	is($without->{body}, $with->{body}, "$what: the same for anybody");
	ok(poll_until(sub { touched() eq $wanted }),
		"$what: touched, after a while");
}

# More than one job has room for, by a pusher: one behind the other.
my $many = join '', map { sprintf "%032d\n", $_ } 1 .. 3900;
forget();
$reply = request('POST', '/missing', $many . "$top\n", as($pusher));
is($reply->{body}, $many, 'thousands of paths');
is(touched(), $top, 'the last one was touched');

# ---- a reply waits for the touch, and nobody else waits with it

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE narinfo.touched IN EXCLUSIVE MODE');
my $slow = http_connect($port);
print $slow "GET /$all[1].narinfo HTTP/1.1\r\nHost: h\r\n"
	. "Authorization: Bearer $pusher\r\n\r\n";
ok(poll_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'pg_narinfo writer'
	AND wait_event_type = 'Lock'}) eq '1' }), 'the writer waits for a lock');
is(http_get($port, "/$all[2].narinfo")->{status}, 200,
	'others are answered meanwhile');
$locker->query_safe('COMMIT');
$locker->quit;
is(read_reply($slow)->{status}, 200, 'and then so is the pusher');
like(touched(), qr/^\Q$all[1]\E$/m, 'whose path was touched');

# ---- where nobody can write, nobody waits

$node->append_conf('postgresql.conf', "pg_narinfo.writer_workers = 0\n");
$node->reload;
ok(poll_until(sub { sql(q{SELECT count(*) FROM stat_workers
	WHERE kind = 'writer'}) eq '0' }), 'no writer any more');
is(http_get($port, "/$all[3].narinfo", as($pusher))->{status}, 200,
	'a pusher is answered');
is(request('POST', '/missing', $all[3], as($pusher))->{status}, 200,
	'by lists, too');

$node->stop;
done_testing();
