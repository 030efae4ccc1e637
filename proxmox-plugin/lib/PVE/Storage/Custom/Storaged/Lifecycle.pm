package PVE::Storage::Custom::Storaged::Lifecycle;

# The part of the plugin's class that makes, clones, renames, grows and frees volumes. storaged does each at once, whatever
# the volume holds: PVE has the storage's lock for milliseconds.

use strict;
use warnings;

use PVE::Storage::Custom::Storaged::Names
    qw($BASE_SNAPSHOT parse_name is_guest_disk volume_of snapshot_of children_of);
use PVE::Storage::Custom::Storaged::Plain qw(plain);

# How many free names are tried: others may take one between the look at what there is and the making of ours.
my $NAMES_TRIED_MAX = 16;

sub alloc_image {
    my ($class, $storeid, $scfg, $vmid, $fmt, $name, $size_kib) = @_;
    die "storage '$storeid': volumes have the format raw, not '$fmt'\n" if defined $fmt && $fmt ne 'raw';
    plain('vmid', $vmid, 'the number of a guest');
    my $size = plain('integer', $size_kib, 'the size') * 1024;
    my $api = $class->storaged($storeid, $scfg);
    my $body = sub {
        my ($volname) = @_;
        return { name => volume_of($scfg, $volname), size => $size, pool => $api->pool() };
    };
    if (defined $name) {
        die "storage '$storeid': '$name' is no name for a disk of guest $vmid: vm-$vmid-... is\n"
            unless is_guest_disk($name, $vmid) && $name =~ m/\Avm-/;
        $api->ask('POST', '/v1/volumes', body => $body->($name));
        return (parse_name($name))[0];
    }
    return $class->_under_free_name(
        $storeid, $scfg, $vmid,
        sub { my ($free) = @_; return ('POST', '/v1/volumes', body => $body->($free)); },
    );
}

# Asks for something under the first free name of a guest's disks, and for the next one if somebody was faster.
sub _under_free_name {
    my ($class, $storeid, $scfg, $vmid, $question) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my $name = $class->find_free_diskname($storeid, $scfg, $vmid, 'raw');
    for (1 .. $NAMES_TRIED_MAX) {
        my $free = (parse_name($name))[0];
        my (undef, $failure) = $api->try_to($question->($free));
        return $free unless $failure;
        die $api->sentence($failure) if $failure->{kind} ne 'already_exists';
        $name =~ s/-disk-([0-9]+)\z/'-disk-' . ($1 + 1)/e or last;
    }
    die "storage '$storeid': no free name for a disk of guest $vmid was found\n";
}

sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my ($name, undef, undef, undef, $named_base) = parse_name($volname);
    my $volume = volume_of($scfg, $volname);
    if ($named_base) {
        my @children = children_of($api->prefix(), $name, $api->volumes());
        die "storage '$storeid': '$volname' has linked clones: @children\n" if @children;
    }
    my $labels = $api->volume($volume)->{labels} // {};
    die "storage '$storeid': '$volname' is protected\n" if $labels->{'pve.protected'};
    $class->unmap_volume($storeid, $scfg, $volname);
    $api->ask('DELETE', "/v1/volumes/$volume?with_snapshots=true", closing => 1);
    return;
}

# Snapshot first, then the name: a template's disk without its frozen state is never seen.
sub create_base {
    my ($class, $storeid, $scfg, $volname) = @_;
    my ($name, undef, $base, undef, $is_base) = parse_name($volname);
    die "storage '$storeid': '$volname' is a template's disk already\n" if $is_base;
    my $api = $class->storaged($storeid, $scfg);
    my $volume = volume_of($scfg, $volname);
    my $snapshots = "/v1/volumes/$volume/snapshots";
    my @make = ('POST', $snapshots, body => { name => $BASE_SNAPSHOT }, closing => 1);
    my (undef, $failure) = $api->try_to(@make);
    if ($failure && $failure->{kind} eq 'already_exists') {
        # Of an attempt that broke off, after which the disk may have been written.
        $api->ask('DELETE', "$snapshots/$BASE_SNAPSHOT");
        (undef, $failure) = $api->try_to(@make);
    }
    die $api->sentence($failure) if $failure;
    my $template = $name =~ s/\Avm-/base-/r;
    $api->ask('POST', "/v1/volumes/$volume/rename", body => { name => volume_of($scfg, $template) });
    return defined $base ? "$base/$template" : $template;
}

sub clone_image {
    my ($class, $scfg, $storeid, $volname, $vmid, $snap) = @_;
    my ($name, undef, undef, undef, $is_base) = parse_name($volname);
    my $snapshot = defined $snap ? snapshot_of($snap) : $BASE_SNAPSHOT;
    die "storage '$storeid': '$volname' is no template's disk: clone one of its snapshots\n"
        unless $is_base || defined $snap;
    my $path = '/v1/volumes/' . volume_of($scfg, $volname) . "/snapshots/$snapshot/clone";
    my $clone = $class->_under_free_name(
        $storeid, $scfg, $vmid,
        sub { my ($free) = @_; return ('POST', $path, body => { name => volume_of($scfg, $free) }); },
    );
    return $is_base && !defined $snap ? "$name/$clone" : $clone;
}

# The answer is the only one that has the storage's name.
sub rename_volume {
    my ($class, $scfg, $storeid, $source, $target_vmid, $target) = @_;
    my (undef, undef, $base, undef, $is_base) = parse_name($source);
    die "storage '$storeid': '$source' is a template's disk, and keeps its name\n" if $is_base;
    my $path = '/v1/volumes/' . volume_of($scfg, $source) . '/rename';
    $class->unmap_volume($storeid, $scfg, $source);
    my $name = $target;
    if (defined $name) {
        die "storage '$storeid': '$name' is no name for a disk of guest $target_vmid\n"
            unless is_guest_disk($name, $target_vmid) && $name =~ m{\Avm-};
        my $api = $class->storaged($storeid, $scfg);
        # A new name that is the old one is no change to storaged, and an error to PVE.
        die "storage '$storeid': '$name' exists already\n" if volume_of($scfg, $name) eq volume_of($scfg, $source);
        $api->ask('POST', $path, body => { name => volume_of($scfg, $name) });
        $name = (parse_name($name))[0];
    } else {
        $name = $class->_under_free_name(
            $storeid, $scfg, $target_vmid,
            sub { my ($free) = @_; return ('POST', $path, body => { name => volume_of($scfg, $free) }); },
        );
    }
    return "$storeid:" . (defined $base ? "$base/$name" : $name);
}

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;
    die "storage '$storeid': a snapshot keeps its size\n" if defined $snapname;
    die "storage '$storeid': '$volname' is a template's disk, and keeps its size\n" if (parse_name($volname))[4];
    my $bytes = plain('integer', $size, 'the size');
    my $volume = volume_of($scfg, $volname);
    $class->storaged($storeid, $scfg)->ask('POST', "/v1/volumes/$volume/resize", body => { size => $bytes + 0 });
    return if eval { $class->announce_growth($storeid, $scfg, $volname, $bytes, $running); 1 };
    my $cause = $@ =~ s/\s+\z//r;
    die "storage '$storeid': '$volname' is larger now, but the guest sees that after it was stopped and started: $cause\n";
}

1;
