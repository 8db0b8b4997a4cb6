# A mirror joins with one call, proves that it is equal, refuses changes,
# serves, votes, and leaves without leaving anything behind; so do mirrors of
# mirrors, and those of some caches.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $paris = narinfo_site('paris', conf => "pg_narinfo.site = 'paris'\n"
	. "pg_narinfo.site_url = 'http://paris.example.org'\n");
my $oslo = narinfo_site('oslo');
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub fails
{
	my ($node, $sql, $pattern, $what) = @_;
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$sql", on_error_stop => 1);
	isnt($ret, 0, "$what: refused");
	like($err, $pattern, "$what: and says why");
}

# A narinfo without references, as an expression.
sub made
{
	my ($i) = @_;
	return "format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s\\nNarHash: "
		. "sha256:%s\\nNarSize: 9\\nReferences: \\n', translate(md5(($i)::text), "
		. "'e', 'z'), $i, repeat('0', 52))::narinfo.narinfo";
}

sub publish
{
	my ($node, $first, $last, $cache) = @_;
	return sql($node, 'SELECT narinfo.publish_many(array_agg(' . made('i')
		. "), '" . ($cache // 'main')
		. "') FROM generate_series($first, $last) AS i");
}

sub digests
{
	my ($node, $where) = @_;
	return sql($node, q{SELECT c, narinfo.last_event(c), narinfo.cache_digest(c),
		(SELECT digest FROM narinfo.event AS e WHERE e.cache = c
			AND e.seq = narinfo.last_event(c)) FROM narinfo.event_caches() AS c
		WHERE } . ($where // 'true') . ' ORDER BY c');
}

sub health
{
	my ($node) = @_;
	my $reply = http_get($node->{http_port}, '/health');
	return { %{ decode_json($reply->{body}) }, code => $reply->{status} };
}

sql($paris, "CALL narinfo.import_cache('$cache_dir')");
sql($paris, q{SELECT narinfo.create_cache('team'), narinfo.create_cache('other');
	SELECT narinfo.create_token('laptop', ARRAY['read'], NULL, 'team')});
sql($paris, "SELECT narinfo.pin('top', '$top_path')");
publish($paris, 1, 100, 'team');
is(health($paris)->{code}, 200, 'alone: healthy');

# ---- what is refused

my $connstr = site_conninfo($paris);
my $call = "CALL narinfo.join_site('$connstr";
fails($oslo, "$call password=secret', 'oslo')", qr/22023.*no password.*passfile/s,
	'a password');
fails($oslo, "BEGIN; $call', 'oslo')", qr/2D000/, 'in a transaction');
fails($oslo, "$call', 'Oslo!')", qr/no name for a site/, 'a bad name');
fails($oslo, "$call', 'paris')", qr/cannot mirror itself/, 'its upstream\'s name');
fails($oslo, "CALL narinfo.join_site('port=1 host=127.0.0.1', 'oslo')",
	qr/08001.*could not connect/s, 'nobody there');
fails($oslo, "$call', NULL)", qr/not NULL/, 'no name');
sql($paris, 'CREATE ROLE nobody LOGIN');
fails($oslo, "$call user=nobody', 'oslo')",
	qr/ALTER ROLE nobody REPLICATION.*GRANT narinfo_site TO nobody/s,
	'a role without rights');
sql($paris, q{ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'});
$paris->reload;
fails($oslo, "$call', 'oslo')", qr/max_slot_wal_keep_size = -1/,
	'a setting that loses slots');
sql($paris, 'ALTER SYSTEM RESET max_slot_wal_keep_size');
$paris->reload;
is(sql($paris, 'SELECT count(*) FROM pg_replication_slots'), 0,
	'no slot was left');
is(sql($oslo, 'SELECT narinfo.node_state()'), 'new', 'nothing has changed here');

# ---- joining, as a role with no more rights than it needs

sql($paris, 'CREATE ROLE mirrors LOGIN REPLICATION IN ROLE narinfo_site');
my ($ret, $out, $err) = $oslo->psql('postgres', "$call user=mirrors', 'oslo',
	conninfo => '" . site_conninfo($oslo) . "',
	url => 'http://oslo.example.org')");
is($ret, 0, 'joined') or diag $err;
like($err, qr/site "oslo" is a mirror of site "paris"/, 'and says so');
is(digests($oslo), digests($paris), 'it has the same');
is(sql($oslo, 'SELECT narinfo.node_state()'), 'mirror', 'it is a mirror');
is(sql($oslo, 'SELECT count(*) FROM narinfo.token'), 1, 'with tokens');
is(sql($oslo, 'SELECT count(*) FROM narinfo.root'), 1, 'and roots');
is(sql($paris, q{SELECT string_agg(cache || vote, ' ' ORDER BY cache)
	FROM narinfo.stat_sites WHERE site = 'oslo'}),
	'maintrue othertrue teamtrue', 'it votes for each cache');
is(sql($paris, q{SELECT DISTINCT slot || slot_state FROM narinfo.stat_sites
	WHERE site = 'oslo'}), 'narinfo_osloactive', 'by its slot');
is(sql($oslo, q{SELECT subbinary, subsynccommit, subdisableonerr, subslotname
	FROM pg_subscription}), 't|local|t|narinfo_oslo', 'the subscription');
is(http_get($oslo->{http_port}, "/$hash.narinfo")->{body},
	slurp_bytes("$cache_dir/$hash.narinfo"), 'it serves');
is(http_get($oslo->{http_port}, '/health')->{status}, 200, 'and is healthy');
is(health($oslo)->{upstream}, 'paris', 'as a site');
like(($oslo->psql('postgres', "$call user=mirrors', 'oslo')"))[2],
	qr/has joined already/, 'called again');

# ---- changes go one way

publish($paris, 101, 200);
ok(caught_up($oslo, $paris), 'what is published comes');
is(digests($oslo), digests($paris), 'and is the same');
sql($paris, "SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
	FROM narinfo.valid_path WHERE narinfo.store_name(narinfo.store_path(info))
	= 'p' AND cache = 'main' LIMIT 10))");
sql($paris, q{SELECT narinfo.create_cache('late')});
publish($paris, 1, 10, 'late');
ok(caught_up($oslo, $paris) && caught_up($oslo, $paris, 'late'), 'removals, new caches');
is(digests($oslo), digests($paris), 'the same');
is(sql($oslo, 'SELECT count(*) FROM narinfo.trash'), 10, 'trash, too');
is(http_get($oslo->{http_port}, '/late/nix-cache-info')->{status}, 200,
	'the new cache is served');
ok(poll_until(sub { sql($paris, q{SELECT vote FROM narinfo.stat_sites
	WHERE site = 'oslo' AND cache = 'late'}) eq 't' }), 'and voted for');
ok(poll_until(sub { sql($oslo, q{SELECT bool_and(seq =
	narinfo.last_event(cache)) FROM narinfo.referrer_state}) eq 't' }),
	'the reverse index follows');
is(sql($oslo, qq{SET search_path = narinfo, public;
	SELECT count(*) FROM valid_path AS v, unnest(refs(v.info)) AS r
	WHERE v.cache = 'main' AND store_hash(r) <> v.hash
		AND NOT store_path(v.info) IN (SELECT referrers(r, 'main'))}), 0,
	'and has every edge');

# What HTTP remembers of absent and of valid paths, and files to be removed.
my $one = sql($paris, q{SELECT translate(md5('5000'), 'e', 'z')});
is(http_get($oslo->{http_port}, "/$one.narinfo")->{status}, 404, 'absent');
publish($paris, 5000, 5000);
ok(caught_up($oslo, $paris), 'published');
is(http_get($oslo->{http_port}, "/$one.narinfo")->{status}, 200, 'there at once');
sql($paris, "SELECT narinfo.retract(ARRAY['/nix/store/$one-p'::narinfo.store_path])");
ok(caught_up($oslo, $paris), 'retracted');
is(http_get($oslo->{http_port}, "/$one.narinfo")->{status}, 404, 'gone at once');
is(sql($oslo, "SELECT path FROM narinfo.file_removal WHERE hash::text = '$one'"),
	'nar/5000', 'its file waits for removal');

for my $change ('SELECT narinfo.publish(' . made(900) . ')',
	'DELETE FROM narinfo.valid_path', 'DELETE FROM narinfo.trash',
	"SELECT narinfo.pin('x', '$top_path')",
	q{SELECT narinfo.create_cache('x')},
	q{SELECT narinfo.revoke_token('laptop', 'team')})
{
	fails($oslo, $change, qr{NI010.*mirror.*site "paris" at http://paris.example.org}s,
		$change =~ /^(\w+ [\w.]+)/);
}
my $token = sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'])});
ok(caught_up($oslo, $paris), 'a token');
my $reply = http_put($oslo->{http_port}, "/$hash.narinfo", 'x',
	Authorization => "Bearer $token");
is($reply->{status}, 403, 'PUT');
like($reply->{body}, qr{http://paris.example.org}, 'and where to put it');
fails($oslo, 'DROP EXTENSION pg_narinfo', qr/leave_site/, 'DROP EXTENSION');
fails($paris, 'DROP EXTENSION pg_narinfo', qr/oslo.*dismiss_site/s,
	'DROP EXTENSION at the primary');

# ---- a mirror of the mirror, and one of some caches

my $bonn = narinfo_site('bonn');
is(join_site($bonn, $oslo), 'joined', 'a mirror of a mirror');
is(digests($bonn), digests($paris), 'has everything');
my $lima = narinfo_site('lima');
fails($lima, $call . "', 'oslo')", qr/another site "oslo"/, 'a name twice');
is(join_site($lima, $paris, "caches => ARRAY['team', 'late']"), 'joined',
	'a mirror of two caches');
is(digests($lima), digests($paris, "c IN ('team', 'late')"), 'has these');
publish($paris, 301, 330, $_) for qw(main team);
ok(caught_up($bonn, $paris) && caught_up($bonn, $paris, 'team')
	&& caught_up($lima, $paris, 'team'), 'changes come');
is(digests($bonn), digests($paris), 'all to one');
is(digests($lima), digests($paris, "c IN ('team', 'late')"), 'some to the other');
ok(poll_until(sub { sql($paris, q{SELECT string_agg(DISTINCT site || '<'
	|| coalesce(upstream, '-'), ' ' ORDER BY site || '<'
	|| coalesce(upstream, '-')) FROM narinfo.stat_sites})
	eq 'bonn<oslo lima<paris oslo<paris paris<-' }), 'the primary knows all');
ok(poll_until(sub { sql($lima, q{SELECT string_agg(DISTINCT site, ' ' ORDER BY
	site) FROM narinfo.stat_sites}) eq 'bonn lima oslo paris' }),
	'and the last one, too');
is(sql($paris, q{SELECT string_agg(cache, ' ' ORDER BY cache)
	FROM narinfo.stat_sites WHERE site = 'lima' AND vote}), 'late team',
	'it votes for its caches alone');
fails($lima, 'CALL narinfo.promote()', qr/takes some of the caches only/,
	'promoting that one');
fails($bonn, 'SELECT narinfo.publish(' . made(901) . ')', qr/site "paris"/,
	'two steps down, the primary is named');

# ---- leaving

fails($oslo, 'CALL narinfo.leave_site()', qr/mirror this one: bonn/,
	'one that has a mirror');
sql($bonn, 'CALL narinfo.leave_site()');
sql($lima, 'CALL narinfo.leave_site()');
sql($oslo, 'CALL narinfo.leave_site()');
is(sql($_, q{SELECT (SELECT count(*) FROM pg_replication_slots)
	+ (SELECT count(*) FROM pg_publication)
	+ (SELECT count(*) FROM pg_subscription)
	+ (SELECT count(*) FROM pg_replication_origin)
	+ (SELECT count(*) FROM narinfo.site_link)}), 0, $_->name . ': nothing is left')
	for $paris, $oslo, $bonn, $lima;
is(sql($bonn, 'SELECT narinfo.node_state()'), 'fenced', 'it is fenced');
is(http_get($bonn->{http_port}, "/$hash.narinfo")->{status}, 200, 'and serves on');
fails($bonn, 'SELECT narinfo.publish(' . made(902) . ')', qr/NI005/, 'a change');
sql($bonn, 'SELECT narinfo.start()');
is(publish($bonn, 902, 902), 1, 'until it is started');
is(sql($bonn, q{SELECT narinfo.site_name() || ' ' || narinfo.node_state()}),
	'bonn primary', 'it has its name');
is(sql($bonn, q{SELECT epoch FROM narinfo.event WHERE cache = 'main'
	ORDER BY seq DESC LIMIT 1}), 2, 'in an epoch of its own');
sql($lima, 'DROP EXTENSION pg_narinfo');
pass('and can be dropped');
unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for $paris, $oslo, $bonn, $lima;

done_testing();
