# Files of narinfos that are gone: they go when nobody names them any more and
# their grace is over, and never before; and check_files() finds what does not
# go together.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use File::Path qw(make_path remove_tree);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $base = PostgreSQL::Test::Utils::tempdir();
my $root = "$base/files";
make_path("$root/nar");
my $node = narinfo_node('files', file_root => $root, conf => <<~END);
	autovacuum = off
	pg_narinfo.check_nars = off
	pg_narinfo.upload_reserve = 0
	pg_narinfo.file_removal_pause = '1d'
	pg_narinfo.file_removal_rate = 0
	pg_narinfo.trash_grace = '60d'
	pg_narinfo.file_grace = -1
	END
my $port = $node->{http_port};
my $day = 24 * 60 * 60;

sub sql { return $node->safe_psql('postgres', @_) }

sub setting
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "pg_narinfo.$name = '$value'\n");
	$node->reload;
	poll_until(sub { sql("SHOW pg_narinfo.$name") eq $value })
		or die "$name is not $value";
	return;
}

my $digits = '0123456789abcdfghijklmnpqrsvwxyz';

sub hash_of { return substr(sha256_hex($_[0]) =~ tr/e/z/r, 0, 32) }
sub path_of { return '/nix/store/' . hash_of($_[0]) . "-$_[0]" }

# A narinfo as an SQL literal.
sub narinfo
{
	my ($name, $url, $size) = @_;
	return sprintf "E'StorePath: %s\\nURL: %s\\nCompression: none\\n%s"
		. "NarHash: sha256:%s\\nNarSize: 9\\nReferences: \\n'::narinfo.narinfo",
		path_of($name), $url,
		defined $size ? "FileSize: $size\\n" : '', '0' x 52;
}

