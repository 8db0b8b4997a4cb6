# What a worker remembers of its lookups is used, and never makes an answer
# older than the last commit.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('memory', conf => "autovacuum = off\n");
my $port = $node->{http_port};

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres',
		"SET search_path = narinfo, public; $statement");
}

# As where replication applies: the rules of what may change are not at issue.
sub change
{
	my ($statement) = @_;
	return sql("SET session_replication_role = replica; $statement");
}

sub answer
{
	my ($hash) = @_;
	my $reply = http_get($port, "/$hash.narinfo");
	return $reply->{status} == 200 ? $reply->{body} : $reply->{status};
}

my %text;    # hash => what must be answered
my @hashes;

# Every path twice, so that the second answer comes from memory.
sub all_right
{
	my ($what) = @_;
	my $wrong = 0;
	for my $round (1, 2)
	{
		answer($_) eq ($text{$_} // 404) or $wrong++ for @hashes;
	}
	is($wrong, 0, $what);
}

# The worker's too, which it reports once a second, and the janitor's, which
# may sleep for five: wait until they have nothing more to report.
sub index_scans
{
	my ($scans, $since) = (-1, 0);
	poll_until(sub {
		my $now = sql(q{SELECT idx_scan FROM pg_stat_user_indexes
			WHERE indexrelname = 'valid_path_pkey'});
		($scans, $since) = ($now, time) if $now != $scans;
		return time - $since > 6.5;
	});
	return $scans;
}

for my $file (glob "$cache_dir/*.narinfo")
{
	my ($hash) = $file =~ m{/([^/]+)\.narinfo$};
	push @hashes, $hash;
	$text{$hash} = slurp_bytes($file);
}
@hashes = sort @hashes;

%text = ();
all_right('nothing is there');
sql("CALL narinfo.import_cache('$cache_dir')");
$text{$_} = slurp_bytes("$cache_dir/$_.narinfo") for @hashes;
all_right('what was absent is there, as soon as it is committed');

# ---- it is used

my $before = index_scans();
answer($hashes[0]) for 1 .. 100;
is(index_scans() - $before, 0, 'what was found before needs no index');
answer('0' x 32) for 1 .. 100;
sql('CREATE TABLE other ()');
answer('0' x 32) for 1 .. 100;
is(index_scans() - $before, 2,
	'nor does what was absent, until something commits');

# ---- rows change

my $one = $hashes[1];
for my $round (1 .. 12)
{
	$text{$one} =~ s/^FileSize: \d+$/FileSize: $round/m;
	my $literal = $text{$one} =~ s/'/''/gr;
	change("UPDATE narinfo.valid_path SET info = '$literal'"
		. " WHERE hash = '$one'");
	my $first = answer($one);
	is($first eq $text{$one} && answer($one) eq $first, 1,
		"replaced, time $round");
}

change("DELETE FROM narinfo.valid_path WHERE hash = '$one'");
my $kept = delete $text{$one};
all_right('a path that is removed is absent');
sql('VACUUM narinfo.valid_path');
all_right('and vacuumed away');
change(qq{INSERT INTO narinfo.valid_path (hash, info) VALUES ('$one', '}
	. ($kept =~ s/'/''/gr) . q{')});
$text{$one} = $kept;
all_right('and published again');

# ---- others do not see what is not committed

my $other = $hashes[2];
my $session = $node->background_psql('postgres');
$session->query_safe('SET search_path = narinfo, public');
$session->query_safe('SET session_replication_role = replica');
for my $end ('ROLLBACK', 'COMMIT')
{
	$session->query_safe('BEGIN');
	$session->query_safe(
		"DELETE FROM narinfo.valid_path WHERE hash = '$other'");
	all_right("a removal that is not committed ($end)");
	$session->query_safe($end);
	delete $text{$other} if $end eq 'COMMIT';
	all_right("after $end");
}
$kept = slurp_bytes("$cache_dir/$other.narinfo");
for my $end ('ROLLBACK', 'COMMIT')
{
	$session->query_safe('BEGIN');
	$session->query_safe(
		qq{INSERT INTO narinfo.valid_path (hash, info) VALUES ('$other', '}
		. ($kept =~ s/'/''/gr) . q{')});
	all_right("a path that is not committed ($end)");
	$session->query_safe($end);
	$text{$other} = $kept if $end eq 'COMMIT';
	all_right("after $end");
}
$session->quit;

# ---- the table changes

# Each row goes where another one was.
change(q{CREATE TABLE turned AS SELECT * FROM narinfo.valid_path;
	DELETE FROM narinfo.valid_path});
sql('VACUUM (TRUNCATE off) narinfo.valid_path');
change(q{INSERT INTO narinfo.valid_path SELECT * FROM turned
	ORDER BY hash USING OPERATOR(narinfo.>)});
all_right('rows in the places of others');

sql('VACUUM FULL narinfo.valid_path');
all_right('a table that was rewritten');

change(q{DELETE FROM narinfo.valid_path});
sql('VACUUM narinfo.valid_path');
my %all = %text;
%text = ();
all_right('a table that became shorter');
is(sql(q{SELECT pg_relation_size('narinfo.valid_path')}), 0,
	'there is nothing left of it');
change('INSERT INTO narinfo.valid_path SELECT * FROM turned');
%text = %all;
all_right('and longer');
change('TRUNCATE narinfo.valid_path');
%text = ();
all_right('truncated');
change('INSERT INTO narinfo.valid_path SELECT * FROM turned');
%text = %all;
all_right('and filled');

# ---- the same hash in another cache

sql(q{INSERT INTO narinfo.cache (name) VALUES ('team')});
is(http_get($port, "/team/$one.narinfo")->{status}, 404,
	'what is in one cache is not in another') for 1 .. 2;
$text{$one} =~ s/^FileSize: \d+$/FileSize: 77/m;
my $team = $text{$one};
change(qq{INSERT INTO narinfo.valid_path (cache, hash, info)
	VALUES ('team', '$one', '}
	. ($team =~ s/'/''/gr) . q{')});
$text{$one} = $all{$one};
for my $round (1, 2)
{
	is(http_get($port, "/team/$one.narinfo")->{body}, $team,
		"each cache has its own, time $round");
	is(answer($one), $text{$one}, "and main's, time $round");
}

# ---- without any

$node->append_conf('postgresql.conf', "pg_narinfo.lookup_memory = 0\n");
$node->reload;
ok(poll_until(sub {
	$before = index_scans();
	answer($hashes[0]) for 1 .. 10;
	return index_scans() >= $before + 10;
}), 'with lookup_memory = 0 every lookup uses the index');
all_right('and finds the same');
$node->append_conf('postgresql.conf', "pg_narinfo.lookup_memory = '64kB'\n");
$node->reload;
all_right('a very small one');

sql('DROP EXTENSION pg_narinfo CASCADE; CREATE EXTENSION pg_narinfo');
%text = ();
all_right('an extension made anew has nothing');

unlike(slurp_file($node->logfile), qr/(?:ERROR|PANIC|TRAP):|terminated by/,
	'nothing went wrong on the way');

done_testing();
