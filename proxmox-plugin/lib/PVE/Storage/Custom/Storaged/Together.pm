package PVE::Storage::Custom::Storaged::Together;

# Snapshots of all disks of a guest at one instant. PVE asks for them one after the other; but it writes what it is about
# to do into the guest's configuration first: a section of the snapshot's name with "snapstate: prepare" and all disks.
# So with the first disk all of them are frozen, and PVE finds the others' snapshots made when it comes to them. What was
# made is remembered for the process that asked, because that one also cleans up when something fails.
#
# Knows nothing of how a snapshot is made.

use strict;
use warnings;

use Exporter qw(import);

use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(prepared_disks remember claim leftovers forget);

# Where PVE has the guests of this node: qemu-server/VMID.conf and lxc/VMID.conf.
our $CONFIG_FOLDER = '/etc/pve';

# A longer configuration is none; PVE allows 1 MiB a file.
my $CONFIG_MAX = 1024 * 1024;
# What is a disk of the guest, in its configuration.
my $DISK_KEY = qr/(?:ide|sata|scsi|virtio|efidisk|tpmstate|mp)[0-9]{1,3}|rootfs/;

# The snapshot of a container's backup. It has those disks that are backed up, and its section has all.
my $BACKUP = 'vzdump';

# What a process has made and was not asked for yet: process, daemon, vmid, snapshot => { volume => 1 }.
my %made;

# The volumes (S:V) that a guest's snapshot, which PVE is about to make, has; none if that cannot be told.
sub prepared_disks {
    my ($vmid, $snapshot) = @_;
    for my $folder (qw(qemu-server lxc)) {
        my $path = "$CONFIG_FOLDER/$folder/" . plain('vmid', $vmid, 'the number of a guest') . '.conf';
        my $text = _contents($path);
        return _disks($text, $snapshot, $folder) if defined $text;
    }
    return;
}

sub _contents {
    my ($path) = @_;
    open my $file, '<', $path or return;
    my $read = read $file, my ($text), $CONFIG_MAX;
    close $file or return;
    return defined $read ? $text : undef;
}

sub _disks {
    my ($text, $snapshot, $folder) = @_;
    my $is_backup = $folder eq 'lxc' && $snapshot eq $BACKUP;
    my ($section) = $text =~ m/^\[\Q$snapshot\E\][ \t]*\n(.*?)(?=^\[|\z)/ms or return;
    return if $section !~ m/^snapstate:[ \t]*prepare[ \t]*$/m;
    my @disks;
    for my $line (split m/\n/, $section) {
        my ($key, $value) = $line =~ m/\A($DISK_KEY):[ \t]*(\S+)/ or next;
        # PVE makes no snapshots of these.
        next if $value =~ m/(?:\A|,)media=cdrom(?:,|\z)/;
        # Nor does it delete them: they would be in the way of the next backup.
        next if $is_backup && $key ne 'rootfs' && $value !~ m/,backup=(?:1|on|yes|true)(?:,|\z)/;
        my ($volume) = $value =~ m/(?:\A|,)(?:file=|volume=)?([A-Za-z][A-Za-z0-9._-]*:[A-Za-z0-9._\/-]+)(?:,|\z)/ or next;
        push @disks, $volume;
    }
    return @disks;
}

# Notes volumes whose snapshots were made together, before PVE asked for them.
sub remember {
    my ($daemon, $vmid, $snapshot, @volumes) = @_;
    # What another process made is its own, also if this one was forked from it.
    delete @made{ grep { !m/\A$$ / } keys %made };
    $made{ _key($daemon, $vmid, $snapshot) } = { map { $_ => 1 } @volumes };
    return;
}

# Whether the snapshot that PVE asks for is made already. It is PVE's from now on.
sub claim {
    my ($daemon, $vmid, $snapshot, $volume) = @_;
    my $waiting = $made{ _key($daemon, $vmid, $snapshot) } or return;
    return delete $waiting->{$volume};
}

# The volumes whose snapshots were made and which PVE never asked for.
sub leftovers {
    my ($daemon, $vmid, $snapshot) = @_;
    my @volumes = sort keys %{ $made{ _key($daemon, $vmid, $snapshot) } // {} };
    return @volumes;
}

sub forget {
    my ($daemon, $vmid, $snapshot) = @_;
    delete $made{ _key($daemon, $vmid, $snapshot) };
    return;
}

sub _key {
    my ($daemon, $vmid, $snapshot) = @_;
    return "$$ $daemon $vmid $snapshot";
}

1;
