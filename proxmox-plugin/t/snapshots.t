# Snapshots as PVE asks for them, with a real storaged; those of a guest's disks are of one instant.
use strict;
use warnings;
use Test::More;

use PVE::Storage;
use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Nbd;
use PVE::Storage::Custom::Storaged::Together;
use Storaged::Test::Node qw($STORAGE);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();
my $config = $node->folder() . '/pve';
mkdir $_ or die "$_: $!\n" for $config, "$config/qemu-server", "$config/lxc";
local $PVE::Storage::Custom::Storaged::Together::CONFIG_FOLDER = $config;

sub client { return PVE::Storage::Custom::Storaged::Nbd->new($node->nbd_socket(), $_[0]); }

# The first bytes of an export.
sub first_bytes {
    my ($export) = @_;
    my $client = client($export);
    my $bytes = $client->read_at(0, 4);
    $client->finish();
    return $bytes;
}

sub put_bytes {
    my ($volume, $bytes) = @_;
    my $client = client($volume);
    $client->write_at(0, $bytes);
    $client->flush();
    $client->finish();
    return;
}

sub snapshots { my ($volume) = @_; return [sort keys %{ $plugin->volume_snapshot_info($section, $STORAGE, $volume) }]; }

sub fails {
    my ($what, $pattern, $work) = @_;
    ok(!eval { $work->(); 1 }, "$what is refused");
    like($@, qr/\Astorage 'fast': $pattern.*\n\z/, "$what is refused with a sentence");
    return;
}

my $disk = 'vm-100-disk-0';
my @of = ($section, $STORAGE, $disk);
$plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 1024);
put_bytes('ssd.vm-100-disk-0', 'one.');
$plugin->volume_snapshot(@of, 'first');
put_bytes('ssd.vm-100-disk-0', 'two.');
$plugin->volume_snapshot(@of, 'second');
$plugin->volume_resize($section, $STORAGE, $disk, 2048 * 1024, 0);
put_bytes('ssd.vm-100-disk-0', 'tri.');
$plugin->volume_snapshot(@of, $_) for 'Third-3_x', '__migration__', '__replicate_100-0_1700000000__', 'vzdump';
is_deeply(snapshots($disk), [sort qw(first second Third-3_x __migration__ __replicate_100-0_1700000000__ vzdump)], 'all are told of');
my $info = $plugin->volume_snapshot_info(@of);
like($info->{first}{id}, qr/\A[0-9]+\z/, 'each has a number');
isnt($info->{first}{id}, $info->{second}{id}, 'of its own');
cmp_ok(abs($info->{first}{timestamp} - time), '<', 600, 'and a time in seconds');
fails('a name that is taken', 'volume "ssd.vm-100-disk-0" has a snapshot "first" already', sub { $plugin->volume_snapshot(@of, 'first') });
is(first_bytes('ssd.vm-100-disk-0@first'), 'one.', 'a snapshot has what was there');

# Back to an old one, and then to a newer one.
my @blockers;
is($plugin->volume_rollback_is_possible(@of, 'first', \@blockers), 1, 'one can go back to any');
is_deeply(\@blockers, [], 'nothing is in the way');
fails('the way back to what is not there', 'volume "ssd.vm-100-disk-0" has no snapshot "never"', sub { $plugin->volume_rollback_is_possible(@of, 'never', \@blockers) });
$plugin->volume_snapshot_rollback(@of, 'first');
is(first_bytes('ssd.vm-100-disk-0'), 'one.', 'the old data is back');
is(scalar $plugin->volume_size_info(@of), 1024 * 1024, 'with the old size');
is(scalar @{ snapshots($disk) }, 6, 'newer snapshots stay');
$plugin->volume_snapshot_rollback(@of, 'Third-3_x');
is(first_bytes('ssd.vm-100-disk-0'), 'tri.', 'a newer state is back');
is(scalar $plugin->volume_size_info(@of), 2048 * 1024, 'with its size');
{
    my $client = client('ssd.vm-100-disk-0');
    no warnings 'once';
    local $PVE::Storage::Custom::Storaged::Api::CLOSING_PATIENCE = 0.3;
    fails('the way back under a guest', 'volume "ssd.vm-100-disk-0" is open', sub { $plugin->volume_snapshot_rollback(@of, 'first') });
    fails('to free what is in use', 'volume "ssd.vm-100-disk-0" is open', sub { $plugin->free_image($STORAGE, $section, $disk, 0, 'raw') });
    $plugin->volume_snapshot(@of, 'while_open');
    $client->finish();
}
is(scalar @{ snapshots($disk) }, 7, 'a snapshot of what is open');

