# The graph functions, against what others compute: nix-store over the small
# cache in a real store, and recursive queries over Debian's packages, some
# 60,000 with cycles among them and with dependencies that nothing has.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use Digest::MD5 qw(md5_hex);
use JSON::PP qw(decode_json);
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('graph');

# Operators are found by search_path.
$ENV{PGOPTIONS} = '-c search_path=narinfo,public';

sub sql { return $node->safe_psql('postgres', @_) }

# The lines of a text, sorted.
sub sorted { return join "\n", sort split /\n/, $_[0] }

my $seed = $ENV{NARINFO_SEED} // time;
note("NARINFO_SEED=$seed");

# ---- the small cache, and the same paths in a store of nix

sql("CALL import_cache('$cache_dir')");
my @paths = split /\n/, sql(q{SELECT store_path(info) FROM valid_path});
is(scalar @paths, 82, 'all imported');

my $home = $node->basedir . '/home';

# Nix makes what it has in its stores read-only, too much so for rm -r.
END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', $home) if defined $home && -d $home;
	$? = $status;
}

my ($status, $out, $err) = nix($home, 'nix', 'copy',
	'--from', "http://127.0.0.1:$node->{http_port}",
	'--option', 'trusted-public-keys', $public_key, @paths);
is($status, 0, 'nix has them, too') or diag($err);

sub ask_nix
{
	my (@command) = @_;
	my ($status, $out, $err) = nix($home, @command);
	die "@command: $err" if $status != 0;
	return $out;
}

# A question of nix, for every path, and what we say to it.
sub same_as_nix
{
	my ($option, $query) = @_;
	my @ours = split /\n/, sql("SELECT p || ' ' || coalesce(string_agg(q::text,
		' ' ORDER BY q::text COLLATE \"C\"), '') FROM (SELECT store_path(info)
		FROM valid_path WHERE cache = 'main') AS v (p) LEFT JOIN LATERAL
		($query) AS t (q) ON true GROUP BY p ORDER BY p");
	my @theirs = map { my $path = $_; join ' ', $path,
		sort grep { $option ne '--referrers' || $_ ne $path }
		split /\n/, ask_nix('nix-store', '--query', $option, $path) } @paths;
	my $n = () = "@theirs" =~ m{ }g;
	s/ $// for @ours;
	is(join("\n", sort @ours), join("\n", sort @theirs),
		"nix-store --query $option says the same of all paths, $n rows");
	return;
}
same_as_nix('--requisites', 'SELECT path FROM closure(p)');
same_as_nix('--referrers', 'SELECT r FROM referrers(p) AS r');
same_as_nix('--referrers-closure', 'SELECT path FROM referrer_closure(p)');

# Sizes and the order of packages.
my $infos = decode_json(ask_nix('nix', 'path-info', '--closure-size',
	'--json', $top_path));
# from nix 2.19 on, an object by path
my $info = ref $infos eq 'HASH' ? $infos->{$top_path} : $infos->[0];
is(sql("SELECT sum(nar_size) FROM closure('$top_path')"),
	$info->{closureSize}, 'nix path-info --closure-size says the same');
is(sql(q{WITH o AS (SELECT o.position, store_hash(o.path) AS hash
		FROM dependency_order(ARRAY(SELECT store_path(info) FROM valid_path
			ORDER BY md5(hash::text))) AS o)
	SELECT count(*), max(o.position), (SELECT count(*) FROM o
		JOIN valid_path AS v USING (hash), unnest(ref_hashes(v.info)) AS ref
		JOIN o AS r ON r.hash = ref WHERE r.position >= o.position
			AND ref <> o.hash) FROM o}),
	'82|82|0', 'every path comes behind what it refers to');

