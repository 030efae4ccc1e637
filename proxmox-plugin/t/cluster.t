# Several nodes: a guest moves from one to another while it writes, and starts on another when its node is dead.
use strict;
use warnings;
use Test::More;

use PVE::Storage::Custom::StoragedPlugin;
use Storaged::Test::Etcd;
use Storaged::Test::Node qw($STORAGE until_true);
use Storaged::Test::Qemu;

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
# A machine that tests may have much else to do.
no warnings 'once';
local $PVE::Storage::Custom::Storaged::Api::HEARSAY_PATIENCE = 30;
my $etcd = Storaged::Test::Etcd->start();

sub node {
    my ($number) = @_;
    my $endpoint = $etcd->endpoint();
    return Storaged::Test::Node->start_member(1, <<"END");
lease_ms = 2000
[etcd]
endpoints = ["$endpoint"]
prefix = "/pve"
[cluster]
name = "host-$number"
zone = "zone-$number"
listen = "127.0.0.1:0"
plaintext = true
END
}
my @nodes = map { node($_) } 1 .. 3;
my @sections = map { $_->section() } @nodes;
$nodes[0]->api()->ask('POST', '/v1/pools', body => { name => 'ssd', copies => 3, groups => 8 });

# As Proxmox VE starts a guest on a node.
sub guest {
    my ($node, $volume, @more) = @_;
    my $section = $sections[$node];
    $plugin->activate_volume($STORAGE, $section, $volume, undef, {}, {});
    my $blockdev = $plugin->qemu_blockdev_options($section, $STORAGE, $volume, '10.0+pve0', {});
    return Storaged::Test::Qemu->start($nodes[$node]->folder(), 100, Storaged::Test::Qemu::disk_of_pve9($blockdev), @more);
}
sub wrote { my ($qemu, $pattern, $place) = @_; return like($qemu->io("write -P $pattern $place"), qr/^wrote /m, "written: $place"); }
sub reads { my ($qemu, $pattern, $place, $what) = @_; return like($qemu->io("read -P $pattern $place"), qr/\Aread (?!.*failed)/s, $what); }

my $disk = $plugin->alloc_image($STORAGE, $sections[0], 100, 'raw', undef, 8 * 1024);

# A node hears of what was done on another one a moment later.
sub heard { my ($what, $look) = @_; return ok(until_true($what, $look), $what); }
sub listed { my ($node) = @_; return scalar @{ $plugin->list_images($STORAGE, $sections[$node], 100, undef, {}) }; }
heard('each node knows the disk', sub { return listed(1) == 1; });
is($plugin->get_identity($sections[0], $STORAGE), $plugin->get_identity($sections[1], $STORAGE), 'it is one storage');

# A live migration, with QEMU's own.
{
    my $source = guest(0, $disk);
    wrote($source, 1, '0 4M');
    my $socket = $nodes[1]->folder() . '/way';
    my $way = "unix:$socket";
    my $target = guest(1, $disk, '-incoming', $way);
    until_true('the target to listen', sub { return -S $socket; });
    wrote($source, 2, '1M 1M');
    $plugin->volume_snapshot($sections[0], $STORAGE, $disk, 'moving');
    wrote($source, 3, '2M 1M');
    $source->ask('cont');
    $source->ask('migrate', { uri => $way });
    until_true('the migration to end', sub {
        my $migration = $source->ask('query-migrate');
        my $status = $migration->{status};
        die "the migration is $status: " . ($migration->{'error-desc'} // q{}) . "\n" if $status =~ m/failed|cancelled/;
        return $status eq 'completed';
    });
    $target->ask('cont');
    until_true('the target to run', sub { return $target->ask('query-status')->{running}; });
    $plugin->deactivate_volume($STORAGE, $sections[0], $disk, undef, {});
    $source->crash();
    reads($target, 2, '1M 1M', 'the target has what was written before');
    reads($target, 3, '2M 1M', 'and what was written last');
    wrote($target, 4, '3M 1M');
    # What the target wrote is there for whoever comes.
    $target->crash();
}

# HA: a node is dead, with its guest, its gateway and its disks; PVE starts the guest on another one.
{
    my $guest = guest(1, $disk);
    reads($guest, 4, '3M 1M', 'the guest runs on the second node');
    wrote($guest, 5, '0 1M');
    $guest->ask('human-monitor-command', { 'command-line' => 'qemu-io -d scsi0 flush' });
    $nodes[1]->crash($_) for 'storaged', 'storaged-nbd';
    $guest->crash();
    my $again = guest(2, $disk);
    reads($again, 5, '0 1M', 'it starts on the third node, without anything that had to be unlocked');
    wrote($again, 6, '0 1M');
    $plugin->volume_snapshot($sections[2], $STORAGE, $disk, 'degraded');
    heard('a node less, and snapshots are made', sub {
        return keys %{ $plugin->volume_snapshot_info($sections[0], $STORAGE, $disk) } == 2;
    });
    my @status = $plugin->status($STORAGE, $sections[0], {});
    is($status[3], 1, 'the storage is active on the nodes that are left');
    is_deeply([$plugin->status($STORAGE, $sections[1], {})], [], 'and not on the dead one');
}
$plugin->free_image($STORAGE, $sections[0], $disk, 0, 'raw');
heard('and the disk is freed', sub { return listed(2) == 0; });

done_testing();