# To delete any.
$plugin->volume_snapshot_delete(@of, 'second', 0);
is(first_bytes('ssd.vm-100-disk-0@first'), 'one.', 'the older one is as it was');
is(first_bytes('ssd.vm-100-disk-0@Third-3_x'), 'tri.', 'and the newer one');
fails('what is gone', 'volume "ssd.vm-100-disk-0" has no snapshot "second"', sub { $plugin->volume_snapshot_delete(@of, 'second', 0) });
$plugin->volume_snapshot_delete(@of, $_, 1) for '__migration__', '__replicate_100-0_1700000000__';
is_deeply(snapshots($disk), [sort qw(first Third-3_x vzdump while_open)], 'PVE deletes its own');
$node->api()->ask('POST', '/v1/volumes/ssd.vm-100-disk-0/snapshots', body => { name => 'by.hand' });
ok(!(grep { m/hand/ } @{ snapshots($disk) }), 'what is no snapshot of PVE is not told of');

# Clones of them.
is($plugin->clone_image($section, $STORAGE, $disk, 110, 'first'), 'vm-110-disk-0', 'a clone of a snapshot is a volume by itself');
is(first_bytes('ssd.vm-110-disk-0'), 'one.', 'and has its data');
is($plugin->list_images($STORAGE, $section, 110, undef, {})->[0]{volid}, 'fast:vm-110-disk-0', 'it is listed so');
$plugin->volume_snapshot_delete(@of, 'first', 0);
is(first_bytes('ssd.vm-110-disk-0'), 'one.', 'it outlives the snapshot');
$plugin->rename_volume($section, $STORAGE, $disk, 111);
is_deeply(snapshots('vm-111-disk-0'), [sort qw(Third-3_x vzdump while_open)], 'a volume of another name has its snapshots');
is($plugin->rename_volume($section, $STORAGE, 'vm-111-disk-0', 100, $disk), "fast:$disk", 'and its old name again');
put_bytes('ssd.vm-110-disk-0', 'tpl.');
is($plugin->create_base($STORAGE, $section, 'vm-110-disk-0'), 'base-110-disk-0', 'a template');
is(first_bytes('ssd.base-110-disk-0@base.template'), 'tpl.', 'has what was written last');
is($plugin->clone_image($section, $STORAGE, 'base-110-disk-0', 120), 'base-110-disk-0/vm-120-disk-0', 'a linked clone');
put_bytes('ssd.vm-120-disk-0', 'mine');
is(first_bytes('ssd.base-110-disk-0@base.template'), 'tpl.', 'does not change its template');
ok(!client('ssd.vm-120-disk-0')->is_read_only(), 'a clone may be written');
my $frozen = client('ssd.base-110-disk-0@base.template');
ok($frozen->is_read_only(), 'a template may not');
ok(!eval { $frozen->write_at(0, 'bad.'); 1 }, 'and is not');
$frozen->finish();

# All disks of a guest together.
sub config {
    my ($path, $text) = @_;
    open my $file, '>', "$config/$path" or die "$path: $!\n";
    print {$file} $text;
    close $file or die "$path: $!\n";
    return;
}
my $also = $node->section('storaged-prefix' => 'also.');
local %PVE::Storage::SECTIONS = (
    $STORAGE => $section, also => $also, away => $node->section('storaged-socket' => '/nowhere/admin.sock'), local => { type => 'dir' },
);
$plugin->alloc_image($STORAGE, $section, 130, 'raw', undef, 1024) for 0 .. 3;
$plugin->alloc_image($STORAGE, $section, 130, 'raw', $_, 1024) for 'vm-130-cloudinit', 'vm-130-state-x';
$plugin->alloc_image('also', $also, 130, 'raw', undef, 1024);
my $text = <<'END';
scsi0: fast:vm-130-disk-0,iothread=1,size=1M
ide2: fast:vm-130-cloudinit,media=cdrom

[old]
scsi0: fast:vm-130-disk-0
snaptime: 1700000000

[both]
#a note
boot: order=scsi0
efidisk0: fast:vm-130-disk-1,efitype=4m,size=528K
ide2: fast:vm-130-cloudinit,media=cdrom
sata1: file=local:130/vm-130-disk-0.raw,size=1M
sata2: away:vm-130-disk-0,size=1M
scsi0: fast:vm-130-disk-0,iothread=1,size=1M
scsi1: also:vm-130-disk-0,size=1M
snapstate: prepare
tpmstate0: fast:vm-130-disk-2,version=v2.0
unused0: fast:vm-130-disk-3
virtio0: none,media=cdrom
vmstate: fast:vm-130-state-x

[later]
scsi0: fast:vm-130-disk-3
snapstate: prepare
END
config('qemu-server/130.conf', $text);
is_deeply([sort(PVE::Storage::Custom::Storaged::Together::prepared_disks(130, 'both'))],
    [sort qw(fast:vm-130-disk-1 local:130/vm-130-disk-0.raw away:vm-130-disk-0 fast:vm-130-disk-0 also:vm-130-disk-0 fast:vm-130-disk-2)],
    'the disks that a snapshot is to have are read');
is_deeply([PVE::Storage::Custom::Storaged::Together::prepared_disks(130, 'old')], [], 'not those of one that is made');
is_deeply([PVE::Storage::Custom::Storaged::Together::prepared_disks(130, 'bot')], [], 'nor of a name that is part of another');

