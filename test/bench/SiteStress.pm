#
# SiteStress: five sites, many who publish and wait for copies, and whatever
# may befall a site; and what must be true afterwards.
#
#	paris --+-- oslo ---- lima
#			+-- bonn
#			+-- rome
#
#   my $stress = SiteStress->new(dir => DIR, bindir => DIR, seed => 1,
#       cache => DIR, disks => 1);
#   $stress->prepare;
#   $stress->phase(faults => [...], seconds => 60);
#   for ($stress->verify) { my ($what, $ok, $why) = @$_; ... }
#   $stress->{counts}{acknowledged};
#
# Whoever publishes writes down what was acknowledged, outside of the servers,
# and has that on disk before it counts: see SiteStress::Publisher.  What
# befalls the sites, and in which order, follows from the seed; how it meets
# what they do does not: see SiteStress::Faults.
#
# A phase may be "unwaited": copies are acknowledged that nobody has waited for.
# After uncheck() mirrors take events of any epoch.  Either has to make the run
# fail.
#
package SiteStress;

use strict;
use warnings;
use parent 'GateStress';
use File::Path qw(make_path);
use POSIX ();
use Storable qw(store retrieve);
use Time::HiRes qw(time sleep);

use Proxy;
use Site;
use SiteStress::Check;
use SiteStress::Faults;
use SiteStress::Publisher;
use SiteStress::Reader;

our @names = qw(paris oslo bonn rome lima);
my $patience = 90;      # seconds, for one condition

sub new
{
	my ($class, %option) = @_;
	my $self = bless {
		publishers => 8,
		rate => 600,         # narinfos a second, at most
		seed => 1,
		%option,
		phases => 0,
		counts => {},
		failures => [],
		epochs => 0,
		generation => {},
	}, $class;
	$self->{proxy} = Proxy->new;
	$self->{state} = "$self->{dir}/state";
	make_path($self->{state});
	$self->{site}{$_} = Site->new(name => $_, dir => $self->{dir},
		bindir => $self->{bindir}, proxy => $self->{proxy},
		conf => $self->conf) for @names;
	return $self;
}

