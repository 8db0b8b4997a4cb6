# Dumps are restored whole or not at all, here and elsewhere, and what is
# restored or a copy publishes only after narinfo.start().
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use File::Path qw(remove_tree);
use IPC::Run;
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The SQL of a narinfo whose hash ends with these digits, an expression.
sub made
{
	my ($digits) = @_;
	return "public.made($digits)::narinfo.narinfo";
}

# What is to be the same after a restore; each has rows.
my @tables = qw(cache divergence event file_source key quota root root_source site
	site_cache token trash valid_path);

my $keys = PostgreSQL::Test::Utils::tempdir . '/keys';
mkdir $keys, 0700 or die "$keys: $!";
my $from = narinfo_node('from', init => [ allows_streaming => 1 ],
	conf => "autovacuum = off\npg_narinfo.key_directory = '$keys'\n");
my $to = narinfo_node('to', database => 'served', extension => 0);
my $dir = $from->basedir;
my $key = $public_key;
chomp $key;

$from->safe_psql('postgres', q{
	CREATE FUNCTION public.made(digits text) RETURNS text LANGUAGE sql
	RETURN format(E'StorePath: /nix/store/%s-n\nURL: nar/n.nar\n'
		'NarHash: sha256:%s\nNarSize: 5\n', lpad(digits, 32, '0'),
		repeat('0', 52))});
$from->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");
$from->safe_psql('postgres', <<~END);
	SELECT narinfo.create_cache('second', require_closure => false,
		on_divergence => 'keep', filter => NULL);
	SELECT narinfo.trust_key('$key', 'second');
	INSERT INTO narinfo.valid_path (cache, info)
		SELECT 'second', info FROM narinfo.valid_path LIMIT 10;
	SELECT narinfo.create_cache('gone');
	INSERT INTO narinfo.valid_path (cache, info)
		VALUES ('gone', ${\ made("'1'")});
	SELECT narinfo.publish(${\ made("'2'")}, 'second');
	SELECT narinfo.publish(replace(public.made('2'), 'sha256:0',
		'sha256:1')::narinfo.narinfo, 'second');
	SELECT narinfo.retract(ARRAY['/nix/store/${\ ('0' x 31)}2-n']
		::narinfo.store_path[], false, 'second');
	SELECT narinfo.drop_cache('gone');
	SELECT narinfo.publish(info) FROM narinfo.valid_path WHERE cache = 'main';
	END
# Roots of every kind.
$from->safe_psql('postgres', <<~END);
	SELECT narinfo.set_quota('team', 'live', 1000000000);
	SELECT narinfo.add_file_source('http://a.example:80/x', 7, 'second');
	SELECT narinfo.add_file_source('https://[::1]:8080', cache => NULL);
	SELECT narinfo.pin('top', '$top_path', 'team', 'live', 'infinity',
		keep_last => 3, keep_for => '1 month 2 days 3.5 seconds');
	SELECT narinfo.pin('next', '/nix/store/${\ ('0' x 31)}3-n', wanted => true,
		cache => 'second');
	SELECT narinfo.add_root_source('query', 'SELECT path FROM narinfo.root');
	SELECT narinfo.add_root_source('ca', kind => 'content_addressed');
	END
# What another site has told.
$from->safe_psql('postgres', q{
	INSERT INTO narinfo.site VALUES ('oslo', 'mirror', 'paris', NULL, 1, 'd',
		'0.1.0', 1, 0, NULL, NULL, NULL, now());
	INSERT INTO narinfo.site_cache (site, cache, seq, epoch, digest, at)
		VALUES ('oslo', 'main', 1, 1, '\\x00', now())});
# Rows that came before the cache had a key, which no restore must sign.
$from->safe_psql('postgres', q{SELECT narinfo.generate_key('key');
	SELECT narinfo.alter_cache('second', sign_with => 'key');
	SELECT narinfo.create_token('laptop', ARRAY['read'], NULL, 'second')});
# Old events are not there any more, which the reverse index must not miss.
ok($from->poll_query_until('postgres', q{SELECT seq = narinfo.last_event('main')
	FROM narinfo.referrer_state WHERE cache = 'main'}), 'the janitor works');
