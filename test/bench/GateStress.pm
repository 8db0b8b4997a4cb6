#
# GateStress: many sessions that change caches in every way at once, and what
# must be true of them afterwards.
#
#   my $stress = GateStress->new(psql => [...], seed => 1, log => FILE);
#   $stress->prepare;
#   $stress->phase(10, terminate => 1);     seconds; also crash => 1
#   for ($stress->verify) { my ($what, $ok, $why) = @$_; ... }
#
# Each session has paths of its own, of which it knows what must have become;
# common ones are published, replaced and taken away by all.  What a session
# does follows from the seed, how the sessions meet does not.
#
# Used by gate.pl and by a TAP test.
#
package GateStress;

use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use POSIX ();
use Storable qw(store retrieve);
use Time::HiRes qw(time sleep);

use GateStress::Session;
use GateStress::Worker;

my $base_paths = 30;      # valid from the beginning and for ever, in each cache
my $patience = 60;        # seconds, for one condition

sub new
{
	my ($class, %option) = @_;
	my $self = bless {
		sessions => 6,
		caches => [qw(main ga gb gc)],
		seed => 1,
		%option,
		phases => 0,
		failures => []
	}, $class;
	make_path("$self->{dir}/gate-stress");
	$self->{dir} .= '/gate-stress';
	unlink glob "$self->{dir}/*";
	return $self;
}

sub session
{
	my ($self, $name) = @_;
	return GateStress::Session->new(command => $self->{psql}, name => $name,
		errors => "$self->{dir}/$name.err");
}

# ---- narinfos

sub hash_of
{
	my ($self, $name) = @_;
	return md5_hex("$self->{seed} $name") =~ tr/e/z/r;
}

sub path_of
{
	my ($self, $name) = @_;
	return $self->hash_of($name) . "-$name";
}

# The version tells texts of a path apart, "nar" those with another NarHash.
sub text_of
{
	my ($self, $name, $version, $nar, @refs) = @_;
	my $hash = $self->hash_of($name);
	my $digest = '0' . substr $self->hash_of("$name nar $nar")
		. $self->hash_of("$name more $nar"), 0, 51;
	return "StorePath: /nix/store/$hash-$name\nURL: nar/$hash.nar.xz\n"
		. "Compression: xz\nFileSize: $version\nNarHash: sha256:$digest\n"
		. 'NarSize: 5000' . "\nReferences: "
		. join(' ', map { $self->path_of($_) } @refs) . "\n";
}

sub base_name { return 'base' . int rand $base_paths }

sub prepare
{
	my ($self) = @_;
	my $session = $self->session('prepare');
	$session->must('SET search_path = narinfo, public');
	for my $cache (@{ $self->{caches} })
	{
		$session->must("SELECT create_cache('$cache')") if $cache ne 'main';
		my @texts = map { $self->text_of("base$_", 1, 0,
			$_ > 0 ? ('base' . int($_ / 2)) : ()) } 0 .. $base_paths - 1;
		$session->must('SELECT publish_many(ARRAY['
			. join(',', map { "'$_'" } @texts) . "]::narinfo[], '$cache')");
	}
	$session->end;
}

# ---- a phase

sub phase
{
	my ($self, $seconds, %option) = @_;
	my $phase = ++$self->{phases};
	my @pids;

	$self->open_idle;
	for my $number (1 .. $self->{sessions})
	{
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
			my $ok = eval { $self->work($number, $seconds); 1 };
			print STDERR "session $number: $@" unless $ok;
			POSIX::_exit($ok ? 0 : 1);
		}
		push @pids, $pid;
	}
	eval { $self->disturb($seconds, %option); 1 } or $self->fail("$@");
	for my $pid (@pids)
	{
		waitpid $pid, 0;
		$self->fail("a session of phase $phase died") if $?;
	}
	$self->gather;
}

sub fail
{
	my ($self, $why) = @_;
	push @{ $self->{failures} }, $why;
}

sub state_file
{
	my ($self, $number) = @_;
	return "$self->{dir}/state-$number";
}

sub work
{
	my ($self, $number, $seconds) = @_;
	my $file = $self->state_file($number);
	my $worker = GateStress::Worker->new(stress => $self, number => $number,
		state => -e $file ? retrieve($file) : undef);
	srand $self->{seed} * 10_000 + $self->{phases} * 100 + $number;
	$worker->run($seconds);
	store($worker->{state}, $file);
}

