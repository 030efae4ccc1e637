# Real QEMUs with the disks that PVE 9 and PVE 8 would make of the plugin's answers, over a real storaged.
use strict;
use warnings;
use Test::More;

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Qmp;
use PVE::Tools;
use Storaged::Test::Node qw($STORAGE find_program);
use Storaged::Test::Qemu;

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();
my $folder = $node->folder();
local $PVE::Storage::Custom::Storaged::Attachment::MONITORS = $folder;

sub pve9 {
    my ($vmid, $volume, $options, @more) = @_;
    $plugin->activate_volume($STORAGE, $section, $volume, $options->{'snapshot-name'}, {}, {});
    my $blockdev = $plugin->qemu_blockdev_options($section, $STORAGE, $volume, '10.0+pve0', $options);
    my %read_only = $options->{read_only} ? ('read-only' => JSON::true) : ();
    return Storaged::Test::Qemu->start($folder, $vmid, Storaged::Test::Qemu::disk_of_pve9($blockdev, %read_only), @more);
}

sub pve8 {
    my ($vmid, $volume) = @_;
    $plugin->activate_volume($STORAGE, $section, $volume, undef, {}, {});
    my $path = $plugin->path($section, $volume, $STORAGE);
    return Storaged::Test::Qemu->start($folder, $vmid, Storaged::Test::Qemu::disk_of_pve8($path));
}

sub qemu_img { my @words = @_; return PVE::Tools::run_command([find_program('qemu-img'), @words], errfunc => sub { diag($_[0]) }); }

sub wrote { my ($qemu, $pattern, $place) = @_; return like($qemu->io("write -P $pattern $place"), qr/^wrote /m, "written: $place"); }

sub reads {
    my ($qemu, $pattern, $place, $what) = @_;
    return like($qemu->io("read -P $pattern $place"), qr/\Aread (?!.*failed)/s, $what);
}

sub size {
    my ($qemu) = @_;
    my ($device) = @{ $qemu->ask('query-block') };
    return $device->{inserted}{image}{'virtual-size'};
}

# Disks of all kinds of sizes, as PVE 9 and PVE 8 open them.
my $disk = $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 8 * 1024);
{
    my $qemu = pve9(100, $disk, {});
    is(size($qemu), 8 * 1024 * 1024, 'QEMU sees its size (PVE 9)');
    wrote($qemu, 1, '0 1M');
    # Smaller than a block.
    wrote($qemu, 2, '512 512');
    reads($qemu, 2, '512 512', 'less than a block is read');
    reads($qemu, 1, '1k 3k', 'the rest of the block is as it was');
    reads($qemu, 0, '4M 4M', 'what was never written is zero');
    like($qemu->io('discard 0 64k'), qr/^discard /m, 'discarded');
    reads($qemu, 0, '0 64k', 'which reads as zero');
}
{
    my $qemu = pve8(100, $disk);
    is(size($qemu), 8 * 1024 * 1024, 'QEMU sees its size (PVE 8)');
    reads($qemu, 1, '64k 960k', 'and what was written');
    wrote($qemu, 3, '7M 1M');
}
my $efi = $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 528);
is(size(pve9(101, $efi, {})), 528 * 1024, 'EFI variables have exactly their size');
my $odd = $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 133);
is(size(pve9(101, $odd, {})), 136 * 1024, 'an odd size is rounded up');

# Paths, as PVE gives them to qemu-img.
my $image = "$folder/image.raw";
my $path = $plugin->path($section, $efi, $STORAGE);
open my $file, '>', $image or die "$image: $!\n";
print {$file} 'E' x (528 * 1024);
close $file or die "$image: $!\n";
is(qemu_img(qw(convert -n -f raw -O raw), $image, $path), 0, 'EFI variables are copied in');
is(qemu_img(qw(compare -f raw -F raw), $image, $path), 0, 'and are the same');
my $cloud = $plugin->alloc_image($STORAGE, $section, 100, 'raw', 'vm-100-cloudinit', 4096);
# PVE's own qemu-img has a dd that does not make the target, which others do not have.
is(qemu_img(qw(convert -n -f raw -O raw), $image, scalar $plugin->path($section, $cloud, $STORAGE)), 0, 'cloud-init');
$plugin->volume_snapshot($section, $STORAGE, $efi, 'monday');
my $copy = $plugin->alloc_image($STORAGE, $section, 102, 'raw', undef, 528);
is(qemu_img(qw(convert -n -f raw -O raw), scalar $plugin->path($section, $efi, $STORAGE, 'monday'), scalar $plugin->path($section, $copy, $STORAGE)),
    0, 'a full clone of a snapshot');
is(qemu_img(qw(compare -f raw -F raw), $image, scalar $plugin->path($section, $copy, $STORAGE)), 0, 'has what was in it');

# A snapshot under a guest, and QEMU on the snapshot as in a backup.
{
    my $qemu = pve9(100, $disk, {});
    wrote($qemu, 5, '0 1M');
    $plugin->volume_snapshot($section, $STORAGE, $disk, 'running');
    wrote($qemu, 6, '0 1M');
    my $frozen = pve9(103, $disk, { 'snapshot-name' => 'running', read_only => 1 });
    reads($frozen, 5, '0 1M', 'the snapshot has what was there');
    reads($qemu, 6, '0 1M', 'the guest goes on');
    # Live migration: the target has the volume open while the source writes.
    my $target = pve9(104, $disk, {}, '-incoming', 'defer');
    is(size($target), size($qemu), 'a second QEMU opens the volume');
    wrote($qemu, 7, '2M 1M');
    $qemu->crash();
    my $after = pve9(105, $disk, {});
    reads($after, 7, '2M 1M', 'and finds what the first wrote');
}
{
    # Both write, one after the other: at the end of a migration the target goes on where the source stopped.
    my ($source, $target) = (pve9(100, $disk, {}), pve9(104, $disk, {}));
    for my $round (1 .. 5) {
        wrote($source, 10 + $round, '0 4k');
        reads($target, 10 + $round, '0 4k', 'the target reads what the source wrote');
        wrote($target, 20 + $round, '0 4k');
        reads($source, 20 + $round, '0 4k', 'and the other way round');
    }
}
$plugin->volume_snapshot_rollback($section, $STORAGE, $disk, 'running');
reads(pve9(100, $disk, {}), 5, '0 1M', 'back at the snapshot');