# What nix store diff-closures prints: names whose versions change, or that
# grow or shrink by 8 KiB.
sub printed_difference
{
	my ($a, $b) = @_;
	my @lines;
	for (split /\n/, sql(<<~END))
		SELECT name, nar_bytes, before <> after, ARRAY(SELECT v
				FROM unnest(before) AS v WHERE v <> ALL (after)),
			ARRAY(SELECT v FROM unnest(after) AS v WHERE v <> ALL (before))
		FROM difference('$a', '$b')
		END
	{
		my ($name, $bytes, $changed, @versions) = split /\|/;
		my $grown = abs($bytes) >= 8 * 1024;
		next unless $changed eq 't' || $grown;
		for (@versions)
		{
			s/[{}]//g;
			$_ = $_ eq '' ? '∅'
				: join ', ', map { $_ eq '""' ? 'ε' : $_ } split /,/;
		}
		push @lines, "$name: " . join ', ',
			$changed eq 't' ? "$versions[0] → $versions[1]" : (),
			$grown ? sprintf('%+.1f KiB', $bytes / 1024) : ();
	}
	return join "\n", @lines;
}

my @differing = split /\n/, sql("SELECT path FROM closure('$top_path')
	WHERE depth < 4 ORDER BY md5(path::text || '$seed') LIMIT 12");
my (@ours, @theirs);
for my $i (0 .. $#differing)
{
	my ($a, $b) = @differing[$i, ($i + 1) % @differing];
	push @ours, "$a $b", printed_difference($a, $b);
	push @theirs, "$a $b", ask_nix('nix', 'store', 'diff-closures', $a, $b)
		=~ s/\e\[[0-9;]*m//gr =~ s/\n\z//r;
}
is(join("\n", @ours), join("\n", @theirs),
	'nix store diff-closures prints the same differences');
note(join "\n", @theirs[0 .. 5]);

# ---- Debian

my $dir = $node->basedir;
my (%package, @edges);

# Each package with what it may depend on, alternatives too.
sub read_packages
{
	local $/ = '';
	open my $in, '-|', 'apt-cache', 'dumpavail' or return;
	while (<$in>)
	{
		my ($name) = /^Package: (\S+)$/m or next;
		next if $package{$name};
		my ($nar, $file) = (/^Installed-Size: (\d+)$/m, /^Size: (\d+)$/m);
		my %to = map { /^\s*([^\s:(]+)/ ? ($1 => 1) : () }
			map { split /[,|]/ } /^(?:Pre-)?Depends: (.*)$/mg;
		$package{$name} = { nar => 1024 * ($nar || 0) + 1,
			file => $file, to => [sort keys %to] };
	}
	close $in;
	return;
}
read_packages();
my $npackages = keys %package;
cmp_ok($npackages, '>', 50_000, "apt's lists are there")
	or do {
		diag("run 'apt-get update': $npackages packages are known");
		$node->stop;
		done_testing();
		exit;
	};

# "HASH-NAME" of a package, there or not.
sub base_name { return (md5_hex($_[0]) =~ tr/e/z/r) . "-$_[0]" }

sub write_rows
{
	my ($file, @rows) = @_;
	open my $out, '>', "$dir/$file" or die "$file: $!";
	print $out map { "$_\n" } @rows;
	close $out or die "$file: $!";
	return;
}
write_rows('infos', map {
	my ($name, $p, $hash) = ($_, $package{$_}, base_name($_));
	"debian\tStorePath: /nix/store/$hash\\nURL: nar/$hash.nar\\n"
		. "NarHash: sha256:" . '0' x 52 . "\\nNarSize: $p->{nar}\\n"
		. ($p->{file} ? "FileSize: $p->{file}\\n" : '') . 'References: '
		. join(' ', map { base_name($_) } @{ $p->{to} }) . '\\n'
} sort keys %package);
write_rows('packages', map { join "\t", $_, $package{$_}{nar},
	$package{$_}{file} // '\N' } sort keys %package);
write_rows('edges', map { my $from = $_;
	map { "$from\t$_" } @{ $package{$from}{to} } } sort keys %package);

my $begin = time;
sql("SELECT create_cache('debian', require_closure => false)");
sql("\\copy valid_path (cache, info) FROM '$dir/infos'");
note(sprintf 'published %d packages in %.1f s', $npackages, time - $begin);
sql(<<~END);
	CREATE TABLE package (name text COLLATE "C" PRIMARY KEY, nar bigint,
		file bigint);
	CREATE TABLE edge (src text COLLATE "C", dst text COLLATE "C");
	\\copy package FROM '$dir/packages'
	\\copy edge FROM '$dir/edges'
	CREATE INDEX ON edge (src) INCLUDE (dst);
	CREATE INDEX ON edge (dst) INCLUDE (src);
	VACUUM ANALYZE package, edge, valid_path;
	CREATE FUNCTION debian(name text) RETURNS store_path LANGUAGE sql AS
		\$\$ SELECT ('/nix/store/' || translate(md5(name), 'e', 'z') || '-'
			|| name)::store_path \$\$;
	-- what is in this order is as good as drawn
	CREATE FUNCTION draw(name text) RETURNS text LANGUAGE sql AS
		\$\$ SELECT md5(name || '$seed') \$\$;
	END
is(sql(q{SELECT count(*) FROM valid_path WHERE cache = 'debian'}),
	$npackages, 'Debian is a cache');
cmp_ok(sql(q{SELECT count(*) FROM edge AS e JOIN edge AS f
	ON f.src = e.dst AND f.dst = e.src WHERE e.src < e.dst}), '>', 10,
	'with cycles');

# What is reached from one package, in either direction, by a recursive query
# over the plain table; $along is "src" or "dst".
sub reached
{
	my ($from, $to) = @_;
	return "WITH RECURSIVE c (name) AS (SELECT s.name
		UNION SELECT e.$to FROM c JOIN edge AS e ON e.$from = c.name
			JOIN package AS p ON p.name = e.$to)
		SELECT p.* FROM c JOIN package AS p USING (name)";
}

# The same with the depth, not beyond a bound: the greatest depth that is
# claimed.  Were the claim too low, something would not be reached.
sub reached_with_depth
{
	my ($from, $to, $bound) = @_;
	return "WITH RECURSIVE c (name, depth, bound) AS (
		SELECT s.name, 0, ($bound)
		UNION SELECT e.$to, c.depth + 1, bound FROM c
			JOIN edge AS e ON e.$from = c.name
			JOIN package AS p ON p.name = e.$to WHERE c.depth < bound)
		SELECT name, min(depth) AS depth FROM c JOIN package USING (name)
		GROUP BY name";
}

# Compares for so many packages, drawn and named: rows, and those that differ.
sub compare
{
	my ($what, $n, $ours, $truth, $columns, @named) = @_;
	my $named = join ', ', map { "'$_'" } @named, '';
	my $begin = time;
	my ($packages, $rows, $wrong) = split /\|/, sql(<<~END);
		SELECT count(DISTINCT s.name), sum(d.rows), sum(d.wrong)
		FROM (SELECT name FROM package WHERE name IN ($named) UNION
			(SELECT name FROM package ORDER BY draw(name) LIMIT $n)) AS s,
			LATERAL (SELECT count(*) AS rows,
				count(*) FILTER (WHERE o IS DISTINCT FROM t) AS wrong
				FROM (SELECT $columns FROM ($ours) AS o) AS o
				FULL JOIN (SELECT $columns FROM ($truth) AS t) AS t
				USING (name)) AS d
		END
	is($wrong, 0, sprintf '%s of %d packages: %d rows, %.1f s', $what,
		$packages, $rows, time - $begin);
	cmp_ok($rows, '>', $packages, 'there are more than themselves');
	return;
}

my $closure = "SELECT store_name(path) COLLATE \"C\" AS name, depth, nar_size AS nar,
	file_size AS file FROM closure(debian(s.name), 'debian')";
my $referrers = "SELECT store_name(path) COLLATE \"C\" AS name, depth, nar_size AS nar,
	file_size AS file FROM referrer_closure(debian(s.name), 'debian')";
compare('closures', 300, $closure, reached('src', 'dst'), 'name, nar, file',
	'gnome', 'libc6', 'kde-full', 'texlive-full');
compare('closures with their depths', 40, $closure,
	reached_with_depth('src', 'dst', "SELECT max(depth) FROM
		closure(debian(s.name), 'debian')"), 'name, depth', 'gnome');
is(sql("SELECT count(*), sum(nar_size), sum(depth) FROM closures(ARRAY(
		SELECT debian(name) FROM package), 'debian')"),
	sql('SELECT count(*), sum(nar), 0 FROM package'),
	'the closures of all packages are all packages');
is(sql("SELECT count(*) > 1000, count(*) FILTER (WHERE o.depth IS DISTINCT FROM
		t.depth)
	FROM (SELECT path, depth FROM closures(ARRAY[debian('gnome'),
		debian('kde-full'), debian('no-such-package')], 'debian')) AS o
	FULL JOIN (SELECT path, min(depth) AS depth FROM (
		SELECT * FROM closure(debian('gnome'), 'debian') UNION ALL
		SELECT * FROM closure(debian('kde-full'), 'debian')) AS u
		GROUP BY path) AS t USING (path)"), 't|0',
	'the closures of two: the union, with the lesser depth');

# The index may be behind, or not; both are right.
my $follows = q{SELECT seq FROM referrer_state WHERE cache = 'debian'};
note('indexed up to event ' . (sql($follows) || 0));
compare('referrers of referrers', 4, $referrers, reached('dst', 'src'),
	'name, nar, file', 'postgresql');
sql("CALL rebuild_referrers('debian')");
is(sql($follows), sql("SELECT last_event('debian')"), 'all is indexed');
compare('referrers of referrers', 100, $referrers, reached('dst', 'src'),
	'name, nar, file', 'libc6', 'python3', 'perl-base');
compare('referrers with their depths', 20, $referrers,
	reached_with_depth('dst', 'src', "SELECT max(depth) FROM
		referrer_closure(debian(s.name), 'debian')"), 'name, depth', 'python3');

my $missing = q{SELECT DISTINCT dst, src FROM edge
	WHERE dst NOT IN (SELECT name FROM package)};
is(sql("SELECT count(*), count(*) FILTER (WHERE m.dst IS NULL OR t.dst IS NULL)
	FROM (SELECT store_name(reference) AS dst, store_name(wanted_by) AS src
		FROM missing('debian')) AS m
	FULL JOIN ($missing) AS t USING (dst, src)"),
	sql("SELECT count(*), 0 FROM ($missing) AS t"),
	'what is missing, and who wants it');
cmp_ok(sql("SELECT count(*) FROM ($missing) AS t"), '>', 1000,
	'which is much');
my $virtual = sql("SELECT dst FROM ($missing) AS m GROUP BY dst
	ORDER BY count(*) DESC, dst LIMIT 1");
is(sql("WITH RECURSIVE c (name) AS (SELECT src FROM edge WHERE dst = '$virtual'
		UNION SELECT e.src FROM c JOIN edge AS e ON e.dst = c.name)
	SELECT count(*) > 1, count(*) FILTER (WHERE o.name IS NULL
		OR c.name IS NULL), min(depth)
	FROM (SELECT store_name(path) AS name, depth
		FROM referrer_closure(debian('$virtual'), 'debian')) AS o
	FULL JOIN c USING (name)"), 't|0|1', "who needs $virtual, which is missing");

# ---- chains

# Pairs drawn: the one needs the other, at any distance.
sql(<<~END);
	CREATE TABLE chain AS
	SELECT row_number() OVER () AS id, a.name AS a, b.name AS b
	FROM (SELECT name FROM package ORDER BY draw('a' || name) LIMIT 200) AS a,
		LATERAL (SELECT store_name(path) AS name
			FROM closure(debian(a.name), 'debian')
			ORDER BY draw(a.name || path) LIMIT 1) AS b;
	CREATE TABLE chain_step AS
	SELECT id, step, store_name(path) AS name
	FROM chain, why_depends(debian(a), debian(b), 'debian');
	ANALYZE chain, chain_step;
	END
is(sql(q{SELECT count(*) FROM chain LEFT JOIN (SELECT id, max(step) AS last,
		count(*) AS n, min(name) FILTER (WHERE step = 0) AS begin
		FROM chain_step GROUP BY id) AS s USING (id)
	LEFT JOIN chain_step AS e ON e.id = chain.id AND e.step = s.last
	WHERE s.begin IS DISTINCT FROM a OR e.name IS DISTINCT FROM b
		OR n IS DISTINCT FROM s.last + 1}), 0,
	'every chain goes from one end to the other');
is(sql(q{SELECT count(*) FROM chain_step AS s
	JOIN chain_step AS t ON t.id = s.id AND t.step = s.step + 1
	WHERE NOT EXISTS (SELECT FROM edge WHERE src = s.name AND dst = t.name)}),
	0, 'every step is a dependency');
my $shortest = reached_with_depth('src', 'dst', 's.last');
is(sql(qq{SELECT count(*) FROM (SELECT id, a AS name, b, max(step) AS last
		FROM chain JOIN chain_step USING (id) GROUP BY 1, 2, 3) AS s,
		LATERAL (SELECT min(depth) FROM ($shortest) AS t WHERE t.name = s.b)
			AS d (depth)
	WHERE d.depth IS DISTINCT FROM s.last}), 0, 'none is longer than the shortest');
note(sql(q{SELECT max(step), round(avg(last), 2) FROM (SELECT id,
	max(step) AS last FROM chain_step GROUP BY id) AS c, chain_step}));
is(sql(q{SELECT count(*) FROM (SELECT a.name AS a, b.name AS b
		FROM (SELECT name FROM package ORDER BY draw('c' || name) LIMIT 100)
			AS a, LATERAL (SELECT name FROM package
				ORDER BY draw(a.name || name) LIMIT 1) AS b) AS p,
	LATERAL (SELECT count(*) > 0 AS is FROM why_depends(debian(a), debian(b),
		'debian')) AS chain, LATERAL (SELECT EXISTS (SELECT FROM
		closure(debian(a), 'debian') WHERE path = debian(b)) AS is) AS needs
	WHERE chain.is <> needs.is}), 0, 'there is a chain to what is needed alone');

# Why something stays: pins, and the chains from them to what is drawn.
sql(<<~END);
	SELECT pin('desktop', debian('gnome'), cache => 'debian');
	SELECT pin('server', NULL, paths => ARRAY[debian('postgresql'),
		debian('nginx')], cache => 'debian');
	SELECT pin('to come', debian('no-such-package'), wanted => true,
		cache => 'debian');
	CREATE TABLE alive AS
	SELECT p.name AS what, w.root, w.step, store_name(w.path) AS name
	FROM (SELECT name FROM package WHERE name IN ('gnome', 'nginx', 'libc6')
		UNION (SELECT name FROM package ORDER BY draw('l' || name) LIMIT 60)
		UNION (SELECT store_name(path) FROM closure(debian('gnome'), 'debian')
			ORDER BY draw('m' || path::text) LIMIT 60)) AS p
	LEFT JOIN LATERAL why_alive(debian(p.name), 'debian') AS w ON true;
	CREATE TABLE living AS
	WITH RECURSIVE c (name, depth) AS (
		SELECT unnest('{gnome,postgresql,nginx}'::text[]) COLLATE "C", 0
		UNION SELECT e.dst, c.depth + 1 FROM c JOIN edge AS e ON e.src = c.name
			JOIN package AS p ON p.name = e.dst WHERE c.depth < 30)
	SELECT name, min(depth) AS depth FROM c GROUP BY name;
	END
is(sql(q{SELECT count(*) FROM (SELECT what, max(step) AS last FROM alive
		GROUP BY what) AS a LEFT JOIN living AS l ON l.name = a.what
	WHERE a.last IS DISTINCT FROM l.depth}), 0,
	'what stays has a chain from the nearest root, the rest has none');
is(sql(q{SELECT count(*) FROM alive AS s WHERE step > 0 AND NOT EXISTS (SELECT
		FROM alive AS t JOIN edge AS e ON e.src = t.name AND e.dst = s.name
		WHERE t.what = s.what AND t.step = s.step - 1 AND t.root = s.root)
	OR step = 0 AND name <> ALL (CASE root WHEN 'desktop' THEN '{gnome}'
		WHEN 'server' THEN '{postgresql,nginx}'::text[] ELSE '{}' END)
	OR step = (SELECT max(step) FROM alive AS t WHERE t.what = s.what)
		AND name <> what}), 0,
	'from the root down, each step a dependency, to the path');
is(sql(q{SELECT count(*) FILTER (WHERE step IS NULL) > 5,
	count(DISTINCT what) FILTER (WHERE step > 1) > 20 FROM alive}), 't|t',
	'there were both');

# ---- order, across cycles

sql(<<~END);
	CREATE TABLE ordered AS
	SELECT store_name(path) COLLATE "C" AS name, position
	FROM dependency_order(ARRAY(SELECT debian(name) FROM (
			(SELECT name FROM package ORDER BY draw('o' || name) LIMIT 150)
			UNION (SELECT e.src FROM edge AS e JOIN edge AS f
				ON f.src = e.dst AND f.dst = e.src
				ORDER BY draw(e.src) LIMIT 150)) AS p
		ORDER BY draw('p' || name)), 'debian');
	CREATE TABLE needs AS
	SELECT s.name AS a, t.name AS b FROM ordered AS s,
		LATERAL (@{[reached('src', 'dst')]}) AS t
	WHERE t.name IN (SELECT name FROM ordered);
	CREATE INDEX ON needs (a, b);
	ANALYZE ordered, needs;
	END
is(sql(q{SELECT count(*) = max(position) AND count(*) = count(DISTINCT name)
	AND count(*) > 150 FROM ordered}), 't', 'each once, without a gap');
is(sql(q{SELECT count(*) FROM needs JOIN ordered AS x ON x.name = a
	JOIN ordered AS y ON y.name = b WHERE y.position > x.position
	AND NOT EXISTS (SELECT FROM needs AS n WHERE n.a = needs.b
		AND n.b = needs.a)}), 0, 'each behind all that it needs');
is(sql(q{SELECT count(*) FILTER (WHERE last - first + 1 <> n), max(n) > 1
	FROM (SELECT c, count(*) AS n, min(position) AS first,
			max(position) AS last
		FROM ordered AS o, LATERAL (SELECT min(n.b) AS c FROM needs AS n
			JOIN needs AS m ON m.a = n.b AND m.b = n.a WHERE n.a = o.name) AS t
		GROUP BY c) AS components}), '0|t',
	'those of one cycle one after the other');

# ---- memory and patience

$node->append_conf('postgresql.conf', "log_temp_files = 0\n");
$node->reload;
my $all = q{(SELECT array_agg(debian(name)) FROM package)};
my $log = -s $node->logfile;
is(sql("SET work_mem = '64kB'; SELECT count(*) FROM closures($all, 'debian')"),
	$npackages, 'with little memory');
like(substr(slurp_bytes($node->logfile), $log), qr/temporary file/,
	'what does not fit goes to a file');

# Somebody who does not want to wait does not have to.
for my $query ("closures($all, 'debian')", "missing('debian')",
	"dependency_order($all, 'debian')",
	"referrer_closure(debian('libc6'), 'debian')")
{
	my $begin = time;
	sql("SELECT count(*) FROM $query");
	my $whole = time - $begin;
	my $timeout = int(1000 * $whole / 10) + 1;
	$begin = time;
	my ($status, undef, $err) = $node->psql('postgres',
		"SET statement_timeout = $timeout; SELECT count(*) FROM $query");
	like($err, qr/statement timeout/, sprintf '%s ends when told, %.2f of %.2f s',
		$query =~ s/\(.*//r, time - $begin, $whole);
}

$node->stop;
done_testing();