sub conf
{
	my ($self) = @_;
	return <<~END . ($self->{conf} // '');
		fsync = @{[ $self->{disks} ? 'on' : 'off' ]}
		shared_buffers = 32MB
		max_wal_size = 128MB
		min_wal_size = 32MB
		wal_sender_timeout = 2s
		wal_receiver_timeout = 2s
		wal_receiver_status_interval = 1s
		wal_retrieve_retry_interval = 200ms
		pg_narinfo.site_interval = 200ms
		END
}

sub site { my ($self, $name) = @_; return $self->{site}{$name}; }
sub sites { my ($self) = @_; return map { $self->{site}{$_} } @names; }

sub say { my ($self, @what) = @_; $self->{say}->("@what") if $self->{say}; }

# ---- the sites

# Some work for each site, two at a time; nothing of it stays in this process.
sub for_each_site
{
	my ($self, $what, $code, @sites) = @_;
	my @waiting = @sites ? @sites : $self->sites;
	my $running = 0;
	my $failed = 0;
	while (@waiting || $running)
	{
		if (@waiting && $running < 2)
		{
			my $site = shift @waiting;
			my $pid = fork // die "fork: $!\n";
			if ($pid == 0)
			{
				my $ok = eval { $code->($site); 1 };
				print STDERR "$site->{name}: $@" unless $ok;
				POSIX::_exit($ok ? 0 : 1);
			}
			$running++;
			next;
		}
		my $pid = wait;
		$failed++ if $?;
		$running--;
	}
	die "$what failed\n" if $failed;
}

sub make_site
{
	my ($self, $site) = @_;
	$site->init;
	$site->start;
	$site->sql('CREATE EXTENSION pg_narinfo');
}

sub prepare
{
	my ($self) = @_;
	my ($first, @mirrors) = $self->sites;
	$self->for_each_site('making the sites', sub {
		my ($site) = @_;
		$self->make_site($site);
		system('cp', '-R', "$self->{cache}/.", $site->{files}) == 0
			or die "could not copy $self->{cache}\n";
	});
	$first->sql("ALTER SYSTEM SET pg_narinfo.site = '$first->{name}'");
	$first->sql('SELECT pg_reload_conf()');
	$first->sql("CALL narinfo.import_cache('$self->{cache}')");
	$self->{base} = $first->last_event;
	$self->become_primary($first->{name});
	my $last = pop @mirrors;
	$self->for_each_site('joining', sub { $_[0]->join_to($first) }, @mirrors);
	$last->join_to($mirrors[0]);
	$self->{upstream} = { (map { $_->{name} => $first->{name} } @mirrors),
		$last->{name} => $mirrors[0]{name} };
	$self->wait_votes;
}

# So many of the mirrors of the primary vote for main.
sub wait_votes
{
	my ($self) = @_;
	my $primary = $self->primary;
	my $wanted = grep { $_ eq $primary->{name} } values %{ $self->{upstream} };
	Site::wait_until('votes', sub {
		($primary->ask(q{SELECT count(*) FROM narinfo.stat_sites
			WHERE cache = 'main' AND vote AND slot_state = 'active'}) // 0)
			>= $wanted;
	}, $patience);
}

# ---- who is the primary, as all clients are told

sub write_state
{
	my ($self, $name, $text) = @_;
	my $file = "$self->{state}/$name";
	open my $out, '>', "$file.new" or die "$file: $!\n";
	print $out $text;
	close $out or die "$file: $!\n";
	rename "$file.new", $file or die "$file: $!\n";
}

sub read_state
{
	my ($self, $name) = @_;
	open my $in, '<', "$self->{state}/$name" or return '';
	return <$in> // '';
}

sub become_primary
{
	my ($self, $name) = @_;
	$self->{primary} = $name;
	$self->write_state('primary', $name);
}

sub primary { my ($self) = @_; return $self->site($self->{primary}); }

sub mirrors
{
	my ($self) = @_;
	return grep { $_->{name} ne $self->{primary} } $self->sites;
}

# How often the disks of a site were lost: what it has told before is gone.
sub generation
{
	my ($self, $name) = @_;
	return $self->read_state("generation-$name") || 0;
}

# While something befalls a site its number is odd.
sub disturbed
{
	my ($self, $name) = @_;
	return $self->read_state("disturbed-$name") || 0;
}

sub disturb
{
	my ($self, $name, $code) = @_;
	my $n = $self->disturbed($name);
	$self->write_state("disturbed-$name", $n + 1);
	my $ok = eval { $code->(); 1 };
	my $error = $@;
	$self->write_state("disturbed-$name", $n + 2);
	die $error unless $ok;
}

# ---- a phase: clients beside faults

sub child
{
	my ($self, $name, $code) = @_;
	my $pid = fork // die "fork: $!\n";
	return $pid if $pid;
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
	$self->{say} = undef;
	srand $self->{seed} * 10_000 + $self->{phases} * 100 + unpack '%8C*', $name;
	my $state = { counts => {}, failures => [] };
	eval { $code->($state); 1 } or push @{ $state->{failures} }, "died: $@";
	store($state, "$self->{state}/$name");
	POSIX::_exit(0);
}

sub running { my ($self) = @_; return !-e "$self->{state}/end"; }

# Faults one behind the other, until all of them were and the time is over.
sub phase
{
	my ($self, %option) = @_;
	my $phase = ++$self->{phases};
	my %pid;
	unlink "$self->{state}/end";
	$self->{seconds} = 0;
	my $begin = time;
	for my $number (1 .. $self->{publishers})
	{
		$pid{"publisher$number"} = $self->child("$phase-publisher$number", sub {
			SiteStress::Publisher->new(stress => $self, number => $number,
				state => $_[0], phase => $phase,
				unwaited => $option{unwaited})->run });
	}
	$pid{reader} = $self->child("$phase-reader", sub {
		SiteStress::Reader->new(stress => $self, state => $_[0])->run })
		unless $option{unread};
	my $ok = eval {
		SiteStress::Faults->new(stress => $self, %option,
			end => $begin + ($option{seconds} // 0))->run;
		1;
	};
	$self->fail("$@") unless $ok;
	$self->write_state('end', "1\n");
	for my $name (keys %pid)
	{
		waitpid $pid{$name}, 0;
		my $state = eval { retrieve("$self->{state}/$phase-$name") }
			// { failures => ['it died'], counts => {} };
		$self->{counts}{$_} += $state->{counts}{$_}
			for keys %{ $state->{counts} };
		$self->fail("$name: $_") for @{ $state->{failures} };
	}
	$self->{seconds} = time - $begin;
}

sub count { my ($self, $what, $n) = @_; $self->{counts}{$what} += $n // 1; }

# Whatever was done to them: all are up again, and each follows.
sub settle
{
	my ($self) = @_;
	for my $site ($self->sites)
	{
		$self->{proxy}->open($site->{name});
		$site->thaw;
		$site->start unless $site->postmaster;
		Site::wait_until("$site->{name} answers", sub { $site->answers },
			$patience);
	}
	my $last = $self->primary->last_event;
	for my $site ($self->mirrors)
	{
		my $ok = eval {
			Site::wait_until("$site->{name} follows", sub {
				$site->last_event >= $last }, $patience);
		};
		next if $ok;
		$self->fail("$site->{name} does not follow: "
			. ($site->ask(q{SELECT narinfo.site_reason()}) // '') . ' '
			. ($site->ask(q{SELECT m::text FROM narinfo.mirror_state AS m})
				// ''));
	}
}

sub verify
{
	my ($self) = @_;
	eval { $self->settle; 1 } or $self->fail("$@");
	my @result = SiteStress::Check->new(stress => $self)->run;
	my @failures = splice @{ $self->{failures} };
	$self->{last_failures} = [@failures];
	push @result, ['nothing went wrong on the way', !@failures,
		join '; ', @failures[0 .. ($#failures > 4 ? 4 : $#failures)]];
	return @result;
}

# From now on mirrors take events of any epoch.
sub uncheck
{
	my ($self) = @_;
	for my $site ($self->sites)
	{
		my $triggers = $site->sql(q{SELECT string_agg(format(
			'ALTER TABLE narinfo.event DISABLE TRIGGER %I', tgname), '; ')
			FROM pg_trigger WHERE tgrelid = 'narinfo.event'::regclass
			AND tgenabled = 'R'});
		$site->sql($triggers);
	}
}

sub end
{
	my ($self) = @_;
	for my $site ($self->sites)
	{
		$site->thaw;
		$site->kill_all;
	}
	$self->{proxy}->end;
}

1;
