# A mirror follows another site without a new copy, while the primary
# publishes; nothing is missed, and the slot that nobody reads goes.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $paris = narinfo_site('paris');
my $oslo = narinfo_site('oslo');
my $bonn = narinfo_site('bonn');

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub repoint
{
	my ($node, $to) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "CALL narinfo.repoint('"
		. site_conninfo($to) . "')");
	return $ret == 0 ? 'done' : $err;
}

# A narinfo, as an expression of i.
my $made = q{format(E'StorePath: /nix/store/%s-p\nURL: nar/%s\nNarHash: }
	. q{sha256:%s\nNarSize: 9\nReferences: \n', translate(md5(i::text), 'e', 'z'),
	i, repeat('0', 52))::narinfo.narinfo};

sub publish
{
	my ($first, $last, $cache) = @_;
	return sql($paris, "SELECT narinfo.publish_many(array_agg($made), '"
		. ($cache // 'main') . "') FROM generate_series($first, $last) AS i");
}

sub digests
{
	my ($node) = @_;
	return sql($node, q{SELECT c, narinfo.last_event(c), narinfo.cache_digest(c)
		FROM narinfo.event_caches() AS c ORDER BY c}) . ' '
		. sql($node, q{SELECT md5(string_agg(t::text, ' ' ORDER BY hash, removed))
			FROM narinfo.trash AS t});
}

sub slots { return sql($_[0], q{SELECT coalesce(string_agg(slot_name, ' '
	ORDER BY slot_name), '-') FROM pg_replication_slots
	WHERE slot_name !~ '^pg_'}) }

sub all_caught_up
{
	my ($node) = @_;
	return !grep { !caught_up($node, $paris, $_) }
		split /\n/, sql($paris, 'SELECT narinfo.event_caches()');
}

sql($paris, "CALL narinfo.import_cache('$cache_dir')");
publish(1, 2000);
is(join_site($_, $paris), 'joined', $_->name) for $oslo, $bonn;
is(slots($paris), 'narinfo_bonn narinfo_oslo', 'two slots');

# ---- with changes of every kind meanwhile

sql($bonn, 'ALTER SUBSCRIPTION narinfo DISABLE');
publish(2001, 4500);
sql($paris, q{SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
	FROM narinfo.valid_path WHERE narinfo.store_name(narinfo.store_path(info)) = 'p'
	ORDER BY hash LIMIT 100))});
sql($paris, "SELECT narinfo.pin('top', '$top_path');
	SELECT narinfo.create_cache('late', priority => 7);
	SELECT narinfo.create_token('t', ARRAY['read'], NULL, 'late')");
publish(1, 50, 'late');
sql($paris, q{SELECT narinfo.create_cache('gone')});
publish(1, 50, 'gone');
sql($paris, q{SELECT narinfo.drop_cache('gone');
	UPDATE narinfo.cache SET priority = 8 WHERE name = 'late'});
ok(all_caught_up($oslo), 'one has it all');
is(repoint($bonn, $oslo), 'done', 'the other one follows the first');
is(slots($paris), 'narinfo_oslo', 'its old slot is gone');
is(slots($oslo), 'narinfo_bonn', 'and the new one is there');
is(digests($bonn), digests($paris), 'it has all that it missed');
publish(5001, 5100);
ok(all_caught_up($bonn), 'and what comes');
is(digests($bonn), digests($paris), 'equal');
is(sql($bonn, 'SELECT bool_and(vote) FROM narinfo.site_cache
	WHERE site = narinfo.site_name()'), 't', 'it votes');

# ---- back and forth, while somebody publishes

my $busy = IPC::Run::start([ 'psql', '-X', '-q', '-d', $paris->connstr('postgres'),
	'-c', "DO \$\$ BEGIN FOR i IN 10001 .. 14000 LOOP
		PERFORM narinfo.publish($made); COMMIT; END LOOP; END \$\$" ],
	'>', \my $said, '2>', \my $failed);
for my $round (1 .. 3)
{
	is(repoint($bonn, $paris), 'done', "round $round: to the primary");
	is(repoint($bonn, $oslo), 'done', "round $round: to the mirror");
}
ok(IPC::Run::finish($busy), 'all was published') or diag $failed;
ok(all_caught_up($bonn), 'all has come');
is(digests($bonn), digests($paris), 'equal, none missed, none twice');
is(sql($bonn, q{SELECT max(seq) - min(seq) + 1 - count(*) FROM narinfo.event
	WHERE cache = 'main'}), 0, 'no gap');
is(slots($paris) . ' ' . slots($oslo), 'narinfo_oslo narinfo_bonn', 'two slots');

# ---- what is refused

like(repoint($oslo, $bonn), qr/has what it has by way of this one/, 'a loop');
is(slots($bonn), '-', 'leaves nothing');
like(repoint($paris, $oslo), qr/no mirror/, 'a primary');
my $rome = narinfo_site('rome');
sql($rome, "CALL narinfo.import_cache('$cache_dir')");
like(repoint($bonn, $rome), qr/does not have all events/,
	'a site with another, shorter history');
is(slots($rome), '-', 'leaves nothing there');
publish(20001, 20010);
ok(all_caught_up($bonn), 'and it goes on where it was');
is(digests($bonn), digests($paris), 'equal');

# ---- another way to the same site

is(repoint($bonn, $oslo), 'done', 'the same site again');
publish(20011, 20020);
ok(all_caught_up($bonn), 'goes on');
is(slots($oslo), 'narinfo_bonn', 'with its slot');

# ---- the primary is gone for good (README.md, Sites)

is(repoint($bonn, $paris), 'done', 'both follow the primary');
ok(caught_up($_, $paris), 'and have what it has') for $oslo, $bonn;
$paris->stop('immediate');
sql($oslo, 'CALL narinfo.leave_site(force => true)');
is(sql($oslo, 'SELECT narinfo.node_state()'), 'fenced', 'one leaves it');
sql($oslo, 'SELECT narinfo.start()');
is(sql($oslo, 'SELECT narinfo.node_state()'), 'primary', 'and is the primary');
sql($oslo, q{SELECT narinfo.publish(E'StorePath: /nix/store/}
	. ('a' x 32) . q{-after\nURL: nar/after\nNarHash: sha256:}
	. ('0' x 52) . q{\nNarSize: 9\nReferences: \n')});
is(repoint($bonn, $oslo), 'done', 'the other mirror follows it');
ok(caught_up($bonn, $oslo), 'and has what it publishes');
is(digests($bonn), digests($oslo), 'equal');
is(sql($bonn, q{SELECT m.upstream || ' ' || s.role FROM narinfo.mirror_state AS m
	JOIN narinfo.site AS s ON s.name = m.upstream}), 'oslo primary',
	'which others know by its name, as before');

for my $node ($paris, $oslo, $bonn)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
		$node->name . ': nothing crashed');
}

done_testing();
