#
# GcStress::Worker: one who publishes, pushes and pins, and knows what he was
# told.
#
# A path that was published, published again or touched is there for a day,
# counted from before the question was asked; so is all that it needs, and so
# is what is pinned.  Whatever is found missing within that time is a failure.
#
package GcStress::Worker;

use strict;
use warnings;
use List::Util qw(max);
use Time::HiRes qw(time sleep);

my $known_most = 400;     # paths that are remembered
my $depth_most = 4;       # of references to paths of our own

my @kinds = (
	[30, \&publish_new],
	[6, \&publish_many],
	[14, \&publish_again],
	[20, \&push_referrer],
	[6, \&pin],
	[5, \&unpin],
	[10, \&look],
);

sub new
{
	my ($class, %option) = @_;
	return bless { %option, path => {}, order => [], pinned => {}, next => 0 },
		$class;
}

sub count { my ($self, $what) = @_; $self->{state}{counts}{$what}++; }

sub fail
{
	my ($self, $why) = @_;
	push @{ $self->{state}{failures} }, $why;
}

sub run
{
	my ($self, $end) = @_;
	my $sum = 0;
	$sum += $_->[0] for @kinds;
	$self->{session} = $self->{stress}->connect_again($self->{name});
	while (time < $end)
	{
		my $at = rand $sum;
		for my $kind (@kinds)
		{
			next if ($at -= $kind->[0]) >= 0;
			$kind->[1]->($self);
			last;
		}
	}
	$self->look;
	$self->unpin while %{ $self->{pinned} };
	$self->{session}->end;
}

# ---- what we know

