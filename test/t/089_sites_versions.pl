# A network of sites is upgraded, mirrors first: a mirror that is one version
# ahead joins, follows, reports, proves itself, is mended and repointed; the
# other order is refused.  The next version is made up here.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $base = PostgreSQL::Test::Utils::tempdir();

# ---- servers with an extension directory each, and the next version

sub configured
{
	my ($option) = @_;
	my $bindir = dirname(qx(pg_config --bindir) =~ s/\n//r . '/x');
	chomp(my $value = qx('$bindir/pg_config' $option));
	return $value;
}

my %real = map { $_ => configured("--$_") } qw(bindir sharedir pkglibdir);
my $control = slurp_bytes("$real{sharedir}/extension/pg_narinfo.control");
my ($now) = $control =~ /^default_version = '(.*)'/m;
my $next = $now =~ s/^(\d+)\.(\d+)/"$1." . ($2 + 1)/er;

# The part of two directories that is the same.
sub common
{
	my ($a, $b) = map { [split m{/}, $_] } @_;
	my $n = 0;
	$n++ while $n < @$a && $n < @$b && $a->[$n] eq $b->[$n];
	return join '/', @$a[0 .. $n - 1];
}

# PostgreSQL looks for all else from where its program lies.
sub make_tree
{
	my ($name) = @_;
	my $prefix = common(common(@real{qw(bindir sharedir)}), $real{pkglibdir});
	my %here = map { $_ => "$base/$name" . substr $real{$_}, length $prefix }
		keys %real;
	make_path(@here{qw(bindir sharedir)}, dirname($here{pkglibdir}),
		"$here{sharedir}/extension");
	system('cp', '-RL', "$real{bindir}/.", $here{bindir}) == 0 or die;
	symlink $real{pkglibdir}, $here{pkglibdir} or die "$!";
	for my $dir ('', '/extension')
	{
		symlink $_, "$here{sharedir}$dir/" . basename($_)
			for glob "$real{sharedir}$dir/*";
	}
	return \%here;
}

sub write_file
{
	my ($file, $text) = @_;
	unlink $file;
	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
}

# As the package of the next version would.
sub install_next
{
	my ($tree) = @_;
	my $dir = "$tree->{sharedir}/extension";
	write_file("$dir/pg_narinfo.control",
		$control =~ s/^(default_version = )'.*'/$1'$next'/mr);
	write_file("$dir/pg_narinfo--$now--$next.sql", <<~'SCRIPT');
		\echo Use "ALTER EXTENSION pg_narinfo UPDATE" \quit
		ALTER TABLE valid_path
			ADD COLUMN channel text NOT NULL DEFAULT 'stable';
		ALTER TABLE root ADD COLUMN note text DEFAULT 'none';
		ALTER TABLE site ADD COLUMN region text NOT NULL DEFAULT 'here';
		CREATE OR REPLACE FUNCTION site_health() RETURNS jsonb
			LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
			SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS $$
		DECLARE
			reason text := narinfo.site_reason();
		BEGIN
			RETURN jsonb_build_object('version', 'next', 'status',
				CASE WHEN reason IS NULL THEN 'ok' ELSE 'unhealthy' END,
				'reasons', to_jsonb(reason));
		END
		$$;
		SCRIPT
}

my %tree = map { $_ => make_tree($_) } qw(paris oslo bonn);
install_next($tree{oslo});

sub site
{
	my ($name) = @_;
	return narinfo_site($name, install_path => dirname($tree{$name}{bindir}));
}

my ($paris, $oslo, $bonn) = map { site($_) } qw(paris oslo bonn);

sub sql { my ($node, @rest) = @_; return $node->safe_psql('postgres', @rest) }

sub version
{
	my ($node) = @_;
	return sql($node, q{SELECT extversion FROM pg_extension
		WHERE extname = 'pg_narinfo'});
}

is(version($paris), $now, 'the primary has this version');
is(version($oslo), $next, 'a mirror has the next one');

# ---- what is done with narinfos

sub made
{
	my ($i) = @_;
	return "format(E'StorePath: /nix/store/%s-p\\nURL: nar/%s\\nNarHash: "
		. "sha256:%s\\nNarSize: 9\\nReferences: \\n', translate(md5(($i)::text), "
		. "'e', 'z'), $i, repeat('0', 52))::narinfo.narinfo";
}

sub publish
{
	my ($first, $last) = @_;
	return sql($paris, 'SELECT narinfo.publish_many(array_agg(' . made('i')
		. ")) FROM generate_series($first, $last) AS i");
}

sub digests
{
	my ($node) = @_;
	return sql($node, q{SELECT c, narinfo.last_event(c), narinfo.cache_digest(c)
		FROM narinfo.event_caches() AS c ORDER BY c});
}

sub equal
{
	my ($what, @mirrors) = @_;
	for my $mirror (@mirrors)
	{
		ok(caught_up($mirror, $paris), "$what: " . $mirror->name . ' follows');
		is(digests($mirror), digests($paris),
			"$what: " . $mirror->name . ' is equal');
	}
}

sub call
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $sql);
	return $ret == 0 ? 'done' : $err;
}

sub repoint
{
	my ($node, $to) = @_;
	return call($node, "CALL narinfo.repoint('" . site_conninfo($to) . "')");
}

sub channels
{
	my ($node) = @_;
	return sql($node, q{SELECT string_agg(DISTINCT channel, ' ' ORDER BY channel)
		FROM narinfo.valid_path});
}

