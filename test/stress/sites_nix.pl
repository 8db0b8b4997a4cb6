# Real nix reads a whole closure, NARs included, from mirrors, whatever goes on
# among the sites: a switchover, a failover, an old primary that rejoins, a
# mirror restored from an old copy, a damaged row, two primaries by mistake.
# It checks hashes and signatures itself, and has nothing kept from before.
use strict;
use warnings;

use File::Path qw(remove_tree);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use SitesTest;
use Test::More;
use Time::HiRes qw(time sleep);

my ($paris, $oslo, $bonn) = make_sites(qw(paris oslo bonn));
my @sites = ($paris, $oslo, $bonn);
my $dir = PostgreSQL::Test::Utils::tempdir;
my $key = slurp_file("$test_dir/nix-cache.pub") =~ s/\s+$//r;
my $paths = 61;

sub health { return eval { http_get($_[0]->{http_port}, '/health')->{status} } // 0 }

# ---- reading

# What nix has to have in the end: what each NAR is, as the publisher made it.
my %nar_hash;
for my $file (glob "$cache_dir/*.narinfo")
{
	my $text = slurp_bytes($file);
	my ($path) = $text =~ /^StorePath: (.*)$/m;
	($nar_hash{$path}) = $text =~ /^NarHash: (.*)$/m;
}

# One reading into a new store; why it was wrong, or nothing.
sub read_closure
{
	my ($node, $home) = @_;
	my ($status, $out, $err) = nix($home, 'nix', 'copy', '--from',
		"http://127.0.0.1:$node->{http_port}", '--option',
		'trusted-public-keys', $key, '--option', 'require-sigs', 'true',
		$top_path);
	return "nix copy: $err" if $status;
	($status, $out, $err) = nix($home, 'nix-store', '--query', '--requisites',
		$top_path);
	my @closure = sort split /\n/, $out;
	return "it has @{[ scalar @closure ]} paths: $err" if @closure != $paths;
	($status, $out, $err) = nix($home, 'nix-store', '--query', '--hash',
		@closure);
	my @hashes = split /\n/, $out;
	return "$closure[$_] is $hashes[$_]" for grep {
		$hashes[$_] ne $nar_hash{ $closure[$_] } } 0 .. $#closure;
	($status, $out, $err) = nix($home, 'nix-store', '--verify', '--check-contents');
	return "its content: $err" if $status || $err =~ /modified/;
	return '';
}

# A reader takes the first of these sites that is healthy, again and again, as
# long as something goes on, and once more behind it.  Several read at once.
sub start_reading
{
	my ($name, @from) = @_;
	my $file = "$dir/$name";
	my $pid = fork // die "fork: $!";
	return { pid => $pid, file => $file } if $pid;
	open my $out, '>', $file or die "$file: $!";
	$out->autoflush(1);
	for (my ($n, $end) = (1, 0); !$end; $n++)
	{
		my $node;
		poll_until(sub { ($node) = grep { health($_) == 200 } @from }, 30);
		$end = -e "$file.end";
		print $out "begin ", time, "\n";
		my $why = $node ? read_closure($node, "$file.home$n")
			: 'no site is healthy';
		printf $out "end %f %s %s\n", time, $node ? $node->name : '-',
			$why eq '' ? 'right' : $why =~ s/\n/ /gr;
		system('chmod', '-R', 'u+w', "$file.home$n");
		remove_tree("$file.home$n");
	}
	close $out;
	POSIX::_exit(0);
}

# What a reader has written: how many readings there were, how many of them
# while something went on, and what was wrong.
sub judge
{
	my ($file, $began, $ended) = @_;
	my ($n, $meanwhile, $begin) = (0, 0, 0);
	my @wrong;
	for (split /\n/, slurp_file($file))
	{
		$begin = $1 if /^begin (\S+)/;
		next unless /^end (\S+) (\S+) (.*)/;
		$n++;
		$meanwhile++ if $begin < $ended && $1 > $began;
		push @wrong, "$2: $3" if $3 ne 'right';
	}
	return ($n, $meanwhile, join "\n", @wrong);
}

# What goes on while readers read, each from the first of its sites that is
# healthy.
sub during
{
	my ($what, $from, $code) = @_;
	my @readers = map { start_reading(($what =~ s/\W+/_/gr) . $_,
		@{ $from->[$_] }) } 0 .. $#$from;
	for my $reader (@readers)
	{
		poll_until(sub { -s $reader->{file} }) or die 'nobody reads';
	}
	my $began = time;
	$code->();
	my $ended = time;
	append_to_file("$_->{file}.end", '') for @readers;
	for my $reader (@readers)
	{
		waitpid $reader->{pid}, 0;
		is($?, 0, "$what: the reader has come to its end");
		my ($n, $meanwhile, $wrong) = judge($reader->{file}, $began, $ended);
		is($wrong, '', "$what: each of $n readings was right");
		cmp_ok($meanwhile, '>', 0, "$what: $meanwhile of them meanwhile");
	}
}

sub reads
{
	my ($what, @nodes) = @_;
	for my $node (@nodes)
	{
		my $name = $node->name;
		ok(poll_until(sub { health($node) == 200 }, 45), "$what: $name is healthy");
		my $home = "$dir/one";
		is(read_closure($node, $home), '', "$what: and right");
		system('chmod', '-R', 'u+w', $home);
		remove_tree($home);
	}
}

# ---- one that has no files of its own: they come from the other sites

sql($bonn, 'SELECT narinfo.index_files()');
sql($bonn, "SELECT narinfo.add_file_source('http://127.0.0.1:$_->{http_port}')")
	for $paris, $oslo;
sql($bonn, q{ALTER SYSTEM SET pg_narinfo.missing_files = 'fetch'});
$bonn->reload;

sub forget_files { remove_tree("$bonn->{file_root}/nar"); }

forget_files();
whole('at first', @sites);
reads('at first', $bonn);
my $fetched = () = glob "$bonn->{file_root}/nar/*";
cmp_ok($fetched, '>=', 55, "$fetched NARs came from the other sites");

# ---- a switchover

forget_files();
during('a switchover', [[$bonn], [$oslo, $paris]], sub {
	works($paris, q{CALL narinfo.switchover('oslo')},
		qr/"oslo" is the primary now/, 'a switchover');
	ok(poll_until(sub { sql($bonn, q{SELECT upstream FROM narinfo.mirror_state})
		eq 'oslo' }, 45), 'the reader\'s site follows');
});
whole('a switchover', $oslo, $paris, $bonn);
reads('behind a switchover', $paris);

# ---- a failover

forget_files();
during('a failover', [[$bonn]], sub {
	kill_all($oslo);
	works($paris, 'CALL narinfo.promote()', qr/"paris" is the primary now/,
		'a failover');
	ok(poll_until(sub { sql($bonn, q{SELECT upstream FROM narinfo.mirror_state})
		eq 'paris' }, 45), 'the reader\'s site follows');
});

# ---- the old primary comes back

during('a primary returns', [[$oslo, $bonn]], sub {
	$oslo->start;
	ok(poll_until(sub { state($oslo) eq 'closed' }, 30), 'it is closed');
	is(health($oslo), 503, 'and nobody is sent there');
	works($oslo, "CALL narinfo.rejoin('" . site_conninfo($paris) . "')",
		qr/mirror of site "paris" now/, 'it rejoins');
	ok(poll_until(sub { health($oslo) == 200 }, 45), 'it is healthy');
});
whole('a primary returns', $paris, $oslo, $bonn);
reads('rejoined', $oslo);

# ---- a mirror is restored from an old copy

$oslo->stop;
system('cp', '-a', $oslo->data_dir, "$dir/copy") == 0 or die 'no copy';
$oslo->start;
publish($paris, 1, 20);
whole('before it is restored', $paris, $oslo, $bonn);
$oslo->stop('immediate');
forget_files();
during('a mirror is restored', [[$bonn]], sub {
	remove_tree($oslo->data_dir);
	rename "$dir/copy", $oslo->data_dir or die "rename: $!";
	$oslo->start;
	ok(poll_until(sub { reason($oslo) =~ /restored from a backup/ }, 30),
		'it is told so');
	is(health($oslo), 503, 'and nobody is sent there');
	# what its worker reports meanwhile counts no more in the end
	my $hold = hold($oslo, 'LOCK TABLE narinfo.trash IN ACCESS EXCLUSIVE MODE');
	my $call = begin($oslo, "CALL narinfo.rejoin('" . site_conninfo($paris)
		. "')");
	ok(waits($oslo, 'CALL narinfo.rejoin'), 'it rejoins');
	ok(poll_until(sub { sql($paris, q{SELECT problem FROM narinfo.site_link
		WHERE site = 'oslo'}) =~ /older copy/ }, 30), 'and reports meanwhile');
	let_go($hold);
	ok(finish($call), 'it has rejoined') or diag $call->{err};
});
whole('restored', $paris, $oslo, $bonn);
reads('restored', $oslo);

# ---- a row is damaged by hand, and one is gone: within the closure

my ($damaged, $gone) = split /\n/, sql($oslo, qq{SELECT v.hash::text FROM
	narinfo.closure('$top_path') AS c JOIN narinfo.valid_path AS v
	ON v.cache = 'main' AND narinfo.store_path(v.info)::text = c.path::text
	ORDER BY c.depth DESC, c.path::text LIMIT 2});
sql($oslo, qq{SET session_replication_role = replica;
	UPDATE narinfo.valid_path SET info = regexp_replace(info::text,
		E'NarSize: [0-9]+', 'NarSize: 1')::narinfo.narinfo
		WHERE hash::text = '$damaged';
	DELETE FROM narinfo.valid_path WHERE hash::text = '$gone'});
isnt(read_closure($oslo, "$dir/bad"), '', 'a site that is damaged reads wrong');
fails($oslo, 'CALL narinfo.verify_site()', qr/NI011/, 'that is found');
is(health($oslo), 503, 'and nobody is sent there');
during('a row is damaged', [[$oslo, $bonn]], sub {
	works($oslo, 'CALL narinfo.repair_site()', qr//, 'it is mended');
	ok(poll_until(sub { health($oslo) == 200 }, 45), 'and healthy');
});
whole('mended', $paris, $oslo, $bonn);
reads('mended', $oslo);

# ---- two primaries by mistake

forget_files();
during('two primaries', [[$bonn]], sub {
	sql($oslo, q{ALTER SUBSCRIPTION narinfo DISABLE;
		ALTER SUBSCRIPTION narinfo SET (slot_name = NONE);
		DROP SUBSCRIPTION narinfo; DELETE FROM narinfo.mirror_state;
		UPDATE narinfo.node SET role = 'primary'});
	publish($oslo, 101, 103);
	publish($paris, 104, 105);
	for my $node ($oslo, $paris)
	{
		ok(poll_until(sub { health($node) == 503
			&& reason($node) =~ /publishes, too, in the same epoch/ }, 30),
			$node->name . ' says so');
	}
	sql($paris, 'SELECT narinfo.reopen_site()');
	ok(poll_until(sub { state($oslo) eq 'closed' }, 30),
		'one goes on, the other closes itself');
	# it has less than before, and its worker tells so before it is proved
	my $hold = hold($oslo, 'LOCK TABLE narinfo.referrer_state IN SHARE MODE');
	my $call = begin($oslo, "CALL narinfo.rejoin('" . site_conninfo($paris)
		. "')");
	ok(poll_until(sub { sql($paris, q{SELECT upstream FROM narinfo.site
		WHERE name = 'oslo'}) eq 'paris' }, 30), 'and rejoins');
	is(sql($paris, q{SELECT c.seq - narinfo.last_event() FROM narinfo.site_cache
		AS c WHERE c.site = 'oslo' AND c.cache = 'main'}), 0,
		'it does not tell of what it has no more');
	let_go($hold);
	ok(finish($call), 'it has rejoined') or diag $call->{err};
	like($call->{err}, qr/3 orphans were published again/, 'with what it had');
});
whole('in the end', $paris, $oslo, $bonn);
reads('in the end', $oslo);

unlike(slurp_file($_->logfile), qr/PANIC|TRAP/, $_->name . ': nothing crashed')
	for @sites;

END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', $dir) if $dir && -d $dir;
	$? = $status;
}

done_testing();
