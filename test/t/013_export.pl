# export_cache: the files that were imported come back, byte for byte; and
# checkpoint_cache: what a follower starts from.
use strict;
use warnings;

use File::Basename qw(basename);
use File::Path qw(make_path);
use FindBin;
use IPC::Run;
use JSON::PP;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('export');

# Operators are found by search_path.
$ENV{PGOPTIONS} = '-c search_path=narinfo,public';

sub sql { return $node->safe_psql('postgres', @_) }

my $base = $node->basedir . '/exports';
make_path($base);

# Exports a cache; the two numbers of the notice.
sub export_cache
{
	my ($directory, $cache) = @_;
	my $arguments = "'$directory'" . ($cache ? ", '$cache'" : '');
	my ($status, $out, $err) =
		$node->psql('postgres', "CALL export_cache($arguments)");
	die $err if $status;
	my @counts = $err =~
		/exported (\d+) narinfos of cache "\w+", (\d+) were there already/
		or die "no notice: $err";
	return join ' ', @counts;
}

# FILE => bytes, of all that is in a directory, or of its narinfos.
sub contents
{
	my ($directory, $pattern) = @_;
	opendir my $dir, $directory or die "$directory: $!";
	return { map { $_ => slurp_bytes("$directory/$_") }
		grep { !/^\.\.?$/ && (!$pattern || /$pattern/) } readdir $dir };
}

# FILE => inode, time: another when the file was written again.
sub identities
{
	my ($directory) = @_;
	return { map { basename($_) => join ' ', (stat $_)[1, 9, 10] }
		glob "$directory/*" };
}

# Not is_deeply(), whose complaint would be the first byte that differs.
sub same_files
{
	my ($got, $expected, $name) = @_;
	my %names = (%$got, %$expected);
	my @wrong = grep {
		!defined $got->{$_} || !defined $expected->{$_}
			|| $got->{$_} ne $expected->{$_}
	} sort keys %names;
	is(join(' ', @wrong), '', $name);
	return;
}

# ---- what went in comes out

my $guix = "$test_dir/corpus/guix/cache";
sql("CALL import_cache('$cache_dir')");
sql(q{INSERT INTO cache VALUES
	('guix', '/gnu/store', 30, false, 'private', false)});
sql("CALL import_cache('$guix', 'guix')");

my $nix_cache_info = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
my $nix_files = contents($cache_dir, qr/\.narinfo$/);
my $guix_files = contents($guix, qr/\.narinfo$/);
is(scalar keys %$nix_files, 82, 'there are Nix\'s narinfos');
is(scalar keys %$guix_files, 81, 'there are Guix\'s');

is(export_cache("$base/nix"), '82 0', 'Nix\'s are exported');
same_files(contents("$base/nix"),
	{ %$nix_files, 'nix-cache-info' => $nix_cache_info },
	'the same files, byte for byte, and nothing else');
is(export_cache("$base/guix", 'guix'), '81 0', 'Guix\'s are exported');
same_files(contents("$base/guix"), { %$guix_files, 'nix-cache-info' =>
	"StoreDir: /gnu/store\nWantMassQuery: 0\nPriority: 30\n" },
	'the same files, byte for byte, and nothing else');
# One that nothing refers to, so that it can be taken out.
my $some = sql(q{SELECT hash || '.narinfo' FROM valid_path AS v
	WHERE cache = 'main' AND NOT EXISTS (SELECT FROM valid_path AS w
		WHERE w.cache = 'main' AND v.hash = ANY (ref_hashes(w.info)))
	ORDER BY hash LIMIT 1});
is(sprintf('%o', (stat "$base/nix")[2] & 07777), '755',
	'everybody may read the directory');
is(sprintf('%o', (stat "$base/nix/$some")[2] & 07777), '644',
	'and the files');

# What was exported can be imported: it is the same cache.
sql(q{INSERT INTO cache (name) VALUES ('again')});
sql("CALL import_cache('$base/nix', 'again')");
my $digest = q{SELECT md5(string_agg(info::text, '' ORDER BY hash))
	FROM valid_path WHERE cache = };
is(sql("$digest 'again'"), sql("$digest 'main'"),
	'imported again, it is the same cache');

# ---- again: what is right is left alone, what is not is put right

my $before = identities("$base/nix");
is(export_cache("$base/nix"), '0 82', 'again: nothing is to be done');
is_deeply(identities("$base/nix"), $before, 'no file was written');

