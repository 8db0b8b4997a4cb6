# A switchover is killed in the middle, wherever it may be: the old primary,
# the new one, both, or the calling session alone.  Started again, one site
# publishes, it has all that was acknowledged, the others follow it, and no
# slot is left that nobody reads.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use NarinfoTest;
use PostgreSQL::Test::Utils;
use SitesTest;
use Test::More;

my ($paris, $oslo, $bonn) = make_sites(qw(paris oslo bonn));
my ($from, $to) = ($paris, $oslo);
my $number = 1000;
my $switchover = 'CALL narinfo.switchover';

sub closed
{
	my ($node) = @_;
	return poll_until(sub { (ask($node, q{SELECT closed FROM narinfo.node})
		// '') eq 'switchover' }, 30);
}

# What is published before is acknowledged: with a copy, and without.
sub prepare
{
	acknowledged($from, 1, $number, $number + 2);
	acknowledged($from, 0, $number + 3, $number + 4);
	$number += 10;
}

sub switch { return begin($from, "$switchover('" . $to->name . "')") }

# The new one publishes, or the old one goes on.
sub outcome
{
	my ($what, $new) = @_;
	($from, $to) = ($to, $from) if $new;
	whole($what, $from, $to, $bonn);
	is(publish($from, $number, $number), 1, "$what: it publishes");
	$number++;
}

whole('at first', $from, $to, $bonn);

# ---- closed, and nobody has taken over

{
	my $what = 'the old one, while it waits for a publisher';
	prepare();
	my $hold = hold($from, 'LOCK TABLE narinfo.event IN SHARE MODE');
	my $publisher = begin($from, "SELECT narinfo.publish(format(E'StorePath: "
		. "/nix/store/%s-p\\nURL: nar/x\\nNarHash: sha256:%s\\nNarSize: 9\\n"
		. "References: \\n', repeat('a', 32), repeat('0', 52))::narinfo.narinfo)");
	ok(waits($from, 'SELECT narinfo.publish'), "$what: one publishes");
	my $call = switch();
	ok(closed($from), "$what: closed");
	ok(waits($from, $switchover), "$what: and waits");
	kill_all($from);
	ok(!finish($call), "$what: the call has failed");
	ok(!finish($publisher), "$what: and so has the publisher");
	let_go($hold);
	$from->start;
	outcome($what, 0);
}

{
	my $what = 'the calling session, while the new one has not all';
	prepare();
	my $hold = hold($to, 'LOCK TABLE narinfo.event IN SHARE MODE');
	acknowledged($from, 0, $number, $number + 2);
	$number += 10;
	my $call = switch();
	ok(closed($from), "$what: closed");
	ok(kill_backend($from, $switchover), "$what: the server starts anew");
	ok(!finish($call), "$what: the call has failed");
	let_go($hold);
	outcome($what, 0);
}

# ---- taking over: its transaction waits for what holds its identity

sub taking_over
{
	my ($what) = @_;
	prepare();
	my $hold = hold($to, 'SELECT FROM narinfo.node FOR SHARE');
	my $call = switch();
	ok(waits($to, 'SELECT narinfo.site_take_over'), "$what: at this moment");
	is(state($from), 'closed', "$what: the old one is closed");
	return ($hold, $call);
}

{
	my $what = 'the old one, while the new one takes over';
	my ($hold, $call) = taking_over($what);
	kill_all($from);
	ok(!finish($call), "$what: the call has failed");
	$from->start;
	ok(waits($to, 'SELECT narinfo.site_burn'), "$what: it asks who publishes");
	is(state($from), 'closed', "$what: and does not, meanwhile");
	let_go($hold);
	outcome($what, 1);
}

{
	my $what = 'the new one, while it takes over';
	my ($hold, $call) = taking_over($what);
	kill_all($to);
	ok(!finish($call), "$what: the call has failed");
	like($call->{err}, qr/could not connect|the other site/, "$what: and says why");
	let_go($hold);
	is(state($from), 'closed', "$what: nobody knows who publishes");
	$to->start;
	outcome($what, 0);
}

{
	my $what = 'both, while the new one takes over';
	my ($hold, $call) = taking_over($what);
	kill_all($from, $to);
	finish($call);
	let_go($hold);
	$from->start;
	is(state($from), 'closed', "$what: it stays closed until it can ask");
	$to->start;
	outcome($what, 0);
}

# ---- taken over, and the old one is not yet its mirror

# It is not admitted while somebody has locked the links.
sub taken_over
{
	my ($what) = @_;
	prepare();
	my $hold = hold($to, 'LOCK TABLE narinfo.site_link IN ROW EXCLUSIVE MODE');
	my $call = switch();
	ok(waits($to, 'SELECT narinfo.site_admit'), "$what: at this moment");
	is(state($to) . ' ' . state($from), 'primary closed', "$what: who is what");
	acknowledged($to, 0, $number, $number);
	$number += 10;
	return ($hold, $call);
}

{
	my $what = 'the new one, when it has taken over';
	my ($hold, $call) = taken_over($what);
	kill_all($to);
	ok(!finish($call), "$what: the call has failed");
	let_go($hold);
	is(state($from), 'closed', "$what: the old one stays closed");
	$to->start;
	outcome($what, 1);
}

{
	my $what = 'the old one, when the new one has taken over';
	my ($hold, $call) = taken_over($what);
	kill_all($from);
	ok(!finish($call), "$what: the call has failed");
	let_go($hold);
	my $name = $to->name;
	ok(poll_until(sub { sql($bonn, q{SELECT upstream FROM narinfo.mirror_state})
		eq $name }, 30), "$what: the third follows without it");
	acknowledged($to, 1, $number, $number);
	$number += 10;
	$from->start;
	outcome($what, 1);
}

{
	my $what = 'both, when the new one has taken over';
	my ($hold, $call) = taken_over($what);
	kill_all($from, $to);
	finish($call);
	let_go($hold);
	$from->start;
	is(state($from), 'closed', "$what: it stays closed until it can ask");
	$to->start;
	outcome($what, 1);
}

{
	my $what = 'the old one, while its slot is made';
	prepare();
	my $hold = hold($to, 'SELECT txid_current()');
	my $call = switch();
	my $slot = 'narinfo_' . $from->name;
	ok(poll_until(sub { sql($to, qq{SELECT count(*) FROM pg_replication_slots
		WHERE slot_name = '$slot'}) == 1 }, 30), "$what: at this moment");
	ok(kill_postmaster($from), "$what: all of it ends with the postmaster");
	finish($call);
	let_go($hold);
	$from->start;
	outcome($what, 1);
}

# ---- just before its transaction, and just after

{
	my $what = 'the old one, before it has become a mirror';
	my ($hold, $call) = taken_over($what);
	my $own = hold($from, 'SELECT FROM narinfo.node FOR SHARE');
	let_go($hold);
	ok(waits($from, $switchover), "$what: its transaction waits");
	kill_all($from);
	finish($call);
	let_go($own);
	$from->start;
	my $name = $to->name;
	ok(poll_until(sub { (call($from, "$switchover('$name')"))[0] == 0 }, 30),
		"$what: called again");
	is(state($from), 'mirror', "$what: it has come to its end");
	outcome($what, 1);
}

{
	my $what = 'the old one, when it has become a mirror';
	my ($hold, $call) = taken_over($what);
	my $own = hold($from, 'SELECT FROM narinfo.node FOR SHARE');
	let_go($hold);
	ok(waits($from, $switchover), "$what: its transaction waits");
	my $links = hold($to, 'LOCK TABLE narinfo.site_link IN SHARE MODE');
	let_go($own);
	ok(waits($to, 'SELECT narinfo.site_report'), "$what: it reports");
	is(state($from), 'mirror', "$what: it is a mirror");
	kill_all($from);
	finish($call);
	let_go($links);
	$from->start;
	outcome($what, 1);
}

unlike(slurp_file($_->logfile), qr/PANIC|TRAP/, $_->name . ': nothing crashed')
	for $paris, $oslo, $bonn;

done_testing();
