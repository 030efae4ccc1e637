# The plugin inside Proxmox VE's real PVE::Storage, whose sources the developer has: see t/real-pve.
use strict;
use warnings;
use Test::More;
use IO::Handle;

use PVE::Cluster;
use PVE::Storage;
use Storaged::Test::Node qw(new_folder);

my $node = Storaged::Test::Node->start();
my $folder = $node->folder();
$PVE::Cluster::FOLDER = $folder;
my @warnings;
local $SIG{__WARN__} = sub { push @warnings, @_; };
diag('storage API ', PVE::Storage->APIVER());

# The configuration is read, and written as it was.
open my $file, '>', "$folder/storage.cfg" or die "$!\n";
print {$file} "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\nstoraged: fast\n\tstoraged-pool ssd\n\tcontent rootdir,images\n"
    . "\tstoraged-socket " . $node->admin_socket() . "\n\tstoraged-nbd-socket " . $node->nbd_socket() . "\n\tstoraged-status-timeout 2\n\n";
close $file or die "$!\n";
my $config = PVE::Storage::config();
is($config->{ids}{fast}{type}, 'storaged', 'the section is known');
ok($config->{ids}{fast}{shared}, 'and shared');
PVE::Cluster::cfs_write_file('storage.cfg', $config);
my $again = PVE::Storage::config();
is_deeply($again->{ids}{fast}, $config->{ids}{fast}, 'it survives being written');
my $plugin = PVE::Storage::Plugin->lookup('storaged');
is(ref $plugin->check_config('x', { 'storaged-pool' => 'p', content => 'images' }, 1, 1), 'HASH', 'options are taken');
ok(!eval { $plugin->check_config('x', { content => 'images' }, 1, 1) }, 'a pool must be given');
ok(!eval { $plugin->check_config('x', { 'storaged-pool' => 'p', 'storaged-x' => 1 }, 1, 1) }, 'an option that is none');
ok(PVE::Storage::Plugin->createSchema()->{properties}{'storaged-token'}, 'properties clash with nobody');
is_deeply(\@warnings, [], 'nothing was warned of') or diag("@warnings");

my $info = PVE::Storage::storage_info($config)->{fast};
ok($info->{active}, 'it is active');
is($info->{total}, $info->{avail} + $info->{used}, 'and tells how full it is');

# A disk's life.
my $disk = PVE::Storage::vdisk_alloc($config, 'fast', 100, 'raw', undef, 528);
is($disk, 'fast:vm-100-disk-0', 'a disk is made');
my $cloud = PVE::Storage::vdisk_alloc($config, 'fast', 100, 'raw', 'vm-100-cloudinit', 4096);
is($cloud, 'fast:vm-100-cloudinit', 'one with a name');
PVE::Storage::activate_volumes($config, [$disk, $cloud]);
is(PVE::Storage::volume_size_info($config, $disk, 5), 528 * 1024, 'its size');
like(PVE::Storage::path($config, $disk), qr{\Anbd[+]unix:///ssd\.vm-100-disk-0[?]socket=/}, 'its path');
is(scalar @{ PVE::Storage::vdisk_list($config, 'fast', 100)->{fast} }, 2, 'both are listed');
is_deeply([map { $_->{content} } @{ PVE::Storage::volume_list($config, 'fast') }], ['images', 'images'], 'as content');
ok(PVE::Storage::volume_has_feature($config, $_, $disk, undef, 1), "it has $_") for qw(snapshot copy template rename sparseinit);
SKIP: {
    skip 'this PVE has no blockdev', 2 unless PVE::Storage->can('qemu_blockdev_options');
    my $blockdev = PVE::Storage::qemu_blockdev_options($config, $disk, 'pc-q35-10.0', {});
    is_deeply([@$blockdev{qw(driver export reconnect-delay)}], ['nbd', 'ssd.vm-100-disk-0', 300], 'PVE lets all of it through');
    is(PVE::Storage::volume_qemu_snapshot_method($config, $disk), 'storage', 'who makes snapshots');
}
PVE::Storage::volume_snapshot($config, $disk, 'monday');
ok(PVE::Storage::volume_snapshot_info($config, $disk)->{monday}, 'a snapshot');
ok(PVE::Storage::volume_rollback_is_possible($config, $disk, 'monday', []), 'one can go back');
ok(eval { PVE::Storage::volume_snapshot_rollback($config, $disk, 'monday'); 1 }, 'and does') or diag($@);
my $copy = PVE::Storage::vdisk_clone($config, $disk, 300, 'monday');
is($copy, 'fast:vm-300-disk-0', 'a clone of it');
ok(eval { PVE::Storage::volume_snapshot_delete($config, $disk, 'monday', 0); 1 }, 'it is deleted') or diag($@);
PVE::Storage::volume_resize($config, $disk, 1024 * 1024, 0);
is(PVE::Storage::volume_size_info($config, $disk, 5), 1024 * 1024, 'a disk grows');
my $base = PVE::Storage::vdisk_create_base($config, $copy);
is($base, 'fast:base-300-disk-0', 'a template');
my $clone = PVE::Storage::vdisk_clone($config, $base, 301);
is($clone, 'fast:base-300-disk-0/vm-301-disk-0', 'its clone');
ok(!eval { PVE::Storage::vdisk_free($config, $base); 1 } && $@ =~ m/in use by linked clones/, 'PVE sees that it is needed');
$clone = PVE::Storage::rename_volume($config, $clone, 302);
is($clone, 'fast:base-300-disk-0/vm-302-disk-0', 'a clone of another guest');
PVE::Storage::update_volume_attribute($config, $clone, 'notes', 'hello');
is(PVE::Storage::get_volume_attribute($config, $clone, 'notes'), 'hello', 'notes');

# Streams.
is_deeply([PVE::Storage::volume_transfer_formats($config, $disk, 'fast:vm-100-disk-0', undef, undef, 0)], ['raw+size'], 'how it is sent');
open my $out, '>', "$folder/stream" or die "$!\n";
PVE::Storage::volume_export($config, $out, $disk, 'raw+size', undef, undef, 0);
close $out or die "$!\n";
is(-s "$folder/stream", 1024 * 1024 + 8, 'it is sent');
open my $in, '<', "$folder/stream" or die "$!\n";
my $imported = PVE::Storage::volume_import($config, $in, 'fast:vm-100-disk-0', 'raw+size', undef, undef, 0, 1);
is($imported, 'fast:vm-100-disk-1', 'and taken under another name');

PVE::Storage::deactivate_volumes($config, [$disk, $cloud]);
PVE::Storage::vdisk_free($config, $_) for $clone, $base, $disk, $cloud, $imported;
is_deeply(PVE::Storage::vdisk_list($config, 'fast')->{fast}, [], 'all are freed');

# The daemon hangs, and dies.
@warnings = ();
$node->freeze('storaged');
ok(!PVE::Storage::storage_info($config)->{fast}{active}, 'with a daemon that hangs it is inactive');
$node->thaw('storaged');
$node->crash('storaged');
ok(!PVE::Storage::storage_info($config)->{fast}{active}, 'and with one that is dead');
like("@warnings", qr/storage 'fast': storaged gave no answer.*storage 'fast': storaged does not answer/s, 'PVE says why');

done_testing();
