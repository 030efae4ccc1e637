# What PVE does with volumes, with a real storaged: to make, list, grow, clone, rename, free them, and to put notes on them.
use strict;
use warnings;
use Test::More;

use PVE::Storage::Custom::StoragedPlugin;
use Storaged::Test::Node qw($STORAGE);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();

sub alloc { my ($vmid, $name, $kib) = @_; return $plugin->alloc_image($STORAGE, $section, $vmid, 'raw', $name, $kib); }
sub volids { return [map { $_->{volid} } @{ $plugin->list_images($STORAGE, $section, $_[0], $_[1], {}) }]; }
sub size { my ($volume) = @_; return scalar $plugin->volume_size_info($section, $STORAGE, $volume, 5); }

sub fails {
    my ($what, $pattern, $work) = @_;
    ok(!eval { $work->(); 1 }, "$what is refused");
    like($@, qr/\Astorage 'fast': $pattern.*\n\z/, "$what is refused with a sentence that names the storage");
    return;
}

# The storage.
is($plugin->check_connection($STORAGE, $section), 1, 'it is online');
my $cache = {};
ok($plugin->activate_storage($STORAGE, $section, $cache), 'it is activated');
my @status = $plugin->status($STORAGE, $section, $cache);
is(scalar @status, 4, 'its state has four parts');
like($_, qr/\A[0-9]{1,18}\z/, 'a number that PVE takes') for @status;
is($status[0], $status[1] + $status[2], 'what is used and what is left are all');
cmp_ok($status[0], '>', 0, 'there is room');
is($status[3], 1, 'it is active');
fails('a pool that is not there', 'there is no pool "hdd"', sub {
    $plugin->activate_storage($STORAGE, $node->section('storaged-pool' => 'hdd'), {});
});
like($plugin->get_identity($section, $STORAGE), qr/\Astoraged:[0-9a-f]{32}:ssd:ssd\.\z/, 'which storage it is');
is($plugin->get_identity($section, 'other'), $plugin->get_identity($section, $STORAGE), 'whatever it is called');

# To make volumes.
is(alloc(100, undef, 4), 'vm-100-disk-0', 'the first disk');
is(alloc(100, undef, 528), 'vm-100-disk-1', 'the second one, of EFI variables');
is(alloc(1000, undef, 4), 'vm-1000-disk-0', 'that of a guest with a longer number');
is(alloc(100, 'vm-100-cloudinit', 4096), 'vm-100-cloudinit', 'one with a name');
is(alloc(100, 'vm-100-state-before_it', 1025), 'vm-100-state-before_it', 'the memory of a snapshot');
is(size('vm-100-disk-1'), 528 * 1024, 'a size that is a number of blocks stays');
is(size('vm-100-state-before_it'), 1028 * 1024, 'another is rounded up');
is_deeply([$plugin->volume_size_info($section, $STORAGE, 'vm-100-disk-0')]->[1], 'raw', 'its format');
fails('a name that is taken', 'there is a volume "ssd.vm-100-cloudinit" already', sub { alloc(100, 'vm-100-cloudinit', 4) });
fails('the name of another guest', "'vm-101-disk-0' is no name", sub { alloc(100, 'vm-101-disk-0', 4) });
fails("a template's name", "'base-100-disk-0' is no name", sub { alloc(100, 'base-100-disk-0', 4) });
fails('another format', 'volumes have the format raw', sub { $plugin->alloc_image($STORAGE, $section, 100, 'qcow2', undef, 4) });
fails('no size', 'the size is zero', sub { alloc(100, undef, 0) });
fails('a volume that is not there', 'there is no volume', sub { size('vm-999-disk-0') });
{
    # Somebody else takes the name between the look and the making.
    no warnings qw(redefine once);
    local *PVE::Storage::Custom::StoragedPlugin::find_free_diskname = sub { return 'vm-100-disk-0'; };
    is(alloc(100, undef, 4), 'vm-100-disk-2', 'a name that was taken meanwhile is passed over');
    $plugin->free_image($STORAGE, $section, 'vm-100-disk-2', undef, 'raw');
}

# To list them.
$node->api()->ask('POST', '/v1/volumes', body => { name => $_, size => 4096, pool => 'ssd' }) for 'golden', 'other.vm-100-disk-7';
$node->api()->ask('POST', '/v1/pools', body => { name => 'hdd', copies => 1, groups => 8 });
my $hdd = $node->section('storaged-pool' => 'hdd');
is($plugin->alloc_image('slow', $hdd, 100, 'raw', undef, 4), 'vm-100-disk-0', 'a disk of the same name in another pool');
is_deeply(volids(100), [map { "fast:vm-100-$_" } qw(cloudinit disk-0 disk-1 state-before_it)], 'the disks of a guest');
is_deeply(volids(undef), ['fast:vm-100-cloudinit', 'fast:vm-100-disk-0', 'fast:vm-100-disk-1', 'fast:vm-100-state-before_it',
    'fast:vm-1000-disk-0'], 'all disks, and no others');
