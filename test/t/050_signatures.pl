# Keys and signatures with real files and the real nix: what the server
# refuses of a secret key, that nix writes what we write and accepts it, that
# resign_cache goes on where it was killed, and that what we sign for guix
# verifies by the formulas alone.
use strict;
use warnings;

use Digest::SHA qw(sha256);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Math::BigInt;
use MIME::Base64;
use NarinfoTest;
use PostgreSQL::Test::Utils;
use POSIX qw(mkfifo);
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir() . '/keys';
mkdir $keys, 0700 or die $!;
my $node = narinfo_node('signatures',
	conf => "pg_narinfo.key_directory = '$keys'");
my $port = $node->{http_port};
my $base = $node->basedir;

$ENV{PGOPTIONS} = q(-c search_path=narinfo,public);

sub sql { return $node->safe_psql('postgres', @_) }

# The text of a narinfo: safe_psql() takes newlines off.
sub narinfo { return sql(@_) =~ s/\n*\z/\n/r }

# The message of what a statement fails with, and its SQLSTATE.
sub error_of
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$statement");
	return $status || $err =~ /ERROR/ ? $err : "no error: $out";
}

sub put_file
{
	my ($path, $bytes, $mode) = @_;
	open my $file, '>:raw', $path or die "$path: $!";
	print $file $bytes;
	close $file or die $!;
	chmod $mode, $path or die $!;
	return;
}

sql("CALL narinfo.import_cache('$cache_dir')");

# ---- new keys

my $public = sql("SELECT narinfo.generate_key('new-1')");
like($public, qr{^new-1:[A-Za-z0-9+/]{43}=$}, 'a public key of Nix');
my $secret = slurp_bytes("$keys/new-1");
like($secret, qr{^new-1:[A-Za-z0-9+/]{86}==$}, 'its secret half is a file');
is((stat "$keys/new-1")[2] & 07777, 0600, 'for the server alone');
like(error_of("SELECT narinfo.generate_key('new-1')"),
	qr/42710: there is a file of key "new-1" already/, 'never overwritten');
