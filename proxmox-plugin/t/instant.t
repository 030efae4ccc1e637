# Snapshots under load: a writer puts the same number on two disks of a guest, one after the other, and then the next. At any
# one instant the first disk has the second one's number, or the next one.
use strict;
use warnings;
use Test::More;
use POSIX ();

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Nbd;
use PVE::Storage::Custom::Storaged::Together;
use Storaged::Test::Node qw($STORAGE until_true);

my $ROUNDS = 12;
my $BLOCK = 4096;

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();
my $config = $node->folder() . '/pve';
mkdir $_ or die "$_: $!\n" for $config, "$config/qemu-server";
local $PVE::Storage::Custom::Storaged::Together::CONFIG_FOLDER = $config;

my @disks = map { $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 1024) } 0 .. 1;
my @volumes = map { "ssd.$_" } @disks;

sub client { my ($export) = @_; return PVE::Storage::Custom::Storaged::Nbd->new($node->nbd_socket(), $export); }

sub number_at {
    my ($export) = @_;
    my $client = client($export);
    my $bytes = $client->read_at(0, $BLOCK);
    $client->finish();
    # All of the block is of one write.
    my @numbers = unpack 'Q>*', $bytes;
    return (grep { $_ != $numbers[0] } @numbers) ? undef : $numbers[0];
}

my $writer = fork // die "fork: $!\n";
if (!$writer) {
    my @clients = map { client($_) } @volumes;
    for (my $number = 1; ; $number++) {
        for my $client (@clients) {
            # The test ends this process; an error is seen by that there is no progress.
            eval { $client->write_at(0, pack('Q>', $number) x ($BLOCK / 8)); 1 } or POSIX::_exit(1);
        }
    }
}

my $last = 0;
for my $round (1 .. $ROUNDS) {
    open my $file, '>', "$config/qemu-server/100.conf" or die "$!\n";
    print {$file} "scsi0: fast:$disks[0]\n[round$round]\nscsi0: fast:$disks[0]\nscsi1: fast:$disks[1]\nsnapstate: prepare\n";
    close $file or die "$!\n";
    until_true('the writer to get on', sub { return (number_at($volumes[1]) // 0) > $last; });
    $plugin->volume_snapshot($section, $STORAGE, $disks[0], "round$round");
    # PVE may take its time between the two.
    my $meanwhile = number_at($volumes[1]) // 0;
    until_true('the writer to get on', sub { return (number_at($volumes[1]) // 0) > $meanwhile; });
    $plugin->volume_snapshot($section, $STORAGE, $disks[1], "round$round");
    my ($first, $second) = map { number_at("$_\@round$round") } @volumes;
    ok(defined $first && defined $second && ($first == $second || $first == $second + 1), 'one instant')
        or diag(($first // 'torn') . ' and ' . ($second // 'torn'));
    $last = $second // $last;
}
cmp_ok($last, '>', $ROUNDS, 'the writer wrote all the time');
kill 'KILL', $writer;
waitpid $writer, 0;
$plugin->volume_snapshot_rollback($section, $STORAGE, $_, 'round1') for @disks;
my ($first, $second) = map { number_at($_) } @volumes;
ok($first == $second || $first == $second + 1, 'and back at it');

done_testing();