is($from->safe_psql('postgres', q{SELECT narinfo.cut_events('0', 50, 'main')}),
	50, 'old events are removed');
is($from->safe_psql('postgres', q{SELECT narinfo.node_state()}), 'primary',
	'the first write gave it its identity');

# ---- comparing

# Every row of each table, as text.
sub content
{
	my ($node, $database) = @_;
	my %content = map { $_ => '' } @tables;
	my $all = join ' UNION ALL ',
		map { "SELECT '$_ ' || t::text AS row FROM narinfo.$_ AS t" } @tables;
	for (split /^/, $node->safe_psql($database,
		qq{SELECT row FROM ($all) AS a ORDER BY row COLLATE "C"}))
	{
		my ($table) = /^([a-z_]+) \(/ or next;
		$content{$table} .= $_;
	}
	return \%content;
}

sub same_content
{
	my ($node, $database, $expected, $what) = @_;
	my $got = content($node, $database);
	for my $table (@tables)
	{
		ok($got->{$table} eq $expected->{$table}, "$what: $table is equal");
	}
}

# Every cache's numbers have no gap, and its last digest is that of its rows.
my $sound = q{
	SELECT bool_and(n = last - first + 1
			AND digest = narinfo.cache_digest(cache))
	FROM (SELECT cache, count(*) AS n, min(seq) AS first, max(seq) AS last,
			(array_agg(digest ORDER BY seq DESC))[1] AS digest
		FROM narinfo.event GROUP BY cache) AS e};

# publish() of one more path, and its error.
sub publish
{
	my ($node, $database, $digits) = @_;
	my $info = made($digits // "'9'");
	my ($ret, $out, $err) = $node->psql($database,
		"SELECT narinfo.publish($info)");
	return $ret == 0 ? 'published' : $err;
}

# Restored already: refused, then started, then the next number.
my $last;
sub starts
{
	my ($node, $database, $expected, $what) = @_;
	is($node->safe_psql($database, 'SELECT narinfo.node_state()'),
		'restoring', "$what: it is being restored");
	same_content($node, $database, $expected, $what);
	like(publish($node, $database),
		qr/restored from a dump.*HINT:.*SELECT narinfo\.start\(\)/s,
		"$what: nothing is published");
	my ($ret, $out, $err) = $node->psql($database,
		"\\set VERBOSITY sqlstate\nDELETE FROM narinfo.valid_path",
		on_error_stop => 1);
	like($err, qr/NI005/, "$what: nor changed otherwise");

	my ($ret2, $out2, $err2) =
		$node->psql($database, 'SELECT narinfo.start()');
	is($ret2, 0, "$what: it starts") or diag $err2;
	same_content($node, $database, $expected, "$what, started");
	is($node->safe_psql($database, $sound), 't', "$what: and is sound");
	is($node->safe_psql($database, 'SELECT narinfo.node_state()'), 'primary',
		"$what: it is a primary");
	is($node->safe_psql($database, q{SET search_path = narinfo, public;
		SELECT count(*) FROM valid_path AS v, unnest(refs(v.info)) AS r
		WHERE v.cache = 'main' AND store_hash(r) <> v.hash
			AND NOT store_path(v.info) IN (SELECT referrers(r, 'main'))}), 0,
		"$what: the reverse index has every edge");
	is(publish($node, $database), 'published', "$what: it publishes");
	is($node->safe_psql($database, q{SELECT max(seq), max(epoch)
		FROM narinfo.event WHERE cache = 'main'}), ($last + 1) . '|2',
		"$what: with the next number, in another epoch");
	is($node->safe_psql($database, $sound), 't', "$what: and stays sound");
	$node->safe_psql($database, 'SELECT narinfo.start()');
	is($node->safe_psql($database, 'SELECT epoch FROM narinfo.node'), 2,
		"$what: to start again does nothing");
}

sub run_ok
{
	my ($what, @command) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);
	ok($ok && $err eq '', $what) or diag "$out$err";
}

sub at
{
	my ($node, $database) = @_;
	return ('-h', $node->host, '-p', $node->port, '-d', $database);
}

my @dump = ('pg_dump', '--no-publications', '--no-subscriptions',
	at($from, 'postgres'));
my $content = content($from, 'postgres');
$last = $from->safe_psql('postgres', 'SELECT narinfo.last_event()');
isnt($content->{$_}, '', "there is something in $_") for @tables;
run_ok('pg_dump', @dump, '-f', "$dir/plain.sql");
run_ok('pg_dump -Fc', @dump, '-Fc', '-f', "$dir/custom");
run_ok('pg_dump -Fd -j 2', @dump, '-Fd', '-j', 2, '-f', "$dir/directory");
run_ok('pg_dump --inserts', @dump, '--inserts', '-f', "$dir/inserts.sql");

# ---- into the same cluster, and another one

sub new_database
{
	my ($node, $database) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	return at($node, $database);
}

sub psql_ok
{
	my ($what, $file, @at) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1',
		@at, '-f', $file ], '>', \$out, '2>', \$err);
	ok($ok && $err eq '', $what) or diag $err;
}