sql($paris, "CALL narinfo.import_cache('$cache_dir');
	SELECT narinfo.pin('top', '$top_path')");
publish(1, 500);

# ---- a mirror that is ahead

is(join_site($oslo, $paris), 'joined', 'it joins');
is(digests($oslo), digests($paris), 'and is equal');
is(channels($oslo), 'stable', 'what the primary does not know has its default');
my $health = http_get($oslo->{http_port}, '/health');
is($health->{status}, 200, 'it is healthy');
like($health->{body}, qr/"version": "next"/, 'by the changed function');
publish(501, 600);
sql($paris, q{SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
	FROM narinfo.valid_path WHERE narinfo.store_name(narinfo.store_path(info))
	= 'p' ORDER BY hash LIMIT 10)); SELECT narinfo.create_cache('late');
	SELECT narinfo.unpin('top')});
equal('changes', $oslo);
ok(poll_until(sub { sql($paris, q{SELECT version FROM narinfo.site
	WHERE name = 'oslo'}) eq $next }), 'it reports itself');
ok(poll_until(sub { sql($oslo, q{SELECT string_agg(name || ' ' || region, ', '
	ORDER BY name) FROM narinfo.site}) eq 'oslo here, primary here' }),
	'and takes what it is told');
is(sql($oslo, q{SELECT report_error FROM narinfo.mirror_state}), '',
	'without an error');
is(call($oslo, 'CALL narinfo.verify_site()'), 'done', 'it proves itself');

sql($oslo, q{SET session_replication_role = replica;
	DELETE FROM narinfo.valid_path WHERE hash OPERATOR(narinfo.=)
		translate(md5('77'), 'e', 'z')::narinfo.store_hash;
	UPDATE narinfo.valid_path SET registered = registered + '1 s'
	WHERE hash OPERATOR(narinfo.=)
		translate(md5('78'), 'e', 'z')::narinfo.store_hash});
like(call($oslo, 'CALL narinfo.verify_site()'), qr/is not equal/,
	'damage is found');
is(sql($oslo, 'SELECT count(*) FROM narinfo.site_difference'), 2, 'each row');
is(call($oslo, 'CALL narinfo.repair_site()'), 'done', 'and mended');
is(digests($oslo), digests($paris), 'with what the primary has');
is(channels($oslo), 'stable', 'and defaults');

# ---- the other order

like(join_site($bonn, $oslo), qr/\Qpg_narinfo is $now here and $next at\E.*
	upgrade\ it\ here\ first/xs, 'one of this version cannot mirror the next');
is(sql($oslo, 'SELECT count(*) FROM pg_replication_slots'), 0,
	'and leaves nothing');
is(join_site($bonn, $paris), 'joined', 'but the primary');
like(repoint($bonn, $oslo), qr/upgrade it here first/,
	'nor does it follow that by repoint');
install_next($tree{paris});
$paris->restart;
ok(poll_until(sub { sql($paris, q{SELECT count(*) FROM narinfo.site
	WHERE name IN ('oslo', 'bonn')}) == 2 }), 'the primary knows both');
my $refused = call($paris, 'ALTER EXTENSION pg_narinfo UPDATE');
like($refused, qr/cannot be upgraded to \Q$next\E here before its mirrors/,
	'the primary is not upgraded before its mirrors');
like($refused, qr/site "bonn" has \Q$now\E/, 'which are named');
like($refused, qr/There first.*ALTER EXTENSION/s, 'with what is to be done');
is(version($paris), $now, 'it stays as it was');

# ---- a mirror is upgraded while it follows

install_next($tree{bonn});
publish(601, 700);
sql($bonn, 'ALTER EXTENSION pg_narinfo UPDATE');
publish(701, 800);
equal('upgraded', $bonn, $oslo);
is(channels($bonn), 'stable', 'with the new column');
ok(poll_until(sub { sql($paris, q{SELECT version FROM narinfo.site
	WHERE name = 'bonn'}) eq $next }), 'it reports itself');

# Both ways, with events that it has missed.
for my $to ($oslo, $paris)
{
	sql($bonn, 'ALTER SUBSCRIPTION narinfo DISABLE');
	publish(1000, 1200);
	sql($paris, q{SELECT narinfo.retract(ARRAY(SELECT narinfo.store_path(info)
		FROM narinfo.valid_path WHERE narinfo.store_name(narinfo.store_path(info))
		= 'p' ORDER BY hash LIMIT 100))});
	sql($paris, "SELECT narinfo.pin('" . $to->name . "', '$top_path')");
	is(repoint($bonn, $to), 'done', 'repointed to ' . $to->name);
	equal('repointed', $bonn);
	is(channels($bonn), 'stable', 'and its columns');
	is(sql($bonn, q{SELECT string_agg(DISTINCT note, ' ') FROM narinfo.root}),
		'none', 'of each table');
}

# ---- the primary, at last

sql($paris, 'ALTER EXTENSION pg_narinfo UPDATE');
is(version($paris), $next, 'the primary is upgraded');
publish(2000, 2100);
sql($paris, 'INSERT INTO narinfo.valid_path (info, channel) VALUES ('
	. made(3000) . q{, 'unstable')});
equal('all upgraded', $oslo, $bonn);
is(channels($_), 'stable unstable', $_->name . ' has the new column as it is')
	for $paris, $oslo, $bonn;
is(call($_, 'CALL narinfo.verify_site()'), 'done', $_->name . ' proves itself')
	for $oslo, $bonn;
is(http_get($_->{http_port}, '/health')->{status}, 200, $_->name . ' is healthy')
	for $paris, $oslo, $bonn;
is(sql($_, 'SELECT report_error FROM narinfo.mirror_state'), '',
	$_->name . ' reports') for $oslo, $bonn;
is(repoint($bonn, $oslo), 'done', 'a mirror of a mirror');
publish(4000, 4010);
equal('in the end', $bonn);

for my $node ($paris, $oslo, $bonn)
{
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/,
		$node->name . ': nothing crashed');
}

done_testing();
