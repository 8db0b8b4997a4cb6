#
# What 10,000 idle connections cost in memory, and whom they and 1,000 slow
# readers of a NAR hold up: nobody.
#
use strict;
use warnings;
use Bench;

need_rows(200_000);
my $walk = paths_file('walk 200000');
my $files = narinfo_files(200_000);
my $nar = nar_file('64m.nar', 64 << 20);
symlink "$file_root/nar", "$files/nar" unless -e "$files/nar";
my $nginx = nginx_start($files);

warm($_, $walk, 200_000) for $nginx, $ours;

# kB each, once the connections are there.
sub cost
{
	my ($server, $kind, $path, $count) = @_;
	my $before = memory($server->{pid});
	my $end = crowd_start($kind, $server, $path, $count);
	my $after = memory($server->{pid});
	my $open = $end->();
	die "$server->{name}: of $count $kind connections $open were left\n"
		if $open != $count;
	return { map { $_ => ($after->{$_} - $before->{$_}) / $count }
		qw(anon pss) };
}

# The first one shows what has to be had from the system; later ones find it
# in malloc's hands.
my $hash = do { open my $in, '<', $walk or die; <$in> };
chomp $hash;
my $our_cost = cost($ours, 'idle', $hash, 10_000);
my $nginx_cost = cost($nginx, 'idle', $hash, 10_000);
my $our_slow = cost($ours, 'slow', $nar, 1_000);
my $nginx_slow = cost($nginx, 'slow', $nar, 1_000);

# How others fare, who are in no hurry.  "settle" are the seconds that the
# crowd has had before: none for those that ask for the file, all at once,
# while others are being served.
sub others
{
	my ($server, $kind, $path, $count, $settle) = @_;
	my $end = $kind ? crowd_start($kind, $server, $path, $count) : undef;
	sleep $settle if $settle;
	my $r = wrk($server, $walk, delay => 10);
	die "$r->{status} narinfos were not found\n" if $r->{status};
	if ($end)
	{
		my $open = $end->();
		die "of $count $kind connections $open were left\n"
			if $open != $count;
		sleep 1;
	}
	return $r;
}

my $r = rounds(
	alone => sub { others($ours) },
	idle => sub { others($ours, 'idle', $hash, 10_000, 1) },
	slow => sub { others($ours, 'slow', $nar, 1_000, 5) },
	'nginx, slow' => sub { others($nginx, 'slow', $nar, 1_000, 5) },
	begin => sub { others($ours, 'slow', $nar, 1_000, 0) },
	'nginx, begin' => sub { others($nginx, 'slow', $nar, 1_000, 0) },
);

# memory() has kB; a row reads better in bytes.
sub bytes
{
	my ($cost, $key) = @_;
	return $cost->{$key} > 0 ? 1024 * $cost->{$key} : 1;
}
bar('10,000 idle connections, memory each', 'bytes',
	bytes($our_cost, 'anon'), 'nginx', bytes($nginx_cost, 'anon'));
bar('10,000 idle connections, Pss each', 'bytes',
	bytes($our_cost, 'pss'), 'nginx', bytes($nginx_cost, 'pss'));
bar('1,000 slow readers, memory each', 'bytes',
	bytes($our_slow, 'anon'), 'nginx', bytes($nginx_slow, 'anon'));
compare('others beside 10,000 idle, paced, p99', $r, idle => 'alone', 'p99',
	most => 2);
compare('others beside 1,000 slow, paced, p99', $r, slow => 'alone', 'p99',
	most => 2);
compare('others beside 1,000 slow, paced, p99', $r, slow => 'nginx, slow',
	'p99');
compare('the same while the 1,000 begin, p99', $r, begin => 'nginx, begin',
	'p99');
compare('the same while the 1,000 begin, p99.9', $r, begin => 'nginx, begin',
	'p999');
busy('paced', $r, 'alone', 'idle', 'slow', 'begin');

end_process($nginx->{master});
1;
