# A real nix client against the workers: what it asks, what it is answered,
# and that whole closures arrive with their signatures checked.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use JSON::PP qw(decode_json);
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $npaths = 82;
my $tops = 61;    # paths in the closure of $top_path

my $version = qx(nix --version) // '';
like($version, qr/^nix \(Nix\) \d/, 'there is a nix')
	or BAIL_OUT('this test is nothing without nix');
note($version);

my $node = narinfo_node('nix', conf => "pg_narinfo.log_requests = 'all'\n");
my $port = $node->{http_port};
my $url = "http://127.0.0.1:$port";

# Operators are found by search_path.
$ENV{PGOPTIONS} = '-c search_path=narinfo,public';

sub sql { return $node->safe_psql('postgres', @_) }

sql("CALL narinfo.import_cache('$cache_dir')");
is(sql('SELECT count(*) FROM narinfo.valid_path'), $npaths, 'all imported');

# ---- what was asked

# Every request so far, as "METHOD PATH STATUS", in order.  The workers log a
# request when it was answered; they count it before.
my $seen = 0;

sub requests
{
	my @lines;
	poll_until(sub {
		my $count = sql('SELECT sum(requests) FROM narinfo.stat_workers');
		@lines = slurp_bytes($node->logfile) =~
			/request address=\S+ method=(\S+ path=\S+ status=\d+)/g;
		return @lines == $count;
	}) or die 'the log does not have every request';
	s/ (?:path|status)=/ /g for @lines;
	my @new = @lines[$seen .. $#lines];
	$seen = @lines;
	return @new;
}

# Nothing was asked for a second time but what is listed, so often at most, and
# nothing failed on our side.
sub not_inflated
{
	my ($name, $requests, %most) = @_;
	my %count;
	$count{ s/ \d+$//r }++ for @$requests;
	my @often = grep {
		my $kind = m{^GET /nix-cache-info} ? 'info'
			: m{^HEAD .*\.narinfo} ? 'head'
			: m{^GET .*\.narinfo} ? 'narinfo' : 'other';
		$count{$_} > ($most{$kind} // 1);
	} sort keys %count;
	is(join("\n", map { "$_: $count{$_}" } @often), '',
		"$name: nothing is asked twice");
	is(join("\n", grep { !/ (?:200|404)$/ } @$requests), '',
		"$name: all answers are 200 or 404");
	return;
}

my @homes;

sub new_home
{
	push @homes, $node->basedir . '/home' . @homes;
	return $homes[-1];
}

# Nix makes what it has in its stores read-only, too much so for rm -r.
END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', grep { -d } @homes) if @homes;
	$? = $status;
}

sub hash_of
{
	my ($path) = @_;
	return $path =~ m{^/nix/store/([^-]+)-} ? $1 : die $path;
}

# ---- closures: sizes are those that SQL says

my $closure = <<~END;
	WITH RECURSIVE closure (hash) AS (
		SELECT narinfo.store_hash('$top_path'::narinfo.store_path)
		UNION
		SELECT ref FROM closure
			JOIN narinfo.valid_path USING (hash),
			unnest(narinfo.ref_hashes(info)) AS ref
	)
	SELECT %s FROM closure JOIN narinfo.valid_path USING (hash)
	END
my $closure_size = sql(sprintf $closure, 'sum(narinfo.nar_size(info))');
is(sql(sprintf $closure, 'count(*)'), $tops, 'the closure has its paths');

requests();
my ($status, $out, $err) = nix(new_home(), 'nix', 'path-info',
	'--recursive', '--closure-size', '--json', '--store', $url, $top_path);
is($status, 0, 'path-info -r --closure-size') or diag($err);
my $infos = eval { decode_json($out) } // [];
# from nix 2.19 on, an object by path
$infos = [ map { { %{ $infos->{$_} }, path => $_ } } keys %$infos ]
	if ref $infos eq 'HASH';
is(scalar @$infos, $tops, 'it tells of every path of the closure');
my ($top) = grep { $_->{path} eq $top_path } @$infos;
is($top->{closureSize}, $closure_size, 'the closure is as large as SQL says');
is(join("\n", sort map { "$_->{path}|$_->{narSize}|$_->{narHash}|"
	. join(' ', sort @{ $_->{references} }) } @$infos),
	join("\n", sort split /\n/, sql(sprintf $closure, <<~END)),
	narinfo.store_path(info) || '|' || narinfo.nar_size(info) || '|sha256-'
		|| encode(narinfo.digest(narinfo.nar_hash(info)), 'base64') || '|'
		|| (SELECT coalesce(string_agg(ref::text, ' '
			ORDER BY ref::text COLLATE "C"), '')
			FROM unnest(narinfo.refs(info)) AS ref)
	END
	'sizes, hashes and references are those that SQL says');
my @requests = requests();
not_inflated('path-info', \@requests);
is((grep { m{^GET /[^/]+\.narinfo 200} } @requests), $tops,
	'every narinfo is asked for once');
is((grep { m{ /nix-cache-info } } @requests), 1, 'nix-cache-info, too');

# ---- a copy of everything, signatures required

# What nothing refers to; their closures are all there is.
my @roots = split /\n/, sql(<<~'END');
	SELECT narinfo.store_path(info) FROM narinfo.valid_path
	WHERE hash NOT IN (SELECT ref
		FROM narinfo.valid_path AS referrer,
			unnest(narinfo.ref_hashes(referrer.info)) AS ref
		WHERE ref <> referrer.hash)
	END
cmp_ok(scalar @roots, '>', 1, 'there are several roots');

my $copy = new_home();
my @trust = ('--option', 'trusted-public-keys', $public_key,
	'--option', 'require-sigs', 'true');
($status, $out, $err) =
	nix($copy, 'nix', 'copy', '--from', $url, @trust, @roots);
is($status, 0, 'nix copy of everything') or diag($err);
@requests = requests();
# It looks whether each of the paths that it was given is there, and then
# again at their closures.
not_inflated('copy', \@requests, head => 3);
is((grep { m{^GET /nar/\S+ 200} } @requests), $npaths, 'every NAR came once');
is((grep { m{^GET /[^/]+\.narinfo 200} } @requests), $npaths,
	'every narinfo came once');

($status, $out, $err) = nix($copy, 'nix', 'path-info', '--all');
is(join("\n", sort split /\n/, $out),
	join("\n", sort split /\n/,
		sql('SELECT narinfo.store_path(info) FROM narinfo.valid_path')),
	'all paths are in the new store');
($status, $out, $err) =
	nix($copy, 'nix', 'store', 'verify', '--all', @trust);
is($status, 0, 'contents and signatures verify') or diag($err);
($status, $out, $err) =
	nix($copy, 'nix-store', '--verify', '--check-contents');
is($status, 0, 'nix-store --verify --check-contents, too') or diag($err);
unlike($err, qr/error|corrupt|modified/i, 'and finds nothing');

# ---- another key of the same name is not believed

my $distrust = new_home();
mkdir $distrust or die $!;
($status, $out, $err) = nix($distrust, 'nix-store',
	'--generate-binary-cache-key', $public_key =~ /^([^:]+):/,
	"$distrust/secret", "$distrust/public");
is($status, 0, 'another key') or diag($err);
my $other_key = slurp_bytes("$distrust/public");
isnt($other_key, $public_key, 'it is another');
requests();
($status, $out, $err) = nix($distrust, 'nix', 'copy', '--from', $url,
	'--option', 'trusted-public-keys', $other_key,
	'--option', 'require-sigs', 'true', $top_path);
isnt($status, 0, 'nothing is copied');
like($err, qr/lacks a valid signature|no signature/,
	'since the signatures are of another key');
requests();

# ---- nix-store -r, through substituters

my $realised = new_home();
my @substitute = ('--option', 'substituters', $url, @trust);
($status, $out, $err) =
	nix($realised, 'nix-store', '--realise', @substitute, $top_path);
is($status, 0, 'nix-store -r') or diag($err);
like($out, qr/\Q$top_path\E/, 'says what it made');
@requests = requests();
not_inflated('nix-store -r', \@requests);
is((grep { m{^GET /[^/]+\.narinfo 200} } @requests), $tops,
	'it asked for the narinfos of the closure, and for no other');
is((grep { m{^GET /nar/\S+ 200} } @requests), $tops, 'and for their NARs');
($status, $out, $err) =
	nix($realised, 'nix-store', '--query', '--requisites', $top_path);
is(scalar(() = $out =~ /\n/g), $tops, 'the closure is valid in the store');
($status, $out, $err) =
	nix($realised, 'nix', 'store', 'verify', '--recursive', @trust, $top_path);
is($status, 0, 'and verifies') or diag($err);

($status, $out, $err) = nix(new_home(), 'nix-store', '--realise',
	'--option', 'substituters', $url,
	'--option', 'trusted-public-keys', $other_key,
	'--option', 'require-sigs', 'true', $top_path);
isnt($status, 0, 'not so with another key');
requests();

# ---- what is not there is not there at once: 404, which is not asked again

my $missing = '/nix/store/' . ('0' x 32) . '-missing';
my $home = new_home();
my $began = time;
($status, $out, $err) =
	nix($home, 'nix', 'path-info', '--store', $url, $missing);
note(sprintf '%.1f s', time - $began);
isnt($status, 0, 'a missing path');
like($err, qr/path '\Q$missing\E' is not valid/, 'is not valid');
@requests = requests();
is(join("\n", @requests), "GET /nix-cache-info 200\n"
	. 'HEAD /' . hash_of($missing) . '.narinfo 404',
	'is asked for once');
($status, $out, $err) =
	nix(new_home(), 'nix-store', '--realise', @substitute, $missing);
isnt($status, 0, 'nix-store -r of a missing path');
@requests = requests();
not_inflated('nix-store -r of a missing path', \@requests);
ok((grep { $_ eq 'GET /' . hash_of($missing) . '.narinfo 404' } @requests),
	'is a 404 as well');

# ---- other commands

($status, $out, $err) =
	nix(new_home(), 'nix', 'store', 'ping', '--store', $url);
is($status, 0, 'nix store ping') or diag($err);
like("$out$err", qr/\Q$url\E/, 'says whom it has asked');
is(join("\n", requests()), 'GET /nix-cache-info 200', 'one request');

my $deriver = sql("SELECT narinfo.deriver(info) FROM narinfo.valid_path
	WHERE hash = '" . hash_of($top_path) . "'");
my ($drv) = $deriver =~ m{([^/]+)$};
($status, $out, $err) = nix(new_home(), 'nix', 'log', '--store', $url,
	'--option', 'substituters', '', $top_path);
isnt($status, 0, 'nix log without a log');
like($err, qr/build log of .* is not available/, 'says that there is none');
@requests = requests();
not_inflated('nix log', \@requests, narinfo => 2);
ok((grep { $_ eq "GET /log/$drv 404" } @requests), 'it was a 404')
	or diag(join "\n", @requests);

mkdir "$node->{file_root}/log" or die $!;
append_to_file("$node->{file_root}/log/$drv", "all is well\n");
($status, $out, $err) = nix(new_home(), 'nix', 'log', '--store', $url,
	'--option', 'substituters', '', $top_path);
is($status, 0, 'nix log of a log') or diag($err);
is($out, "all is well\n", 'prints it');
requests();

# A file of a NAR, which nix fetches whole.
my $tar = sql(q{SELECT narinfo.store_path(info) FROM narinfo.valid_path
	WHERE narinfo.store_name(narinfo.store_path(info)) LIKE 'tar-%'});
($status, $out, $err) = nix(new_home(), 'nix', 'store', 'ls', '--store', $url,
	'--recursive', $tar);
is($status, 0, 'nix store ls') or diag($err);
like($out, qr{/share/doc/copyright$}m, 'shows the files of a NAR');
requests();

# ---- HEAD: what GET says, without a body

for my $path ('/nix-cache-info', '/' . hash_of($top_path) . '.narinfo',
	'/' . sql("SELECT narinfo.url(info) FROM narinfo.valid_path
		WHERE hash = '" . hash_of($top_path) . "'"),
	'/' . ('0' x 32) . '.narinfo', "/log/$drv")
{
	my $head = http_request($port, 'HEAD', $path);
	my $get = http_get($port, $path);
	is($head->{status}, $get->{status}, "HEAD $path: $get->{status}");
	is($head->{body}, '', 'no body');
	delete $_->{headers}{date} for $head, $get;
	is_deeply($head->{headers}, $get->{headers}, 'the headers of GET');
	is($get->{headers}{'content-length'}, length $get->{body},
		'Content-Length is that of GET');
}

# ---- another cache, under its name

sql(q{INSERT INTO narinfo.cache (name, priority) VALUES ('second', 50)});
copy_cache("$node->{file_root}/second");
sql("CALL narinfo.import_cache('$cache_dir', 'second')");
# What the first has no more the second still has.
my $pids = q{SELECT string_agg(pid::text, ' ') FROM narinfo.stat_workers};
my $workers = sql($pids);
sql(q{DELETE FROM narinfo.valid_path WHERE cache = 'main'});

# All in one batch, in which the index is found to lead to dead rows.
my @hashes = map { m{([^/]+)\.narinfo$} } glob "$cache_dir/*.narinfo";
my $socket = http_connect($port);
print $socket map { ("GET /$_.narinfo HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /second/$_.narinfo HTTP/1.1\r\nHost: h\r\n\r\n") } @hashes;
my @wrong;
for my $hash (@hashes)
{
	my ($first, $second) =
		map { eval { read_reply($socket) } // { status => 'nothing' } } 1 .. 2;
	push @wrong, "$hash $first->{status} $second->{status}"
		if $first->{status} ne '404' || $second->{status} ne '200'
		|| $second->{body} ne slurp_bytes("$cache_dir/$hash.narinfo");
}
is(join("\n", @wrong), '', 'what was deleted is gone, from one cache alone');
is(sql($pids), $workers, 'the workers are the same as before');
requests();

my $second = new_home();
($status, $out, $err) = nix($second, 'nix', 'copy', '--from', "$url/second",
	@trust, $top_path);
is($status, 0, 'nix copy from a cache with a name') or diag($err);
@requests = requests();
is(join("\n", grep { !m{^\S+ /second/} } @requests), '',
	'all requests are below it');
not_inflated('copy from a cache with a name', \@requests, head => 3);
is((grep { m{^GET /second/nar/\S+ 200} } @requests), $tops, 'every NAR');
($status, $out, $err) =
	nix($second, 'nix', 'store', 'verify', '--recursive', @trust, $top_path);
is($status, 0, 'the copy verifies') or diag($err);

($status, $out, $err) =
	nix(new_home(), 'nix', 'path-info', '--store', $url, $top_path);
isnt($status, 0, 'the first cache does not have it any more');
like($err, qr/is not valid/, 'and says so');

# Both, as substituters: what the one has not, the other has.
($status, $out, $err) = nix(new_home(), 'nix-store', '--realise',
	'--option', 'substituters', "$url $url/second", @trust, $top_path);
is($status, 0, 'nix-store -r from two caches') or diag($err);

$node->stop;
done_testing();
