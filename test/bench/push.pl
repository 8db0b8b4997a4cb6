#
# Pushing: small paths over 1 and 25 connections and a NAR of 1 GB, with the
# NARs looked into and without, against nginx's dav PUT of the same files,
# which syncs nothing, looks into nothing and publishes nothing; and how much
# later GETs are answered meanwhile.
#
# On few processors the writer worker, the checks and the clients have one, and
# the HTTP worker the other; nginx' clients leave it one for itself, too.
#
#   BENCH_PUSH="small large beside"   which of these
#
use strict;
use warnings;
use Bench;
use Time::HiRes qw(time);

my %part = map { $_ => 1 } split ' ',
	$ENV{BENCH_PUSH} // 'small large beside';
my $big = 1 << 30;

need_rows(200_000);
my $token = sql(q{SELECT narinfo.create_token('bench ' || clock_timestamp(),
	'{push}')});
my $dav = "$dir/dav";
mkdir $dav;
my $nginx = nginx_start($dav, name => 'dav', put => 1);

# No path is ever pushed twice, in a directory that is kept either.
my $seed = int(time) % 100_000 * 100;
sub next_seed { return $seed++ }

# Paths a second.
sub small
{
	my ($server, $connections, $key) = @_;
	my $r = push_run($server, 'small', $key, $connections, $seconds, next_seed());
	return { %$r, rate => $r->{words}[0] / $r->{words}[1] };
}

my @checked = ([checked => 'on'], [unchecked => 'off']);
my %small;
for my $connections ($part{small} ? (1, 25) : ())
{
	my $r = rounds(
		nginx => sub { small($nginx, $connections, '-') },
		map { my ($name, $value) = @$_;
			$name => sub {
				setting(check_nars => $value);
				small($ours, $connections, $token);
			} } @checked
	);
	compare("small paths, $connections connections, $_", $r, $_ => 'nginx',
		'rate') for map { $_->[0] } @checked;
	busy("small paths, $connections connections", $r, 'checked', 'nginx');
}

# ---- a large one

sub hash_of { return (split ' ', `sha256sum '$_[0]'`)[0] }

# Of one file of noise.
sub write_nar
{
	my ($name) = @_;
	my $string = sub { my ($s) = @_;
		return pack('Q<', length $s) . $s . "\0" x (-length($s) % 8) };
	open my $out, '>:raw', $name or die "$name: $!\n";
	print $out map({ $string->($_) } "nix-archive-1", "(", qw[type regular contents]),
		pack('Q<', $big);
	close $out or die "$name: $!\n";
	system("head -c $big /dev/urandom >>'$name'") == 0 or die;
	open $out, '>>:raw', $name or die "$name: $!\n";
	print $out $string->(')');
	close $out or die "$name: $!\n";
	return;
}

my $nar = "$dir/big.nar";
my ($hash, $size);
if ($part{large} || $part{beside})
{
	write_nar($nar) unless -e $nar;
	$hash = hash_of($nar);
	$size = -s $nar;
}
my $n = 0;

# A store path of its own each time, so that it is published each time.
sub large
{
	my ($server, $key, $narinfo) = @_;
	unlink "$file_root/nar/$hash.nar", "$dav/nar/$hash.nar";
	my $r = push_run($server, 'file', $key,
		"/nar/$hash.nar", $nar);
	my $took = $r->{words}[1];
	if ($narinfo)
	{
		my $name = sprintf '%032d', int(time) % 1_000_000 * 1000 + $n++;
		open my $out, '>', "$dir/big.narinfo" or die $!;
		print $out <<~END;
			StorePath: /nix/store/$name-big
			URL: nar/$hash.nar
			Compression: none
			FileHash: sha256:$hash
			FileSize: $size
			NarHash: sha256:$hash
			NarSize: $size
			References:${\ ' '}
			END
		close $out or die $!;
		$took += push_run($server, 'file', $key,
			"/$name.narinfo", "$dir/big.narinfo")->{words}[1];
	}
	return { %$r, speed => $size / 1e6 / $took };
}

if ($part{large})
{
	my $r = rounds(
		nginx => sub { large($nginx, '-') },
		map { my ($name, $value) = @$_;
			$name => sub {
				setting(check_nars => $value);
				large($ours, $token, 1);
			} } @checked
	);
	compare("a NAR of 1 GB, $_", $r, $_ => 'nginx', 'speed')
		for map { $_->[0] } @checked;
	busy('a NAR of 1 GB', $r, 'checked', 'nginx');
}

# ---- GETs meanwhile

sub beside
{
	setting(check_nars => undef);
	my $walk = paths_file('walk 200000');
	my @asks = (connections => 16, delay => 10, first => 1);
	my (%result, @published);

	keep_in_memory('narinfo.valid_path');
	for my $round (1 .. $rounds)
	{
		push @{ $result{idle} }, wrk($ours, $walk, @asks);
		unlink "$file_root/nar/$hash.nar";
		my @load = (
			spawn('small', "$dir/small.out", push_command('small',
				$ours->{port}, $token, 25, $seconds + 4,
				next_seed())),
			spawn('big', "$dir/big.out", on_client('sh', '-c', 'while :; do ' .
				join(' ', map { "'$_'" } push_command('file', $ours->{port},
					$token, "/nar/$hash.nar", $nar)) .
				" || exit 1; rm -f '$file_root/nar/$hash.nar'; done")));
		select undef, undef, undef, 1;
		my ($events, $begin) = (sql(q{SELECT narinfo.last_event('main')}),
			time);
		push @{ $result{pushing} }, wrk($ours, $walk, @asks);
		push @published, (sql(q{SELECT narinfo.last_event('main')}) - $events)
			/ (time - $begin);
		for (@load)
		{
			die "a client ended early: see $dir/small.out, $dir/big.out\n"
				unless kill 0, $_;
		}
		system('pkill', '-P', $load[1]);
		end_process($_) for @load;
		my ($idle, $pushing) = map { $result{$_}[-1]{p99} } qw(idle pushing);
		progress("round $round  p99 $idle ms idle, $pushing ms pushing");
	}
	compare("GET p99, 1 GB and 25 connections pushing", \%result,
		pushing => 'idle', 'p99', most => 2);
	compare("GET p50, the same", \%result, pushing => 'idle', 'p50');
	info('small paths published meanwhile', '1/s', median(@published));
	return;
}

beside() if $part{beside};
end_process($nginx->{master});
1;