sub is_told
{
	my ($self, $name, $at) = @_;
	return 1 if $name =~ /^base/;
	my $path = $self->{path}{$name} or return 0;
	return $path->{pins} || $path->{told} + $GcStress::day > ($at // time);
}

# We were told, by what was asked at this time, that it is there.
sub told
{
	my ($self, $name, $at) = @_;
	my @next = ($name);
	while (@next)
	{
		my $path = $self->{path}{ pop @next } or next;
		next if $path->{told} >= $at;
		$path->{told} = $at;
		push @next, @{ $path->{refs} };
	}
}

sub add
{
	my ($self, $name, @refs) = @_;
	$self->{path}{$name} = { refs => [@refs], told => 0, pins => 0,
		depth => 1 + max(0, map { $self->{path}{$_} ? $self->{path}{$_}{depth}
			: 0 } @refs) };
	push @{ $self->{order} }, $name;
	while (@{ $self->{order} } > $known_most)
	{
		my $old = shift @{ $self->{order} };
		if ($self->{path}{$old}{pins})
		{
			push @{ $self->{order} }, $old;
			last;
		}
		delete $self->{path}{$old};
	}
}

# One of ours, of any age; or one that we were told of of late.
sub any
{
	my ($self, $wanted) = @_;
	my $order = $self->{order};
	for (1 .. 20)
	{
		return undef unless @$order;
		my $name = $order->[rand @$order];
		return $name if !$wanted || $wanted->($name);
	}
	return undef;
}

sub some_refs
{
	my ($self) = @_;
	my %refs = ('base' . int(rand 5) => 1);
	for (1 .. int rand 3)
	{
		my $name = $self->any(sub {
			$self->{path}{ $_[0] }{depth} < $depth_most
				&& $self->is_told($_[0], time + 0.2) });
		$refs{$name} = 1 if defined $name;
	}
	return sort keys %refs;
}

sub text
{
	my ($self, $name, @refs) = @_;
	return $self->{stress}->text_of($name, 1, 0, @refs);
}

sub hashes { my ($self, @names) = @_; return join ',', map {
	$self->{stress}->hash_of($_) } @names; }

# Publishes; what it refers to must be there if we were told so.
sub publish_path
{
	my ($self, $name, @refs) = @_;
	my $begin = time;
	my $state = $self->{session}->execute(
		sprintf q{SELECT publish('%s')}, $self->text($name, @refs));
	$self->count('publishes');
	if ($state eq '00000')
	{
		$self->add($name, @refs) unless $self->{path}{$name};
		$self->told($name, $begin);
		return 1;
	}
	if ($state eq 'NI002')
	{
		my $end = time;
		$self->fail("$name: what it refers to is gone (@refs)")
			if !grep { !$self->is_told($_, $end) } @refs;
		$self->count('refused');
	}
	elsif ($state ne '40001')
	{
		$self->fail("publish: $state");
	}
	return 0;
}

# ---- what may be done

sub new_name
{
	my ($self) = @_;
	return "p$self->{phase}w$self->{name}n" . $self->{next}++;
}

sub publish_new
{
	my ($self) = @_;
	$self->publish_path($self->new_name, $self->some_refs);
}

# A chain in one transaction, of which nothing was there.
sub publish_many
{
	my ($self) = @_;
	my @names = map { $self->new_name } 0 .. 1 + rand 3;
	my $begin = time;
	my @texts = map { $self->text($names[$_], $_ > 0 ? $names[ $_ - 1 ]
		: 'base0') } 0 .. $#names;
	my $state = $self->{session}->execute('SELECT publish_many(ARRAY['
		. join(',', map { "'$_'" } reverse @texts) . ']::narinfo[])');
	$self->count('publishes');
	return $self->fail("publish_many: $state") if $state ne '00000';
	$self->add($names[$_], $_ > 0 ? $names[ $_ - 1 ] : 'base0')
		for 0 .. $#names;
	$self->told($names[-1], $begin);
}

# One that may have gone meanwhile, or be about to go.
sub publish_again
{
	my ($self) = @_;
	my $name = $self->any // return;
	$self->publish_path($name, @{ $self->{path}{$name}{refs} });
}

# As a pusher: is it there?  Then only what refers to it has to be sent.
sub push_referrer
{
	my ($self) = @_;
	my $name = $self->any(sub { $self->{path}{ $_[0] }{depth} < $depth_most
		&& (rand() < 0.3 || !$self->is_told($_[0])) }) // return;
	my $begin = time;
	my $state = $self->{session}->execute(sprintf
		q{SELECT touch('{%s}')}, $self->hashes($name));
	return $self->count('touched too late') if $state eq '40001';
	return $self->fail("touch: $state") if $state ne '00000';
	return $self->count('not there any more') if $self->{session}{rows}[0] eq '0';
	$self->count('touches');
	$self->told($name, $begin);
	sleep rand 0.3 if rand() < 0.3;
	$self->publish_path($self->new_name, $name);
}

sub pin
{
	my ($self) = @_;
	my $name = $self->any // return;
	my $pin = $self->new_name;
	my $state = $self->{session}->execute(sprintf
		q{SELECT pin('%s', '/nix/store/%s')}, $pin,
		$self->{stress}->path_of($name));
	my $end = time;
	if ($state eq '00000')
	{
		$self->count('pins');
		$self->{pinned}{$pin} = $name;
		$self->{path}{$name}{pins}++;
		$self->told($name, 0);
		return;
	}
	return $self->fail("pin: $state") if $state ne 'NI004';
	$self->fail("pin: $name is gone") if $self->is_told($name, $end);
}

sub unpin
{
	my ($self) = @_;
	my ($pin) = sort keys %{ $self->{pinned} } or return;
	my $name = delete $self->{pinned}{$pin};
	$self->find($name);
	my $state = $self->{session}->execute("SELECT unpin('$pin')");
	$self->{path}{$name}{pins}--;
	return $self->fail("unpin: $state") if $state ne '00000';
	$self->count('unpins');
}

# Are they there, if they have to be?
sub find
{
	my ($self, @names) = @_;
	my %there = map { $_ => 1 } $self->{session}->rows(sprintf
		q{SELECT hash FROM valid_path WHERE cache = 'main'
		AND hash = ANY ('{%s}'::store_hash[])}, $self->hashes(@names));
	my $end = time;
	for my $name (@names)
	{
		$self->count('looks');
		$self->fail("$name is gone") if $self->is_told($name, $end)
			&& !$there{ $self->{stress}->hash_of($name) };
	}
}

sub look
{
	my ($self) = @_;
	my @names = grep { $self->is_told($_) } @{ $self->{order} };
	$self->find(@names) if @names;
}

1;
