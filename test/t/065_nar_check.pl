# check_nar: a good NAR of each compression passes; one that is cut, changed by
# a bit, swapped, a bomb, or followed by anything is refused, and the reason
# says which field it is.  The process that looks into it may crash, and is
# ended with the query; the server goes on.
use strict;
use warnings;

use Compress::Zlib qw(crc32);
use Digest::SHA qw(sha256_hex);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('nars', conf => "restart_after_crash = on\n");
my $root = $node->{file_root};

$ENV{PGOPTIONS} = q(-c search_path=narinfo,public);

my %tool = (xz => [qw(xz -c -T1)], zstd => [qw(zstd -qc)],
	gzip => [qw(gzip -c)], bzip2 => [qw(bzip2 -c)], lzip => [qw(lzip -c)],
	lz4 => [qw(lz4 -qc)], br => [qw(brotli -c -q 5)], none => ['cat']);

# ---- NARs

sub string
{
	my ($bytes) = @_;
	return pack('Q<', length $bytes) . $bytes
		. "\0" x (-length($bytes) % 8);
}

sub nar { return join '', map { string($_) } 'nix-archive-1', @_ }

sub file { return ('(', 'type', 'regular', 'contents', $_[0], ')') }

sub compressed
{
	my ($compression, $bytes) = @_;
	my $out = '';
	my @command = @{ $tool{$compression} };
	IPC::Run::run([@command], '<', \$bytes, '>', \$out)
		or die "@command failed";
	return $out;
}

my $tree = PostgreSQL::Test::Utils::tempdir() . '/tree';
mkdir $tree or die $!;
for my $i (1 .. 20)
{
	open my $out, '>', "$tree/file$i" or die $!;
	# enough that does not compress away, and the same in every run
	print $out map { sha256_hex("$i $_") . "\n" } 1 .. 300;
}
symlink 'file1', "$tree/link" or die $!;
my ($status, $dump, $err) = nix($node->basedir . '/nix', 'nix-store', '--dump', $tree);
is($status, 0, 'nix dumps a tree') or diag $err;
my $other = $dump =~ s/file20/file2_/r;

# ---- asking

my ($number, @asked) = 0;

# Puts a file there and will ask for it; %field overrides what is true, undef
# leaves a field out.
sub ask
{
	my ($what, $expected, $compression, $file, $nar, %field) = @_;
	my $name = 'nar/check/' . ++$number;
	mkdir "$root/nar", mkdir "$root/nar/check";
	open my $out, '>:raw', "$root/$name" or die $!;
	print $out $file;
	close $out;
	%field = (
		StorePath => '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
		URL => $name, Compression => $compression,
		NarHash => 'sha256:' . sha256_hex($nar), NarSize => length $nar,
		References => '', %field
	);
	my $text = join '', map { "$_: $field{$_}\\n" }
		grep { defined $field{$_} } qw(StorePath URL Compression FileHash
		FileSize NarHash NarSize References);
	push @asked, [ "$compression: $what", $expected,
		"SELECT coalesce(check_nar(E'$text'), 'good');" ];
}

sub answers
{
	my @answers = split /\n/, $node->safe_psql('postgres',
		join "\n", map { $_->[2] } @asked);
	is(scalar @answers, scalar @asked, 'every question has an answer');
	for (@asked)
	{
		like(shift @answers, $_->[1], $_->[0]);
	}
	@asked = ();
}

sub flipped
{
	my ($bytes, $at) = @_;
	substr($bytes, $at, 1) ^= "\x10";
	return $bytes;
}

my $good = qr/^good$/;
my $bad = qr{^nar/check/\d+: };

# Beyond NarSize it is zeros.
my $bomb = substr(nar(file('x')), 0, -16) =~ s/.{16}\z//sr
	. pack('Q<', 1 << 40) . "\0" x (64 << 20);

