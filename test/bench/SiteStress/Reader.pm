#
# SiteStress::Reader: a real nix that copies a closure, NARs included, from
# one site after the other into a store of its own, while that says that it is
# healthy.
#
# When it was healthy before and after, and nothing befell it meanwhile, the
# copy has to succeed.
#
package SiteStress::Reader;

use strict;
use warnings;
use File::Path qw(remove_tree);
use Time::HiRes qw(time sleep);

my $pause = 2;    # seconds, between two

sub new { my ($class, %option) = @_; return bless { %option }, $class; }

sub run
{
	my ($self) = @_;
	my $stress = $self->{stress};
	my $counts = $self->{state}{counts};
	while ($stress->running)
	{
		my @mirrors = grep { $_->{name} ne $stress->read_state('primary') }
			$stress->sites;
		my $site = $mirrors[rand @mirrors];
		my $before = $stress->disturbed($site->{name});
		if ($before % 2 || $site->health != 200)
		{
			$counts->{'sites not to be read'}++;
			sleep 0.2;
			next;
		}
		my $home = "$stress->{dir}/home";
		my $begin = time;
		my ($status, $out, $err) = $stress->{nix}->($home, 'nix', 'copy',
			'--no-check-sigs', '--from',
			"http://127.0.0.1:$site->{http_port}", $stress->{top});
		my $took = time - $begin;
		system('chmod', '-R', 'u+w', $home);
		remove_tree($home);
		if ($status == 0)
		{
			$counts->{'closures read'}++;
			$counts->{'seconds of reading'} += $took;
		}
		elsif ($site->health == 200
			&& $stress->disturbed($site->{name}) == $before)
		{
			push @{ $self->{state}{failures} },
				"nix could not read from $site->{name}: $err";
		}
		else
		{
			$counts->{'readings disturbed'}++;
		}
		for (1 .. $pause * 10)
		{
			sleep 0.1 if $stress->running;
		}
	}
}

1;