for my $node ($from, $to)
{
	my $name = $node->name;

	psql_ok("plain, $name", "$dir/plain.sql", new_database($node, 'plain'));
	starts($node, 'plain', $content, "plain, $name");
	run_ok("custom, $name", 'pg_restore', '--exit-on-error',
		new_database($node, 'custom'), "$dir/custom");
	starts($node, 'custom', $content, "custom, $name");
	run_ok("directory, two jobs, $name", 'pg_restore', '--exit-on-error',
		'-j', 2, new_database($node, 'directory'), "$dir/directory");
	starts($node, 'directory', $content, "directory, $name");
}
psql_ok('inserts', "$dir/inserts.sql", new_database($to, 'inserts'));
starts($to, 'inserts', $content, 'inserts');
run_ok('one transaction', 'pg_restore', '--exit-on-error', '-1',
	new_database($to, 'single'), "$dir/custom");
starts($to, 'single', $content, 'one transaction');

# ---- the data alone, where the extension was dropped and made again

for my $options ([], [ '-j', 2 ], [ '--disable-triggers' ])
{
	$to->safe_psql('custom',
		'DROP EXTENSION pg_narinfo; CREATE EXTENSION pg_narinfo');
	run_ok("data alone @$options", 'pg_restore', '--exit-on-error',
		'--data-only', @$options, at($to, 'custom'), "$dir/custom");
	starts($to, 'custom', $content, "data alone @$options");
}
is($to->safe_psql('custom', q{SELECT string_agg(tgenabled::text, ''
		ORDER BY tgname, tgrelid::regclass::text) FROM pg_trigger
	WHERE tgname IN ('changed', 'check_applied')}), 'AAAAR',
	'triggers are as the extension made them');

# ---- what has a history takes no dump

my ($ret, $out, $err);
$ret = IPC::Run::run([ 'pg_restore', '--data-only', at($to, 'plain'),
	"$dir/custom" ], '>', \$out, '2>', \$err);
ok(!$ret, 'a dump into a database in use fails');
like($err, qr/events are written by the gate alone/, 'and says why');
is($to->safe_psql('plain', $sound), 't', 'which does it no harm');

# ---- a script that does not look like one of pg_dump

my $script = slurp_file("$dir/plain.sql");
$script =~ s/^SET check_function_bodies.*\n//m;
append_to_file("$dir/other.sql", $script);
my @other = new_database($to, 'other');
{
	local $ENV{PGOPTIONS} = '-c pg_narinfo.restore=on';
	psql_ok('another script, with the setting', "$dir/other.sql", @other);
}
starts($to, 'other', $content, 'another script');

# ---- HTTP

my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
run_ok('into the database that is served', 'pg_restore', '--exit-on-error',
	'-j', 2, at($to, 'served'), "$dir/directory");
ok(poll_until(sub {
	my $reply = eval { http_get($to->{http_port}, '/health') };
	$reply && $reply->{status} == 503 && $reply->{body} =~ /being restored/;
}), '/health: 503, and why');
for my $path ("/$hash.narinfo", '/nix-cache-info', '/second/nix-cache-info')
{
	my $reply = http_get($to->{http_port}, $path);
	is($reply->{status}, 503, "$path: 503");
	ok($reply->{headers}{'retry-after'}, 'with Retry-After');
}
is($to->safe_psql('served', 'SELECT count(*) FROM narinfo.referrer_state'), 0,
	'the janitor waits');
