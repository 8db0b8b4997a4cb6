#
# GateStress::Worker: one session, what it does and what it knows.
#
# Of its own paths, which nobody else changes, it knows what they are.  Common
# paths are locked in one order, cache by cache and hash by hash, as a client
# has to that wants no deadlock; own ones, and with them the caches, come in
# any.
#
package GateStress::Worker;

use strict;
use warnings;
use List::Util qw(shuffle);
use Time::HiRes qw(time sleep);

my $common_paths = 60;

# What may happen to whoever meets others.
my %expected = map { $_ => 1 } qw(40001 NI002 NI003 lost);

my @kinds = (
	[20, 'publish', \&publish_own],
	[10, 'publish common', \&publish_common],
	[10, 'publish_many', \&publish_many],
	[6, 'INSERT', \&insert_rows],
	[3, 'COPY', \&copy_rows],
	[6, 'replace', \&replace],
	[5, 'UPDATE', \&update_row],
	[5, 'retract', \&retract_own],
	[5, 'retract common', \&retract_common],
	[2, 'DELETE', \&delete_row],
	[6, 'publish again', \&publish_again],
	[8, 'several caches', \&several_caches],
	[4, 'common in several caches', \&common_in_caches],
	[5, 'old snapshot', \&old_snapshot],
);

sub new
{
	my ($class, %option) = @_;
	my $self = bless {%option}, $class;
	$self->{state} //= { own => {}, common => {}, seen => {}, counts => {},
		next => 0 };
	$self->{state}{failures} = [];
	return $self;
}

sub connect
{
	my ($self) = @_;
	my $stress = $self->{stress};
	$self->{session} = $stress->session_again($self->{number});
	$self->{session}->execute('SET search_path = narinfo, public');
}

sub run
{
	my ($self, $seconds) = @_;
	my $end = time + $seconds;
	my $sum = 0;
	$sum += $_->[0] for @kinds;
	$self->connect;
	while (time < $end)
	{
		my $at = rand $sum;
		for my $kind (@kinds)
		{
			next if ($at -= $kind->[0]) >= 0;
			$self->{kind} = $kind->[1];
			$kind->[2]->($self);
			last;
		}
		$self->see if rand() < 0.1;
	}
	$self->{session}->end;
}

sub count
{
	my ($self, $what) = @_;
	$self->{state}{counts}{$what}++;
}

# ---- transactions

