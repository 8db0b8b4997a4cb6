# Durability by choice: how many other sites have what was published, by
# wait_copies() and by PUT; and what is shown only when enough of them have it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $paris = narinfo_site('paris', conf => "pg_narinfo.site = 'paris'\npg_narinfo.check_nars = off\n");
my $oslo = narinfo_site('oslo');
my $bonn = narinfo_site('bonn');

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

# A narinfo without references, of a file that the small cache has.
my ($file) = slurp_bytes((glob "$cache_dir/*.narinfo")[0]) =~ m{^URL: (.*)$}m;

sub hash_of { my ($i) = @_; return sprintf('%032d', $i) }

sub narinfo
{
	my ($i) = @_;
	return "StorePath: /nix/store/" . hash_of($i) . "-p\nURL: $file\n"
		. 'NarHash: sha256:' . '0' x 52 . "\nNarSize: 9\nReferences: \n";
}

sub publish
{
	my ($first, $last, $cache) = @_;
	my $infos = join ', ', map { "'" . narinfo($_) . "'::narinfo.narinfo" }
		$first .. $last;
	$cache //= 'main';
	sql($paris, "SELECT narinfo.publish_many(ARRAY[$infos], '$cache')");
	return sql($paris, "SELECT narinfo.last_event('$cache')");
}

# What it returns, and its messages; and how long it took.
my $took;

sub wait_copies
{
	my ($node, $arguments) = @_;
	my $start = time;
	my ($ret, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nCALL narinfo.wait_copies($arguments)");
	$took = time - $start;
	return ($out, $err);
}

sub copies
{
	my ($seq, $copies, $patience, $cache) = @_;
	return (wait_copies($paris, "$seq, $copies, '$patience'"
		. ($cache ? ", cache => '$cache'" : '')))[0];
}

sub fails
{
	my ($node, $arguments, $pattern, $what) = @_;
	like((wait_copies($node, $arguments))[1], $pattern, $what);
}

sub last_event { return sql($paris, 'SELECT narinfo.last_event()') }

my $token = sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'])});

sub put
{
	my ($i) = @_;
	return http_put($paris->{http_port}, '/' . hash_of($i) . '.narinfo',
		narinfo($i), Authorization => "Bearer $token");
}

sub status
{
	my ($node, $i, %headers) = @_;
	return http_get($node->{http_port}, '/' . hash_of($i) . '.narinfo',
		%headers)->{status};
}

# ---- alone, and what is refused

sql($paris, q{SELECT narinfo.create_cache('team'), narinfo.create_cache('own')});
publish(1, 10, 'team');
my $seq = publish(1, 100);
my ($out, $err) = wait_copies($paris, "$seq, 1, '0'");
is($out, 0, 'alone: no copy');
like($err, qr/NOTICE.*only 0 sites have a vote/s, 'and none to come');
fails($paris, ($seq + 1) . ', 0', qr/NI004.*has no event.*last event is $seq/s,
	'no such event');
fails($paris, '-1, 1', qr/22023/, 'a negative event');
fails($paris, "$seq, -1", qr/22023.*not -1/, 'negative copies');
fails($paris, "$seq, 1, '-1 s'", qr/22023.*negative time/, 'a negative time');
fails($paris, "$seq, NULL", qr/22004/, 'NULL');
fails($paris, "1, 1, '1 s', cache => 'none'", qr/42704.*cache "none"/s,
	'no such cache');
like(($paris->psql('postgres', "BEGIN; CALL narinfo.wait_copies(1)"))[2],
	qr/cannot run inside a transaction block/, 'in a transaction block');

# ---- one mirror, of all caches; one of some

is(join_site($oslo, $paris), 'joined', 'a mirror');
is(copies($seq, 1, '10 s'), 1, 'it is a copy of what it was filled with');
is(copies($seq = publish(101, 200), 1, '10 s'), 1, 'and of what is published');
is(sql($oslo, 'SELECT narinfo.last_event()'), $seq, 'which it has');
is(copies(publish(201, 201), 2, '0.3 s'), 1, 'one is not two');
cmp_ok($took, '>=', 0.3, 'for which it has waited');
fails($oslo, "$seq, 1", qr/NI010.*site "paris"/s, 'a mirror counts nothing');
is(join_site($bonn, $paris, "caches => ARRAY['team']"), 'joined',
	'a mirror of a cache');
is(copies(publish(11, 20, 'team'), 2, '10 s', 'team'), 2,
	'it is a copy of its cache');
is(copies($seq = publish(202, 202), 2, '1 s'), 1, 'and not of another');
is(sql($paris, q{SELECT string_agg(site || ' ' || cache || ' ' || counts, ', '
	ORDER BY site, cache) FROM narinfo.stat_copies WHERE cache <> 'own'}),
	'bonn team true, oslo main true, oslo team true', 'as stat_copies shows');

# Nothing is held while it waits.
{
	my ($stdout, $stderr) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d',
		$paris->connstr('postgres'), '-c',
		"CALL narinfo.wait_copies($seq, 2, '60 s')" ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	ok(poll_until(sub { sql($paris, q{SELECT count(*) FROM pg_stat_activity
		WHERE query LIKE 'CALL narinfo.wait%' AND wait_event_type = 'Extension'
			AND backend_xmin IS NULL AND backend_xid IS NULL}) eq '1' }),
		'one waits without a snapshot');
	is(sql($paris, q{SELECT count(*) FROM pg_locks AS l
		JOIN pg_stat_activity AS a USING (pid)
		WHERE a.query LIKE 'CALL narinfo.wait%' AND l.locktype <> 'virtualxid'
			AND a.pid <> pg_backend_pid()}), '0', 'and without locks');
	sql($paris, q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE query LIKE 'CALL narinfo.wait%' AND pid <> pg_backend_pid()});
	$run->finish;
	like($stderr, qr/canceling statement/, 'and can be cancelled');
}

