# export_cache: the files that were imported come back, byte for byte.
use strict;
use warnings;

use File::Basename qw(basename);
use File::Path qw(make_path);
use FindBin;
use IPC::Run;
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
fails("CALL export_cache('$base/nix', 'unknown')",
	qr/cache "unknown" does not exist/, 'an unknown cache');

sql('CREATE ROLE exporter LOGIN; GRANT USAGE ON SCHEMA narinfo TO exporter;
	GRANT SELECT ON valid_path TO exporter');
my $as_exporter = 'SET SESSION AUTHORIZATION exporter;';
fails("$as_exporter CALL export_cache('$base/role')",
	qr/permission denied for procedure export_cache/,
	'a role without pg_write_server_files');
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
