# How much room narinfos take, and what the two ways of storing them cost; and
# that every real text comes back byte for byte.
use strict;
use warnings;

use File::Basename qw(basename);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('packing');

# Operators are found by search_path.
$ENV{PGOPTIONS} = '-c search_path=narinfo,public';

sub sql { return $node->safe_psql('postgres', @_) }

# ---- every real text, in text and in binary

my @files = map { glob "$test_dir/$_/*.narinfo" }
	qw(cache corpus/real-narinfos corpus/guix/cache);
is(scalar @files, 82 + 29 + 81, 'the corpus is there');

# COPY's binary format: a signature, rows of two fields, and an end.
my $copy = "PGCOPY\n\377\r\n\0" . pack('NN', 0, 0);
my %text;
for my $file (@files)
{
	my $name = basename($file);
	$text{$name} = slurp_bytes($file);
	$copy .= pack('n N/a* N/a*', 2, $name, $text{$name});
}
$copy .= pack 'n', 0xffff;
my $copy_file = $node->basedir . '/corpus.bin';
open my $out, '>:raw', $copy_file or die $!;
print $out $copy;
close $out or die $!;

sql('CREATE TABLE by_text (name text PRIMARY KEY, info narinfo);
	CREATE TABLE by_binary (name text PRIMARY KEY, info narinfo);');
sql(join '', map {
	"INSERT INTO by_text VALUES ('" . basename($_) . "',
		convert_from(pg_read_binary_file('$_'), 'UTF8')::narinfo);\n"
} @files);
sql("COPY by_binary FROM '$copy_file' (FORMAT binary)");
is(sql('SELECT count(*) FROM by_text JOIN by_binary USING (name, info)'),
	scalar @files, 'text and binary give the same values');

