# Many who publish, push and pin, while collections take away what they leave:
# see test/bench/GcStress.pm, which `make stress` runs for ten minutes.
#
#   GC_STRESS_SECONDS=45   GC_STRESS_SEED=N   to do the same again
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl", "$FindBin::RealBin/../bench";
use GcStress;
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{GC_STRESS_SECONDS} || 45;
my $seed = $ENV{GC_STRESS_SEED} // int rand 2**31;
note("seed $seed");

my $node = narinfo_node('gc', conf => <<'END');
log_line_prefix = '%m [%p] %q%a '
deadlock_timeout = 200ms
log_statement = none
END
my @psql = ($node->installed_command('psql'), qw(-X -q -A -t -d),
	$node->connstr('postgres'));
my $stress = GcStress->new(psql => \@psql, seed => $seed,
	log => $node->logfile, dir => PostgreSQL::Test::Utils::tempdir());

$stress->prepare;
$stress->phase($seconds);
ok($_->[1], $_->[0]) or diag("seed $seed: $_->[2]") for $stress->verify;
my $counts = { %{ $stress->{counts} } };
note("$_: $counts->{$_}") for sort keys %$counts;
cmp_ok($counts->{publishes} // 0, '>=', $seconds * 10, 'many were published');
cmp_ok($counts->{collections} // 0, '>=', $seconds / 10,
	'collections removed something');
cmp_ok($counts->{checks} // 0, '>', $seconds / 2, 'references were looked at');
cmp_ok($counts->{$_} // 0, '>', 0, "there were: $_")
	for qw(pins unpins touches spared resumed looks);

# The same when gc_run() does not look at what happened since its plan: the
# run has to fail, or it would show nothing.
$stress->phase(10, blind => 1);
$stress->verify;
my @failures = @{ $stress->{last_failures} };
cmp_ok(scalar @failures, '>', 0, 'without looking again the run fails');
note($_) for @failures > 5 ? @failures[0 .. 4] : @failures;
ok((grep { /is gone|gc_run: NI002/ } @failures),
	'since paths are missing that somebody was told of');
done_testing();
