package PVE::Storage::Custom::Storaged::Transfer;

# The part of the plugin's class that sends and takes whole volumes as PVE's stream "raw+size": 8 bytes with the size (little
# endian), then the data. Between storages and clusters; the data goes over this node's NBD gateway.

use strict;
use warnings;

use IO::Handle;

use PVE::Storage::Custom::Storaged::Gateway;
use PVE::Storage::Custom::Storaged::Names qw(parse_name is_guest_disk volume_of export_of);
use PVE::Storage::Custom::Storaged::Nbd;
use PVE::Storage::Custom::Storaged::Plain qw(plain);

my $FORMAT = 'raw+size';
my $HEADER_SIZE = 8;
# What storaged gives room for at once, in bytes: smaller zeros take no less.
my $PIECE = 64 * 1024;
my $ZEROS = "\0" x $PIECE;

# Whole states, and no differences between them.
sub volume_export_formats {
    my ($class, $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots) = @_;
    return () if defined $base_snapshot || $with_snapshots;
    return ($FORMAT);
}

sub volume_import_formats {
    my ($class, $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots) = @_;
    return () if defined $base_snapshot || $with_snapshots;
    return ($FORMAT);
}

sub _check_format {
    my ($storeid, $format, $base_snapshot, $with_snapshots) = @_;
    die "storage '$storeid': volumes are sent as $FORMAT, not as '$format'\n" if $format ne $FORMAT;
    die "storage '$storeid': snapshots are not sent with a volume\n" if defined $base_snapshot || $with_snapshots;
    return;
}

sub volume_export {
    my ($class, $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots) = @_;
    _check_format($storeid, $format, $base_snapshot, $with_snapshots);
    my $gateway = PVE::Storage::Custom::Storaged::Gateway->new($storeid, $scfg);
    $gateway->ensure();
    my $client = PVE::Storage::Custom::Storaged::Nbd->new($gateway->address(), export_of($scfg, $volname, $snapshot));
    my $size = $client->size();
    _put($fh, pack 'Q<', $size);
    my $step = $PVE::Storage::Custom::Storaged::Nbd::REQUEST_SIZE;
    for (my $offset = 0; $offset < $size; $offset += $step) {
        my $left = $size - $offset;
        _put($fh, $client->read_at($offset, $left < $step ? $left : $step));
    }
    $client->finish();
    return;
}

sub volume_import {
    my ($class, $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots, $allow_rename) = @_;
    _check_format($storeid, $format, $base_snapshot, $with_snapshots);
    my ($name, $vmid) = parse_name($volname);
    # What comes is a whole volume: a template's disk becomes one with a life of its own.
    die "storage '$storeid': '$volname' cannot be imported: take vm-$vmid-... as its name\n" if $name !~ m/\Avm-/;
    my $size = unpack 'Q<', _get($fh, $HEADER_SIZE);
    plain('integer', $size, 'the size in the stream');
    my $kib = int(($size + 1023) / 1024);
    my $made = eval { $class->alloc_image($storeid, $scfg, $vmid, 'raw', $name, $kib) };
    if (!defined $made) {
        my $cause = $@;
        die $cause unless $allow_rename && $class->_exists($storeid, $scfg, $name);
        $made = $class->alloc_image($storeid, $scfg, $vmid, 'raw', undef, $kib);
    }
    return "$storeid:$made" if eval { $class->_fill($storeid, $scfg, $fh, $made, $size); 1 };
    my $cause = $@;
    eval { $class->free_image($storeid, $scfg, $made, 0, 'raw'); 1 } or warn $@;
    die $cause;
}

sub _exists {
    my ($class, $storeid, $scfg, $volname) = @_;
    my (undef, $failure) = $class->storaged($storeid, $scfg)->try_to('GET', '/v1/volumes/' . volume_of($scfg, $volname));
    return !$failure;
}

# Writes the stream into a new volume. What is zero there stays unwritten: a new volume reads as zeros.
sub _fill {
    my ($class, $storeid, $scfg, $fh, $volname, $size) = @_;
    my $gateway = PVE::Storage::Custom::Storaged::Gateway->new($storeid, $scfg);
    $gateway->ensure();
    my $client = PVE::Storage::Custom::Storaged::Nbd->new($gateway->address(), export_of($scfg, $volname));
    my $step = $PVE::Storage::Custom::Storaged::Nbd::REQUEST_SIZE;
    my $done = eval {
        for (my $offset = 0; $offset < $size; $offset += $step) {
            my $left = $size - $offset;
            my $bytes = _get($fh, $left < $step ? $left : $step);
            $client->write_at($offset + $_->[0], substr $bytes, $_->[0], $_->[1]) for _written(\$bytes);
        }
        $client->flush();
        1;
    };
    my $cause = $@;
    # Whether it went well or not: a volume that is open cannot be freed.
    $client->finish();
    die $cause unless $done;
    return;
}

# The stretches that are not zero: (place, length) each.
sub _written {
    my ($bytes) = @_;
    my @stretches;
    for (my $at = 0; $at < length $$bytes; $at += $PIECE) {
        my $piece = substr $$bytes, $at, $PIECE;
        next if $piece eq substr $ZEROS, 0, length $piece;
        if (@stretches && $stretches[-1][0] + $stretches[-1][1] == $at) {
            $stretches[-1][1] += length $piece;
        } else {
            push @stretches, [$at, length $piece];
        }
    }
    return @stretches;
}

sub _get {
    my ($fh, $size) = @_;
    my $bytes = q{};
    while (length $bytes < $size) {
        my $count = sysread $fh, $bytes, $size - length $bytes, length $bytes;
        next if !defined $count && $!{EINTR};
        die "the stream cannot be read: $!\n" unless defined $count;
        die "the stream ended too early\n" if $count == 0;
    }
    return plain('bytes', $bytes, 'the stream');
}

sub _put {
    my ($fh, $bytes) = @_;
    my $sent = 0;
    while ($sent < length $bytes) {
        my $count = syswrite $fh, $bytes, length($bytes) - $sent, $sent;
        next if !defined $count && $!{EINTR};
        die "the stream cannot be written: $!\n" unless defined $count;
        $sent += $count;
    }
    return;
}

1;
