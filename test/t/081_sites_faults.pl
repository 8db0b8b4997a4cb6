# What goes wrong with a mirror: connections that are cut, errors of the data,
# gaps, epochs that are over, rows that are damaged.  The first pass by
# themselves, the others stop it visibly and are mended with one call.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $paris = narinfo_site('paris');
my $oslo = narinfo_site('oslo');
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub call
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$sql", on_error_stop => 1);
	return ($ret, $err);
}

sub publish
{
	my ($first, $last) = @_;
	return sql($paris, "SELECT narinfo.publish_many(array_agg(format(E'StorePath: "
		. "/nix/store/%s-p\\nURL: nar/%s\\nNarHash: sha256:%s\\nNarSize: 9\\n"
		. "References: \\n', translate(md5(i::text), 'e', 'z'), i, "
		. "repeat('0', 52))::narinfo.narinfo)) "
		. "FROM generate_series($first, $last) AS i");
}

sub digest
{
	my ($node) = @_;
	return sql($node, 'SELECT narinfo.last_event(), narinfo.cache_digest()');
}

sub health
{
	my $reply = http_get($oslo->{http_port}, '/health');
	return ($reply->{status}, $reply->{body});
}

# What the mirror, and what the primary tells of it.
sub reason
{
	my ($node) = @_;
	return sql($node, q{SELECT coalesce(max(reason), 'fine')
		FROM narinfo.stat_sites WHERE site = 'oslo'});
}

sub vote { return sql($paris, q{SELECT bool_and(vote) FROM narinfo.stat_sites
	WHERE site = 'oslo'}) }

sub enabled { return sql($oslo, 'SELECT subenabled FROM pg_subscription') }

sql($paris, "CALL narinfo.import_cache('$cache_dir')");
publish(1, 3000);
is(join_site($oslo, $paris), 'joined', 'a mirror');
is(digest($oslo), digest($paris), 'equal');

# ---- a connection that is cut: the pause stays that of the server's setting

