package PVE::Storage::Custom::Storaged::Attachment;

# The part of the plugin's class that is about how a guest has its disk: an NBD export of this node's gateway for QEMU, a
# block device of the host for containers and TPM states. Two nodes may have a volume at once, as a live migration needs.

use strict;
use warnings;

use PVE::Storage::Custom::Storaged::Gateway;
use PVE::Storage::Custom::Storaged::Names qw(parse_name volume_of snapshot_of export_of);
use PVE::Storage::Custom::Storaged::Qmp qw(nodes_of provoke_read);

# Where PVE has the monitors of guests that run.
our $MONITORS = '/var/run/qemu-server';

# How long QEMU may take to make another connection after a growth: it tries at once.
my $MONITOR_TIMEOUT = 20;

sub _gateway {
    my ($storeid, $scfg) = @_;
    return PVE::Storage::Custom::Storaged::Gateway->new($storeid, $scfg);
}

# Without a look at anything: PVE asks for volumes that are not there, and keeps those whose path it cannot have.
sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    my ($path, $vmid, $kind) = $class->filesystem_path($scfg, $volname, $snapname);
    return wantarray ? ($path, $vmid, $kind) : $path;
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    my $vmid = (parse_name($volname))[1];
    my $address = _gateway('storaged', $scfg)->path_address();
    my $path = 'nbd+unix:///' . export_of($scfg, $volname, $snapname) . "?socket=$address";
    return wantarray ? ($path, $vmid, 'images') : $path;
}

sub qemu_blockdev_options {
    my ($class, $scfg, $storeid, $volname, $machine_version, $options) = @_;
    return {
        driver => 'nbd',
        server => { type => 'unix', path => _gateway($storeid, $scfg)->address() . q{} },
        export => export_of($scfg, $volname, ($options // {})->{'snapshot-name'}) . q{},
        'reconnect-delay' => int $PVE::Storage::Custom::Storaged::Gateway::RECONNECT_DELAY,
    };
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my $volume = volume_of($scfg, $volname);
    # A template's disk is its frozen state: export_of knows which.
    my (undef, $snapshot) = split m/\@/, export_of($scfg, $volname, $snapname), 2;
    # A migration's target may be quicker than the word of what its source has made.
    $api->ask('GET', defined $snapshot ? "/v1/volumes/$volume/snapshots/$snapshot" : "/v1/volumes/$volume", late => 1);
    _gateway($storeid, $scfg)->ensure();
    return 1;
}

# The gateway lets go of a volume with its last client. What is left is a block device, which stays if it is used.
sub deactivate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache) = @_;
    eval { $class->unmap_volume($storeid, $scfg, $volname, $snapname); 1 } or warn $@;
    return 1;
}

sub map_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $hints) = @_;
    my $gateway = _gateway($storeid, $scfg);
    $gateway->ensure();
    return $gateway->map_device(export_of($scfg, $volname, $snapname));
}

sub unmap_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    _gateway($storeid, $scfg)->unmap_device(export_of($scfg, $volname, $snapname));
    return 1;
}

# Lets those that have the volume open on this node see its new size: the kernel by itself, QEMU by another connection,
# because NBD tells a client its size but once.
sub announce_growth {
    my ($class, $storeid, $scfg, $volname, $size, $running) = @_;
    my $gateway = _gateway($storeid, $scfg);
    my $export = export_of($scfg, $volname);
    $gateway->wait_for_growth($export, $size);
    return unless $running;
    my $vmid = (parse_name($volname))[1];
    my $monitor = "$MONITORS/$vmid.qmp";
    # A container has none.
    return unless -S $monitor;
    my @nodes = nodes_of($monitor, $export, $MONITOR_TIMEOUT) or return;
    # One that QEMU opened by a path, and not in a -drive, has no reconnect-delay: its guest's requests would fail from then on.
    die "the disk was moved here while the guest ran, and does not connect again by itself\n"
        if grep { $_->{socket} ne $gateway->address() } @nodes;
    $gateway->disconnect($export);
    provoke_read($monitor, $export, $MONITOR_TIMEOUT);
    return;
}

1;
