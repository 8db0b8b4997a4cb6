#
# NarinfoTest: what the TAP tests share.
#
#   use NarinfoTest;
#
#   my $node = narinfo_node('main');          a running server, extension made
#   my $port = $node->{http_port};            where its workers listen
#   $node->safe_psql('postgres', 'CALL ...');
#   my $reply = http_get($port, '/nix-cache-info');
#   is($reply->{status}, 200);
#
# Everything here waits for conditions, never for time to pass.
#
package NarinfoTest;

use strict;
use warnings;
use Exporter 'import';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use IPC::Run;
use Time::HiRes qw(time sleep);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
	$test_dir $cache_dir $public_key $top_path
	narinfo_node narinfo_site join_site site_conninfo caught_up start_serving http_connect http_get http_put http_request raw
	read_reply wait_for_http poll_until copy_cache nix slurp_bytes
);

# The small real cache, its public key, and the top of its largest closure:
# 61 of its 82 paths.
our $test_dir = abs_path(dirname(__FILE__) . '/..');
our $cache_dir = "$test_dir/cache";
our $public_key = slurp_bytes("$test_dir/nix-cache.pub");
our $top_path = '/nix/store/h3ls035wybjcycm8jbknkwlixwzfr0rj-diamond-top';

# Seconds that a condition may take before the test gives up.
my $patience = $PostgreSQL::Test::Utils::timeout_default || 180;

sub slurp_bytes
{
	my ($file) = @_;
	open my $in, '<:raw', $file or die "$file: $!";
	local $/;
	my $bytes = <$in>;
	return $bytes;
}

=item narinfo_node($name, %options)

A cluster with the extension preloaded and listening on a free port, which is
its {http_port}.  It is started, has the extension in its database and answers
HTTP, unless the options say otherwise:

	database  => 'postgres'   the database that is served
	file_root => DIRECTORY    none: a copy of the small cache
	conf      => TEXT         further lines for postgresql.conf
	init      => [...]        arguments for init()
	start     => 0            only initialised
	extension => 0            started, without CREATE EXTENSION; not waited for
	install_path => DIRECTORY of a PostgreSQL of its own, with bin below it

=cut

