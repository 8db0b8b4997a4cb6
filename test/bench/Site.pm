#
# Site: one of several servers of a benchmark or a stress, with all that is
# its own: data, log, files, ports; and a proxy in front of it, through which
# the other sites come.
#
#   my $paris = Site->new(name => 'paris', dir => DIR, bindir => DIR,
#       proxy => $proxy, conf => "...");
#   $paris->init; $paris->start;
#   $paris->sql('SELECT ...');      $paris->try('CALL ...');
#   $paris->kill_all;               as if its machine had lost its power
#
# Used by sites.pl and by SiteStress.pm.
#
package Site;

use strict;
use warnings;
use File::Path qw(make_path remove_tree);
use IO::Socket::INET;
use IPC::Open3;
use POSIX ();
use Time::HiRes qw(time sleep);

my $patience = 120;    # seconds, for one condition
my %given;

# Below what the system hands out by itself.
sub free_port
{
	for (1 .. 1000)
	{
		my $port = 12000 + int rand 18000;
		next if $given{$port}++;
		return $port if IO::Socket::INET->new(LocalAddr => '127.0.0.1',
			LocalPort => $port, Listen => 1);
	}
	die "no free port\n";
}

sub wait_until
{
	my ($what, $condition, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);
	until ($condition->())
	{
		die "$what: not in time\n" if time > $deadline;
		sleep 0.05;
	}
	return 1;
}

sub new
{
	my ($class, %option) = @_;
	my $self = bless { conf => '', user => 'postgres', %option }, $class;
	$self->{$_} //= free_port() for qw(port http_port);
	$self->{home} = "$self->{dir}/$self->{name}";
	$self->{data} = "$self->{home}/data";
	$self->{wal} = "$self->{home}/wal";
	$self->{files} //= "$self->{home}/files";
	$self->{log} = "$self->{dir}/$self->{name}.log";
	$self->{way} = $self->{port};
	if ($self->{proxy})
	{
		$self->{way} = free_port();
		$self->{proxy}->route($self->{name}, $self->{way}, $self->{port});
	}
	return $self;
}

# ---- making it

sub settings
{
	my ($self) = @_;
	return <<~END;
		port = $self->{port}
		listen_addresses = '127.0.0.1'
		unix_socket_directories = ''
		wal_level = logical
		max_worker_processes = 24
		max_wal_senders = 20
		max_replication_slots = 20
		max_connections = 200
		autovacuum = off
		log_line_prefix = '%m [%p] '
		wal_retrieve_retry_interval = 200ms
		shared_preload_libraries = 'pg_narinfo'
		pg_narinfo.database = 'postgres'
		pg_narinfo.listen = '127.0.0.1:$self->{http_port}'
		pg_narinfo.file_root = '$self->{files}'
		pg_narinfo.site_conninfo = '@{[ $self->conninfo ]}'
		pg_narinfo.site_url = 'http://127.0.0.1:$self->{http_port}'
		$self->{conf}
		END
}

sub init
{
	my ($self) = @_;
	make_path($self->{home}, $self->{files});
	run("$self->{dir}/$self->{name}.init", "$self->{bindir}/initdb", '-D',
		$self->{data}, '--waldir', $self->{wal}, '-U', $self->{user},
		'--no-sync', '--encoding=UTF8', '--locale=C.UTF-8', '--auth=trust');
	open my $conf, '>>', "$self->{data}/postgresql.conf" or die "$!\n";
	print $conf $self->settings;
	close $conf or die "$!\n";
}

# Nothing of it stays, as if its disks were lost.
sub remove
{
	my ($self) = @_;
	for my $where (@$self{qw(data wal)})
	{
		remove_tree($where, { keep_root => 1 });
	}
}

# Runs a program with its output in a file, which is told when it fails.
sub run
{
	my ($output, @command) = @_;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $output;
		open STDERR, '>&', \*STDOUT;
		{ no warnings; exec @command; }
		POSIX::_exit(127);
	}
	waitpid $pid, 0;
	return 1 if $? == 0;
	open my $in, '<', $output or die "failed: @command\n";
	die "failed: @command\n", <$in>;
}

# ---- starting and ending it

sub pg_ctl
{
	my ($self, @what) = @_;
	return run("$self->{dir}/$self->{name}.ctl", "$self->{bindir}/pg_ctl",
		'-s', '-D', $self->{data}, '-w', '-t', $patience, @what);
}

sub start
{
	my ($self) = @_;
	local $ENV{PGCONNECT_TIMEOUT} = 5;
	$self->pg_ctl('-l', $self->{log}, 'start');
}

