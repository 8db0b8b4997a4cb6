# Fetching files that are missing here from sources that stall, die, lie or
# are killed, for clients that are many, slow or gone.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use File::Find;
use File::Path qw(make_path remove_tree);
use FindBin;
use IO::Socket::INET;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $base = PostgreSQL::Test::Utils::tempdir();
my $size = 8 * 1024 * 1024;
my $half = $size / 2;

make_path("$base/site", "$base/nginx/nar");
my $node = narinfo_node('site', file_root => "$base/site", conf => <<~END);
	pg_narinfo.http_workers = 2
	pg_narinfo.upload_reserve = 0
	pg_narinfo.missing_files = 'fetch'
	pg_narinfo.fetch_timeout = '2s'
	pg_narinfo.log_requests = 'all'
	pg_narinfo.source_tokens = '$base/tokens'
	restart_after_crash = on
	END
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

sub configure
{
	my ($name, $value) = @_;
	sql("ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	ok(poll_until(sub { sql("SELECT setting = (SELECT setting FROM
		pg_file_settings WHERE name = '$name' ORDER BY seqno DESC LIMIT 1)
		FROM pg_settings WHERE name = '$name'") ne '' }), "$name = $value");
	return;
}

sub figure { return sql("SELECT $_[0] FROM narinfo.stat_fetch") }

sub unfinished
{
	my @found;
	find({ no_chdir => 1, wanted => sub {
		push @found, $_ if -f && m{/\.incoming/};
	} }, "$base/site");
	return @found;
}

sub settled
{
	return poll_until(sub { figure('running') eq '0' && !unfinished() });
}

sub kept
{
	my ($path, $cache) = @_;
	my $file = "$base/site/" . ($cache ? "$cache/" : '') . $path;
	return -e $file ? sha256_hex(slurp_bytes($file)) : '';
}

# ---- files, and narinfos that name them

my $noise = join '', map { pack 'L', rand 2**32 } 1 .. $size / 4 - 1;
my %content;    # by path
my $number = 0;

# Publishes the narinfo of a new file; its path.
sub new_file
{
	my (%option) = @_;
	my $content = pack('L', ++$number) . $noise;
	my $hash = sha256_hex($content);
	my $path = "nar/$hash.nar";
	my $text = sprintf "StorePath: /nix/store/%032d-n\nURL: %s\n"
		. "Compression: none\nFileHash: sha256:%s\n%sNarHash: sha256:%s\n"
		. "NarSize: %d\nReferences: \n", $number, $path, $hash,
		$option{no_size} ? '' : 'FileSize: ' . ($option{size} // $size) . "\n",
		$hash, $size;
	my $cache = $option{cache} // 'main';
	sql("SELECT narinfo.publish('$text', '$cache')");
	$content{$path} = $content;
	open my $out, '>:raw', "$base/nginx/$path" or die $!;
	print $out $content;
	close $out or die $!;
	return $path;
}

# ---- sources: each serves what nginx has, as its mode says

my @pids;

END
{
	my $status = $?;
	kill 'KILL', @pids;
	$? = $status;
}

sub spew
{
	my ($file, $text) = @_;
	open my $out, '>', "$file.new" or die $!;
	print $out $text;
	close $out or die $!;
	rename "$file.new", $file or die $!;
	return;
}

# MODE and N of a source: how it behaves from the next request on.
sub mode
{
	my ($source, $mode, $n) = @_;
	spew("$source->{dir}/mode", join ' ', $mode, $n // 0);
	unlink "$source->{dir}/gate";
	return;
}

sub open_gate
{
	my ($source) = @_;
	spew("$source->{dir}/gate", '');
	return;
}

# What it was asked, each as "METHOD PATH RANGE SITE TOKEN".
sub asked
{
	my ($source, $pattern) = @_;
	my $log = -e "$source->{dir}/log" ? slurp_bytes("$source->{dir}/log") : '';
	return grep { /$pattern/ } split /\n/, $log;
}

sub answer
{
	my ($source, $socket) = @_;
	my $head = '';
	while ($head !~ /\r\n\r\n/)
	{
		sysread($socket, $head, 65536, length $head) or return;
	}
	my ($method, $path) = $head =~ m{^(\S+) /(\S+)};
	my ($from) = $head =~ /^Range: bytes=(\d+)-/im;
	my ($site) = $head =~ /^Narinfo-Site: (\S+)/im;
	my ($token) = $head =~ /^Authorization: Bearer (\S+)/im;
	my ($mode, $n) = split / /, slurp_bytes("$source->{dir}/mode");
	open my $log, '>>', "$source->{dir}/log" or die $!;
	print $log join(' ', $method, $path, $from // '-', $site ? 'site' : '-',
		$token // '-'), "\n";
	close $log;

	my $file = "$base/nginx/$path";
	if ($mode eq 'absent' || !-e $file)
	{
		syswrite($socket, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
			. "Connection: close\r\n\r\n");
		return;
	}
	my $bytes = slurp_bytes($file);
	substr($bytes, -1) ^= "\1" if $mode eq 'wrong';
	$bytes .= 'x' if $mode eq 'long';
	my $all = length $bytes;
	$from = undef if $mode eq 'no_parts';
	$bytes = substr $bytes, $from if defined $from;
	my $length = $mode eq 'no_length' ? ''
		: 'Content-Length: ' . length($bytes) . "\r\n";
	syswrite($socket, (defined $from
		? "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes $from-"
			. ($all - 1) . "/$all\r\n" : "HTTP/1.1 200 OK\r\n")
		. "${length}Connection: close\r\n\r\n");
	return if $method eq 'HEAD';
	my $first = $mode =~ /^(?:gate|stall|die)$/ ? $n : length $bytes;
	my $sent = 0;
	while ($sent < length $bytes)
	{
		if ($sent >= $first)
		{
			return if $mode eq 'die';
			sleep 0.02 until $mode eq 'gate' && -e "$source->{dir}/gate";
			$first = length $bytes;
		}
		my $want = $first - $sent;
		$want = 65536 if $want > 65536;
		$sent += syswrite($socket, $bytes, $want, $sent) // return;
	}
	return;
}

# A process group, so that it can be killed with all that it has begun.
sub start_source
{
	my ($name) = @_;
	my $listener = IO::Socket::INET->new(Listen => 64, ReuseAddr => 1,
		LocalAddr => '127.0.0.1') or die $!;
	my $source = { dir => "$base/$name", port => $listener->sockport };
	$source->{url} = "http://127.0.0.1:$source->{port}";
	make_path($source->{dir});
	mode($source, 'good');
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		setpgrp(0, 0);
		$SIG{CHLD} = 'IGNORE';
		$SIG{PIPE} = 'IGNORE';
		while (1)
		{
			my $socket = $listener->accept or next;
			next if fork;
			eval { answer($source, $socket) };
			close $socket;
			POSIX::_exit(0);
		}
	}
	close $listener;
	$source->{pid} = $pid;
	push @pids, -$pid;
	return $source;
}

my $first = start_source('first');
my $second = start_source('second');
sql('SELECT narinfo.index_files()');
sql("SELECT narinfo.add_file_source('$first->{url}', 10)");
sql("SELECT narinfo.add_file_source('$second->{url}', 20)");

# ---- clients that read when they are told to

sub ask
{
	my ($path, %headers) = @_;
	my $socket = http_connect($port);
	print $socket "GET /$path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
		(map { "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n";
	return { socket => $socket, got => '' };
}

# Reads until so many bytes of the body are there, or the end; how many are.
sub read_body
{
	my ($client, $wanted) = @_;
	while (1)
	{
		my ($head, $body) = split /\r\n\r\n/, $client->{got}, 2;
		$client->{status} = $1 if $client->{got} =~ m{^HTTP/1.1 (\d+)};
		$client->{body} = $body // '';
		return length $client->{body}
			if defined $wanted && length $client->{body} >= $wanted;
		my $select = IO::Select->new($client->{socket});
		die 'nothing comes' unless $select->can_read(60);
		my $n = sysread($client->{socket}, $client->{got}, 1 << 20,
			length $client->{got});
		return length $client->{body} unless $n;
	}
}

sub is_right
{
	my ($client, $path, $what) = @_;
	read_body($client);
	ok($client->{status} == 200 && $client->{body} eq $content{$path}, $what)
		or diag("$client->{status}, " . length $client->{body});
	return;
}

# ---- one fetch, however many ask; a slow one holds up nobody

my $path = new_file();
mode($first, 'gate', $half);
my @clients = map { ask($path) } 1 .. 16;
my $enough = 0;
for (@clients)
{
	$enough++ if read_body($_, $half / 2) >= $half / 2;
}
is($enough, 16, 'each of many clients has what has come so far');
is(figure('running'), 1, 'one fetch runs');
open_gate($first);
my $slow = pop @clients;
is_right($_, $path, 'a client has it') for @clients;
ok(settled(), 'it is stored while one client does not read');
is(kept($path), sha256_hex($content{$path}), 'as it should be');
is_right($slow, $path, 'and then that one has it');
is(scalar(asked($first, qr/^GET $path - site/)), 1, 'the source was asked once');
is(scalar(sql(q{SELECT count(*) FROM narinfo.stat_workers
	WHERE kind = 'http' AND requests > 0})), 2, 'by both workers');
is(figure('begun') . figure('kept'), '11', 'figures');

# ---- sources that stall or die are left for the next one

for my $mode (qw(stall die))
{
	$path = new_file();
	mode($first, $mode, $half);
	is_right(ask($path), $path, "$mode: the client has it");
	my ($from) = map { (split / /)[2] } asked($second, qr/^GET $path/);
	cmp_ok($from, '>=', $half / 2, "$mode: the next one was asked for the rest");
	ok(settled() && kept($path), "$mode: it is stored");
}
$path = new_file();
mode($first, 'die', $half);
mode($second, 'no_parts');
is_right(ask($path), $path, 'a source that knows no parts has it, too');
mode($second, 'good');

# one that is killed
$path = new_file();
mode($first, 'gate', $half);
my $client = ask($path);
read_body($client, $half / 2);
kill 'KILL', -$first->{pid};
is_right($client, $path, 'a source is killed: the client has it');
ok(settled() && kept($path), 'and the site');
waitpid $first->{pid}, 0;
sql("SELECT narinfo.drop_file_source('$first->{url}')");
$first = start_source('third');
sql("SELECT narinfo.add_file_source('$first->{url}', 10)");

# the only one dies, and comes back
$path = new_file();
mode($_, 'die', $half) for $first, $second;
$client = ask($path);
my $got = read_body($client);
if ($got < $size)
{
	pass("all die: the client was cut after $got bytes");
}
else
{
	ok($client->{body} eq $content{$path}, 'all die, but went on: right');
}
ok(settled(), 'settled');
mode($second, 'good');

# ---- sources that lie

$path = new_file();
mode($first, 'wrong');
my $wrong = figure('wrong');
$client = ask($path);
$got = read_body($client);
cmp_ok($got, '<', $size, "a wrong file: its stream is cut ($got bytes)");
ok(settled(), 'settled');
is(kept($path), sha256_hex($content{$path}),
	'the next source had it, and that is kept');
is(figure('wrong'), $wrong + 1, 'wrong ones are counted');
is(scalar(asked($first, qr/^GET $path/)), 1, 'the liar is asked once');
is_right(ask($path), $path, 'and the client has it by its second request');

mode($second, 'wrong');
$path = new_file();
my $failed = figure('failed');
$client = ask($path);
$got = read_body($client);
cmp_ok($got, '<', $size, 'all are wrong: the client has no whole file');
ok(settled(), 'settled');
is(kept($path), '', 'nothing is kept');
is(figure('failed'), $failed + 1, 'failures are counted');
$client = ask($path, Range => 'bytes=0-99');
cmp_ok(read_body($client), '<', 100, 'nor is a part of it ever whole');
ok(settled(), 'settled');
mode($second, 'good');

for my $mode (qw(long absent))
{
	$path = new_file();
	mode($first, $mode);
	is_right(ask($path), $path, "$mode: the next source has it");
}
mode($_, 'absent') for $first, $second;
$path = new_file();
is(http_get($port, "/$path")->{status}, 404, 'nobody has it: 404');
is(http_request($port, 'HEAD', "/$path")->{status}, 404, 'HEAD: 404');
mode($_, 'good') for $first, $second;

# without FileSize, and with a source that says none
$path = new_file(no_size => 1);
is_right(ask($path), $path, 'no FileSize');
$path = new_file(no_size => 1);
mode($first, 'no_length');
is_right(ask($path), $path, 'no FileSize, and no Content-Length');
ok(settled() && kept($path), 'it is stored');
mode($first, 'good');

# without FileHash, as Guix has it: the NAR is looked into
my ($real) = sort { -s $b <=> -s $a } glob "$cache_dir/nar/*.nar.*";
my ($info) = grep { index($_, $real =~ s{.*/}{}r) > 0 }
	map { slurp_bytes($_) } glob "$cache_dir/*.narinfo";
my ($name) = $info =~ m{^StorePath: .*/(\S+)$}m;
my $guix = "nar/zstd/$name";
$info =~ s/^(?:FileHash|FileSize|Sig|References): .*\n//mg;
$info =~ s/^URL: .*$/URL: $guix/m;
$info .= "References: \n";
sql("SELECT narinfo.publish('$info')");
make_path("$base/nginx/nar/zstd");
$content{$guix} = slurp_bytes($real);
open my $copy, '>:raw', "$base/nginx/$guix" or die $!;
print $copy $content{$guix};
close $copy;
mode($_, 'wrong') for $first, $second;
$client = ask($guix);
cmp_ok(read_body($client), '<', -s $real, 'no FileHash, a wrong NAR: cut');
ok(settled(), 'settled');
is(kept($guix), '', 'and not kept');
mode($_, 'good') for $first, $second;
ok(poll_until(sub { $client = ask($guix); read_body($client) == -s $real }),
	'a right NAR comes');
ok($client->{body} eq $content{$guix}, 'as it is');
ok(settled() && kept($guix), 'and is stored');

# ---- limits

configure('pg_narinfo.max_fetches', 1);
my @paths = (new_file(), new_file());
mode($first, 'gate', $half);
@clients = (ask($paths[0]));
read_body($clients[0], $half / 2);
push @clients, ask($paths[1]);
ok(poll_until(sub { sql(q{SELECT sum(connections) FROM narinfo.stat_workers})
	>= 2 }), 'another client asks for another file');
is(scalar(asked($first, qr/$paths[1]/)), 0, 'which has to wait');
open_gate($first);
is_right($clients[$_], $paths[$_], "then $_ has it") for 0, 1;
ok(settled(), 'settled');
mode($first, 'good');

configure('pg_narinfo.upload_reserve', '1000TB');
$path = new_file();
my $reply;
ok(poll_until(sub { $reply = http_get($port, "/$path");
	$reply->{status} == 302 }), 'no space: the client is sent to who has it');
is($reply->{headers}{location}, "$first->{url}/$path", 'there');
is(kept($path), '', 'nothing is stored');
configure('pg_narinfo.upload_reserve', 0);
$path = new_file(size => 2**45);
is(http_get($port, "/$path")->{status}, 404, 'too large, and nobody has it');

# ---- private caches: by a token from a file, or not at all

sql(q{SELECT narinfo.create_cache('team', visibility => 'private')});
my $reader = sql(q{SELECT narinfo.create_token('r', '{read}', NULL, 'team')});
my %bearer = (Authorization => "Bearer $reader");
$path = new_file(cache => 'team');
sql("SELECT narinfo.add_file_source('$first->{url}', 10, 'team')");
is(http_get($port, "/team/$path")->{status}, 401, 'private: 401 without token');
is(http_get($port, "/team/$path", %bearer)->{status}, 404,
	'without a token for the source it is absent');
is(scalar(asked($first, qr/$path/)), 0, 'and nobody was asked');
open my $out, '>', "$base/tokens" or die $!;
print $out "http://elsewhere/ never\n$first->{url} secret-token-1\n";
close $out;
chmod 0644, "$base/tokens";
is(http_get($port, "/team/$path", %bearer)->{status}, 404,
	'nor with a file that others may read');
ok($node->log_contains(qr/source_tokens: others may read or write it/),
	'which the log says');
chmod 0600, "$base/tokens";
$reply = http_get($port, "/team/$path", %bearer);
is($reply->{status}, 200, 'with the token: 200');
ok($reply->{body} eq $content{$path}, 'and the bytes');
like($reply->{headers}{'cache-control'}, qr/^private,/, 'for this client alone');
is(scalar(asked($first, qr/^GET $path - site secret-token-1$/)), 1,
	'the source was shown it');
ok(settled() && kept($path, 'team'), 'it is stored with the cache');
configure('pg_narinfo.missing_files', 'redirect');
$path = new_file(cache => 'team');
ok(poll_until(sub { http_get($port, "/" . new_file())->{status} == 302 }),
	'redirect is in force');
is(http_get($port, "/team/$path", %bearer)->{status}, 404,
	'private caches do not redirect');
configure('pg_narinfo.missing_files', 'fetch');
unlike(slurp_bytes($node->logfile), qr/secret-token/, 'no token is in the log');

# ---- nginx

my $nginx_port = PostgreSQL::Test::Cluster::get_free_port();
spew("$base/nginx.conf", <<~END);
	daemon off; pid $base/nginx.pid; error_log $base/nginx.log;
	events { }
	http { access_log off; client_body_temp_path $base/t; proxy_temp_path $base/t;
		fastcgi_temp_path $base/t; uwsgi_temp_path $base/t; scgi_temp_path $base/t;
		server { listen 127.0.0.1:$nginx_port; root $base/nginx; } }
	END
my $nginx = fork // die $!;
if ($nginx == 0)
{
	setpgrp(0, 0);
	exec '/usr/sbin/nginx', '-e', "$base/nginx.log", '-c', "$base/nginx.conf";
}
push @pids, -$nginx;
ok(poll_until(sub { eval { http_connect($nginx_port) } }), 'nginx runs');
sql("SELECT narinfo.drop_file_source('$_->{url}')") for $first, $second;
sql("SELECT narinfo.add_file_source('http://127.0.0.1:$nginx_port/', 10, NULL)");
$path = new_file();
ok(poll_until(sub { http_request($port, 'HEAD', "/$path")->{status} == 200 }),
	'HEAD, by nginx');
is_right(ask($path), $path, 'nginx is a source');
ok(settled() && kept($path), 'of what is stored');
kill 'KILL', -$nginx;
waitpid $nginx, 0;
is(http_get($port, '/' . new_file())->{status}, 404, 'it is killed: 404');
sql("SELECT narinfo.drop_file_source('http://127.0.0.1:$nginx_port/', NULL)");

# ---- workers that leave, or are killed, in the middle

sql("SELECT narinfo.add_file_source('$first->{url}')");
$path = new_file();
mode($first, 'gate', $half);
$client = ask($path);
read_body($client, $half / 2);
sql('SELECT narinfo.stop()');
cmp_ok(read_body($client), '<', $size, 'workers leave: the client is cut');
is(scalar(unfinished()), 0, 'and nothing is left behind');
is(figure('running'), 0, 'nor claimed');
sql('SELECT narinfo.start()');
ok(wait_for_http($port), 'they are back');
open_gate($first);
is_right(ask($path), $path, 'the client has it');
ok(settled() && kept($path), 'and the site');

$path = new_file();
mode($first, 'gate', $half);
$client = ask($path);
read_body($client, $half / 2);
ok(unfinished() > 0, 'a file is on its way');
my $worker = sql(q{SELECT min(pid) FROM narinfo.stat_workers
	WHERE kind = 'http'});
kill 'KILL', $worker;
$got = read_body($client);
cmp_ok($got, '<', $size, 'a worker is killed: the client is cut');
open_gate($first);
ok(poll_until(sub { eval { sql('SELECT 1') } }), 'the server comes back');
ok(wait_for_http($port), 'and serves');
ok(poll_until(sub { !unfinished() }), 'what was unfinished is gone');
is(kept($path), '', 'and not kept');
is_right(ask($path), $path, 'then the client has it');
ok(settled() && kept($path), 'and the site');

# ---- a mirror takes nothing from others

my $pusher = sql(q{SELECT narinfo.create_token('p', '{push,read}')});
sql(q{UPDATE narinfo.node SET role = 'mirror'});
$reply = http_put($port, '/nar/x.nar', 'x', Authorization => "Bearer $pusher");
is($reply->{status}, 403, 'a PUT on a mirror: 403');
like($reply->{body}, qr/^this site is a mirror\. Push to /, 'it says where to');

done_testing();
