# kill -9 of HTTP worker, writer, checker and the whole server at random
# moments while clients push: what was answered with 2xx is there afterwards,
# whole, its file included; events have no gap, and the digest is right.
#
#   PUSH_KILL_ROUNDS  3      rounds
#   PUSH_KILL_PATHS   100    paths pushed in each, by four clients
#   PUSH_KILL_SEED    1      of the moments, and of who is killed
use strict;
use warnings;

use Digest::SHA qw(sha256);
use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $rounds = $ENV{PUSH_KILL_ROUNDS} // 3;
my $paths = $ENV{PUSH_KILL_PATHS} // 100;
my $seed = $ENV{PUSH_KILL_SEED} // 1;
my $clients = 4;
my $patience = 300;    # seconds that a round may take

srand($seed);
note("seed $seed");

my $base = PostgreSQL::Test::Utils::tempdir();
my $root = "$base/files";
make_path($root);
my $node = narinfo_node('kill', file_root => $root, conf => <<~'END');
	restart_after_crash = on
	pg_narinfo.upload_reserve = 0
	END
my $port = $node->{http_port};
my $token = $node->safe_psql('postgres',
	q{SELECT narinfo.create_token('pusher', '{push}')});

# ---- paths that nobody has

my @digits = split //, '0123456789abcdfghijklmnpqrsvwxyz';

sub nix32
{
	my @bytes = unpack 'C*', $_[0];
	my $text = '';
	for my $n (reverse 0 .. int((@bytes * 8 - 1) / 5))
	{
		my ($i, $j) = (int($n * 5 / 8), $n * 5 % 8);
		my $c = $bytes[$i] >> $j;
		$c |= $bytes[ $i + 1 ] << (8 - $j) if $i + 1 < @bytes;
		$text .= $digits[ $c & 31 ];
	}
	return $text;
}

sub nar_of
{
	return join '', map { pack 'Q<a*x![8]', length $_, $_ }
		'nix-archive-1', '(', 'type', 'regular', 'contents', $_[0], ')';
}

# A path, which refers to another one if that is given.
sub make_path_of
{
	my ($name, $reference) = @_;
	my $hash = nix32(substr sha256($name), 0, 20);
	my $nar = nar_of($name x (1 + rand 2000));
	my $file_hash = nix32(sha256($nar));
	my $refs = $reference ? "$reference->{hash}-$reference->{name}" : '';
	my $text = <<~END;
		StorePath: /nix/store/$hash-$name
		URL: nar/$file_hash.nar
		Compression: none
		FileHash: sha256:$file_hash
		FileSize: ${\length $nar}
		NarHash: sha256:$file_hash
		NarSize: ${\length $nar}
		References: $refs
		END
	return { name => $name, hash => $hash, nar => $nar, text => $text,
		url => "/nar/$file_hash.nar" };
}

# ---- a client: tries until it is answered with 2xx

sub put_until_done
{
	my ($connection, $path, $body, $deadline) = @_;
	while (time < $deadline)
	{
		my $reply = eval {
			$$connection //= http_connect($port);
			my $socket = $$connection;
			local $SIG{PIPE} = 'IGNORE';
			print $socket "PUT $path HTTP/1.1\r\nHost: h\r\n"
				. "Authorization: Bearer $token\r\nContent-Length: "
				. length($body) . "\r\n\r\n$body" or die "write: $!";
			read_reply($socket, timeout => 60) // die 'closed';
		};
		return undef if $reply && $reply->{status} =~ /^20[01]$/;
		return "PUT $path: $reply->{status} $reply->{body}"
			if $reply && $reply->{status} < 500;
		close $$connection if $$connection;
		$$connection = undef;
		sleep 0.05;
	}
	return "PUT $path: not in time";
}

sub client
{
	my ($out, @mine) = @_;
	my $connection;
	my $deadline = time + $patience;
	open my $done, '>', $out or die "$out: $!";
	$done->autoflush(1);
	for my $path (@mine)
	{
		my $trouble =
			put_until_done(\$connection, $path->{url}, $path->{nar}, $deadline)
			// put_until_done(\$connection, "/$path->{hash}.narinfo",
				$path->{text}, $deadline);
		print $done ($trouble ? "trouble $trouble\n" : "done $path->{hash}\n");
		last if $trouble;
	}
	return;
}