sub stop
{
	my ($self, $mode) = @_;
	$self->pg_ctl('-m', $mode // 'fast', 'stop') if $self->postmaster;
}

sub restart
{
	my ($self) = @_;
	$self->stop;
	$self->start;
}

sub postmaster
{
	my ($self) = @_;
	open my $in, '<', "$self->{data}/postmaster.pid" or return undef;
	my $pid = <$in> // return undef;
	chomp $pid;
	return $pid > 0 && is_alive($pid) ? $pid : undef;
}

sub is_alive
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/stat" or return 0;
	my ($state) = (<$in> // '') =~ /^.*\) (\S)/;
	return defined $state && $state !~ /^[ZX]$/;
}

sub children
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/task/$pid/children" or return;
	return split ' ', <$in> // '';
}

# The postmaster and all that has come of it.
sub processes
{
	my ($self) = @_;
	my @all = $self->postmaster // return;
	for (my $at = 0; $at < @all; $at++)
	{
		push @all, children($all[$at]);
	}
	return @all;
}

# First it must make no more of them.
sub kill_all
{
	my ($self) = @_;
	my $postmaster = $self->postmaster // return;
	kill 'STOP', $postmaster;
	my @all = $self->processes;
	kill 'KILL', reverse @all;
	wait_until("the end of $self->{name}", sub {
		!grep { is_alive($_) } @all;
	});
	# a zombie that nobody reaps would be taken for a running server
	unlink "$self->{data}/postmaster.pid"
		unless eval { wait_until('init', sub { !kill 0, $postmaster }, 1) };
}

# Stops every process, or lets them go on.
sub freeze { my ($self) = @_; kill 'STOP', $self->processes; }
sub thaw { my ($self) = @_; kill 'CONT', reverse $self->processes; }

# Processes by what pg_stat_activity calls them, as far as ps can tell.
sub processes_like
{
	my ($self, $pattern) = @_;
	return grep {
		open my $in, '<', "/proc/$_/cmdline";
		$in && (join ' ', <$in>) =~ $pattern;
	} $self->processes;
}

# ---- asking it

sub conninfo
{
	my ($self) = @_;
	return "host=127.0.0.1 port=$self->{way} dbname=postgres"
		. " user=$self->{user}";
}

sub psql
{
	my ($self, @more) = @_;
	return ("$self->{bindir}/psql", '-X', '-q', '-A', '-t', '-h', '127.0.0.1',
		'-p', $self->{port}, '-U', $self->{user}, '-d', 'postgres', @more);
}

# Status, output and errors of a statement.
sub try
{
	my ($self, $statement) = @_;
	local $ENV{PGCONNECT_TIMEOUT} = 10;
	my $errors = "$self->{dir}/$self->{name}.$$.err";
	open my $err, '+>', $errors or die "$errors: $!\n";
	my $pid = open3('<&' . fileno($self->{null} //= do {
		open my $null, '<', '/dev/null' or die "$!\n"; $null }),
		my $out, '>&' . fileno $err, $self->psql('-v', 'ON_ERROR_STOP=1',
			'-v', 'VERBOSITY=verbose', '-c', $statement));
	local $/;
	my $text = <$out> // '';
	waitpid $pid, 0;
	my $status = $?;
	seek $err, 0, 0;
	my $said = <$err> // '';
	unlink $errors;
	$text =~ s/\n\z//;
	return ($status, $text, $said);
}

sub sql
{
	my ($self, $statement) = @_;
	my ($status, $out, $err) = $self->try($statement);
	die "$self->{name}: $statement: $err\n" if $status;
	return $out;
}

# Nothing when it cannot be asked.
sub ask
{
	my ($self, $statement) = @_;
	my ($status, $out) = $self->try($statement);
	return $status ? undef : $out;
}

sub answers
{
	my ($self) = @_;
	return ($self->ask('SELECT 1') // '') eq '1';
}

# ---- what sites do

sub join_to
{
	my ($self, $upstream) = @_;
	$self->sql(sprintf q{CALL narinfo.join_site('%s', '%s')},
		$upstream->conninfo, $self->{name});
}

sub last_event
{
	my ($self, $cache) = @_;
	return $self->ask("SELECT narinfo.last_event('" . ($cache // 'main')
		. "')") // -1;
}

sub health
{
	my ($self) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $self->{http_port}, Timeout => 3) or return 0;
	my $text = '';
	eval {
		local $SIG{ALRM} = sub { die "no answer\n" };
		alarm 5;
		print $socket "GET /health HTTP/1.1\r\nHost: x\r\n"
			. "Connection: close\r\n\r\n";
		while (sysread $socket, $text, 65536, length $text) { }
		alarm 0;
	};
	alarm 0;
	return $text =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0;
}

1;
