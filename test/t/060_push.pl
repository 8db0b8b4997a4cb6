# Pushing with a real nix, and what is refused: with a reason that nix shows,
# and nothing of it left behind.
use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex);
use File::Find;
use File::Path qw(make_path);
use FindBin;
use IO::Compress::Gzip qw(gzip);
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $tops = 61;    # paths in the closure of $top_path

my $base = PostgreSQL::Test::Utils::tempdir();
make_path("$base/files");
my $node = narinfo_node('push', file_root => "$base/files",
	conf => "pg_narinfo.log_requests = 'all'\n"
		. "pg_narinfo.upload_reserve = 0\n");
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

my $token = sql(q{SELECT narinfo.create_token('pusher', '{push,read}')});
my $reader = sql(q{SELECT narinfo.create_token('reader', '{read}')});
my $url = "http://x:$token\@127.0.0.1:$port";
ok(poll_until(sub { sql(q{SELECT count(*) FROM narinfo.stat_workers
	WHERE kind = 'writer' AND state = 'serving'}) eq '1' }),
	'a writer serves');

sub put
{
	my ($path, $body, %headers) = @_;
	return http_put($port, $path, $body,
		Authorization => "Bearer $token", %headers);
}

# Everything that a push could change: rows, events, and files, unfinished
# ones included.
sub contents
{
	my %files;
	find({ no_chdir => 1, wanted => sub {
		$files{$_} = sha256_hex(slurp_bytes($_)) if -f;
	} }, "$base/files");
	return join "\n", sql('SELECT encode(narinfo.cache_digest(), $$hex$$)'),
		sql('SELECT count(*), max(seq) FROM narinfo.event'),
		map { "$_ $files{$_}" } sort keys %files;
}

# Refused, with a reason, and nothing has changed.
sub refused
{
	my ($what, $status, $reason, $reply, $before) = @_;
	is($reply->{status}, $status, "$what: $status");
	like($reply->{body}, $reason, "$what: says why");
	is(contents(), $before, "$what: nothing has changed");
	return;
}

my @homes;

sub new_home
{
	push @homes, $node->basedir . '/home' . @homes;
	return $homes[-1];
}

# Nix makes what it has in its stores read-only, too much so for rm -r.
END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', grep { -d } @homes) if @homes;
	$? = $status;
}

sub puts
{
	my ($offset) = @_;
	my $log = substr slurp_bytes($node->logfile), $offset;
	return $log =~ /request address=\S+ method=PUT path=(\S+ status=\d+)/g;
}

# ---- a closure, from an empty cache

my $home = new_home();
my ($status, $out, $err) = nix($home, 'nix', 'copy', '--no-check-sigs',
	'--from', "file://$cache_dir", $top_path);
is($status, 0, 'a store to push from') or diag($err);

($status, $out, $err) = nix($home, 'nix', 'copy', '--to',
	"http://127.0.0.1:$port", $top_path);
isnt($status, 0, 'without a token it is refused');
like($err, qr/HTTP error 401.*response body.*\S/s, 'nix shows why');
is(sql('SELECT count(*) FROM narinfo.valid_path'), '0', 'nothing came');

($status, $out, $err) = nix($home, 'nix', 'copy', '--to',
	"http://x:$reader\@127.0.0.1:$port", $top_path);
isnt($status, 0, 'with a token that may but read, too');
like($err, qr/HTTP error 403.*response body.*\S/s, 'nix shows why');
is(sql('SELECT count(*) FROM narinfo.valid_path'), '0', 'nothing came');