for my $round (1 .. 6)
{
	my $begin = time;
	sql($paris, q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	publish(3000 + 10 * $round, 3009 + 10 * $round);
	ok(caught_up($oslo, $paris), "cut $round: it goes on by itself");
	cmp_ok(time - $begin, '<', 10, 'and soon');
}
$paris->stop('immediate');
is(http_get($oslo->{http_port}, "/$hash.narinfo")->{status}, 200,
	'without the primary the mirror serves');
is((health())[0], 200, 'and is healthy');
ok(poll_until(sub { sql($oslo, q{SELECT report_error IS NOT NULL
	FROM narinfo.mirror_state}) eq 't' }), 'it notes that it cannot report');
$oslo->restart;
$paris->start;
publish(3100, 3109);
ok(caught_up($oslo, $paris), 'both were restarted: it goes on');
$oslo->stop('immediate');
publish(3200, 3209);
$oslo->start;
ok(caught_up($oslo, $paris), 'the mirror has crashed: it goes on');
is(digest($oslo), digest($paris), 'equal');

# ---- stopped by hand

sql($oslo, 'ALTER SUBSCRIPTION narinfo DISABLE');
publish(3300, 3309);
ok(poll_until(sub { reason($paris) =~ /somebody has disabled/ }),
	'stopped by hand: the primary knows');
ok(poll_until(sub { sql($paris, q{SELECT lag_events >= 10 AND lag_bytes > 0
	AND lag_seconds > 0 AND retained_wal >= lag_bytes AND slot_state = 'idle'
	AND last_proof IS NOT NULL FROM narinfo.stat_sites
	WHERE site = 'oslo' AND cache = 'main'}) eq 't' }),
	'and how far behind it is: in events, bytes and seconds');
is((health())[0], 503, 'nobody is sent there');
like((health())[1], qr/"reasons": \["somebody has disabled/, 'and why');
is(enabled(), 'f', 'it stays so');
sql($oslo, 'ALTER SUBSCRIPTION narinfo ENABLE');
ok(caught_up($oslo, $paris), 'it goes on when somebody says so');

# ---- an error of the data: a row that should not be there

sub by_hand
{
	my ($node, $statement) = @_;
	return sql($node, "SET session_replication_role = replica;
		SET search_path = narinfo, public; $statement");
}

my $info = q{E'StorePath: /nix/store/00000000000000000000000000000001-p\n'
	'URL: nar/x\nNarHash: sha256:} . '0' x 52 . q{\nNarSize: 9\n'};
by_hand($oslo, "INSERT INTO narinfo.valid_path (hash, info)
	VALUES ('00000000000000000000000000000001', $info)");
sql($paris, "SELECT narinfo.publish($info)");
ok(poll_until(sub { reason($paris) =~ /stopped its subscription.*duplicate key/ }),
	'a row too many: it stops');
is(sql($oslo, 'SELECT error_code FROM narinfo.mirror_state'), '23505',
	'with the SQLSTATE');
is((health())[0], 503, 'nobody is sent there');
my $counted = sql($oslo, 'SELECT apply_error_count FROM pg_stat_subscription_stats');
sleep 3;
is(sql($oslo, 'SELECT apply_error_count FROM pg_stat_subscription_stats'),
	$counted, 'it does not try again');
by_hand($oslo, "DELETE FROM narinfo.valid_path
	WHERE hash = '00000000000000000000000000000001'");
sql($oslo, 'ALTER SUBSCRIPTION narinfo ENABLE');
ok(caught_up($oslo, $paris), 'mended by hand, it goes on');
is(digest($oslo), digest($paris), 'equal');
ok(poll_until(sub { reason($paris) eq 'fine' && (health())[0] == 200 }),
	'and healthy');

# ---- damaged rows are found, named and mended

by_hand($oslo, q{DELETE FROM narinfo.valid_path
	WHERE hash = translate(md5('77'), 'e', 'z')::narinfo.store_hash;
	UPDATE narinfo.valid_path SET registered = registered + '1 s'
	WHERE hash = translate(md5('78'), 'e', 'z')::narinfo.store_hash;
	INSERT INTO narinfo.valid_path (hash, info)
	VALUES ('00000000000000000000000000000002',
		E'StorePath: /nix/store/00000000000000000000000000000002-p\nURL: x\n'
		'NarHash: sha256:} . '0' x 52 . q{\nNarSize: 9\n');
	INSERT INTO narinfo.root (cache, name, path) VALUES ('main', 'forged',
		'/nix/store/00000000000000000000000000000002-p')});
is((health())[0], 200, 'nobody knows yet');
my ($ret, $err) = call($oslo, 'CALL narinfo.verify_site()');
isnt($ret, 0, 'verify_site fails');
like($err, qr/NI011.*its rows have digest/s, 'and says why');
is(sql($oslo, q{SELECT string_agg(table_name || ' ' || kind, ', '
	ORDER BY table_name, kind) FROM narinfo.site_difference}),
	'root extra, valid_path different, valid_path extra, valid_path missing',
	'it names each row');
is(sql($oslo, q{SELECT key FROM narinfo.site_difference WHERE kind = 'missing'}),
	sql($oslo, q{SELECT translate(md5('77'), 'e', 'z')}), 'by its hash');
ok(poll_until(sub { vote() eq 'f' }), 'the vote is gone');
is((health())[0], 503, 'and so is readiness');
like(reason($paris), qr/not equal: cache main at event \d+: its rows/,
	'the primary knows why');
publish(3400, 3409);
ok(caught_up($oslo, $paris), 'it goes on meanwhile');
($ret, $err) = call($oslo, 'CALL narinfo.repair_site()');
is($ret, 0, 'repair_site') or diag $err;
like($err, qr/4 rows were mended, and this site is equal/, 'mends them');
is(digest($oslo), digest($paris), 'equal');
is(sql($oslo, 'SELECT count(*) FROM narinfo.site_difference'), 0,
	'nothing differs');
ok(poll_until(sub { vote() eq 't' && (health())[0] == 200 }),
	'vote and readiness are back');
($ret, $err) = call($oslo, 'CALL narinfo.verify_site()');
is($ret, 0, 'verified');
publish(3500, 3509);
ok(caught_up($oslo, $paris), 'the subscription goes on');

# The same by the schedule.
by_hand($oslo, q{DELETE FROM narinfo.valid_path
	WHERE hash = translate(md5('80'), 'e', 'z')::narinfo.store_hash});
$oslo->append_conf('postgresql.conf', "pg_narinfo.verify_interval = '1s'\n");
$oslo->reload;
ok(poll_until(sub { vote() eq 'f' && (health())[0] == 503 }),
	'damage is found by the schedule');
sql($oslo, 'CALL narinfo.repair_site()');
ok(poll_until(sub { vote() eq 't' }), 'and mended');
$oslo->append_conf('postgresql.conf', "pg_narinfo.verify_interval = '1d'\n");
$oslo->reload;

# ---- an epoch that is over, a gap, a mirror that was restored

($ret, $err) = call($oslo, q{SET session_replication_role = replica;
	INSERT INTO narinfo.event
	SELECT cache, seq + 1, 0, at, kind, hash, name, lsn, digest
	FROM narinfo.event ORDER BY seq DESC LIMIT 1});
isnt($ret, 0, 'an event of an epoch that is over is not applied');
like($err, qr/NI005.*has epoch 0, which is over/s, 'with NI005');
by_hand($oslo, q{DELETE FROM narinfo.event WHERE cache = 'main'
	AND seq = narinfo.last_event()});
publish(3700, 3700);
ok(poll_until(sub { reason($paris) =~ /cannot follow event/ }),
	'a gap in the numbers stops it');
is(enabled(), 'f', 'for good');

for my $node ($paris, $oslo)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
		$node->name . ': nothing crashed');
}

done_testing();
