# Roots at work: a release of many paths is pinned, listed, told to followers
# and taken up by the janitor's pruning; what fails is refused as a whole.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('roots', init => [ allows_streaming => 1 ],
	conf => "pg_narinfo.root_prune_interval = '1s'\n"
	. "pg_narinfo.usage_interval = '1s'\n");
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

# The error of a statement, with its SQLSTATE.
sub refusal
{
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$_[0]", on_error_stop => 1);
	return $ret ? $err : "no error: $out";
}

my $sound = q{SELECT bool_and(n = last - first + 1
		AND digest = narinfo.cache_digest(cache))
	FROM (SELECT cache, count(*) AS n, min(seq) AS first, max(seq) AS last,
			(array_agg(digest ORDER BY seq DESC))[1] AS digest
		FROM narinfo.event GROUP BY cache) AS e};

# ---- the small real cache: what a quota counts is the closure

sql("CALL narinfo.import_cache('$cache_dir')");
my $bytes = sql(qq{WITH RECURSIVE closure (hash) AS (
		SELECT '$top_path'::narinfo.store_path::narinfo.store_hash
		UNION SELECT r FROM closure AS c
			JOIN narinfo.valid_path AS v ON v.cache = 'main'
				AND v.hash OPERATOR(narinfo.=) c.hash
			CROSS JOIN unnest(narinfo.ref_hashes(v.info)) AS r)
	SELECT sum(narinfo.nar_size(v.info)) FROM closure AS c
		JOIN narinfo.valid_path AS v ON v.cache = 'main'
			AND v.hash OPERATOR(narinfo.=) c.hash});
cmp_ok($bytes, '>', 20_000, 'the closure has its size');
sql("SELECT narinfo.set_quota('team', NULL, $bytes - 1)");
like(refusal("SELECT narinfo.pin('top', '$top_path', 'team')"),
	qr/NI006: .*"team".*DETAIL:  They would hold $bytes bytes, and may hold ${\ ($bytes - 1)}\./s,
	'a byte too many is refused, with the bytes of the closure');
is(sql('SELECT count(*) FROM narinfo.root'), 0, 'nothing is pinned');
sql("SELECT narinfo.set_quota('team', NULL, $bytes)");
is(sql("SELECT narinfo.pin('top', '$top_path', 'team')"), 1, 'exactly is let in');

# ---- a follower hears of pins, and is led to do nothing wrong

my $seq = sql('SELECT narinfo.last_event()');
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my $reply = http_get($port, '/changes?after=' . ($seq - 1))->{body};
like($reply, qr/"kind":"pin","hash":"$hash","name":"top".*"narinfo":"StorePath: \Q$top_path\E/,
	'/changes has the pin, with the path as it is');
sql("SELECT narinfo.unpin('top')");
$reply = http_get($port, "/changes?after=$seq")->{body};
like($reply, qr/"kind":"unpin","hash":"$hash","name":"top".*"narinfo":"StorePath: \Q$top_path\E/,
	'/changes has the unpin, and the path is there');

# ---- a release of many paths

my $n = 20_000;
sql(qq{SELECT narinfo.create_cache('big');
	SELECT narinfo.publish_many(array_agg(format(E'StorePath: /nix/store/%s-p%s\\n'
		'URL: nar/%s\\nNarHash: sha256:%s\\nNarSize: 9\\nReferences: \\n',
		lpad(i::text, 32, '0'), i, i, repeat('0', 52))::narinfo.narinfo), 'big')
	FROM generate_series(1, $n) AS i});
my $list = $node->basedir . '/store-paths';
sql(qq{COPY (SELECT narinfo.store_path(info) FROM narinfo.valid_path
	WHERE cache = 'big') TO '$list'});
my $start = time;
is(sql("SELECT narinfo.pin_file('release', pg_read_file('$list'), cache => 'big')"),
	1, "a list of $n paths is pinned");
note sprintf('pin_file: %.2f s for %d paths', time - $start, $n);
is(sql("SELECT narinfo.pin_file('release', pg_read_file('$list'), cache => 'big')"),
	1, 'again: no new generation');
is(sql("SELECT count(*) FROM narinfo.root WHERE cache = 'big'"), $n,
	'each of its paths is a root');
is(sql("SELECT count(*) FROM narinfo.event WHERE cache = 'big' AND kind = 'pin'"),
	$n, 'and an event');
append_to_file($list, "nonsense\n");
like(refusal("SELECT narinfo.pin_file('release', pg_read_file('$list'), cache => 'big')"),
	qr/22P02: .*line ${\ ($n + 1)}: /, 'a bad line has its number');

# as many names in one transaction cost no more than a name each
$start = time;
sql(qq{INSERT INTO narinfo.root (cache, name, path)
	SELECT 'big', 'name ' || i, format('/nix/store/%s-p%s', lpad(i::text, 32, '0'), i)::narinfo.store_path
	FROM generate_series(1, $n) AS i});
my $took = time - $start;
note sprintf('%d names in one INSERT: %.2f s', $n, $took);
is(sql("SELECT count(*) FROM narinfo.root_hashes('big')"), 2 * $n,
	'all of them are visited');
$start = time;
sql("SELECT count(*) FROM narinfo.root_hashes('big')");
note sprintf('root_visit: %.3f s for %d roots', time - $start, 2 * $n);
is(sql("SELECT count(*) FROM (SELECT hash, name FROM narinfo.root_hashes('big')
	EXCEPT ALL SELECT hash, name FROM narinfo.roots WHERE cache = 'big') AS d"),
	0, 'as the view has them');
