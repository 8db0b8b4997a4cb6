#
# Malformed and smuggling requests, as bytes to a live worker: each gets one
# reply of the right status, the connection is closed, and what was smuggled
# behind it is never answered.  And what is merely unusual is answered.
#
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../perl";

use NarinfoTest;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('refusals', conf => qq{
pg_narinfo.max_url_size = 1kB
pg_narinfo.max_header_size = 4kB
pg_narinfo.header_timeout = 500ms
pg_narinfo.log_requests = all
});
my $port = $node->{http_port};
$node->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");
my ($hash) = $top_path =~ m{/([a-z0-9]{32})-};

# What stands in the root's neighbourhood, for those who try to leave it.
my $root = $node->{file_root};
open my $out, '>', "$root/../secret" or die;
print $out "secret\n";
close $out;
symlink '../../secret', "$root/nar/link" or die;
symlink '/etc', "$root/nar/etc" or die;

my $second = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

# Sends bytes with a good request behind them; one reply must come.
sub refused
{
	my ($status, $name, $bytes) = @_;
	my $got = raw($port, $bytes . $second, timeout => 20);
	my @replies = $got =~ m{^HTTP/1\.1 (\d+)}mg;
	is("@replies", $status, "$name: $status, and no second reply");
	like($got, qr/^Connection: close\r$/m, "$name: says that it closes")
		if @replies == 1;
}

sub get
{
	my ($path, @headers) = @_;
	return join("\r\n", "GET $path HTTP/1.1", 'Host: x', @headers, '', '');
}