is(slurp_bytes("$keys/new-1"), $secret, 'it is still the same');
my ($status, $out, $err);
{
	local $ENV{HOME} = "$base/home";
	$out = qx(nix --extra-experimental-features nix-command \\
		key convert-secret-to-public <'$keys/new-1' 2>/dev/null);
	is($out =~ s/\n//r, $public, 'nix reads it, and finds the same public key');
}
nix("$base/home", 'nix-store', '--generate-binary-cache-key', 'nix-1',
	"$keys/nix-1", "$base/nix-1.pub");
chmod 0400, "$keys/nix-1" or die $!;

my $guix_public = sql("SELECT narinfo.generate_key('guix-1', 'guix')");
like("$guix_public\n", qr/^\(public-key \n \(ecc \n  \(curve Ed25519\)\n  \(q #[0-9A-F]{64}#\)\n  \)\n \)\n$/,
	"a public key of Guix, in guix' own spelling");
like(slurp_bytes("$keys/guix-1"), qr/^\(private-key \n \(ecc \n  \(curve Ed25519\)\n  \(q #[0-9A-F]{64}#\)\n  \(d #[0-9A-F]{60,66}#\)\n  \)\n \)\n$/,
	'its secret half');
is_deeply([ sort map { m{([^/]+)$} } glob "$keys/{*,.[!.]*}" ],
	[qw(guix-1 new-1 nix-1)], 'no temporary file is left');

# ---- what is refused

my $sign = sub {
	my ($name) = @_;
	return error_of("SELECT narinfo.sign_narinfo(info, '$name')
		FROM narinfo.valid_path LIMIT 1");
};
for my $mode (0644, 0640, 0604, 0660, 0700, 0602)
{
	chmod $mode, "$keys/new-1" or die $!;
	like($sign->('new-1'),
		qr/F0000: the file of key "new-1" has wrong permissions/,
		sprintf('mode %04o', $mode));
}
chmod 0400, "$keys/new-1" or die $!;
like($sign->('new-1'), qr/^no error/, 'mode 0400 will do');
chmod 0600, "$keys/new-1" or die $!;
symlink "$keys/new-1", "$keys/link-1" or die $!;
like($sign->('link-1'), qr/42809: .* not a regular file/, 'a link');
mkfifo("$keys/fifo-1", 0600) or die $!;
like($sign->('fifo-1'), qr/42809: .* not a regular file/, 'a fifo');
mkdir "$keys/dir-1", 0600 or die $!;
like($sign->('dir-1'), qr/42809: .* not a regular file/, 'a directory');
like($sign->('absent-1'), qr/42704: there is no secret key "absent-1"/,
	'no file');
put_file("$keys/other-1", $secret, 0600);
like($sign->('other-1'), qr/F0000: .*another name than its file/,
	'a key of another name');
put_file("$keys/empty-1", '', 0600);
like($sign->('empty-1'), qr/F0000: invalid file of key/, 'an empty file');
put_file("$keys/long-1", "long-1:" . 'A' x 4000, 0600);
like($sign->('long-1'), qr/F0000: .* too long/, 'a long file');
put_file("$keys/public-1", $public, 0600);
like($sign->('public-1'), qr/F0000: .* 64 bytes in base 64/, 'a public key');
my $torn = $secret =~ s/^new-1:(.)/'torn-1:' . ($1 eq 'A' ? 'B' : 'A')/er;
put_file("$keys/torn-1", $torn, 0600);
like($sign->('torn-1'), qr/F0000: .* do not belong together/,
	'a key with a byte changed');
put_file("$keys/guix-2",
	slurp_bytes("$keys/guix-1") =~ s/d #(.)/'d #' . ($1 eq '1' ? '2' : '1')/er,
	0600);
like($sign->('guix-2'), qr/F0000: .* do not belong together/,
	'the same of Guix');
for my $mode (0777, 0770)
{
	chmod $mode, $keys or die $!;
	like($sign->('new-1'), qr/F0000: the directory of keys can be written/,
		sprintf('a directory with mode %04o', $mode));
}
chmod 0700, $keys or die $!;
$node->append_conf('postgresql.conf', "pg_narinfo.key_directory = ''");
$node->reload;
ok(poll_until(sub { $sign->('new-1') =~
	/55000: this server has no directory of keys/ }), 'no directory');
$node->append_conf('postgresql.conf', "pg_narinfo.key_directory = '$keys'");
$node->reload;
ok(poll_until(sub { $sign->('new-1') =~ /^no error/ }),
	'the setting follows a reload');

# No word of a secret, nor of where they are.
my $log = slurp_bytes($node->logfile);
my ($d) = slurp_bytes("$keys/guix-1") =~ /d #([0-9A-F]+)/;
for my $word (substr($secret, 6, 20), substr($torn, 8, 20), substr($d, 2, 20))
{
	is(index($log, $word), -1, 'the log has nothing of a secret');
}

# ---- nix writes the same

my $copy = copy_cache("$base/copy");
my @paths = split /\n/, sql('SELECT narinfo.store_path(info)
	FROM narinfo.valid_path ORDER BY hash');
for my $key (qw(new-1 nix-1))
{
	($status, $out, $err) = nix("$base/home", qw(nix store sign --store),
		"file://$copy", '-k', "$keys/$key", '--all');
	is($status, 0, "nix signs with $key") or diag($err);
}
my $different = 0;
for my $path (@paths)
{
	my ($hash) = $path =~ m{/([^/-]+)-};
	my $ours = narinfo("SELECT narinfo.sign_narinfo(narinfo.sign_narinfo(info,
		'nix-1'), 'new-1') FROM narinfo.valid_path WHERE hash = '$hash'");
	$different++ if $ours ne slurp_bytes("$copy/$hash.narinfo");
}
is($different, 0, 'and what it writes is what sign_narinfo makes, byte for byte');

# ---- nix accepts it, and so did not before

sub copy_with
{
	my ($home, $key) = @_;
	return nix("$base/$home", qw(nix copy --from), "http://127.0.0.1:$port",
		'--option', 'trusted-public-keys', $key, $top_path);
}
($status, $out, $err) = copy_with('before', $public);
isnt($status, 0, 'nix refuses what lacks the new signature');
like($err, qr/lacks a valid signature/, 'for that reason');
sql("CALL narinfo.resign_cache('new-1')");
($status, $out, $err) = copy_with('after', $public);
is($status, 0, 'and accepts it with the new one') or diag($err);
($status, $out, $err) = copy_with('old', $public_key =~ s/\s//gr);
is($status, 0, 'the old key still does') or diag($err);
($status, $out, $err) = nix("$base/realise", qw(nix-store -r),
	'--option', 'substituters', "http://127.0.0.1:$port",
	'--option', 'trusted-public-keys', $public, $top_path);
is($status, 0, 'nix-store -r, too') or diag($err);

sql("SELECT narinfo.trust_key('$public');
	SELECT narinfo.trust_key('" . $public_key =~ s/\s//gr . "')");
is(sql('SELECT key_name, status, count(*)
	FROM narinfo.valid_path, narinfo.verify(info) GROUP BY 1, 2 ORDER BY 1'),
	"narpg-test-1|valid|82\nnew-1|valid|82\nsecond.example.org-2|unknown|61",
	'both signatures are there');
my $before = sql('SELECT md5(string_agg(info::text, \'\' ORDER BY hash))
	FROM narinfo.valid_path');
sql("CALL narinfo.resign_cache('new-1')");
is(sql('SELECT md5(string_agg(info::text, \'\' ORDER BY hash))
	FROM narinfo.valid_path'), $before, 'twice is once');

# ---- killed on its way

my $total = 20_000;
sql("INSERT INTO narinfo.cache (name) VALUES ('big')");
sql("INSERT INTO narinfo.valid_path (cache, info)
	SELECT 'big', format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s.nar\\nNarHash: sha256:%s\\nNarSize: 9\\nReferences: \\n',
		translate(md5(i::text), 'e', 'z'), i, repeat('0', 52))::narinfo
	FROM generate_series(1, $total) AS i ON CONFLICT DO NOTHING");
$total = sql("SELECT count(*) FROM narinfo.valid_path WHERE cache = 'big'");
sql("SELECT narinfo.trust_key('$public', 'big')");

sub signed
{
	return sql("SELECT count(*) FROM narinfo.valid_path, narinfo.verify(info,
		'big') WHERE cache = 'big' AND status = 'valid'");
}

# A row that somebody holds stops it between two batches.
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe("BEGIN");
$holder->query_safe("SELECT FROM narinfo.valid_path WHERE cache = 'big'
	ORDER BY hash DESC LIMIT 1 FOR UPDATE");
my $killed = IPC::Run::start([ 'psql', '-X', '-d',
	$node->connstr('postgres'), '-c',
	"CALL narinfo.resign_cache('new-1', 'big')" ], '<', \undef, '>', \my $o,
	'2>', \my $e);
ok(poll_until(sub { sql("SELECT count(*) FROM narinfo.stat_progress
	WHERE command = 'resign_cache' AND phase = 'signing'
	AND done >= 5000 AND total = $total") }), 'its progress is seen');
ok(poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity
	WHERE wait_event_type = 'Lock' AND query LIKE '%resign_cache%'") }),
	'it waits for the row');
sql("SELECT pg_terminate_backend(pid) FROM narinfo.stat_progress");
$killed->finish;
like($e, qr/terminating connection/, 'killed');
my $some = signed();
cmp_ok($some, '>', 0, "$some are signed");
cmp_ok($some, '<', $total, 'and not all');
$holder->query_safe('COMMIT');
$holder->quit;
($status, $out, $err) = $node->psql('postgres',
	"CALL narinfo.resign_cache('new-1', 'big')");
like($err, qr/signed @{[$total - $some]} narinfos of cache "big", $some had the signature/,
	'called again, it signs the rest');
is(signed(), $total, 'then all are');
is(sql("SELECT kind, count(DISTINCT hash), count(*) FROM narinfo.event
	WHERE cache = 'big' AND hash IS NOT NULL GROUP BY 1 ORDER BY 1"),
	"publish|$total|$total\nreplace|$total|$total",
	'each has left one event, as by any UPDATE');
is(sql("SELECT digest = narinfo.cache_digest('big') FROM narinfo.event
	WHERE cache = 'big' ORDER BY seq DESC LIMIT 1"), 't',
	'and the digest is that of what is there');
is(sql("SELECT count(*) FROM narinfo.stat_progress"), 0,
	'and there is no progress any more');

# ---- guix: ECDSA on the curve Ed25519, from its definition

my $p = Math::BigInt->new(2)->bpow(255)->bsub(19);
my $order = Math::BigInt->new(2)->bpow(252)
	->badd('27742317777372353535851937790883648493');
my $curve_d = Math::BigInt->new(121666)->bmodinv($p)->bmul(-121665)->bmod($p);

sub mod_mul
{
	my ($product, @others) = @_;
	$product = $product->copy;
	$product->bmul($_)->bmod($p) for @others;
	return $product;
}

# The sum of two points [X, Y, Z] of x = X/Z, y = Y/Z.
sub add
{
	my ($one, $two) = @_;
	my ($x1, $y1, $z1) = @$one;
	my ($x2, $y2, $z2) = @$two;
	my $zz = mod_mul($z1, $z2);
	my $z2z2 = mod_mul($zz, $zz);
	my ($xx, $yy) = (mod_mul($x1, $x2), mod_mul($y1, $y2));
	my $e = mod_mul($curve_d, $xx, $yy);
	my ($f, $g) = (($z2z2 - $e) % $p, ($z2z2 + $e) % $p);
	my $cross = (($x1 + $y1) * ($x2 + $y2) - $xx - $yy) % $p;
	return [ mod_mul($zz, $f, $cross), mod_mul($zz, $g, $yy + $xx),
		mod_mul($f, $g) ];
}

sub multiply
{
	my ($times, $point) = @_;
	my $sum = [ map { Math::BigInt->new($_) } 0, 1, 1 ];
	for my $bit (split //, substr $times->as_bin, 2)
	{
		$sum = add($sum, $sum);
		$sum = add($sum, $point) if $bit;
	}
	return $sum;
}

# The point of a y, and whether its x is odd.
sub point
{
	my ($y, $odd) = @_;
	my $y2 = mod_mul($y, $y);
	my $x2 = mod_mul($y2 - 1,
		((mod_mul($curve_d, $y2) + 1) % $p)->bmodinv($p));
	my $x = $x2->copy->bmodpow(($p + 3) / 8, $p);
	$x = mod_mul($x, Math::BigInt->new(2)->bmodpow(($p - 1) / 4, $p))
		if mod_mul($x, $x) != $x2 % $p;
	$x = $p - $x if $x->is_odd != $odd;
	return [ $x, $y, Math::BigInt->new(1) ];
}

sub number { return Math::BigInt->from_hex($_[0]) }

sub guix_verifies
{
	my ($text) = @_;
	my ($signed, $base64) = $text =~ /\A(.*?)^Signature: 1;[^;]*;(\S+)$/ms
		or return 0;
	my ($hash, $r, $s, $q) = decode_base64($base64) =~ /#([0-9A-F]+)#/g;
	return 0 if uc unpack('H*', sha256($signed)) ne $hash;

	my $y = number(unpack 'H*', reverse pack 'H*', $q);
	my $top = Math::BigInt->new(2)->bpow(255);
	my $key = point($y % $top, $y >= $top ? 1 : 0);
	my $base_y = Math::BigInt->new(5)->bmodinv($p)->bmul(4)->bmod($p);
	# as many bits of the hash as the order has
	my $e = number($hash)->brsft(3);
	my $w = number($s)->bmodinv($order);
	my $sum = add(multiply(($e * $w) % $order, point($base_y, 0)),
		multiply((number($r) * $w) % $order, $key));
	my $x = mod_mul($sum->[0], $sum->[2]->copy->bmodinv($p));
	return $x % $order == number($r);
}

{
	my ($file) = sort glob "$test_dir/corpus/guix/cache/*.narinfo";
	ok($file, 'the corpus of Guix is there');
	my $text = slurp_bytes($file);
	ok(guix_verifies($text), "what guix publish has signed verifies");
	my $ours = narinfo("SELECT narinfo.sign_narinfo(\$narinfo\$$text\$narinfo\$,
		'guix-1')");
	ok(guix_verifies($ours), 'so does what we sign');
	ok(!guix_verifies($ours =~ s/^NarSize: /NarSize: 1/mr),
		'and not when it is changed');
	is($ours =~ s/^Signature:.*\n//mr,
		$text =~ s/^Signature:.*\n//mr, 'the other lines are as they were');
	my ($expression) = $ours =~ /^Signature: 1;guix-1;(\S+)$/m;
	my ($theirs) = $text =~ /^Signature: 1;[^;]*;(\S+)$/m;
	s/#[0-9A-F]+#/##/g for my @shapes = map { decode_base64($_) }
		$expression, $theirs;
	is($shapes[0], $shapes[1], 'the signature is spelled alike');
	sql("INSERT INTO narinfo.cache (name, store_dir)
		VALUES ('guix', '/gnu/store');
		SELECT narinfo.trust_key('$guix_public', 'guix')");
	is(sql("SELECT * FROM narinfo.verify(\$narinfo\$$ours\$narinfo\$, 'guix')"),
		'guix-1|valid', 'and valid for us');
}

$node->stop;
done_testing();
