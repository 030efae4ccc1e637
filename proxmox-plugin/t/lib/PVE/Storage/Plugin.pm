package PVE::Storage::Plugin;

# Stands for Proxmox VE's base class of storages in tests: what the plugin inherits, with the order of arguments that PVE
# has, and nothing of how PVE does it. All else ends with a message, so that a method that should have been overridden shows.

use strict;
use warnings;

our @SHARED_STORAGE = qw(nfs rbd);

sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $work, @arguments) = @_;
    return $work->(@arguments);
}

# The first free one, as PVE has it: a race unless the storage's lock is held.
sub find_free_diskname {
    my ($class, $storeid, $scfg, $vmid, $fmt, $add_suffix) = @_;
    my %taken = map { $_->{volid} =~ m/((?:vm|base)-\d+-disk-\d+)\z/ ? ($1 => 1) : () }
        @{ $class->list_images($storeid, $scfg, $vmid, undef, {}) };
    for my $number (0 .. 1023) {
        return "vm-$vmid-disk-$number" unless $taken{"vm-$vmid-disk-$number"} || $taken{"base-$vmid-disk-$number"};
    }
    die "there is no free name\n";
}

sub list_volumes {
    my ($class, $storeid, $scfg, $vmid, $types) = @_;
    my $images = $class->list_images($storeid, $scfg, $vmid, undef, {});
    $_->{content} = 'images' for @$images;
    return $images;
}

1;
