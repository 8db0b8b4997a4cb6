# What is kept for mirrors has bounds: publishing is delayed, then refused, then
# slots are dropped, in this order, each told; and nothing is lost.
use strict;
use warnings;

use File::Path qw(make_path);
use FindBin;
use IPC::Run;
use JSON::PP;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

# As narinfo_site(), with small segments.
sub site
{
	my ($name, %option) = @_;
	return narinfo_node($name, %option, init =>
			[ allows_streaming => 'logical', extra => ['--wal-segsize=1'] ],
		conf => <<~END . ($option{conf} // ''));
		max_worker_processes = 20
		autovacuum = off
		min_wal_size = 2MB
		max_wal_size = 8MB
		wal_retrieve_retry_interval = 200ms
		pg_narinfo.site_interval = 200ms
		END
}

sub set
{
	my ($node, $conf) = @_;
	$node->append_conf('postgresql.conf', $conf);
	$node->reload;
	return;
}

sub made
{
	my ($first, $last) = @_;
	return "SELECT narinfo.publish_many(array_agg(format(E'StorePath: "
		. "/nix/store/%s-p\\nURL: nar/%s\\nNarHash: sha256:%s\\nNarSize: 9\\n"
		. "References: \\n', translate(md5(i::text), 'e', 'z'), i, "
		. "repeat('0', 52))::narinfo.narinfo)) "
		. "FROM generate_series($first, $last) AS i";
}

sub publish { my ($node, @range) = @_; return sql($node, made(@range)) }

sub retract
{
	my ($node, $i) = @_;
	return sql($node, "SELECT narinfo.retract(ARRAY[(SELECT '/nix/store/' || "
		. "translate(md5('$i'), 'e', 'z') || '-p')::narinfo.store_path])");
}

# Returns SQLSTATE and all that is said, or nothing.
sub refusal
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$sql", on_error_stop => 1);
	return $ret == 0 ? '' : $err;
}

sub digest
{
	my ($node) = @_;
	return sql($node, 'SELECT narinfo.last_event(), narinfo.cache_digest(),
		count(*) - max(seq) FROM narinfo.event');
}

sub status
{
	my ($node, $what) = @_;
	return sql($node, "SELECT $what FROM narinfo.stat_pressure");
}

sub level_becomes
{
	my ($node, $level) = @_;
	return poll_until(sub { status($node, 'level') eq $level })
		|| diag(sql($node, 'SELECT p FROM narinfo.stat_pressure AS p'));
}

# Writes so many megabytes of write-ahead log that are about nothing, at once.
sub fill
{
	my ($node, $n) = @_;
	sql($node, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1048576))
		FROM generate_series(1, $n)");
	return;
}

sub slots { return sql($_[0], q{SELECT coalesce(string_agg(slot_name, ' '
	ORDER BY slot_name), '-') FROM pg_replication_slots
	WHERE slot_name ~ '^narinfo_'}) }

sub reason
{
	my ($node, $site) = @_;
	return sql($node, qq{SELECT coalesce(max(reason), 'fine')
		FROM narinfo.stat_sites WHERE site = '$site'});
}

sub health
{
	my ($node) = @_;
	my $reply = http_get($node->{http_port}, '/health');
	return ($reply->{status}, decode_json($reply->{body}));
}

# What was logged of levels since an offset, such as "delay refuse none".
sub levels
{
	my ($node, $offset) = @_;
	my $log = substr slurp_file($node->logfile), $offset;
	return join ' ', $log =~ /pressure of write-ahead log is "(\w+)"/g;
}

# ---- by what is kept for a mirror

my $paris = site('paris', conf => "pg_narinfo.wal_reserve = 0\n"
	. "pg_narinfo.site = paris\n");
my $oslo = site('oslo');
# It does not prove itself of itself, for it is to have no vote.
my $bonn = site('bonn', conf => "pg_narinfo.verify_interval = 0\n");

like(status($paris, "level || ' ' || reason"), qr/^none nothing is watched/,
	'a server that is alone is not watched');
publish($paris, 1, 100);
is(join_site($_, $paris), 'joined', $_->name) for $oslo, $bonn;
ok(poll_until(sub { status($paris, 'measured IS NOT NULL') eq 't' }),
	'with mirrors it is');
is(status($paris, "level, coalesce(reason, '-'), delayed, refused, dropped"),
	'none|-|0|0|0', 'nothing has happened');

# One of them has no vote.
sql($bonn, q{UPDATE narinfo.site_cache SET vote = false WHERE site = 'bonn'});
my $votes = q{SELECT string_agg(site, ' ' ORDER BY site)
	FROM narinfo.stat_sites WHERE vote AND role = 'mirror'};
ok(poll_until(sub { sql($paris, $votes) eq 'oslo' }), 'one has a vote');

$bonn->stop;
my $offset = -s $paris->logfile;
set($paris, "pg_narinfo.max_retained_wal = 8MB\n");
fill($paris, 7);
ok(level_becomes($paris, 'delay'), 'delay');
is(status($paris, 'site, slot'), 'bonn|narinfo_bonn', 'it names the mirror');
cmp_ok(status($paris, 'delay_ms'), '>', 500, 'more than half a second');
cmp_ok(status($paris, 'delay_ms'), '<=', 1000, 'not more than one');
like(status($paris, 'reason'), qr/slot "narinfo_bonn" of site "bonn", which is away, keeps [78]\d\d\d kB \(pg_narinfo\.max_retained_wal is 8192 kB\)/,
	'and says why');

my $delay = status($paris, 'delay_ms');
my $took = sql($paris, 'SELECT clock_timestamp() AS at \gset' . "\n"
	. made(101, 101) . ";\nSELECT 'took ' || round(1000 * extract(epoch FROM "
	. "clock_timestamp() - :'at'))");
my ($ms) = $took =~ /took (\d+)/;
cmp_ok($ms // 0, '>=', $delay, "a publish takes as long ($ms ms of $delay)");
is(status($paris, 'delayed'), 1, 'it is counted');
$took = sql($paris, 'SELECT clock_timestamp() AS at \gset' . "\nBEGIN;\n"
	. made(102, 102) . ";\n" . made(103, 103) . ";\n" . made(104, 104)
	. ";\nCOMMIT;\n" . "SELECT 'delayed ' || delayed FROM narinfo.stat_pressure");
like($took, qr/delayed 2$/, 'a transaction is delayed once');

# While it waits it has nothing that others need.  Another session looks at what
# it has locked, then changes the same cache, and is through first.
my $waiting = q{FROM pg_stat_activity AS a WHERE a.wait_event_type = 'Extension'
	AND a.application_name = 'late' AND a.state = 'active'};
my %found;
for my $round (1 .. 5)
{
	my @psql = ('psql', '-XAtq', '-d', $paris->connstr('postgres'));
	my $other = IPC::Run::start([ @psql, '-c', <<~END ], '>', \my $out, '2>', \my $err);
		DO \$\$
		DECLARE
			who int;
		BEGIN
			FOR i IN 1 .. 3000 LOOP
				PERFORM pg_stat_clear_snapshot();
				SELECT a.pid INTO who $waiting;
				EXIT WHEN FOUND;
				PERFORM pg_sleep(0.01);
			END LOOP;
			RAISE NOTICE 'waits %', (who IS NOT NULL)::int;
			RAISE NOTICE 'locks %', (SELECT count(*) FROM pg_locks AS l
				WHERE l.pid = who AND l.mode ~ 'Exclusive'
				AND l.locktype <> 'virtualxid' AND l.mode <> 'RowExclusiveLock');
			RAISE NOTICE 'retracted %', narinfo.retract(ARRAY[('/nix/store/'
				|| translate(md5('$round'), 'e', 'z') || '-p')::narinfo.store_path]);
		END \$\$;
		END
	my $n = 110 + $round;
	local $ENV{PGAPPNAME} = 'late';
	my $publish = IPC::Run::start([ @psql, '-c', made($n, $n) ], '>', \my $done);
	$publish->finish;
	$other->finish;
	%found = $err =~ /(\w+) (\d+)$/mg;
	$found{last} = sql($paris, q{SELECT kind FROM narinfo.event
		WHERE cache = 'main' ORDER BY seq DESC LIMIT 1});
	last if $found{last} eq 'publish';
}
is($found{waits}, 1, 'a publish waits');
is($found{locks}, 0, 'it has locked no row and no cache');
is($found{retracted}, 1, 'another session changes the same cache');
is($found{last}, 'publish', 'and is through before it');

# A push is delayed, too, and before the transaction.
my ($hash, $text) = map { m{([^/]+)\.narinfo$} ? ($1, slurp_bytes($_)) : () }
	grep { slurp_bytes($_) =~ /^References: *(\S+)?$/m
		&& (!$1 || index($_, substr $1, 0, 32) >= 0) }
	sort glob "$cache_dir/*.narinfo";
my $token = sql($paris, q{SELECT narinfo.create_token('pusher', '{push,read}')});
my @auth = (Authorization => "Bearer $token");
my $port = $paris->{http_port};
my $counted = status($paris, 'delayed');
is(http_put($port, "/$hash.narinfo", $text, @auth)->{status}, 201,
	'a narinfo is pushed');
is(status($paris, 'delayed'), $counted + 1, 'after a delay');

# ---- refused

fill($paris, 3);
ok(level_becomes($paris, 'refuse'), 'refuse');
my $before = digest($paris);
my $error = refusal($paris, made(200, 210));
like($error, qr/ERROR:  NI014: nothing is published now/, 'NI014');
like($error, qr/DETAIL:  .*slot "narinfo_bonn" of site "bonn".*keeps \d+ [kM]B \(pg_narinfo\.max_retained_wal is 8192 kB\)/,
	'with the numbers');
like($error, qr/HINT:  Try again later\. Site "bonn" has to catch up.*dismiss_site\('bonn'\)/,
	'and what helps');
like(refusal($paris, q{INSERT INTO narinfo.valid_path (info) SELECT info
	FROM narinfo.valid_path}), qr/NI014/, 'by hand, too');
like(refusal($paris, "CALL narinfo.import_cache('$cache_dir')"), qr/NI014/,
	'and an import');
like(refusal($paris, q{SELECT narinfo.pin('top', (SELECT
	narinfo.store_path(info) FROM narinfo.valid_path LIMIT 1))}), qr/NI014/,
	'and pins');
my $reply = http_put($port, "/$hash.narinfo", $text, @auth);
is($reply->{status}, 503, 'a push: 503');
is($reply->{headers}{'retry-after'}, 60, 'Retry-After, as of one who is away');
like($reply->{body}, qr/nothing is published now.*site "bonn"/s, 'and why');
my $socket = http_connect($port);
print $socket "PUT /nar/x.nar HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
	. "$token\r\nContent-Length: 1000000\r\n\r\n";
is(read_reply($socket)->{status}, 503, 'before anything of it is read');
is(digest($paris), $before, 'nothing has changed');
is(status($paris, 'refused'), 6, 'each is counted');
is(http_get($port, "/$hash.narinfo")->{status}, 200, 'who reads is answered');
my ($code, $json) = health($paris);
is("$code $json->{status} $json->{pressure}", '200 ok refuse',
	'and may be sent here');
like($json->{pressure_reason}, qr/site "bonn"/, 'health says why');
is(retract($paris, 50), 1, 'removals pass');
is(sql($paris, q{SELECT narinfo.revoke_token('pusher')}), 't',
	'and what few rows are about');
@auth = (Authorization => 'Bearer '
		. sql($paris, q{SELECT narinfo.create_token('pusher', '{push}')}));

$bonn->start;
ok(level_becomes($paris, 'none'), 'the mirror comes back: it passes by itself');
is(publish($paris, 200, 210), 11, 'what was refused is taken');
is(http_put($port, "/$hash.narinfo", $text, @auth)->{status}, 200,
	'a push, too');
ok(caught_up($_, $paris), $_->name . ' has all') for $oslo, $bonn;
is(digest($_), digest($paris), $_->name . ' is equal') for $oslo, $bonn;
like(levels($paris, $offset), qr/^delay refuse (?:delay )?none$/,
	'each step was logged, once');

# ---- the slot of one without a vote

$offset = -s $paris->logfile;
$bonn->stop;
fill($paris, 20);
ok(poll_until(sub { slots($paris) eq 'narinfo_oslo' }),
	'the slot without a vote is dropped, and no other');
ok(level_becomes($paris, 'none'), 'publishing goes on');
like(levels($paris, $offset), qr/^(?:delay )?refuse drop (?:\w+ )*none$/,
	'not before it was refused');
is(status($paris, 'dropped'), 1, 'it is counted');
like(substr(slurp_file($paris->logfile), $offset),
	qr/WARNING:  slot "narinfo_bonn" of site "bonn", which has no vote, is dropped.*\n.*DETAIL:  It keeps \d\d MB \(\d{8} bytes\)/,
	'and logged with the numbers');
like(reason($paris, 'bonn'), qr/^its slot was dropped: it has to join again \(20\d\d-.* since it kept \d\d MB/,
	'the primary tells why');
is(sql($paris, q{SELECT count(*) FROM narinfo.site_link WHERE site = 'bonn'
	AND dropped IS NOT NULL}), 1, 'the site stays known');
publish($paris, 300, 1500);
$bonn->start;
ok(wait_for_http($bonn->{http_port}), 'the mirror comes back');
ok(poll_until(sub { reason($bonn, 'bonn') =~ /^site "paris" says: its slot was dropped/ }),
	'and learns it');
is((health($bonn))[0], 503, 'nobody is sent there');
sql($bonn, "CALL narinfo.repoint('" . site_conninfo($paris) . "')");
ok(caught_up($bonn, $paris), 'repoint: it goes on with a new slot');
is(digest($bonn), digest($paris), 'equal');
ok(poll_until(sub { reason($paris, 'bonn') eq 'fine'
		&& sql($paris, $votes) eq 'bonn oslo' }), 'fine, and votes');
is(slots($paris), 'narinfo_bonn narinfo_oslo', 'both have a slot');

# ---- one with a vote: not unless it is said

$offset = -s $paris->logfile;
my $applier = sql($oslo, q{SELECT pid FROM pg_stat_subscription
	WHERE relid IS NULL AND pid IS NOT NULL});
kill 'STOP', $applier;
fill($paris, 20);
ok(level_becomes($paris, 'drop'), 'as far');
my $seen = status($paris, 'measured');
ok(poll_until(sub { status($paris, "measured > '$seen'::timestamptz + '2 s'")
	eq 't' }), 'for seconds');
is(status($paris, 'level') . ' ' . slots($paris),
	'drop narinfo_bonn narinfo_oslo', 'the slot with a vote stays');
like(refusal($paris, made(2000, 2000)), qr/NI014/, 'and nothing is published');
like(http_put($port, "/$hash.narinfo", $text, @auth)->{headers}{'retry-after'},
	qr/^(?:5|60)$/, 'Retry-After');
set($paris, "pg_narinfo.drop_slots = all\n");
ok(poll_until(sub { slots($paris) eq 'narinfo_bonn' }),
	'the setting lets it go, from under who reads it');
kill 'CONT', $applier;
ok(level_becomes($paris, 'none'), 'publishing goes on');
like(substr(slurp_file($paris->logfile), $offset),
	qr/WARNING:  slot "narinfo_oslo" of site "oslo", which may have a vote, is dropped/,
	'logged');
is(publish($paris, 2000, 2009), 10, 'what was refused is taken');
ok(poll_until(sub { reason($oslo, 'oslo') =~ /its slot was dropped/ }),
	'the mirror learns it');
is(sql($paris, $votes), 'bonn', 'it has no vote');
is(join_site($oslo, $paris), 'joined', 'it joins again');
ok(caught_up($oslo, $paris), 'it has all');
is(digest($oslo), digest($paris), 'equal');
ok(poll_until(sub { reason($paris, 'oslo') eq 'fine'
		&& (health($oslo))[0] == 200
		&& sql($paris, $votes) eq 'bonn oslo' }), 'fine, and votes');
is(slots($paris), 'narinfo_bonn narinfo_oslo', 'both have a slot');

# ---- by what is free: a small disk for pg_wal, which the server alone sees

SKIP:
{
	my $small = PostgreSQL::Test::Utils::tempdir() . '/wal';
	make_path($small);
	my ($uid, $gid) = ($<, $( =~ /^(\d+)/);
	my @alone = ('unshare', '--user', '--mount', "--map-user=$uid",
		"--map-group=$gid", '--keep-caps', 'sh', '-c', <<~'END', 'sh', $small);
		mount -t tmpfs -o size=40m none "$1" && cp -a "$2/." "$1" && shift 2 &&
		exec setpriv --ambient-caps=-all --inh-caps=-all "$@"
		END
	skip 'no user namespaces here, so no disk to be filled', 1
		if $uid == 0 || !run_log([ @alone, "$FindBin::RealBin", 'true' ]);

	$_->stop for $oslo, $bonn, $paris;
	my $wal = $paris->data_dir . '/pg_wal';
	rename $wal, "$wal.first" or die "$wal: $!";
	symlink $small, $wal or die "$wal: $!";
	$paris->append_conf('postgresql.conf', <<~END);
		pg_narinfo.max_retained_wal = 0
		pg_narinfo.wal_reserve = 8MB
		pg_narinfo.drop_slots = non_voters
		END
	ok(run_log([ @alone, "$wal.first", 'pg_ctl', '-w', '-D', $paris->data_dir,
		'-l', $paris->logfile, '-o', '--cluster-name=paris', 'start' ]),
		'a server with a small disk for pg_wal');
	$paris->_update_pid(1);
	ok(poll_until(sub { status($paris, 'measured IS NOT NULL') eq 't' }),
		'is watched');
	is(status($paris, 'level'), 'none', 'and has room');
	my $paths = 'SELECT count(*) FROM narinfo.valid_path';
	my $started = sql($paris, 'SELECT pg_postmaster_start_time()');
	$offset = -s $paris->logfile;
	fill($paris, 10);

	my ($n, $acknowledged, $refused) = (10_000, sql($paris, $paths), '');
	my $first = $acknowledged;
	while ($refused eq '' && $n < 100_000)
	{
		my $at = status($paris, 'measured');
		$refused = refusal($paris, made($n + 1, $n + 2000));
		$n += 2000;
		$acknowledged += 2000 if $refused eq '';
		# a fast machine fills the disk between two looks at it
		poll_until(sub { status($paris, "measured > '$at'::timestamptz") eq 't' });
	}
	like($refused, qr/NI014.*wal_reserve is 8192 kB/s,
		"refused when $acknowledged paths are there");
	cmp_ok($acknowledged, '>', $first + 5000, 'and not before');
	cmp_ok(status($paris, 'delayed'), '>', 0, 'delayed before');
	like(levels($paris, $offset), qr/^delay refuse$/, 'in this order');
	is(sql($paris, $paths), $acknowledged,
		'what was acknowledged is there, and nothing else');
	is(retract($paris, 60), 1, 'removals pass');

	# What else writes goes on, until half of it is used up.
	while (status($paris, 'free') > 3.7 * 1024 * 1024)
	{
		my $at = status($paris, 'measured');
		fill($paris, 1);
		poll_until(sub { status($paris, "measured > '$at'::timestamptz + '0.1 s'")
			eq 't' });
	}
	ok(level_becomes($paris, 'drop'), 'drop');
	like(refusal($paris, q{SELECT narinfo.retract(ARRAY[(SELECT
		narinfo.store_path(info) FROM narinfo.valid_path LIMIT 1)])}),
		qr/NI014: nothing is removed now/, 'then not even removals pass');
	is(slots($paris), 'narinfo_bonn narinfo_oslo',
		'mirrors have votes, and their slots');
	my @tries = map { IPC::Run::start([ 'psql', '-XAtq', '-d',
		$paris->connstr('postgres'), '-c', made($n + $_, $n + $_ + 1000) ],
		'>', \my $out, '2>', \my $err) } 1 .. 8;
	my $through = grep { $_->finish } @tries;
	is($through, 0, 'whoever tries is refused');
	is(sql($paris, 'SELECT pg_postmaster_start_time()'), $started,
		'the server has lived through it');

	$_->start for $oslo, $bonn;
	ok(poll_until(sub { refusal($paris, made($n + 1, $n + 2000)) eq '' }),
		'the mirrors come back, and publishing goes on by itself');
	$acknowledged += 2000 - 1;
	ok(level_becomes($paris, 'none'), 'all is given back');
	cmp_ok(status($paris, 'free'), '>', 17 * 1024 * 1024, 'there is room');
	ok(caught_up($_, $paris), $_->name . ' has all') for $oslo, $bonn;
	is(digest($_), digest($paris), $_->name . ' is equal') for $oslo, $bonn;
	is(sql($_, $paths), $acknowledged,
		$_->name . ' has what was acknowledged') for $paris, $oslo, $bonn;
	is(sql($paris, 'SELECT pg_postmaster_start_time()'), $started,
		'and it lives');
}

for my $node ($paris, $oslo, $bonn)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
		$node->name . ': nothing crashed');
	$node->stop;
}

done_testing();