# Out again: what the server writes is what was read.
my $again_file = $node->basedir . '/again.bin';
sql("COPY (SELECT * FROM by_text ORDER BY name COLLATE \"C\")
	TO '$again_file' (FORMAT binary)");
my @again = unpack 'x19 (n N/a* N/a*)' . scalar(@files), slurp_bytes($again_file);
my %again;
while (my ($columns, $name, $text) = splice @again, 0, 3)
{
	$again{$name} = $text;
}
is(join(' ', grep { ($again{$_} // '') ne $text{$_} } sort keys %text), '',
	'every text comes back in binary, byte for byte');
is(sql(join ' UNION ALL ', map {
	"SELECT '" . basename($_) . "' FROM by_binary
	WHERE name = '" . basename($_) . "'
		AND convert_to(info::text, 'UTF8') <> pg_read_binary_file('$_')"
} @files), '', 'and in text');

# ---- the packed form

is(sql(q{SELECT kind(info), count(*) FROM by_text GROUP BY 1 ORDER BY 1}),
	"guix|83\nnix|109", 'there are some of both kinds');

sub figures
{
	my ($name, $where) = @_;
	my ($ratio, $packed, $text, $worst) = split /\|/, sql(<<~END);
		SELECT avg(packed_size(info)::float8 / octet_length(info::text)),
			sum(packed_size(info)), sum(octet_length(info::text)),
			max(packed_size(info)::float8 / octet_length(info::text))
		FROM by_text WHERE $where
		END
	note(sprintf '%-28s mean of ratios %.3f, worst %.3f, '
		. '%d bytes of text in %d (%.3f)', $name, $ratio, $worst, $text,
		$packed, $packed / $text);
	return ($ratio, $worst);
}

my ($ratio, $worst) = figures('Nix\'s', q{kind(info) = 'nix'});
cmp_ok($ratio, '<=', 0.65, 'packed is at most 0.65 of the text, on average');
($ratio, $worst) = figures('Guix\'s', q{kind(info) = 'guix'});
cmp_ok($ratio, '<=', 0.65, 'Guix\'s, too');
($ratio, $worst) = figures('all', 'true');
cmp_ok($worst, '<', 1.1, 'none takes much more than its text');

# ---- as it is stored: out of line, or compressed by either method

my @ways = ([ 'EXTERNAL', 'pglz' ], [ 'EXTENDED', 'pglz' ],
	[ 'EXTENDED', 'lz4' ]);
my $big = '017-iqly37f0-texlive-combined-full-2021.20210408.narinfo';
my $copies = 200;

for my $way (@ways)
{
	my ($storage, $method) = @$way;
	my $table = lc "${storage}_$method";
	push @$way, $table;
	for my $suffix ('', '_big')
	{
		sql("CREATE TABLE $table$suffix (name text, info narinfo);
			ALTER TABLE $table$suffix ALTER info SET STORAGE $storage,
				ALTER info SET COMPRESSION $method");
	}
	sql("INSERT INTO $table SELECT name, info::text::narinfo FROM by_text;
		INSERT INTO ${table}_big SELECT name, info::text::narinfo
		FROM by_text, generate_series(1, $copies)
		WHERE name = '$big';
		VACUUM ANALYZE $table, ${table}_big");
	note(sprintf '%-18s %7d bytes stored for %d of text, %d compressed; '
		. 'the big one %d', "$storage $method:", split /\|/, sql(<<~END));
		SELECT sum(pg_column_size(info)), sum(octet_length(info::text)),
			count(pg_column_compression(info)),
			max(pg_column_size(info)) FILTER (WHERE name = '$big')
		FROM $table
		END
}

my ($external, $pglz, $lz4) = map { $_->[2] } @ways;
is(sql(q{SELECT attstorage FROM pg_attribute
	WHERE attrelid = 'valid_path'::regclass AND attname = 'info'}), 'e',
	'narinfos are stored out of line as they are');
is(sql("SELECT count(*) FROM $external WHERE pg_column_compression(info)
	IS NOT NULL OR pg_column_size(info) < packed_size(info)"), 0,
	'nothing is compressed then');
for my $table ($pglz, $lz4)
{
	is(sql("SELECT count(*) FROM $external AS a JOIN $table AS b
		USING (name, info) WHERE a.info::text = b.info::text
			AND refs(a.info) = refs(b.info)
			AND ref_hashes(a.info) = ref_hashes(b.info)"), scalar @files,
		"$table holds the same");
	cmp_ok(sql("SELECT sum(pg_column_size(info)) FROM $table"), '<=',
		sql("SELECT sum(pg_column_size(info)) FROM $external"),
		'in no more room');
}

# ---- reading the references, and the header alone, of large ones

# What a query over one table says, and the best of five times that it took,
# the first of which fills the cache.
sub measure
{
	my ($expression, $table) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', <<~SQL);
		DO \$\$
		DECLARE
			began timestamptz;
			best float8;
			n numeric;
		BEGIN
			FOR i IN 1 .. 5 LOOP
				began := clock_timestamp();
				SELECT sum($expression) INTO n FROM ${table}_big;
				best := least(best, extract(epoch
					FROM clock_timestamp() - began) * 1000);
			END LOOP;
			RAISE NOTICE 'sum %, ms %', n, best;
		END
		\$\$
		SQL
	die $stderr unless $stderr =~ /sum (\d+), ms (\S+)/;
	return ($1, $2);
}

for my $expression ('cardinality(ref_hashes(info))', 'nar_size(info)')
{
	my (%sum, %time);
	for my $table ($external, $pglz, $lz4)
	{
		($sum{$table}, $time{$table}) = measure($expression, $table);
		note(sprintf '%-30s %-14s %.2f ms', $expression, $table,
			$time{$table});
	}
	is($sum{$_}, $sum{$external}, "$expression: $_ says the same")
		for $pglz, $lz4;
	cmp_ok($sum{$external}, '>', 1000 * $copies, "$expression: it is much");
	note(sprintf '%s: compressed takes %.1f (pglz) and %.1f (lz4) times as long',
		$expression, map { $time{$_} / $time{$external} } $pglz, $lz4);
}

$node->stop;
done_testing();
