# Tokens: who they let into a private cache, when they stop doing so, what
# becomes of those who show wrong ones, and tokens for holders of keys.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IO::Socket::INET;
use MIME::Base64;
use NarinfoTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = narinfo_node('tokens', init => [ allows_streaming => 1 ],
	conf => <<~'END');
	log_statement = all
	log_min_duration_statement = 0
	pg_narinfo.log_requests = 'all'
	pg_narinfo.auth_failures_max = 0
	END
my $port = $node->{http_port};
my $url = "http://127.0.0.1:$port/team";
my ($hash) = $top_path =~ m{/nix/store/([^-]+)-};
my $narinfo = slurp_bytes("$cache_dir/$hash.narinfo");
my ($nar) = $narinfo =~ /^URL: (.*)$/m;
my $dir = $node->basedir . '/client';
mkdir $dir or die $!;

# Every secret that was ever given out: none may be written down by the server.
my @secrets;

sub sql { return $node->safe_psql('postgres', @_) }

sub create_token
{
	my ($name, $rights, %option) = @_;
	my $expires = $option{expires} // 'NULL';
	my $cache = $option{cache} // 'team';
	my $token = sql("SELECT narinfo.create_token('$name',
		'{$rights}', $expires, '$cache')");
	push @secrets, $token;
	return $token;
}

sub bearer { return (Authorization => "Bearer $_[0]") }

