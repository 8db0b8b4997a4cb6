# Files below pg_narinfo.file_root: what they are answered as, and that no
# path leads out of it.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Path qw(make_path);
use NarinfoTest;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('files');
my $port = $node->{http_port};
my $root = $node->{file_root};

sub sql { return $node->safe_psql('postgres', @_) }

sub put_file
{
	my ($path, $bytes) = @_;
	my ($directory) = "$root/$path" =~ m{^(.*)/};
	make_path($directory);
	open my $out, '>:raw', "$root/$path" or die "$root/$path: $!";
	print $out $bytes;
	close $out or die $!;
	return;
}

sub status_is
{
	my ($path, $status, $name) = @_;
	my $reply = http_get($port, $path);
	is($reply->{status}, $status, ($name // $path) . ": $status");
	return $reply;
}

# ---- NARs

my ($nar) = map { m{(nar/[^/]+)$} } sort { -s $b <=> -s $a } glob "$root/nar/*";
my $bytes = slurp_bytes("$root/$nar");
my $reply = status_is("/$nar", 200);
ok($reply->{body} eq $bytes, 'a NAR has its bytes');
is($reply->{headers}{'content-type'}, 'application/x-nix-nar', 'its type');
is($reply->{headers}{'accept-ranges'}, 'bytes', 'it can be had in parts');
is($reply->{headers}{'cache-control'},
	'public, max-age=31536000, immutable', 'it can be kept for ever');
ok(!exists $reply->{headers}{'content-encoding'}, 'it is not encoded');
my ($etag, $date) = @{ $reply->{headers} }{qw(etag last-modified)};
ok(http_get($port, "/main/$nar")->{body} eq $bytes, 'the same of /main/');

$reply = http_request($port, 'HEAD', "/$nar");
is($reply->{headers}{'content-length'}, length $bytes, 'HEAD has the length');

$reply = http_get($port, "/$nar", Range => 'bytes=100-');
is($reply->{status}, 206, 'the rest of it');
ok($reply->{body} eq substr($bytes, 100), 'from there on');
is($reply->{headers}{'content-range'},
	'bytes 100-' . (length($bytes) - 1) . '/' . length($bytes), 'says what');
$reply = http_get($port, "/$nar", Range => 'bytes=10-19');
ok($reply->{body} eq substr($bytes, 10, 10), 'ten bytes of it');
$reply = http_get($port, "/$nar", Range => 'bytes=' . length($bytes) . '-');
is($reply->{status}, 416, 'nothing behind its end');
is($reply->{headers}{'content-range'}, 'bytes */' . length($bytes), 'says so');

is(http_get($port, "/$nar", 'If-None-Match' => $etag)->{status}, 304,
	'If-None-Match: 304');
is(http_get($port, "/$nar", 'If-Modified-Since' => $date)->{status}, 304,
	'If-Modified-Since: 304');

# ---- a large one, larger than any buffer

my $large = join '', map { sha256_hex($_) } 1 .. 200_000;
put_file('nar/large.nar', $large);
$reply = http_get($port, '/nar/large.nar');
is(sha256_hex($reply->{body}), sha256_hex($large), 'twelve megabytes');

# ---- the other kinds of files

put_file('log/abc-x.drv', "built\n");
put_file("log/abc-c++.drv", "built ++\n");
put_file('realisations/sha256:ab!out.doi', "{}\n");
put_file('debuginfo/00ff.debug', "{\"archive\":1}\n");
put_file('0000000000000000000000000000000a.ls', "{\"version\":1}\n");
put_file('nar/empty', '');
put_file('nar/zstd/deep/er', 'deep');
put_file('nar/a?b', 'asked');
put_file('nar/plain', 'plain');

$reply = status_is('/log/abc-x.drv', 200);
is($reply->{headers}{'content-type'}, 'text/plain; charset=utf-8', 'a log');
is($reply->{body}, "built\n", 'and its text');
is(http_get($port, '/log/abc-c%2B%2B.drv')->{body}, "built ++\n", '%2B');
$reply = status_is('/realisations/sha256:ab%21out.doi', 200);
is($reply->{headers}{'content-type'}, 'application/json', 'a realisation');
$reply = status_is('/debuginfo/00ff.debug', 200);
is($reply->{headers}{'content-type'}, 'application/json', 'debuginfo');
$reply = status_is('/0000000000000000000000000000000a.ls', 200);
is($reply->{headers}{'content-type'}, 'application/json', 'a listing');
is(status_is('/nar/empty', 200)->{body}, '', 'an empty file');
is(http_get($port, '/nar/zstd/deep/er')->{body}, 'deep', 'guix has levels');
is(http_get($port, '/nar/a?b')->{body}, 'asked', "a name with a raw '?'");
is(http_get($port, '/nar/a%3Fb')->{body}, 'asked', "a name with %3F");
is(http_get($port, '/nar/plain?x=1')->{body}, 'plain', 'a query of no file');

# ---- absent, or nothing that may be served

mkfifo("$root/nar/fifo", 0666) or die $!;
put_file('secret.txt', 'secret');
put_file('nar/dir/file', 'file');
for my $path (
	'/nar/none', '/nar/dir', '/nar/fifo', '/nar/plain/x', '/secret.txt',
	'/main/secret.txt', '/nix-cache-info/x', '/nar/' . ('x' x 300),
	'/nar/' . ('x/' x 300) . 'x')
{
	status_is($path, 404, substr $path, 0, 40);
}

# ---- ways out

my $outside = $node->basedir . '/outside';
make_path($outside);
open my $out, '>', "$outside/secret.txt" or die $!;
print $out 'secret';
close $out;
symlink '/etc/passwd', "$root/nar/absolute" or die $!;
symlink '../../outside/secret.txt', "$root/nar/relative" or die $!;
symlink $outside, "$root/nar/directory" or die $!;
symlink '/proc/self/environ', "$root/nar/magic" or die $!;
symlink 'loop', "$root/nar/loop" or die $!;
symlink 'plain', "$root/nar/inside" or die $!;

is(http_get($port, '/nar/inside')->{body}, 'plain', 'a link within the root');
status_is($_, 404) for qw(/nar/absolute /nar/relative /nar/magic /nar/loop
	/nar/directory/secret.txt);
for my $path (
	'/nar/../secret.txt', '/nar/%2e%2e/secret.txt', '/nar/..%2fsecret.txt',
	'/nar/%2e%2e%2fsecret.txt', '/nar/./plain', '/nar//plain',
	'/nar/..', '/../etc/passwd', '/nar/plain%00', '/nar/a/../../secret.txt')
{
	status_is($path, 400);
}
# Decoded once, not twice: a name of no file.
status_is('/nar/%252e%252e/secret.txt', 404);
status_is('/nar/..%5csecret.txt', 404);

# ---- other caches have directories of their own

sql(q{INSERT INTO narinfo.cache (name) VALUES ('team'), ('other')});
put_file('team/nar/t', 'team');
put_file('other/nar/o', 'other');
symlink '../other', "$root/team/escape" or die $!;
symlink '../../other/nar/o', "$root/team/nar/escape" or die $!;
is(http_get($port, '/team/nar/t')->{body}, 'team', "a file of another cache");
status_is($_, 404) for qw(/nar/t /team/nar/o /team/nar/plain /team/nar/escape
	/main/team/nar/t);
symlink 'other', "$root/third" or die $!;
sql(q{INSERT INTO narinfo.cache (name) VALUES ('third')});
status_is('/third/nar/o', 404, 'a directory that is a link');

# ---- the root may come and go

rename $root, "$root.away" or die $!;
ok(poll_until(sub { http_get($port, '/nar/plain')->{status} == 404 }),
	'without the root, files are absent');
rename "$root.away", $root or die $!;
ok(poll_until(sub { http_get($port, '/nar/plain')->{status} == 200 }),
	'and are back with it');
$node->append_conf('postgresql.conf', "pg_narinfo.file_root = ''\n");
$node->reload;
ok(poll_until(sub { http_get($port, '/nar/plain')->{status} == 404 }),
	'no root set: no files');

# ---- no descriptor stays open

my $pid = sql(q{SELECT pid FROM narinfo.stat_workers WHERE kind = 'http'});
my @open = grep { /\Q$root\E/ } map { readlink($_) // '' }
	glob "/proc/$pid/fd/*";
is("@open", '', 'no file is left open');

done_testing();
