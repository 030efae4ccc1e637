package PVE::Storage::Custom::Storaged::Snapshots;

# The part of the plugin's class that is about snapshots: to make, to tell of, to go back to, to delete. storaged makes them
# of the running guest's data at one instant, and goes back to any; newer ones stay.

use strict;
use warnings;

use PVE::Storage::Custom::Storaged::Api;
use PVE::Storage::Custom::Storaged::Names qw(parse_name volume_of snapshot_of snapshot_name);
use PVE::Storage::Custom::Storaged::Plain qw(plain);
use PVE::Storage::Custom::Storaged::Together qw(prepared_disks remember claim leftovers forget);

# The most volumes that storaged freezes together.
my $GROUP_MAX = 32;
# How long making a snapshot may take, in seconds: storaged waits until the slowest disk has come to rest.
my $TIMEOUT = 60;

sub volume_snapshot {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my (undef, $vmid, undef, undef, $is_base) = parse_name($volname);
    die "storage '$storeid': '$volname' is a template's disk, and has no snapshots\n" if $is_base;
    my ($volume, $snapshot) = (volume_of($scfg, $volname), snapshot_of($snap));
    return if claim($api->address(), $vmid, $snap, $volume);
    my @others = $class->_members($api, $storeid, $scfg, $vmid, $snap, $volume);
    my %body = (name => $snapshot);
    my %options = (body => \%body, timeout => $TIMEOUT, closing => 1);
    if (!@others) {
        $api->ask('POST', "/v1/volumes/$volume/snapshots", %options);
        return;
    }
    $body{volumes} = [$volume, @others];
    $api->ask('POST', '/v1/group-snapshots', %options);
    remember($api->address(), $vmid, $snap, @others);
    return;
}

# The other disks of the guest that the same daemon keeps, by their names there; none unless this disk is among them.
sub _members {
    my ($class, $api, $storeid, $scfg, $vmid, $snap, $volume) = @_;
    my %sections = ($storeid => $scfg);
    if (PVE::Storage->can('config')) {
        my $ids = eval { PVE::Storage::config()->{ids} } // {};
        %sections = (%$ids, %sections);
    }
    my %volumes;
    for my $volid (prepared_disks($vmid, $snap)) {
        my ($storage, $name) = split m/:/, $volid, 2;
        my $section = $sections{$storage};
        next unless $section && ($section->{type} // q{}) eq $class->type();
        # What cannot be told is left to PVE's next call.
        my $member = eval {
            my $other = $class->storaged($storage, $section);
            my $is_base = (parse_name($name))[4];
            $other->address() eq $api->address() && !$is_base ? volume_of($section, $name) : undef;
        };
        $volumes{$member} = 1 if defined $member;
    }
    return unless delete $volumes{$volume};
    my @others = sort keys %volumes;
    return @others < $GROUP_MAX ? @others : @others[0 .. $GROUP_MAX - 2];
}

sub volume_snapshot_delete {
    my ($class, $scfg, $storeid, $volname, $snap, $running) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my $vmid = (parse_name($volname))[1];
    my ($volume, $snapshot) = (volume_of($scfg, $volname), snapshot_of($snap));
    my @left = leftovers($api->address(), $vmid, $snap);
    forget($api->address(), $vmid, $snap);
    # PVE gives up a snapshot that it was making. It knows nothing of those that were made and that it did not come to.
    for my $other (grep { $_ ne $volume } @left) {
        my (undef, $failure) = $api->try_to('DELETE', "/v1/volumes/$other/snapshots/$snapshot");
        warn $api->sentence($failure) if $failure && $failure->{kind} ne 'not_found';
    }
    $api->ask('DELETE', "/v1/volumes/$volume/snapshots/$snapshot");
    return;
}

sub volume_rollback_is_possible {
    my ($class, $scfg, $storeid, $volname, $snap, $blockers) = @_;
    my ($volume, $snapshot) = (volume_of($scfg, $volname), snapshot_of($snap));
    $class->storaged($storeid, $scfg)->ask('GET', "/v1/volumes/$volume/snapshots/$snapshot");
    return 1;
}

sub volume_snapshot_rollback {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;
    my ($volume, $snapshot) = (volume_of($scfg, $volname), snapshot_of($snap));
    die "storage '$storeid': '$volname' is a template's disk, and stays as it is\n" if (parse_name($volname))[4];
    # A device over the old data would keep the volume open.
    $class->unmap_volume($storeid, $scfg, $volname);
    my $api = $class->storaged($storeid, $scfg);
    $api->ask('POST', "/v1/volumes/$volume/rollback", body => { snapshot => $snapshot }, closing => 1);
    return;
}

sub volume_snapshot_info {
    my ($class, $scfg, $storeid, $volname) = @_;
    my $volume = volume_of($scfg, $volname);
    my $answer = $class->storaged($storeid, $scfg)->ask('GET', "/v1/volumes/$volume/snapshots");
    my %info;
    for my $snapshot (@{ $answer->{snapshots} // [] }) {
        my $name = snapshot_name($snapshot->{name});
        next unless defined $name;
        $info{$name} = {
            id => plain('integer', $snapshot->{id}, "the number of snapshot '$name'"),
            timestamp => int(plain('integer', $snapshot->{created_ms}, "the time of snapshot '$name'") / 1000),
        };
    }
    return \%info;
}

# PVE asks for it only where snapshots are a chain of files.
sub rename_snapshot {
    my ($class, $scfg, $storeid, $volname, $source, $target) = @_;
    die "storage '$storeid': a snapshot keeps its name: make another and delete '$source'\n";
}

# The guest goes on meanwhile, and QEMU need not know.
sub volume_qemu_snapshot_method {
    my ($class, $storeid, $scfg, $volname) = @_;
    return 'storage';
}

1;
