#
# Bench: what the parts of the benchmark share: servers, clients, medians and
# the table.
#
#   cluster_start();                a private PostgreSQL that serves HTTP
#   need_rows(200_000);             with so many narinfos in it
#   my $server = nginx_start();     { port, pid, name }; also constant_start()
#   my $r = rounds(ours => sub { wrk($ours, ...) }, nginx => sub { ... });
#   compare('what', $r, ours => 'nginx', 'rate', hold => 1, aim => 1.5);
#   print_table();
#
# A server runs on one processor and its client on another, the same ones for
# both sides; whatever else there is may run anywhere.  With a single
# processor nothing is pinned.
#
package Bench;

use strict;
use warnings;
use Exporter 'import';
use File::Path qw(make_path);
use IO::Handle;
use IPC::Open2;
use POSIX qw(:sys_wait_h sysconf _SC_CLK_TCK);
use Time::HiRes qw(time sleep);

our @EXPORT = qw(
	$dir $rounds $seconds $ours $file_root
	cluster_start cluster_stop cluster_anywhere dump_command need_rows
	setting paths_file sql psql_command
	nginx_start constant_start wrk crowd_start crowd_drain push_command push_run
	rounds median
	compare bar busy info table_print progress slurp spawn end_process memory
	bare
	descriptors children processors can_go_first on_client place warm
	narinfo_files
	narinfo_files_in_memory nar_file keep_in_memory
);

# Set by test/bench/run.
our $dir;         # where everything lies
our $programs;    # where gen, constant and crowd are
our $bindir;      # PostgreSQL's programs
our $rounds = 5;
our $seconds = 5;

# The HTTP worker, as the other servers: { port, pid, name }.
our $ours;
our $file_root;

my $tools;        # where walk.lua is
($tools) = __FILE__ =~ m{^(.*)/};

my %child;        # pid => name, of what is to end with us
my ($socket, $pg_port);
my $loaded = 0;
my $in_memory;    # a directory that is to be removed
my @table;
my @notes;
my $failed = 0;

STDOUT->autoflush(1);
my $begin = time;
my $main = $$;

sub progress
{
	printf "%5d s  %s\n", time - $begin, "@_";
}

sub slurp
{
	my ($file) = @_;
	open my $in, '<:raw', $file or die "$file: $!\n";
	local $/;
	return scalar <$in>;
}

sub spew
{
	my ($file, @text) = @_;
	open my $out, '>:raw', $file or die "$file: $!\n";
	print $out @text;
	close $out or die "$file: $!\n";
}

sub run
{
	my (@command) = @_;
	system(@command) == 0 or die "failed: @command\n";
}

sub processors
{
	return scalar(() = slurp("/proc/cpuinfo") =~ /^processor\s/mg);
}

# ---- processes

my ($server_cpu, $client_cpu) = processors() > 1 ? (0, 1) : ();

# Before all that shares the processor: a client that has to wait for it
# measures its own waiting.  tools/bench allows it when it runs as root.
my @first = system('chrt --fifo 10 true 2>/dev/null') == 0
	? ('chrt', '--fifo', '10') : ();

sub can_go_first
{
	return @first > 0 && defined $client_cpu;
}

# Where processes may run: "server", "client" or "any".
sub place
{
	my ($where, @pids) = @_;
	return unless defined $server_cpu;
	my $cpus = { server => $server_cpu, client => $client_cpu,
		any => '0-' . (processors() - 1) }->{$where};
	# One may just have ended.
	system("taskset -cp $cpus $_ >/dev/null 2>&1") for @pids;
}

sub on_cpu
{
	my ($cpu, @command) = @_;
	return defined $cpu ? ('taskset', '-c', $cpu, @command) : @command;
}

# Of a client: what it runs must not take the server's processor.
sub on_client
{
	return on_cpu($client_cpu, @_);
}