my $other = q{'other-1:' || encode(sha256('other'), 'base64')};
sql("SELECT narinfo.trust_key($other),
	narinfo.alter_cache('main', min_signatures => 1)");
my $events = sql(q{SELECT narinfo.last_event('main')});
($status, $out, $err) = nix($home, 'nix', 'copy', '--to', $url, $top_path);
isnt($status, 0, 'what no trusted key has signed is refused');
like($err, qr/HTTP error 403.*response body.*signature/s, 'nix shows why');
is(sql(q{SELECT count(*) FROM narinfo.valid_path}), '0', 'nothing came');
is(sql(q{SELECT narinfo.last_event('main')}), $events, 'and nothing happened');
sql("SELECT narinfo.alter_cache('main', min_signatures => 0),
	narinfo.untrust_key($other)");

my $offset = -s $node->logfile;
($status, $out, $err) = nix($home, 'nix', 'copy', '--to', $url, $top_path);
is($status, 0, 'nix pushes a closure') or diag($err);
is(sql('SELECT count(*) FROM narinfo.valid_path'), $tops,
	'all paths are there');
is(sql(q{SELECT count(*) - max(seq) FROM narinfo.event WHERE cache = 'main'}),
	'0', 'events have no gap');
my @puts = puts($offset);
is((grep { /\.narinfo status=201$/ } @puts), $tops, 'a 201 for each narinfo');
is((grep { !/status=20[01]$/ } @puts), 0, 'and nothing that was refused');

my $back = new_home();
($status, $out, $err) = nix($back, 'nix', 'copy', '--no-check-sigs',
	'--from', "http://127.0.0.1:$port", $top_path);
is($status, 0, 'nix copies it back') or diag($err);
($status, $out, $err) =
	nix($back, 'nix-store', '--verify', '--check-contents');
is($status, 0, 'and all is as it was') or diag($err);

# ---- once more: a client that remembers nothing of the cache

my $before = contents();
system('rm', '-rf', "$home/cache");
$offset = -s $node->logfile;
($status, $out, $err) = nix($home, 'nix', 'copy', '--to', $url, $top_path);
is($status, 0, 'the same again') or diag($err);
@puts = puts($offset);
is(scalar @puts, 0, 'nothing is uploaded');
is(contents(), $before, 'nothing has changed');

# ---- by hand, with two paths of the cache that are not there yet

my @rest = grep {
	my ($hash) = m{([^/]+)\.narinfo$};
	sql("SELECT count(*) FROM narinfo.valid_path
		WHERE hash::text = '$hash'") eq '0'
} glob "$cache_dir/*.narinfo";
my %rest;
for (@rest)
{
	my $text = slurp_bytes($_);
	my ($hash) = m{([^/]+)\.narinfo$};
	my ($file) = $text =~ /^URL: (.*)$/m;
	my ($refs) = $text =~ /^References: (.*)$/m;
	$rest{$hash} = { text => $text, file => $file, refs => $refs,
		hash => $hash };
}

# Whose references are all there, itself aside.
my @free = grep {
	my $path = $_;
	!grep { $rest{ substr $_, 0, 32 } && substr($_, 0, 32) ne $path->{hash} }
		split / /, $path->{refs}
} map { $rest{$_} } sort keys %rest;
my ($one, $two) = @free;
my ($missing) = grep {
	my $path = $_;
	grep { $rest{ substr $_, 0, 32 } && substr($_, 0, 32) ne $path->{hash} }
		split / /, $path->{refs}
} map { $rest{$_} } sort keys %rest;
ok($one && $two && $missing, 'there are paths to try it with') or BAIL_OUT('');

my $nar_a = slurp_bytes("$cache_dir/$one->{file}");
my $nar_b = slurp_bytes("$cache_dir/$two->{file}");

$before = contents();
refused('a swapped NAR', 403, qr/does not have the SHA-256 of its name/,
	put("/$two->{file}", $nar_a), $before);
refused('a narinfo without its NAR', 403, qr/is not here: push the NAR/,
	put("/$one->{hash}.narinfo", $one->{text}), $before);
refused('garbage', 400, qr/invalid narinfo/,
	put("/$one->{hash}.narinfo", "\x00garbage\xff" x 100), $before);
refused('an empty narinfo', 400, qr/invalid narinfo/,
	put("/$one->{hash}.narinfo", ''), $before);
refused('no hash part', 400, qr/no hash part/,
	put('/hello.narinfo', $one->{text}), $before);
refused('a name that begins with a dot', 400, qr/begins with a dot/,
	put('/nar/.incoming/x', 'x'), $before);
refused('a name of strange letters', 400, qr/letters, digits/,
	put('/nar/a%20b', 'x'), $before);
refused('too many directories', 400, qr/too many directories/,
	put('/nar/a/b/c', 'x'), $before);
refused('Content-Range', 400, qr/no Content-Range/,
	put('/log/x', 'x', 'Content-Range' => 'bytes 0-0/2'), $before);
refused('an unknown encoding', 415, qr/only gzip/,
	put('/log/x', 'x', 'Content-Encoding' => 'br'), $before);
refused('a NAR that is encoded', 415, qr/none for a NAR/,
	put("/$one->{file}", 'x', 'Content-Encoding' => 'gzip'), $before);
refused('a damaged gzip', 400, qr/not whole as gzip/,
	put('/log/x', 'not gzip', 'Content-Encoding' => 'gzip'), $before);
refused('a narinfo too large', 413, qr/\S/,
	put("/$one->{hash}.narinfo", 'x' x (1024 * 1024 + 1)), $before);
refused('a cache that is not there', 404, qr/\S/,
	put("/nope/$one->{file}", $nar_a), $before);
refused('another StoreDir', 403, qr{StoreDir of this cache is /nix/store},
	put('/nix-cache-info', "StoreDir: /gnu/store\n"), $before);
is(put('/nix-cache-info', "StoreDir: /nix/store\nPriority: 1\n")->{status},
	200, 'nix-cache-info, as it is');
is(contents(), $before, 'nothing has changed');

my $bomb = '';
gzip(\(' ' x (2 * 1024 * 1024)), \$bomb);
refused('a narinfo that is a bomb', 413, qr/too large/,
	put("/$one->{hash}.narinfo", $bomb, 'Content-Encoding' => 'gzip'), $before);

# ---- what is right, new and again

is(put("/$one->{file}", $nar_a)->{status}, 201, 'a NAR: 201');
is(put("/$one->{file}", $nar_a)->{status}, 200, 'again: 200');
is(slurp_bytes("$base/files/$one->{file}"), $nar_a, 'it is there, whole');
my $held = contents();
refused('another file under its name', 403, qr/does not have the SHA-256/,
	put("/$one->{file}", $nar_b), $held);
refused('a narinfo under the name of another path', 403,
	qr/has the hash .* but it was put as/,
	put("/$two->{hash}.narinfo", $one->{text}), $held);
refused('another FileSize', 403, qr/bytes, but FileSize is/,
	put("/$one->{hash}.narinfo", $one->{text} =~ s/^FileSize: /FileSize: 1/mr),
	$held);
refused('a URL outside of the cache', 403, qr/names no file below nar/,
	put("/$one->{hash}.narinfo", $one->{text} =~ s{^URL: nar}{URL: ../nar}mr),
	$held);
refused('another store directory', 403, qr/\S/,
	put("/$one->{hash}.narinfo", $one->{text}
		=~ s{^StorePath: /nix/}{StorePath: /gnu/}mr), $held);

my $packed = '';
gzip(\$one->{text}, \$packed);
is(put("/$one->{hash}.narinfo", $packed, 'Content-Encoding' => 'gzip')
	->{status}, 201, 'a narinfo, as gzip: 201');
is(http_get($port, "/$one->{hash}.narinfo")->{body}, $one->{text},
	'it is there at once');
is(put("/$one->{hash}.narinfo", $one->{text})->{status}, 200, 'again: 200');

is(put("/$missing->{file}", slurp_bytes("$cache_dir/$missing->{file}"))
	->{status}, 201, 'the NAR of a path whose reference is missing');
$held = contents();
refused('a missing reference', 403, qr/refer|valid/,
	put("/$missing->{hash}.narinfo", $missing->{text}), $held);

# More than one writer takes at once, one of them bad: each has its own answer.
my @sockets;
for my $path ($missing, $one, $missing, $one)
{
	my $socket = http_connect($port);
	print $socket "PUT /$path->{hash}.narinfo HTTP/1.1\r\nHost: h\r\n"
		. "Authorization: Bearer $token\r\nContent-Length: "
		. length($path->{text}) . "\r\n\r\n$path->{text}";
	push @sockets, $socket;
}
is(join(' ', map { read_reply($_)->{status} } @sockets), '403 200 403 200',
	'of narinfos that come together, each has its own answer');
is(contents(), $held, 'nothing has changed');

# ---- the other files

my %other = (
	"/$one->{hash}.ls" => '{"version":1,"root":{"type":"directory"}}',
	'/log/' . "$one->{hash}-x.drv" => "built\n",
	'/realisations/sha256:' . 'a' x 64 . '!out.doi' => '{}',
	'/debuginfo/0123456789abcdef.debug' => '{"archive":"../nar/x"}'
);
for my $path (sort keys %other)
{
	is(put($path, $other{$path})->{status}, 201, "PUT $path: 201");
	is(http_get($port, $path)->{body}, $other{$path}, 'it is there');
	is(put($path, "$other{$path}\n")->{status}, 200, 'another one: 200');
	my $gz = '';
	gzip(\$other{$path}, \$gz);
	is(put($path, $gz, 'Content-Encoding' => 'gzip')->{status}, 200,
		'as gzip: 200');
	is(http_get($port, $path)->{body}, $other{$path}, 'and unpacked');
}

# ---- files of caches never mix

sql(q{SELECT narinfo.create_cache('team')});
is(http_put($port, "/team/$one->{file}", $nar_a,
	Authorization => "Bearer $token")->{status}, 401,
	'a token is for its cache alone');
my $team = sql(q{SELECT narinfo.create_token('t', '{push}', NULL, 'team')});
is(http_put($port, "/team/$one->{hash}.narinfo", $one->{text},
	Authorization => "Bearer $team")->{status}, 403,
	'a NAR of another cache does not count');
is(http_put($port, "/team/$two->{file}", $nar_b,
	Authorization => "Bearer $team")->{status}, 201, 'a NAR of its own');
is(slurp_bytes("$base/files/team/$two->{file}"), $nar_b,
	'lies in its own directory');
is(http_get($port, "/$two->{file}")->{status}, 404, 'and in no other');

# ---- a symbolic link leads nowhere

symlink '/tmp', "$base/files/realisations/out" or die $!;
$held = contents();
is(put('/realisations/out/x', 'x')->{status} >= 400, 1,
	'a link out of the directory is not followed');
ok(!-e '/tmp/x' || !-f '/tmp/x', 'nothing was written there');
unlink "$base/files/realisations/out";

# ---- a connection that is cut

$held = contents();
my $socket = http_connect($port);
print $socket "PUT /$two->{file} HTTP/1.1\r\nHost: h\r\n"
	. "Authorization: Bearer $token\r\nContent-Length: "
	. length($nar_b) . "\r\n\r\n" . substr($nar_b, 0, length($nar_b) / 2);
ok(poll_until(sub { glob "$base/files/nar/.incoming/*" }),
	'half of it is received');
close $socket;
ok(poll_until(sub { !glob "$base/files/nar/.incoming/*" }),
	'cut off, it goes');
is(contents(), $held, 'nothing has changed');

# A large one goes by a writer, for that takes long.
my $jobs = sql('SELECT sum(jobs) FROM narinfo.stat_workers');
$socket = http_connect($port);
print $socket "PUT /$two->{file} HTTP/1.1\r\nHost: h\r\n"
	. "Authorization: Bearer $token\r\nContent-Length: 30000000\r\n\r\n";
print $socket 'x' x 1_000_000 for 1 .. 20;
ok(poll_until(sub { grep { -s $_ == 20_000_000 }
			glob "$base/files/nar/.incoming/*" }), 'much of it is received');
close $socket;
ok(poll_until(sub { !glob "$base/files/nar/.incoming/*" }),
	'cut off, that goes, too');
ok(poll_until(sub { sql('SELECT sum(jobs) FROM narinfo.stat_workers') > $jobs }),
	'and a writer did it');
is(contents(), $held, 'nothing has changed');

# ---- Expect: 100-continue is answered before the body comes, or refused

$socket = http_connect($port);
print $socket "PUT /$two->{file} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
	. "Content-Length: 100\r\n\r\n";
is(read_reply($socket)->{status}, 401, 'without a token: refused at once');

# ---- no space

# Not with what would be taken: the settings are not there at once.
$node->append_conf('postgresql.conf', "pg_narinfo.upload_reserve = '1000TB'\n");
$node->reload;
ok(poll_until(sub { put("/$two->{file}", $nar_a)->{status} == 507 }),
	'no space: 507');
is(contents(), $held, 'nothing has changed');
($status, $out, $err) = nix($home, 'nix', '--option', 'download-attempts', '1',
	'copy', '--to', "http://x:$team\@127.0.0.1:$port/team", $top_path);
isnt($status, 0, 'nix is refused');
like($err, qr/no space is left/, 'and shows why');
$node->append_conf('postgresql.conf', "pg_narinfo.upload_reserve = 0\n"
	. "pg_narinfo.max_upload_size = 1\n");
$node->reload;
ok(poll_until(sub { put('/log/large', 'x' x (1024 * 1024 + 1))->{status}
	== 413 }), 'over the size: 413');

# ---- nobody writes

$node->append_conf('postgresql.conf', "pg_narinfo.writer_workers = 0\n");
$node->reload;
ok(poll_until(sub { put("/$two->{file}", $nar_a)->{status} == 405 }),
	'without writers nothing can be put');
is(http_get($port, "/$one->{hash}.narinfo")->{status}, 200, 'but be read');
$node->append_conf('postgresql.conf', "pg_narinfo.writer_workers = 2\n");
$node->reload;
ok(poll_until(sub { put("/$two->{file}", $nar_b)->{status} == 201 }),
	'with two of them it can');

# ---- what a server before left behind goes when it is started

my $left = "$base/files/nar/.incoming/"
	. sql('SELECT system_identifier FROM pg_control_system()') . '-1-1';
$node->stop;
open my $file, '>', $left or die "$left: $!";
close $file;
$node->start;
ok(poll_until(sub { !-e $left }), 'an unfinished upload is swept');

$node->stop;

# ---- a disk that is full: a small one, which the server alone sees

SKIP:
{
	my $small = "$base/small";
	make_path($small);
	my ($uid, $gid) = ($<, $( =~ /^(\d+)/);
	my @alone = ('unshare', '--user', '--mount', "--map-user=$uid",
		"--map-group=$gid", '--keep-caps', 'sh', '-c', <<~'END', 'sh', $small);
		mount -t tmpfs -o size=160k none "$1" && shift &&
		exec setpriv --ambient-caps=-all --inh-caps=-all "$@"
		END
	skip 'no user namespaces here, so no disk to be filled', 1
		if $uid == 0 || !run_log([ @alone, 'true' ]);

	$node->append_conf('postgresql.conf', <<~END);
		pg_narinfo.file_root = '$small'
		pg_narinfo.max_upload_size = '100MB'
		END
	ok(run_log([ @alone, 'pg_ctl', '-w', '-D', $node->data_dir, '-l',
		$node->logfile, '-o', '--cluster-name=small', 'start' ]),
		'a server with a small disk');
	$node->_update_pid(1);
	ok(wait_for_http($port), 'serves');
	ok(poll_until(sub { put('/log/a', 'a')->{status} == 201 }),
		'what fits is taken');

	my $files = "SELECT string_agg(d || '/' || f, ' ' ORDER BY d, f)
		FROM unnest('{nar,nar/.incoming,log,log/.incoming}'::text[]) AS d,
			pg_ls_dir('$small/' || d, true, false) AS f";
	my $there = sql($files);
	is(put('/log/large', 'x' x 1_000_000)->{status}, 507,
		'a length that does not fit: 507');
	is(sql($files), $there, 'nothing has changed');

	my $chunk = sprintf("%x\r\n%s\r\n", 65536, 'x' x 65536);
	like(raw($port, "PUT /log/large HTTP/1.1\r\nHost: h\r\nConnection: close"
		. "\r\nAuthorization: Bearer $token\r\nTransfer-Encoding: chunked"
		. "\r\n\r\n" . $chunk x 16 . "0\r\n\r\n"), qr{^HTTP/1.1 507 },
		'no space while it comes: 507');
	is(sql($files), $there, 'nothing has changed');

	sql(q{SELECT narinfo.create_cache('small')});
	my $filler = sql(q{SELECT narinfo.create_token('f', '{push}', NULL,
		'small')});
	($status, $out, $err) = nix($home, 'nix', '--option', 'download-attempts',
		'1', 'copy', '--to', "http://x:$filler\@127.0.0.1:$port/small",
		$top_path);
	isnt($status, 0, 'nix pushes until it is full');
	like($err, qr/HTTP error 507.*no space/s, 'and shows why');
	is(sql("SELECT count(*) FROM pg_ls_dir('$small/small/nar/.incoming')"),
		'0', 'nothing half is left');
	is(sql(q{SELECT count(*) FROM narinfo.valid_path WHERE cache = 'small'
		AND NOT EXISTS (SELECT FROM pg_ls_dir('} . $small . q{/small/nar') AS f
			WHERE 'nar/' || f = narinfo.url(info))}), '0',
		'each path that is there has its file');
	$node->stop;
}

done_testing();
