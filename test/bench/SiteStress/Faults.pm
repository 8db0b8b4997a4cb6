#
# SiteStress::Faults: what befalls the sites, one thing behind the other.
#
#   mirror_killed      all of a mirror ends at once, and starts again
#   primary_killed     the same of the primary
#   applier_killed     the process that applies, and with it a mirror's memory
#   walsender_killed   the process that sends, and with it the primary's
#   frozen             a site stands still for longer than wal_sender_timeout
#   cut                connections of others to a site end, again and again
#   overload           four times as many busy processes as processors
#   wal_full, data_full, files_full     a disk of a site has no room
#   switchover         another site becomes the primary, as planned
#   promotion          the primary ends; another is promoted; it comes back
#   promotion_forked   ... having published more, which a mirror is offered
#   promotion_lost     ... after it was alone for a moment, and without its
#                      disks, to join anew
#
# "faults" names them in the order of their coming; with "shuffled" the seed
# chooses the order, again and again until the time is over.
#
package SiteStress::Faults;

use strict;
use warnings;
use List::Util qw(shuffle);
use POSIX ();
use Time::HiRes qw(time sleep);

my $patience = 60;       # seconds
my $sender_timeout = 2;  # as SiteStress::conf has it

our @disks = qw(wal_full data_full files_full);
our @kinds = (qw(mirror_killed primary_killed applier_killed walsender_killed
	frozen cut overload), @disks, qw(switchover promotion promotion_forked
	promotion_lost));

sub new { my ($class, %option) = @_; return bless { %option }, $class; }

sub run
{
	my ($self) = @_;
	my $stress = $self->{stress};
	srand $stress->{seed} * 10_000 + $stress->{phases};
	while (1)
	{
		my @faults = $self->{shuffled} ? shuffle(@{ $self->{faults} })
			: @{ $self->{faults} };
		for my $fault (@faults)
		{
			return if $self->{shuffled} && time > $self->{end};
			$self->do_fault($fault);
			sleep 0.5 + rand;
		}
		last if !$self->{shuffled} || time > $self->{end};
	}
	while (time < $self->{end}) { sleep 0.2 }
}

sub do_fault
{
	my ($self, $fault) = @_;
	my $stress = $self->{stress};
	my $code = $self->can($fault) or die "no fault $fault\n";
	if ($fault =~ /_full$/ && !$stress->{disks})
	{
		$stress->count("LEFT OUT, no disk of its own: $fault");
		return;
	}
	my $begin = time;
	my $what = $code->($self) // '';
	$stress->count($fault);
	$stress->say(sprintf '%5.1f s  %-17s %s', time - $begin, $fault, $what);
}

# ---- whom

sub one_of { return $_[rand @_]; }

sub any_mirror { my ($self) = @_; return one_of($self->{stress}->mirrors); }

sub any_site { my ($self) = @_; return one_of($self->{stress}->sites); }

# Who follows whom, as they tell themselves: some have moved on their own.
sub look
{
	my ($self) = @_;
	my $stress = $self->{stress};
	delete $stress->{upstream}{ $stress->{primary} };
	for my $site ($stress->mirrors)
	{
		my $name = $self->upstream_of($site);
		$stress->{upstream}{ $site->{name} } = $name if $name ne '';
	}
}