my @files = sort keys %$nix_files;
my ($changed, $longer, $empty, $gone, $linked, $moved) = @files[0 .. 5];

sub spew
{
	my ($file, $bytes) = @_;
	unlink $file;
	open my $out, '>:raw', $file or die "$file: $!";
	print $out $bytes;
	close $out or die "$file: $!";
	return;
}

# Of the same length, so that it has to be read to be found out.
spew("$base/nix/$changed", $nix_files->{$changed} =~ s/NarSize: \d/NarSize: x/r);
spew("$base/nix/$longer", "$nix_files->{$longer}X: x\n");
spew("$base/nix/$empty", '');
unlink "$base/nix/$gone" or die $!;
# A link is replaced; what it leads to is not written.
spew("$base/precious", 'precious');
unlink "$base/nix/$linked" or die $!;
symlink "$base/precious", "$base/nix/$linked" or die $!;
# Nor is a link to the right bytes what we are asked for.
rename "$base/nix/$moved", "$base/moved" or die $!;
symlink "$base/moved", "$base/nix/$moved" or die $!;
spew("$base/nix/nix-cache-info", "StoreDir: /nix/store\n");
# What is not ours stays; what an export left that was killed does not.
spew("$base/nix/other", 'other');
spew("$base/nix/.pg_narinfo.tmp", 'half a file');
is(export_cache("$base/nix"), '6 76', 'what is wrong is written again');
same_files(contents("$base/nix"), { %$nix_files, other => 'other',
	'nix-cache-info' => $nix_cache_info }, 'everything is right again');
ok(!-l "$base/nix/$_", 'a link was replaced by a file') for $linked, $moved;
is(slurp_bytes("$base/precious"), 'precious', 'not what it led to');
my $after = identities("$base/nix");
is_deeply([ grep { $after->{$_} ne $before->{$_} } @files ],
	[ @files[0 .. 5] ], 'nothing else was written');

