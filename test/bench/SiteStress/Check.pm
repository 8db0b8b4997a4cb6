#
# SiteStress::Check: what must be true when all is over, of five sites that
# have come to rest, and of what was acknowledged.
#
package SiteStress::Check;

use strict;
use warnings;

sub new { my ($class, %option) = @_; return bless { %option }, $class; }

sub run
{
	my ($self) = @_;
	my $stress = $self->{stress};
	$self->{sites} = [$stress->sites];
	return ($self->check_sites, $self->check_history, $self->check_ledger,
		$self->check_slots, $self->check_logs);
}

sub first_of
{
	my (@all) = @_;
	return join '; ', @all > 5 ? (@all[0 .. 4], '... ' . @all . ' in all')
		: @all;
}

sub rows
{
	my ($site, $query) = @_;
	my $out = $site->ask("SET search_path = narinfo, public; $query");
	return defined $out ? split /\n/, $out : ('cannot be asked');
}

# ---- each of them

my %check = (
	'numbers are gapless' => q{
		SELECT count(*) || ' of ' || max(seq) FROM event WHERE cache = 'main'
		HAVING count(*) <> max(seq) OR min(seq) <> 1},
	'the digest is that of the rows' => q{
		SELECT seq FROM (SELECT seq, digest FROM event WHERE cache = 'main'
			ORDER BY seq DESC LIMIT 1) AS e
		WHERE digest <> cache_digest('main')},
	'epochs do not go back' => q{
		SELECT seq FROM (SELECT seq, epoch, lag(epoch) OVER (ORDER BY seq)
			AS before FROM event WHERE cache = 'main') AS e
		WHERE epoch < before LIMIT 3},
	'no path dangles' => q{
		SELECT v.hash FROM valid_path AS v, unnest(ref_hashes(v.info)) AS r
		WHERE v.cache = 'main' AND NOT EXISTS (SELECT FROM valid_path AS w
			WHERE w.cache = 'main' AND w.hash = r) LIMIT 3},
);

sub check_sites
{
	my ($self) = @_;
	my @result;
	for my $what (sort keys %check)
	{
		my @wrong = map { my $site = $_;
			map { "$site->{name}: $_" } rows($site, $check{$what})
		} @{ $self->{sites} };
		push @result, ["$what, on every site", !@wrong, first_of(@wrong)];
	}
	return @result;
}

# ---- all of them against each other

my $events = q{SELECT seq, epoch, coalesce(hash::text, name), kind, digest
	FROM event WHERE cache = 'main' ORDER BY seq};

# Two by two would be dear; one is as good as the other when all are equal.
sub check_history
{
	my ($self) = @_;
	my @two;
	my @differ;
	my ($first, @others) = @{ $self->{sites} };
	my $same = "SELECT max(seq), md5(string_agg(e::text, ' ' ORDER BY seq))"
		. " FROM ($events) AS e";
	my ($wanted) = rows($first, $same);
	my ($digest) = rows($first, q{SELECT last_event(), cache_digest('main')});
	for my $site (@others)
	{
		my ($found) = rows($site, q{SELECT last_event(), cache_digest('main')});
		push @differ, "$site->{name}: $found, $first->{name}: $digest"
			if $found ne $digest;
		next if (rows($site, $same))[0] eq $wanted;
		my %event = map { /^(\d+)\|(.*)/ ? ($1 => $2) : () }
			rows($first, $events);
		my @wrong = grep { /^(\d+)\|(.*)/ && ($event{$1} // $2) ne $2 }
			rows($site, $events);
		push @two, map { my ($seq) = /^(\d+)/;
			"$site->{name}: $_, $first->{name}: $event{$seq}" } @wrong;
	}
	return (['no number has two events', !@two, first_of(@two)],
		['digests are equal', !@differ, first_of(@differ)]);
}

# ---- what was acknowledged

sub ledger
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my @lines;
	for my $file (glob "$stress->{state}/ledger-$stress->{phases}-*")
	{
		open my $in, '<', $file or die "$file: $!\n";
		push @lines, map { [split] } <$in>;
	}
	return @lines;
}

# The narinfo itself, or the event of that number about that path.
sub check_ledger
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my @ledger = $self->ledger;
	my (@lost, @alone);
	for my $site (@{ $self->{sites} })
	{
		my %path = map { split /\|/ } rows($site, q{SELECT hash, md5(info::text)
			FROM valid_path WHERE cache = 'main'});
		my %event = map { $_ => 1 } rows($site, q{SELECT seq || ' ' || hash
			FROM event WHERE cache = 'main' AND kind IN ('publish', 'replace')});
		for (@ledger)
		{
			my ($at, $where, $generation, $cache, $k, $seq, $hash, $digest) = @$_;
			next if ($path{$hash} // '') eq $digest || $event{"$seq $hash"};
			next if $k == 0 && $generation != $stress->generation($where);
			push @{ $k > 0 ? \@lost : \@alone },
				"$site->{name} has not $hash, event $seq of $where at $at, k = $k";
		}
	}
	my $copied = grep { $_->[4] > 0 } @ledger;
	$stress->{counts}{'in the ledger'} = @ledger;
	return (["what was acknowledged with copies ($copied) is on every site",
			!@lost, first_of(@lost)],
		['and all else (' . (@ledger - $copied)
			. ') that was told by a site which has its disks still',
			!@alone, first_of(@alone)]);
}

# ---- what is left

sub check_slots
{
	my ($self) = @_;
	my @idle = map { my $site = $_;
		map { "$site->{name}: $_" } rows($site, q{SELECT slot_name
			FROM pg_replication_slots WHERE NOT active})
	} @{ $self->{sites} };
	return ['no slot is left that nobody reads', !@idle, first_of(@idle)];
}

sub check_logs
{
	my ($self) = @_;
	my @bad;
	for my $site (@{ $self->{sites} })
	{
		open my $log, '<', $site->{log} or next;
		while (<$log>)
		{
			chomp;
			push @bad, "$site->{name}: $_" if /TRAP|deadlock detected/
				|| /PANIC/ && !/No space left/
				|| /was terminated by signal (?!9\b)/ && !/signal 6/;
		}
	}
	return ['no server has crashed by itself', !@bad, first_of(@bad)];
}

1;