is(sql($sound), 't', 'numbers and digests are right');
$start = time;
sql("SELECT narinfo.set_quota('wide', NULL, 1000000000, 'big');
	UPDATE narinfo.root SET owner = 'wide' WHERE cache = 'big' AND name = 'release'");
note sprintf('quota over %d paths: %.2f s', $n, time - $start);
like(refusal("SELECT narinfo.set_quota('wide', NULL, 9 * $n - 1, 'big');
	SELECT narinfo.pin('more', path, 'wide', cache => 'big') FROM narinfo.root
	WHERE cache = 'big' LIMIT 1"),
	qr/NI006: .*They would hold ${\ (9 * $n)} bytes/s, 'the quota saw them all');

# ---- the janitor removes what counts no more, with events

sql("DELETE FROM narinfo.root WHERE cache = 'big'");
sql("SELECT narinfo.pin('short', '$top_path', expires => clock_timestamp() + interval '2 s')");
is(sql("SELECT count(*) FROM narinfo.roots WHERE name = 'short'"), 1,
	'a pin that expires is a root');
ok($node->poll_query_until('postgres',
	q{SELECT NOT EXISTS (SELECT FROM narinfo.root WHERE name = 'short')}),
	'the janitor removes it when it has');
is(sql(q{SELECT string_agg(kind::text, ' ' ORDER BY seq) FROM narinfo.event
	WHERE name = 'short'}), 'pin unpin', 'which is an event');
# more names than a server has locks for
my $many = 3000;
$start = time;
is(sql(qq{SELECT count(narinfo.pin('many ' || i, '$top_path',
		expires => clock_timestamp() + interval '1 min'))
	FROM generate_series(1, $many) AS i}), $many, 'many names in one transaction');
note sprintf('%d names by pin(): %.2f s', $many, time - $start);
sql(q{UPDATE narinfo.root SET expires = now() WHERE name LIKE 'many %'});
ok($node->poll_query_until('postgres',
	q{SELECT NOT EXISTS (SELECT FROM narinfo.root WHERE name LIKE 'many %')}),
	'the janitor removes all of them');
is(sql($sound), 't', 'numbers and digests are right');

# ---- a source of the application: what it cannot tell, nobody is told

sql(q{CREATE SCHEMA hydra;
	CREATE TABLE hydra.output (path text);
	CREATE ROLE coordinator LOGIN IN ROLE narinfo_admin;
	GRANT USAGE ON SCHEMA hydra TO coordinator;
	GRANT SELECT ON hydra.output TO coordinator});
sql("INSERT INTO hydra.output VALUES ('$top_path')");
is($node->safe_psql('postgres', q{SELECT narinfo.add_root_source('hydra',
	'SELECT path FROM hydra.output')}, extra_params => [ '-U', 'coordinator' ]),
	1, 'a coordinator adds its table');
is(sql("SELECT string_agg(name || ' ' || hash, ',') FROM narinfo.root_hashes()"),
	"hydra $hash", 'it is asked whenever roots are');
# the one who asks may read everything, the source may not
sql(q{REVOKE SELECT ON hydra.output FROM coordinator});
like(refusal('SELECT count(*) FROM narinfo.root_hashes()'),
	qr/NI007: .*"hydra".*permission denied for table output.*HINT:  Nothing is collected/s,
	'its rights are those of who added it');

# ---- nor is the janitor kept from its work, and it says what failed

ok(poll_until(sub { slurp_file($node->logfile) =~
	/narinfo janitor ERROR: .*root source "hydra"|ERROR: .*root source "hydra".*failed: permission/ }),
	'the janitor cannot count what is held');
my $janitor = sql(q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'pg_narinfo janitor'});
sql("SELECT narinfo.pin('brief', '$top_path', expires => clock_timestamp() + interval '1 s')");
ok($node->poll_query_until('postgres',
	q{SELECT NOT EXISTS (SELECT FROM narinfo.root WHERE name = 'brief')}),
	'but removes what has expired');
is(sql(q{SELECT pid FROM pg_stat_activity
	WHERE backend_type = 'pg_narinfo janitor'}), $janitor, 'and goes on');
sql(q{GRANT SELECT ON hydra.output TO coordinator});
ok($node->poll_query_until('postgres',
	q{SELECT byte_days > 0 AND nar_bytes = (SELECT sum(n.nar_bytes)
		FROM narinfo.usage_sample AS n WHERE n.owner = 'coordinator')
	FROM narinfo.stat_usage WHERE owner = 'coordinator'}),
	'when it can, it counts byte-days');
# nor does it do anything by the rights of who asks
sql(q{CREATE TABLE public.secret (); REVOKE ALL ON public.secret FROM PUBLIC;
	CREATE FUNCTION hydra.climb() RETURNS text LANGUAGE plpgsql AS $$
		BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'RESET SESSION AUTHORIZATION';
			RETURN (SELECT count(*)::text FROM public.secret); END $$});
like(refusal("INSERT INTO narinfo.root_source (name, query, owner) VALUES
		('climb', 'SELECT hydra.climb()', 'coordinator');
	SELECT count(*) FROM narinfo.root_hashes()"),
	qr/NI007: .*"climb" .*cannot set parameter "role"/s,
	'it cannot become the one who asks');
sql("SELECT narinfo.drop_root_source('climb')");
is(sql('SELECT count(*) FROM narinfo.root_hashes()'), 1, 'it works again');

# ---- a standby can tell the roots, too

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$standby->start;
sql("SELECT narinfo.pin('late', '$top_path')");
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', 'SELECT string_agg(name, \' \') FROM narinfo.root_hashes()'),
	'late hydra', 'a hot standby knows pins, and asks sources');

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed') for ($node, $standby);

done_testing();
