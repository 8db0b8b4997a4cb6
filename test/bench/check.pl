#
# pg_narinfo_check on a NAR of 128 MiB, half of it random, against the bare
# tool and sha256sum of the same, which have a processor each.
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

# Text as hexdumps are, and noise, by turns.
sub write_nar
{
	my $size = 128 << 20;
	my $string = sub { my ($s) = @_;
		return pack('Q<', length $s) . $s . "\0" x (-length($s) % 8) };
	open my $random, '<:raw', '/dev/urandom' or die $!;
	open my $out, '>:raw', $nar or die "$nar: $!\n";
	print $out map({ $string->($_) } qw[nix-archive-1 ( type regular contents]),
		pack('Q<', $size);
	for (1 .. $size >> 20)
	{
		read $random, my $noise, 512 << 10;
		print $out $noise, unpack 'H*', substr $noise, 0, 256 << 10;
	}
	print $out $string->(')');
	close $out or die $!;
}

write_nar();
my $bytes = -s $nar;
my ($hash) = split ' ', `sha256sum $nar`;
chomp(my $library = `$Bench::bindir/pg_config --pkglibdir`);

# MB/s of the NAR.
sub speed
{
	my ($command) = @_;
	my $begin = time;
	die "failed: $command\n"
		if system('bash', '-c', "set -o pipefail; $command >$dir/check.out");
	return { rate => $bytes / 1e6 / (time - $begin) };
}

for my $compression (qw(none lz4 zstd gzip br xz lzip bzip2))
{
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
unlink $nar, "$dir/check.out";
1;
