# Many sessions at the gate at once, for some seconds: see
# test/bench/GateStress.pm, which `make stress` runs for longer.
#
#   GATE_STRESS_SECONDS=12   GATE_STRESS_SEED=N   to do the same again
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl", "$FindBin::RealBin/../bench";
use GateStress;
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{GATE_STRESS_SECONDS} || 12;
my $seed = $ENV{GATE_STRESS_SEED} // int rand 2**31;
note("seed $seed");

my $node = narinfo_node('gate', conf => <<'END');
restart_after_crash = on
log_line_prefix = '%m [%p] %q%a '
deadlock_timeout = 200ms
log_statement = none
END
my @psql = ($node->installed_command('psql'), qw(-X -q -A -t -d),
	$node->connstr('postgres'));
my $stress = GateStress->new(psql => \@psql, seed => $seed,
	log => $node->logfile, dir => PostgreSQL::Test::Utils::tempdir());

$stress->prepare;
for my $how ([], [terminate => 1], [terminate => 1, crash => 1])
{
	$stress->phase($seconds / 3, @$how);
	ok($_->[1], "$_->[0] (@$how)") or diag("seed $seed: $_->[2]")
		for $stress->verify;
}
my $counts = $stress->{counts};
note("$_: $counts->{$_}") for sort keys %$counts;
is($stress->{crashes}, 1, 'a backend was killed');
cmp_ok($counts->{$_} // 0, '>', 0, "some went through: $_")
	for 'publish', 'publish_many', 'INSERT', 'COPY', 'retract',
	'retract common', 'several caches', 'old snapshot';
done_testing();