# A path that is gone leaves its file, a new one brings one.
sql(q{DELETE FROM valid_path WHERE cache = 'main' AND hash = '}
	. substr($some, 0, 32) . q{'});
my $new = $nix_files->{$some} =~ s{/nix/store/.{32}}{'/nix/store/' . '0' x 32}er;
sql("INSERT INTO valid_path (info) VALUES ('$new')");
is(export_cache("$base/nix"), '1 81', 'a new path brings a file');
is(slurp_bytes("$base/nix/" . '0' x 32 . '.narinfo'), $new, 'with its bytes');
ok(-e "$base/nix/$some", 'that of a path that is gone stays');

# ---- an empty cache; one in a transaction

sql(q{INSERT INTO cache (name) VALUES ('empty')});
is(export_cache("$base/empty", 'empty'), '0 0', 'an empty cache');
same_files(contents("$base/empty"), { 'nix-cache-info' => $nix_cache_info },
	'is a nix-cache-info');
sql("BEGIN; CALL export_cache('$base/block', 'guix'); COMMIT");
same_files(contents("$base/block", qr/\.narinfo$/), $guix_files,
	'it may run in a transaction');

# ---- checkpoints: an export and what it is, without anything else

sub checkpoint
{
	my ($directory, $cache) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"CALL checkpoint_cache('$directory', '$cache')");
	die $err if $status;
	my @counts = $err =~ /checkpoint of cache "\w+" after event \d+: (\d+) narinfos, (\d+) of them written, (\d+) others removed/
		or die "no notice: $err";
	return join ' ', @counts;
}

sub last_of
{
	my ($cache) = @_;
	return { version => 1, cache => $cache, narinfos =>
		0 + sql("SELECT count(*) FROM valid_path WHERE cache = '$cache'"),
		%{ decode_json(sql("SELECT json_build_object('seq', seq, 'epoch', epoch,
			'digest', encode(digest, 'hex'), 'store_dir', store_dir)
			FROM event AS e JOIN cache AS c ON c.name = e.cache
			WHERE e.cache = '$cache' ORDER BY seq DESC LIMIT 1")) } };
}

sub described
{
	my ($directory) = @_;
	return decode_json(slurp_bytes("$directory/checkpoint.json"));
}

is(checkpoint("$base/point", 'main'), '82 82 0', 'a checkpoint');
my $point = contents("$base/point");
is_deeply(described("$base/point"), last_of('main'), 'says what it is');
like($point->{'checkpoint.json'}, qr/^\{.*\}\n\z/, 'in a line');
delete $point->{'checkpoint.json'};
make_path("$base/plain");
export_cache("$base/plain");
same_files($point, contents("$base/plain"), 'and is an export else');
is(checkpoint("$base/point", 'main'), '82 0 0', 'again');
is(checkpoint("$base/empty-point", 'empty'), '0 0 0', 'of an empty cache');
is_deeply(described("$base/empty-point"), last_of('empty'), 'says so');

# What is not valid any more is removed, and nothing else.
spew("$base/point/other", 'other');
spew("$base/point/other.narinfo", 'other');
spew("$base/point/" . '1' x 32 . '.narinfo', 'no path of this cache');
sql(q{DELETE FROM valid_path WHERE cache = 'main' AND hash = '} . '0' x 32 . q{'});
is(checkpoint("$base/point", 'main'), '81 0 2', 'two files go');
is_deeply(described("$base/point"), last_of('main'), 'it is the new one');
ok(-e "$base/point/$_", "$_ stays") for 'other', 'other.narinfo';
unlink "$base/point/$_" or die $! for 'other', 'other.narinfo';
export_cache("$base/exact");
my $exact = contents("$base/exact");
my %now = %{ contents("$base/point") };
delete $now{'checkpoint.json'};
same_files(\%now, $exact, 'what is left is the cache');

# One that fails is none.
make_path("$base/point/" . '2' x 32 . '.narinfo');
my ($failed) = $node->psql('postgres',
	"CALL checkpoint_cache('$base/point', 'main')");
isnt($failed, 0, 'a directory in the place of a file');
ok(!-e "$base/point/checkpoint.json", 'leaves no checkpoint');
rmdir "$base/point/" . '2' x 32 . '.narinfo' or die $!;
checkpoint("$base/point", 'main');

# While others publish, it is of one moment: with the events behind its number
# it becomes what the cache is.
sql(q{SELECT create_cache('busy', require_closure => false)});
my $busy = "DO \$\$ BEGIN FOR i IN 1 .. 700 LOOP
	PERFORM narinfo.publish(format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s\\n'
		'NarHash: sha256:%s\\nNarSize: 9\\nReferences: \\n',
		translate(md5((i * 7 % 300)::text), 'e', 'z'), i,
		repeat('0', 52))::narinfo.narinfo, 'busy');
	IF i % 3 = 0 THEN DELETE FROM narinfo.valid_path WHERE cache = 'busy'
		AND hash = translate(md5((i * 5 % 300)::text), 'e', 'z')::narinfo.store_hash; END IF;
	COMMIT; END LOOP; END \$\$";
my ($busy_out, $busy_err) = ('', '');
my $publisher = IPC::Run::start([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d',
	$node->connstr('postgres'), '-c', $busy ], '<', \undef, '>', \$busy_out,
	'2>', \$busy_err);
my ($points, $wrong, $between) = (0, 0, 0);
do
{
	checkpoint("$base/busy", 'busy');
	my $is = described("$base/busy");
	$points++;
	$wrong++ if $is->{digest} ne
		sql("SELECT encode(digest, 'hex') FROM event
			WHERE cache = 'busy' AND seq = $is->{seq}")
		|| $is->{narinfos} != keys %{ contents("$base/busy", qr/\.narinfo$/) }
		|| $is->{narinfos} != sql("SELECT count(*) FILTER (WHERE kind = 'publish')
			- count(*) FILTER (WHERE kind = 'retract')
			FROM event WHERE cache = 'busy' AND seq <= $is->{seq}");
	$publisher->pump_nb if $publisher->pumpable;
	$between++ if $publisher->pumpable;
} while ($publisher->pumpable);
ok($publisher->finish, 'a publisher') or diag($busy_err);
is($wrong, 0, "each of $points checkpoints is of one moment");
cmp_ok($between, '>', 0, 'and some were written while it published');

my $files = contents("$base/busy", qr/\.narinfo$/);
my $start = described("$base/busy")->{seq};
for (split /\n/, sql("SELECT hash, encode(convert_to(info::text, 'UTF8'), 'hex')
	FROM changes($start, 100000, 'busy') WHERE hash IS NOT NULL"))
{
	my ($hash, $hex) = split /\|/;
	delete $files->{"$hash.narinfo"};
	$files->{"$hash.narinfo"} = pack 'H*', $hex if defined $hex && $hex ne '';
}
export_cache("$base/end", 'busy');
same_files($files, contents("$base/end", qr/\.narinfo$/),
	'a follower that starts there ends with what the cache is');

# ---- what is refused

sub fails
{
	my ($command, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $command);
	isnt($status, 0, "$name: an error");
	like($err, $pattern, "$name: says why");
	return;
}

fails("CALL export_cache('$base/missing/directory')",
	qr{could not create directory "\Q$base\E/missing/directory": No such file or directory},
	'a directory whose parent is missing');
fails("CALL export_cache('$base/precious')",
	qr{could not open directory "\Q$base\E/precious": Not a directory},
	'a file');
fails("CALL export_cache('$base/precious/directory')",
	qr{could not create directory "\Q$base\E/precious/directory": Not a directory},
	'below a file');
mkdir "$base/closed", 0500 or die $!;
fails("CALL export_cache('$base/closed')",
	qr{could not create file "\Q$base\E/closed/[^"]+": Permission denied},
	'a closed directory');
fails("CALL export_cache('$base/closed/directory')",
	qr{could not create directory "\Q$base\E/closed/directory": Permission denied},
	'below a closed directory');
my $occupied = (sort keys %$guix_files)[40];
make_path("$base/occupied/$occupied");
fails("CALL export_cache('$base/occupied', 'guix')",
	qr{could not write file "\Q$base\E/occupied/$occupied": Is a directory},
	'a directory in the place of a file');
ok(!-e "$base/occupied/.pg_narinfo.tmp", 'it leaves no half a file');
fails("CALL export_cache('exports')",
	qr/directory "exports" is not an absolute path/, 'a relative path');
fails("CALL checkpoint_cache('exports', 'main')",
	qr/directory "exports" is not an absolute path/,
	'a relative path for a checkpoint');
fails("CALL checkpoint_cache('$base/closed', 'guix')",
	qr{could not create file "\Q$base\E/closed/[^"]+": Permission denied},
	'a closed directory for a checkpoint');
fails("CALL export_cache('$base/nix', 'unknown')",
	qr/cache "unknown" does not exist/, 'an unknown cache');

sql('CREATE ROLE exporter LOGIN; GRANT USAGE ON SCHEMA narinfo TO exporter;
	GRANT SELECT ON valid_path TO exporter');
my $as_exporter = 'SET SESSION AUTHORIZATION exporter;';
fails("$as_exporter CALL export_cache('$base/role')",
	qr/permission denied for procedure export_cache/,
	'a role without pg_write_server_files');
fails("$as_exporter CALL checkpoint_cache('$base/role')",
	qr/permission denied for procedure checkpoint_cache/,
	'nor for a checkpoint');
sql('GRANT EXECUTE ON PROCEDURE export_cache(text, text) TO exporter');
fails("$as_exporter CALL export_cache('$base/role')",
	qr/permission denied for export_cache\n.*Only roles with privileges of "pg_write_server_files"/,
	'even one that may call it');
ok(!-e "$base/role", 'nothing was made');
sql('GRANT pg_write_server_files TO exporter');
sql("$as_exporter CALL export_cache('$base/role', 'guix')");
same_files(contents("$base/role", qr/\.narinfo$/), $guix_files,
	'a role with pg_write_server_files may export');
sql('REVOKE SELECT ON valid_path FROM exporter');
fails("$as_exporter CALL export_cache('$base/role-2', 'guix')",
	qr/permission denied for table valid_path/,
	'not without the right to read');

# A session outlives whatever goes wrong, and keeps nothing open.
my ($in, $out, $err) = ('', '', '');
my $session = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
	'<', \$in, '>', \$out, '2>', \$err,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$in = "CALL export_cache('$base/closed');
	CALL export_cache('$base/occupied', 'guix');
	CREATE TEMP TABLE t AS SELECT * FROM valid_path;\n" x 20
	. "SELECT 'alive ' || pg_backend_pid();\n";
$session->pump until $out =~ /^alive (\d+)/;
my ($pid) = $out =~ /^alive (\d+)/;
my @errors = $err =~ /could not (?:create|write) file/g;
is(scalar @errors, 40, 'forty exports that go wrong');
my @open = grep { defined && /^\Q$base\E/ }
	map { readlink } glob "/proc/$pid/fd/*";
is(join(' ', @open), '', 'leave no directory open');
$in = "\\q\n";
$session->finish;

$node->stop;
done_testing();