# Starts a program that ends with us; its output goes to a file, if one is
# given.
sub spawn
{
	my ($name, $output, @command) = @_;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		if ($output)
		{
			open STDOUT, '>', $output;
			open STDERR, '>&', \*STDOUT;
		}
		{ no warnings; exec @command; }
		POSIX::_exit(127);
	}
	$child{$pid} = $name;
	return $pid;
}

sub end_process
{
	my ($pid, $signal) = @_;
	kill $signal // 'TERM', $pid;
	waitpid $pid, 0;
	delete $child{$pid};
}

sub children
{
	my ($pid) = @_;
	return split ' ', slurp("/proc/$pid/task/$pid/children");
}

# Processor seconds that a process has used.
sub cpu_seconds
{
	my ($pid) = @_;
	my $stat = eval { slurp("/proc/$pid/stat") } or return 0;
	$stat =~ s/^.*\) //s;
	my @field = split ' ', $stat;
	return ($field[11] + $field[12]) / sysconf(_SC_CLK_TCK);
}

# Processor seconds that the machine has spent, without waiting.
sub machine_seconds
{
	my ($user, $nice, $system, undef, undef, $irq, $soft, $steal) =
		slurp('/proc/stat') =~ /^cpu +(.*)$/m ? split(' ', $1) : ();
	return ($user + $nice + $system + $irq + $soft + $steal)
		/ sysconf(_SC_CLK_TCK);
}

# What was spent since, as fractions of a processor: "busy" by a server, and
# "other" by all but that and our children.
sub spent_since
{
	my ($before, $server, $wall) = @_;
	my $busy = cpu_seconds($server->{pid}) - $before->{server};
	my $children = client_times() - $before->{client};
	my $all = machine_seconds() - $before->{machine};
	return (busy => $busy / $wall, client => $children / $wall,
		other => ($all - $busy - $children) / $wall);
}

sub spent_before
{
	my ($server) = @_;
	return { server => cpu_seconds($server->{pid}),
		client => client_times(), machine => machine_seconds() };
}

# kB of a process: its own pages, and with its share of what it shares.
sub memory
{
	my ($pid) = @_;
	my ($anon) = slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
	my ($pss) = slurp("/proc/$pid/smaps_rollup") =~ /^Pss:\s+(\d+)/m;
	return { anon => $anon, pss => $pss };
}

sub descriptors
{
	my ($pid) = @_;
	opendir my $fds, "/proc/$pid/fd" or die "/proc/$pid/fd: $!\n";
	return scalar grep { !/^\./ } readdir $fds;
}

sub wait_until
{
	my ($what, $condition, $patience) = @_;
	my $deadline = time + ($patience // 60);
	until ($condition->())
	{
		die "$what: not in time\n" if time > $deadline;
		sleep 0.05;
	}
}

sub connects
{
	my ($port) = @_;
	return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $port, Timeout => 5);
}

my %given;

sub free_port
{
	require IO::Socket::INET;
	for (1 .. 1000)
	{
		my $port = 20000 + int rand 12000;
		next if $given{$port}++;
		return $port if IO::Socket::INET->new(LocalAddr => '127.0.0.1',
			LocalPort => $port, Listen => 1);
	}
	die "no free port\n";
}

END
{
	my $status = $?;
	if ($$ == $main)
	{
		end_process($_) for sort { $b <=> $a } keys %child;
		cluster_stop();
		system('rm', '-rf', $in_memory) if $in_memory;
	}
	$? = $status;
}

# ---- PostgreSQL

sub dump_command
{
	return ("$bindir/pg_dump", "-h", $socket, "-p", $pg_port, "-U", "postgres",
		"narinfo");
}

sub psql_command
{
	return ("$bindir/psql", '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1',
		'-h', $socket, '-p', $pg_port, '-U', 'postgres', '-d', 'narinfo');
}

# What a statement prints.
sub sql
{
	my ($statement) = @_;
	open my $out, '-|', psql_command(), '-c', $statement or die "psql: $!\n";
	local $/;
	my $text = <$out> // '';
	close $out or die "failed: $statement\n";
	$text =~ s/\n\z//;
	return $text;
}

