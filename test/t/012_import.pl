# import_cache: real directories, a directory with every kind of bad file,
# what is new the second time, and imports that are killed half-way.
use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use File::Path qw(make_path);
use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('import', conf => "restart_after_crash = on\n");

# Operators are found by search_path.
$ENV{PGOPTIONS} = '-c search_path=narinfo,public';

sub sql { return $node->safe_psql('postgres', @_) }

# Text that is not valid in the server's encoding must not be stored, whatever
# bytes files and their names are made of.
is(sql('SHOW server_encoding'), 'UTF8', 'the encoding is one that has errors');

sub spew
{
	my ($file, $bytes) = @_;
	open my $out, '>:raw', $file or die "$file: $!";
	print $out $bytes;
	close $out or die "$file: $!";
	return;
}

my $directories = 0;

sub new_directory
{
	my $directory = $node->basedir . '/import' . ++$directories;
	make_path($directory);
	return $directory;
}

# Imports a directory; the three numbers of the notice at its end.
sub import_cache
{
	my ($directory, $cache) = @_;
	my $arguments = "'$directory'" . ($cache ? ", '$cache'" : '');
	# It must not wait for anything: not for who writes to a pipe, either.
	my ($status, $out, $err) = $node->psql('postgres',
		"CALL import_cache($arguments)",
		timeout => $PostgreSQL::Test::Utils::timeout_default);
	die $err if $status;
	my @counts = $err =~ m/
		imported[ ](\d+)[ ]narinfos[ ]into[ ]cache[ ]"\w+",
		[ ](\d+)[ ]were[ ]valid[ ]before,[ ](\d+)[ ]files[ ]left[ ]out
		/x or die "no notice: $err";
	return join ' ', @counts;
}

# The errors of a directory's last import: FILE => "LINE|FIELD|MESSAGE".
sub errors
{
	my ($directory, $cache) = @_;
	$cache //= 'main';
	return { map { my ($file, $error) = split /\|/, $_, 2; $file => $error }
		split /\n/, sql(<<~END) };
		SELECT file, line, field, message FROM import_error
		WHERE cache = '$cache' AND directory = '$directory'
		END
}

# What the closure rule forbids: valid paths with references that are not.
sub dangling
{
	my ($cache) = @_;
	return sql(<<~END);
		SELECT store_path(v.info) || ' needs ' || ref
		FROM valid_path AS v, unnest(ref_hashes(v.info)) AS ref
		WHERE v.cache = '$cache' AND ref <> v.hash
			AND NOT EXISTS (SELECT FROM valid_path AS r
				WHERE r.cache = v.cache AND r.hash = ref)
		END
}

