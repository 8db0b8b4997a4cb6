# What was restored from an old backup, or copied, is stopped before it does
# harm, says so, and has a way back.
use strict;
use warnings;

use FindBin;
use File::Path qw(remove_tree);
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SitesTest qw(sql fails works publish state reason digest votes);
use Test::More;

my ($paris, $oslo, $bonn) = map { narinfo_site($_) } qw(paris oslo bonn);

# The files of a server that is stopped.
sub copy_files
{
	my ($from, $to) = @_;
	remove_tree($to);
	system('cp', '-a', $from, $to) == 0 or die "could not copy $from";
}

for my $node ($paris, $oslo, $bonn)
{
	$node->append_conf('postgresql.conf', "pg_narinfo.site_conninfo = '"
		. site_conninfo($node) . "'\npg_narinfo.site = '" . $node->name . "'\n");
	$node->reload;
}
publish($paris, 1, 100);
is(join_site($_, $paris), 'joined', $_->name) for $oslo, $bonn;
ok(votes($paris, $_), "$_ votes") for qw(oslo bonn);

# ---- a mirror

my $backup = PostgreSQL::Test::Utils::tempdir;
$oslo->stop;
copy_files($oslo->data_dir, "$backup/oslo");
$oslo->start;
publish($paris, 101, 120);
ok(caught_up($oslo, $paris), 'a mirror goes on after its backup');
ok(poll_until(sub { sql($paris, q{SELECT seq FROM narinfo.site_cache
	WHERE site = 'oslo'}) == 121 }), 'and has said so');
$oslo->stop;
copy_files("$backup/oslo", $oslo->data_dir);
$oslo->start;
ok(poll_until(sub { reason($oslo) =~ /restored from a backup.*rejoin/ }, 30),
	'restored, it is told that it had more');
ok(poll_until(sub { sql($paris, q{SELECT bool_or(vote) FROM narinfo.stat_sites
	WHERE site = 'oslo'}) eq 'f' }, 30), 'it has no vote');
is(http_get($oslo->{http_port}, '/health')->{status}, 503, 'and is not healthy');
publish($paris, 121, 125);
is(sql($oslo, 'SELECT narinfo.last_event()'), 101, 'it applies nothing with a gap');
works($oslo, "CALL narinfo.rejoin('" . site_conninfo($paris) . "')",
	qr/mirror of site "paris" now.*0 events/s, 'it rejoins');
ok(caught_up($oslo, $paris), 'has all');
is(digest($oslo), digest($paris), 'and is equal');
ok(votes($paris, 'oslo'), 'it votes again');

# ---- the primary

$paris->stop;
copy_files($paris->data_dir, "$backup/paris");
$paris->start;
publish($paris, 201, 220);
ok(caught_up($_, $paris), $_->name . ' has what came after the backup')
	for $oslo, $bonn;
$paris->stop;
copy_files("$backup/paris", $paris->data_dir);
$paris->start;
fails($paris, q{SELECT narinfo.create_cache('x')}, qr/NI005/, 'a change at once');
ok(poll_until(sub { state($paris) eq 'closed' }, 30),
	'the primary, restored, hears that its mirrors have more, and is closed');
like(reason($paris), qr/its mirror ".*has events that it does not have.*promote/,
	'it says what to do');
fails($paris, q{SELECT narinfo.create_cache('x')}, qr/NI005/, 'a change');
works($oslo, 'CALL narinfo.promote()', qr/"oslo" is the primary now, in epoch 2/,
	'a mirror is promoted');
ok(poll_until(sub { sql($bonn, q{SELECT count(*) FROM narinfo.mirror_state
	WHERE upstream = 'oslo'}) == 1 }, 60), 'the other one follows');
publish($oslo, 301, 305);
works($paris, "CALL narinfo.rejoin('" . site_conninfo($oslo) . "')",
	qr/mirror of site "oslo" now.*0 events/s, 'the old one rejoins');
for my $node ($paris, $bonn)
{
	ok(caught_up($node, $oslo), $node->name . ' has all');
	is(digest($node), digest($oslo), $node->name . ' is equal');
	ok(votes($oslo, $node->name), $node->name . ' votes');
}
is(sql($paris, 'SELECT count(*) FROM pg_replication_slots'), 0,
	'its old slots are gone');

# ---- a copy of the primary, which runs beside it

$oslo->stop;
my $copy = PostgreSQL::Test::Cluster->new('copy');
copy_files($oslo->data_dir, $copy->data_dir);
$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\n"
	. "pg_narinfo.listen = '127.0.0.1:"
	. PostgreSQL::Test::Cluster::get_free_port() . "'\n");
$oslo->start;
$copy->start;
ok(poll_until(sub { state($copy) eq 'closed' }, 30), 'a copy closes itself');
like(reason($copy), qr/another server answers as site "oslo"/, 'and says why');
fails($copy, q{SELECT narinfo.create_cache('x')}, qr/NI005/, 'a change');
is(state($oslo), 'primary', 'the primary does not mind');
is(publish($oslo, 401, 405), 5, 'and publishes');
ok(caught_up($_, $oslo), $_->name . ' goes on') for $paris, $bonn;

# ---- a base backup that was recovered: fenced, by its timeline

$oslo->backup('base');
my $base = PostgreSQL::Test::Cluster->new('base');
$base->init_from_backup($oslo, 'base', has_streaming => 1);
$base->append_conf('postgresql.conf', "pg_narinfo.listen = '127.0.0.1:"
	. PostgreSQL::Test::Cluster::get_free_port() . "'\n");
$base->start;
$base->promote;
is(state($base), 'fenced', 'a standby that was promoted is fenced');
fails($base, q{SELECT narinfo.create_cache('x')}, qr/NI005/, 'a change');
fails($base, 'CALL narinfo.promote()', qr/NI005/, 'to be promoted');
fails($base, 'CALL narinfo.promote(accept_loss => true)', qr/NI005/,
	'to be promoted, whatever is lost');

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for $paris, $oslo, $bonn, $copy, $base;

done_testing();