# Backends are ended in the middle of what they do, and once one is killed,
# which makes the server start anew.
sub disturb
{
	my ($self, $seconds, %option) = @_;
	my $end = time + $seconds;
	my $crash = $option{crash} ? time + $seconds / 2 : undef;
	my $session = $self->session('disturb');

	while (time < $end)
	{
		my $pick = q{FROM pg_stat_activity WHERE application_name ~ '^gate-\d'
			AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1};
		sleep 0.1;
		if ($crash && time > $crash)
		{
			my ($pid) = $session->rows("SELECT pid $pick");
			next unless $pid && kill 'KILL', $pid;
			undef $crash;
			$session->end;
			$session = $self->session_again('disturb');
			$self->{crashes}++;
		}
		elsif ($option{terminate} && rand() < 0.2)
		{
			$self->{terminated}++
				if $session->rows("SELECT pg_terminate_backend(pid) $pick");
		}
	}
	$session->end;
}

# When the server answers again.
sub session_again
{
	my ($self, $name) = @_;
	my $deadline = time + $patience;
	while (time < $deadline)
	{
		my $session = $self->session($name);
		return $session if $session->rows('SELECT 1');
		$session->end;
		sleep 0.05;
	}
	die "the server does not come back\n";
}

# Of all sessions and phases: counts, failures.
sub gather
{
	my ($self) = @_;
	$self->{counts} = {};
	for my $number (1 .. $self->{sessions})
	{
		my $file = $self->state_file($number);
		next unless -e $file;
		my $state = retrieve($file);
		$self->{counts}{$_} += $state->{counts}{$_}
			for keys %{ $state->{counts} };
		$self->fail("session $number: $_") for @{ $state->{failures} };
	}
}

# ---- one that has published and does nothing more

sub open_idle
{
	my ($self) = @_;
	my $idle = $self->session('idle');
	my $name = "idle$self->{phases}";
	$idle->must('SET search_path = narinfo, public', 'BEGIN');
	$idle->must(map { "SELECT publish('"
		. $self->text_of($name, 1, 0, 'base1') . "', '$_')" }
		reverse @{ $self->{caches} });
	$self->{idle} = { session => $idle, name => $name };
}

# It commits at last, if a crash has not ended it.
sub close_idle
{
	my ($self) = @_;
	my $idle = delete $self->{idle} or return;
	my $state = $idle->{session}->execute('COMMIT');
	$self->fail("the idle session: $state") if $state !~ /^(?:00000|lost)$/;
	$self->{idle_done}{ $idle->{name} } = 1 if $state eq '00000';
	$idle->{session}->end;
}

# ---- what must be true

my %check = (
	'numbers are gapless' => q{
		SELECT format('%s: %s of %s', cache, count(*), max(seq)) FROM event
		GROUP BY cache HAVING count(*) <> max(seq) OR min(seq) <> 1},
	'digests are right' => q{
		SELECT cache FROM (SELECT DISTINCT ON (cache) cache, digest FROM event
			ORDER BY cache, seq DESC) AS e
		WHERE digest <> cache_digest(cache)},
	'events tell what is valid' => q{
		SELECT coalesce(e.cache, v.cache), coalesce(e.hash, v.hash)
		FROM (SELECT * FROM (SELECT DISTINCT ON (cache, hash) cache, hash, kind
				FROM event WHERE hash IS NOT NULL
				ORDER BY cache, hash, seq DESC) AS l
			WHERE kind <> 'retract') AS e
		FULL JOIN valid_path AS v USING (cache, hash)
		WHERE e.hash IS NULL OR v.hash IS NULL LIMIT 5},
	'each event could follow the one before' => q{
		SELECT cache, seq, kind, before FROM (SELECT cache, seq, kind,
				lag(kind) OVER (PARTITION BY cache, hash ORDER BY seq) AS before
			FROM event WHERE hash IS NOT NULL) AS e
		WHERE (kind = 'publish') <> (before IS NULL OR before = 'retract')
		LIMIT 5},
	'positions and times grow' => q{
		SELECT cache, seq FROM (SELECT cache, seq, lsn,
				lag(lsn) OVER w AS before FROM event
			WINDOW w AS (PARTITION BY cache ORDER BY seq)) AS e
		WHERE lsn < before LIMIT 5},
	'no path dangles' => q{
		SELECT v.cache, v.hash, r FROM valid_path AS v, unnest(refs(v.info)) AS r
		WHERE NOT EXISTS (SELECT FROM valid_path AS w
			WHERE w.cache = v.cache AND w.hash = store_hash(r)) LIMIT 5},
	'the reverse index is right' => q{
		SELECT v.cache, v.hash
		FROM (SELECT * FROM valid_path ORDER BY random() LIMIT 30) AS v
		WHERE ARRAY(SELECT r::text COLLATE "C"
				FROM referrers(store_path(v.info), v.cache) AS r ORDER BY 1)
			<> ARRAY(SELECT store_path(w.info)::text COLLATE "C"
				FROM valid_path AS w WHERE w.cache = v.cache
				AND w.hash <> v.hash
				AND store_path(v.info) = ANY (refs(w.info)) ORDER BY 1)},
);

