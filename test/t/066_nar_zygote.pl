# The checks of NARs are children that a zygote makes: they have no descriptor
# but their own, their crash is theirs alone, and a zygote that is killed or
# lost in the middle of pushes costs no PUT and no verdict.  Nothing is left
# of many checks, nor of those that were given up, nor of a killed writer.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use File::Copy qw(copy);
use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $base = PostgreSQL::Test::Utils::tempdir();
my $root = "$base/files";
make_path("$root/nar");

# A server that lies elsewhere, so that its checker can be installed anew.
sub pg_config
{
	my $program = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my $found = `$program --$_[0]`);
	return $found;
}
my ($bin, $lib, $share) = map { pg_config($_) } qw(bindir pkglibdir sharedir);
my $checker = "$base$lib/pg_narinfo_check";
make_path("$base$bin", "$base$lib", "$base$share" =~ s{/[^/]+$}{}r);
symlink $share, "$base$share" or die $!;
symlink $_, $base . $_ or die $! for grep { !/pg_narinfo_check$/ } glob "$lib/*";

# Beside its place, then renamed, as install does it.
sub install_file
{
	my ($from, $to) = @_;
	copy($from, "$to.new") or die "$from: $!";
	chmod 0755, "$to.new" or die $!;
	rename "$to.new", $to or die $!;
}
install_file("$lib/pg_narinfo_check", $checker);
install_file("$bin/$_", "$base$bin/$_") for qw(postgres pg_ctl);
local $ENV{PATH} = "$base$bin:$ENV{PATH}";
my $node = narinfo_node('zygote', file_root => $root, conf => <<~'END');
	restart_after_crash = on
	pg_narinfo.upload_reserve = 0
	END
my $port = $node->{http_port};
$ENV{PGOPTIONS} = q(-c search_path=narinfo,public);
my $token = $node->safe_psql('postgres',
	q{SELECT create_token('pusher', '{push}')});
my $started = 'SELECT pg_postmaster_start_time()';

# ---- processes