for my $compression (sort keys %tool)
{
	my $file = compressed($compression, $dump);
	my $length = length $file;
	my @ask = ($compression, $file, $dump);
	my %of_file = (FileHash => 'sha256:' . sha256_hex($file),
		FileSize => $length);

	ask('good', $good, @ask);
	ask('good, with FileHash and FileSize', $good, @ask, %of_file);
	for my $at (0, 1, 7, int($length / 3), $length - 5, $length - 1)
	{
		my $part = substr $file, 0, $at;
		ask("cut to $at", $bad, $compression, $part, $dump);
		ask("cut to $at, FileSize", qr{: FileSize: $length expected, $at found$},
			$compression, $part, $dump, %of_file);
	}
	for my $at (int($length / 4), int($length / 2), int($length * 7 / 8))
	{
		ask("bit at $at", $bad, $compression, flipped($file, $at), $dump);
		ask("bit at $at, FileHash", qr{: FileHash: sha256:\w+ expected, },
			$compression, flipped($file, $at), $dump, %of_file);
	}
	ask('another NAR', qr{: NarHash: sha256:\w+ expected, sha256:\w+ found$},
		$compression, compressed($compression, $other), $dump);
	ask('NarSize too small', qr{: NarSize: 1000 expected, more found$},
		@ask, NarSize => 1000);
	ask('NarSize too large', qr{: NarSize: \d+ expected, \d+ found$},
		@ask, NarSize => 8 + length $dump);
	ask('FileSize', qr{: FileSize: 5 expected, $length found$}, @ask,
		FileSize => 5);
	ask('text behind it', $bad, $compression, "${file}more!", $dump);
	ask('a bomb', qr{: NarSize: 1000 expected, more found$}, $compression,
		compressed($compression, $bomb), 'x' x 1000);
	ask('nothing', $bad, $compression, '', $dump);
	ask('a NAR that is none', qr{: no NAR: byte},
		$compression, compressed($compression, nar(file('x'), ')')),
		nar(file('x'), ')'));
	ask('two streams', $compression eq 'br' ? $bad : $good, $compression,
		join('', map { compressed($compression, $_) }
			substr($dump, 0, 5000), substr($dump, 5000)), $dump);
	next if $compression eq 'none';
	ask('not compressed', $bad, $compression, $dump, $dump);
	ask('a stream in a stream', $bad, $compression,
		compressed($compression, $file), $dump);
}
answers();

# ---- memory

# A dictionary of 1 GiB, in a block header with its checksum.
my $xz = compressed('xz', $dump);
is(substr($xz, 12, 4), "\x02\x00\x21\x01", 'xz has the header that we know');
my $header = substr($xz, 12, 4) . chr(36) . "\0" x 3;
substr($xz, 12, 12) = $header . pack 'V', crc32($header);
ask('dictionary of 1 GiB', qr{more than 64 MiB of memory$}, 'xz', $xz, $dump);

my $lzip = compressed('lzip', $dump);
substr($lzip, 5, 1) = chr 29;
ask('dictionary of 512 MiB', qr{more than 64 MiB of memory$}, 'lzip', $lzip,
	$dump);
push @{ $tool{xz} }, '--lzma2=dict=64MiB';
ask('dictionary of 64 MiB', $good, 'xz', compressed('xz', $dump), $dump);

# ---- fields and structure

ask('hash of another kind', $good, 'none', $dump, $dump,
	NarHash => 'sha512:' . Digest::SHA::sha512_hex($dump));
ask('not known', qr{: Compression: rot13 is not known here$}, 'rot13', $dump,
	$dump);
ask('no such file', qr{: there is no such file$}, 'none', $dump, $dump,
	URL => 'nar/check/none');
ask('outside', qr{: there is no such file$}, 'none', $dump, $dump,
	URL => '../../postgresql.conf');
ask('elsewhere', qr{: there is no such file$}, 'none', $dump, $dump,
	URL => 'https://cache.example.org/nar/a');