is_deeply(volids(100, ['fast:vm-1000-disk-0', 'fast:vm-1-x']), ['fast:vm-1000-disk-0'], 'those that are asked for');
is_deeply($plugin->list_images('slow', $hdd, undef, undef, {})->[0]{volid}, 'slow:vm-100-disk-0', 'another pool has its own');
my $image = $plugin->list_images($STORAGE, $section, 100, ['fast:vm-100-disk-1'], {})->[0];
is_deeply([@$image{qw(format size vmid parent)}], ['raw', 528 * 1024, 100, undef], 'what is told of a disk');
cmp_ok(abs($image->{ctime} - time), '<', 600, 'its time is in seconds');
$cache = {};
$plugin->list_images($STORAGE, $section, undef, undef, $cache);
alloc(100, undef, 4);
is(scalar @{ $plugin->list_images($STORAGE, $section, 100, undef, $cache) }, 4, 'a list is asked for once in a request of PVE');
is(scalar @{ volids(100) }, 5, 'and anew in the next one');
is_deeply([map { $_->{content} } @{ $plugin->list_volumes($STORAGE, $section, 1000, ['images']) }], ['images'], 'inherited list');

# To grow them.
$plugin->volume_resize($section, $STORAGE, 'vm-100-disk-0', 1024 * 1024, 0);
is(size('vm-100-disk-0'), 1024 * 1024, 'a volume grows');
$plugin->volume_resize($section, $STORAGE, 'vm-100-disk-0', 1025 * 1024, 1);
is(size('vm-100-disk-0'), 1028 * 1024, 'to whole blocks, also if the guest has no monitor');
fails('a smaller size', 'volume "ssd.vm-100-disk-0" has', sub { $plugin->volume_resize($section, $STORAGE, 'vm-100-disk-0', 4096, 0) });
is(size('vm-100-disk-0'), 1028 * 1024, 'a volume does not shrink');
fails('growth of a snapshot', 'a snapshot keeps', sub { $plugin->volume_resize($section, $STORAGE, 'vm-100-disk-0', 2 ** 22, 0, 's') });

# Templates and their clones.
alloc(200, undef, 1024);
is($plugin->create_base($STORAGE, $section, 'vm-200-disk-0'), 'base-200-disk-0', 'a disk becomes a template');
is_deeply(volids(200), ['fast:base-200-disk-0'], 'and has another name');
fails('a template of a template', "'base-200-disk-0' is a template's disk already", sub { $plugin->create_base($STORAGE, $section, 'base-200-disk-0') });
fails('a template that grows', "'base-200-disk-0' is a template's", sub { $plugin->volume_resize($section, $STORAGE, 'base-200-disk-0', 2 ** 22, 0) });
fails('a snapshot of a template', "'base-200-disk-0' is a template's", sub { $plugin->volume_snapshot($section, $STORAGE, 'base-200-disk-0', 's1') });
my $clone = $plugin->clone_image($section, $STORAGE, 'base-200-disk-0', 300);
is($clone, 'base-200-disk-0/vm-300-disk-0', 'a linked clone has the name of its base');
is(size($clone), 1024 * 1024, 'and its size');
is_deeply(volids(300), ["fast:$clone"], 'it is listed as it was named');
is($plugin->list_images($STORAGE, $section, 300, undef, {})->[0]{parent}, 'base-200-disk-0', 'with its parent');
is(($plugin->volume_size_info($section, $STORAGE, $clone))[3], 'base-200-disk-0', 'which is told of it alone, too');
is($plugin->clone_image($section, $STORAGE, 'base-200-disk-0', 300), 'base-200-disk-0/vm-300-disk-1', 'another one');
fails('a clone of what is no template', "'vm-100-disk-0' is no template's disk", sub { $plugin->clone_image($section, $STORAGE, 'vm-100-disk-0', 300) });
fails('a base with clones', "'base-200-disk-0' has linked clones: ssd.vm-300-disk-0 ssd.vm-300-disk-1",
    sub { $plugin->free_image($STORAGE, $section, 'base-200-disk-0', 1, 'raw') });
is($plugin->create_base($STORAGE, $section, $clone), 'base-200-disk-0/base-300-disk-0', 'a clone becomes a template');
is($plugin->clone_image($section, $STORAGE, 'base-200-disk-0/base-300-disk-0', 301), 'base-300-disk-0/vm-301-disk-0', 'and is cloned');
{
    # A template whose making broke off has a snapshot of a state that may not be the last.
    alloc(210, undef, 4);
    $node->api()->ask('POST', '/v1/volumes/ssd.vm-210-disk-0/snapshots', body => { name => 'base.template' });
    my $first = $node->api()->ask('GET', '/v1/volumes/ssd.vm-210-disk-0/snapshots/base.template')->{id};
    is($plugin->create_base($STORAGE, $section, 'vm-210-disk-0'), 'base-210-disk-0', 'a template is made at the second attempt');
    isnt($node->api()->ask('GET', '/v1/volumes/ssd.base-210-disk-0/snapshots/base.template')->{id}, $first, 'of the last state');
}

