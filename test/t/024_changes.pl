# GET /changes: that a follower gets every event with its narinfo, byte for
# byte, from any number on and whatever is published meanwhile; what it is told
# when it comes too late; and what is refused.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = narinfo_node('changes', conf => "max_connections = 20\n");
my $port = $node->{http_port};

sub sql { return $node->safe_psql('postgres', @_) }

# The events of one reply; narinfos as bytes.
sub events
{
	my ($path, $from) = @_;
	my $reply = http_get($from // $port, $path);
	die "$path: $reply->{status}" if $reply->{status} != 200;
	die "$path: no newline at its end" if $reply->{body} !~ /(?:^|\n)\z/;
	my @events = map { decode_json($_) } split /\n/, $reply->{body};
	for (@events)
	{
		utf8::encode($_->{narinfo}) if defined $_->{narinfo};
	}
	return @events;
}

# A narinfo of our own, as an expression of SQL.
sub narinfo_sql
{
	my ($i, $more) = @_;
	return "format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s\\nNarHash: "
		. "sha256:%s\\nNarSize: 9\\nReferences: \\n%s', translate(md5(($i)::text), "
		. "'e', 'z'), $i, repeat('0', 52), " . ($more // "''") . ")::narinfo.narinfo";
}

sql("CALL narinfo.import_cache('$cache_dir')");
sql(q{SELECT narinfo.create_cache('secret', visibility => 'private'),
	narinfo.create_cache('team', store_dir => '/gnu/store')});

# ---- every event, as it is in the table

my @all = events('/changes');
is(scalar @all, sql('SELECT count(*) FROM narinfo.event WHERE cache = \'main\''),
	'every event');
is(join("\n", map { join '|', @$_{qw(seq epoch kind hash digest at)} }
	grep { defined $_->{hash} } @all),
	sql(q{SELECT seq, epoch, kind, hash, encode(digest, 'hex'),
		to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
		FROM narinfo.event WHERE cache = 'main' AND hash IS NOT NULL
		ORDER BY seq}), 'with what the table says');
is((grep { defined $_->{hash} && $_->{narinfo}
	ne slurp_bytes("$cache_dir/$_->{hash}.narinfo") } @all), 0,
	'and the bytes that were imported');
is_deeply([ sort keys %{ $all[0] } ],
	[ sort qw(seq epoch at kind hash name digest narinfo) ], 'its fields');
is_deeply([ @{ $all[0] }{qw(kind hash narinfo name)} ],
	[ 'create_cache', undef, undef, undef ], 'an event that is about no path');

my $reply = http_get($port, '/changes?after=3&limit=5');
is($reply->{headers}{'content-type'}, 'application/x-ndjson', 'its type');
is($reply->{headers}{'cache-control'}, 'no-store', 'not to be kept');
my $head = http_request($port, 'HEAD', '/changes?after=3&limit=5');
is($head->{status}, 200, 'HEAD');
is($head->{headers}{'content-length'}, length $reply->{body},
	'has the length');
is_deeply([ map { $_->{seq} } events('/main/changes?limit=5&after=3') ],
	[ 4 .. 8 ], 'of a cache by its name');
is(http_get($port, "/changes?after=$_")->{body}, '', "nothing behind $_")
	for scalar @all, 4711, '9223372036854775807', '000004711';
is(scalar(() = events('/changes?limit=9223372036854775807')), scalar @all,
	'a limit that is too high is none');

# In steps of any size, each event comes once.
for my $step (1, 7, 80)
{
	my @seen;
	while (my @some = events('/changes?after=' . ($seen[-1] // 0)
		. "&limit=$step"))
	{
		cmp_ok(scalar @some, '<=', $step, "at most $step") if @some > $step;
		push @seen, map { $_->{seq} } @some;
	}
	is_deeply(\@seen, [ 1 .. @all ], "in steps of $step");
}

# ---- what is refused

for my $query ('after', 'after=', 'after=x', 'after=-1', 'after=1x',
	'after=9223372036854775808', 'after=1&after=2', 'limit=0', 'limit=-1',
	'limit=', 'limit=1&limit=1', 'before=1', 'after=1&', '&after=1',
	'after=1&&limit=1', 'AFTER=1', 'after=%31%00', 'after=+1', 'after=1;limit=1')
{
	is(http_get($port, "/changes?$query")->{status}, 400, "?$query is 400");
}
is(http_get($port, '/changes?after=%31&limit=1')->{status}, 200,
	'percent-encoded digits are digits');
is(http_get($port, '/changes?')->{status}, 200, 'no parameter is missing');
is(http_get($port, '/secret/changes')->{status}, 401, 'a private cache');
is(http_get($port, '/secret/changes?after=x')->{status}, 401,
	'tells nothing else');
is(http_get($port, '/nowhere/changes')->{status}, 404, 'an unknown cache');
is(http_get($port, '/changes/')->{status}, 404, 'no such path');
is(http_request($port, 'PUT', '/changes')->{status}, 405, 'GET and HEAD');
is(scalar(() = events('/team/changes')), 1, 'another cache has its own');

# ---- strings of JSON

my $last = sql('SELECT narinfo.last_event()');
sql('SELECT narinfo.publish(' . narinfo_sql(1,
	q{E'X: "quoted" \\\\ \\t \\x01\\x1f\\x7f </script> \\u00e9\\u20ac\\U0001F600\\n'}) . ')');
my ($odd) = events("/changes?after=$last");
like($odd->{narinfo}, qr{^X: "quoted" \\ \t \x01\x1f\x7f </script> \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\n\z}m,
	'what JSON has to escape comes out as it was');
is($odd->{narinfo}, http_get($port, "/$odd->{hash}.narinfo")->{body},
	'as from the narinfo itself');
sql(q{SELECT narinfo.trust_key('"\\key"-1:' || encode(decode(repeat('78', 32),
	'hex'), 'base64'), 'team')});
is((events('/team/changes'))[1]{name},
	'"\\key"-1:eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=', 'a key');

# ---- what was changed since

$last = sql('SELECT narinfo.last_event()');
sql('SELECT narinfo.publish(' . narinfo_sql(2) . ')');
sql('SELECT narinfo.publish(' . narinfo_sql(2, "E'X: y\\n'") . ')');
sql('SELECT narinfo.publish(' . narinfo_sql(3) . ')');
sql('SELECT narinfo.retract(ARRAY[narinfo.store_path(' . narinfo_sql(3) . ')])');
is(join(' ', map { $_->{kind} . (!defined $_->{narinfo} ? '-'
	: $_->{narinfo} =~ /^X: y$/m ? '=' : '+') } events("/changes?after=$last")),
	'publish= replace= publish- retract-', 'the narinfo is the one of now');

# ---- a reply is bounded, and a follower gets on

$last = sql('SELECT narinfo.last_event()');
sql("SELECT narinfo.publish_many(array_agg(" . narinfo_sql('i',
	q{'X: ' || repeat(E'\\t', 20000) || E'\\n'}) . ')) FROM generate_series(1000, 1199) AS i');
my ($seq, $replies) = ($last, 0);
while (my @some = events("/changes?after=$seq&limit=10000"))
{
	$replies++;
	die 'a gap' if $some[0]{seq} != $seq + 1;
	$seq = $some[-1]{seq};
	cmp_ok(scalar @some, '<', 40, 'no more than fits') if @some >= 40;
}
is($seq, $last + 200, 'all of them');
cmp_ok($replies, '>=', 6, "in $replies replies");

# ---- publishers at work

my @publishers = map {
	my $first = 10_000 * $_;
	my ($out, $err) = ('', '');
	my $statement = "DO \$\$ BEGIN FOR i IN $first .. $first + 299 LOOP "
		. 'PERFORM narinfo.publish(' . narinfo_sql('i % 500') . '), '
		. 'narinfo.publish(' . narinfo_sql('i') . '); '
		. 'IF i % 3 = 0 THEN PERFORM narinfo.retract(ARRAY['
		. 'narinfo.store_path(' . narinfo_sql('i - 1') . ')]); END IF; '
		. 'COMMIT; END LOOP; END $$';
	IPC::Run::start([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('postgres'), '-c', $statement ], '<', \undef,
		'>', \$out, '2>', \$err);
} 1 .. 3;
my %copy;
my $gaps = 0;
($seq, $replies) = (0, 0);
while (1)
{
	my $working = grep { $_->pumpable } @publishers;
	my @some = events("/changes?after=$seq&limit=50");
	last if !@some && !$working;
	for (@some)
	{
		$gaps++ if $_->{seq} != $seq + 1;
		$seq = $_->{seq};
		next unless defined $_->{hash};
		delete $copy{$_->{hash}};
		$copy{$_->{hash}} = $_->{narinfo} if defined $_->{narinfo};
	}
	$replies++;
	$_->pump_nb for grep { $_->pumpable } @publishers;
}
is((grep { !$_->finish } @publishers), 0, 'three publishers');
is($gaps, 0, "nothing is missed in $replies replies");
is($seq, sql('SELECT narinfo.last_event()'), 'up to the last event');
is(join("\n", map { "$_|" . unpack 'H*', $copy{$_} } sort keys %copy),
	sql(q{SELECT hash, encode(convert_to(info::text, 'UTF8'), 'hex')
		FROM narinfo.valid_path WHERE cache = 'main' ORDER BY hash::text COLLATE "C"}),
	'the copy is what the cache is');

# ---- who comes too late

ok(poll_until(sub { sql(q{SELECT seq = narinfo.last_event()
	FROM narinfo.referrer_state WHERE cache = 'main'}) eq 't' }),
	'the reverse index is up to date');
is(sql("SELECT narinfo.cut_events('0', 100)"), 100, 'events are removed');
for my $after (0, 99)
{
	$reply = http_get($port, "/changes?after=$after");
	is($reply->{status}, 410, "behind $after: gone");
	is($reply->{headers}{'content-type'}, 'application/json', 'its type');
	my $gone = decode_json($reply->{body});
	is_deeply($gone, { error => 'these events are not kept any more',
		cache => 'main', after => $after, first => 101, last => $seq,
		start_over => { checkpoint => undef, seq_at_least => 100 } },
		'where to start over');
}
is(http_request($port, 'HEAD', '/changes')->{status}, 410, 'HEAD, too');
is((events('/changes?after=100'))[0]{seq}, 101, 'behind 100 goes on');
$node->append_conf('postgresql.conf',
	"pg_narinfo.checkpoint_url = 'https://cache.example.org/\"checkpoints\"'\n");
$node->reload;
ok(poll_until(sub {
	(decode_json(http_get($port, '/changes')->{body})->{start_over}{checkpoint}
		// '') eq 'https://cache.example.org/"checkpoints"/main/' }),
	'a checkpoint is where the setting says');

# ---- a table that is locked

my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE narinfo.event');
$reply = http_get($port, "/changes?after=$seq");
is($reply->{status}, 503, 'a locked table');
is($reply->{headers}{'retry-after'}, 1, 'try again');
is(http_get($port, "/$hash.narinfo")->{status}, 200,
	'narinfos are served meanwhile');
$locker->query_safe('COMMIT');
$locker->quit;
ok(poll_until(sub { http_get($port, "/changes?after=$seq")->{status} == 200 }),
	'and when it is let go');
$node->stop;

# ---- a database without an encoding

$node = narinfo_node('ascii',
	init => [ extra => [ '--encoding=SQL_ASCII', '--locale=C' ] ]);
sql('SELECT narinfo.publish(' . narinfo_sql(1, q{E'X: \\xff\\xfe\\n'}) . ')');
sql('SELECT narinfo.publish(' . narinfo_sql(2, q{E'X: \\xc3\\xa9\\n'}) . ')');
my @events = events('/changes?after=1', $node->{http_port});
ok(!exists $events[0]{narinfo}, 'bytes that are no UTF-8 are no string');
like(pack('H*', $events[0]{narinfo_hex}), qr/^X: \xff\xfe\n\z/m,
	'and come in base 16');
like($events[1]{narinfo}, qr/^X: \xc3\xa9\n\z/m, 'others are told as ever');
$node->stop;

done_testing();
