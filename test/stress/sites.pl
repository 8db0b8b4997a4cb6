# Five sites, many who publish and wait for copies, real clients that read, and
# whatever may befall a site: see test/bench/SiteStress.pm.  `make stress` has
# it for ten minutes, with everything, and shows then that it fails when nobody
# waits, and when nobody looks at epochs; test/t/091_sites_stress.pl is one
# round of it.
#
#   SITE_STRESS_SECONDS=N   longer than one round of the faults of this test
#   SITE_STRESS_SEED=N      to do the same again
#   SITE_STRESS_SABOTAGE=1  in a short one, too: without the wait, and without
#                           the look at epochs, it fails
#   SITE_STRESS_FAULTS="..."   these, one behind the other
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl", "$FindBin::RealBin/../bench";
use SiteStress;
use SiteStress::Disks;

my ($seconds, $seed, $long, $disks);

# Before PostgreSQL::Test::Utils keeps our standard output for itself.
BEGIN
{
	$seconds = $ENV{SITE_STRESS_SECONDS} || 0;
	$seed = $ENV{SITE_STRESS_SEED} //= int rand 2**31;
	$long = $seconds >= 120;
	$disks = SiteStress::Disks::give() if $long;
}

use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $base = $disks // PostgreSQL::Test::Utils::tempdir_short();

chomp(my $bindir = qx(pg_config --bindir));
note("seed $seed: SITE_STRESS_SEED=$seed SITE_STRESS_SECONDS=$seconds");
diag('no user namespaces here: the faults of full disks are left out')
	if $long && !$disks;

my $stress = SiteStress->new(dir => $base, bindir => $bindir, seed => $seed,
	# what runs beside a short one wants to get on
	($long ? () : (publishers => 4, rate => 160)),
	cache => $cache_dir, disks => defined $disks, nix => \&nix, top => $top_path,
	say => sub { note(@_) });

sub verify
{
	my ($phase) = @_;
	for ($stress->verify)
	{
		my ($what, $ok, $why) = @$_;
		ok($ok, "$phase: $what") or diag("seed $seed: $why");
	}
}

# All that is told of what has become of it; the run fails if nothing does.
sub fails
{
	my ($phase, $pattern, $what) = @_;
	my @failed = grep { !$_->[1] } $stress->verify;
	note("$phase: $_->[0]: $_->[2]") for @failed;
	ok((grep { $_->[0] =~ $pattern } @failed), "$phase: $what");
}

my $begin = time;
$stress->prepare;
note(sprintf 'five sites after %.1f s', time - $begin);

my @short = $ENV{SITE_STRESS_FAULTS} ? split ' ', $ENV{SITE_STRESS_FAULTS}
	: qw(mirror_killed applier_killed walsender_killed frozen cut
	overload switchover promotion_forked);
$stress->phase($long ? (faults => [@SiteStress::Faults::kinds], shuffled => 1,
	seconds => $seconds) : (faults => \@short, overload => 2,
	seconds => $seconds));
verify('all of it');
my $counts = $stress->{counts};
note(sprintf '%-40s %.0f', $_, $counts->{$_}) for sort keys %$counts;
my $rate = $counts->{acknowledged} / $stress->{seconds};
note(sprintf '%.0f narinfos a second were acknowledged, in %.0f s', $rate,
	$stress->{seconds});
cmp_ok($rate, '>=', $long ? 200 : 20, 'many were published');
cmp_ok($counts->{"acknowledged with $_ copies"} // 0, '>', 0,
	"some with $_ copies") for 0, 1, 2;
cmp_ok($counts->{'closures read'} // 0, '>', 0, 'nix has read closures');
cmp_ok(($counts->{promotion} // 0) + ($counts->{promotion_forked} // 0)
	+ ($counts->{promotion_lost} // 0), '>=', $long ? 3 : 1, 'promotions');
cmp_ok($counts->{switchover} // 0, '>=', 1, 'switchovers');
cmp_ok($counts->{'events of before offered'} // 0, '>', 0,
	'events of a primary of before were offered');
is($counts->{'events of before taken'} // 0, 0,
	'no mirror has taken what another primary has published');

# Whoever does not wait, or does not look at epochs, is found out.
if ($long || $ENV{SITE_STRESS_SABOTAGE})
{
	$stress->phase(faults => ['promotion_lost'], unwaited => 1, unread => 1);
	fails('unwaited', qr/acknowledged with copies/,
		'copies that nobody has waited for are missed');
	$stress->uncheck;
	$stress->phase(faults => ['promotion_forked'], unread => 1);
	fails('unchecked', qr/no number has two events/,
		'without the look at epochs a number has two events');
}
note(sprintf '%.0f s in all', time - $begin);
$stress->end;
done_testing();
1;