sub with_snapshot {
    my ($name) = @_;
    my $all = $node->api()->ask('GET', '/v1/snapshots')->{snapshots};
    return [sort map { $_->{volume} } grep { $_->{name} eq $name } @$all];
}
my @together = sort qw(ssd.vm-130-disk-0 ssd.vm-130-disk-1 ssd.vm-130-disk-2 also.vm-130-disk-0);
$plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-1', 'both');
is_deeply(with_snapshot('both'), \@together, 'with the first disk all are frozen');
my %at = map { $_->{created_ms} => 1 } grep { $_->{name} eq 'both' } @{ $node->api()->ask('GET', '/v1/snapshots')->{snapshots} };
is(scalar keys %at, 1, 'at one instant');
ok(eval { $plugin->volume_snapshot($section, $STORAGE, "vm-130-disk-$_", 'both'); 1 }, "PVE finds that of disk $_ made") for 0, 2;
ok(eval { $plugin->volume_snapshot($also, 'also', 'vm-130-disk-0', 'both'); 1 }, 'also that of another storage');
fails('the same once more', 'volume "ssd.vm-130-disk-0" has a snapshot "both" already', sub { $plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-0', 'both') });

# Deleted one after the other, as they were asked for.
$plugin->volume_snapshot_delete($section, $STORAGE, 'vm-130-disk-0', 'both', 0);
is_deeply(with_snapshot('both'), [grep { $_ ne 'ssd.vm-130-disk-0' } @together], 'only what PVE deletes goes');
$plugin->volume_snapshot_delete($section, $STORAGE, "vm-130-disk-$_", 'both', 0) for 1, 2;
$plugin->volume_snapshot_delete($also, 'also', 'vm-130-disk-0', 'both', 0);

# PVE gives up after the second disk: what it did not come to goes as well.
$plugin->volume_snapshot($section, $STORAGE, "vm-130-disk-$_", 'both') for 1, 0;
$plugin->volume_snapshot_delete($section, $STORAGE, "vm-130-disk-$_", 'both', 1) for 1, 0;
is_deeply(with_snapshot('both'), [], 'nothing is left of a snapshot that was given up');

# A child of the process has made nothing itself.
$plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-1', 'both');
my $pid = fork // die "fork: $!\n";
if (!$pid) {
    my $found = PVE::Storage::Custom::Storaged::Together::claim($section->{'storaged-socket'}, 130, 'both', 'ssd.vm-130-disk-0');
    POSIX::_exit($found ? 1 : 0);
}
waitpid $pid, 0;
is($?, 0, 'a process does not take what another has made for its own');
$plugin->volume_snapshot_delete($section, $STORAGE, 'vm-130-disk-1', 'both', 1);
is_deeply(with_snapshot('both'), [], 'cleaned up');

# A disk that cannot be frozen: none is.
$node->api()->ask('POST', '/v1/volumes/ssd.vm-130-disk-2/snapshots', body => { name => 'both' });
fails('a group with one that has it already', 'volume "ssd.vm-130-disk-2" has a snapshot "both" already',
    sub { $plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-0', 'both') });
is_deeply(with_snapshot('both'), ['ssd.vm-130-disk-2'], 'all are frozen or none');

# Without a configuration, and of a container.
$plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-0', 'alone');
is_deeply(with_snapshot('alone'), ['ssd.vm-130-disk-0'], 'without a section of that name just the one');
$plugin->volume_snapshot($section, $STORAGE, 'vm-130-disk-0', 'later');
is_deeply(with_snapshot('later'), ['ssd.vm-130-disk-0'], 'nor with one that does not have it');
$plugin->alloc_image($STORAGE, $section, 140, 'raw', undef, 1024) for 0 .. 3;
my $container = "rootfs: fast:vm-140-disk-0,size=1M\n";
for my $name (qw(vzdump daily)) {
    $container .= "[$name]\nmp0: fast:vm-140-disk-1,mp=/data,backup=1,size=1M\nmp1: /srv,mp=/srv\nmp2: fast:vm-140-disk-2,mp=/a\n"
        . "mp3: fast:vm-140-disk-3,mp=/b,backup=0\nrootfs: volume=fast:vm-140-disk-0,size=1M\nsnapstate: prepare\n\n";
}
config('lxc/140.conf', $container);
$plugin->volume_snapshot($section, $STORAGE, 'vm-140-disk-0', 'daily');
is_deeply(with_snapshot('daily'), [map { "ssd.vm-140-disk-$_" } 0 .. 3], 'those of a container');
$plugin->volume_snapshot($section, $STORAGE, 'vm-140-disk-0', 'vzdump');
is_deeply([grep { m/-140-/ } @{ with_snapshot('vzdump') }], [qw(ssd.vm-140-disk-0 ssd.vm-140-disk-1)],
    'for a backup those that are backed up: PVE deletes no others');

done_testing();
