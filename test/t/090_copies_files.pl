# Copies that count only with their files (copies_include_files): a mirror
# fetches what is published, and tells at once when it is on its disk.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use File::Copy qw(copy);
use File::Path qw(make_path);
use FindBin;
use IO::Socket::INET;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $base = PostgreSQL::Test::Utils::tempdir();
my $conf = "pg_narinfo.check_nars = off\npg_narinfo.upload_reserve = 0\n";

my $paris = narinfo_site('paris', conf => "pg_narinfo.site = 'paris'\n$conf");
my $oslo = narinfo_site('oslo', file_root => "$base/oslo", conf => $conf);
my $bonn = narinfo_site('bonn', file_root => "$base/bonn", conf => $conf);

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub configure
{
	my ($node, $name, $value) = @_;
	sql($node, "ALTER SYSTEM SET pg_narinfo.$name = '$value'");
	$node->reload;
	return;
}

sub url_of { my ($node) = @_; return "http://127.0.0.1:$node->{http_port}" }

sub alter { my ($what) = @_; sql($paris, "SELECT narinfo.alter_cache('main', $what)") }

# ---- paths, each with a file of its own

sub hash_of { my ($i) = @_; return sprintf('%032d', $i) }
sub bytes_of { my ($i) = @_; return "the file of path $i, " x (100 + $i) }
sub file_of { my ($i) = @_; return 'nar/' . sha256_hex(bytes_of($i)) . '.nar.xz' }

sub narinfo
{
	my ($i) = @_;
	return "StorePath: /nix/store/" . hash_of($i) . "-p\nURL: " . file_of($i)
		. "\nCompression: xz\nFileHash: sha256:" . sha256_hex(bytes_of($i))
		. "\nFileSize: " . length(bytes_of($i)) . "\nNarHash: sha256:"
		. '0' x 52 . "\nNarSize: 9\nReferences: \n";
}

sub has
{
	my ($node, $i) = @_;
	my $file = $node->{file_root} . '/' . file_of($i);
	return -f $file && slurp_bytes($file) eq bytes_of($i);
}

sub write_file
{
	my ($node, $i) = @_;
	make_path("$node->{file_root}/nar");
	open my $out, '>:raw', $node->{file_root} . '/' . file_of($i) or die $!;
	print $out bytes_of($i);
	close $out or die $!;
	return;
}

sub publish
{
	my (@paths) = @_;
	my $infos = join ', ', map { "'" . narinfo($_) . "'::narinfo.narinfo" } @paths;
	sql($paris, "SELECT narinfo.publish_many(ARRAY[$infos])");
	return;
}

sub copies
{
	my ($copies, $patience) = @_;
	my $seq = sql($paris, 'SELECT narinfo.last_event()');
	return ($paris->psql('postgres',
		"CALL narinfo.wait_copies($seq, $copies, '$patience')"))[1];
}