sub publish
{
	my ($name, $url, $cache, $size) = @_;
	return sql('SELECT narinfo.publish(' . narinfo($name, $url, $size)
		. ", '" . ($cache // 'main') . "')");
}

sub retract
{
	my ($name, $cache) = @_;
	return sql("SELECT narinfo.retract(ARRAY['" . path_of($name)
		. "']::narinfo.store_path[], false, '" . ($cache // 'main') . "')");
}

# A file of some days ago.
sub put_file
{
	my ($path, $days, $content) = @_;
	make_path("$root/$path" =~ s{/[^/]*$}{}r);
	open my $out, '>', "$root/$path" or die "$path: $!";
	print $out $content // "content of $path\n";
	close $out;
	age($path, $days // 100);
	return;
}

sub age
{
	my ($path, $days) = @_;
	my $then = time - $days * $day;
	utime $then, $then, "$root/$path" or die "$path: $!";
	return;
}

sub there { return join ' ', map { -e "$root/$_" ? 'there' : 'gone' } @_ }

# What was queued, was so some days earlier.
sub days_pass
{
	my ($days) = @_;
	sql("UPDATE narinfo.file_removal SET since = since - interval '$days days'");
	sql("UPDATE narinfo.trash SET removed = removed - interval '$days days'");
	return;
}

sub run_removal
{
	my ($ret, $out, $err) = $node->psql('postgres',
		'CALL narinfo.remove_files()');
	return $ret == 0 && $err =~ /removed (\d+) files/ ? $1 : $err;
}

sub queue
{
	return sql("SELECT coalesce(string_agg(cache || ':' || path, ' '
		ORDER BY cache, path), '') FROM narinfo.file_removal");
}

# The janitor has its turn when it is started and then not for a day, so that
# it does not come between; with this grace it removes no files.
sub before_its_turn
{
	sql("INSERT INTO narinfo.trash SELECT 'main', '" . hash_of('old')
		. "', " . narinfo('old', 'nar/unheard-of.nar')
		. ", now() - interval '100 days', 'nobody'");
	return;
}

sub janitor_had_its_turn
{
	ok(poll_until(sub { sql(q{SELECT count(*) FROM narinfo.trash
		WHERE by = 'nobody'}) eq '0' }), 'the janitor empties trash');
	is(sql(q{DELETE FROM narinfo.file_removal
		WHERE path = 'nar/unheard-of.nar' RETURNING since < now()
		- interval '99 days'}), 't', 'from when on is what trash says');
	setting('file_grace', '30d');
	return;
}

before_its_turn();
publish('some', 'nar/some.nar');
janitor_had_its_turn();
is(sql('SELECT boot_val, unit FROM pg_settings WHERE name ~ $$file_grace$$'),
	30 * $day . '|s', 'the default of the grace');

# ---- a file goes when its grace is over

put_file('nar/one.nar');
put_file(hash_of('one') . '.ls');
publish('one', 'nar/one.nar', 'main', 7);
is(queue(), '', 'nothing is queued');
is(retract('one'), '1', 'retracted');
is(queue(), 'main:nar/one.nar', 'its file is queued');
is(sql('SELECT queued, queued_bytes, due, removed FROM narinfo.stat_files'),
	'1|7|0|0', 'stat_files says so');
is(run_removal(), '0', 'nothing is due');
is(there('nar/one.nar', hash_of('one') . '.ls'), 'there there', 'it is there');
days_pass(31);
is(sql('SELECT due FROM narinfo.stat_files'), '1', 'it is due');
is(run_removal(), '0', 'due, but trash names it');
is(there('nar/one.nar'), 'there', 'it is there');
is(queue(), '', 'it is queued again when it leaves trash');
is(sql('SELECT kept FROM narinfo.stat_files'), '1', 'counted as kept');
days_pass(30);
is(run_removal(), '1', 'it leaves trash, and its file goes');
is(sql('SELECT count(*) FROM narinfo.trash'), '0', 'trash is empty');
is(there('nar/one.nar', hash_of('one') . '.ls'), 'gone gone',
	'the file and its listing are gone');
is(sql('SELECT queued, due, removed, removed_bytes FROM narinfo.stat_files'),
	'0|0|1|' . length("content of nar/one.nar\n"), 'stat_files counts it');
setting('trash_grace', '0');

# ---- one NAR of two narinfos; two URLs; replaced narinfos

put_file('nar/shared.nar');
publish('s1', 'nar/shared.nar');
publish('s2', 'nar/shared.nar');
put_file(hash_of('s1') . '.ls');
put_file(hash_of('s2') . '.ls');
retract('s1');
days_pass(31);
is(run_removal(), '0', 'the other one names it');
is(there('nar/shared.nar'), 'there', 'it is there');
is(there(map { hash_of($_) . '.ls' } 's1', 's2'), 'gone there',
	'the listing of the first is gone');
retract('s2');
run_removal();
is(queue(), 'main:nar/shared.nar', 'queued with the second');
is(there('nar/shared.nar'), 'there', 'and there until its grace is over');
days_pass(31);
is(run_removal(), '1', 'then it goes');
is(there('nar/shared.nar'), 'gone', 'it does');

put_file("nar/$_") for qw(gzip-g lzip-g);
sql(sprintf q{SELECT narinfo.publish(E'StorePath: /gnu/store/%s-g\nURL: nar/gzip-g\nCompression: gzip\nFileSize: 5\nURL: nar/lzip-g\nCompression: lzip\nFileSize: 6\nNarHash: sha256:%s\nNarSize: 9\nReferences: \nSignature: 1;h;KA==\n', 'guix')},
	hash_of('g'), '0' x 52)
	if sql(q{SELECT narinfo.create_cache('guix', '/gnu/store')}) eq 't';
sql("DELETE FROM narinfo.valid_path WHERE cache = 'guix'");
is(queue(), 'guix:nar/gzip-g guix:nar/lzip-g',
	'a DELETE queues each URL of a narinfo');
sql('DELETE FROM narinfo.file_removal');

put_file("nar/r$_.nar") for 1, 2;
publish('r', 'nar/r1.nar');
sql('UPDATE narinfo.valid_path SET info = ' . narinfo('r', 'nar/r2.nar')
	. " WHERE hash::text = '" . hash_of('r') . "'");
is(queue(), 'main:nar/r1.nar', 'a replaced narinfo queues what it named');
days_pass(31);
is(run_removal(), '1', 'it goes');
is(there('nar/r1.nar', 'nar/r2.nar'), 'gone there', 'the new one stays');

# ---- removed, published again, removed: the grace counts from the last time

put_file('nar/again.nar');
publish('again', 'nar/again.nar');
retract('again');
days_pass(20);
publish('again', 'nar/again.nar');
days_pass(20);
is(run_removal(), '0', 'published again before it was due');
is(there('nar/again.nar'), 'there', 'it is there');
retract('again');
days_pass(20);
publish('again', 'nar/again.nar');
retract('again');
days_pass(20);
is(run_removal(), '0', 'not due after 20 days');
is(there('nar/again.nar'), 'there', 'still there');
days_pass(20);
is(run_removal(), '1', 'but after 40');

# ---- what a pusher counts on

my $token = sql(q{SELECT narinfo.create_token('pusher', '{push,read}')});
my @auth = (Authorization => "Bearer $token");
ok(poll_until(sub { sql(q{SELECT count(*) FROM narinfo.stat_workers
	WHERE kind = 'writer' AND state = 'serving'}) eq '1' }), 'a writer');

sub queue_files
{
	for my $name (@_)
	{
		publish($name, "nar/$name.nar");
		retract($name);
	}
	return;
}

put_file("nar/$_.nar") for qw(head get put old published);
put_file('nar/stays.nar');
queue_files(qw(head get put old published));
days_pass(31);
is(http_request($port, 'HEAD', '/nar/head.nar', @auth)->{status}, 200,
	'a pusher asks');
is(http_request($port, 'HEAD', '/nar/get.nar')->{status}, 200,
	'somebody else asks');
is(http_put($port, '/nar/put.nar', "content of nar/put.nar\n", @auth)
	->{status}, 200, 'pushed again, as it is');
is(http_put($port, '/' . hash_of('published') . '.narinfo',
	sprintf("StorePath: %s\nURL: nar/published.nar\nCompression: none\n"
		. "NarHash: sha256:%s\nNarSize: 9\nReferences: \n",
		path_of('published'), '0' x 52), @auth)->{status},
	201, 'a narinfo of it is pushed');
sql("DELETE FROM narinfo.valid_path WHERE hash::text = '"
	. hash_of('published') . "'");
days_pass(31);
is(run_removal(), '2', 'those go that nobody counts on');
is(there(map { "nar/$_.nar" } qw(head get put old published)),
	'there gone there gone there', 'the others stay');
is(queue(), 'main:nar/head.nar main:nar/published.nar main:nar/put.nar',
	'and stay in the queue');
is(sql("SELECT count(*) FROM narinfo.file_removal WHERE since >
	now() - interval '1 hour'"), '3', 'from now on');
days_pass(31);
age("nar/$_.nar", 100) for qw(head put published);
is(run_removal(), '3', 'a grace later they go');

put_file('nar/young.nar', 0);
my $mtime = (stat "$root/nar/young.nar")[9];
http_request($port, 'HEAD', '/nar/young.nar', @auth);
is((stat "$root/nar/young.nar")[9], $mtime, 'a young file is not renewed');

# ---- other caches: their own copies, links, hard links

sql(qq{SELECT narinfo.create_cache('$_')}) for qw(team hard bound);
put_file('nar/c.nar');
put_file('team/nar/c.nar');
publish('c', 'nar/c.nar');
publish('c', 'nar/c.nar', 'team');
retract('c');
days_pass(31);
is(run_removal(), '1', 'a copy of another cache is another file');
is(there('nar/c.nar', 'team/nar/c.nar'), 'gone there', 'main\'s is gone');

# main's nar/l.nar is a link to team's: beneath the root, so it is served
put_file('team/nar/l.nar');
symlink '../team/nar/l.nar', "$root/nar/l.nar" or die;
publish('l', 'nar/l.nar');
publish('l', 'nar/l.nar', 'team');
is(http_get($port, '/nar/l.nar')->{status}, 200, 'a link is served');
retract('l', 'team');
days_pass(31);
is(run_removal(), '0', 'a link of another cache leads to it');
is(there('team/nar/l.nar'), 'there', 'it is there');
is(queue(), 'team:nar/l.nar', 'and is looked at later');
retract('l');
days_pass(31);
is(run_removal(), '2', 'without its narinfo, both go');
is(there('team/nar/l.nar'), 'gone', 'the file, too');

put_file('nar/h.nar');
make_path("$root/hard/nar");
link "$root/nar/h.nar", "$root/hard/nar/h.nar" or die;
publish('h', 'nar/h.nar');
publish('h', 'nar/h.nar', 'hard');
retract('h');
days_pass(31);
is(run_removal(), '0', 'a hard link of another cache');
is(there('nar/h.nar', 'hard/nar/h.nar'), 'there there', 'both are there');
retract('h', 'hard');
days_pass(31);
is(run_removal(), '2', 'and both go');

# ---- no root, no removal

put_file('nar/root.nar');
queue_files('root');
days_pass(31);
rename $root, "$root.away" or die;
like(run_removal(), qr/file_root is not set, or empty, or not there/,
	'no root');
make_path($root);
like(run_removal(), qr/file_root is not set/, 'an empty root');
rmdir $root or die;
rename "$root.away", $root or die;
is(queue(), 'main:nar/root.nar', 'it is still queued');
# the root is opened anew each second
ok(poll_until(sub { http_get($port, '/nar/root.nar')->{status} == 200 }),
	'back');
rename "$root/nar", "$root/nar.away" or die;
is(run_removal(), '0', 'nor without nar/');
rename "$root/nar.away", "$root/nar" or die;
is(queue(), 'main:nar/root.nar', 'it is still queued');
days_pass(31);
is(run_removal(), '1', 'and goes');

# ---- somebody writes narinfos while files are renamed

my $hidden = '.gone-*';
put_file('nar/race.nar');
put_file('nar/other.nar');
queue_files('race', 'other');
days_pass(31);
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe('SELECT narinfo.publish('
	. narinfo('race', 'nar/race.nar') . ')');
my $call = $node->background_psql('postgres', on_error_stop => 0);
$call->query_until(qr/started/, "\\echo started\nCALL narinfo.remove_files();\n");
ok(poll_until(sub { () = glob "$root/nar/$hidden" }), 'files are renamed');
is(there('nar/race.nar', 'nar/other.nar'), 'gone gone', 'both');
$writer->query_safe('COMMIT');
$writer->quit;
ok(poll_until(sub { queue() eq '' }), 'it goes on when the writer ends');
$call->quit;
is(there('nar/race.nar', 'nar/other.nar'), 'there gone',
	'the one that was published meanwhile is back');
is(scalar(() = glob "$root/nar/$hidden"), 0, 'nothing is left renamed');
retract('race');

# A writer that does not end: everything is as it was.
put_file('nar/long.nar');
queue_files('long');
days_pass(31);
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe('SELECT narinfo.publish('
	. narinfo('other', 'nar/other.nar') . ')');
is(run_removal(), '0', 'a transaction that writes narinfos for long');
is(there('nar/long.nar', 'nar/race.nar'), 'there there',
	'nothing is removed');
is(queue(), 'main:nar/long.nar main:nar/race.nar', 'nor forgotten');

# ---- a crash in between

$call = $node->background_psql('postgres', on_error_stop => 0);
$call->query_until(qr/started/, "\\echo started\nCALL narinfo.remove_files();\n");
ok(poll_until(sub { (() = glob "$root/nar/$hidden") == 2 }),
	'files are renamed');
$node->stop('immediate');
eval { $_->quit } for $call, $writer;
is(scalar(() = glob "$root/nar/$hidden"), 2, 'a crash leaves them so');
# one of them is published while its file is away
put_file('nar/race.nar', 0, 'pushed again');
$node->append_conf('postgresql.conf',
	"pg_narinfo.file_removal_pause = '1s'\n");
$node->start;
publish('race', 'nar/race.nar');
ok(poll_until(sub { !glob "$root/nar/$hidden" }), 'the janitor mends it');
is(there('nar/long.nar', 'nar/race.nar'), 'gone there',
	'the one is gone, the other is what was pushed');
is(slurp_bytes("$root/nar/race.nar"), 'pushed again', 'so it is');

# Its entry may have been looked at before it was published.
ok(poll_until(sub { queue() =~ m{^(?:main:nar/race.nar)?$} }),
	'nothing else is queued');
sql('DELETE FROM narinfo.file_removal');

# Renamed by a run that was cut off, named since, and nothing was pushed.
put_file('nar/back.nar');
publish('back', 'nar/back.nar');
setting('file_removal_pause', '1d');
ok(poll_until(sub { wait_for_http($port) }), 'serves');
retract('back');
days_pass(31);
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe('SELECT narinfo.publish('
	. narinfo('other', 'nar/other.nar') . ')');
$call = $node->background_psql('postgres', on_error_stop => 0);
$call->query_until(qr/started/, "\\echo started\nCALL narinfo.remove_files();\n");
ok(poll_until(sub { (() = glob "$root/nar/$hidden") == 1 }), 'renamed');
before_its_turn();
$node->stop('immediate');
eval { $_->quit } for $call, $writer;
$node->append_conf('postgresql.conf', "pg_narinfo.file_grace = -1\n");
$node->start;
janitor_had_its_turn();
publish('back', 'nar/back.nar');
is(there('nar/back.nar'), 'gone', 'it is still renamed');
is(run_removal(), '0', 'it is named');
is(there('nar/back.nar'), 'there', 'and renamed back');

# A cancelled run leaves nothing renamed.
put_file('nar/cancel.nar');
queue_files('cancel');
days_pass(31);
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe('SELECT narinfo.publish('
	. narinfo('other', 'nar/other.nar') . ')');
like($node->psql('postgres', "SET statement_timeout = '1s';
	CALL narinfo.remove_files()") && ($node->psql('postgres',
	"SET statement_timeout = '1s'; CALL narinfo.remove_files()"))[2],
	qr/statement timeout|cannot run inside/, 'cancelled');
is(there('nar/cancel.nar'), 'there', 'it is back');
$writer->query_safe('ROLLBACK');
$writer->quit;
is(run_removal(), '1', 'and another run removes it');

# ---- who may, and where

is(($node->psql('postgres', 'BEGIN; CALL narinfo.remove_files()'))[0], 3,
	'not inside a transaction');
sql('CREATE ROLE nobody LOGIN; CREATE ROLE boss LOGIN;
	GRANT narinfo_admin TO boss');
like(($node->psql('postgres', 'CALL narinfo.remove_files()',
	extra_params => [ '-U', 'nobody' ]))[2], qr/permission denied/,
	'not by anybody');
like(($node->psql('postgres', 'CALL narinfo.remove_files()',
	extra_params => [ '-U', 'boss' ]))[2], qr/removed 0 files/,
	'but by an admin');

put_file('nar/fenced.nar');
queue_files('fenced');
days_pass(31);
sql('UPDATE narinfo.node SET timeline = timeline + 1');
is(sql('SELECT narinfo.node_state()'), 'fenced', 'a copy of a server');
like(run_removal(), qr/this server may remove no files now/,
	'removes no files');
sql('UPDATE narinfo.node SET timeline = timeline - 1');
is(there('nar/fenced.nar'), 'there', 'it is there');
is(run_removal(), '1', 'and goes when the server is itself');

# ---- checking

remove_tree("$root/team");
sql("SELECT narinfo.drop_cache('team')");
sql('DELETE FROM narinfo.file_removal');
sql("DELETE FROM narinfo.valid_path WHERE cache <> 'main'");
sql("DELETE FROM narinfo.valid_path");
sql('DELETE FROM narinfo.trash');
sql('DELETE FROM narinfo.file_removal');
remove_tree("$root/nar");
make_path("$root/nar/.incoming", "$root/nar/sub", "$root/log");
is(sql('SELECT narinfo.check_files()'), '0', 'nothing is wrong');
put_file('nar/good.nar', 9, 'good');
put_file('nar/size.nar', 9, 'four');
put_file('nar/orphan.nar', 90, 'orphan');
put_file('nar/sub/orphan', 90, 'orphan of a directory');
put_file('nar/queued.nar', 9);
put_file('nar/trash.nar', 9);
put_file('nar/.incoming/upload', 9);
put_file('nar/.gone-0', 9);
put_file('log/x.drv', 9);
put_file('nar/q?x.nar', 9);
symlink 'good.nar', "$root/nar/link.nar" or die;
symlink '/etc/passwd', "$root/nar/outside.nar" or die;
publish('good', 'nar/good.nar', 'main', 4);
publish('size', 'nar/size.nar', 'main', 5);
publish('missing', 'nar/missing.nar', 'main', 5);
publish('elsewhere', 'https://example.org/a.nar');
publish('question', 'nar/q?x.nar');
publish('link', 'nar/link.nar', 'main', 4);
publish('outside', 'nar/outside.nar');
publish('trash', 'nar/trash.nar');
publish('queued', 'nar/queued.nar');
setting('trash_grace', '60d');
retract('trash');
sql("DELETE FROM narinfo.file_removal");
sql("DELETE FROM narinfo.valid_path WHERE hash::text = '"
	. hash_of('queued') . "'");

sub problems
{
	return sql(q{SELECT string_agg(concat_ws(' ', kind, path,
		'bytes ' || bytes, 'expected ' || expected), E'\n'
		ORDER BY kind, path) FROM narinfo.file_problem});
}

my $expected = <<'END' =~ s/\n\z//r;
unreferenced nar/orphan.nar bytes 6
unreferenced nar/sub/orphan bytes 21
missing https://example.org/a.nar
missing nar/missing.nar expected 5
missing nar/outside.nar
size nar/size.nar bytes 4 expected 5
END
is(sql('SELECT narinfo.check_files()'), '6', 'six problems');
is(problems(), $expected, 'these');
is(sql('SELECT narinfo.check_files()'), '6', 'and again');
is(problems(), $expected, 'in place of the first ones');
like(($node->psql('postgres', "SELECT narinfo.check_files('none')"))[2],
	qr/cache "none" does not exist/, 'no such cache');
is(sql("SELECT narinfo.stored_size('nar/good.nar'),
	narinfo.stored_size('nar/../nar/good.nar'),
	narinfo.stored_size('nar/none')"), '4||', 'stored_size');

is(sql("SELECT narinfo.check_files('bound')"), '0', 'another cache');
sql("DELETE FROM narinfo.file_removal");
is(sql('SELECT narinfo.mend_files()'), '2', 'two files are queued');
is(queue(), 'main:nar/orphan.nar main:nar/sub/orphan', 'these');
is(run_removal(), '0', 'with the whole grace');
days_pass(31);
is(run_removal(), '2', 'then they go');
is(there('nar/orphan.nar', 'nar/sub/orphan', 'nar/good.nar',
	'nar/queued.nar'), 'gone gone there there', 'the orphans alone');
is(sql('SELECT count(*) FROM narinfo.valid_path'), '7',
	'no narinfo was retracted');
put_file('nar/missing.nar', 9, 'five!');
is(sql("SELECT narinfo.mend_files('{missing,size}')"), '3',
	'what is still so is retracted when it is asked for');
is(sql("SELECT string_agg(narinfo.store_name(narinfo.store_path(info)), ' '
	ORDER BY narinfo.store_name(narinfo.store_path(info)))
	FROM narinfo.valid_path"), 'good link missing question',
	'the rest is good');
is(problems() // '', '', 'no problem is left');
is(sql('SELECT narinfo.check_files()'), '1', 'and the next check finds');
is(problems(), 'unreferenced nar/queued.nar bytes 26',
	'what was taken out of the queue by hand');

# ---- many

my $n = $ENV{FILES_MANY} || 20000;
sql('DELETE FROM narinfo.trash; DELETE FROM narinfo.file_removal');
sql("SELECT narinfo.publish_many(array_agg(format(E'StorePath: /nix/store/%s-p"
	. "\\nURL: nar/many/%s.nar\\nNarHash: sha256:%s\\nNarSize: 9\\n"
	. "References: \\n', translate(md5(i::text), 'e', 'z'), i,
	repeat('0', 52))::narinfo.narinfo)) FROM generate_series(1, 2 * $n) AS i");
make_path("$root/nar/many");
for my $i (1 .. 2 * $n)
{
	open my $out, '>', "$root/nar/many/$i.nar" or die;
}
utime 0, 0, map { "$root/nar/many/$_.nar" } 1 .. 2 * $n;

sub timed
{
	my ($first, $last) = @_;
	sql("DELETE FROM narinfo.valid_path
		WHERE narinfo.store_name(narinfo.store_path(info)) = 'p'
			AND substr(narinfo.url(info), 10) ~ '^[0-9]+.nar\$'
			AND split_part(substr(narinfo.url(info), 10), '.', 1)::int
				BETWEEN $first AND $last");
	days_pass(31);
	my $begin = time;
	is(run_removal(), $last - $first + 1, 'removed ' . ($last - $first + 1));
	return time - $begin;
}

my $tenth = timed(1, $n / 10);
my $whole = timed($n / 10 + 1, $n / 10 + $n);
note sprintf '%d files in %.2f s, %d in %.2f s', $n / 10, $tenth, $n, $whole;
cmp_ok($whole, '<', 4 * 10 * $tenth + 2,
	'ten times the files take no more than that of the time');
is(scalar(() = glob "$root/nar/many/*.nar"), 2 * $n - $n - $n / 10,
	'the others are there');

$node->stop;
done_testing();
