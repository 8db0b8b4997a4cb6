# One round of the stress of five sites, a minute of it.
use strict;
use warnings;

use FindBin;

my $file = "$FindBin::RealBin/../stress/sites.pl";
exec $^X, (map { "-I$_" } @INC), $file or die "$file: $!";
