#
# GcStress: many who publish, push and pin, while collection after collection
# takes away what they leave; and what must be true at every moment.
#
#   my $stress = GcStress->new(psql => [...], seed => 1, log => FILE, dir => DIR);
#   $stress->prepare;
#   $stress->phase(60);                      seconds; also blind => 1
#   for ($stress->verify) { my ($what, $ok, $why) = @$_; ... }
#   $stress->{counts}{publishes};            also collections, resumed, ...
#
# A "day" is some seconds here: so long counts what somebody was told.  With
# "blind" gc_run() is made to believe that it has looked at all that happened
# since its plan, which is what the run is to fail of.
#
# What a session does follows from the seed, how the sessions meet does not.
# Used by gc.pl and by a TAP test.
#
package GcStress;

use strict;
use warnings;
use parent 'GateStress';
use POSIX ();
use Storable qw(store retrieve);
use Time::HiRes qw(time sleep);

use GcStress::Worker;

our $day = 3;            # seconds
my $base_paths = 5;       # pinned from the beginning

sub new
{
	my ($class, %option) = @_;
	return GateStress::new($class, sessions => 5, %option, caches => ['main']);
}

sub prepare
{
	my ($self) = @_;
	my $session = $self->session('prepare');
	$session->must('SET search_path = narinfo, public');
	for (0 .. $base_paths - 1)
	{
		$session->must(sprintf q{SELECT publish('%s')},
			$self->text_of("base$_", 1, 0, $_ > 0 ? 'base' . ($_ - 1) : ()));
	}
	$session->must(sprintf q{SELECT pin('base', '/nix/store/%s')},
		$self->path_of('base' . ($base_paths - 1)));
	$session->end;
}

sub phase
{
	my ($self, $seconds, %option) = @_;
	my $phase = ++$self->{phases};
	my @pids;
	my %role = (gc => \&collect, check => \&check,
		map { $_ => \&work } 1 .. $self->{sessions});
	for my $name (sort keys %role)
	{
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
			srand $self->{seed} * 10_000 + $phase * 100 + unpack('%8C*', $name);
			my $state = { counts => {}, failures => [] };
			my $ok = eval {
				$role{$name}->($self, $name, time + $seconds, $state, %option);
				1;
			};
			push @{ $state->{failures} }, "died: $@" unless $ok;
			store($state, $self->state_file("$phase-$name"));
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	eval { $self->disturb_collection($seconds) unless $option{blind}; 1 }
		or $self->fail("$@");
	for my $pid (@pids)
	{
		waitpid $pid, 0;
		$self->fail("a session of phase $phase died") if $?;
	}
	for my $name (sort keys %role)
	{
		my $state = retrieve($self->state_file("$phase-$name"));
		$self->{counts}{$_} += $state->{counts}{$_}
			for keys %{ $state->{counts} };
		$self->fail("$name: $_") for @{ $state->{failures} };
	}
}

sub work
{
	my ($self, $name, $end, $state) = @_;
	GcStress::Worker->new(stress => $self, name => $name, state => $state,
		phase => $self->{phases})->run($end);
}

# Ends the collecting session in the middle of what it does.
sub disturb_collection
{
	my ($self, $seconds) = @_;
	my $end = time + $seconds;
	my $session = $self->session('disturb');
	while (time < $end - 2)
	{
		sleep 1 + rand 2;
		$self->{counts}{terminated} += grep { $_ eq 't' }
			$session->rows(q{SELECT pg_terminate_backend(pid)
				FROM pg_stat_activity WHERE application_name = 'gate-gc'
				AND query LIKE 'CALL%' AND state = 'active'});
	}
	$session->end;
}

# ---- collections, one after the other

sub connect_again
{
	my ($self, $name) = @_;
	my $session = $self->session_again($name);
	$session->execute('SET search_path = narinfo, public');
	return $session;
}

sub collect
{
	my ($self, $name, $end, $state, %option) = @_;
	my $session = $self->connect_again($name);
	while (time < $end)
	{
		my $limit = rand() < 0.3 ? int rand 2000 : 'NULL';
		my ($plan) = $session->rows("SELECT gc_plan('$day s', $limit, 1)");
		if (!defined $plan)
		{
			push @{ $state->{failures} }, 'gc_plan failed' unless $session->{lost};
			$session->end;
			$session = $self->connect_again($name);
			next;
		}
		# as if nothing had happened since, and nothing ever would
		$session->must("UPDATE gc_plan SET checked_seq = 9000000000000000000,
			at = 'infinity' WHERE plan = $plan") if $option{blind};
		sleep rand 0.6;
		for (1 .. 5)
		{
			my $result = $session->execute(sprintf
				'CALL gc_run(%d, batch => %d, share => 1)', $plan,
				5 + rand 100);
			last if $result eq '00000';
			if ($result ne 'lost')
			{
				push @{ $state->{failures} }, "gc_run: $result";
				last;
			}
			$session->end;
			$session = $self->connect_again($name);
			$state->{counts}{resumed}++;
		}
		my ($removed, $spared) = map { split /\|/ } $session->rows(
			"SELECT removed, spared FROM gc_plan WHERE plan = $plan");
		$state->{counts}{collections}++ if $removed;
		$state->{counts}{removed} += $removed // 0;
		$state->{counts}{spared} += $spared // 0;
	}
	$session->end;
}

# ---- nothing dangles, seen from outside: from every path along its references

my $dangling = q{
	WITH RECURSIVE reached AS (
		SELECT hash FROM valid_path WHERE cache = 'main'
		UNION
		SELECT r FROM reached JOIN valid_path AS v USING (hash),
			unnest(ref_hashes(v.info)) AS r WHERE v.cache = 'main')
	SELECT hash FROM reached WHERE NOT EXISTS (SELECT FROM valid_path AS v
		WHERE v.cache = 'main' AND v.hash = reached.hash) LIMIT 5};

sub check
{
	my ($self, $name, $end, $state) = @_;
	my $session = $self->connect_again($name);
	while (time < $end)
	{
		my @dangling = $session->rows($dangling);
		push @{ $state->{failures} }, "dangling: @dangling" if @dangling;
		$state->{counts}{checks}++;
		sleep 0.1;
	}
	$session->end;
}

# ---- what must be true in the end

my %check = (
	'numbers are gapless' => q{
		SELECT 1 FROM event WHERE cache = 'main'
		HAVING count(*) <> max(seq) OR min(seq) <> 1},
	'the digest is right' => q{
		SELECT cache FROM (SELECT cache, digest FROM event
			WHERE cache = 'main' ORDER BY seq DESC LIMIT 1) AS e
		WHERE digest <> cache_digest(cache)},
	'no path dangles' => $dangling,
	'what was removed lies in trash, or is valid again' => q{
		SELECT hash FROM event AS e WHERE kind = 'retract' AND NOT EXISTS (
			SELECT FROM trash AS t WHERE t.cache = e.cache AND t.hash = e.hash)
		LIMIT 5},
);

sub verify
{
	my ($self) = @_;
	my $session = $self->session('verify');
	my @result;
	$session->must('SET search_path = narinfo, public');
	for my $what (sort keys %check)
	{
		my @wrong = $session->rows($check{$what});
		push @result, [$what, !@wrong, join '; ', @wrong];
	}
	$session->end;
	push @result, $self->verify_log;
	my @failures = splice @{ $self->{failures} };
	$self->{last_failures} = [@failures];
	push @result, ['everybody found what he was told of', !@failures,
		join '; ', @failures[0 .. ($#failures > 4 ? 4 : $#failures)]];
	return @result;
}

1;