sub verify
{
	my ($self) = @_;
	my $session = $self->session('verify');
	my @result;

	# once beside the idle transaction, and once without it
	$session->must('SET search_path = narinfo, public');
	for my $name (sort keys %check)
	{
		my @wrong = $session->rows($check{$name});
		push @result, [$name, !@wrong, join '; ', @wrong];
	}
	$self->close_idle;
	push @result, $self->verify_known($session);
	my @wrong = $session->rows($check{'digests are right'});
	push @result, ['digests are right with what was idle', !@wrong, "@wrong"];
	$session->end;
	push @result, $self->verify_log;
	my @failures = splice @{ $self->{failures} };
	push @result, ['every session went well', !@failures,
		join '; ', @failures[0 .. ($#failures > 4 ? 4 : $#failures)]];
	return @result;
}

# What sessions were told of: their own paths as they left them, events that
# they have seen, common paths that they have published.
sub verify_known
{
	my ($self, $session) = @_;
	my (%there, @lost, @changed);

	for ($session->rows(q{SELECT cache, split_part(store_path(info)::text, '/', 4),
		md5(info::text) FROM valid_path}))
	{
		my ($cache, $path, $digest) = split /\|/;
		$there{"$cache " . substr $path, 33} = $digest;
	}
	my %event = map { /^(\S+)\|(.*)$/ ? ($1 => $2) : () }
		$session->rows(q{SELECT cache || ':' || seq, digest FROM event});
	my %published = map { $_ => 1 } $session->rows(
		q{SELECT DISTINCT cache || ' ' || hash FROM event WHERE kind = 'publish'});
	for my $number (1 .. $self->{sessions})
	{
		next unless -e $self->state_file($number);
		my $state = retrieve($self->state_file($number));
		my %mine = map { $_ => md5_hex($state->{own}{$_}{text}) }
			keys %{ $state->{own} };
		push @lost, grep { ($there{$_} // '') ne $mine{$_} } keys %mine;
		push @lost, map { "$_ is back" } grep { / own$number-/ && !$mine{$_} }
			keys %there;
		push @lost, map { "common $_" } grep { !$published{$_} }
			keys %{ $state->{common} };
		push @changed, grep { ($event{$_} // '') ne $state->{seen}{$_} }
			keys %{ $state->{seen} };
	}
	for my $name (keys %{ $self->{idle_done} })
	{
		push @lost, grep { !$there{$_} } map { "$_ $name" }
			@{ $self->{caches} };
	}
	return (['what was acknowledged is there', !@lost,
			join '; ', @lost > 5 ? @lost[0 .. 4] : @lost],
		['events that were seen are the same', !@changed,
			join '; ', @changed > 5 ? @changed[0 .. 4] : @changed]);
}

sub verify_log
{
	my ($self) = @_;
	my @bad;
	open my $log, '<', $self->{log} or die "$self->{log}: $!\n";
	while (<$log>)
	{
		push @bad, $_ if /deadlock detected|PANIC|TRAP|could not execute/;
		push @bad, $_ if /was terminated by signal (?!9\b)/;
	}
	chomp @bad;
	return ['no deadlock in the server\'s log', !@bad, join '; ', @bad];
}

1;
