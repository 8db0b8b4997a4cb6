#
# Signatures: verify and sign_narinfo against a bare loop of libsodium, and
# what they cost those who publish.  One session, one processor.
#
use strict;
use warnings;
use Bench;
use Time::HiRes qw(time);

my $count = 20_000;
my $batch = 1000;

need_rows($count);
sql("SELECT narinfo.generate_key('bench-1')") unless -e "$dir/keys/bench-1";
sql("SELECT narinfo.drop_cache('bench')");
sql("SELECT narinfo.create_cache('bench', require_closure => false)");
my $key = sql("SELECT regexp_replace(s, ':.*', ':' || encode(substr(decode(
	regexp_replace(s, '.*:', ''), 'base64'), 33), 'base64'))
	FROM (SELECT pg_read_file('$dir/keys/bench-1')) AS t (s)");
sql("SELECT narinfo.trust_key('$key', 'bench')");
sql("SET client_min_messages = warning; DROP TABLE IF EXISTS plain, signed;
	CREATE UNLOGGED TABLE plain AS
		SELECT info, (row_number() OVER () - 1) / $batch AS batch
		FROM narinfo.valid_path WHERE cache = 'main';
	CREATE UNLOGGED TABLE signed AS
		SELECT narinfo.sign_narinfo(info, 'bench-1') AS info, batch FROM plain");
sql('VACUUM ANALYZE plain, signed');

# How many narinfos a second a statement gets done, which prints their number.
sub rate
{
	my ($statement) = @_;
	my $begin = time;
	my $done = sql($statement);
	die "$done of $count: $statement\n" if $done != $count;
	return { rate => $count / (time - $begin) };
}

sub published
{
	my ($from, $policies) = @_;
	sql("DELETE FROM narinfo.valid_path WHERE cache = 'bench'");
	sql('VACUUM narinfo.valid_path');
	sql("SELECT narinfo.alter_cache('bench', $policies)");
	return rate("SELECT sum(narinfo.publish_many(infos, 'bench'))
		FROM (SELECT array_agg(info) FROM $from GROUP BY batch) AS t (infos)");
}

my $r = rounds(
	'bare verify' => sub { { rate => bare('verify') } },
	verify => sub { rate("SELECT count(*) FROM signed,
		narinfo.verify(info, 'bench') WHERE status = 'valid'") },
	'bare sign' => sub { { rate => bare('sign') } },
	sign => sub { rate("SELECT count(narinfo.sign_narinfo(info, 'bench-1'))
		FROM plain") },
	unchecked => sub { published('signed',
		"sign_with => '', min_signatures => 0") },
	checked => sub { published('signed',
		"sign_with => '', min_signatures => 1") },
	signing => sub { published('plain',
		"sign_with => 'bench-1', min_signatures => 0") }
);

# What is left to a publisher who has to wait for the bare loop, too.
sub allowed
{
	my ($loop) = @_;
	return map { my $i = $_; { rate => 1 / (1 / $r->{unchecked}[$i]{rate}
		+ 1 / $r->{$loop}[$i]{rate}) } } 0 .. $#{ $r->{$loop} };
}
$r->{'unchecked + bare verify'} = [allowed('bare verify')];
$r->{'unchecked + bare sign'} = [allowed('bare sign')];

sub row
{
	my ($what, $left, $right, %bar) = @_;
	my @left = map { $_->{rate} } @{ $r->{$left} };
	my @right = map { $_->{rate} } @{ $r->{$right} };
	bar($what, '1/s', median(@left), $right, median(@right), %bar,
		ratios => [map { $left[$_] / $right[$_] } 0 .. $#left]);
}
row('verify', 'verify', 'bare verify');
row('sign_narinfo, its key read each time', 'sign', 'bare sign');
row('publish_many, signatures checked', 'checked', 'unchecked + bare verify',
	hold => 0.8);
row('publish_many, signatures made', 'signing', 'unchecked + bare sign');

sql("DROP TABLE plain, signed; SELECT narinfo.drop_cache('bench')");
1;