my $h = "Host: x\r\n";
my @bad = (
	[ 'two lengths', get('/', 'Content-Length: 5', 'Content-Length: 6') ],
	[ 'two equal lengths', get('/', 'Content-Length: 5', 'Content-Length: 5') ],
	[ 'a list of lengths', get('/', 'Content-Length: 5, 5') ],
	[ 'length with chunked',
		get('/', 'Content-Length: 5', 'Transfer-Encoding: chunked') ],
	[ 'chunked with length',
		get('/', 'Transfer-Encoding: chunked', 'Content-Length: 5') ],
	[ 'gzip, chunked', get('/', 'Transfer-Encoding: gzip, chunked') ],
	[ 'chunked, identity', get('/', 'Transfer-Encoding: chunked, identity') ],
	[ 'identity', get('/', 'Transfer-Encoding: identity') ],
	[ 'xchunked', get('/', 'Transfer-Encoding: xchunked') ],
	[ 'two encodings',
		get('/', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked') ],
	[ 'chunked in HTTP/1.0',
		"GET / HTTP/1.0\r\n${h}Transfer-Encoding: chunked\r\n\r\n" ],
	[ 'length +5', get('/', 'Content-Length: +5') ],
	[ 'length -5', get('/', 'Content-Length: -5') ],
	[ 'length 0x5', get('/', 'Content-Length: 0x5') ],
	[ 'length empty', get('/', 'Content-Length: ') ],
	[ 'length 5 5', get('/', 'Content-Length: 5 5') ],
	[ 'length of 30 digits', get('/', 'Content-Length: ' . '9' x 30) ],
	[ 'a blank before the colon', get('/', 'Content-Length : 5') ],
	[ 'a blank before any colon', get('/', 'X-Any : 5') ],
	[ 'obs-fold', get('/', 'X-A: b', ' c') ],
	[ 'obs-fold with a tab', get('/', 'X-A: b', "\tc") ],
	[ 'a fold behind the request line', "GET / HTTP/1.1\r\n X: y\r\n$h\r\n" ],
	[ 'bare LF in the request line', "GET / HTTP/1.1\nHost: x\r\n\r\n" ],
	[ 'bare LF in a header', "GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n" ],
	[ 'bare LF at the end', "GET / HTTP/1.1\r\nHost: x\r\n\n" ],
	[ 'bare CR in a header', "GET / HTTP/1.1\r\nHost: x\rX-A: b\r\n\r\n" ],
	[ 'bare CR in the request line', "GET / HTTP/1.1\rHost: x\r\n\r\n" ],
	[ 'NUL in a header', get('/', "X-A: b\0c") ],
	[ 'NUL in the URL', get("/a\0b") ],
	[ 'a control byte in a header', get('/', "X-A: b\x01c") ],
	[ 'a control byte in a name', get('/', "X-\x01A: b") ],
	[ 'a control byte in the URL', get("/a\x1fb") ],
	[ 'DEL in the URL', get("/a\x7fb") ],
	[ 'a tab in the URL', get("/a\tb") ],
	[ 'no Host', "GET / HTTP/1.1\r\nX-A: b\r\n\r\n" ],
	[ 'two Hosts', "GET / HTTP/1.1\r\n$h${h}\r\n" ],
	[ 'two different Hosts', "GET / HTTP/1.1\r\n${h}Host: y\r\n\r\n" ],
	[ 'a header without a name', get('/', ': x') ],
	[ 'a header without a colon', get('/', 'nonsense') ],
	[ 'no version', "GET /\r\n$h\r\n" ],
	[ 'an odd version', "GET / HTTP/x.y\r\n$h\r\n" ],
	[ 'two blanks', "GET /  HTTP/1.1\r\n$h\r\n" ],
	[ 'a path without a slash', get('nar/x') ],
	[ 'an asterisk', get('*') ],
	[ '%00', get('/nar/%00') ],
	[ '%', get('/nar/%') ],
	[ '%4', get('/nar/%4') ],
	[ '%zz', get('/nar/%zz') ],
	[ '..', get('/nar/../secret') ],
	[ '.. at the end', get('/nar/..') ],
	[ '.', get('/nar/./x') ],
	[ 'encoded ..', get('/nar/%2e%2e/secret') ],
	[ 'half encoded ..', get('/nar/.%2e/secret') ],
	[ 'encoded slash', get('/nar/..%2f..%2fsecret') ],
	[ 'doubled slash', get('//nar/x') ],
	[ 'doubled slash inside', get('/nar//x') ],
	[ 'doubled encoded slash', get('/nar/%2f/x') ],
	[ 'noise', "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" ],
);
refused(400, @$_) for @bad;

refused(505, 'HTTP/2.0', "GET / HTTP/2.0\r\n$h\r\n");
refused(505, 'HTTP/3.7', "GET / HTTP/3.7\r\n$h\r\n");
refused(414, 'a long URL', get('/' . 'a' x 2000));
refused(431, 'a long header', get('/', 'X-A: ' . 'a' x 8000));
refused(431, 'many headers', get('/', map { "X-$_: a" } 1 .. 800));
refused(413, 'a large body',
	get('/', 'Content-Length: 10000000') . 'x' x 1000);

# ---- paths that lead out of the root are no more there than others
for my $path ('/nar/link', '/nar/etc/passwd', '/nar/etc/')
{
	my $reply = http_get($port, $path);
	like($reply->{status}, qr/^40[04]$/, "$path is not served");
	unlike($reply->{body}, qr/secret|root:/, "$path tells nothing");
}

# ---- slow headers
{
	my $start = time;
	my $got = raw($port, "GET / HTTP/1.1\r\nHost:", timeout => 20);
	like($got, qr{^HTTP/1\.1 408 }, 'headers that do not come: 408');
	cmp_ok(time - $start, '<', 10, 'in time');
}

# ---- unusual, but good
sub answered
{
	my ($status, $name, $bytes, $count) = @_;
	my $got = raw($port, $bytes, shutdown => 1);
	my @replies = $got =~ m{^HTTP/1\.1 (\d+)}mg;
	is("@replies", join(' ', ($status) x ($count // 1)), $name);
	return $got;
}

answered(200, 'an absolute URL',
	"GET http://x/nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n");
answered(200, 'HTTP/1.0 without Host', "GET /nix-cache-info HTTP/1.0\r\n\r\n");
answered(200, 'headers in odd case',
	"GET /nix-cache-info HTTP/1.1\r\nhOsT:x\r\n\r\n");
answered(200, 'a small body is read and thrown away',
	get('/nix-cache-info', 'Content-Length: 5') . 'hello' . $second, 2);
answered(200, 'so is a chunked one',
	get('/nix-cache-info', 'Transfer-Encoding: chunked') .
	"5\r\nhello\r\n0\r\n\r\n" . $second, 2);
answered(200, 'percent-encoded, as nix 2.34 and guix do',
	get('/%6eix-cache-info'));
answered(200, 'Connection: close',
	get('/health', 'Connection: close') . $second);
answered(200, '80 requests before the first reply is read (guix)',
	get("/$hash.narinfo") x 80, 80);

my $got = raw($port, "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	  . "GET /health HTTP/1.0\r\n\r\n");
is(() = $got =~ m{^HTTP/1\.1 200}mg, 2, 'HTTP/1.0 with keep-alive');

is(http_get($port, "/$hash.narinfo", 'Accept-Encoding' => 'gzip, br, zstd')
	->{headers}{'content-encoding'}, undef, 'nothing is encoded');

# ---- the log
$node->stop;
my $log = slurp_bytes($node->logfile);
ok($log =~ m{LOG:  request address=127\.0\.0\.1 method=GET path=/$hash\.narinfo status=200 bytes=\d+ ms=}, "requests are logged");
ok($log !~ /[\x01-\x08\x0b-\x1f]/, "no control byte gets into the log");

done_testing();