sub names
{
	my ($cache) = @_;
	return sql("SELECT string_agg(store_name(store_path(info)), ' '
		ORDER BY store_name(store_path(info)) COLLATE \"C\")
		FROM valid_path WHERE cache = '$cache'");
}

# The bytes of every narinfo are those of the file.
sub same_bytes
{
	my ($directory, $cache) = @_;
	return sql(<<~END);
		SELECT count(*) FROM valid_path
		WHERE cache = '$cache' AND info::text
			= pg_read_file('$directory/' || hash || '.narinfo')
		END
}

# ---- the small real cache

is(import_cache($cache_dir), '82 0 0', 'the small cache goes in');
is(same_bytes($cache_dir, 'main'), 82, 'every file, byte for byte');
is(dangling('main'), '', 'whole closures only');
is_deeply(errors($cache_dir), {}, 'without an error');
is(sql('SELECT name, store_dir, priority, want_mass_query, visibility,
	require_closure FROM cache'), 'main|/nix/store|40|t|public|t',
	'the row of main is there now');
is(import_cache($cache_dir), '0 82 0', 'again: nothing is new');

# ---- Guix's: files whose references are not there are left out

# What has to be left out of a directory, worked out by hand.
sub model
{
	my ($directory) = @_;
	my (%refs, %line, %left_out);
	for my $file (glob "$directory/*.narinfo")
	{
		my ($hash) = $file =~ m{([^/]+)\.narinfo$};
		my @lines = split /\n/, slurp_bytes($file);
		my ($n) = grep { $lines[$_] =~ /^References: / } 0 .. $#lines;
		$line{$hash} = $n + 1;
		$refs{$hash} = [ grep { $_ ne $hash } map { substr $_, 0, 32 }
			split / +/, $lines[$n] =~ s/^References: *//r ];
	}
	my $more = 1;
	while ($more)
	{
		$more = 0;
		for my $hash (grep { !$left_out{$_} } keys %refs)
		{
			next unless grep { !$refs{$_} || $left_out{$_} } @{ $refs{$hash} };
			$left_out{$hash} = $more = 1;
		}
	}
	my %errors;
	for my $hash (keys %left_out)
	{
		my ($first) =
			grep { !$refs{$_} || $left_out{$_} } @{ $refs{$hash} };
		$errors{"$hash.narinfo"} = "$line{$hash}|References|reference $first "
			. ($refs{$first} ? 'is left out'
			: 'is neither in the cache nor in the directory');
	}
	return \%errors;
}

my $guix = "$test_dir/corpus/guix/cache";
my @guix = glob "$guix/*.narinfo";
sql(q{INSERT INTO cache (name, store_dir) VALUES ('guix', '/gnu/store')});
my $model = model($guix);
my $bad = keys %$model;
note("$bad of " . @guix . ' are left out');
cmp_ok($bad, '>', 0, 'some of Guix\'s have references that are not there');
cmp_ok($bad, '<', @guix, 'not all');
is(import_cache($guix, 'guix'), @guix - $bad . " 0 $bad", 'Guix\'s go in');
is_deeply(errors($guix, 'guix'), $model, 'but those, each with its reason');
is(dangling('guix'), '', 'whole closures only');
is(same_bytes($guix, 'guix'), @guix - $bad, 'byte for byte');

sql(q{INSERT INTO cache (name, store_dir, require_closure)
	VALUES ('guix_loose', '/gnu/store', false)});
is(import_cache($guix, 'guix_loose'), @guix . ' 0 0',
	'all go into a cache that requires no closures');
is(import_cache($guix), '0 0 ' . @guix, 'none into one of another store');
is_deeply(errors($guix), { map { (m{([^/]+)$})[0] =>
	"1|StorePath|store path is not in the cache's store directory" } @guix },
	'and each is told so');

# ---- a directory with everything that can be wrong

my $hash = 'sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73';

sub hash_of { return md5_hex($_[0]) =~ tr/e/z/r }

sub base { return hash_of($_[0]) . "-$_[0]" }

# The text of a narinfo, by its name and the names of its references.
sub text
{
	my ($name, @refs) = @_;
	return 'StorePath: /nix/store/' . base($name)
		. "\nURL: nar/$name.nar\nCompression: none\nNarHash: $hash\n"
		. "NarSize: 1\nReferences: " . join(' ', map { base($_) } @refs) . "\n";
}

my $dir = new_directory();
my (%error, %valid);

sub file { return hash_of($_[0]) . '.narinfo' }

sub good
{
	my ($name, @refs) = @_;
	spew("$dir/" . file($name), text($name, @refs));
	$valid{$name} = 1;
	return;
}

# A file of this name and content, and what it is refused for.
sub bad
{
	my ($file, $bytes, $error) = @_;
	spew("$dir/$file", $bytes) if defined $bytes;
	$error{$file} = $error;
	return;
}

good('a');
good('b', 'a');
good('self', 'a', 'self');
good('circle-1', 'circle-2');
good('circle-2', 'circle-1', 'b');
good('circle-3', 'circle-1');
# Its text is as long as one may be.
spew("$dir/" . file('long'), text('long', 'a') . 'X: '
	. 'x' x (16777215 - length(text('long', 'a')) - 4) . "\n");
$valid{long} = 1;
# What is no file itself may lead to one.
spew("$dir/linked", text('link'));
symlink 'linked', "$dir/" . file('link') or die $!;
$valid{link} = 1;

my $not_hash = '||file name is not HASH.narinfo';
bad('x.narinfo', text('x'), $not_hash);
bad('.narinfo', text('x'), $not_hash);
bad(uc(hash_of('x')) . '.narinfo', text('x'), $not_hash);
bad(substr(hash_of('x'), 1) . '.narinfo', text('x'), $not_hash);
bad(hash_of('x') . 'x.narinfo', text('x'), $not_hash);
bad(base('x') . '.narinfo', text('x'), $not_hash);
bad('e' . substr(hash_of('x'), 1) . '.narinfo', text('x'), $not_hash);

bad(file('named'), text('otherwise'),
	"1|StorePath|store path is not that of the file's name");
bad(file('elsewhere'), text('elsewhere') =~ s{/nix}{/gnu}r,
	"1|StorePath|store path is not in the cache's store directory");
bad(file('no-newline'), text('no-newline') =~ s/\n\z//r,
	'6||last line does not end with a newline');
bad(file('crlf'), text('crlf') =~ s/\n/\r\n/gr,
	'1||line has a carriage return');
bad(file('nul'), text('nul') . "X: \0\n", '7||text has a NUL byte');
bad(file('no-colon'), text('no-colon') . "nonsense\n",
	'7||line has no colon');
bad(file('no-url'), text('no-url') =~ s/URL.*\n//r,
	'|URL|field is missing');
bad(file('no-size'), text('no-size') =~ s/NarSize: 1/NarSize: 0/r,
	'5|NarSize|size is 0');
bad(file('bad-hash'), text('bad-hash') =~ s/9c73/9c7/r,
	'4|NarHash|sha256 hash has 51 digits');
bad(file('no-blank'), text('no-blank') =~ s/References: /References:/r,
	'6|References|field has no blank behind its colon');
bad(file('latin1'), text('latin1') . "X: \xe4\n",
	'7||text is not valid in encoding UTF8');
bad(file('binary'), join('', map { chr } 128 .. 255),
	'1||last line does not end with a newline');
bad(file('empty'), '', '||text is empty');
bad(file('too-long'), text('too-long') . 'X: '
	. 'x' x (16777216 - length(text('too-long')) - 4) . "\n",
	'||text is longer than 16777215 bytes');

mkdir "$dir/y.narinfo" or die $!;
bad('y.narinfo', undef, $not_hash);
mkdir "$dir/" . file('directory') or die $!;
bad(file('directory'), undef, '||it is not a regular file');
mkfifo("$dir/" . file('fifo'), 0600) or die $!;
bad(file('fifo'), undef, '||it is not a regular file');
symlink '/dev/zero', "$dir/" . file('device') or die $!;
bad(file('device'), undef, '||it is not a regular file');
symlink 'nowhere', "$dir/" . file('dangling') or die $!;
bad(file('dangling'), undef,
	'||could not open file: No such file or directory');
symlink file('loop'), "$dir/" . file('loop') or die $!;
bad(file('loop'), undef,
	'||could not open file: Too many levels of symbolic links');
bad(file('closed'), text('closed'),
	'||could not open file: Permission denied');
chmod 0, "$dir/" . file('closed') or die $!;

# References that are nowhere, or to what is left out.
sub nowhere
{
	return "6|References|reference " . hash_of($_[0])
		. ' is neither in the cache nor in the directory';
}

sub left_out
{
	return "6|References|reference " . hash_of($_[0]) . ' is left out';
}

my $circle = '6|References|it is in a circle of references'
	. ' with a path that is left out';
bad(file('nowhere'), text('nowhere', 'a', 'not-here'), nowhere('not-here'));
bad(file('nowhere-1'), text('nowhere-1', 'nowhere', 'a'),
	left_out('nowhere'));
bad(file('nowhere-2'), text('nowhere-2', 'b', 'nowhere-1'),
	left_out('nowhere-1'));
bad(file('of-empty'), text('of-empty', 'empty'), left_out('empty'));
bad(file('of-closed'), text('of-closed', 'a', 'closed'),
	left_out('closed'));
bad(file('of-fifo'), text('of-fifo', 'fifo'), left_out('fifo'));
bad(file('bad-circle-1'), text('bad-circle-1', 'bad-circle-2'), $circle);
bad(file('bad-circle-2'), text('bad-circle-2', 'bad-circle-1', 'not-here'),
	nowhere('not-here'));
bad(file('bad-circle-3'), text('bad-circle-3', 'bad-circle-1'),
	left_out('bad-circle-1'));
# Wherever the walk enters a circle: these are entered here and there.
my @pairs = 1 .. 8;
for my $i (@pairs)
{
	bad(file("pair-$i-1"), text("pair-$i-1", "pair-$i-2"), $circle);
	bad(file("pair-$i-2"), text("pair-$i-2", "pair-$i-1", 'not-here'),
		nowhere('not-here'));
}
bad(file('bad-self'), text('bad-self', 'bad-self', 'not-here'),
	nowhere('not-here'));

# guix publish's layout: the same once a compression.
make_path(map { "$dir/$_" } qw(none gzip lzip zstd other));

sub everywhere
{
	my ($name, @refs) = @_;
	spew("$dir/$_/" . base($name) . '.narinfo', text($name, @refs))
		for qw(none gzip lzip zstd);
	$valid{$name} = 1;
	return;
}

everywhere('guix-1', 'a');
everywhere('guix-2', 'guix-1', 'guix-2');
good('of-guix', 'guix-2');
# And the same in Nix's.
spew("$dir/gzip/" . base('a') . '.narinfo', text('a'));
# A second one with another text: the first counts.
everywhere('twice');
bad('zstd/' . base('twice') . '.narinfo', text('twice', 'a'),
	'||another file has another narinfo of this path');
# One that is bad beside one that is good.
everywhere('half');
bad('gzip/' . base('half') . '.narinfo', '', '||text is empty');
bad('gzip/' . base('renamed') . '.narinfo',
	text('renamed') =~ s/-renamed\n/-otherwise\n/r,
	"1|StorePath|store path is not that of the file's name");
bad('lzip/' . file('x'), text('x'), '||file name is not HASH-NAME.narinfo');
bad('lzip/' . hash_of('x') . '-a b.narinfo', text('x'),
	'||file name is not HASH-NAME.narinfo');
bad('none/' . base('guix-nowhere') . '.narinfo',
	text('guix-nowhere', 'not-here'), nowhere('not-here'));

# What is no narinfo by its name is none of our business.
spew("$dir/nix-cache-info", "StoreDir: /nix/store\n");
spew("$dir/README", 'x');
spew("$dir/" . file('tmp') . '.tmp', 'x');
spew("$dir/narinfo", 'x');
spew("$dir/other/" . base('other') . '.narinfo', text('other'));

sql('DELETE FROM valid_path');
is(import_cache($dir), join(' ', scalar keys %valid, 0, scalar keys %error),
	'the bad directory: counts');
is_deeply(errors($dir), \%error, 'every bad file has its reason');
is(names('main'), join(' ', sort keys %valid), 'every good file is valid');
is(dangling('main'), '', 'whole closures only');
is(sql(q{SELECT count(*) FROM valid_path WHERE store_name(store_path(info))
	= 'twice' AND refs(info) = '{}'}), 1, 'the first of two texts counts');
is(sql(q{SELECT octet_length(info::text) FROM valid_path
	WHERE store_name(store_path(info)) = 'long'}), 16777215,
	'the longest text is whole');
is(sql('SELECT count(*) FROM import_error WHERE at > now()'), 0,
	'errors have their time');

# A name that is no text in the server's encoding must not be stored as one.
my $odd = new_directory();
spew("$odd/\xff\xfe.narinfo", text('x'));
spew("$odd/\xc3\xa4.narinfo", text('x'));
is(import_cache($odd), '0 0 2', 'names that are not ASCII');
my ($status, $out, $err) = $node->psql('postgres', <<~END);
	SELECT count(*) FROM import_error WHERE directory = '$odd'
		AND convert_from(convert_to(file, 'UTF8'), 'UTF8') = file
	END
is($status, 0, 'are told in valid text') or diag($err);
is($out, 2, 'both of them');

# ---- a cache that requires no closures takes what refers to nothing

sql(q{INSERT INTO cache (name, require_closure) VALUES ('loose', false)});
my %loose_error = map { $_ => $error{$_} }
	grep { $error{$_} !~ /reference/ } keys %error;
my $loose = import_cache($dir, 'loose');
is_deeply(errors($dir, 'loose'), \%loose_error,
	'without closures only bad files are left out');
my @taken = qw(nowhere nowhere-1 nowhere-2 of-empty of-closed of-fifo
	bad-circle-1 bad-circle-2 bad-circle-3 bad-self guix-nowhere);
push @taken, "pair-$_-1", "pair-$_-2" for @pairs;
is(names('loose'), join(' ', sort keys %valid, @taken),
	'and what refers to nothing is taken');

# ---- again: nothing changes, and what is valid is not read

my $rows = q{SELECT md5(string_agg(v.xmin || ' ' || v.ctid || ' ' || v.hash
	|| ' ' || v.registered, ',' ORDER BY v.hash)) FROM valid_path AS v
	WHERE cache = 'main'};
my $before = sql($rows);
chmod 0, map { "$dir/" . file($_) } qw(a b self long) or die $!;
# Files of valid paths: each of Nix's layout, four of each of guix publish's
# but for the one that is renamed, and a in both.
my $valid_files = grep { -e } map { glob "$dir/{.,none,gzip,lzip,zstd}/"
	. hash_of($_) . '{,-*}.narinfo' } keys %valid;
my @not_there = grep { /^(?:zstd|gzip)\/.*-(?:twice|half)/ } keys %error;
is(import_cache($dir), join(' ', 0, $valid_files,
	keys(%error) - @not_there), 'again: nothing is new');
is(sql($rows), $before, 'no row has changed');
my %again = %error;
delete @again{@not_there};
is_deeply(errors($dir), \%again,
	'the errors are told again, but of paths that are valid');
chmod 0644, map { "$dir/" . file($_) } qw(a b self long) or die $!;

good('new', 'b');
like(import_cache($dir), qr/^1 $valid_files /, 'one new file: one new path');
is(names('main'), join(' ', sort keys %valid), 'that one');

# What was bad is put right: its referrers come with it.
spew("$dir/" . file('empty'), text('empty'));
spew("$dir/" . file('not-here'), text('not-here'));
my @righted = qw(empty of-empty not-here nowhere nowhere-1 nowhere-2
	bad-circle-1 bad-circle-2 bad-circle-3 bad-self guix-nowhere);
push @righted, "pair-$_-1", "pair-$_-2" for @pairs;
$valid{$_} = 1 for @righted;
like(import_cache($dir), qr/^${\ scalar @righted} /,
	'what was put right goes in, and its referrers');
is(names('main'), join(' ', sort keys %valid), 'all of them');
is(dangling('main'), '', 'whole closures only');
ok(!exists errors($dir)->{ file('nowhere') }, 'their errors are forgotten');

# References may be in the cache alone.
my $small = new_directory();
spew("$small/" . file('on-top'), text('on-top', 'b', 'nowhere-2'));
is(import_cache($small), '1 0 0', 'references that are in the cache are found');

# ---- what is refused

sub fails
{
	my ($command, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $command);
	isnt($status, 0, "$name: an error");
	like($err, $pattern, "$name: says why");
	return;
}

fails("BEGIN; CALL import_cache('$dir'); COMMIT",
	qr/import_cache cannot run inside a transaction block/, 'in a transaction');
fails("CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS
	\$\$ BEGIN CALL narinfo.import_cache('$dir'); END \$\$;
	SELECT public.f()",
	qr/import_cache cannot run inside a transaction block/, 'in a function');
is(sql("DO \$\$ BEGIN CALL narinfo.import_cache('$small'); END \$\$;
	SELECT 'done'"), 'done', 'a DO block may call it');
fails("CALL import_cache('import1')",
	qr/directory "import1" is not an absolute path/, 'a relative path');
fails("CALL import_cache('$dir/missing')",
	qr{could not open directory "\Q$dir\E/missing": No such file or directory},
	'a missing directory');
fails("CALL import_cache('$dir/README')",
	qr{could not open directory "\Q$dir\E/README": Not a directory},
	'a file');
my $closed = new_directory();
chmod 0, $closed or die $!;
fails("CALL import_cache('$closed')",
	qr{could not open directory "\Q$closed\E": Permission denied},
	'a closed directory');
chmod 0700, $closed or die $!;
fails("CALL import_cache('$dir', 'unknown')",
	qr/cache "unknown" does not exist/, 'an unknown cache');

sql('CREATE ROLE importer LOGIN; GRANT USAGE ON SCHEMA narinfo TO importer;
	GRANT SELECT, INSERT ON valid_path TO importer');
my $as_importer = 'SET SESSION AUTHORIZATION importer;';
fails("$as_importer CALL import_cache('$dir')",
	qr/permission denied for procedure import_cache/,
	'a role without pg_read_server_files');
sql('GRANT EXECUTE ON PROCEDURE import_cache(text, text) TO importer');
fails("$as_importer CALL import_cache('$dir')",
	qr/permission denied for import_cache\n.*Only roles with privileges of "pg_read_server_files"/,
	'even one that may call it');
sql('REVOKE EXECUTE ON PROCEDURE import_cache(text, text) FROM importer;
	GRANT pg_read_server_files TO importer');
spew("$small/" . file('role'), text('role'));
spew("$small/x.narinfo", '');
sql("$as_importer CALL import_cache('$small')");
is(sql(q{SELECT count(*) FROM valid_path
	WHERE store_name(store_path(info)) = 'role'}), 1,
	'a role with pg_read_server_files may import');
is(sql("$as_importer SELECT file FROM import_error
	WHERE directory = '$small'"), 'x.narinfo', 'and see what went wrong');
sql('REVOKE INSERT ON valid_path FROM importer');
spew("$small/" . file('role-2'), text('role-2'));
fails("$as_importer CALL import_cache('$small')",
	qr/permission denied for table valid_path/,
	'not without the right to insert');

# ---- a large one, stopped half-way: what is there is whole, and it goes on

my $total = 20_000;
my $large = new_directory();
my $circles = 0;
srand 42;
for my $i (0 .. $total - 1)
{
	# A chain as long as can be, so that there is one order only, with some
	# more references, back to itself, and around a circle of three.
	my @refs = $i > 0 ? ('n' . ($i - 1)) : ();
	push @refs, map { 'n' . int rand $i } 1 .. rand 6 if $i > 0;
	push @refs, "n$i" if $i % 7 == 0;
	push @refs, 'n' . ($i + 2) if $i % 100 == 50 && $i + 2 < $total;
	$circles++ if $i % 100 == 50;
	spew("$large/" . file("n$i"), text("n$i", @refs));
}
sql('INSERT INTO cache (name) VALUES (\'large\')');

sub count_large
{
	return sql(q{SELECT count(*) FROM valid_path WHERE cache = 'large'});
}

sub start_psql
{
	my ($in, $out, $err) = ('', '', '');
	my $psql = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return { run => $psql, in => \$in, out => \$out, err => \$err };
}

# Sends something, and waits for what it prints; dies if that does not come.
sub ask
{
	my ($psql, $command, $pattern) = @_;
	${ $psql->{in} } .= "$command\n";
	$psql->{run}->pump
		until ${ $psql->{out} } =~ $pattern || ${ $psql->{err} } =~ $pattern;
	return;
}

# Starts an import that comes as far as path n$stop, where another session
# has inserted the same and has not committed; waits until it is there.
# Returns both sessions and the backend that imports.
sub import_up_to
{
	my ($stop) = @_;
	my $blocker = start_psql();
	my $path = text("n$stop");
	ask($blocker, "BEGIN;
		INSERT INTO valid_path (cache, info) VALUES ('large', E'"
		. ($path =~ s/\n/\\n/gr) . "');
		SELECT 'inserted';", qr/inserted/);
	my $importer = start_psql();
	${ $importer->{in} } = "CALL import_cache('$large', 'large');\n";
	$importer->{run}->pump_nb;
	my $pid = poll_until(sub {
		$importer->{run}->pump_nb;
		return sql(q{SELECT pid FROM pg_stat_activity
			WHERE query LIKE 'CALL import_cache%'
				AND wait_event_type = 'Lock'});
	});
	die "it does not come to n$stop: ${ $importer->{err} }" unless $pid;
	return ($blocker, $importer, $pid);
}

# What holds whenever an import has been stopped.
sub is_whole
{
	my ($name, $least, $most) = @_;
	my $count = count_large();
	note("$name: $count paths");
	cmp_ok($count, '>=', $least, "$name: what was committed is there");
	cmp_ok($count, '<', $most, "$name: it was not complete");
	is(dangling('large'), '', "$name: whole closures only");
	is(sql('SELECT count(*) FROM stat_progress'), 0,
		"$name: no progress is shown any more");
	return;
}

my ($blocker, $importer, $pid) = import_up_to(5432);
my %progress;
@progress{qw(usename command phase done total narinfos unchanged left_out
	query)} = split /\|/, sql("SELECT usename, command, phase, done, total,
	narinfos, unchanged, left_out, query FROM stat_progress
	WHERE pid = $pid AND started < now()");
is($progress{command}, 'import_cache', 'progress: the command');
is($progress{phase}, 'writing', 'progress: the phase');
is($progress{total}, $total, 'progress: how many there are');
is($progress{done}, count_large(), 'progress: how many were written');
is($progress{narinfos}, $progress{done}, 'progress: all of them are new');
is("$progress{unchanged} $progress{left_out}", '0 0', 'progress: no others');
like($progress{query}, qr/^CALL import_cache/, 'progress: the query');
like($progress{usename}, qr/./, 'progress: the user');

# Cancelled: the session lives on.
is(sql("SELECT pg_cancel_backend($pid)"), 't', 'cancel it');
ask($importer, '', qr/canceling statement/);
is_whole('cancelled', 4400, 5432);
ask($importer, "SELECT 'alive';", qr/alive/);
is(sql(q{SELECT count(*) FROM pg_ls_tmpdir()}), 0,
	'its temporary file is gone');
ask($blocker, "ROLLBACK; SELECT 'rolled back';", qr/rolled back/);
$_->{run}->kill_kill for $importer, $blocker;

# Terminated.
($blocker, $importer, $pid) = import_up_to(10432);
is(sql("SELECT unchanged > 0 AND total < $total FROM stat_progress
	WHERE pid = $pid"), 't', 'progress: what was there is not done again');
is(sql("SELECT pg_terminate_backend($pid)"), 't', 'terminate it');
$importer->{run}->finish;
like(${ $importer->{err} }, qr/terminating connection/, 'it was terminated');
ask($blocker, "ROLLBACK; SELECT 'rolled back';", qr/rolled back/);
$blocker->{run}->kill_kill;
is_whole('terminated', 9400, 10432);

# Killed, and all of the server with it.
($blocker, $importer, $pid) = import_up_to(15432);
kill 'KILL', $pid or die $!;
$_->{run}->finish for $importer, $blocker;
ok(poll_until(sub { ($node->psql('postgres', 'SELECT 1'))[0] == 0 }),
	'the server comes back');
is_whole('killed', 14400, 15432);

# And to its end.
my $left = $total - count_large();
is(import_cache($large, 'large'), "$left " . ($total - $left) . ' 0',
	'the last one brings the rest');
is(count_large(), $total, 'all are there');
is(dangling('large'), '', 'whole closures only');
is(same_bytes($large, 'large'), $total, 'byte for byte');
is(import_cache($large, 'large'), "0 $total 0", 'again: nothing is new');

# ---- two at once: both end, and nothing is there twice

sql(q{INSERT INTO cache (name) VALUES ('both')});
my @both = map {
	my ($out, $err) = ('', '');
	{ out => \$out, run => IPC::Run::start([ 'psql', '-XAtq',
		'-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c',
		"CALL import_cache('$large', 'both')" ], '<', \undef, '>', \$out,
		'2>', \$err), err => \$err };
} 1 .. 2;
$_->{run}->finish for @both;
is(join(' ', map { $_->{run}->full_result(0) } @both), '0 0',
	'two imports of one directory at once')
	or diag(map { ${ $_->{err} } } @both);
is(sql(q{SELECT count(*) FROM valid_path WHERE cache = 'both'}), $total,
	'all are there');
my ($first, $second) =
	map { ${ $_->{err} } =~ /imported (\d+)/ ? $1 : -1 } @both;
is($first + $second, $total, 'each was imported by one of them');

$node->stop;
done_testing();
