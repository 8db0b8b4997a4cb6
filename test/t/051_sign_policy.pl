# A cache that signs what comes unsigned: by whatever way it comes, in such a
# way that publishing it again is nothing new, through a change of keys; what
# is refused leaves nothing; the real nix accepts the result; and who may do
# what with keys, and who may not.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir() . '/keys';
mkdir $keys, 0700 or die $!;
my $node = narinfo_node('signing', conf => <<~END);
	pg_narinfo.key_directory = '$keys'
	log_error_verbosity = verbose
	END
my $base = $node->basedir;

$ENV{PGOPTIONS} = q(-c search_path=narinfo,public);

sub sql { return $node->safe_psql('postgres', @_) }

# The message of what a statement fails with, its SQLSTATE and all.
sub error_of
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$statement");
	return $status || $err =~ /ERROR/ ? $err : "no error: $out";
}

# A narinfo without references, as a literal; further lines behind it.
sub made
{
	my ($c, $more) = @_;
	my $hash = '0' x 51 . $c;
	my $text = "StorePath: /nix/store/${c}r3jxf1l9gnghmbkmfc1x3pr7j6198mx-$c\\n"
		. "URL: nar/$c.nar\\nNarHash: sha256:$hash\\nNarSize: 5\\n"
		. 'References: \n' . ($more // '');
	return "E'$text'::narinfo";
}

sub signed
{
	my ($info, $key) = @_;
	return sql("SELECT sign_narinfo($info, '$key')") =~ s/\n*\z/\n/r;
}

# What the cache has of it, and the signatures.
sub stored
{
	my ($c, $cache) = @_;
	return sql("SELECT info FROM valid_path WHERE cache = '@{[$cache // 'main']}'
		AND hash::text LIKE '${c}r3jxf1l9%'");
}

sub signers
{
	my ($c, $cache) = @_;
	$cache //= 'main';
	return sql("SELECT string_agg(key_name || ' ' || status, ', ')
		FROM valid_path, verify(info, '$cache')
		WHERE cache = '$cache' AND hash::text LIKE '${c}r3jxf1l9%'");
}

# Events are numbered without a gap and the digest is right.
sub sound
{
	my ($cache) = @_;
	return sql("SELECT max(seq) = count(*) AND (array_agg(digest ORDER BY seq
		DESC))[1] = cache_digest('$cache') FROM event WHERE cache = '$cache'");
}

# ---- setting it

my $first = sql("SELECT generate_key('first-1')");
my $second = sql("SELECT generate_key('second-1')");
like(error_of("SELECT alter_cache('main', sign_with => 'absent-1')"),
	qr/42704: there is no secret key "absent-1"/, 'a key that is not there');
like(error_of("SELECT alter_cache('main', sign_with => '../first-1')"),
	qr/42602: invalid key name/, 'no name of a key');
like(error_of("SELECT create_cache('x', sign_with => 'absent-1')"),
	qr/42704: there is no secret key "absent-1"/, 'the same of a new cache');
like(error_of("INSERT INTO cache (name, sign_with) VALUES ('x', 'a/b')"),
	qr/23514: .*cache_sign_with_valid/, 'nor by INSERT');
chmod 0640, "$keys/first-1" or die $!;
like(error_of("SELECT alter_cache('main', sign_with => 'first-1')"),
	qr/F0000: the file of key "first-1" has wrong permissions/,
	'a key that others can read');
chmod 0600, "$keys/first-1" or die $!;
is(sql('SELECT count(*) FROM cache'), 0, 'nothing was changed so far');
is(sql("SELECT alter_cache('main', sign_with => 'first-1', min_signatures => 1),
	alter_cache('main', sign_with => 'first-1', min_signatures => 1)"), 't|f',
	'set once');
is(sql('SELECT count(*) FROM event'), 1, 'which is an event');

# ---- signing

like(error_of('SELECT publish(' . made('a') . ')'),
	qr/NI001: a\S+ has 0 of the 1 signatures .*\nHINT:  .*key "first-1": does it trust it/,
	'signed, and then by the rules: its key is not trusted');
sql("SELECT trust_key('$first')");
my $seq = sql('SELECT last_event()');
is(sql('SELECT publish(' . made('a') . ')'), 't', 'published unsigned');
is(signers('a'), 'first-1 valid', 'and signed');
is(stored('a'), sql('SELECT sign_narinfo(' . made('a') . ", 'first-1')"),
	'as sign_narinfo does it');
is(sql("SELECT seq - $seq, kind FROM event WHERE seq > $seq"), '1|publish',
	'one event');

# again is nothing new, by any way
$seq = sql('SELECT last_event()');
my $size = sql("SELECT pg_relation_size('valid_path')");
sql('DELETE FROM touched');
is(sql('SELECT publish(' . made('a') . ')'), 'f', 'publish again');
is(sql('SELECT count(*) FROM touched'), 1, 'has touched it');
is(sql('SELECT publish_many(ARRAY[' . made('a') . '])'), 0, 'publish_many');
my $ctid = sql("SELECT ctid FROM valid_path WHERE hash::text LIKE 'a%'");
sql('SELECT publish(info) FROM valid_path');
is(sql("SELECT ctid FROM valid_path WHERE hash::text LIKE 'a%'"), $ctid,
	'nor is a row written');
sql('UPDATE valid_path SET info = ' . made('a'));
sql('INSERT INTO valid_path (info) VALUES (' . made('a') . ')
	ON CONFLICT (cache, hash) DO UPDATE SET info = excluded.info');
is(sql('SELECT last_event()'), $seq, 'by UPDATE and INSERT neither');
is(signers('a'), 'first-1 valid', 'it is as it was');

# other ways in
is(sql('SELECT publish_many(ARRAY[' . join(', ', made('b'), made('c'), made('a'))
	. '])'), 2, 'two of three are new');
sql('INSERT INTO valid_path (info) VALUES (' . made('d') . ')');
my $line = sql('SELECT format(E\'%s\', ' . made('f') . ')') =~ s/\n*\z/\n/r;
$line =~ s/\n/\\n/g;
my ($status, $out, $err) = $node->psql('postgres',
	"COPY valid_path (info) FROM stdin;\n$line\n\\.\n");
is($status, 0, 'COPY') or diag($err);
is(signers($_), 'first-1 valid', "$_ is signed") for qw(b c d f);
is(sound('main'), 't', 'events and digest are right');

# ---- what is signed already

sql("SELECT create_cache('other', sign_with => 'second-1')");
is(sql("SELECT publish(info, 'other') FROM valid_path
	WHERE hash::text LIKE 'a%'"), 't', 'signed by a key that it does not trust');
is(signers('a', 'other'), 'first-1 unknown, second-1 unknown',
	'gets one more, though that is not trusted either');
is(sql("SELECT publish(info, 'other') FROM valid_path
	WHERE cache = 'main' AND hash::text LIKE 'a%'"), 'f', 'once');
sql("SELECT trust_key('$first', 'other')");
is(sql("SELECT publish(info, 'other') FROM valid_path
	WHERE cache = 'main' AND hash::text LIKE 'b%'"), 't', 'by a trusted key');
is(stored('b', 'other'), stored('b'), 'it is stored as it is');
my $bad = "'" . signed(made('g'), 'first-1') =~ s/NarSize: 5/NarSize: 6/r . "'";
is(sql("SELECT publish($bad, 'other')"), 't',
	'a bad signature by a trusted key');
is(signers('g', 'other'), 'first-1 invalid, second-1 unknown',
	'counts as unsigned');
is(sound('other'), 't', 'events and digest are right');

# both in one transaction
sql('BEGIN; SELECT publish(' . made('h') . "), publish(" . made('h')
	. ", 'other'), publish(" . made('i') . '), publish(' . made('i')
	. ", 'other'); COMMIT");
is(signers($_), 'first-1 valid', "$_ in main") for qw(h i);
is(signers($_, 'other'), 'second-1 unknown', "$_ in the other") for qw(h i);

# ---- a change of keys

sql("SELECT trust_key('$second'), alter_cache('main', sign_with => 'second-1')");
$seq = sql('SELECT last_event()');
is(sql('SELECT publish(' . made('a') . ')'), 'f',
	'what the old key has signed is as good');
sql('UPDATE valid_path SET info = ' . made('a')
	. " WHERE cache = 'main' AND hash::text LIKE 'a%'");
is(sql('SELECT last_event()'), $seq, 'by UPDATE, too');
is(sql('SELECT publish(' . made('j') . ')'), 't', 'what is new');
is(signers('j'), 'second-1 valid', 'has the new one');
sql("CALL resign_cache('second-1')");
is(signers('a'), 'first-1 valid, second-1 valid', 'resigned: both');
is(sql('SELECT publish(' . made('a') . ')'), 'f', 'unsigned once more');
is(signers('a'), 'first-1 valid, second-1 valid', 'both stay');
sql("SELECT untrust_key('$first')");
is(sql('SELECT publish(' . made('a') . ')'), 'f', 'the old one not trusted');
is(signers('a'), 'first-1 unknown, second-1 valid', 'nothing changes');
is(sql('SELECT publish(' . made('a', 'X: 1\n') . ')'), 't', 'another narinfo');
is(signers('a'), 'second-1 valid', 'has the new one only');
is(sound('main'), 't', 'events and digest are right');

# ---- no key, or a bad one

sub refused
{
	my ($pattern, $what) = @_;
	my $before = sql('SELECT md5(string_agg(v::text, \'\')) || last_event()
		FROM valid_path AS v');
	for my $statement ('SELECT publish(' . made('k') . ')',
		'SELECT publish_many(ARRAY[' . made('k') . '])',
		'INSERT INTO valid_path (info) VALUES (' . made('k') . ')',
		'UPDATE valid_path SET info = ' . made('j', 'X: 1\n')
			. " WHERE cache = 'main' AND hash::text LIKE 'j%'")
	{
		my $error = error_of($statement);
		like($error, $pattern, $what);
		like($error, qr/CONTEXT:  signing a narinfo for cache "main"/,
			'and says when') if $what eq 'no file';
	}
	is(sql('SELECT publish(info) FROM valid_path WHERE cache = \'main\'
		AND hash::text LIKE \'j%\''), 'f', 'what is signed needs none');
	is(sql('SELECT md5(string_agg(v::text, \'\')) || last_event()
		FROM valid_path AS v'), $before, 'nothing was written');
	return;
}
rename "$keys/second-1", "$keys/away" or die $!;
refused(qr/42704: there is no secret key "second-1"/, 'no file');
rename "$keys/away", "$keys/second-1" or die $!;
chmod 0644, "$keys/second-1" or die $!;
refused(qr/F0000: the file of key "second-1" has wrong permissions/,
	'others can read it');
chmod 0600, "$keys/second-1" or die $!;
is(sql('SELECT publish(' . made('k') . ')'), 't', 'mended');
sql("SELECT generate_key('guix-1', 'guix')");
sql("SELECT alter_cache('other', sign_with => 'guix-1')");
like(error_of('SELECT publish(' . made('l',
	'Sig: x-1:' . 'A' x 86 . '==\n') . ", 'other')"),
	qr/NI001: key "guix-1" cannot sign l\S+: it has signatures of Nix/,
	'a key of the other kind');
is(sql("SELECT alter_cache('main', sign_with => ''), sign_with FROM cache
	WHERE name = 'main'"), 't|second-1', 'taken away');
like(error_of('SELECT publish(' . made('l') . ')'),
	qr/NI001: l\S+ has 0 of the 1 signatures/, 'then it signs no more');

# ---- guix

my ($guix_key) = sql("SELECT generate_key('guix-2', 'guix')");
my $gnu = made('m') =~ s{/nix/store}{/gnu/store}r;
sql("SELECT create_cache('guix', store_dir => '/gnu/store', sign_with => 'guix-2',
	min_signatures => 1), trust_key('$guix_key', 'guix')");
is(sql("SELECT publish($gnu, 'guix'), publish($gnu, 'guix')"), 't|f', 'Guix');
is(signers('m', 'guix'), 'guix-2 valid', 'is signed so');
my $foreign = signed($gnu, 'guix-1');
is(sql("SELECT publish('$foreign', 'guix')"), 'f',
	'with the signature of somebody else it is the same');
sql("SELECT alter_cache('guix', sign_with => 'guix-1'),
	untrust_key('$guix_key', 'guix')");
like(error_of("SELECT publish($gnu, 'guix')"), qr/NI001/,
	'signed anew when its key is not trusted any more, by one that is not yet');
is(sound('guix'), 't', 'events and digest are right');

# ---- signatures are judged as statements come, and count when they commit

sql("SELECT create_cache('judged', min_signatures => 1),
	trust_key('$first', 'judged')");
my $publisher = $node->background_psql('postgres', on_error_stop => 0);

# Publishes with this key, and lets others do that before it commits.
sub publish_before
{
	my ($c, $key, $own, $others) = @_;
	my $info = signed(made($c), $key);
	$publisher->{stderr} = '';
	$publisher->query('BEGIN');
	$publisher->query("SELECT publish('$info', 'judged')");
	$publisher->query($own) if $own;
	sql($others) if $others;
	$publisher->query('COMMIT');
	return $publisher->{stderr};
}

is(publish_before('a', 'first-1'), '', 'signed by a key that is trusted');
like(publish_before('b', 'second-1'), qr/has 0 of the 1 signatures/,
	'not by another');
is(publish_before('b', 'second-1', "SELECT trust_key('$second', 'judged')"),
	'', 'but if the transaction trusts it before its end');
like(publish_before('c', 'second-1', "SELECT untrust_key('$second', 'judged')"),
	qr/has 0 of the 1 signatures/, 'not if it does not any more');
is(publish_before('d', 'first-1', '', "SELECT trust_key('$guix_key', 'judged')"),
	'', 'another key may come meanwhile');
like(publish_before('g', 'second-1', '',
	"SELECT untrust_key('$second', 'judged')"),
	qr/has 0 of the 1 signatures/, 'but its own may not go');
like(publish_before('h', 'first-1', '',
	"SELECT alter_cache('judged', min_signatures => 2)"),
	qr/has 1 of the 2 signatures/, 'nor may more be wanted');
is(join(',', map { stored($_, 'judged') ne '' ? $_ : () } 'a' .. 'd', 'g', 'h'), 'a,b,d',
	'and nothing is left of those that were refused');
is(sound('judged'), 't', 'events and digest are right');
$publisher->quit;

# ---- where it is not done

sql("SELECT alter_cache('other', sign_with => 'second-1')");
is(sql("BEGIN; SET LOCAL session_replication_role = replica;
	INSERT INTO valid_path (cache, hash, info)
		SELECT 'other', store_hash(i), i FROM (SELECT " . made('n') . ") AS t (i);
	SELECT sigs(info) FROM valid_path WHERE hash::text LIKE 'n%'; ROLLBACK"),
	'{}', 'what is replicated is stored as it is');

# ---- nix accepts it

my $unsigned = copy_cache("$base/unsigned");
for my $file (glob "$unsigned/*.narinfo")
{
	my $text = slurp_bytes($file) =~ s/^Sig: .*\n//mgr;
	open my $narinfo, '>:raw', $file or die $!;
	print $narinfo $text;
	close $narinfo or die $!;
}
sql("SELECT drop_cache('main')");
sql("SELECT alter_cache('main', sign_with => 'first-1', min_signatures => 1),
	trust_key('$first')");
sql("CALL import_cache('$unsigned')");
is(sql("SELECT key_name, status, count(*) FROM valid_path, verify(info)
	WHERE cache = 'main' GROUP BY 1, 2"), 'first-1|valid|82',
	'all that was imported unsigned is signed');
$seq = sql('SELECT last_event()');
sql("CALL import_cache('$unsigned')");
is(sql('SELECT last_event()'), $seq, 'once');
($status, $out, $err) = nix("$base/home", qw(nix copy --from),
	"http://127.0.0.1:$node->{http_port}", '--option', 'trusted-public-keys',
	$first, $top_path);
is($status, 0, 'and nix accepts it') or diag($err);

# ---- who may do what

sql("CREATE ROLE publisher LOGIN; GRANT narinfo_publisher TO publisher;
	CREATE ROLE admin LOGIN; GRANT narinfo_admin TO admin; CREATE ROLE nobody LOGIN;
	GRANT USAGE ON SCHEMA narinfo TO nobody");
sub as { return error_of("SET ROLE $_[0]; $_[1]") }
like(as('publisher', 'SELECT publish(' . made('a') . ')'), qr/no error: t/,
	'a publisher publishes');
is(signers('a'), 'first-1 valid', 'and the cache signs');
for my $role (qw(publisher nobody))
{
	my @statements = ('SELECT sign_narinfo(' . made('b') . ", 'first-1')",
		"SELECT policy_key('first-1')", "SELECT generate_key('x-1')",
		"CALL resign_cache('first-1')",
		"SELECT alter_cache('main', sign_with => '')",
		"SELECT trust_key('$second')", "UPDATE cache SET sign_with = NULL",
		'DELETE FROM key', 'DELETE FROM event', 'UPDATE event SET seq = 1',
		"INSERT INTO event SELECT * FROM event", 'DELETE FROM valid_path',
		'INSERT INTO valid_path (info) VALUES (' . made('b') . ')',
		"SELECT pg_read_file('$keys/first-1')", "COPY key FROM '$keys/first-1'",
		'SHOW pg_narinfo.key_directory');
	(undef, undef, $err) = $node->psql('postgres',
		join(";\n", '\set VERBOSITY sqlstate' . "\nSET ROLE $role", @statements,
			''), on_error_stop => 0);
	my @errors = $err =~ /ERROR:\s+(\w+)/g;
	is($errors[$_], '42501', "not for a $role: " . substr $statements[$_], 0, 40)
		for 0 .. $#statements;
}
like(as('nobody', 'SELECT publish(' . made('b') . ')'), qr/42501: /,
	'who is no publisher publishes nothing');
like(as('admin', "SELECT generate_key('admin-1')"), qr/no error: admin-1:/,
	'an admin makes keys');
like(as('admin', "SELECT sigs(sign_narinfo(info, 'admin-1')) FROM valid_path
	WHERE hash::text LIKE 'a%'"), qr/no error: .*admin-1:/, 'signs with them');
like(as('admin', "SELECT alter_cache('main', sign_with => 'admin-1')"),
	qr/no error: t/, 'lets a cache do so');
unlike(as('admin', "CALL resign_cache('admin-1')"), qr/ERROR/,
	'and signs a whole cache');
like(signers('a'), qr/admin-1 unknown/, 'with events of its own');
is(sound('main'), 't', 'numbered, and in the digest');
like(as('admin', 'UPDATE valid_path SET info = info'), qr/42501: /,
	'but writes no rows by hand');
like(as('admin', "SHOW pg_narinfo.key_directory"), qr/42501: /,
	'nor is told where the keys are');

# ---- no word of a secret, nor of where they are, in what anybody was told

my $log = slurp_bytes($node->logfile);
for my $name (qw(first-1 second-1 admin-1))
{
	my ($secret) = slurp_bytes("$keys/$name") =~ /:(.{20})/;
	is(index($log, $secret), -1, "the log has nothing of $name");
}
is(sql("SELECT count(*) FROM (SELECT v::text FROM valid_path AS v
	UNION ALL SELECT e::text FROM event AS e UNION ALL SELECT k::text FROM key AS k
	UNION ALL SELECT c::text FROM cache AS c) AS t (row)
	WHERE position('" . substr(slurp_bytes("$keys/first-1"), 8, 20)
	. "' IN row) > 0"), 0, 'nor has any table');

$node->stop;
done_testing();