# ---- a mirror that is away, and comes back

sql($bonn, 'CALL narinfo.leave_site()');
sql($bonn, 'DROP EXTENSION pg_narinfo');
start_serving($bonn);
is(join_site($bonn, $oslo), 'joined', 'a mirror of the mirror');
is(copies(publish(203, 203), 2, '60 s'), 2, 'is a copy, by its reports');
$bonn->stop;
my $late = publish(204, 204);
is(copies($late, 2, '0.5 s'), 1, 'stopped: one of two');
my @waiters = map { my %run = (out => '', err => '');
	$run{run} = IPC::Run::start([ 'psql', '-XAtq', '-d',
		$paris->connstr('postgres'), '-c',
		"CALL narinfo.wait_copies($late, 2, '60 s')" ],
		'<', \undef, '>', \$run{out}, '2>', \$run{err}); \%run } 1 .. 8;
ok(poll_until(sub { sql($paris, q{SELECT count(*) FROM pg_stat_activity
	WHERE query LIKE 'CALL narinfo.wait%'}) eq '8' }), 'asked again, by many');
# Whoever polls for all is not the last one.
sql($paris, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE query LIKE 'CALL narinfo.wait%' ORDER BY backend_start LIMIT 1});
$bonn->start;
$_->{run}->finish for @waiters;
is(join(' ', sort map { $_->{out} =~ s/\n//r } @waiters), ' 2 2 2 2 2 2 2',
	'when it is back: two, for all but the one that was ended');
$oslo->stop;
system('cp', '-R', $oslo->data_dir, $oslo->data_dir . '.old') == 0 or die;
is(copies($seq = publish(205, 205), 1, '0.5 s'), 0, 'the first one is stopped');
is(copies($late, 2, '0'), 2, 'what they have stays counted');
$oslo->start;
is(copies($seq, 2, '60 s'), 2, 'both have it when it is back');

# ---- one that is an older copy of itself

ok(poll_until(sub { sql($paris, q{SELECT seq FROM narinfo.site_cache
	WHERE site = 'oslo' AND cache = 'main'}) == $seq }), 'it has reported that');
$oslo->stop;
rename $oslo->data_dir, $oslo->data_dir . '.new' or die $!;
rename $oslo->data_dir . '.old', $oslo->data_dir or die $!;
$oslo->start;
ok(poll_until(sub { sql($paris, q{SELECT reason FROM narinfo.stat_copies
	WHERE site = 'oslo' AND cache = 'main'}) =~ /older copy/ }),
	'restored from an older copy: known');
is(copies($seq, 2, '0'), 1, 'it does not count');
# Who mirrors it has more than it can send, which a shutdown would wait for.
$oslo->stop('immediate');
rename $oslo->data_dir, $oslo->data_dir . '.old' or die $!;
rename $oslo->data_dir . '.new', $oslo->data_dir or die $!;
$oslo->start;
sql($oslo, "CALL narinfo.repoint('" . site_conninfo($paris) . "')");
is(copies(publish(207, 207), 2, '60 s'), 2, 'pointed here anew, it does');
like(($oslo->psql('postgres', "ALTER SUBSCRIPTION narinfo $_->[0]"))[2], $_->[1],
	"$_->[0] is refused") for [ "SKIP (lsn = '0/1')", qr/skips nothing/ ],
	[ 'SET (synchronous_commit = off)', qr/wait for the disk/ ];

# ---- one that was found to differ

sql($oslo, q{SET session_replication_role = replica;
	DELETE FROM narinfo.valid_path WHERE hash::text = '} . hash_of(7) . q{'
		AND cache = 'main'});
my ($ret) = $oslo->psql('postgres', 'CALL narinfo.verify_site()');
isnt($ret, 0, 'a row is gone: it is not equal');
ok(poll_until(sub { sql($paris, q{SELECT reason FROM narinfo.stat_copies
	WHERE site = 'oslo' AND cache = 'main'}) =~ /not equal/ }), 'it is known');
is(copies(publish(206, 206), 2, '2 s'), 1, 'it does not count');
is(copies(publish(21, 21, 'team'), 2, '10 s', 'team'), 2,
	'but for the caches that are equal');
sql($oslo, 'CALL narinfo.repair_site()');
is(copies(last_event(), 2, '10 s'), 2, 'mended, it counts');

# ---- PUT

my $reply = put(300);
is($reply->{status}, 201, 'PUT');
is($reply->{headers}{'narinfo-copies'}, undef, 'nobody asks for copies');
sql($paris, q{SELECT narinfo.alter_cache('main', push_copies => 2,
	push_wait => '10 s')});
$reply = put(301);
is($reply->{status} . ' ' . $reply->{headers}{'narinfo-copies'}, '201 2/2',
	'PUT with two copies');
is(status($bonn, 301), 200, 'which are there');
$reply = put(301);
is($reply->{status} . ' ' . $reply->{headers}{'narinfo-copies'}, '200 2/2',
	'the same again');
sql($paris, q{SELECT narinfo.alter_cache('main', push_wait => '0.5 s')});
$bonn->stop;
$reply = put(302);
is($reply->{status} . ' ' . $reply->{headers}{'narinfo-copies'}, '201 1/2',
	'one is away: PUT is accepted, with 1/2');
like($reply->{body}, qr/1 of 2 other sites/, 'and says so');
sql($paris, q{SELECT narinfo.alter_cache('main', push_when_late => 'refuse')});
$reply = put(303);
is($reply->{status} . ' ' . $reply->{headers}{'narinfo-copies'}, '409 1/2',
	'or refused');
$seq = last_event();
like($reply->{body}, qr/1 of 2 other sites.*wait_copies\($seq, 2/, 'with how to ask later');
is(status($paris, 303), 200, 'it is published');

# Others are published while some wait.
sql($paris, q{SELECT narinfo.alter_cache('main', push_wait => '90 s')});
my $slow = http_connect($paris->{http_port});
my $body = narinfo(304);
print $slow 'PUT /' . hash_of(304) . ".narinfo HTTP/1.1\r\nHost: h\r\n"
	. "Authorization: Bearer $token\r\nContent-Length: " . length($body)
	. "\r\n\r\n$body";
ok(poll_until(sub { status($paris, 304) == 200 }), 'one waits for copies');
my $mate = sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'], NULL, 'own')});
my $start = time;
$reply = http_put($paris->{http_port}, "/own/log/x", 'x',
	Authorization => "Bearer $mate");
is($reply->{status}, 201, 'another PUT goes on');
cmp_ok(time - $start, '<', 30, 'at once');
$bonn->start;
is(read_reply($slow)->{headers}{'narinfo-copies'}, '2/2',
	'the one that waits is told when the site is back');

# Real nix shows the reason.
$bonn->stop;
sql($paris, q{SELECT narinfo.alter_cache('main', push_wait => '0.2 s')});
my $home = $paris->basedir . '/home';
my ($status, undef, $why) = nix($home, 'nix', 'copy', '--no-check-sigs',
	'--from', "file://$cache_dir", $top_path);
is($status, 0, 'a store to push from') or diag $why;
($status, undef, $why) = nix($home, 'nix', 'copy', '--to',
	"http://x:$token\@127.0.0.1:$paris->{http_port}", $top_path);
isnt($status, 0, 'nix is refused');
like($why, qr/HTTP error 409.*1 of 2 other sites/s, 'and shows why');
system 'chmod', '-R', 'u+w', $home;
$bonn->start;

# ---- shown only with copies

sql($paris, q{SELECT narinfo.alter_cache('main', push_copies => 0,
	push_when_late => 'accept', visible_copies => 2)});
is(copies(last_event(), 2, '60 s'), 2, 'both are here');
ok(poll_until(sub { sql($paris, q{SELECT narinfo.site_watermark()
	= narinfo.last_event()}) eq 't' }), 'the watermark is known');
is(status($_, 301), 200, 'what was seen is seen on') for $paris, $oslo;
publish(401, 401);
ok(poll_until(sub { status($paris, 401) == 200 && status($oslo, 401) == 200
	&& status($bonn, 401) == 200 }), 'with two copies it is shown everywhere');
$bonn->stop;
my $hidden = publish(402, 403);
is(copies($hidden, 1, '10 s'), 1, 'one has it');
ok(caught_up($oslo, $paris), 'and the next');
is(status($_, 402), 404, 'with one copy it is not shown') for $paris, $oslo;
is(http_request($paris->{http_port}, 'HEAD', '/' . hash_of(402) . '.narinfo')
	->{status}, 404, 'not by HEAD');

sub post
{
	my ($path, $body, %headers) = @_;
	my $socket = http_connect($paris->{http_port});
	print $socket "POST $path HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
		. join('', map { "$_: $headers{$_}\r\n" } keys %headers)
		. 'Content-Length: ' . length($body) . "\r\n\r\n$body";
	return read_reply($socket)->{body};
}
my $asked = join '', map { hash_of($_) . "\n" } 401, 402;
my @pusher = (Authorization => "Bearer $token");
like(post('/narinfos', $asked), qr/\A(?!.*${\ hash_of(402)}).*${\ hash_of(401)}/s,
	'not by POST /narinfos');
is(post('/missing', $asked), hash_of(402) . "\n", 'it is missing');
is(http_get($paris->{http_port}, '/' . hash_of(402) . '.closure')->{status}, 404,
	'it has no closure');
unlike(http_get($paris->{http_port}, '/changes?after=' . ($hidden - 3))->{body},
	qr/${\ hash_of(402)}/, 'nor do followers see it');
is(status($paris, 402, @pusher), 200, 'who may push sees it');
is(post('/missing', $asked, @pusher), '', 'for him it is not missing');
sql($paris, "SELECT narinfo.retract(ARRAY['/nix/store/" . hash_of(401)
	. "-p'::narinfo.store_path])");
is(status($paris, 401), 404, 'a removal counts at once');
ok(caught_up($oslo, $paris), 'and comes');
is(status($oslo, 401), 404, 'on a mirror, too');
is(status($_, 402), 404, 'the others are still hidden') for $paris, $oslo;
$bonn->start;
ok(poll_until(sub { status($paris, 402) == 200 && status($oslo, 403) == 200
	&& status($bonn, 402) == 200 }), 'shown when the second one is back');
is(sql($paris, q{SELECT DISTINCT watermark - narinfo.last_event()
	FROM narinfo.stat_copies WHERE cache = 'main'}), 0, 'up to the last event');

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for $paris, $oslo, $bonn;

done_testing();
