#
# GateStress::Session: a psql that stays open, and what became of each
# statement: its SQLSTATE, or "lost" when the connection ended meanwhile.
#
package GateStress::Session;

use strict;
use warnings;
use IO::Handle;
use IO::Select;
use IPC::Open3;
use Time::HiRes qw(time);

my $patience = 120;    # seconds, for one statement

sub new
{
	my ($class, %option) = @_;
	my $self = bless {%option}, $class;
	local $ENV{PGAPPNAME} = "gate-$self->{name}";
	local $SIG{PIPE} = 'IGNORE';
	open my $errors, '>>', $self->{errors} or die "$self->{errors}: $!\n";
	my $fd = '>&' . fileno $errors;
	$self->{pid} = open3(my $in, my $out, $fd, @{ $self->{command} });
	$in->autoflush(1);
	@$self{qw(in out buffer)} = ($in, $out, '');
	($self->{backend}) = $self->rows('SELECT pg_backend_pid()');
	return $self;
}

# The SQLSTATE of the last of these; what they print goes to @{$self->{rows}}.
sub execute
{
	my ($self, @statements) = @_;
	local $SIG{PIPE} = 'IGNORE';
	$self->{rows} = [];
	return 'lost' if $self->{lost};
	print { $self->{in} } map { "$_;\n" } @statements;
	return $self->result;
}

# Rows to a table; the columns of each are in the way COPY wants them.
sub copy
{
	my ($self, $table, @lines) = @_;
	local $SIG{PIPE} = 'IGNORE';
	$self->{rows} = [];
	return 'lost' if $self->{lost};
	print { $self->{in} } "COPY $table FROM STDIN;\n",
		map({ "$_\n" } @lines), "\\.\n";
	return $self->result;
}

sub result
{
	my ($self) = @_;
	print { $self->{in} } "\\echo END :SQLSTATE\n";
	my $deadline = time + $patience;
	while (defined(my $line = $self->line($deadline)))
	{
		return $1 if $line =~ /^END (\w+)$/;
		push @{ $self->{rows} }, $line;
	}
	$self->{lost} = 1;
	return 'lost';
}

# The next line; none when psql has ended, or has lost its backend: after a
# crash of the server it may wait for ever to be told what to do.
sub line
{
	my ($self, $deadline) = @_;
	my $gone = 0;
	my $end;
	while (($end = index $self->{buffer}, "\n") < 0)
	{
		die "$self->{name}: no answer in $patience s\n" if time > $deadline;
		if (IO::Select->new($self->{out})->can_read(0.5))
		{
			sysread($self->{out}, $self->{buffer}, 65536,
				length $self->{buffer}) or return undef;
		}
		elsif ($self->{backend} && !kill 0, $self->{backend})
		{
			return undef if $gone++;
		}
	}
	my $line = substr $self->{buffer}, 0, $end + 1, '';
	chomp $line;
	return $line;
}

sub must
{
	my ($self, @statements) = @_;
	for (@statements)
	{
		my $state = $self->execute($_);
		die "$state: $_\n" if $state ne '00000';
	}
}

# What a query prints; nothing when it fails.
sub rows
{
	my ($self, $query) = @_;
	return $self->execute($query) eq '00000' ? @{ $self->{rows} } : ();
}

sub end
{
	my ($self) = @_;
	kill 'KILL', $self->{pid} if $self->{lost};
	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
}

1;
