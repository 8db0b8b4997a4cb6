#
# Proxy: connections to other sites, with a distance: each way takes half of
# the delay, however much is on its way; and cut when they are to be.
#
#   my $proxy = Proxy->new;
#   $proxy->route('paris', 15001, 5432);    listens here, leads there
#   $proxy->delay('paris', 0.040);          seconds, there and back
#   $proxy->cut('paris');                   ends its connections
#   $proxy->close('paris'); $proxy->open('paris');    ... and takes no new ones
#
# One process for all routes.  What comes is kept with the time at which it is
# due, so the delay costs no throughput.
#
package Proxy;

use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Handle;
use IO::Socket::INET;
use POSIX ();
use Socket;
use Time::HiRes qw(time);

my $chunk = 256 << 10;
my $most = 64 << 20;       # bytes on their way, in one direction

sub new
{
	my ($class) = @_;
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
		or die "socketpair: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		$SIG{$_} = 'DEFAULT' for qw(TERM HUP);
		$SIG{$_} = 'IGNORE' for qw(PIPE INT);
		CORE::close $ours;
		eval { serve($theirs); 1 } or print STDERR "proxy: $@";
		POSIX::_exit(0);
	}
	CORE::close $theirs;
	$ours->autoflush(1);
	return bless { pid => $pid, control => $ours, owner => $$ }, $class;
}

sub tell
{
	my ($self, @words) = @_;
	print { $self->{control} } "@words\n";
	my $reply = readline $self->{control};
	die "the proxy is gone\n" unless defined $reply;
	die "the proxy: $reply" unless $reply eq "ok\n";
}

sub route { my ($self, @what) = @_; $self->tell('route', @what); }
sub delay { my ($self, $name, $seconds) = @_; $self->tell('delay', $name,
	$seconds); }
sub cut { my ($self, $name) = @_; $self->tell('cut', $name); }
sub close { my ($self, $name) = @_; $self->tell('close', $name); }
sub open { my ($self, $name) = @_; $self->tell('open', $name); }

sub end
{
	my ($self) = @_;
	return if $self->{owner} != $$ || !$self->{pid};
	kill 'KILL', $self->{pid};
	waitpid delete $self->{pid}, 0;
}

sub DESTROY { local $?; $_[0]->end; }

# ---- the process

my %routes;    # name => { port, to, delay, socket, closed }
my %ends;      # fileno => { socket, other, route, out: [[due, bytes]], ... }
my %listens;   # fileno => route

sub serve
{
	my ($control) = @_;
	my $commands = '';
	while (1)
	{
		my ($in, $out) = ('', '');
		my $next;
		my $now = time;
		vec($in, fileno $control, 1) = 1;
		vec($in, $_, 1) = 1 for keys %listens;
		while (my ($fd, $end) = each %ends)
		{
			vec($in, $fd, 1) = 1
				if !$end->{eof} && $end->{other}{queued} < $most;
			next unless @{ $end->{out} };
			my $due = $end->{out}[0][0];
			if ($due <= $now)
			{
				vec($out, $fd, 1) = 1;
			}
			elsif (!defined $next || $due < $next)
			{
				$next = $due;
			}
		}
		my $n = select $in, $out, undef,
			defined $next ? $next - $now : undef;
		next if $n < 0;
		if (vec $in, fileno $control, 1)
		{
			sysread $control, $commands, 4096, length $commands or return;
			while ($commands =~ s/^(.*)\n//)
			{
				my $reply = eval { obey(split ' ', $1); 1 } ? 'ok'
					: $@ =~ s/\n.*//sr;
				syswrite $control, "$reply\n";
			}
		}
		for my $fd (grep { vec $in, $_, 1 } keys %listens)
		{
			take($listens{$fd}) if $listens{$fd};
		}
		for my $fd (grep { vec($in, $_, 1) || vec $out, $_, 1 } keys %ends)
		{
			my $end = $ends{$fd} or next;
			read_some($end) if vec $in, $fd, 1;
		}
		for my $fd (keys %ends)
		{
			my $end = $ends{$fd} or next;
			write_some($end) if @{ $end->{out} };
		}
	}
}

sub obey
{
	my ($what, $name, @rest) = @_;
	if ($what eq 'route')
	{
		$routes{$name} = { name => $name, port => $rest[0], to => $rest[1],
			delay => 0 };
		listen_at($routes{$name});
		return;
	}
	my $route = $routes{$name} or die "no route $name\n";
	$route->{delay} = $rest[0] if $what eq 'delay';
	hang_up($route) if $what eq 'cut' || $what eq 'close';
	$route->{closed} = 1 if $what eq 'close';
	$route->{closed} = 0 if $what eq 'open';
}

sub listen_at
{
	my ($route) = @_;
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
		LocalPort => $route->{port}, Listen => 64, ReuseAddr => 1,
		Blocking => 0) or die "port $route->{port}: $!\n";
	$route->{socket} = $socket;
	$listens{ fileno $socket } = $route;
}

sub take
{
	my ($route) = @_;
	my $near = $route->{socket}->accept or return;
	return if $route->{closed};
	my $far = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $route->{to}) or return;
	my @ends = map {
		$_->blocking(0);
		setsockopt $_, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1;
		{ socket => $_, route => $route, out => [], queued => 0 }
	} $near, $far;
	$ends[0]{other} = $ends[1];
	$ends[1]{other} = $ends[0];
	$ends{ fileno $_->{socket} } = $_ for @ends;
}

sub read_some
{
	my ($end) = @_;
	my ($bytes, $n);
	$n = sysread $end->{socket}, $bytes, $chunk;
	if (!defined $n)
	{
		return if $!{EAGAIN} || $!{EINTR} || $!{EWOULDBLOCK};
		return drop($end);
	}
	my $due = time + $end->{route}{delay} / 2;
	my $other = $end->{other};
	$end->{eof} = 1 if $n == 0;
	push @{ $other->{out} }, [$due, $n == 0 ? undef : $bytes];
	$other->{queued} += $n;
}

sub write_some
{
	my ($end) = @_;
	my $now = time;
	while (@{ $end->{out} } && $end->{out}[0][0] <= $now)
	{
		my $first = $end->{out}[0];
		return drop($end) if !defined $first->[1];
		my $n = syswrite $end->{socket}, $first->[1];
		if (!defined $n)
		{
			return if $!{EAGAIN} || $!{EINTR} || $!{EWOULDBLOCK};
			return drop($end);
		}
		$end->{queued} -= $n;
		return substr($first->[1], 0, $n) = '' if $n < length $first->[1];
		shift @{ $end->{out} };
	}
}

# Both ends of a connection.
sub drop
{
	my ($end) = @_;
	for my $one ($end, $end->{other})
	{
		next unless $one && $one->{socket};
		delete $ends{ fileno $one->{socket} };
		CORE::close delete $one->{socket};
		$one->{out} = [];
	}
	delete $end->{other}{other};
	delete $end->{other};
}

sub hang_up
{
	my ($route) = @_;
	my @all = grep { $_->{route} == $route } values %ends;
	drop($_) for grep { $_->{socket} } @all;
}

1;
