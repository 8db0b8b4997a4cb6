#
# The README's tour does what it says: every ```sql block is run, in one psql
# session, and prints the ```text block behind it; every ```console block's
# command prints what stands below it.
#
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../perl";

use NarinfoTest;
use Test::More;

my $readme = slurp_bytes("$test_dir/../README.md");
my ($tour) = $readme =~ /^## A tour in psql\n(.*?)^## /ms
	or die 'README.md has no tour';

my $node = narinfo_node('tour');
$node->safe_psql('postgres', "CALL narinfo.import_cache('$cache_dir')");

# blocks in order: [kind, text]
my @blocks;
push @blocks, [ $1, $2 ] while $tour =~ /^```(\w+)\n(.*?)^```$/msg;
cmp_ok(scalar(@blocks), '>=', 10, 'the tour has blocks');

sub tidy
{
	my ($text) = @_;
	$text =~ s/^psql:<stdin>:\d+: //mg;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n{2,}/\n/g;
	$text =~ s/\A\n+//;
	$text =~ s/\n*\z/\n/;
	return $text;
}

# Run everything in one session, commands of the shell by \!; a marker shows
# where each block ends.
my $script = '';
my @expected;
for my $i (0 .. $#blocks)
{
	my ($kind, $text) = @{ $blocks[$i] };
	my ($name) = $text =~ /^(.*)$/m;

	if ($kind eq 'sql')
	{
		my $next = $blocks[ $i + 1 ];
		my $wanted = $next && $next->[0] eq 'text' ? $next->[1] : undef;
		$script .= $text;
		push @expected, [ $name, $wanted ];
	}
	elsif ($kind eq 'console')
	{
		my ($command, $wanted) = $text =~ /\A\$ ([^\n]*)\n(.*)\z/s
			or die "no command: $text";
		$command =~ s/127\.0\.0\.1:8080/127.0.0.1:$node->{http_port}/g;
		$script .= "\\! $command\n";
		push @expected, [ $name, $wanted ];
	}
	else
	{
		next;
	}
	$script .= "\\! echo === end of block\n";
}
my $output = '';
IPC::Run::run(
	[
		'psql', '-X', '-f', '-', '-d', $node->connstr('postgres')
	],
	'<', \$script, '>', \$output, '2>&1');
my @outputs = split /^=== end of block\n/m, $output;

for my $i (0 .. $#expected)
{
	my ($name, $wanted) = @{ $expected[$i] };
	my $got = tidy($outputs[$i] // '');

	if (defined $wanted)
	{
		is($got, tidy($wanted), "prints what it says: $name");
	}
	else
	{
		unlike($got, qr/ERROR/, "runs: $name");
	}
}

done_testing();