ask('more than a file can have', qr{are not believed$}, 'zstd',
	compressed('zstd', $dump), $dump, NarSize => 1 << 62);
my @entry = ('entry', '(', 'name', 'a', 'node', file('x'), ')');
for ([ 'twice', @entry, @entry ], [ 'no name of a file', map { $_ eq 'a' ? '..' : $_ } @entry ])
{
	my ($why, @entries) = @$_;
	my $nar = nar('(', 'type', 'directory', @entries, ')');
	ask("directory: $why", qr{: no NAR: .*$why}, 'none', $nar, $nar);
}
answers();

is($node->safe_psql('postgres',
	'CALL import_cache(current_setting(\'pg_narinfo.file_root\'));
	SELECT count(*), count(check_nar(info)) FROM valid_path'),
	'82|0', 'every NAR of the small real cache is good');

# ---- who may

$node->safe_psql('postgres', 'CREATE ROLE anybody LOGIN;
	GRANT narinfo_reader TO anybody');
my ($code, $out, $refused) = $node->psql('postgres',
	'SELECT check_nar(info) FROM valid_path LIMIT 1',
	extra_params => [ '-U', 'anybody' ]);
like($refused, qr/permission denied for function check_nar/,
	'not everybody may');

# ---- crashes and cancels

# A NAR that takes long and no room: a file of zeros.
my $size = 64 << 30;
my $long = substr(nar(file('x')), 0, -32) . pack 'Q<', $size;
open my $sparse, '>:raw', "$root/nar/check/long" or die $!;
print $sparse $long;
truncate $sparse, $size + 1024 or die $!;
close $sparse;
my $query = "SELECT check_nar(E'" . join('', map { "$_\\n" }
	'StorePath: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	'URL: nar/check/long', 'Compression: none',
	'NarHash: sha256:' . sha256_hex(''), 'NarSize: ' . ($size + 1024),
	'References: ') . "');";
my $started = 'SELECT pg_postmaster_start_time()';
my $start_time = $node->safe_psql('postgres', $started);

# Its check, not the zygote, which leads a group.
sub child_of
{
	my ($parent) = @_;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $stat or next;
		my $line = <$in> // '';
		return $1 if $line =~ /^(\d+) \(pg_narinfo_chec\) \S (\d+) (\d+) /
			&& $2 == $parent && $3 != $1;
	}
	return undef;
}

# Begins the long check in a session of its own: its pid, and the check's.
sub begin_long
{
	my ($session) = @_;
	my $backend = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\echo begun\n$query\n");
	my $child;
	poll_until(sub { $child = child_of($backend) });
	return ($backend, $child);
}

for my $how (qw(SEGV KILL cancel terminate))
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my ($backend, $child) = begin_long($session);
	ok($child, "$how: a check runs") or next;
	if ($how eq 'cancel' || $how eq 'terminate')
	{
		$node->safe_psql('postgres', "SELECT pg_${how}_backend($backend)");
	}
	else
	{
		kill $how, $child;
	}
	my $said = $how eq 'cancel' ? qr/canceling statement/
		: $how eq 'terminate' ? qr/terminating connection/
		: qr/could not check "nar\/check\/long": the check was ended by SIG$how/;
	ok($node->wait_for_log($said), "$how: the session is told") ;
	ok(poll_until(sub { !-e "/proc/$child" }), "$how: the check is gone");
	is($node->safe_psql('postgres', $started), $start_time,
		"$how: the server goes on");
	eval { $session->quit };
}

# Nobody is left to kill it when the session is killed; that restarts the
# server, as ever, but not the check.
my $session = $node->background_psql('postgres', on_error_stop => 0);
my ($backend, $child) = begin_long($session);
kill 'KILL', $backend;
ok(poll_until(sub { !-e "/proc/$child" }), 'a check ends with its session');
eval { $session->quit };
ok($node->poll_query_until('postgres', 'SELECT true'), 'and the server is back');

$node->stop;
done_testing();