# Statements, the last of which commits, and what is to be true when it has:
# [cache, name, { text, refs }] of own paths, undef for one that is gone.
sub attempt
{
	my ($self, $effects, @statements) = @_;
	my $session = $self->{session};
	my $state;

	for my $i (0 .. $#statements)
	{
		my $statement = $statements[$i];
		$state = ref $statement ? $session->copy(@$statement)
			: $session->execute($statement);
		next if $state eq '00000';
		$self->count($expected{$state} ? $state : 'unexpected');
		push @{ $self->{state}{failures} },
			"$self->{kind}: $state: " . substr $statement, 0, 200
			unless $expected{$state};
		if ($state eq 'lost')
		{
			$session->end;
			$self->connect;
			$self->resolve($effects) if $i == $#statements;
		}
		elsif ($i > 0 || @statements > 1)
		{
			$session->execute('ROLLBACK');
		}
		return 0;
	}
	$self->count($self->{kind});
	$self->apply($effects);
	return 1;
}

sub apply
{
	my ($self, $effects) = @_;
	for (@$effects)
	{
		my ($cache, $name, $path) = @$_;
		if ($path) { $self->{state}{own}{"$cache $name"} = $path }
		else { delete $self->{state}{own}{"$cache $name"} }
	}
}

# The connection ended while it committed: all of it has happened, or nothing.
sub resolve
{
	my ($self, $effects) = @_;
	my ($new, $old) = (1, 1);
	for (@$effects)
	{
		my ($cache, $name, $path) = @$_;
		my $hash = $self->{stress}->hash_of($name);
		my $state = $self->{session}->execute("SELECT info FROM valid_path"
				. " WHERE cache = '$cache' AND hash = '$hash'");
		if ($state ne '00000')
		{
			# ended once more before we know
			$self->{session}->end;
			$self->connect;
			return $self->resolve($effects);
		}
		my $there = join '', map { "$_\n" }
			grep { $_ ne '' } @{ $self->{session}{rows} };
		my $before = $self->{state}{own}{"$cache $name"};
		$new = 0 if $there ne ($path ? $path->{text} : '');
		$old = 0 if $there ne ($before ? $before->{text} : '');
	}
	$self->count('lost at commit');
	if ($new) { $self->apply($effects) }
	elsif (!$old)
	{
		push @{ $self->{state}{failures} }, 'half of a transaction is there: '
			. join ', ', map { "$_->[0] $_->[1]" } @$effects;
	}
}

# An event that somebody has seen is the same for ever.
sub see
{
	my ($self) = @_;
	my $cache = $self->cache;
	my ($row) = $self->{session}->rows("SELECT cache || ':' || seq, digest"
			. " FROM event WHERE cache = '$cache' ORDER BY seq DESC LIMIT 1");
	$self->{state}{seen}{$1} = $2 if $row && $row =~ /^(\S+)\|(.*)$/;
}

# ---- paths

sub pick { return $_[ rand @_ ] }

sub cache { return pick(@{ $_[0]{stress}{caches} }) }

sub own_in
{
	my ($self, $cache) = @_;
	return map { /^\Q$cache\E (.*)/ ? $1 : () } keys %{ $self->{state}{own} };
}

# A new path of ours, that refers to some that are valid, or come with it.
sub new_path
{
	my ($self, $cache, @with) = @_;
	my $stress = $self->{stress};
	my $name = "own$self->{number}-" . $self->{state}{next}++;
	my @mine = (@with, $self->own_in($cache));
	my %refs = map { $_ => 1 } $stress->base_name,
		@mine ? map { pick(@mine) } 1 .. rand 4 : ();
	my @refs = sort keys %refs;
	return ($name, { text => $stress->text_of($name, 1, 0, @refs),
			refs => \@refs });
}

sub other_version
{
	my ($self, $cache, $name) = @_;
	my $path = $self->{state}{own}{"$cache $name"};
	my $version = $self->{state}{next}++;
	return { text => $path->{text} =~ s/^FileSize: \d+/FileSize: $version/mr,
		refs => $path->{refs} };
}

# A common path: others before it are its references.
sub common
{
	my ($self, $number) = @_;
	my $stress = $self->{stress};
	my @refs = ($stress->base_name, map { "common$_" }
		grep { $_ < $number && rand() < 0.1 }
		int($number / 2), int($number / 3));
	return $stress->text_of("common$number", 1 + int rand 3,
		rand() < 0.03 ? 1 : 0, @refs);
}

sub note_common
{
	my ($self, $cache, @numbers) = @_;
	my $stress = $self->{stress};
	$self->{state}{common}{"$cache " . $stress->hash_of("common$_")} = 1
		for @numbers;
}

sub array { return 'ARRAY[' . join(',', map { "'$_'" } @_) . ']::narinfo[]' }

sub store_paths
{
	my ($self, @names) = @_;
	return 'ARRAY[' . join(',', map { "'/nix/store/"
		. $self->{stress}->path_of($_) . "'" } @names) . ']::store_path[]';
}

sub where
{
	my ($self, $cache, $name) = @_;
	return "WHERE cache = '$cache' AND hash = '"
		. $self->{stress}->hash_of($name) . "'";
}

# ---- what it does

sub publish_own
{
	my ($self) = @_;
	my $cache = $self->cache;
	my ($name, $path) = $self->new_path($cache);
	$self->attempt([[$cache, $name, $path]],
		"SELECT publish('$path->{text}', '$cache')");
}

sub publish_common
{
	my ($self) = @_;
	my $cache = $self->cache;
	my $number = int rand $common_paths;
	my $text = $self->common($number);
	$self->note_common($cache, $number)
		if $self->attempt([], "SELECT publish('$text', '$cache')");
}

sub some_common
{
	my ($self, $most) = @_;
	my %numbers = map { int(rand $common_paths) => 1 } 1 .. rand $most;
	return keys %numbers;
}

sub several_new
{
	my ($self, $cache, $count) = @_;
	my (@effects, @names);
	for (1 .. $count)
	{
		my ($name, $path) = $self->new_path($cache, @names);
		push @names, $name;
		push @effects, [$cache, $name, $path];
	}
	return @effects;
}

sub publish_many
{
	my ($self) = @_;
	my $cache = $self->cache;
	my @effects = $self->several_new($cache, 1 + rand 15);
	my @common = $self->some_common(6);
	my @texts = shuffle((map { $_->[2]{text} } @effects),
		map { $self->common($_) } @common);
	$self->note_common($cache, @common)
		if $self->attempt(\@effects,
		'SELECT publish_many(' . array(@texts) . ", '$cache')");
}

# In the order of the hashes, which is publish_many()'s.
sub insert_rows
{
	my ($self) = @_;
	my $cache = $self->cache;
	my @effects = $self->several_new($cache, 1 + rand 8);
	my @common = $self->some_common(4);
	my %text = map { $self->{stress}->hash_of($_->[0]) => $_->[1] }
		(map { [$_->[1], $_->[2]{text}] } @effects),
		map { ["common$_", $self->common($_)] } @common;
	my @rows = map { "('$cache', '$_', '$text{$_}')" } sort keys %text;
	$self->note_common($cache, @common)
		if $self->attempt(\@effects, 'INSERT INTO valid_path (cache, hash, info)'
			. ' VALUES ' . join(', ', @rows) . ' ON CONFLICT DO NOTHING');
}

sub copy_rows
{
	my ($self) = @_;
	my $cache = $self->cache;
	my @effects = $self->several_new($cache, 5 + rand 60);
	$self->attempt(\@effects, ['valid_path (cache, hash, info)', map {
		join "\t", $cache, $self->{stress}->hash_of($_->[1]),
			$_->[2]{text} =~ s/\n/\\n/gr } shuffle @effects]);
}

# Calls with a cache and a path of ours that is valid in it.
sub with_own
{
	my ($self, $code) = @_;
	my $cache = $self->cache;
	my @names = $self->own_in($cache) or return;
	$code->($cache, pick(@names));
}

sub replace
{
	my ($self) = @_;
	$self->with_own(sub {
		my ($cache, $name) = @_;
		my $path = $self->other_version($cache, $name);
		$self->attempt([[$cache, $name, $path]],
			"SELECT publish('$path->{text}', '$cache')");
	});
}

sub update_row
{
	my ($self) = @_;
	$self->with_own(sub {
		my ($cache, $name) = @_;
		my $path = $self->other_version($cache, $name);
		$self->attempt([[$cache, $name, $path]],
			"UPDATE valid_path SET info = '$path->{text}' "
			. $self->where($cache, $name));
	});
}

# All of ours that need a path, itself with them.
sub needed_by
{
	my ($self, $cache, $name) = @_;
	my %gone = ($name => 1);
	my $own = $self->{state}{own};
	my @names = $self->own_in($cache);
	for (my $before = 0; $before != keys %gone;)
	{
		$before = keys %gone;
		for my $other (@names)
		{
			$gone{$other} = 1
				if grep { $gone{$_} } @{ $own->{"$cache $other"}{refs} };
		}
	}
	return keys %gone;
}

sub retract_own
{
	my ($self) = @_;
	$self->with_own(sub {
		my ($cache, $name) = @_;
		my $all = rand() < 0.5;
		my @gone = $all ? $self->needed_by($cache, $name) : $name;
		$self->attempt([map { [$cache, $_, undef] } @gone], 'SELECT retract('
			. $self->store_paths($name)
			. ($all ? ', true' : ', false') . ", '$cache')");
	});
}

sub retract_common
{
	my ($self) = @_;
	my $cache = $self->cache;
	my @names = map { "common$_" } $self->some_common(3), 1;
	$self->attempt([], 'SELECT retract(' . $self->store_paths(@names)
			. (rand() < 0.7 ? ', true' : ', false') . ", '$cache')");
}

sub delete_row
{
	my ($self) = @_;
	$self->with_own(sub {
		my ($cache, $name) = @_;
		$self->attempt([[$cache, $name, undef]],
			'DELETE FROM valid_path ' . $self->where($cache, $name));
	});
}

sub publish_again
{
	my ($self) = @_;
	$self->with_own(sub {
		my ($cache, $name) = @_;
		my $path = $self->{state}{own}{"$cache $name"};
		$self->attempt([[$cache, $name, $path]],
			"SELECT publish('$path->{text}', '$cache')");
	});
}

# Own paths, caches in any order, and some of it rolled back.
sub several_caches
{
	my ($self) = @_;
	my (@effects, @statements);
	my $depth = 0;
	for my $cache (shuffle @{ $self->{stress}{caches} })
	{
		my ($name, $path) = $self->new_path($cache);
		my $way = rand;
		push @statements, "SAVEPOINT s$depth" if $way < 0.5;
		push @statements, rand() < 0.7
			? "SELECT publish('$path->{text}', '$cache')"
			: "INSERT INTO valid_path (cache, info)"
			. " VALUES ('$cache', '$path->{text}')";
		push @statements, "ROLLBACK TO s$depth" if $way < 0.25;
		push @statements, "RELEASE s$depth" if $way > 0.25 && $way < 0.35;
		push @effects, [$cache, $name, $path] unless $way < 0.25;
		$depth++;
	}
	my $commit = rand() < 0.8;
	$self->attempt($commit ? \@effects : [], 'BEGIN', @statements,
		$commit ? 'COMMIT' : 'ROLLBACK');
}

sub common_in_caches
{
	my ($self) = @_;
	my (@statements, %numbers);
	for my $cache (sort @{ $self->{stress}{caches} })
	{
		my @numbers = $self->some_common(5) or next;
		$numbers{$cache} = \@numbers;
		push @statements, 'SELECT publish_many('
			. array(shuffle map { $self->common($_) } @numbers) . ", '$cache')";
	}
	return unless $self->attempt([], 'BEGIN', @statements, 'COMMIT');
	$self->note_common($_, @{ $numbers{$_} }) for keys %numbers;
}

sub old_snapshot
{
	my ($self) = @_;
	my $cache = $self->cache;
	my $level = rand() < 0.8 ? 'REPEATABLE READ' : 'SERIALIZABLE';
	my ($name, $path) = $self->new_path($cache);
	my $number = int rand $common_paths;
	my @other = rand() < 0.5 ? () : "SELECT publish('"
		. $self->common($number) . "', '$cache')";
	$self->attempt([[$cache, $name, $path]], "BEGIN ISOLATION LEVEL $level",
		"SELECT count(*) FROM valid_path WHERE cache = '$cache'",
		"SELECT publish('$path->{text}', '$cache')", @other, 'COMMIT');
}

1;