sub settings
{
	my ($http_port) = @_;
	my $buffers = $ENV{BENCH_SHARED_BUFFERS} || '512MB';
	return <<~END;
		port = $pg_port
		listen_addresses = ''
		unix_socket_directories = '$socket'
		shared_buffers = $buffers
		max_wal_size = 8GB
		checkpoint_timeout = 30min
		autovacuum = off
		log_line_prefix = '%m [%p] '
		shared_preload_libraries = 'pg_narinfo'
		pg_narinfo.database = 'narinfo'
		pg_narinfo.listen = '127.0.0.1:$http_port'
		pg_narinfo.http_workers = 1
		pg_narinfo.file_root = '$file_root'
		pg_narinfo.key_directory = '$dir/keys'
		pg_narinfo.idle_timeout = 600s
		pg_narinfo.send_timeout = 600s
		END
}

sub pg_ctl
{
	run("$bindir/pg_ctl", '-s', '-D', "$dir/data", '-w', '-t', 120, @_);
}

# One of the extension's settings, or its default; in force on return.
sub setting
{
	my ($name, $value) = @_;
	sql("ALTER SYSTEM " . (defined $value
		? "SET pg_narinfo.$name = '$value'" : "RESET pg_narinfo.$name"));
	sql('SELECT pg_reload_conf()');
	sleep 0.5;
}

# The worker's process, which is another one after a crash.
sub worker_pid
{
	return sql(q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'pg_narinfo http worker'});
}

# Made anew, unless the directory was kept and the extension's SQL is what it
# was.
sub cluster_start
{
	my ($script) = @_;
	my $http_port = free_port();
	my $kept = -e "$dir/script" && slurp("$dir/script") eq $script;

	$socket = $dir;
	$pg_port = 5432;
	$file_root = "$dir/files";
	make_path($file_root, "$file_root/nar");
	make_path("$dir/keys", { mode => 0700 });
	if (!$kept)
	{
		run('rm', '-rf', "$dir/data");
		system("'$bindir/initdb' -D '$dir/data' -U postgres --no-sync"
			. " --encoding=UTF8 --locale=C.UTF-8 --auth=trust >/dev/null")
			== 0 or die "initdb failed\n";
	}
	spew("$dir/data/postgresql.auto.conf", settings($http_port));
	unlink "$dir/log";
	pg_ctl('-l', "$dir/log", 'start');
	if (!$kept)
	{
		run("$bindir/createdb", '-h', $socket, '-p', $pg_port, '-U',
			'postgres', 'narinfo');
		sql('CREATE EXTENSION pg_narinfo');
		# The first change gives it an identity: rows without one are a dump.
		sql(q{SELECT narinfo.create_cache('first')});
		spew("$dir/script", $script);
	}
	$loaded = count_rows();
	wait_until('the HTTP worker', sub { connects($http_port) });
	$ours = { name => 'ours', port => $http_port, pid => worker_pid() };
	pin($ours->{pid});

	# The rest of PostgreSQL is no part of the server that is measured.
	place('client', grep { $_ != $ours->{pid} } cluster_processes());
}

sub cluster_processes
{
	my ($postmaster) = slurp("$dir/data/postmaster.pid") =~ /^(\d+)/;
	return ($postmaster, children($postmaster));
}

# For what does not measure HTTP, and sessions that are to come.
sub cluster_anywhere
{
	place('any', cluster_processes());
}

sub pin
{
	my ($pid) = @_;
	return unless defined $server_cpu;
	system("taskset -cp $server_cpu $pid >/dev/null") == 0
		or die "could not pin process $pid\n";
}

sub cluster_stop
{
	return unless $dir && -e "$dir/data/postmaster.pid";
	system("$bindir/pg_ctl", '-s', '-D', "$dir/data", '-m', 'fast', '-w',
		'stop');
}