# To rename them.
is($plugin->rename_volume($section, $STORAGE, 'vm-100-disk-1', 400), 'fast:vm-400-disk-0', 'a disk of another guest');
is($plugin->rename_volume($section, $STORAGE, 'vm-400-disk-0', 400, 'vm-400-disk-5'), 'fast:vm-400-disk-5', 'under that name');
is($plugin->rename_volume($section, $STORAGE, 'base-200-disk-0/vm-300-disk-1', 400), 'fast:base-200-disk-0/vm-400-disk-0',
    'a linked clone stays one');
is_deeply(volids(400), ['fast:base-200-disk-0/vm-400-disk-0', 'fast:vm-400-disk-5'], 'and is listed as one');
fails('a name that is taken', 'there is a volume', sub { $plugin->rename_volume($section, $STORAGE, 'vm-100-disk-0', 400, 'vm-400-disk-5') });
fails('its own name', "'vm-400-disk-5' exists already", sub { $plugin->rename_volume($section, $STORAGE, 'vm-400-disk-5', 400, 'vm-400-disk-5') });
fails('the name of another guest', "'vm-401-disk-5' is no name", sub { $plugin->rename_volume($section, $STORAGE, 'vm-400-disk-5', 400, 'vm-401-disk-5') });
fails("a template", "'base-200-disk-0' is a template's disk", sub { $plugin->rename_volume($section, $STORAGE, 'base-200-disk-0', 400) });

# Notes and protection.
{
    my @of = ($section, $STORAGE, 'vm-400-disk-5');
    is($plugin->get_volume_attribute(@of, 'notes'), undef, 'no notes');
    is($plugin->get_volume_attribute(@of, 'protected'), 0, 'no protection');
    $plugin->update_volume_attribute(@of, 'notes', "two\nlines, \x{fc}mlaut");
    $plugin->update_volume_attribute(@of, 'protected', 1);
    is($plugin->get_volume_attribute(@of, 'notes'), "two\nlines, \x{fc}mlaut", 'notes come back');
    is($plugin->get_volume_attribute(@of, 'protected'), 1, 'it is protected');
    fails('to free what is protected', "'vm-400-disk-5' is protected", sub { $plugin->free_image($STORAGE, $section, 'vm-400-disk-5', 0, 'raw') });
    $plugin->update_volume_attribute(@of, 'protected', 0);
    $plugin->update_volume_attribute(@of, 'notes', q{});
    is($plugin->get_volume_attribute(@of, 'protected'), 0, 'it is not any more');
    is($plugin->get_volume_attribute(@of, 'notes'), undef, 'notes are gone');
}
is($plugin->get_volume_attribute($section, $STORAGE, 'vm-400-disk-5', 'colour'), undef, 'an attribute that PVE does not have');
fails('an attribute that PVE does not have', "a volume has notes and protected",
    sub { $plugin->update_volume_attribute($section, $STORAGE, 'vm-400-disk-5', 'colour', 'red') });

# To free them.
is($plugin->free_image($STORAGE, $section, 'vm-400-disk-5', 0, 'raw'), undef, 'a volume goes at once');
fails('what is gone', 'there is no volume', sub { $plugin->free_image($STORAGE, $section, 'vm-400-disk-5', 0, 'raw') });
$plugin->volume_snapshot($section, $STORAGE, 'vm-100-disk-0', 'monday');
is($plugin->free_image($STORAGE, $section, 'vm-100-disk-0', 0, 'raw'), undef, 'a volume goes with its snapshots');
$plugin->free_image($STORAGE, $section, 'base-200-disk-0/vm-400-disk-0', 0, 'raw');
fails('a base with a clone that is a template', "'base-200-disk-0' has linked clones",
    sub { $plugin->free_image($STORAGE, $section, 'base-200-disk-0', 1, 'raw') });
$plugin->free_image($STORAGE, $section, $_, 1, 'raw')
    for 'base-300-disk-0/vm-301-disk-0', 'base-200-disk-0/base-300-disk-0', 'base-200-disk-0';
is_deeply([grep { m/-[23]0[01]-/ } @{ volids(undef) }], [], 'the last of a family goes, too');

# Many of them.
$node->api()->ask('POST', '/v1/volumes', body => { name => "ssd.vm-500-disk-$_", size => 4096, pool => 'ssd' }) for 0 .. 199;
is(scalar @{ volids(500) }, 200, 'all of many are listed');
is(alloc(500, undef, 4), 'vm-500-disk-200', 'and the next one is made');

done_testing();
