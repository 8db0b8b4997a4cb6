#
# Closures: of roots with 500 paths, which have 8 references each, in a table
# of a million; against as many single index lookups in one prepared loop, and
# against WITH RECURSIVE.  One session, all in memory.
#
use strict;
use warnings;
use Bench;

my $count = 1_000_000;
my $roots = 100;
my $size = 500;

need_rows($count);
sql("SELECT narinfo.drop_cache('bench')");
sql("SELECT narinfo.create_cache('bench')");
sql(<<~END);
	DROP SCHEMA IF EXISTS bench CASCADE;
	CREATE SCHEMA bench;
	CREATE FUNCTION bench.hash(i bigint) RETURNS text LANGUAGE sql AS
		\$\$ SELECT translate(md5('graph ' || i), 'e', 'z') \$\$;
	-- every path refers to the one before, and to 7 drawn from its block
	INSERT INTO narinfo.valid_path (cache, info)
	SELECT 'bench', format(E'StorePath: /nix/store/%s-p%s\\n'
		'URL: nar/%s.nar.xz\\nCompression: xz\\nFileSize: %s\\n'
		'NarHash: sha256:%s\\nNarSize: %s\\nReferences: %s\\n'
		'Sig: cache.nixos.org-1:%s==\\n', bench.hash(i), i, bench.hash(i),
		i + 1, repeat('0', 52), i + 1, (SELECT string_agg(DISTINCT
			bench.hash(r) || '-p' || r, ' ') FROM (
			SELECT i - 1 WHERE i % $size > 0 UNION
			SELECT i - 1 - abs(hashint4(i * 8 + k)::bigint) % (i % $size)
			FROM generate_series(1, 7) AS k WHERE i % $size > 0) AS t (r)),
		repeat('A', 86))::narinfo.narinfo
	FROM (SELECT i::integer FROM generate_series(0, $roots * $size - 1) AS i)
		AS t (i);
	CREATE TABLE bench.root AS SELECT narinfo.store_path(info)
		AS path FROM narinfo.valid_path WHERE cache = 'bench' AND
		narinfo.store_name(narinfo.store_path(info)) IN (SELECT 'p' || i
			FROM generate_series($size - 1, $roots * $size - 1, $size) AS i);
	END
sql('VACUUM ANALYZE narinfo.valid_path');
my $made = sql('SELECT count(*) FROM bench.root');
die "$made roots\n" if $made != $roots;

# Milliseconds for a root, and how many paths that gave in all.
sub timed_function
{
	my ($name, $body) = @_;
	sql(<<~END);
		CREATE FUNCTION bench.$name(OUT ms double precision, OUT n bigint)
			LANGUAGE plpgsql SET search_path = narinfo, pg_catalog AS \$\$
		DECLARE
			began timestamptz;
			root store_path;
			roots store_path[] := ARRAY(SELECT path FROM bench.root);
			hashes store_hash[] := ARRAY(SELECT hash FROM valid_path
				WHERE cache = 'bench' ORDER BY md5(hash::text));
			one store_hash;
			found narinfo;
			m bigint;
		BEGIN
			n := 0;
			began := clock_timestamp();
			$body
			ms := 1000 * extract(epoch FROM clock_timestamp() - began) / $roots;
		END \$\$;
		END
}
timed_function('closure', <<~END);
	FOREACH root IN ARRAY roots LOOP
		SELECT count(*) INTO m FROM closure(root, 'bench');
		n := n + m;
	END LOOP;
	END
timed_function('lookups', <<~END);
	FOREACH one IN ARRAY hashes LOOP
		SELECT v.info INTO found FROM valid_path AS v
			WHERE v.cache = 'bench' AND v.hash = one;
		n := n + 1;
	END LOOP;
	END
timed_function('recursive', <<~END);
	FOREACH root IN ARRAY roots LOOP
		WITH RECURSIVE c (hash) AS (SELECT store_hash(root)
			UNION SELECT ref FROM c JOIN valid_path AS v ON v.cache = 'bench'
				AND v.hash = c.hash, unnest(ref_hashes(v.info)) AS ref)
		SELECT count(*) INTO m FROM c JOIN valid_path AS v ON v.cache = 'bench'
			AND v.hash = c.hash;
		n := n + m;
	END LOOP;
	END

sub timed
{
	my ($name) = @_;
	my ($ms, $n) = split /\|/, sql("SELECT ms, n FROM bench.$name()");
	die "$name: $n paths\n" if $n != $roots * $size;
	return { p50 => $ms };
}
timed($_) for qw(closure lookups recursive);
my $r = rounds(closure => sub { timed('closure') },
	"$size lookups" => sub { timed('lookups') },
	'WITH RECURSIVE' => sub { timed('recursive') });
compare("closure of $size paths", $r, closure => "$size lookups", 'p50',
	most => 5);
compare("closure of $size paths", $r, closure => 'WITH RECURSIVE', 'p50');

sql("DROP SCHEMA bench CASCADE; SELECT narinfo.drop_cache('bench')");
1;
