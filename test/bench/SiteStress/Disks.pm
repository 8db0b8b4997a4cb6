#
# SiteStress::Disks: small disks for the sites, which can be full.
#
#   my $dir = SiteStress::Disks::give();
#
# Starts the program anew where these are mounted, in a namespace of its own,
# and returns the directory that has them there; undef where that cannot be
# done: no namespaces, or somebody who is root.
#
package SiteStress::Disks;

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

my %size = (data => '1g', wal => '1g', files => '64m');

# Mounts what comes before "--", and has no more right than before.
my $mount = <<~'END';
	while [ "$1" != -- ]; do
		mount -t tmpfs -o "size=$2" none "$1" || exit 1
		shift 2
	done
	shift
	exec setpriv --ambient-caps=-all --inh-caps=-all "$@"
	END

sub give
{
	return $ENV{SITE_STRESS_DIR} if $ENV{SITE_STRESS_DIR};
	return undef if $< == 0;
	my $dir = tempdir(TMPDIR => 1);
	my ($user, $group) = ($<, $( =~ /^(\d+)/);
	my @alone = ('unshare', '--user', '--mount', "--map-user=$user",
		"--map-group=$group", '--keep-caps', 'sh', '-c', $mount, 'sh');
	my @disks;
	for my $name (@SiteStress::names)
	{
		push @disks, map { ("$dir/$name/$_" => $size{$_}) } sort keys %size;
	}
	my %disk = @disks;
	make_path(keys %disk);
	return undef if system(@alone, @disks, '--', 'true') != 0;
	$ENV{SITE_STRESS_DIR} = $dir;
	exec @alone, @disks, '--', $^X, (map { "-I$_" } @INC), abs_path($0)
		or die "unshare: $!\n";
}

1;