sub basic
{
	my ($password, $user) = @_;
	return (Authorization => 'Basic '
		. encode_base64(($user // 'x') . ":$password", ''));
}

sub status
{
	my ($path, @headers) = @_;
	return http_get($port, $path, @headers)->{status};
}

sub write_file
{
	my ($file, $text) = @_;
	open my $out, '>', $file or die "$file: $!";
	chmod 0600, $file or die $!;
	print $out $text;
	close $out or die $!;
	return $file;
}

sub set
{
	my (%setting) = @_;
	sql("ALTER SYSTEM SET pg_narinfo.$_ = '$setting{$_}'") for keys %setting;
	$node->reload;
	return;
}

sub failures
{
	return sql('SELECT sum(auth_failures) FROM narinfo.stat_workers');
}

sql(q{INSERT INTO narinfo.cache (name, visibility)
	VALUES ('team', 'private'), ('rest', 'private')});
sql("CALL narinfo.import_cache('$cache_dir', 'team')");
copy_cache("$node->{file_root}/team");

# ---- what a token is for

my $read = create_token('reader', 'read');
my $push = create_token('pusher', 'push');
my $admin = create_token('admin', 'admin');
my $elsewhere = create_token('reader', 'read,push,admin', cache => 'rest');
like($read, qr/^narinfo_[0-9a-z]{52}$/, 'a token');

for my $path ('nix-cache-info', "$hash.narinfo", $nar, 'changes')
{
	my $reply = http_get($port, "/team/$path");
	is($reply->{status}, 401, "$path without a token");
	is($reply->{headers}{'www-authenticate'}, 'Basic realm="team"', 'says so');
	$reply = http_get($port, "/team/$path", bearer($read));
	is($reply->{status}, 200, 'with a token');
	unlike($reply->{headers}{'cache-control'}, qr/public/,
		'which is not to be kept for others');
	is(status("/team/$path", basic($read)), 200, 'as a password');
	is(status("/team/$path", bearer($admin)), 200, 'admin may do all');
	$reply = http_get($port, "/team/$path", bearer($push));
	is($reply->{status}, 403, 'a token that may only push');
	is($reply->{body}, "the token has no right to read cache team\n",
		'is told what it lacks');
	is(status("/team/$path", bearer($elsewhere)), 401, 'that of another cache');
}
is(http_get($port, "/team/$hash.narinfo", bearer($read))->{body}, $narinfo,
	'the narinfo');
is(http_get($port, "/team/$nar", bearer($read))->{body},
	slurp_bytes("$cache_dir/$nar"), 'the file');
is(http_request($port, 'HEAD', "/team/$nar", bearer($read))->{status}, 200,
	'HEAD');
is(http_get($port, "/team/$hash.narinfo", bearer($read))
	->{headers}{'cache-control'}, 'private, max-age=86400', 'narinfos');
is(http_get($port, "/team/$nar", bearer($read))->{headers}{'cache-control'},
	'private, max-age=31536000, immutable', 'and files may be kept privately');
is(status('/team/nope', bearer($read)), 404, 'what is absent is absent');
is(status('/rest/nix-cache-info', bearer($elsewhere)), 200, 'the other cache');
is(status('/nix-cache-info', bearer('nonsense')), 200,
	'a public one takes none');

# ---- what is no token

my $failures = 4;    # tokens of another cache, so far
my @wrong = (
	bearer($read . '0'), bearer(substr $read, 0, -1), bearer(uc $read),
	bearer('narinfo_' . '0' x 52), bearer('x'), basic(''), basic($read . "\n"),
	basic('x' x 900), basic('x' x 3000), [ Authorization => 'Basic %%%' ],
	[ Authorization => 'Basic ' . encode_base64($read, '') ],
	[ Authorization => 'Basic ' . encode_base64(":x:$read", '') ],
	bearer(sql(q{SELECT encode(secret_hash, 'hex') FROM narinfo.token
		WHERE cache = 'team' AND name = 'reader'})),
	bearer("narinfo_key.team.9999999999.$read"));
my @headers;
while (@wrong)
{
	my $first = shift @wrong;
	push @headers, ref $first ? $first : [ $first, shift @wrong ];
}
is(join(' ', map { status('/team/nix-cache-info', @$_) } @headers),
	join(' ', (401) x @headers), 'wrong ones');
ok(poll_until(sub { failures() == $failures + @headers }), 'are counted');
for ("Token $read", 'Bearer', "Bearer$read", $read, '')
{
	is(status('/team/nix-cache-info', Authorization => $_), 401,
		'what names no scheme that we know is none');
}
is(failures(), $failures + @headers, 'and is not counted');
is(status('/team/nix-cache-info', Authorization => "bEARER  $read"), 200,
	'the name of a scheme in any case');
is(status('/team/nix-cache-info', basic($read, 'any body')), 200,
	'whoever the user is');

# ---- expiry, revocation

my $short = create_token('short', 'read',
	expires => q{clock_timestamp() + interval '2 seconds'});
is(status('/team/nix-cache-info', bearer($short)), 200, 'before it expires');
ok(poll_until(sub { status('/team/nix-cache-info', bearer($short)) == 401 }),
	'afterwards');
is(http_get($port, '/team/nix-cache-info', bearer($short))->{body},
	"the token has expired\n", 'is told so');
sql(q{UPDATE narinfo.token SET expires = NULL WHERE name = 'short'});
is(status('/team/nix-cache-info', bearer($short)), 200, 'prolonged');

my $socket = http_connect($port);
my $asked = "GET /team/$hash.narinfo HTTP/1.1\r\nHost: h\r\n"
	. "Authorization: Bearer $short\r\n\r\n";
print $socket $asked;
is(read_reply($socket)->{status}, 200, 'on a connection that stays');
is(sql(q{SELECT narinfo.revoke_token('short', 'team')}), 't', 'revoked');
print $socket $asked;
is(read_reply($socket)->{status}, 401, 'the very next request');
$socket->close;

# ---- on a standby

$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $standby_port = PostgreSQL::Test::Cluster::get_free_port();
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf',
	"pg_narinfo.listen = '127.0.0.1:$standby_port'\n");
$standby->start;
ok(wait_for_http($standby_port), 'a standby serves');

sub standby_status
{
	my ($token) = @_;
	$node->wait_for_catchup($standby);
	return http_get($standby_port, '/team/nix-cache-info', bearer($token))
		->{status};
}

is(standby_status($read), 200, 'a token is good there');
is(standby_status("${read}0"), 401, 'a wrong one is not');
my $late = create_token('late', 'read');
is(standby_status($late), 200, 'nor is a later one unknown');
sql(q{SELECT narinfo.revoke_token('late', 'team')});
is(standby_status($late), 401, 'revoked there, too');

# ---- nix, with a netrc file

sub new_home
{
	my ($name) = @_;
	return $node->basedir . "/home-$name";
}

# Nix makes what it has in its stores read-only, too much so for rm -r.
END
{
	my $status = $?;
	system('chmod', '-R', 'u+w', grep { -d } glob($node->basedir . '/home-*'))
		if $node;
	$? = $status;
}

my @trust = ('--option', 'trusted-public-keys', $public_key,
	'--option', 'require-sigs', 'true');

sub nix_copy
{
	my ($name, $token, $from) = @_;
	my $netrc = write_file("$dir/$name", $token
		? "machine 127.0.0.1 login x password $token\n" : '');
	my $home = new_home($name);
	my ($status, $out, $err) = nix($home, 'nix', 'copy', '--from',
		$from // $url, '--option', 'netrc-file', $netrc, @trust, $top_path);
	return ($status, $err, $home);
}

my ($status, $err, $home) = nix_copy('good', $read);
is($status, 0, 'nix copy with a netrc file') or diag($err);
($status, undef, $err) =
	nix($home, 'nix', 'store', 'verify', '--recursive', @trust, $top_path);
is($status, 0, 'what it has verifies') or diag($err);
($status, $err) = nix_copy('url', undef,
	$url =~ s{//}{//me:$read\@}r);
is($status, 0, 'nix copy with a password in the URL') or diag($err);
for ([ none => undef ], [ wrong => "${read}0" ], [ revoked => $short ],
	[ push => $push ])
{
	($status, $err) = nix_copy(@$_);
	isnt($status, 0, "not with this: $_->[0]");
	# nix takes 403 for "absent", and puts the nix-cache-info that it misses,
	# which one who may push may
	like($err, $_->[0] eq 'push' ? qr/there is no substituter/
		: qr/does not appear to be a binary cache|HTTP error 40[13]/,
		'nix says so') or diag($err);
}

# ---- those who show wrong ones have to wait: by the forwarded address

set(auth_failures_max => 3, auth_pause => '1h',
	trusted_proxies => '127.0.0.1/32');
sub from { return ('X-Forwarded-For' => $_[0]) }

# The worker has the settings once a wrong one is not answered 401 any more.
ok(poll_until(sub {
	status('/team/nix-cache-info', bearer('x'), from('192.0.2.77')) == 429
}), 'too many wrong ones');

sub from_is
{
	my ($address, $token, $expected, $name) = @_;
	my $reply = http_get($port, '/team/nix-cache-info',
		$token ? bearer($token) : (), from($address));
	is($reply->{status}, $expected, "$address: $name");
	return $reply;
}

from_is('192.0.2.1', $read, 200, 'a right one');
from_is('192.0.2.1', 'x', 401, 'a wrong one') for 1 .. 3;
$failures = failures();
my $began = time;
my $reply = from_is('192.0.2.1', 'x', 429, 'one too many');
cmp_ok(time - $began, '<', 1, 'answered at once');
like($reply->{headers}{'retry-after'}, qr/^3[56]\d\d$/, 'says how long');
from_is('192.0.2.1', $admin, 429, 'a right one that was not seen there');
from_is('192.0.2.1', $read, 200, 'one that was');
from_is('192.0.2.1', undef, 401, 'none at all');
from_is('192.0.2.2', $admin, 200, 'another address');
from_is('192.0.2.2', 'x', 401, 'which may be wrong, too');
is(status('/nix-cache-info', from('192.0.2.1')), 200, 'public caches');
is(http_request($port, 'POST', '/team/auth', from('192.0.2.1'),
	Authorization => 'Signature c k:' . 'A' x 86 . '==')->{status}, 429,
	'proofs wait, too');
sql(q{SELECT narinfo.revoke_token('reader', 'team')});
from_is('192.0.2.1', $read, 401, 'that one is checked');
from_is('192.0.2.1', $read, 429, 'and forgotten when it is wrong');
my $network = '2001:db8:0:1:';
from_is("$network:1", 'x', 401, 'a wrong one') for 1 .. 3;
from_is("$network:2", 'x', 429, 'an IPv6 address stands for its network');
from_is('2001:db8:0:2::1', 'x', 401, 'but no other');
# A crowd of addresses can make us forget, but not make us grow or fall.
my $crowd = http_connect($port);
my @crowd = map { join '.', 10, 9, int($_ / 200), 1 + $_ % 200 } 0 .. 9999;
my %seen;
while (my @some = splice @crowd, 0, 100)
{
	print $crowd map { "GET /team/nope HTTP/1.1\r\nHost: h\r\n"
		. "X-Forwarded-For: $_\r\nAuthorization: Bearer x\r\n\r\n" } @some;
	$seen{ read_reply($crowd)->{status} }++ for @some;
}
is_deeply(\%seen, { 401 => 10000 }, 'ten thousand addresses');
from_is('192.0.2.2', $admin, 200, 'another one comes through');

# Whoever is no trusted proxy is what its socket says.
my $other = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port,
	LocalAddr => '127.0.0.2', Proto => 'tcp') or die $@;
print $other map { "GET /team/nope HTTP/1.1\r\nHost: h\r\n"
	. "X-Forwarded-For: 192.0.2.$_\r\nAuthorization: Bearer x\r\n\r\n" }
	10 .. 13;
is(join(' ', map { read_reply($other)->{status} } 1 .. 4),
	'401 401 401 429', 'a forged X-Forwarded-For helps nobody');

# The pause ends.
set(auth_pause => '500ms');
ok(poll_until(sub {
	status('/team/nix-cache-info', bearer('x'), from('192.0.2.1')) == 401
}), 'a shorter pause is over');
set(auth_failures_max => 0);
ok(poll_until(sub {
	my @statuses = map { status('/team/nix-cache-info', bearer('x'),
		from('192.0.2.3')) } 1 .. 20;
	return !grep { $_ != 401 } @statuses;
}), 'without a limit nobody waits');

# ---- keys: the README's script

my ($script) = slurp_bytes("$test_dir/../README.md") =~ /^```sh\n(.*?)^```/ms;
write_file("$dir/push-token", $script);
cmp_ok(scalar(grep { !/^#/ } split /\n/, $script), '<=', 10,
	'the script of the README is short');
my %public;
for my $name ('builder-1', 'signer-1', 'stranger-1')
{
	my ($failed) = nix($node->basedir . '/home-keys', 'nix-store',
		'--generate-binary-cache-key', $name, "$dir/$name", "$dir/$name.pub");
	is($failed, 0, "a key: $name");
	$public{$name} = slurp_bytes("$dir/$name.pub");
	push @secrets, slurp_bytes("$dir/$name") =~ /:(.{40})/;
}
sql("SELECT narinfo.trust_key('$public{$_}', 'team')")
	for 'builder-1', 'signer-1';
sql("SELECT narinfo.allow_push('$public{'builder-1'}', cache => 'team')");

sub prove
{
	my ($where, $key) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'sh', "$dir/push-token", $where, "$dir/$key" ], '<',
		\undef, '>', \$out, '2>', \$err);
	my $failed = $?;
	chomp $out;
	push @secrets, $out if $out ne '';
	return ($failed, $out, $err);
}

my ($failed, $token, $said) = prove($url, 'builder-1');
is($failed, 0, 'the script ends well') or diag($said);
like($token, qr/^narinfo_key\.team\.\d+\.[0-9a-z]{52}\.[0-9a-z]{52}$/,
	'prints a token');
is(status("/team/$hash.narinfo", bearer($token)), 200, 'which lets us in');
is(status("/team/$hash.narinfo", basic($token)), 200, 'as a password, too');
is(status("/rest/nix-cache-info", bearer($token)), 401, 'in this cache');
for my $change ([ qr/team/, 'rest' ], [ qr/\.\d+\./, '.9999999999.' ],
	[ qr/.$/, '0' ], [ qr/.$/, '1' ])
{
	my $forged = $token =~ s/$change->[0]/$change->[1]/r;
	next if $forged eq $token;
	my $cache = $forged =~ /\.rest\./ ? 'rest' : 'team';
	is(status("/$cache/nix-cache-info", bearer($forged)), 401, 'not changed');
}
($status, $err) = nix_copy('key', $token);
is($status, 0, 'nix copy with it') or diag($err);
is(http_get($standby_port, '/team/nix-cache-info', bearer($token))->{status},
	401, 'it is this server\'s');
for my $key ('signer-1', 'stranger-1')
{
	($failed, undef, $said) = prove($url, $key);
	isnt($failed, 0, "a key that may not push: $key");
	like($said, qr/403/, 'is told so');
}
($failed) = prove("http://127.0.0.1:$port", 'builder-1');
isnt($failed, 0, 'nor in a cache that does not trust it');

# It is looked at anew: what the key may not any more, its tokens may not.
my $allow = "SELECT narinfo.allow_push('$public{'builder-1'}', %s, 'team')";
sql(sprintf $allow, 'false');
is(status('/team/nix-cache-info', bearer($token)), 401, 'not any more');
isnt((prove($url, 'builder-1'))[0], 0, 'nor is there another one');
sql(sprintf $allow, 'true');
is(status('/team/nix-cache-info', bearer($token)), 200, 'again');
sql("SELECT narinfo.untrust_key('$public{'builder-1'}', 'team')");
is(status('/team/nix-cache-info', bearer($token)), 401, 'a key that is gone');
sql("SELECT narinfo.trust_key('$public{'builder-1'}', 'team')");
is(status('/team/nix-cache-info', bearer($token)), 401,
	'and came back may sign, but not push');
sql(sprintf $allow, 'true');

# ---- challenges, by hand

sub challenge
{
	my ($cache) = @_;
	my $reply = http_get($port, "$cache/auth/challenge");
	is($reply->{status}, 200, "a challenge of $cache");
	is($reply->{headers}{'cache-control'}, 'no-store', 'is not kept');
	chomp(my $text = $reply->{body});
	return $text;
}

# As the script does it.
sub sign
{
	my ($key, $text) = @_;
	my ($seed) = slurp_bytes("$dir/$key") =~ /:(.*)/;
	my $der = pack('H*', '302e020100300506032b657004220420')
		. substr(decode_base64($seed), 0, 32);
	my $file = write_file("$dir/text", $text);
	my $sig = '';
	IPC::Run::run([ 'openssl', 'pkeyutl', '-sign', '-rawin', '-in', $file,
		'-inkey', '/dev/stdin', '-keyform', 'DER' ], '<', \$der, '>', \$sig)
		or die 'openssl failed';
	return "$key:" . encode_base64($sig, '');
}

sub answer
{
	my ($cache, $challenge, $signature) = @_;
	my $reply = http_request($port, 'POST', "$cache/auth",
		Authorization => "Signature $challenge $signature",
		'Content-Length' => 0);
	push @secrets, $reply->{body} =~ /^(narinfo_key\S+)$/;
	return $reply;
}

sub refused
{
	my ($status, $says, $name, @answer) = @_;
	my $reply = answer(@answer);
	is($reply->{status}, $status, $name);
	like($reply->{body}, $says, 'says why');
	return;
}

my $challenge = challenge('/team');
like($challenge, qr/^pg_narinfo-auth-1\.team\.\d+\./,
	'it says what it is for');
isnt(challenge('/team'), $challenge, 'no two are the same');
my $signature = sign('builder-1', $challenge);
refused(403, qr/may push here/, 'a signature over something else', '/team',
	$challenge, sign('builder-1', "1;$challenge"));
refused(403, qr/may push here/, 'another key of this name', '/team',
	$challenge, sign('stranger-1', $challenge) =~ s/^[^:]+/builder-1/r);
refused(403, qr/may push here/, 'the key by another name', '/team',
	$challenge, $signature =~ s/^[^:]+/signer-1/r);
refused(401, qr/not one of this cache/, 'in another cache', '/rest',
	$challenge, $signature);
for my $changed ($challenge =~ s/\.(\d+)\./'.' . ($1 + 1000) . '.'/er,
	$challenge =~ s/team/rest/r, substr($challenge, 0, -1), 'x',
	'pg_narinfo-auth-1.team.9999999999.' . '0' x 52 . '.' . '0' x 52,
	$token, "$challenge.x")
{
	refused(401, qr/not one of this cache/, 'a challenge that is not ours',
		'/team', $changed, sign('builder-1', $changed));
}
my $good = answer('/team', $challenge, $signature);
is($good->{status}, 200, 'a good answer');
is($good->{headers}{'cache-control'}, 'no-store', 'is not kept');
chomp(my $second = $good->{body});
is(status('/team/nix-cache-info', bearer($second)), 200, 'a good token');
refused(401, qr/answered before/, 'the same again', '/team', $challenge,
	$signature);
is(status('/team/nix-cache-info', bearer($challenge)), 401,
	'a challenge is no token');

for ('Signature', 'Signature ', "Signature $challenge", 'Signature  x:y',
	"Signature $challenge $signature x", "Bearer $token",
	"Signature $challenge x:", "Signature $challenge :")
{
	is(http_request($port, 'POST', '/team/auth', Authorization => $_)
		->{status}, 401, 'no answer at all');
}
is(http_request($port, 'POST', '/team/auth')->{status}, 401, 'nor this');
is(http_request($port, 'POST', '/team/auth/challenge')->{status}, 405,
	'challenges are got');
is(http_request($port, 'GET', '/team/auth')->{status}, 405,
	'answers are posted');
is(http_request($port, 'POST', '/nope/auth')->{status}, 404,
	'no such cache');
isnt((http_request($port, 'HEAD', '/auth/challenge'))->{status}, 401,
	'the default cache');

# What has expired, both.
set(auth_challenge_life => '1s', auth_token_life => '1s');
my $old;
ok(poll_until(sub {
	my ($expires) = challenge('/team') =~ /team\.(\d+)\./;
	return $expires <= time + 1;
}), 'they live shorter');
$challenge = challenge('/team');
$signature = sign('builder-1', $challenge);
my ($until) = $challenge =~ /team\.(\d+)\./;
poll_until(sub { time >= $until });
refused(401, qr/has expired/, 'a challenge of yesterday', '/team',
	$challenge, $signature);
ok(poll_until(sub {
	$challenge = challenge('/team');
	my $reply = answer('/team', $challenge, sign('builder-1', $challenge));
	chomp($old = $reply->{body});
	return $reply->{status} == 200;
}), 'one that is answered soon enough');
ok(poll_until(sub {
	http_get($port, '/team/nix-cache-info', bearer($old))->{body}
		eq "the token has expired\n"
}), 'its token does not live long');

# A restart makes them worthless.
set(auth_challenge_life => '60s', auth_token_life => '1h');
$node->restart;
ok(wait_for_http($port), 'restarted');
is(status('/team/nix-cache-info', bearer($second)), 401,
	'the token of a server that was restarted');
is(status('/team/nix-cache-info', bearer($admin)), 200,
	'one that is in the table');

# ---- a locked table: 503 soon, and for nobody else

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE narinfo.token');
$began = time;
for (1 .. 5)
{
	is(status('/team/nix-cache-info', bearer($admin)), 200,
		'what is remembered needs no lock');
}
$locker->query_safe('ROLLBACK; BEGIN');
$locker->query_safe(q{UPDATE narinfo.token SET expires = 'infinity';
	COMMIT; BEGIN; LOCK TABLE narinfo.token});
$reply = http_get($port, '/team/nix-cache-info', bearer($admin));
is($reply->{status}, 503, 'a locked table');
is($reply->{headers}{'retry-after'}, 1, 'try again');
is(status('/nix-cache-info'), 200, 'others are answered');
cmp_ok(time - $began, '<', 3, 'nobody waits long');
$locker->quit;
ok(poll_until(sub {
	status('/team/nix-cache-info', bearer($admin)) == 200
}), 'once it is let go');

# ---- nobody writes them down

my $log = slurp_bytes($node->logfile) . slurp_bytes($standby->logfile);
like($log, qr/statement: SELECT narinfo.create_token/, 'calls are logged');
my @written = grep { index($log, $_) >= 0 } @secrets;
cmp_ok(scalar @secrets, '>', 10, 'there are secrets');
is(scalar @written, 0, 'no secret is in the log');
my $session = $node->background_psql('postgres');
push @secrets, scalar $session->query(
	q{SELECT narinfo.create_token('seen', '{read}', NULL, 'team')});
my $activity = sql(q{SELECT string_agg(a::text, E'\n')
	FROM pg_stat_activity AS a});
like($activity, qr/narinfo.create_token/, 'pg_stat_activity shows calls');
is(scalar(grep { index($activity, $_) >= 0 } @secrets), 0,
	'no secret is in it');
$session->quit;

$standby->stop;
$node->stop;
done_testing();
