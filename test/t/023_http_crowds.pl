#
# Crowds block nobody: thousands of idle connections, and a thousand readers of
# a NAR who do not read.  Limits in all and per address.
#
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../perl";

use NarinfoTest;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('crowds', conf => qq{
pg_narinfo.idle_timeout = 1h
pg_narinfo.send_timeout = 1h
});
my $port = $node->{http_port};
$node->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");
my ($hash) = $top_path =~ m{/([a-z0-9]{32})-};

my $worker = $node->safe_psql('postgres',
	"SELECT pid FROM narinfo.stat_workers WHERE kind = 'http'");

# kB of memory of its own
sub memory
{
	return slurp_bytes("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m
		? $1 : die 'no RssAnon';
}

# Bytes that the sockets of the machine hold.
sub tcp_memory
{
	my ($pages) = slurp_bytes('/proc/net/sockstat') =~ /^TCP: .* mem (\d+)/m;
	return $pages * 4096;
}

# The slowest of some lookups, in seconds.
sub slowest
{
	my $worst = 0;
	for (1 .. 50)
	{
		my $start = time;
		my $reply = http_get($port, "/$hash.narinfo");
		die "status $reply->{status}" if $reply->{status} != 200;
		$worst = time - $start if time - $start > $worst;
	}
	return $worst;
}

sub connections
{
	return $node->safe_psql('postgres',
		"SELECT connections FROM narinfo.stat_workers WHERE kind = 'http'");
}

# As many as this process may have open, of those that the worker takes.
my ($files) = slurp_bytes('/proc/self/limits') =~ /^Max open files +(\d+)/m;
$files //= 20000;
my $crowd = $files - 200 < 5000 ? $files - 200 : 5000;
cmp_ok($crowd, '>=', 500, "a crowd of $crowd");

slowest();
my $before = memory();
my @idle = map { http_connect($port) } 1 .. $crowd;
ok(poll_until(sub { connections() >= $crowd }), 'all are accepted');
my $each = (memory() - $before) * 1024 / $crowd;
cmp_ok($each, '<', 2048, sprintf('an idle connection costs %d bytes', $each));
cmp_ok(slowest(), '<', 1, 'others are answered meanwhile');
@idle = ();
ok(poll_until(sub { connections() < 50 }), 'they are gone');

# ---- readers who do not read
my $big = "$node->{file_root}/nar/big.nar";
open my $out, '>', $big or die;
print $out 'x' x (1 << 20) for 1 .. 16;
close $out;
my $readers = $crowd < 1000 ? $crowd : 1000;
$before = memory();
my $kernel = tcp_memory();
my @slow;
for (1 .. $readers)
{
	my $socket = http_connect($port);
	setsockopt($socket, SOL_SOCKET, SO_RCVBUF, 4096);
	syswrite($socket, "GET /nar/big.nar HTTP/1.1\r\nHost: x\r\n\r\n");
	push @slow, $socket;
}
ok(poll_until(sub { connections() >= $readers }), "$readers slow readers");
cmp_ok(slowest(), '<', 1, 'block nobody');
$each = (memory() - $before) * 1024 / $readers;
cmp_ok($each, '<', 16384, sprintf('each costs %d bytes', $each));
$kernel = (tcp_memory() - $kernel) / $readers;
cmp_ok($kernel, '<', 1 << 20,
	sprintf('and the kernel %d kB', $kernel / 1024));
is(length(http_get($port, '/nar/big.nar')->{body}), 16 << 20,
	'another reads the file meanwhile');
@slow = ();
ok(poll_until(sub { connections() < 50 }), 'they are gone, too');

# ---- limits
$node->safe_psql('postgres', q{
	ALTER SYSTEM SET pg_narinfo.max_connections = 20});
$node->reload;
ok(poll_until(
		sub {
			my @some = map { http_connect($port) } 1 .. 20;
			my $got = eval { raw($port, '', timeout => 1) } // '';
			return $got =~ m{^HTTP/1\.1 503 } && $got =~ /^Retry-After: /m;
		}),
	'over the limit in all: 503 with Retry-After');
$node->safe_psql('postgres', q{
	ALTER SYSTEM RESET pg_narinfo.max_connections});
$node->safe_psql('postgres', q{
	ALTER SYSTEM SET pg_narinfo.max_connections_per_address = 5});
$node->reload;
ok(poll_until(
		sub {
			my @some = map { http_connect($port) } 1 .. 5;
			my $got = eval { raw($port, '', timeout => 1) } // '';
			return $got =~ m{^HTTP/1\.1 503 };
		}),
	'over the limit of one address: 503');

done_testing();
