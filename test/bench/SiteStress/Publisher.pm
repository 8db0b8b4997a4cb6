#
# SiteStress::Publisher: one who publishes at whatever site is the primary,
# waits for so many copies, and writes down what was acknowledged.
#
# A line of the ledger, a file outside of the servers:
#
#	time site generation cache copies number hash digest-of-the-text
#
# It is on disk before it counts.  What was published and has not so many
# copies in time is acknowledged with none: it is on disk at the primary.
# When nobody knows what became of a publish, it is done again, for ever.
#
package SiteStress::Publisher;

use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use IO::Handle;
use Time::HiRes qw(time sleep);

use GateStress::Session;

my $wait = '4 s';

# What may happen to whoever publishes while sites come and go: refused for
# now, to be tried again.
my $refused = qr/^(?:NI005|NI010|NI014|NI020|25006|40001|40P01|53\w\w\w|55P03|57\w\w\w
	|58\w\w\w|XX001)$/x;

sub new
{
	my ($class, %option) = @_;
	my $self = bless { %option, next => 0, known => [] }, $class;
	my $stress = $self->{stress};
	my $file = "$stress->{state}/ledger-$self->{phase}-$self->{number}";
	open $self->{ledger}, '>>', $file or die "$file: $!\n";
	$self->{pause} = $stress->{publishers} / $stress->{rate};
	return $self;
}

sub count
{
	my ($self, $what, $n) = @_;
	$self->{state}{counts}{$what} += $n // 1;
}

sub fail
{
	my ($self, $why) = @_;
	push @{ $self->{state}{failures} }, $why;
}

sub run
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $due = time;
	while ($stress->running || $self->{batch})
	{
		# what is on its way when all ends is brought to its end
		last if !$stress->running && ($self->{last_tries} //= 200)-- <= 0;
		if (!$self->{batch})
		{
			my $now = time;
			sleep $due - $now if $due > $now;
			$due = $now if $due < $now - 1;
			$self->{batch} = $self->make_batch;
			$due += $self->{pause} * @{ $self->{batch}{names} };
		}
		$self->publish or sleep 0.05 + rand 0.05;
	}
	$self->leave;
}

# One to ten paths, of which some refer to what is known to be there.
sub make_batch
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my @names = map { "p$self->{phase}n$self->{number}i" . $self->{next}++ }
		0 .. int rand 10;
	my @refs = grep { defined } map { $self->{known}[rand 20] } 0 .. int rand 3;
	my %unique = map { $_ => 1 } @refs;
	return { names => \@names, k => int rand 3,
		texts => [map { $stress->text_of($_, 1, 0, sort keys %unique) } @names] };
}

# ---- the primary of now

sub leave
{
	my ($self) = @_;
	my $session = delete $self->{session} or return;
	$session->end;
}

sub connect
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $name = $stress->read_state('primary');
	$self->leave if $self->{session}
		&& ($self->{session}{lost} || $self->{at} ne $name);
	return $self->{session} if $self->{session};
	local $ENV{PGCONNECT_TIMEOUT} = 5;
	my $site = $stress->site($name);
	my $generation = $stress->generation($name);
	my $session = GateStress::Session->new(
		command => [$site->psql], name => "publisher$self->{number}",
		errors => "$stress->{state}/publisher$self->{number}.err");
	if ($session->execute('SET search_path = narinfo, public') ne '00000')
	{
		$session->{lost} = 1;
		$session->end;
		return undef;
	}
	@$self{qw(session at generation)} = ($session, $name, $generation);
	return $session;
}

# True when the batch is done with.
sub publish
{
	my ($self) = @_;
	my $session = $self->connect or return 0;
	my $batch = $self->{batch};
	my $state = $session->execute('SELECT publish_many(ARRAY['
		. join(',', map { "'$_'" } @{ $batch->{texts} }) . ']::narinfo[])');
	if ($state ne '00000')
	{
		$self->count($state eq 'lost' ? 'lost' : "refused: $state");
		return 0 if $state eq 'lost' || $state =~ $refused;
		# what it refers to was acknowledged
		$self->fail("publish: $state");
		delete $self->{batch};
		return 1;
	}
	my ($number, %seq) = $self->numbers($session);
	return 0 unless defined $number;
	my $copies = $self->copies($session, $number);
	return 0 unless defined $copies;
	$self->acknowledge($copies >= $batch->{k} ? $batch->{k} : 0, $number,
		%seq);
	delete $self->{batch};
	return 1;
}

# The last number of the cache, and those of our paths if they are recent.
sub numbers
{
	my ($self, $session) = @_;
	my @hashes = map { $self->{stress}->hash_of($_) }
		@{ $self->{batch}{names} };
	my $list = join ',', @hashes;
	my @rows = $session->rows(qq{SELECT last_event('main'), seq, hash
		FROM (SELECT) AS one LEFT JOIN event ON cache = 'main'
		AND seq > last_event('main') - 200 AND hash = ANY ('{$list}'::store_hash[])});
	return undef unless @rows;
	my ($last) = $rows[0] =~ /^(\d+)/;
	return ($last, map { /^\d+\|(\d+)\|(\w+)/ ? ($2 => $1) : () } @rows);
}

# How many copies there are; undef: nobody can tell any more.
sub copies
{
	my ($self, $session, $number) = @_;
	my $k = $self->{batch}{k};
	return $k if $k == 0 || $self->{unwaited};
	my $begin = time;
	my $state = $session->execute(
		"CALL wait_copies($number, $k, '$wait', NULL, 'main')");
	if ($state ne '00000')
	{
		$self->count($state eq 'lost' ? 'lost' : "not waited: $state");
		return undef;
	}
	my ($copies) = @{ $session->{rows} };
	$self->count('waits');
	$self->count('seconds waited', time - $begin);
	$self->count('too few copies in time') if $copies < $k;
	return $copies;
}

sub acknowledge
{
	my ($self, $k, $number, %seq) = @_;
	my $batch = $self->{batch};
	my $ledger = $self->{ledger};
	for my $i (0 .. $#{ $batch->{names} })
	{
		my $hash = $self->{stress}->hash_of($batch->{names}[$i]);
		printf $ledger "%.3f %s %d main %d %d %s %s\n", time, $self->{at},
			$self->{generation}, $k, $seq{$hash} // $number, $hash,
			md5_hex($batch->{texts}[$i]);
	}
	$ledger->flush && $ledger->sync or die "the ledger: $!\n";
	$self->count('acknowledged', scalar @{ $batch->{names} });
	$self->count("acknowledged with $k copies", scalar @{ $batch->{names} });
	$self->count('transactions');
	return if $k == 0;
	unshift @{ $self->{known} }, @{ $batch->{names} };
	splice @{ $self->{known} }, 20 if @{ $self->{known} } > 20;
}

1;