starts($to, 'served', $content, 'served');
like(http_get($to->{http_port}, '/health')->{body}, qr/"ok".*"reasons": \[\]/,
	'then it is healthy');
is(http_get($to->{http_port}, "/$hash.narinfo")->{body},
	slurp_bytes("$cache_dir/$hash.narinfo"), 'and serves what was restored');

# ---- damage is found

sub damaged
{
	my ($what, $sql, $wanted) = @_;
	$to->safe_psql('postgres', 'DROP DATABASE IF EXISTS damaged');
	run_ok("$what: restored", 'pg_restore', '--exit-on-error',
		new_database($to, 'damaged'), "$dir/custom");
	$to->safe_psql('damaged', "SET session_replication_role = replica; $sql");
	($ret, $out, $err) = $to->psql('damaged', 'SELECT narinfo.start()');
	isnt($ret, 0, "$what: it does not start");
	like($err, $wanted, "$what: and says what is wrong");
	is($to->safe_psql('damaged', 'SELECT narinfo.node_state()'), 'restoring',
		"$what: it stays as it was");
	like(publish($to, 'damaged'), qr/restored from a dump/,
		"$what: and publishes nothing");
}

damaged('a path removed', q{DELETE FROM narinfo.valid_path
	WHERE ctid = (SELECT min(ctid) FROM narinfo.valid_path
		WHERE cache = 'second')},
	qr/Cache "second": its rows have digest \\x[0-9a-f]{32}, and event \d+, the last, has \\x[0-9a-f]{32}/);
damaged('a time changed', q{UPDATE narinfo.valid_path
	SET registered = registered + interval '1 microsecond'
	WHERE ctid = (SELECT min(ctid) FROM narinfo.valid_path
		WHERE cache = 'main')},
	qr/DETAIL:  Cache "main": its rows have digest [^\n]*\nHINT/);
damaged('a policy changed', q{UPDATE narinfo.cache SET priority = 7},
	qr/Cache "main": its rows.*\nCache "second": its rows/);
damaged('a key removed', q{DELETE FROM narinfo.key},
	qr/Cache "second": its rows/);
damaged('a pin removed', q{DELETE FROM narinfo.root WHERE cache = 'main'},
	qr/Cache "main": its rows/);
damaged('an event removed',
	q{DELETE FROM narinfo.event WHERE cache = 'main' AND seq = 60},
	qr/Cache "main": of its events 51 to \d+ only \d+ are there/);
damaged('the last event removed',
	q{DELETE FROM narinfo.event WHERE cache = 'main' AND
		seq = narinfo.last_event('main')},
	qr/Cache "main": its rows have digest/);
damaged('no events', 'DELETE FROM narinfo.event',
	qr/Cache "main": it has rows, but no events/);
# with a digest to match
damaged('a reference that is not there', qq{
	DELETE FROM narinfo.valid_path
		WHERE cache = 'main' AND hash::text <> '$hash';
	UPDATE narinfo.event SET digest = narinfo.cache_digest('main')
		WHERE cache = 'main' AND seq = narinfo.last_event('main')},
	qr/reference \S+ is not valid in cache "main"/);

# ---- a dump while others publish

my @publishers = map {
	my $n = $_;
	my $cache = $n % 2 ? 'main' : 'second';
	IPC::Run::start([ 'psql', '-X', '-q', at($from, 'postgres'), '-c',
		qq{DO \$\$ BEGIN
			FOR i IN 1..100000 LOOP
				PERFORM narinfo.publish(${\ made("'$n' || i")}, '$cache');
				COMMIT;
				EXIT WHEN EXISTS (SELECT FROM pg_tables
					WHERE tablename = 'stop_publishing');
			END LOOP;
		END \$\$} ], '>', '/dev/null')
} 1 .. 3;
my $begun = $from->safe_psql('postgres', 'SELECT narinfo.last_event()');
ok($from->poll_query_until('postgres',
	"SELECT narinfo.last_event() > $begun + 100"), 'publishers run');