sub count_rows
{
	return sql(q{SELECT count(*) FROM narinfo.valid_path
		WHERE cache = 'main'}) + 0;
}

# Somebody else has changed what is in it.
sub forget_rows
{
	$loaded = count_rows();
}

# The narinfos below this number and no others are in cache "main".  They are
# loaded as a replica would be: what a trigger checks is known to be right.
sub need_rows
{
	my ($rows) = @_;
	return if $rows == $loaded;
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	if ($rows < $loaded)
	{
		sql('TRUNCATE narinfo.valid_path');
		$loaded = 0;
	}
	return if $rows == 0;
	progress("loading $rows narinfos");
	my $command = join ' ', map { "'$_'" } psql_command(), '-c',
		'COPY narinfo.valid_path (cache, hash, info) FROM STDIN';
	run('sh', '-c', "'$programs/gen' copy $loaded $rows | $command");
	$loaded = count_rows();
	die "loaded $loaded narinfos, not $rows\n" if $loaded != $rows;
	sql('VACUUM ANALYZE narinfo.valid_path');
	sql('CHECKPOINT');
}

# ---- data

# A file of URL paths, made once: "walk N", "absent N", "zipf N COUNT".
sub paths_file
{
	my ($what) = @_;
	my $file = "$dir/" . ($what =~ tr/ /-/r) . '.paths';
	run('sh', '-c', "'$programs/gen' paths $what >'$file.new'"
		. " && mv '$file.new' '$file'") unless -e $file;
	return $file;
}

# The same narinfos as files, in a directory as a binary cache has them.
sub narinfo_files
{
	my ($n) = @_;
	my $where = "$dir/narinfos-$n";
	return $where if -e "$where.done";
	write_files($n, $where);
	spew("$where.done");
	return $where;
}

sub write_files
{
	my ($n, $where) = @_;
	progress("writing $n files in $where");
	make_path($where);
	run("$programs/gen", 'files', 0, $n, $where);
}

# And where nothing can be pushed out of memory; a virtual machine may have
# its host take back what was not read for seconds.
sub narinfo_files_in_memory
{
	my ($n) = @_;
	$in_memory = "/dev/shm/narinfo-bench.$$";
	write_files($n, $in_memory);
	return $in_memory;
}

# Keeps a table and its indexes in the system's page cache, as on a machine
# whose memory holds them: virtual machines may have their hosts take back
# what was not read for seconds, and then it is their disk that is measured.
sub keep_in_memory
{
	my ($table) = @_;
	my @files = map { glob "$dir/data/$_ $dir/data/$_.*" } split /\n/,
		sql("SELECT pg_relation_filepath(c) FROM (SELECT '$table'::regclass
			UNION ALL SELECT indexrelid FROM pg_index
			WHERE indrelid = '$table'::regclass) AS r (c)");
	my $bytes = 0;
	$bytes += -s for @files;
	my $pid = spawn('vmtouch', "$dir/vmtouch.out", 'vmtouch', '-l', '-m',
		'1024G', grep { -s } @files);
	wait_until("$table in memory", sub {
		die 'vmtouch: ' . slurp("$dir/vmtouch.out") . "\n"
			if waitpid($pid, WNOHANG) != 0;
		my ($locked) = slurp("/proc/$pid/status") =~ /^VmLck:\s+(\d+)/m;
		return ($locked // 0) * 1024 >= $bytes;
	}, 600);
}

# A file to be served by both sides, of so many bytes that do not compress.
sub nar_file
{
	my ($name, $size) = @_;
	my $file = "$file_root/nar/$name";
	run('sh', '-c', "head -c $size /dev/urandom >'$file'")
		unless -e $file && -s $file == $size;
	return "/nar/$name";
}

# ---- the other servers

my $nginx_conf = <<'END';
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid DIR/NAME.pid;
error_log DIR/NAME.log error;
events {
	worker_connections 16384;
}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	tcp_nodelay on;
	keepalive_requests 1000000000;
	keepalive_timeout 600s;
	send_timeout 600s;
	types {}
	default_type text/x-nix-narinfo;
	OPEN_FILES
	client_body_temp_path DIR/nginx-tmp;
	proxy_temp_path DIR/nginx-tmp;
	fastcgi_temp_path DIR/nginx-tmp;
	uwsgi_temp_path DIR/nginx-tmp;
	scgi_temp_path DIR/nginx-tmp;
	server {
		listen 127.0.0.1:PORT backlog=4096;
		root ROOT;
		DAV
		location /nar/ {
			default_type application/x-nix-nar;
		}
	}
}
END

