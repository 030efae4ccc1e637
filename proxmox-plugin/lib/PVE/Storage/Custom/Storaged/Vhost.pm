package PVE::Storage::Custom::Storaged::Vhost;

# What a guest's configuration must say so that one of its disks is a vhost-user-blk device in place of one that QEMU
# serves, and how to take that back. PVE knows no such disk: the device, its socket and the shared memory go into "args", and
# the volume stays the guest's as "unusedN".
#
# Pure: takes and gives texts and hashes, runs nothing and asks nobody.

use strict;
use warnings;

use Exporter qw(import);

use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(
    read_config disks_of device_args enabled_args disabled_args shared_memory memory_of drive_volume boot_order boot_before
);

# Where a vhost-blk that systemd runs listens for its guest.
our $SOCKETS = '/run/storaged-vhost';

# Before the names of what is ours in "args".
my $OURS = 'storaged-';
# The memory that QEMU and vhost-blk share.
my $MEMORY = "${OURS}memory";
# What PVE gives a guest whose configuration names no memory, in MiB.
my $MEMORY_DEFAULT = 512;
my $DISK = qr/(?:ide|sata|scsi|virtio)[0-9]{1,2}/;
my $CHARDEV = qr{-chardev[ ]socket,id=\Q$OURS\E($DISK),path=\Q$SOCKETS\E/([A-Za-z0-9._-]+)[.]sock,\S+};

# The settings of what "qm config" prints.
sub read_config {
    my ($text) = @_;
    my %config = $text =~ m/^([a-z][a-z0-9_]*):[ \t]*(\S.*?)[ \t]*$/mg;
    return \%config;
}

# The volume (S:V) of a drive's text.
sub drive_volume {
    my ($drive) = @_;
    my ($volume) = ($drive // q{}) =~ m/(?:\A|,)(?:file=)?([A-Za-z][A-Za-z0-9._-]*:[A-Za-z0-9._\/-]+)(?:,|\z)/;
    return $volume;
}

# Which disks of a guest are such devices: disk => the volume's name in storaged.
sub disks_of {
    my ($args) = @_;
    my %disks = ($args // q{}) =~ m/$CHARDEV/g;
    return \%disks;
}

# The guest's memory in MiB.
sub memory_of {
    my ($config) = @_;
    my $memory = $config->{memory} // $MEMORY_DEFAULT;
    return $1 if $memory =~ m/\A(?:current=)?([1-9][0-9]{0,8})\b/;
    die "the guest's memory is not understood: $memory\n";
}

# What makes a guest's memory one that vhost-blk can reach; nothing, if it is that already. Ends with what is in the way.
sub shared_memory {
    my ($config) = @_;
    return if grep { m/\Avirtiofs[0-9]+\z/ } keys %$config;
    my $is_numa = $config->{numa} && $config->{numa} ne '0';
    my $is_huge = $config->{hugepages};
    return if $is_numa && $is_huge;
    die "the guest has numa: switch it off (qm set VMID --numa 0), or give it hugepages as well (--hugepages 2)\n" if $is_numa;
    die "the guest has hugepages without numa: switch it on (qm set VMID --numa 1)\n" if $is_huge;
    my $memory = memory_of($config);
    return "-object memory-backend-memfd,id=$MEMORY,size=${memory}M,share=on -machine memory-backend=$MEMORY";
}

# What makes a volume a disk; whether it is the one to boot from.
sub device_args {
    my ($disk, $volume, $is_boot_disk) = @_;
    my $path = plain('path', "$SOCKETS/$volume.sock", 'the path of a socket');
    # PVE counts those of its own disks from 100.
    my $boot = $is_boot_disk ? ',bootindex=99' : q{};
    return "-chardev socket,id=$OURS$disk,path=$path,reconnect-ms=1000"
        . " -device vhost-user-blk-pci,id=$OURS$disk-device,chardev=$OURS$disk$boot";
}

# The devices that a guest boots from, in order, of its "boot".
sub boot_order {
    my ($boot) = @_;
    my ($order) = ($boot // q{}) =~ m/(?:\A|,)order=([A-Za-z0-9;]*)/;
    return split m/;/, $order // q{};
}

# The "boot" that a guest had before PVE took a disk out of it, unless it was changed meanwhile.
sub boot_before {
    my ($before, $now, $disk) = @_;
    return unless grep { $_ eq $disk } boot_order($before);
    my $without = join q{;}, grep { $_ ne $disk } boot_order($before);
    return $without eq join(q{;}, boot_order($now)) ? $before : undef;
}

# A guest's "args" with one more disk.
sub enabled_args {
    my ($config, $disk, $volume) = @_;
    my $args = $config->{args} // q{};
    die "$disk of the guest is such a disk already\n" if disks_of($args)->{$disk};
    my $memory = shared_memory($config);
    my @order = boot_order($config->{boot});
    my $is_boot_disk = @order && $order[0] eq $disk;
    my @parts = grep { length } ($args, $args =~ m/\Q$MEMORY\E/ ? undef : $memory, device_args($disk, $volume, $is_boot_disk));
    return join q{ }, @parts;
}

# A guest's "args" without that disk, as they were before; empty if nothing is left.
sub disabled_args {
    my ($args, $disk) = @_;
    die "$disk of the guest is no such disk\n" unless disks_of($args)->{$disk};
    my $rest = $args;
    $rest =~ s/ ?-chardev socket,id=\Q$OURS$disk\E,\S+//;
    $rest =~ s/ ?-device vhost-user-blk-pci,id=\Q$OURS$disk\E-device,\S+//;
    $rest =~ s/ ?-object memory-backend-memfd,id=\Q$MEMORY\E,\S+ -machine memory-backend=\Q$MEMORY\E// unless %{ disks_of($rest) };
    $rest =~ s/\A //;
    return $rest;
}

1;