sub narinfo_node
{
	my ($name, %option) = @_;
	my $database = $option{database} // 'postgres';
	my $node = PostgreSQL::Test::Cluster->new($name, $option{install_path}
		? (install_path => $option{install_path}) : ());
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $root = $option{file_root} // copy_cache($node->basedir . '/files');

	$node->{http_port} = $port;
	$node->{file_root} = $root;
	$node->{database} = $database;
	$node->init(@{ $option{init} // [] });
	$node->append_conf('postgresql.conf', <<~END);
		shared_preload_libraries = 'pg_narinfo'
		pg_narinfo.database = '$database'
		pg_narinfo.listen = '127.0.0.1:$port'
		pg_narinfo.file_root = '$root'
		END
	$node->append_conf('postgresql.conf', $option{conf}) if $option{conf};
	return $node unless $option{start} // 1;

	$node->start;
	$node->safe_psql('postgres', "CREATE DATABASE $database")
		if $database ne 'postgres';
	start_serving($node) if $option{extension} // 1;
	return $node;
}

=item narinfo_site($name, %options)

The same, ready to be one of several sites.

=item join_site($mirror, $upstream, $arguments)

CALL join_site() at one node of another, under the name of the node; further
arguments are SQL.

=item caught_up($mirror, $primary, $cache)

Waits until a site has all events of a cache (main) that another one has.

=cut

sub narinfo_site
{
	my ($name, %option) = @_;
	return narinfo_node($name, %option, init => [ allows_streaming => 'logical' ],
		conf => "max_worker_processes = 20\nautovacuum = off\n"
			. "wal_retrieve_retry_interval = 200ms\n"
			. "pg_narinfo.site_interval = 200ms\n" . ($option{conf} // ''));
}

sub join_site
{
	my ($mirror, $upstream, $arguments) = @_;
	my ($ret, $out, $err) = $mirror->psql($mirror->{database},
		"CALL narinfo.join_site('" . site_conninfo($upstream) . "', '"
		. $mirror->name . "'" . ($arguments ? ", $arguments" : '') . ')');
	return $ret == 0 ? 'joined' : $err;
}

# How to connect to a site, to stand between quotes.
sub site_conninfo
{
	my ($node) = @_;
	return $node->connstr($node->{database}) =~ s/'//gr;
}

sub caught_up
{
	my ($mirror, $primary, $cache) = @_;
	$cache //= 'main';
	my $wanted = $primary->safe_psql($primary->{database},
		"SELECT narinfo.last_event('$cache')");
	return poll_until(sub {
		$mirror->safe_psql($mirror->{database},
			"SELECT narinfo.last_event('$cache')") >= $wanted;
	});
}

=item start_serving($node)

CREATE EXTENSION, then wait until the node answers HTTP.

=cut

sub start_serving
{
	my ($node) = @_;
	$node->safe_psql($node->{database}, 'CREATE EXTENSION pg_narinfo');
	wait_for_http($node->{http_port}) or die 'no answer from '
		. $node->name . ' on port ' . $node->{http_port};
	return $node;
}

=item copy_cache($directory)

A copy of the small real cache that a test may change; returns the directory.

=cut

sub copy_cache
{
	my ($directory) = @_;
	make_path($directory);
	system('cp', '-R', "$cache_dir/.", $directory) == 0
		or die "could not copy $cache_dir to $directory";
	return $directory;
}

# ---- HTTP, by hand: what goes over the wire is exactly what the test says

=item http_connect($port_or_path)

A socket to 127.0.0.1, or to a unix socket if it is a path.  Dies if nobody
listens.

=cut

sub http_connect
{
	my ($where) = @_;
	my $socket = $where =~ m{/}
		? IO::Socket::UNIX->new(Peer => $where)
		: IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $where,
			Proto => 'tcp', Timeout => $patience);
	die "cannot connect to $where: $@$!" unless $socket;
	binmode $socket;
	$socket->autoflush(1);
	return $socket;
}

# Reads some more into $$buffer; false at the end, dies when nothing comes.
sub read_more
{
	my ($socket, $buffer, $timeout) = @_;
	my $deadline = time + ($timeout // $patience);
	while (1)
	{
		my $left = $deadline - time;
		die "nothing came in time; so far: $$buffer" if $left <= 0;
		next unless IO::Select->new($socket)->can_read($left);
		my $n = sysread($socket, $$buffer, 65536, length $$buffer);
		return $n if defined $n;
		next if $!{EINTR};
		return 0 if $!{ECONNRESET};
		die "read: $!";
	}
}

=item read_reply($socket, %options)

One reply, as { status, reason, version, headers, header_lines, body }, or
undef if the other end closed before one began.  headers has lower-case names
and, for a name that came more than once, values joined by ", ".  Bytes beyond
the reply stay for the next call.  Options: head => 1 (there is no body),
timeout => seconds without a byte.

=cut

my %unread;    # by file number

sub read_reply
{
	my ($socket, %option) = @_;
	my $fileno = fileno $socket;
	my $buffer = delete $unread{$fileno} // '';
	while ($buffer !~ /\r\n\r\n/)
	{
		next if read_more($socket, \$buffer, $option{timeout});
		return undef if $buffer eq '';
		die "the connection ended within the headers: $buffer";
	}
	my ($head, $body) = split /\r\n\r\n/, $buffer, 2;
	my ($first, @lines) = split /\r\n/, $head;
	my ($version, $status, $reason) =
		$first =~ m{^HTTP/(\d\.\d) (\d{3}) ?(.*)$}
		or die "not a status line: $first";
	my %headers;
	for (@lines)
	{
		my ($name, $value) = /^([^:\s]+):[ \t]*(.*?)[ \t]*$/
			or die "not a header line: $_";
		$name = lc $name;
		$headers{$name} =
			exists $headers{$name} ? "$headers{$name}, $value" : $value;
	}

	my $length = $headers{'content-length'};
	$length = 0 if $option{head} || $status =~ /^(?:1..|204|304)$/;
	if (defined $length)
	{
		while (length $body < $length)
		{
			read_more($socket, \$body, $option{timeout})
				or die "the body ended after " . length($body)
				. " of $length bytes";
		}
		$unread{$fileno} = substr $body, $length if length $body > $length;
		$body = substr $body, 0, $length;
	}
	else
	{
		1 while read_more($socket, \$body, $option{timeout});
	}
	return {
		version => $version,
		status => $status + 0,
		reason => $reason,
		headers => \%headers,
		header_lines => \@lines,
		body => $body
	};
}

=item http_request($port, $method, $path, %headers)

=item http_get($port, $path, %headers)

One request on a connection of its own; the reply as from read_reply().

=cut

sub http_request
{
	my ($where, $method, $path, %headers) = @_;
	my $socket = http_connect($where);
	%headers = (Host => '127.0.0.1', Connection => 'close', %headers);
	# The reply may come before all is sent, and end the connection.
	local $SIG{PIPE} = 'IGNORE';
	print $socket "$method $path HTTP/1.1\r\n",
		(map { "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n";
	delete $unread{ fileno $socket };
	my $reply = read_reply($socket, head => $method eq 'HEAD');
	die "$method $path: the connection was closed without a reply"
		unless $reply;
	return $reply;
}

sub http_get
{
	my ($where, $path, %headers) = @_;
	return http_request($where, 'GET', $path, %headers);
}

=item http_put($port, $path, $body, %headers)

A PUT on a connection of its own; the reply, which may come before the body is
through.

=cut

sub http_put
{
	my ($where, $path, $body, %headers) = @_;
	my $socket = http_connect($where);
	%headers = (Host => '127.0.0.1', Connection => 'close',
		'Content-Length' => length $body, %headers);
	local $SIG{PIPE} = 'IGNORE';
	print $socket "PUT $path HTTP/1.1\r\n",
		(map { "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n", $body;
	delete $unread{ fileno $socket };
	my $reply = read_reply($socket);
	die "PUT $path: the connection was closed without a reply"
		unless $reply;
	return $reply;
}

=item raw($port, $bytes, %options)

Sends bytes as they are and returns everything that comes back until the other
end closes, or until nothing came for a while (timeout => seconds, 5).  With
shutdown => 1 our end is closed for writing after the bytes.

=cut

sub raw
{
	my ($where, $bytes, %option) = @_;
	my $socket = http_connect($where);
	my ($timeout, $got) = ($option{timeout} // 5, '');
	local $SIG{PIPE} = 'IGNORE';
	$socket->blocking(0);
	while (length $bytes)
	{
		# What does not go out while replies wait to be read would never.
		my ($in, $out) = IO::Select->select(IO::Select->new($socket),
			IO::Select->new($socket), undef, $timeout);
		last unless $in;
		if (@$in)
		{
			my $n = sysread($socket, $got, 65536, length $got);
			return $got if defined $n ? $n == 0 : $!{ECONNRESET};
		}
		if (@$out)
		{
			my $n = syswrite($socket, $bytes);
			last if !defined $n && !$!{EAGAIN};
			substr($bytes, 0, $n // 0) = '';
		}
	}
	shutdown($socket, 1) if $option{shutdown};
	$socket->blocking(1);
	1 while eval { read_more($socket, \$got, $timeout) };
	return $got;
}

=item wait_for_http($port)

Until /nix-cache-info is answered with 200; true, or false when patience ends.

=cut

sub wait_for_http
{
	my ($where) = @_;
	return poll_until(sub {
		my $reply = eval { http_get($where, '/nix-cache-info') };
		return $reply && $reply->{status} == 200;
	});
}

=item poll_until($condition, $seconds)

Calls a function until it returns true, and returns that; false when it did
not within the time (default: PG_TEST_TIMEOUT_DEFAULT).  What is asked again and
again is mostly asked by a new psql, so the pauses become longer.

=cut

sub poll_until
{
	my ($condition, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);
	for (my $pause = 0.05;; $pause = $pause < 0.25 ? $pause * 1.25 : $pause)
	{
		my $result = $condition->();
		return $result if $result;
		return 0 if time > $deadline;
		sleep $pause;
	}
}

=item nix($home, @arguments)

Runs a program of Nix, the first argument, such as 'nix' or 'nix-store', with
no settings but those under the directory $home, where it keeps its caches and
its own store: nothing of it is shared with another $home.  Returns the exit
status, standard output and standard error.

=cut

sub nix
{
	my ($home, $program, @arguments) = @_;
	my ($out, $err) = ('', '');
	make_path(map { "$home/$_" } qw(conf cache data state log tmp));
	local @ENV{qw(HOME NIX_CONF_DIR NIX_USER_CONF_FILES XDG_CACHE_HOME
		XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME NIX_STATE_DIR
		NIX_LOG_DIR TMPDIR NIX_REMOTE)} =
		($home, "$home/conf", '', "$home/cache", "$home/conf", "$home/data",
		"$home/state", "$home/state/nix", "$home/log", "$home/tmp",
		"local?root=$home/root");
	my @features = $program eq 'nix'
		? ('--extra-experimental-features', 'nix-command') : ();
	my @command = ($program, @features, @arguments);

	note(join ' ', 'running', @command);
	my $ok = eval {
		IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err,
			IPC::Run::timeout($patience));
		1;
	};
	return (-1, $out, "$err$@") unless $ok;
	return ($? >> 8 || $?, $out, $err);
}

sub note
{
	Test::More::note(@_);
}

1;