# ---- the killer

sub pids_of
{
	my ($kind) = @_;
	my $out = eval {
		$node->safe_psql('postgres', "SELECT pid FROM narinfo.stat_workers
			WHERE kind = '$kind' AND pid IS NOT NULL")
	} // '';
	return split /\n/, $out;
}

sub restart
{
	my ($postmaster) = slurp_bytes($node->data_dir . '/postmaster.pid')
		=~ /^(\d+)/;
	my @all = ($postmaster, split /\n/, qx(pgrep -P $postmaster));
	$node->kill9;
	poll_until(sub { !grep { kill 0, $_ } @all })
		or die 'the server does not end';
	$node->start;
	return;
}

my %killed;

sub kill_one
{
	my $kind = (qw(http writer checker server))[ int rand 4 ];
	if ($kind eq 'server')
	{
		restart();
	}
	else
	{
		my @pids = pids_of($kind eq 'checker' ? 'writer' : $kind);
		@pids = map { split /\n/, qx(pgrep -P $_) } @pids
			if $kind eq 'checker';
		return unless @pids;
		kill 'KILL', $pids[ int rand @pids ];
	}
	$killed{$kind}++;
	note("killed: $kind");
	wait_for_http($port) or die 'nobody serves again';
	return;
}

sub alive
{
	my ($pids) = @_;
	@$pids = grep { waitpid($_, WNOHANG) == 0 } @$pids;
	return @$pids;
}

# How far the clients are.
sub done_lines
{
	my $n = 0;
	for (@_)
	{
		$n += () = slurp_bytes($_) =~ /\n/g if -e;
	}
	return $n;
}

# ---- rounds

my $pushed = 0;

for my $round (1 .. $rounds)
{
	my (@pids, @outs, %path);
	for my $n (1 .. $clients)
	{
		my @mine;
		push @mine, make_path_of("kill-$seed-$round-$n-$_", $mine[-1])
			for 1 .. $paths / $clients;
		$path{ $_->{hash} } = $_ for @mine;
		push @outs, "$base/done-$round-$n";
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			client($outs[-1], @mine);
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	for my $when (sort { $a <=> $b } map { int rand $paths * 0.8 } 1 .. 4)
	{
		poll_until(sub { done_lines(@outs) >= $when || !alive(\@pids) },
			$patience) or die 'clients do not go on';
		sleep rand 0.02;
		last unless alive(\@pids);
		kill_one();
	}
	poll_until(sub { !alive(\@pids) }, $patience + 30)
		or die 'clients do not end';

	my @lines = map { split /\n/, slurp_bytes($_) } @outs;
	is(join("\n", grep { /^trouble/ } @lines), '',
		"round $round: nothing was refused");
	my @done = map { /^done (.*)/ ? $path{$1} : () } @lines;
	is(scalar @done, scalar keys %path, 'everything was answered with 2xx');
	$pushed += @done;

	my @lost = grep {
		my $got = eval { http_get($port, "/$_->{hash}.narinfo") };
		!$got || $got->{status} != 200 || $got->{body} ne $_->{text}
	} @done;
	is(join(' ', map { $_->{name} } @lost), '', 'every narinfo is there');
	my @torn = grep {
		my $got = eval { slurp_bytes("$root$_->{url}") } // '';
		$got ne $_->{nar}
	} @done;
	is(join(' ', map { $_->{name} } @torn), '', 'and every file, whole');
	is($node->safe_psql('postgres', q{SELECT count(*) - max(seq)
		FROM narinfo.event WHERE cache = 'main'}), '0', 'numbers have no gap');
	is($node->safe_psql('postgres', q{SELECT digest = narinfo.cache_digest()
		FROM narinfo.event WHERE cache = 'main' ORDER BY seq DESC LIMIT 1}),
		't', 'the digest is right');
	is($node->safe_psql('postgres',
		'SELECT count(*) FROM narinfo.valid_path'), $pushed,
		'and there is nothing else');
}
note('killed: ' . join ', ', map { "$_ $killed{$_}" } sort keys %killed);
cmp_ok(scalar keys %killed, '>', 0, 'something was killed');

ok(poll_until(sub { !glob "$root/nar/.incoming/* $root/.incoming/*" }),
	'no unfinished upload is left');

$node->stop;
done_testing();
