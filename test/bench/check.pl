#
# What a check costs that is one of many, of a small NAR: check_nar() in one
# query, whose checks are children of a zygote, against a start of the program
# for each; beside them the start of a program that does nothing.
#
# Then pg_narinfo_check on a NAR of 128 MiB, half of it random, against the
# bare tool and sha256sum of the same, which have a processor each.
#
#   BENCH_CHECK="small large"   which of these
#
use strict;
use warnings;
use Bench;
use Time::HiRes qw(time);

my $nar = "$dir/check.nar";
my %pack = (xz => 'xz -3 -c', zstd => 'zstd -qc', gzip => 'gzip -c',
	bzip2 => 'bzip2 -c', lzip => 'lzip -1 -c', lz4 => 'lz4 -qc',
	br => 'brotli -c -q 5', none => 'cat');
my %unpack = (xz => 'xz -dc', zstd => 'zstd -dqc', gzip => 'gzip -dc',
	bzip2 => 'bzip2 -dc', lzip => 'lzip -dc', lz4 => 'lz4 -dqc',
	br => 'brotli -dc', none => 'cat');

my %part = map { $_ => 1 } split ' ', $ENV{BENCH_CHECK} // 'small large';
chomp(my $library = `$Bench::bindir/pg_config --pkglibdir`);

sub string
{
	my ($s) = @_;
	return pack('Q<', length $s) . $s . "\0" x (-length($s) % 8);
}

# ---- small ones

my $many = 300;

# Checks a second; whatever is printed has to be what is expected.
sub checks
{
	my ($expected, $code) = @_;
	my $begin = time;
	my $said = $code->();
	die "not $expected: $said\n" unless $said eq $expected;
	return { rate => $many / (time - $begin) };
}

sub loop
{
	my ($command) = @_;
	return checks('', sub {
		scalar qx(set -e; for i in \$(seq $many); do $command || echo bad; done) });
}

sub small
{
	my ($compression) = @_;
	my $bytes = join '', map { string($_) } qw[nix-archive-1 ( type regular
		contents], 'small ' x 500, ')';
	my $file = "$file_root/nar/small.$compression";
	open my $out, '|-', "$pack{$compression} >$file" or die $!;
	print $out $bytes;
	close $out or die "failed: $pack{$compression}\n";
	my ($hash) = split ' ', `$unpack{$compression} <$file | sha256sum`;
	my $size = length $bytes;
	my $info = join '', map { "$_\\n" }
		'StorePath: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-small',
		"URL: nar/small.$compression", "Compression: $compression",
		"NarHash: sha256:$hash", "NarSize: $size", 'References: ';
	my $r = rounds(
		zygote => sub { checks('0', sub { sql("SELECT
			count(narinfo.check_nar(E'$info'))
			FROM generate_series(1, $many)") }) },
		program => sub { loop("$library/pg_narinfo_check 0 $compression "
			. "- - sha256:$hash $size <$file >/dev/null") },
		nothing => sub { loop('/bin/true </dev/null >/dev/null') });
	compare("check of a small NAR, $compression, by a zygote", $r,
		zygote => 'program', 'rate');
	compare("the same, against starting /bin/true", $r,
		zygote => 'nothing', 'rate');
	unlink $file;
}

if ($part{small})
{
	small($_) for qw(none zstd xz);
}

# ---- large ones

# Text as hexdumps are, and noise, by turns.
sub write_nar
{
	my $size = 128 << 20;
	open my $random, '<:raw', '/dev/urandom' or die $!;
	open my $out, '>:raw', $nar or die "$nar: $!\n";
	print $out map({ string($_) } qw[nix-archive-1 ( type regular contents]),
		pack('Q<', $size);
	for (1 .. $size >> 20)
	{
		read $random, my $noise, 512 << 10;
		print $out $noise, unpack 'H*', substr $noise, 0, 256 << 10;
	}
	print $out string(')');
	close $out or die $!;
}

my ($bytes, $hash);

# MB/s of the NAR.
sub speed
{
	my ($command) = @_;
	my $begin = time;
	die "failed: $command\n"
		if system('bash', '-c', "set -o pipefail; $command >$dir/check.out");
	return { rate => $bytes / 1e6 / (time - $begin) };
}

sub large
{
	my ($compression) = @_;
	my $file = "$nar.$compression";
	die "failed: $pack{$compression}\n"
		if system("$pack{$compression} <$nar >$file");
	my $r = rounds(
		ours => sub { speed("$library/pg_narinfo_check 0 $compression "
			. "- - sha256:$hash $bytes <$file | cat") },
		bare => sub { speed("$unpack{$compression} <$file | sha256sum") });
	my ($ours, $bare) = map { [ map { $_->{rate} } @{ $r->{$_} } ] }
		qw(ours bare);
	bar("check of a NAR, $compression", 'MB/s', median(@$ours),
		"$unpack{$compression} | sha256sum", median(@$bare),
		ratios => [ map { $ours->[$_] / $bare->[$_] } 0 .. $#$ours ]);
	unlink $file;
}

if ($part{large})
{
	write_nar();
	$bytes = -s $nar;
	($hash) = split ' ', `sha256sum $nar`;
	large($_) for qw(none lz4 zstd gzip br xz lzip bzip2);
	unlink $nar, "$dir/check.out";
}
1;