# A master and one worker, whose process is the one that counts.  Options:
# name; open_files: of so many files descriptors stay open; put: files can be
# put.
sub nginx_start
{
	my ($root, %option) = @_;
	my $port = free_port();
	my $name = $option{name} // 'nginx';
	my %value = (DIR => $dir, NAME => $name, ROOT => $root, PORT => $port,
		DAV => $option{put} ? 'dav_methods PUT; create_full_put_path on;' .
		' client_max_body_size 0;' : '',
		OPEN_FILES => $option{open_files}
		? "open_file_cache max=$option{open_files} inactive=600s;" .
		' open_file_cache_valid 600s;' : 'open_file_cache off;');
	my $conf = $nginx_conf =~ s/\b(DIR|NAME|ROOT|PORT|OPEN_FILES|DAV)\b/$value{$1}/gr;

	make_path("$dir/nginx-tmp");
	spew("$dir/$name.conf", $conf);
	my $pid = spawn($name, "$dir/$name.out", 'nginx', '-e',
		"$dir/$name.log", '-c', "$dir/$name.conf");
	wait_until('nginx', sub {
		die 'nginx: ' . slurp("$dir/$name.out") . "\n"
			if waitpid($pid, WNOHANG) != 0;
		connects($port);
	});
	my ($worker) = children($pid);
	pin($worker);
	return { name => $name, port => $port, pid => $worker, master => $pid };
}

sub constant_start
{
	my ($file) = @_;
	my $port = free_port();
	my $pid = spawn('constant', "$dir/constant.out", "$programs/constant",
		$port, $file);
	wait_until('constant', sub { connects($port) });
	pin($pid);
	return { name => 'constant', port => $port, pid => $pid };
}

# ---- clients

