# What PVE is told about the type, its options and its paths, without any daemon: all of it must be there when there is none.
use strict;
use warnings;
use Test::More;
use File::Temp qw(tempdir);
use JSON;
use Scalar::Util qw(tainted);

use PVE::Storage;
use PVE::Storage::Custom::StoragedPlugin;

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $section = {
    type => 'storaged', 'storaged-pool' => 'ssd', 'storaged-socket' => '/nowhere/admin.sock',
    'storaged-nbd-socket' => '/run/storaged-pve/nbd.sock',
};

for ([9, 9], [11, 11], [15, 15], [16, 15], [21, 15]) {
    my ($theirs, $ours) = @$_;
    local $PVE::Storage::API_VERSION = $theirs;
    is($plugin->api(), $ours, "for a PVE of API $theirs it is of API $ours");
}
is($plugin->type(), 'storaged', 'the type');
isa_ok($plugin, 'PVE::Storage::Plugin');
is(scalar(grep { $_ eq 'storaged' } @PVE::Storage::Plugin::SHARED_STORAGE), 1, 'PVE knows the type as shared, once');

# Every method that the notes on PVE's storage API name is ours, unless it is meant to be inherited.
for my $method (qw(
    api type plugindata properties options on_add_hook on_update_hook on_update_hook_full on_delete_hook get_identity
    check_connection activate_storage deactivate_storage status parse_volname list_images path filesystem_path
    volume_size_info volume_has_feature get_volume_attribute update_volume_attribute alloc_image free_image create_base
    clone_image rename_volume volume_resize volume_import volume_export volume_export_formats volume_import_formats
    storage_can_replicate volume_snapshot volume_rollback_is_possible volume_snapshot_rollback volume_snapshot_delete
    volume_snapshot_info rename_snapshot volume_qemu_snapshot_method activate_volume deactivate_volume map_volume
    unmap_volume qemu_blockdev_options
)) {
    my $code = $plugin->can($method);
    ok($code && $code != (PVE::Storage::Plugin->can($method) // 0), "$method is there");
}

my $data = $plugin->plugindata();
is_deeply($data->{content}, [{ images => 1, rootdir => 1, none => 1 }, { images => 1 }], 'what it holds');
is_deeply($data->{format}, [{ raw => 1 }, 'raw'], 'its format');
is_deeply($data->{'sensitive-properties'}, { 'storaged-token' => 1 }, 'what never comes into storage.cfg');
my ($properties, $options) = ($plugin->properties(), $plugin->options());
for my $name (sort keys %$properties) {
    like($name, qr/\Astoraged-/, "$name clashes with nobody's property");
    ok($properties->{$name}{type} && $properties->{$name}{description}, "$name has a type and a description");
    ok($options->{$name}, "$name is an option");
}
ok(!exists $properties->{$_}, "$_ is PVE's own property") for qw(nodes shared disable content bwlimit);
is_deeply($options->{$_}, { optional => 1 }, "$_ may be given") for qw(nodes shared disable content bwlimit);
is_deeply($options->{'storaged-pool'}, { fixed => 1 }, 'the pool must be given, and stays');
like('ssd-2', qr/\A$properties->{'storaged-pool'}{pattern}\z/, 'a name is taken');
unlike('a/b', qr/\A$properties->{'storaged-pool'}{pattern}\z/, 'a path is not');

is_deeply([$plugin->parse_volname('base-100-disk-0/vm-200-disk-0')],
    ['images', 'vm-200-disk-0', '200', 'base-100-disk-0', '100', undef, 'raw'], 'a name is read without a daemon');
is((($plugin->parse_volname('base-100-disk-0'))[5]), 1, 'a template is one');

my $socket = '?socket=/run/storaged-pve/nbd.sock,file.reconnect-delay=300';
my $path = "nbd+unix:///ssd.vm-100-disk-0$socket";
my $path_of_snapshot = "nbd+unix:///ssd.vm-100-disk-0\@monday$socket";
is_deeply([$plugin->path($section, 'vm-100-disk-0', 'fast')], [$path, '100', 'images'], 'a path, its owner and kind');
is(scalar $plugin->path($section, 'vm-100-disk-0', 'fast'), $path, 'the path alone');
is(scalar $plugin->path($section, 'vm-100-disk-0', 'fast', 'monday'), $path_of_snapshot, 'the path of a snapshot');
is(scalar $plugin->filesystem_path($section, 'vm-100-disk-0', 'monday'), $path_of_snapshot, 'without the name of the storage');
is(scalar $plugin->path({ %$section, 'storaged-nbd-socket' => undef }, 'vm-100-disk-0', 'fast'), $path, 'the default socket');
ok(!eval { $plugin->path($section, 'golden', 'fast') }, 'what is no volume has no path');

my $blockdev = $plugin->qemu_blockdev_options($section, 'fast', 'vm-100-disk-0', '10.1+pve0', {});
is(JSON->new->canonical->encode($blockdev),
    '{"driver":"nbd","export":"ssd.vm-100-disk-0","reconnect-delay":300,'
        . '"server":{"path":"/run/storaged-pve/nbd.sock","type":"unix"}}',
    'what QEMU is told, with numbers as numbers and texts as texts');
is($plugin->qemu_blockdev_options($section, 'fast', 'vm-100-disk-0', '10.1', { 'snapshot-name' => 's1' })->{export},
    'ssd.vm-100-disk-0@s1', 'the same of a snapshot');
is($plugin->qemu_blockdev_options($section, 'fast', 'base-100-disk-0', '10.1')->{export},
    'ssd.base-100-disk-0@base.template', 'a template is read as it was frozen');

my %expected = (
    snapshot => [1, undef, 1], clone => [undef, 1, 1], copy => [1, 1, 1], template => [1, undef, undef],
    sparseinit => [1, 1, undef], rename => [1, undef, undef], replicate => [undef, undef, undef], dance => [undef, undef, undef],
);
for my $feature (sort keys %expected) {
    is_deeply([
        scalar $plugin->volume_has_feature($section, $feature, 'fast', 'vm-100-disk-0', undef, 1),
        scalar $plugin->volume_has_feature($section, $feature, 'fast', 'base-100-disk-0', undef, 0),
        scalar $plugin->volume_has_feature($section, $feature, 'fast', 'vm-100-disk-0', 'monday', 0),
    ], $expected{$feature}, "$feature of a disk, a template and a snapshot");
}
is($plugin->storage_can_replicate($section, 'fast', 'raw'), 0, 'PVE does not replicate it');
is($plugin->volume_qemu_snapshot_method('fast', $section, 'vm-100-disk-0'), 'storage', 'storaged makes the snapshots');
ok(!eval { $plugin->rename_snapshot($section, 'fast', 'vm-100-disk-0', 'a', 'b') }, 'snapshots keep their names');
like($@, qr/\Astorage 'fast': .*\n\z/, 'which is said in a sentence');

# Tokens.
{
    my $folder = tempdir('storaged-pve-XXXXXXXX', DIR => '/var/tmp', CLEANUP => 1);
    local $PVE::Storage::Custom::Storaged::Api::TOKEN_FOLDER = "$folder/storage";
    my $file = "$folder/storage/fast.storaged.token";
    my $content = sub { open my $handle, '<', $file or return; my $line = <$handle>; close $handle; return $line; };
    $plugin->on_add_hook('fast', $section, 'storaged-token' => 'sesame');
    is($content->(), "sesame\n", 'a token is kept');
    is(sprintf('%o', (stat $file)[2] & oct 7777), '600', 'for root only');
    $plugin->on_update_hook('fast', $section);
    is($content->(), "sesame\n", 'an update without it leaves it');
    $plugin->on_update_hook('fast', $section, 'storaged-token' => 'open');
    is($content->(), "open\n", 'an update changes it (before API 13)');
    $plugin->on_update_hook_full('fast', $section, {}, undef, {});
    is($content->(), "open\n", 'an update without it leaves it');
    $plugin->on_update_hook_full('fast', $section, {}, undef, { 'storaged-token' => 'sesame' });
    is($content->(), "sesame\n", 'an update changes it');
    $plugin->on_update_hook_full('fast', $section, {}, undef, { 'storaged-token' => undef });
    ok(!-e $file, 'an update removes it');
    ok(!eval { $plugin->on_update_hook_full('fast', $section, {}, undef, { 'storaged-token' => "secret\nx" }); 1 },
        'what is no token is refused');
    unlike($@, qr/secret/, 'and not shown');
    $plugin->on_add_hook('fast', $section, 'storaged-token' => 'sesame');
    $plugin->on_delete_hook('fast', $section);
    ok(!-e $file, 'a deleted storage has none');
    ok(eval { $plugin->on_delete_hook('fast', $section); 1 }, 'nor had it one before');
}

# What comes from a command line is tainted in PVE's programs: what is written, and where, was checked before.
{
    my $folder = tempdir('storaged-pve-XXXXXXXX', DIR => '/var/tmp', CLEANUP => 1);
    local $PVE::Storage::Custom::Storaged::Api::TOKEN_FOLDER = "$folder/storage";
    my $write = \&PVE::Tools::file_set_contents;
    my @unchecked;
    no warnings 'redefine';
    local *PVE::Tools::file_set_contents = sub { push @unchecked, grep { tainted($_) } @_; return $write->(@_); };
    my $nothing = substr $^X, 0, 0;
    is(tainted("x$nothing") ? 1 : 0, ${^TAINT} ? 1 : 0, 'in taint mode this is from outside');
    ok(eval { $plugin->on_add_hook("fast$nothing", $section, 'storaged-token' => "sesame$nothing"); 1 }, 'a token from outside is kept') or diag($@);
    ok(-e "$folder/storage/fast.storaged.token", 'in its file');
    is_deeply(\@unchecked, [], 'after it was checked');
    ok(eval { $plugin->on_delete_hook("fast$nothing", $section); 1 }, 'and removed') or diag($@);
    ok(!-e "$folder/storage/fast.storaged.token", 'with the storage');
}

# Storages that would take each other's volumes for theirs.
{
    local %PVE::Storage::SECTIONS = (fast => { %$section, type => 'storaged' }, local => { type => 'dir' });
    ok(!eval { $plugin->on_add_hook('again', $section); 1 }, 'two storages of one prefix are refused');
    like($@, qr/'fast' has the prefix 'ssd\.' already.*\n\z/, 'with the name of the other');
    ok(eval { $plugin->on_add_hook('again', { %$section, 'storaged-prefix' => 'lab.' }); 1 }, 'another prefix is taken');
    ok(eval { $plugin->on_add_hook('again', { %$section, 'storaged-socket' => '/other/admin.sock' }); 1 }, 'or another daemon');
    ok(!eval { $plugin->on_add_hook('again', { %$section, 'storaged-prefix' => 'vm-100-' }); 1 }, 'a bad prefix is refused');
}

done_testing();
