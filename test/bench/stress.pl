#
# Ten million requests of every kind: the worker's memory and descriptors stay
# where they were after the first million.
#
# Most come from wrk, on 64 connections at a time that are closed after each
# step; beside it a child makes those that wrk does not: HEAD, ranges, new
# connections, half and malformed requests, pipelines broken off.
#
use strict;
use warnings;
use Bench;
use IO::Socket::INET;

my $requests = $ENV{BENCH_REQUESTS} || 10_000_000;
my $most_growth = 1024;    # kB over all the steps after the first

need_rows(200_000);
nar_file('64k.nar', 64 << 10);

# Hits and misses, a directory listing that is not there, files, /health.
my $mix = "$dir/mix.paths";
{
	open my $walk, '<', paths_file('walk 200000') or die;
	open my $absent, '<', paths_file('absent 200000') or die;
	open my $out, '>', $mix or die "$mix: $!\n";
	while (my $path = <$walk>)
	{
		print $out $path, scalar <$absent>;
		print $out "/nix-cache-info\n" if $. % 50 == 0;
		print $out "/nar/64k.nar\n" if $. % 100 == 0;
		print $out "/health\n" if $. % 500 == 0;
		print $out $path =~ s/narinfo/ls/r if $. % 500 == 1;
	}
}

my $port = $ours->{port};
my $host = "Host: 127.0.0.1:$port\r\n";
my @odd = (
	"HEAD /nar/64k.nar HTTP/1.1\r\n$host\r\n",
	"GET /nar/64k.nar HTTP/1.1\r\n${host}Range: bytes=100-199\r\n\r\n",
	"GET /nar/64k.nar HTTP/1.1\r\n${host}Range: bytes=999999-\r\n\r\n",
	"GET /nar/64k.nar HTTP/1.1\r\n$host\r\n" x 40,
	"GET /nix-cache-info HTTP/1.0\r\n\r\n",
	"GET /nix-cache-info HTTP/1.1\r\n\r\n",
	"GET /../etc/passwd HTTP/1.1\r\n$host\r\n",
	"GET /x HTTP/1.1\r\n${host}Content-Length: +5\r\n\r\n",
	"PUT /x HTTP/1.1\r\n${host}Content-Length: 100000\r\n\r\nabc",
	"POST /x HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n5\r\nab",
	"GET /" . ('x' x 9000) . " HTTP/1.1\r\n$host\r\n",
	"GET /x HTTP/1.1\r\n$host" . ("X: " . ('y' x 500) . "\r\n") x 60 . "\r\n",
	"GET /nix-ca",
	"\0\1\2",
	''
);

# Sends one, reads some of what comes, perhaps, and hangs up.
sub odd_requests
{
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
	for (my $i = 0;; $i++)
	{
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
			PeerPort => $port) or next;
		syswrite $socket, $odd[$i % @odd];
		shutdown $socket, 1 if $i % 3 == 0;
		sysread $socket, my $some, 1000 if $i % 3 != 1 && $i % @odd < 12;
		close $socket;
		select undef, undef, undef, 0.002;
	}
}

my $odd = fork // die "fork: $!\n";
if ($odd == 0)
{
	eval { odd_requests() };
	POSIX::_exit(0);
}

my ($done, $first, $last) = (0);
my $step = int($requests / 10);
while ($done < $requests)
{
	my $target = $done + $step;
	while ($done < $target)
	{
		my $r = wrk($ours, $mix, seconds => 5);
		$done += $r->{requests};
	}
	kill 'STOP', $odd;
	select undef, undef, undef, 1.5;    # for the worker to see them go
	my $memory = memory($ours->{pid});
	$last = { %$memory, files => descriptors($ours->{pid}) };
	$first //= $last;
	kill 'CONT', $odd;
	progress(sprintf '%10d requests  RssAnon %d kB  Pss %d kB  %d descriptors',
		$done, @$last{qw(anon pss files)});
}
kill 'KILL', $odd;
waitpid $odd, 0;

my $now = sql(q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'pg_narinfo http worker'});
my $grown = $last->{anon} - $first->{anon};
my $files = $last->{files} - $first->{files};
my $same = $now == $ours->{pid};
info('stress: requests', '', $done, $same ? 'ok' : 'MISSED');
info('stress: growth of RssAnon since the first tenth', 'kB',
	$grown > 0 ? $grown : 0, $grown <= $most_growth ? 'ok' : 'MISSED');
info('stress: descriptors more than after it', '', $files > 0 ? $files : 0,
	$files <= 2 ? 'ok' : 'MISSED');
1;