# One run of wrk over a file of paths.  Options: connections, start (line of
# the file), delay (ms at most), seconds, first (goes before all others on its
# processor, where that is allowed), beside (shares the server's processor).
# The result: rate, capacity (requests per processor second of the server,
# which a client that is the slower one does not bound), p50, p99, p999, max
# in ms, status (replies of 400 and more), bytes, and how busy the server and
# its client were, 1 being a whole processor.
sub wrk
{
	my ($server, $paths, %option) = @_;
	my $time = $option{seconds} // $seconds;
	my @command = on_cpu($option{beside} ? $server_cpu : $client_cpu,
		$option{first} ? @first : (), 'wrk', '-t1', '-c',
		$option{connections} // 64, '-d', "${time}s", '--timeout', '30s', '-s',
		"$tools/walk.lua", "http://127.0.0.1:$server->{port}", '--', $paths,
		$option{start} // int(rand 1e6), $option{delay} // 0);
	my $before = spent_before($server);

	open my $out, '-|', @command or die "wrk: $!\n";
	my $text = do { local $/; <$out> } // '';
	close $out;
	my ($line) = $text =~ /^RESULT (.*)$/m or die "wrk: $text\n";
	my %r = $line =~ /(\w+)=(\d+)/g;
	my $wall = $r{us} / 1e6;
	my %spent = spent_since($before, $server, $wall);

	die "$server->{name}: $r{broken} connections broke or timed out\n"
		if $r{broken};
	die "$server->{name}: no request was answered\n" unless $r{requests};
	return {
		rate => $r{requests} / $wall,
		requests => $r{requests},
		bytes => $r{bytes},
		capacity => $r{requests} / $wall / $spent{busy},
		speed => $r{bytes} / $wall / 1e6,
		status => $r{status},
		p50 => $r{p50} / 1e3,
		p99 => $r{p99} / 1e3,
		p999 => $r{p999} / 1e3,
		max => $r{max} / 1e3,
		%spent,
		client => $r{cpu} / 1e6 / $wall
	};
}

# Processor seconds of children that have ended.
sub client_times
{
	my (undef, undef, $user, $system) = times;
	return $user + $system;
}

# Asks for every path once.
sub warm
{
	my ($server, $paths, $count) = @_;
	for (my $at = 0; $at < $count;)
	{
		$at += wrk($server, $paths, start => $at, seconds => 2)->{requests};
	}
}

# Connections that are there until the function returned is called, which
# says how many of them are still open.
sub crowd_start
{
	my ($kind, $server, $path, $count) = @_;
	my $pid = open2(my $out, my $in, "$programs/crowd", $kind,
		$server->{port}, $path, $count);
	$child{$pid} = 'crowd';
	my $line = <$out> // '';
	die "crowd $kind: no connections\n" unless $line eq "ready\n";
	return sub {
		close $in;
		my $open = <$out> // 0;
		waitpid $pid, 0;
		delete $child{$pid};
		return $open + 0;
	};
}

sub crowd_drain
{
	my ($server, $path, $count) = @_;
	my $before = spent_before($server);
	my @command = on_client("$programs/crowd", 'drain',
		$server->{port}, $path, $count, $seconds);
	open my $out, '-|', @command or die "crowd: $!\n";
	my $text = <$out> // '';
	close $out or die "crowd drain failed\n";
	my ($bytes, $wall) = split ' ', $text;
	return {
		speed => $bytes / $wall / 1e6,
		bytes => $bytes,
		spent_since($before, $server, $wall)
	};
}

# The client that pushes, see push.c; not pinned, for whoever is pushed to has
# processes of its own beside the server's.
sub push_command
{
	return on_client("$programs/push", @_);
}

# One run of it; "words" is what it prints.
sub push_run
{
	my ($server, $what, @arguments) = @_;
	my $before = spent_before($server);
	my $begin = time;
	open my $out, '-|', push_command($what, $server->{port}, @arguments)
		or die "push: $!\n";
	my $text = <$out> // '';
	close $out or die "$server->{name}: push $what failed\n";
	return { words => [split ' ', $text],
		spent_since($before, $server, time - $begin) };
}

# Times a second that libsodium alone verifies, or signs.
sub bare
{
	my ($what) = @_;
	open my $out, '-|', "$programs/bare", $what, 1 or die "bare: $!\n";
	my $rate = <$out>;
	close $out or die "bare $what failed\n";
	return $rate + 0;
}

# ---- figures

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	my $n = @sorted or return undef;
	return $n % 2 ? $sorted[$n / 2]
		: ($sorted[$n / 2 - 1] + $sorted[$n / 2]) / 2;
}

# Runs each side once a round, every other round in the reverse order.
# Returns name => [result of each round].
sub rounds
{
	my @sides = @_;
	my (%code, @names, %result);
	while (my ($name, $code) = splice @sides, 0, 2)
	{
		push @names, $name;
		$code{$name} = $code;
	}
	for my $round (1 .. $rounds)
	{
		for my $name ($round % 2 ? @names : reverse @names)
		{
			my $r = $code{$name}->();
			push @{ $result{$name} }, $r;
			progress(sprintf 'round %d  %-22s %s', $round, $name,
				join '  ', map { sprintf '%s %s', $_, figure($r->{$_}) }
				grep { defined $r->{$_} }
				qw(rate speed p50 p99 p999 max busy client other));
		}
	}
	return \%result;
}