# Pids of the children of a process, by name, in their order; zombies, too.  A
# check that has not told its name yet is no zygote, which leads its group.
sub children
{
	my ($parent, $name) = @_;
	my @found;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $stat or next;
		my $line = <$in> // '';
		push @found, $1 if $line =~ /^(\d+) \((.*)\) \S (\d+) (\d+) /
			&& $3 == $parent && (!defined $name || $2 eq $name)
			&& (($name // '') ne 'narinfo_zygote' || $1 == $4);
	}
	return sort { $a <=> $b } @found;
}

sub zygotes { return children($_[0], 'narinfo_zygote') }
sub checks { return children($_[0], 'pg_narinfo_chec') }

sub one_of
{
	my ($what, $parent) = @_;
	my @found;
	poll_until(sub { (@found = $what->($parent)) == 1 });
	return $found[0];
}

sub gone
{
	my (@pids) = @_;
	return poll_until(sub { !grep { -e "/proc/$_" } @pids });
}

sub writer
{
	my $pid;
	poll_until(sub {
		$pid = eval { $node->safe_psql('postgres', q{SELECT pid
			FROM stat_workers WHERE kind = 'writer' AND state = 'serving'}) };
	});
	return $pid;
}

sub descriptors
{
	my ($pid) = @_;
	return map { my ($n) = m{(\d+)$}; "$n " . (readlink $_ // '?') }
		sort glob "/proc/$pid/fd/*";
}

# What they are, without the files of the cluster, of which PostgreSQL keeps
# some open.
sub handles
{
	my $data = $node->data_dir;
	return join ' ', sort map { s/^\d+ //r =~ s/\[\d+\]//r }
		grep { !m{ \Q$data\E/} && !/eventpoll/ } descriptors($_[0]);
}

# Whoever waits for more than its latch has one more while it does.
sub polls { return scalar grep { /eventpoll/ } descriptors($_[0]) }

# One is there for as long as a check is.
sub pipes { return scalar grep { / pipe:/ } descriptors($_[0]) }

# ---- NARs

sub nar_of
{
	return join '', map { pack 'Q<a*x![8]', length $_, $_ }
		'nix-archive-1', '(', 'type', 'regular', 'contents', $_[0], ')';
}

my $number = 0;

# A narinfo of a path that nobody has, whose NAR lies there.
sub narinfo_of
{
	my ($nar, %field) = @_;
	my $hash = sha256_hex($nar);
	my $name = sprintf '%032d', ++$number;
	%field = (URL => "nar/$hash.nar", NarHash => "sha256:$hash",
		NarSize => length $nar, %field);
	open my $out, '>:raw', "$root/nar/$hash.nar" or die $!;
	print $out $nar;
	close $out or die $!;
	return { path => "/$name.narinfo", text => <<~END };
		StorePath: /nix/store/$name-p
		URL: $field{URL}
		Compression: none
		NarHash: $field{NarHash}
		NarSize: $field{NarSize}
		References:${\ ' '}
		END
}

sub small { return narinfo_of(nar_of('n' . ++$number)) }
sub wrong { return narinfo_of(nar_of('n' . ++$number), NarHash => 'sha256:' . '0' x 64) }

# One that takes long and no room: a file of zeros.
my $size = 64 << 30;
my $begin = substr(nar_of('x'), 0, -32) . pack 'Q<', $size;
open my $sparse, '>:raw', "$root/nar/long" or die $!;
print $sparse $begin;
truncate $sparse, $size + 1024 or die $!;
close $sparse;
my $long = narinfo_of('', URL => 'nar/long', NarSize => $size + 1024);

sub put
{
	my ($narinfo) = @_;
	my $reply = http_put($port, $narinfo->{path}, $narinfo->{text},
		Authorization => "Bearer $token");
	return "$reply->{status} $reply->{body}";
}

# Sends it; the reply is read later.
sub put_begin
{
	my ($narinfo) = @_;
	my $socket = http_connect($port);
	print $socket "PUT $narinfo->{path} HTTP/1.1\r\nHost: h\r\n"
		. "Authorization: Bearer $token\r\nContent-Length: "
		. length($narinfo->{text}) . "\r\n\r\n$narinfo->{text}";
	return $socket;
}

sub put_end
{
	my $reply = read_reply($_[0]);
	return "$reply->{status} $reply->{body}";
}

# The one that would be asked; a request that was lost leaves none.
sub zygote_now
{
	put(small()) unless zygotes($_[0]);
	return one_of(\&zygotes, $_[0]);
}

# ---- what is in them

my $start_time = $node->safe_psql('postgres', $started);
my $writer = writer();

is_deeply([ children($writer) ], [], 'a writer begins without a zygote');
like(put(small()), qr/^201/, 'a small path');
my $zygote = one_of(\&zygotes, $writer);
ok($zygote, 'the zygote stays');
is_deeply([ children($writer) ], [$zygote], 'and nothing else');
like(put(wrong()), qr/^403 .*NarHash/, 'a wrong NAR is told');

my @fds = descriptors($zygote);
like("@fds", qr{^0 socket:\S+ 1 /dev/null 2 /dev/null$},
	'the zygote has its socket');
my $pushing = put_begin($long);
my $check = one_of(\&checks, $writer);
@fds = descriptors($check);
like("@fds", qr{^0 \Q$root\E/nar/long 1 pipe:\S+ 2 /dev/null$},
	'a check has its NAR and its pipe');
@fds = descriptors($zygote);
is(scalar @fds, 3, 'which the zygote does not keep');
like(put(small()), qr/^201/, 'another one beside it');
@fds = descriptors($check);
is(scalar @fds, 3, 'gives the first one nothing');

my $status = slurp_bytes("/proc/$check/status");
like($status, qr/^NoNewPrivs:\t1$/m, 'no new rights');
like($status, qr/^Seccomp:\t2$/m, 'few system calls');
my ($ignored) = $status =~ /^SigIgn:\t(\w+)$/m;
is(hex($ignored) & 0x7fffffff, 1 << 24, 'no signal ignored but SIGXFSZ');
like($status, qr/^SigBlk:\t0*$/m, 'none blocked');
my $limits = slurp_bytes("/proc/$check/limits");
like($limits, qr/^Max open files +3 +3 /m, 'no descriptor more');
like($limits, qr/^Max processes +0 +0 /m, 'no process');
like($limits, qr/^Max file size +0 +0 /m, 'nothing is written');
like($limits, qr/^Max cpu time +\d+ +\d+ /m, 'processor time has an end');
my ($space) = $limits =~ /^Max address space +(\d+) +\1 /m;
my ($held) = $status =~ /^VmPeak:\s+(\d+) kB/m;
cmp_ok($space, '<=', $held * 1024 + (68 << 20), '68 MiB beyond what is there');
unlike(slurp_bytes("/proc/$check/maps"), qr{/dev/(?:shm|zero)|/SYSV|PostgreSQL},
	'no shared memory');
like($status, qr/^Threads:\t1$/m, 'one thread');

# ---- crashes

kill 'SEGV', $check;
like(put_end($pushing), qr/^503 the NAR could not be checked now/,
	'a check that crashes is the end of one PUT');
ok(-e "/proc/$zygote", 'the zygote lives');
is_deeply([ children($writer) ], [$zygote], 'the check is reaped');
is($node->safe_psql('postgres', $started), $start_time, 'the server goes on');
like(put(small()), qr/^201/, 'the next one is good');
ok(gone($zygote), 'and has a zygote with other addresses');
isnt(one_of(\&zygotes, $writer), $zygote, 'which is another one');

for my $how (qw(KILL SEGV))
{
	for my $i (1 .. 10)
	{
		my $old = zygote_now($writer);
		kill $how, $old;
		my ($narinfo, $expected) = $i % 3 ? (small(), qr/^201/)
			: (wrong(), qr/^403 .*NarHash/);
		like(put($narinfo), $expected, "zygote killed by SIG$how, $i");
	}
}

# Asked, but killed before it has made a process.
for my $i (1 .. 5)
{
	my $old = zygote_now($writer);
	kill 'STOP', $old;
	my $pipes = pipes($writer);
	my ($narinfo, $expected) = $i % 2 ? (small(), qr/^201/)
		: (wrong(), qr/^403 .*NarHash/);
	my $socket = put_begin($narinfo);
	ok(poll_until(sub { pipes($writer) > $pipes }),
		"zygote lost with a request, $i: it is asked");
	kill 'KILL', $old;
	like(put_end($socket), $expected, "zygote lost with a request, $i");
}

# Killed at any moment, while clients push.
my $killer = fork // die $!;
if ($killer == 0)
{
	while (1)
	{
		kill 'KILL', $_ for zygotes($writer);
		select undef, undef, undef, rand 0.03;
	}
}
my @answers = map { put($_ % 5 ? small() : wrong()) =~ /^(\d+)/ } 1 .. 200;
kill 'KILL', $killer;
waitpid $killer, 0;
is(join(' ', @answers), join(' ', map { $_ % 5 ? 201 : 403 } 1 .. 200),
	'200 PUTs while zygotes are killed');
is($node->safe_psql('postgres', $started), $start_time, 'the server goes on');

# ---- nothing is left

put(small());
my $before = handles($writer);
my @children = children($writer);
is(scalar @children, 1, 'one zygote');
my @wrong = grep { $_ !~ /^201/ } map { put(small()) } 1 .. 200;
is_deeply(\@wrong, [], '200 checks more');
is_deeply([ children($writer) ], \@children, 'by the same zygote, and no other process');
is(handles($writer), $before, 'no descriptor more');
cmp_ok(polls($writer), '<=', 2, 'nor what waits for some');

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $backend = $session->query_safe('SELECT pg_backend_pid()');
my $all = 'SELECT count(*), count(check_nar(info)) FROM valid_path';
my ($many, $bad) = split /\|/, $session->query_safe($all);
cmp_ok($many, '>', 300, 'a query checks many');
is($bad, 0, 'all good');
is_deeply([ children($backend) ], [], 'which leaves nothing');
$session->query_safe('BEGIN');
$session->query_safe($all);
my $first = one_of(\&zygotes, $backend);
$before = handles($backend);
$session->query_safe($all);
is_deeply([ children($backend) ], [$first], 'a transaction has one zygote');
is(handles($backend), $before, 'and no descriptor more');

# Given up while the zygote has not made the process.
kill 'STOP', $first;
my $pipes = pipes($backend);
$session->query_until(qr/begun/, "\\echo begun\n$all;\n");
ok(poll_until(sub { pipes($backend) > $pipes }), 'it is asked');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($backend)");
ok(gone($first), 'cancelled: the zygote is gone');
ok(poll_until(sub { !children($backend) }), 'with all of its');
$session->query('ROLLBACK');
# what the session was told stays with it, and would be taken for an error
$session->{stderr} = '';
is($session->query_safe($all), "$many|0", 'and the session goes on');
is_deeply([ children($backend) ], [], 'with nothing left');
$session->query_safe('BEGIN');
$session->query_safe($all);
my $last = one_of(\&zygotes, $backend);
$session->quit;
ok(gone($backend, $last), 'it ends with the session');

# ---- a program that is installed anew, and one that is not there

is(readlink "/proc/$children[0]/exe", $checker, 'the program is our copy');
install_file("$lib/pg_narinfo_check", $checker);
like(put(small()), qr/^201/, 'it is installed anew');
ok(gone(@children), 'the zygote of the old one is gone');
$zygote = one_of(\&zygotes, $writer);
is(readlink "/proc/$zygote/exe", $checker, 'the one of the new one is there');
unlink $checker or die $!;
my $waiting = small();
like(put($waiting), qr/^5\d\d /, 'it is not there: no verdict');
is_deeply([ children($writer) ], [], 'and no zygote');
install_file("$lib/pg_narinfo_check", $checker);
like(put($waiting), qr/^201/, 'there again: a verdict');

# ---- a writer that is killed

$pushing = put_begin($long);
$check = one_of(\&checks, $writer);
$zygote = one_of(\&zygotes, $writer);
kill 'KILL', $writer;
ok(gone($check), 'the writer is killed: its check ends');
ok(gone($zygote), 'and its zygote');
ok($node->poll_query_until('postgres', 'SELECT true'), 'the server is back');
ok(poll_until(sub { ($writer = writer()) && put(small()) =~ /^201/ }),
	'and checks again');
$zygote = one_of(\&zygotes, $writer);
$node->stop;
ok(gone($zygote), 'a server that stops has no zygote left');

done_testing();