run_ok('pg_dump while they do', @dump, '-Fc', '-f', "$dir/busy");
run_ok('pg_dump -j 2 as well', @dump, '-Fd', '-j', 2, '-f', "$dir/busyd");
$begun = $from->safe_psql('postgres', 'SELECT narinfo.last_event()');
ok($from->poll_query_until('postgres',
	"SELECT narinfo.last_event() > $begun + 10"), 'they still run');
$from->safe_psql('postgres', 'CREATE TABLE stop_publishing ()');
$_->finish for @publishers;
for my $dump ('busy', 'busyd')
{
	run_ok("$dump: restored", 'pg_restore', '--exit-on-error', '-j', 2,
		new_database($to, $dump), "$dir/$dump");
	is($to->safe_psql($dump, $sound), 't', "$dump: a moment of it");
	cmp_ok($to->safe_psql($dump, 'SELECT narinfo.last_event()'), '<', $begun,
		"$dump: and not the last one");
	($ret, $out, $err) = $to->psql($dump, 'SELECT narinfo.start()');
	is($ret, 0, "$dump: it starts") or diag $err;
	is(publish($to, $dump), 'published', "$dump: and publishes");
	is($to->safe_psql($dump, $sound), 't', "$dump: soundly");
}
is($from->safe_psql('postgres', $sound), 't', 'the publishers\' is sound');

# ---- a copy of the database

$from->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE plain');
like(publish($from, 'copy', "'8'"), qr/does not publish.*HINT:.*start/s,
	'a copy of the database is fenced');
$from->safe_psql('copy', 'SELECT narinfo.start()');
is(publish($from, 'copy', "'8'"), 'published', 'until it is started');
is($from->safe_psql('copy', $sound), 't', 'it is sound');
is($from->safe_psql('copy', 'SELECT epoch FROM narinfo.node'), 3,
	'and in an epoch of its own');

# ---- a base backup, a standby, that is promoted

$from->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $port = PostgreSQL::Test::Cluster::get_free_port();
$standby->init_from_backup($from, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf',
	"pg_narinfo.listen = '127.0.0.1:$port'\n");
$standby->start;
ok(wait_for_http($port), 'a standby serves');
is($standby->safe_psql('postgres', 'SELECT narinfo.node_state()'), 'standby',
	'and knows what it is');
my $session = $standby->background_psql('postgres');
is($session->query_safe('SELECT narinfo.node_state()'), 'standby',
	'so does a session');
$standby->promote;
is($session->query_safe('SELECT narinfo.node_state()'), 'fenced',
	'promoted, it is fenced, also for who was there');
$session->quit;
my $before = $standby->safe_psql('postgres', 'SELECT narinfo.last_event()');
like(publish($standby, 'postgres', "'7'"), qr/does not publish.*HINT:.*start/s,
	'it publishes nothing');
is(http_get($port, "/$hash.narinfo")->{status}, 200, 'but serves');
is(http_get($port, '/health')->{status}, 200, 'and is healthy');
like(http_get($port, '/health')->{body}, qr/does not publish/, 'says how');
is(publish($from, 'postgres', "'7'"), 'published', 'the other one publishes');
$standby->safe_psql('postgres', 'SELECT narinfo.start()');
is(publish($standby, 'postgres', "'7'"), 'published', 'until it is started');
is($standby->safe_psql('postgres', q{SELECT max(seq), max(epoch)
	FROM narinfo.event WHERE cache = 'main'}), ($before + 1) . '|2',
	'then the next number, in another epoch');
is($standby->safe_psql('postgres', $sound), 't', 'it is sound');
like(http_get($port, '/health')->{body}, qr/"ok".*"reasons": \[\]/,
	'healthy without more');

# ---- without workers

$to->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$to->restart;
run_ok('restored without workers', 'pg_restore', '--exit-on-error',
	new_database($to, 'plainer'), "$dir/custom");
starts($to, 'plainer', $content, 'without workers');

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	'nothing crashed') for ($from, $to, $standby);

done_testing();