# A template and its clone.
my $golden = $plugin->create_base($STORAGE, $section, $disk);
my $clone = $plugin->clone_image($section, $STORAGE, $golden, 200);
{
    my $qemu = pve9(200, $clone, {});
    reads($qemu, 5, '0 1M', 'a clone has what its template has');
    wrote($qemu, 9, '0 1M');
    reads(pve9(201, $golden, { read_only => 1 }), 5, '0 1M', 'which stays as it is');
}

# The gateway, or the daemon, dies under a guest.
{
    my $qemu = pve9(200, $clone, {});
    wrote($qemu, 30, '0 1M');
    $node->crash('storaged-nbd');
    $node->start_gateway();
    reads($qemu, 30, '0 1M', 'the guest goes on with another gateway');
    wrote($qemu, 31, '0 1M');
    $node->crash('storaged');
    ok(!eval { $plugin->check_connection($STORAGE, $section) }, 'a daemon that is gone is told of');
    is_deeply([$plugin->status($STORAGE, $section, {})], [], 'and the storage is inactive');
    $node->start_storaged();
    reads($qemu, 31, '0 1M', 'the guest goes on with the daemon that is back');
    is($plugin->check_connection($STORAGE, $section), 1, 'the storage is back');
}

# Growth under a guest.
{
    my $qemu = pve9(200, $clone, {});
    my $grow = sub { return $qemu->ask('block_resize', { 'node-name' => 'drive-scsi0', size => $_[0] }); };
    ok(!eval { $grow->(16 * 1024 * 1024); 1 }, 'QEMU takes no size that it has not seen');
    # A gateway that is started again ends the connections as well; so this is proved of any version.
    $node->api()->ask('POST', '/v1/volumes/ssd.vm-200-disk-0/resize', body => { size => 16 * 1024 * 1024 });
    $node->crash('storaged-nbd');
    $node->start_gateway();
    is(PVE::Storage::Custom::Storaged::Qmp::provoke_read($qemu->monitor(), 'ssd.vm-200-disk-0', 20), 1, 'its one node is found');
    is(PVE::Storage::Custom::Storaged::Qmp::provoke_read($qemu->monitor(), 'ssd.vm-200-disk', 20), 0, 'and no other');
    ok(eval { $grow->(16 * 1024 * 1024); 1 }, 'after a read over a new connection it does') or diag($@);
    wrote($qemu, 40, '15M 1M');
    reads($qemu, 40, '15M 1M', 'what was added can be used');
    $plugin->volume_resize($section, $STORAGE, $clone, 32 * 1024 * 1024, 1);
    ok(eval { $grow->(32 * 1024 * 1024); 1 }, 'QEMU has seen the size when PVE tells it') or diag($@);
    wrote($qemu, 41, '31M 1M');
    reads($qemu, 40, '15M 1M', 'what was there is there');
}

# A guest of an older machine, whose disk PVE gives by its path, in a -drive.
{
    my $qemu = pve8(102, $copy);
    wrote($qemu, 50, '0 64k');
    $node->crash('storaged-nbd');
    $node->start_gateway();
    reads($qemu, 50, '0 64k', 'it goes on with another gateway, too');
    $plugin->volume_resize($section, $STORAGE, $copy, 1024 * 1024, 1);
    my ($device) = @{ $qemu->ask('query-block') };
    ok(eval { $qemu->ask('block_resize', { 'node-name' => $device->{inserted}{'node-name'}, size => 1024 * 1024 }); 1 }, 'and grows')
        or diag($@);
    wrote($qemu, 51, '960k 64k');
}

# A disk that was moved under such a guest: QEMU has opened the path itself. Should its connection end, its requests fail for good.
{
    my $path = $plugin->path($section, $copy, $STORAGE);
    my $qemu = Storaged::Test::Qemu->start($folder, 102, '-device', 'virtio-scsi-pci,id=scsihw0');
    $qemu->ask('human-monitor-command', { 'command-line' => 'drive_add 0 if=none,id=moved,format=raw,file=' . $path =~ s/,/,,/r });
    my ($found) = PVE::Storage::Custom::Storaged::Qmp::nodes_of($qemu->monitor(), 'ssd.vm-102-disk-0', 20);
    like($found->{socket}, qr/,file[.]reconnect-delay=300\z/, 'it is known by its socket');
    ok(!eval { $plugin->volume_resize($section, $STORAGE, $copy, 2048 * 1024, 1); 1 }, 'it does not grow under its guest');
    like($@, qr/larger now, but the guest sees that after it was stopped and started: the disk was moved here/, 'which is said');
    like($qemu->ask('human-monitor-command', { 'command-line' => 'qemu-io moved "read 0 512"' }), qr/\A\s*\z/, 'and its connection is left alone');
    is(scalar $plugin->volume_size_info($section, $STORAGE, $copy), 2048 * 1024, 'the volume has grown');
}
ok(!eval { PVE::Storage::Custom::Storaged::Qmp::provoke_read("$folder/none.qmp", 'x', 1); 1 }, 'a guest without a monitor is told of');

done_testing();
