# Files that a site has not and a valid narinfo names: clients are sent to a
# site that has them, or they are fetched, once, and kept only when right.
use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex);
use File::Find;
use File::Path qw(make_path remove_tree);
use FindBin;
use IO::Socket::INET;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $base = PostgreSQL::Test::Utils::tempdir();

# ---- two sites: one has the files, the other the narinfos alone

my $full = narinfo_node('full', conf => "pg_narinfo.log_requests = 'all'\n");
my $bare = narinfo_node('bare', file_root => "$base/bare",
	conf => "pg_narinfo.http_workers = 2\npg_narinfo.upload_reserve = 0\n"
		. "pg_narinfo.log_requests = 'all'\n"
		. "pg_narinfo.fetch_timeout = '2s'\n"
		. "pg_narinfo.source_tokens = '$base/tokens'\n");
my ($full_port, $port) = ($full->{http_port}, $bare->{http_port});

sub sql { return $bare->safe_psql('postgres', @_) }

sub configure
{
	my ($node, %settings) = @_;
	for (sort keys %settings)
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'");
	}
	$node->reload;
	return;
}

# What is below the root of the bare site, unfinished files included.
sub files
{
	my %files;
	find({ no_chdir => 1, wanted => sub {
		$files{ substr $_, length "$base/bare/" } = sha256_hex(slurp_bytes($_))
			if -f;
	} }, "$base/bare") if -d "$base/bare";
	return \%files;
}

sub remove_files
{
	remove_tree("$base/bare", { keep_root => 1 });
	return;
}

sub unfinished { return grep { m{/\.incoming/} } keys %{ files() } }

my @figures = qw(running begun kept failed wrong bytes redirected refused);

sub figures
{
	my %figure;
	@figure{@figures} = split /\|/, sql('SELECT * FROM narinfo.stat_fetch');
	return \%figure;
}

sub settled
{
	return poll_until(sub { figures()->{running} == 0 && !unfinished() });
}

make_path("$base/bare");
sql("CALL narinfo.import_cache('$cache_dir')");
$full->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");

my @nars = map { m{(nar/[^/]+)$} } sort { -s $b <=> -s $a }
	glob "$cache_dir/nar/*";
my $nar = $nars[0];
my $bytes = slurp_bytes("$cache_dir/$nar");
my $source = "http://127.0.0.1:$full_port";

# ---- off

is(http_get($port, "/$nar")->{status}, 404, 'off: what is missing is absent');
is(sql("SELECT narinfo.add_file_source('$source')"), 't', 'a source is added');
is(sql("SELECT narinfo.add_file_source('$source')"), 'f', 'once');
is(sql("SELECT narinfo.add_file_source('$source', 50)"), 't',
	'its position changes');
for my $bad ('ftp://x/', 'http://u:p@x/', 'http://x/?y', 'http://x/#y',
	"http://x/a b", 'x')
{
	my ($ret, $out, $err) = $bare->psql('postgres',
		"SELECT narinfo.add_file_source('$bad')");
	like($err, qr/file_source_url_valid/, "$bad is none");
}
is(http_get($port, "/$nar")->{status}, 404, 'off is off');

# ---- redirect

my $offset = -s $bare->logfile;
configure($bare, 'pg_narinfo.missing_files' => 'redirect');
ok(poll_until(sub { http_get($port, "/$nar");
	$bare->log_contains(qr/cannot tell which narinfo.*\n.*index_files/,
		$offset) }), 'without the index the log says what to do');
is(sql('SELECT narinfo.index_files()'), 't', 'the index is made');
is(sql('SELECT narinfo.index_files()'), 'f', 'once');
ok(poll_until(sub { http_get($port, "/$nar")->{status} == 302 }),
	'redirect: 302');
my $reply = http_get($port, "/$nar");
is($reply->{headers}{location}, "$source/$nar", 'to the site that has it');
is($reply->{headers}{'content-length'}, length $reply->{body}, 'with a body');
$reply = http_request($port, 'HEAD', "/$nar");
is("$reply->{status} $reply->{headers}{location}", "302 $source/$nar",
	'HEAD as well');
is(http_get($port, "/main/$nar")->{headers}{location}, "$source/$nar",
	'by the name of the cache, too');