# Mirrors of the primary itself.
sub direct_mirrors
{
	my ($self) = @_;
	my $stress = $self->{stress};
	$self->look;
	return grep { ($stress->{upstream}{ $_->{name} } // '')
		eq $stress->{primary} } $stress->mirrors;
}

sub below
{
	my ($self, $name) = @_;
	$self->look;
	return grep { ($self->{stress}{upstream}{ $_->{name} } // '') eq $name }
		$self->{stress}->sites;
}

sub up
{
	my ($self, $site) = @_;
	Site::wait_until("$site->{name} answers", sub { $site->answers },
		$patience);
}

# ---- processes

sub kill_and_start
{
	my ($self, $site) = @_;
	$self->{stress}->disturb($site->{name}, sub {
		$site->kill_all;
		sleep rand 1.5;
		$site->start;
		$self->up($site);
	});
	return $site->{name};
}

sub mirror_killed { my ($self) = @_; return $self->kill_and_start(
	$self->any_mirror); }
sub primary_killed { my ($self) = @_; return $self->kill_and_start(
	$self->{stress}->primary); }

# A process of a site that a query names.
sub kill_one
{
	my ($self, $site, $query) = @_;
	my $killed = 0;
	$self->{stress}->disturb($site->{name}, sub {
		Site::wait_until("a process of $site->{name}", sub {
			my ($pid) = split /\n/, $site->ask($query) // '';
			$killed = $pid && kill 'KILL', $pid;
		}, $patience);
		sleep 0.2;
		$self->up($site);
	});
	return $site->{name};
}

sub applier_killed
{
	my ($self) = @_;
	return $self->kill_one($self->any_mirror, q{SELECT pid
		FROM pg_stat_subscription WHERE pid IS NOT NULL});
}

sub walsender_killed
{
	my ($self) = @_;
	return $self->kill_one($self->{stress}->primary,
		q{SELECT pid FROM pg_stat_replication ORDER BY random()});
}

sub frozen
{
	my ($self) = @_;
	my $site = $self->any_site;
	$self->{stress}->disturb($site->{name}, sub {
		$site->freeze;
		sleep $sender_timeout + 0.5 + rand;
		$site->thaw;
		$self->up($site);
	});
	return $site->{name};
}

# ---- between sites

sub cut
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $site = one_of($stress->primary, $stress->site(one_of(
		values %{ $stress->{upstream} })));
	for (1 .. 3)
	{
		$stress->{proxy}->cut($site->{name});
		sleep 0.2 + rand 0.3;
	}
	$stress->{proxy}->close($site->{name});
	sleep 0.5 + rand;
	$stress->{proxy}->open($site->{name});
	return $site->{name};
}

# ---- the machine

sub overload
{
	my ($self) = @_;
	my $n = 4 * (() = do { open my $in, '<', '/proc/cpuinfo'; local $/;
		<$in> } =~ /^processor\s/mg);
	my $end = time + ($self->{overload} // 5);
	my @pids;
	for (1 .. $n)
	{
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			while (time < $end) { my $x = 0; $x += $_ for 1 .. 10_000; }
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	waitpid $_, 0 for @pids;
	return "$n busy processes";
}

sub fill
{
	my ($self, $site, $where, $meanwhile) = @_;
	my $filler = "$where/filler";
	$self->{stress}->disturb($site->{name}, sub {
		open my $out, '>', $filler or die "$filler: $!\n";
		my $block = 'x' x 65536;
		for (my $begin = time; time < $begin + 3;)
		{
			1 while syswrite $out, $block;
			1 while syswrite $out, $block, 512;
			$site->ask($meanwhile) if $meanwhile;
			sleep 0.05;
		}
		close $out;
		unlink $filler;
		# a server without room for its log ends
		Site::wait_until("$site->{name} answers", sub {
			$site->start unless $site->postmaster;
			return $site->answers;
		}, $patience);
	});
	return $site->{name};
}

sub wal_full
{
	my ($self) = @_;
	my $site = $self->any_site;
	# what it has in reserve has to be used up, too
	return $self->fill($site, $site->{wal}, 'SELECT pg_switch_wal()');
}

sub data_full
{
	my ($self) = @_;
	my $site = $self->any_site;
	return $self->fill($site, $site->{data});
}

sub files_full
{
	my ($self) = @_;
	my $site = $self->any_site;
	return $self->fill($site, $site->{files});
}

# ---- who is the primary

# Asks for something until it is done, which may need others to be there.
sub insist
{
	my ($self, $what, $code) = @_;
	my $said = '';
	my $ok = eval {
		Site::wait_until($what, sub {
			my ($status, $out, $err) = $code->();
			$said = $err // '';
			sleep 0.3 if $status;
			return $status == 0;
		}, $patience);
	};
	die "$what: $said\n" unless $ok;
	return 1;
}

sub upstream_of
{
	my ($self, $site) = @_;
	return $site->ask('SELECT upstream FROM narinfo.mirror_state') // '';
}

# Makes a mirror follow another site, unless it does so already.
sub follow
{
	my ($self, $site, $upstream) = @_;
	my $conninfo = $upstream->conninfo;
	$self->insist("$site->{name} follows $upstream->{name}", sub {
		$self->{stress}{upstream}{ $site->{name} } = $upstream->{name};
		return (0, '', '') if $self->upstream_of($site) eq $upstream->{name};
		return $site->try("CALL narinfo.repoint('$conninfo')");
	});
}

# The mirrors follow the new primary, but for one that follows another mirror.
sub arrange
{
	my ($self, @but_not) = @_;
	my $stress = $self->{stress};
	my $primary = $stress->primary;
	my %not = map { $_->{name} => 1 } @but_not;
	my @mirrors = grep { !$not{ $_->{name} } } $stress->mirrors;
	my ($last, @direct) = shuffle(@mirrors);
	$self->follow($_, $primary) for @direct;
	$self->follow($last, @but_not ? $primary : $direct[0]);
	$self->look;
}

sub switchover
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $old = $stress->primary;
	my $new = one_of($self->direct_mirrors);
	$stress->wait_votes;
	$self->insist("switchover to $new->{name}", sub {
		my @result = $old->try("CALL narinfo.switchover('$new->{name}')");
		# it may have been done, and the answer be lost
		return (0, '', '') if ($new->ask('SELECT narinfo.node_state()') // '')
			eq 'primary';
		return @result;
	});
	$stress->become_primary($new->{name});
	delete $stress->{upstream}{ $new->{name} };
	$stress->{upstream}{ $old->{name} } = $new->{name};
	$self->arrange;
	$stress->wait_votes;
	return "$old->{name} -> $new->{name}";
}

# Promotes the mirror of the primary that has most; "alone": nobody can follow
# it yet, since nobody comes to it.
sub promote
{
	my ($self, $alone, @candidates) = @_;
	my $stress = $self->{stress};
	my $new;
	$self->insist('promote', sub {
		my %last = map { $_->{name} => $_->last_event } @candidates;
		my ($most) = sort { $last{ $b->{name} } <=> $last{ $a->{name} } }
			@candidates;
		$stress->{proxy}->close($most->{name}) if $alone;
		my @result = $most->try('CALL narinfo.promote()');
		$new = $most if ($most->ask('SELECT narinfo.node_state()') // '')
			eq 'primary';
		$stress->{proxy}->open($most->{name}) if $alone && !$new;
		return $new ? (0, '', '') : @result;
	});
	return $new;
}

# The primary is gone, and another takes its place.
sub fail_over
{
	my ($self, $alone) = @_;
	my $stress = $self->{stress};
	my $old = $stress->primary;
	my @candidates = $self->direct_mirrors;
	$old->kill_all;
	my $new = $self->promote($alone, @candidates);
	$stress->become_primary($new->{name});
	delete $stress->{upstream}{ $new->{name} };
	return ($old, $new);
}

sub rejoin
{
	my ($self, $old, $new) = @_;
	my $conninfo = $new->conninfo;
	$self->insist("$old->{name} rejoins", sub {
		return $old->try("CALL narinfo.rejoin('$conninfo')");
	});
	$self->{stress}{upstream}{ $old->{name} } = $new->{name};
}

sub promotion
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $name = $stress->{primary};
	my $what;
	$stress->wait_votes;
	$stress->disturb($name, sub {
		my ($old, $new) = $self->fail_over;
		$self->arrange($old);
		$old->start;
		$self->up($old);
		$self->rejoin($old, $new);
		$self->arrange;
		$what = "$old->{name} -> $new->{name}";
	});
	$stress->wait_votes;
	return $what;
}

# What the old primary publishes when others have another one.
sub publish_behind
{
	my ($self, $site) = @_;
	my $stress = $self->{stress};
	my $number = $stress->{forks}++;
	my $text = $stress->text_of("fork$number", 1, 0);
	my ($status, $out, $err) = $site->try(
		"SELECT narinfo.publish('$text'); SELECT narinfo.last_event()");
	my ($seq) = $status ? () : $out =~ /(\d+)\s*\z/;
	$stress->count($status ? 'refused at a primary of before'
		: 'published at a primary of before');
	return $seq;
}

# The old primary comes back and publishes, while nobody can tell it; then it
# is offered to a mirror that has promised to follow the new one.
sub promotion_forked
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $name = $stress->{primary};
	my $what;
	$stress->wait_votes;
	$stress->disturb($name, sub {
		$stress->{proxy}->close($name);
		my ($old, $new) = $self->fail_over('alone');
		my ($bait) = grep { $_->{name} ne $new->{name} }
			$self->below($old->{name});
		# it asks the others first, so it must not reach any
		my @others = grep { $_->{name} ne $new->{name}
			&& $_->{name} ne $name } $stress->sites;
		$stress->{proxy}->close($_->{name}) for @others;
		$old->start;
		$self->up($old);
		my $seq = $self->publish_behind($old);
		$stress->{proxy}->open($_->{name}) for @others;
		my $taken = $bait && $seq ? $self->offer($bait, $old, $seq) : 0;
		$stress->{proxy}->open($_->{name}) for $old, $new;
		$self->arrange($old);
		$self->rejoin($old, $new);
		$self->arrange;
		$what = "$old->{name} -> $new->{name}, its event "
			. ($seq // 'none') . ($taken ? ' was taken' : ' was refused');
	});
	$stress->wait_votes;
	return $what;
}

# Somebody lets a mirror follow by hand, and it has, or refuses, that event.
sub offer
{
	my ($self, $mirror, $old, $seq) = @_;
	my $conninfo = $old->conninfo;
	return 0 unless $self->upstream_of($mirror) eq $old->{name};
	$self->{stress}{proxy}->open($old->{name});
	$self->{stress}->count('events of before offered');
	$mirror->try('ALTER SUBSCRIPTION narinfo ENABLE');
	my $has;
	eval {
		Site::wait_until('an answer', sub {
			$has = $mirror->last_event >= $seq;
			return 1 if $has;
			# whoever is bound by a promise may stop it again
			$mirror->try('ALTER SUBSCRIPTION narinfo ENABLE');
			return ($mirror->ask(q{SELECT error_code
				FROM narinfo.mirror_state}) // '') ne '';
		}, 10);
	};
	$self->{stress}->count($has ? 'events of before taken'
		: 'events of before refused');
	return $has;
}

# It was alone for a moment, and is gone for good.
sub promotion_lost
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $name = $stress->{primary};
	my $what;
	$stress->wait_votes;
	$stress->disturb($name, sub {
		$stress->{proxy}->close($name);
		sleep 1;
		my ($old, $new) = $self->fail_over;
		$stress->write_state("generation-$name",
			$stress->generation($name) + 1);
		$self->arrange($old);
		$old->remove;
		$stress->{proxy}->open($name);
		$stress->make_site($old);
		$self->insist("$name joins", sub {
			$new->try("SELECT narinfo.dismiss_site('$name')");
			return $old->try(sprintf q{CALL narinfo.join_site('%s', '%s')},
				$new->conninfo, $name);
		});
		$stress->{upstream}{$name} = $new->{name};
		$self->arrange;
		$what = "$name -> $new->{name}";
	});
	$stress->wait_votes;
	return $what;
}

1;
