# Names of PVE become names of storaged and come back; what is no name is refused.
use strict;
use warnings;
use Test::More;

use PVE::Storage::Custom::Storaged::Names qw(
    $BASE_SNAPSHOT parse_name is_guest_disk prefix_of volume_of snapshot_of snapshot_name export_of listed_name
    children_of check_prefix
);
use PVE::Storage::Custom::Storaged::Plain qw(plain);

my $section = { 'storaged-pool' => 'ssd' };

my @parsed = (
    ['vm-100-disk-0', 'vm-100-disk-0', 100, undef, undef, undef],
    ['base-100-disk-0', 'base-100-disk-0', 100, undef, undef, 1],
    ['base-100-disk-0/vm-200-disk-3', 'vm-200-disk-3', 200, 'base-100-disk-0', 100, undef],
    ['base-100-disk-0/base-200-disk-0', 'base-200-disk-0', 200, 'base-100-disk-0', 100, 1],
    ['vm-100-cloudinit', 'vm-100-cloudinit', 100, undef, undef, undef],
    ['vm-100-state-before_it', 'vm-100-state-before_it', 100, undef, undef, undef],
    ['vm-100-state-suspend-2026-11-28', 'vm-100-state-suspend-2026-11-28', 100, undef, undef, undef],
    ['vm-100-fleece-0', 'vm-100-fleece-0', 100, undef, undef, undef],
    ['vm-9999-pvc-8f6e.x_y', 'vm-9999-pvc-8f6e.x_y', 9999, undef, undef, undef],
);
is_deeply([parse_name($_->[0])], [@$_[1 .. 5]], "$_->[0] is read") for @parsed;

for my $wrong (
    'disk', 'vm-disk-0', 'vm-1-disk-0', 'vm-0100-disk-0', 'vm-100', 'vm-100-', 'vm-100-disk 0', 'vm-100-disk/0',
    'vm-100-disk-0/vm-200-disk-0', 'base-100-disk-0/vm-200-disk-0/x', '../vm-100-disk-0', "vm-100-disk-0\n", q{}, undef,
    'vm-100-disk-0@x', 'vm-1234567890-disk-0', 'BASE-100-disk-0',
) {
    my $shown = defined $wrong ? $wrong =~ s/\n/\\n/r : 'nothing';
    ok(!eval { parse_name($wrong); 1 }, "'$shown' is refused");
    like($@, qr/is not the name of a storaged volume.*\n\z/, "'$shown' is refused with a sentence");
}

ok(is_guest_disk('vm-100-disk-0', 100), 'a disk of the guest');
ok(!is_guest_disk('vm-100-disk-0', 10), 'no disk of another guest');
ok(!is_guest_disk('vm-1000-disk-0', 100), 'no disk of a guest with a longer number');

is(prefix_of($section), 'ssd.', 'the prefix is the name of the pool and a dot');
is(prefix_of({ %$section, 'storaged-prefix' => 'lab-' }), 'lab-', 'or what the section says');
is(volume_of($section, 'base-100-disk-0/vm-200-disk-0'), 'ssd.vm-200-disk-0', 'the base is no part of the name in storaged');
ok(!eval { volume_of($section, 'vm-100-' . 'x' x 130) }, 'a name that is too long there is refused');

is(snapshot_of('before-update_1'), 'before-update_1', 'a snapshot has the same name');
is(snapshot_of('__migration__'), 'pve.__migration__', 'an internal one has a name that storaged takes');
for my $name ('monday', 'vzdump', '__replicate_100-0_1700000000__', '__migration__') {
    is(snapshot_name(snapshot_of($name)), $name, "the snapshot $name comes back");
}
is(snapshot_name($_), undef, "the snapshot '$_' is not PVE's") for $BASE_SNAPSHOT, 'pve.monday', 'a.b', '2026', 'x y';
ok(!eval { snapshot_of($_) }, "'$_' is no snapshot of PVE") for 'a.b', $BASE_SNAPSHOT, '2026', 'a@b', '../x', q{};

is(export_of($section, 'vm-100-disk-0'), 'ssd.vm-100-disk-0', 'a disk is the export of its name');
is(export_of($section, 'vm-100-disk-0', 'monday'), 'ssd.vm-100-disk-0@monday', 'a snapshot has one, too');
is(export_of($section, 'base-100-disk-0'), "ssd.base-100-disk-0\@$BASE_SNAPSHOT", 'a template is its frozen state');
is(export_of($section, 'base-100-disk-0/vm-200-disk-0'), 'ssd.vm-200-disk-0', 'a clone is no frozen state');

my $clone = { name => 'ssd.vm-200-disk-0', origin => { volume => 'ssd.base-100-disk-0', snapshot => $BASE_SNAPSHOT } };
is(scalar listed_name('ssd.', $clone), 'base-100-disk-0/vm-200-disk-0', 'a linked clone is listed with its base');
is((listed_name('ssd.', $clone))[1], 'base-100-disk-0', 'which is its parent');
for my $origin (
    { volume => 'ssd.vm-100-disk-0', snapshot => 'monday' }, { volume => 'ssd.base-100-disk-0', snapshot => 'monday' },
    { volume => 'hdd.base-100-disk-0', snapshot => $BASE_SNAPSHOT }, {}, undef,
) {
    my $volume = { name => 'ssd.vm-200-disk-0', origin => $origin };
    is(scalar listed_name('ssd.', $volume), 'vm-200-disk-0', 'a clone of anything else is a volume by itself');
}
is_deeply([listed_name('ssd.', { name => $_ })], [], "$_ is not of this storage")
    for 'vm-100-disk-0', 'ssd-vm-100-disk-0', 'ssd.golden', 'xssd.vm-100-disk-0', 'ssd.lab.vm-100-disk-0', 'ssdxvm-100-disk-0';
is_deeply([children_of('ssd.', 'base-100-disk-0', [$clone])], ['ssd.vm-200-disk-0'], 'a base knows its clones');
is_deeply([children_of('ssd.', 'base-100-disk-1', [$clone])], [], 'and no others');

is(check_prefix('lab1.'), 'lab1.', 'a prefix');
ok(!eval { check_prefix($_) }, "'$_' is no prefix") for 'x.vm-100-', 'base-1', 'a b', '.x', 'x' x 65, q{};

is(plain('path', '/run/storaged-pve/nbd.sock', 'x'), '/run/storaged-pve/nbd.sock', 'a path');
ok(!eval { plain('path', $_, 'x') }, sprintf q('%s' is no path), s/\n/\\n/r) for 'run/x', '/run/../x', '/run/x/..', '/run/x y', "/run/x\n", '/';
ok(!eval { plain('integer', $_, 'x') }, 'no integer') for '9.4e21', '-1', '1.0', '01', q{}, undef, 'inf', '9' x 19;
like(eval { plain('integer', "x\x1b[2J", 'the size') } // $@, qr/\Athe size is not of the kind 'integer': x\?\[2J\n\z/,
    'a message has no characters that a terminal takes for commands');

done_testing();
