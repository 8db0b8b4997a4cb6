#
# 200,000 distinct narinfos: one HTTP worker against one nginx worker that
# serves the same ones as files, and against a constant answer.
#
use strict;
use warnings;
use Bench;

my $count = 200_000;

need_rows($count);
my $files = narinfo_files($count);
my $walk = paths_file("walk $count");
my $absent = paths_file("absent $count");

my $nginx = nginx_start($files);
my $open = nginx_start($files, name => 'nginx-open', open_files => 16_000);
my $memory = nginx_start(narinfo_files_in_memory($count),
	name => 'nginx-tmpfs');
my $constant = constant_start(average_file($files));

progress('warming up');
warm($ours, $walk, $count);
warm($memory, $walk, $count);

sub hits
{
	my ($server, @options) = @_;
	my $r = wrk($server, $walk, @options);
	die "$server->{name}: $r->{status} narinfos were not found\n"
		if $r->{status};
	return $r;
}

# Files on disk may have been pushed out of memory since they were read.
sub warm_hits
{
	my ($server, @options) = @_;
	warm($server, $walk, $count);
	return hits($server, @options);
}

# What remembering where rows are is worth.
sub hits_without_memory
{
	setting('lookup_memory', 0);
	my $r = hits($ours);
	setting('lookup_memory');
	warm($ours, $walk, $count);
	return $r;
}

sub misses
{
	warm($ours, $absent, $count);
	my $r = wrk($ours, $absent);
	die "ours: narinfos were found that are absent\n"
		if $r->{status} != $r->{requests};
	return $r;
}

my $many = rounds(
	nginx => sub { warm_hits($nginx) },
	ours => sub { hits($ours) },
	'nginx, tmpfs' => sub { hits($memory) },
	'ours, no lookup memory' => \&hits_without_memory,
	constant => sub { hits($constant) },
	404 => \&misses,
	'nginx, 16,000 open' => sub { warm_hits($open) }
);
$many->{hits} = $many->{ours};

# One connection: server and client take turns.  On a processor each, what is
# measured is how long a virtual processor takes to be woken; so they share.
my @alone = (connections => 1, beside => 1);
my $one = rounds(
	nginx => sub { warm_hits($nginx, @alone) },
	ours => sub { hits($ours, @alone) },
	'nginx, tmpfs' => sub { hits($memory, @alone) },
	constant => sub { hits($constant, @alone) }
);

my $name = 'narinfos, 64 connections';
compare($name, $many, ours => 'nginx', 'rate', hold => 1, aim => 1.5);
compare($name, $many, ours => 'nginx, tmpfs', 'rate', hold => 1, aim => 1.5);
compare($name, $many, ours => 'constant', 'rate', hold => 0.5, aim => 0.75);
compare($name, $many, ours => 'ours, no lookup memory', 'rate');
compare('404s, 64 connections', $many, 404 => 'hits', 'rate', hold => 1);
compare("$name, by processor time", $many, ours => $_, 'capacity')
	for 'nginx', 'nginx, tmpfs', 'constant';
compare('404s, by processor time', $many, 404 => 'hits', 'capacity');
compare('narinfos, 1 connection', $one, ours => 'nginx', 'rate',
	hold => 0.95);
compare('narinfos, 1 connection', $one, ours => 'nginx, tmpfs', 'rate',
	hold => 0.95);
compare('narinfos, 1 connection', $one, ours => 'constant', 'rate');
compare($name, $many, ours => 'nginx, 16,000 open', 'rate');
compare("$name, p99", $many, ours => 'nginx, tmpfs', 'p99');
busy($name, $many, 'ours', 'nginx', 'nginx, tmpfs',
	'constant', '404');
busy('narinfos, 1 connection', $one, 'ours', 'nginx');

# The one whose size is nearest to the mean of the first thousand.
sub average_file
{
	my ($where) = @_;
	open my $list, '<', $walk or die "$walk: $!\n";
	my %size;
	while (my $path = <$list>)
	{
		chomp $path;
		$size{"$where$path"} = -s "$where$path";
		last if keys %size == 1000;
	}
	my $mean = 0;
	$mean += $_ / 1000 for values %size;
	my ($best) = sort { abs($size{$a} - $mean) <=> abs($size{$b} - $mean)
		|| $a cmp $b } keys %size;
	return $best;
}

end_process($_->{master}) for $nginx, $open, $memory;
end_process($constant->{pid});
1;