sub figure
{
	my ($value) = @_;
	return '' unless defined $value;
	my $text = $value >= 100 ? sprintf '%.0f', $value
		: $value >= 10 ? sprintf '%.1f', $value : sprintf '%.2f', $value;
	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

# ---- the table

# A row that compares a figure (rate, speed, p99, ...) of two sides of the
# same rounds.  Bars are ratios: hold and aim at least, most at most.
my %unit = (rate => 'req/s', capacity => 'req/cpu s', speed => 'MB/s', p50 => 'ms', p99 => 'ms',
	p999 => 'ms');

sub compare
{
	my ($what, $results, $left, $right, $key, %bar) = @_;
	my @left = map { $_->{$key} } @{ $results->{$left} };
	my @right = map { $_->{$key} } @{ $results->{$right} };
	my @ratios = map { $left[$_] / $right[$_] } 0 .. $#left;
	bar($what, $unit{$key}, median(@left), $right, median(@right), %bar,
		ratios => \@ratios);
}

# A row with a ratio that has to hold a bar, if it has one.
sub bar
{
	my ($what, $unit, $ours, $against, $theirs, %bar) = @_;
	my $ratio = $ours / $theirs;
	my ($bar, $verdict) = ('', '');
	if (defined $bar{hold})
	{
		$bar = sprintf '>= %.2f', $bar{hold};
		$bar .= sprintf ', aim %.2f', $bar{aim} if $bar{aim};
		$verdict = $ratio < $bar{hold} ? 'MISSED'
			: $bar{aim} && $ratio >= $bar{aim} ? 'ok, aim' : 'ok';
	}
	elsif (defined $bar{most})
	{
		$bar = sprintf '<= %.2f', $bar{most};
		$verdict = $ratio <= $bar{most} ? 'ok' : 'MISSED';
	}
	$failed++ if $verdict eq 'MISSED';
	my @sorted = sort { $a <=> $b } @{ $bar{ratios} // [] };
	push @table, [$what, $unit, figure($ours), $against, figure($theirs),
		sprintf('%.2f', $ratio),
		@sorted ? sprintf('%.2f-%.2f', @sorted[0, -1]) : '', $bar, $verdict];
}

# Who was the bottleneck, and how quiet the machine was: a client that is
# busier than its server measures itself.
sub busy
{
	my ($what, $results, @sides) = @_;
	for my $side (@sides)
	{
		my %m = map { my $key = $_;
			$key => median(map { $_->{$key} } @{ $results->{$side} })
		} qw(busy client other);
		push @notes, sprintf
			'%s, %s: server %.0f %% of a processor, client %.0f %%, others %.0f %%%s',
			$what, $side, map({ 100 * $m{$_} } qw(busy client other)),
			$m{other} > 0.1 ? ' - NOT A QUIET MACHINE' : '';
	}
}

# A row that only tells, or a yes or no.
sub info
{
	my ($what, $unit, $value, $verdict) = @_;
	$verdict //= '';
	$failed++ if $verdict eq 'MISSED';
	push @table, [$what, $unit, figure($value), '', '', '', '', '', $verdict];
}

# Prints it and returns how many bars were missed.
sub table_print
{
	return $failed unless @table;
	my @rows = (['row', 'unit', 'ours', 'against', 'theirs', 'ratio',
		'of rounds', 'bar', 'verdict'], @table);
	my @width;
	for my $row (@rows)
	{
		for (0 .. $#$row)
		{
			my $length = length $row->[$_];
			$width[$_] = $length if $length > ($width[$_] // 0);
		}
	}
	print "\n";
	for my $row (@rows)
	{
		my $line = join '  ', map {
			my $left = $_ == 0 || $_ == 1 || $_ == 3 || $_ >= 7;
			sprintf '%' . ($left ? '-' : '') . "$width[$_]s", $row->[$_];
		} 0 .. $#$row;
		print $line =~ s/\s+$//r, "\n";
	}
	print "\n", map { "$_\n" } @notes;
	printf "\n%d s; medians of %d rounds of %d s; %d bars missed\n",
		time - $begin, $rounds, $seconds, $failed;
	return $failed;
}

1;