is(http_get($port, "/$nar", 'Narinfo-Site' => 'x')->{status}, 404,
	'a site is not sent on');
my $other = 'nar/' . ('0' x 52) . '.nar.xz';
is(http_get($port, "/$other")->{status}, 404,
	'nor is anybody for what no narinfo names');
is(http_get($port, '/log/x.drv')->{status}, 404, 'nor for a log');
is_deeply(files(), {}, 'nothing was fetched');
cmp_ok(figures()->{redirected}, '>=', 3, 'redirections are counted');

# Two that both have nothing: neither client nor site goes round in circles.
$full->safe_psql('postgres', "SELECT narinfo.index_files();
	SELECT narinfo.add_file_source('http://127.0.0.1:$port')");
rename "$full->{file_root}/nar", "$full->{file_root}/away" or die $!;
my %offset = map { $_->name => -s $_->logfile } $bare, $full;

# Requests for the NAR that came to a site since then.
sub requests
{
	my ($node) = @_;
	my $log = substr slurp_bytes($node->logfile), $offset{ $node->name };
	return scalar(() = $log =~ m{ path=/\Q$nar\E }g);
}

for my $policy (qw(redirect fetch))
{
	configure($_, 'pg_narinfo.missing_files' => $policy) for $bare, $full;
	ok(poll_until(sub { $_->safe_psql('postgres',
		'SHOW pg_narinfo.missing_files') eq $policy }), $policy)
		for $bare, $full;
	for my $method (qw(GET HEAD))
	{
		is(http_request($_, $method, "/$nar")->{status}, 404,
			"$policy: both lack it: $method is 404") for $port, $full_port;
	}
}
# Each was asked four times by us, and as often by the other.
for my $node ($bare, $full)
{
	poll_until(sub { requests($node) >= 8 }, 10);
	is(requests($node), 8, $node->name . ' was asked once for each');
}
remove_tree("$full->{file_root}/nar");
rename "$full->{file_root}/away", "$full->{file_root}/nar" or die $!;
configure($full, 'pg_narinfo.missing_files' => 'off');

# ---- fetch

ok(poll_until(sub { http_get($port, "/$nar")->{status} == 200 }), 'fetch: 200');
$reply = http_get($port, "/$nar");
ok($reply->{body} eq $bytes, 'and the bytes');
ok(settled(), 'it is stored');
is(files()->{$nar}, sha256_hex($bytes), 'it is here now');
my $figures = figures();
is($figures->{kept}, 1, 'one was kept');
$reply = http_request($port, 'HEAD', "/$nars[1]");
is($reply->{status}, 200, 'HEAD: 200');
is($reply->{headers}{'content-length'}, -s "$cache_dir/$nars[1]",
	'with the size');
is(figures()->{begun}, $figures->{begun}, 'it fetches nothing');
$reply = http_get($port, "/$nars[1]", Range => 'bytes=10-19');
is($reply->{status}, 206, 'a part: 206');
is($reply->{headers}{'content-range'}, 'bytes 10-19/' . -s
	"$cache_dir/$nars[1]", 'which part');
ok($reply->{body} eq substr(slurp_bytes("$cache_dir/$nars[1]"), 10, 10),
	'the part');
ok(settled() && files()->{ $nars[1] }, 'all of it is here');
$reply = http_get($port, "/$nars[2]", Range => 'bytes=99999999-');
is($reply->{status}, 416, 'a part that is not there: 416');
ok(settled(), 'settled');

# A real nix, from a site that has no NAR.
remove_files();
my $home = $bare->basedir . '/home';
my ($status, $out, $err) = nix($home, 'nix', 'copy', '--no-check-sigs',
	'--from', "http://127.0.0.1:$port", $top_path);
is($status, 0, 'nix copies a closure whose NARs only the other site has')
	or diag($err);
ok(settled(), 'they are stored');
my $kept = grep { m{^nar/} } keys %{ files() };
cmp_ok($kept, '>=', 55, "$kept NARs are here now");
is((grep { slurp_bytes("$base/bare/$_") ne slurp_bytes("$cache_dir/$_") }
	keys %{ files() }), 0, 'each is the same');

END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', $home) if $home && -d $home;
	$? = $status;
}

done_testing();
