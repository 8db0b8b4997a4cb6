#
# NARs at 16 connections, against nginx's sendfile.
#
# wrk copies and parses all it gets, 8 kB at a time, and is what is busy; so
# there is also a client that lets the kernel drop the bytes, and leaves more
# to the server.
#
use strict;
use warnings;
use Bench;

need_rows(200_000);
my %path = (
	'64 MB' => nar_file('64m.nar', 64 << 20),
	'1 MB' => nar_file('1m.nar', 1 << 20),
	'64 kB' => nar_file('64k.nar', 64 << 10)
);
my $nginx = nginx_start($file_root);

for my $size ('64 MB', '1 MB', '64 kB')
{
	my $path = $path{$size};
	my $list = "$dir/nar.paths";
	open my $out, '>', $list or die "$list: $!\n";
	print $out "$path\n";
	close $out;

	# Long enough for each connection to have a large one whole.
	my @how = (connections => 16,
		seconds => $size eq '64 MB' && $seconds < 6 ? 6 : $seconds);
	progress("NARs of $size");
	wrk($_, $list, @how) for $nginx, $ours;
	my $wrk = rounds(
		nginx => sub { wrk($nginx, $list, @how) },
		ours => sub { wrk($ours, $list, @how) }
	);
	my $drain = rounds(
		nginx => sub { crowd_drain($nginx, $path, 16) },
		ours => sub { crowd_drain($ours, $path, 16) }
	);
	compare("NARs of $size, wrk", $wrk, ours => 'nginx', 'speed',
		hold => 0.9);
	compare("NARs of $size, dropped by the client", $drain,
		ours => 'nginx', 'speed', hold => 0.9);
	busy("NARs of $size, wrk", $wrk, 'ours', 'nginx');
	busy("NARs of $size, dropped", $drain, 'ours', 'nginx');
}

end_process($nginx->{master});
1;