sub reason
{
	my ($site) = @_;
	return sql($paris, "SELECT reason FROM narinfo.stat_copies
		WHERE site = '$site' AND cache = 'main'");
}

sub status
{
	my ($node, $i) = @_;
	return http_get($node->{http_port}, '/' . hash_of($i) . '.narinfo')->{status};
}

my @push;

sub put_file
{
	my ($i) = @_;
	return http_put($paris->{http_port}, '/' . file_of($i), bytes_of($i), @push)
		->{status};
}

sub put
{
	my ($i) = @_;
	my $reply = http_put($paris->{http_port}, '/' . hash_of($i) . '.narinfo',
		narinfo($i), @push);
	return "$reply->{status} " . ($reply->{headers}{'narinfo-copies'} // 'none');
}

# ---- without the policy: as ever

make_path("$base/oslo", "$base/bonn");
configure($paris, 'site_url', url_of($paris));
is(join_site($oslo, $paris, "url => '" . url_of($oslo) . "/'"), 'joined',
	'a mirror without files');
@push = (Authorization => 'Bearer '
	. sql($paris, q{SELECT narinfo.create_token('p', ARRAY['push'])}));
alter(q{push_copies => 1, push_wait => '20 s'});
is(put_file(1), 201, 'a file');
is(put(1), '201 1/1', 'the narinfo is a copy');
ok(!has($oslo, 1), 'and its file is not there');

# ---- with it

alter('copies_include_files => true');
is(copies(1, '20 s'), 1, 'with its file, when that has come');
ok(has($oslo, 1), 'it is there');
my $slowest = 0;
for my $i (2 .. 9)
{
	put_file($i);
	my $start = time;
	is(put($i), '201 1/1', 'PUT');
	my $took = time - $start;
	ok(has($oslo, $i), 'and the file is there at once');
	$slowest = $took if $took > $slowest;
}
note(sprintf 'the slowest took %.0f ms', $slowest * 1000);
cmp_ok($slowest, '<', 5, 'it does not wait for anything but the file');
configure($oslo, 'site_interval', '1h');
put_file(10);
put(10);
put_file(11);
is(put(11), '201 1/1', 'nor for the next report');
configure($oslo, 'site_interval', '200ms');
write_file($paris, $_) for 100 .. 159;
publish(100 .. 159);
is(copies(1, '20 s'), 1, 'many');
is(scalar(grep { !has($oslo, $_) } 100 .. 159), 0, 'all of them are there');
is(sql($oslo, q{SELECT c.files - narinfo.last_event() FROM narinfo.site_cache AS c
	WHERE c.site = 'oslo' AND c.cache = 'main'}), 0, 'as it says itself');

# ---- nobody has the file

alter(q{push_wait => '0.5 s', push_when_late => 'refuse', visible_copies => 1});
ok(poll_until(sub { sql($paris, q{SELECT narinfo.site_watermark()
	= narinfo.last_event()}) eq 't' }), 'all is shown so far');
put_file($_) for 21 .. 24;
publish(20);
is(put(21), '409 0/1', 'nobody has a file of before: PUT is late');
is(status($paris, 21), 404, 'it is not shown');
ok(poll_until(sub { has($oslo, 21) }), 'the file has come all the same');
like(reason('oslo'), qr/lacks ${\ file_of(20)}/, 'stat_copies says why');
is(sql($paris, q{SELECT counts FROM narinfo.stat_copies WHERE site = 'oslo'
	AND cache = 'main'}), 't', 'and that it counts for what was before');
is(put_file(20), 201, 'somebody brings it');
is(copies(1, '30 s'), 1, 'then it counts');
ok(poll_until(sub { status($paris, 21) == 200 }), 'and is shown');
is(put(21), '200 1/1', 'the same PUT again');
is(reason('oslo'), '', 'nothing is wrong');

publish(30);
is(copies(1, '0.3 s'), 0, 'another one is missing');
write_file($oslo, 30);
is(copies(1, '30 s'), 1, 'until somebody has brought it there');

publish(31);
is(copies(1, '0.3 s'), 0, 'another one');
alter('copies_include_files => false');
is(copies(1, '10 s'), 1, 'without the policy nobody asks for it');
alter('copies_include_files => true');
is(copies(1, '0.3 s'), 0, 'with it again');
sql($paris, "SELECT narinfo.retract(ARRAY['/nix/store/" . hash_of(31)
	. "-p'::narinfo.store_path])");
is(copies(1, '30 s'), 1, 'until its path is gone');

# ---- a mirror without a place for files

configure($oslo, 'file_root', '');
ok(poll_until(sub { reason('oslo') =~ /file_root/ }), 'no file_root: it is known');
is(put(22), '409 0/1', 'it does not count');
alter(q{push_when_late => 'accept'});
is(put(23), '201 0/1', 'which may be accepted');
configure($oslo, 'file_root', $oslo->{file_root});
is(copies(1, '20 s'), 1, 'it counts when it has looked through its files');
ok(has($oslo, $_), "file $_ is there") for 22, 23;

# ---- it dies while it fetches: a source that stops in the middle, once

my $source = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1',
	ReuseAddr => 1) or die $!;
my $pid = fork // die;
if ($pid == 0)
{
	for my $n (0 .. 9)
	{
		my $client = $source->accept or last;
		my $request = '';
		while ($request !~ /\r\n\r\n/)
		{
			sysread($client, $request, 4096, length $request) or last;
		}
		my $bytes = bytes_of(24);
		syswrite $client, "HTTP/1.1 200 OK\r\nContent-Length: " . length($bytes)
			. "\r\nConnection: close\r\n\r\n";
		syswrite $client, $n ? $bytes : substr $bytes, 0, 1000;
		append_to_file("$base/asked", "$request\n");
		sysread $client, $request, 1;    # until the other side ends
	}
	POSIX::_exit(0);
}
sql($oslo, "SELECT narinfo.add_file_source('http://127.0.0.1:"
	. $source->sockport . "', 1)");
put(24);
sub unfinished { my @found = glob "$base/oslo/nar/.incoming/*"; return @found }
ok(poll_until(sub { -e "$base/asked" && grep { -s } unfinished() }),
	'it is fetching');
my @all = ($oslo->{_pid}, split /\n/, sql($oslo, 'SELECT pid FROM pg_stat_activity'));
$oslo->kill9;
poll_until(sub { !grep { kill 0, $_ } @all }) or die 'the server does not end';
$oslo->start;
is(copies(1, '30 s'), 1, 'killed, and started again: it counts');
ok(has($oslo, 24), 'with the file');
is(join(' ', unfinished()), '', 'and nothing is left of the first try');
kill 'TERM', $pid;
waitpid $pid, 0;
sql($oslo, 'DELETE FROM narinfo.file_source');

# ---- pointed here anew; a mirror of the mirror

sql($oslo, "CALL narinfo.repoint('" . site_conninfo($paris) . "')");
is(copies(1, '30 s'), 1, 'pointed here anew, it counts');
is(join_site($bonn, $oslo, "url => '" . url_of($bonn) . "'"), 'joined',
	'a mirror of the mirror');
is(copies(2, '30 s'), 2, 'counts, too');
is(scalar(grep { !has($bonn, $_) } 1 .. 11, 100 .. 159), 0,
	'when it has all files');
alter(q{push_copies => 2, push_wait => '20 s'});
put_file(40);
is(put(40), '201 2/2', 'PUT with two copies');
ok(has($_, 40), $_->name . ' has the file') for $oslo, $bonn;

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal/,
	$_->name . ': nothing crashed') for $paris, $oslo, $bonn;

done_testing();
