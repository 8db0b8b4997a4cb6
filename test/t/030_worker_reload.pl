# What SIGHUP changes: addresses, the number of workers, limits; and that no
# connection is lost which need not be.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('reload');
my $port = $node->{http_port};
my $get = "GET /nix-cache-info HTTP/1.1\r\nHost: h\r\n\r\n";

sub sql { return $node->safe_psql('postgres', @_) }

sub set
{
	my ($name, $value) = @_;
	sql("ALTER SYSTEM SET pg_narinfo.$name = '$value'");
	sql('SELECT pg_reload_conf()');
	return;
}

sub answers
{
	my ($socket) = @_;
	print $socket $get;
	my $reply = read_reply($socket);
	return $reply && $reply->{status} == 200;
}

sub reachable
{
	my ($where) = @_;
	return scalar eval { http_get($where, '/nix-cache-info') };
}

sub workers
{
	return sql(q{SELECT count(*) FROM narinfo.stat_workers
		WHERE kind = 'http' AND state = 'serving'});
}

# ---- addresses

my $old = http_connect($port);
ok(answers($old), 'a connection');
my $other = PostgreSQL::Test::Cluster::get_free_port();
my $path = PostgreSQL::Test::Utils::tempdir_short() . '/http';

set('listen', "127.0.0.1:$port, 127.0.0.1:$other");
ok(poll_until(sub { reachable($other) }), 'one more address');
ok(answers($old), 'the connection lives on');

set('listen', "127.0.0.1:$other, unix:$path");
ok(poll_until(sub { !reachable($port) }), 'an address less');
ok(answers($old), 'the connection to it lives on');
ok(poll_until(sub { reachable($path) }), 'a unix socket');
ok(reachable($other), 'what was not changed goes on');

# The same port on another address of ours cannot be tried first.
set('listen', "*:$other");
ok(poll_until(sub { !-e $path }), 'the unix socket is removed');
ok(poll_until(sub { reachable($other) }), 'all addresses');

my ($ret, $stdout, $stderr) = $node->psql('postgres',
	"ALTER SYSTEM SET pg_narinfo.listen = 'nonsense'");
isnt($ret, 0, 'a bad address is refused');
like($stderr, qr/DETAIL:.*nonsense/, 'and named');
($ret, $stdout, $stderr) = $node->psql('postgres',
	"ALTER SYSTEM SET pg_narinfo.trusted_proxies = '10.0.0.0/99'");
isnt($ret, 0, 'a bad network is refused');

set('listen', "127.0.0.1:$port");
ok(poll_until(sub { reachable($port) }), 'back again');
ok(answers($old), 'and the connection has seen it all');

# An address that somebody else has is refused, and what was is kept.
my $squatter = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)
	or die $!;
my $taken = $squatter->sockport;
my $offset = -s $node->logfile;
set('listen', "127.0.0.1:$port, 127.0.0.1:$taken");
$node->wait_for_log(qr/127\.0\.0\.1:$taken.*in use/, $offset);
ok(reachable($port), 'a taken address takes nothing else away');
like(sql(q{SELECT state FROM narinfo.stat_workers WHERE kind = 'launcher'}),
	qr/in use/, 'the launcher says so');
close $squatter;
ok(poll_until(sub { reachable($taken) }), 'once it is free, it is served');
set('listen', "127.0.0.1:$port");

# ---- the number of workers

set('http_workers', 4);
ok(poll_until(sub { workers() == 4 }), 'four workers');
my @sockets = map { http_connect($port) } 1 .. 64;
is(scalar(grep { answers($_) } @sockets), 64, '64 connections');
ok(poll_until(sub {
	sql(q{SELECT count(*) FROM narinfo.stat_workers WHERE requests > 0}) > 1
}), 'spread over workers');

# A reply under way is sent to its end by a worker that leaves.
my $large = join '', map { sha256_hex($_) } 1 .. 400_000;
open my $out, '>', "$node->{file_root}/nar/large" or die $!;
print $out $large;
close $out;
my @slow = map { http_connect($port) } 1 .. 16;
print $_ "GET /nar/large HTTP/1.1\r\nHost: h\r\n\r\n" for @slow;
for (@slow) { my $byte; sysread($_, $byte, 1) == 1 && $byte eq 'H' or die }

set('http_workers', 1);
ok(poll_until(sub { workers() == 1 }), 'one worker goes on');
my $whole = 0;
for my $socket (@slow)
{
	my $got = 'H';
	my $want;
	while (1)
	{
		my $n = sysread($socket, $got, 1 << 20, length $got);
		last unless $n;
		$want //= length($1) + 4 + $2
			if $got =~ /^(.*?Content-Length: (\d+).*?)\r\n\r\n/s;
		last if $want && length $got >= $want;
	}
	$whole++ if $got =~ /\r\n\r\n\Q$large\E\z/;
}
is($whole, 16, 'each reply that was under way came whole');
ok(poll_until(sub {
	sql(q{SELECT count(*) FROM narinfo.stat_workers WHERE kind = 'http'}) == 1
}), 'the others have left');
ok(reachable($port), 'the one serves');
is(scalar(grep { !eval { answers($_) } } http_connect($port)), 0,
	'new connections too');

set('http_workers', 0);
ok(poll_until(sub { workers() == 0 && !reachable($port) }), 'no worker');
set('http_workers', 1);
ok(poll_until(sub { reachable($port) }), 'one again');

# ---- limits

set('max_url_size', '512B');
ok(poll_until(sub {
	http_get($port, '/' . ('a' x 600))->{status} == 414
}), 'a limit is followed');
set('log_requests', 'all');
$offset = -s $node->logfile;
ok(poll_until(sub {
	http_get($port, "/log/no%22such");
	slurp_file($node->logfile, $offset) =~
		m{request address=127\.0\.0\.1 method=GET path=\S+ status=404 bytes=}
}), 'requests are logged');
set('log_requests', 'off');

# ---- pg_terminate_backend, pg_cancel_backend

my $pid = sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'http'});
$old = http_connect($port);
ok(answers($old), 'a connection');
sql("SELECT pg_cancel_backend($pid)");
ok(answers($old), 'to cancel an idle worker does nothing');
sql("SELECT pg_terminate_backend($pid)");
ok(poll_until(sub {
	my $now = sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'http'});
	$now =~ /^\d+$/ && $now != $pid && reachable($port)
}), 'a worker that is ended is started again');

my $launcher =
	sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'launcher'});
sql("SELECT pg_terminate_backend($launcher)");
ok(poll_until(sub {
	my $now =
		sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'launcher'});
	$now =~ /^\d+$/ && $now != $launcher && reachable($port)
}), 'so is the launcher');

$node->stop('fast');
pass('a fast shutdown ends');
done_testing();
