package PVE::Storage::Custom::Storaged::Names;

# Names of PVE and names of storaged, and the way from one to the other:
#
#   PVE                             storaged
#   vm-100-disk-0                   PREFIX + vm-100-disk-0
#   base-100-disk-0                 PREFIX + base-100-disk-0, with the snapshot $BASE_SNAPSHOT
#   base-100-disk-0/vm-200-disk-0   PREFIX + vm-200-disk-0, whose origin is that snapshot
#   snapshot monday                 snapshot monday
#   snapshot __migration__          snapshot pve.__migration__ (a name there begins with a letter or a digit)
#
# No snapshot of PVE has a "." in its name, so none can be taken for another.
#
# Pure: asks nobody whether what it names is there.

use strict;
use warnings;

use Exporter qw(import);

use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(
    $BASE_SNAPSHOT parse_name is_guest_disk prefix_of volume_of snapshot_of snapshot_name export_of listed_name
    children_of check_prefix
);

# The state of a template's disk that its clones begin with, and that its readers see.
our $BASE_SNAPSHOT = 'base.template';

# What stands before PVE's names for its internal snapshots.
my $INTERNAL = 'pve.';

my $DISK = qr/(vm|base)-([1-9][0-9]{2,8})-[A-Za-z0-9._-]+/;

# Whether a name without a base part is one of a guest's disk, of this guest if one is given.
sub is_guest_disk {
    my ($name, $vmid) = @_;
    return unless defined $name && $name =~ m/\A$DISK\z/;
    return !defined $vmid || $2 == $vmid;
}

# The parts of a volume's name: (name, vmid, base's name, base's vmid, whether it is a base itself).
sub parse_name {
    my ($volname) = @_;
    my ($base, $base_vmid) = (undef, undef);
    my $name = $volname // q{};
    if ($name =~ m{\A([^/]+)/([^/]+)\z}) {
        ($base, $name) = ($1, $2);
        die "'$volname' is not the name of a storaged volume: '$base' is no template's disk\n"
            if $base !~ m/\A$DISK\z/ || $1 ne 'base';
        $base =~ m/\A($DISK)\z/ and ($base, $base_vmid) = ($1, $3);
    }
    if ($name =~ m/\A($DISK)\z/) {
        my ($plain, $kind, $vmid) = ($1, $2, $3);
        return ($plain, $vmid, $base, $base_vmid, $kind eq 'base' ? 1 : undef);
    }
    die sprintf "'%s' is not the name of a storaged volume: vm-VMID-... or base-VMID-... is\n", $volname // q{};
}

# What stands before every name of a storage in storaged.
sub prefix_of {
    my ($scfg) = @_;
    my $prefix = $scfg->{'storaged-prefix'} // "$scfg->{'storaged-pool'}.";
    return plain('name', $prefix, 'storaged-prefix');
}

# Refuses a prefix with which the names of one storage could be taken for those of another.
sub check_prefix {
    my ($prefix) = @_;
    plain('name', $prefix, 'storaged-prefix');
    die "storaged-prefix '$prefix' contains a name of a disk ('vm-100-'): use another\n"
        if $prefix =~ m/(?:vm|base)-[0-9]/;
    # 128 characters are the most, and vm-999999999-state- with a snapshot's name has 60.
    die "storaged-prefix '$prefix' is too long: use at most 64 characters\n" if length $prefix > 64;
    return $prefix;
}

# The volume's name in storaged.
sub volume_of {
    my ($scfg, $volname) = @_;
    my ($name) = parse_name($volname);
    return plain('name', prefix_of($scfg) . $name, "the name of volume '$volname' in storaged");
}

# A snapshot's name in storaged.
sub snapshot_of {
    my ($snapshot) = @_;
    die "'$snapshot' is not the name of a snapshot\n" if $snapshot !~ m/\A([A-Za-z_][A-Za-z0-9_-]{0,99})\z/;
    my $name = $1;
    return $name =~ m/\A_/ ? "$INTERNAL$name" : $name;
}

# A snapshot's name in PVE; nothing for one that PVE did not make.
sub snapshot_name {
    my ($snapshot) = @_;
    return $1 if $snapshot =~ m/\A\Q$INTERNAL\E(_[A-Za-z0-9_-]{0,99})\z/;
    return $1 if $snapshot =~ m/\A([A-Za-z][A-Za-z0-9_-]{0,99})\z/;
    return;
}

# What is opened for a volume or one of its snapshots: a template's disk is the frozen state, so nobody changes it.
sub export_of {
    my ($scfg, $volname, $snapshot) = @_;
    my $volume = volume_of($scfg, $volname);
    return $volume . q{@} . snapshot_of($snapshot) if defined $snapshot;
    return $volume . q{@} . $BASE_SNAPSHOT if (parse_name($volname))[4];
    return $volume;
}

# The name in PVE of a volume that storaged told of, with its base part; nothing for what is not of this storage.
# In list context also the base's name.
sub listed_name {
    my ($prefix, $volume) = @_;
    my $name = _without($prefix, $volume->{name});
    return unless is_guest_disk($name);
    my $base = _base($prefix, $volume);
    my $listed = defined $base ? "$base/$name" : $name;
    return wantarray ? ($listed, $base) : $listed;
}

# The names of those volumes among storaged's that were cloned from this template's disk.
sub children_of {
    my ($prefix, $base, $volumes) = @_;
    my @children;
    for my $volume (@$volumes) {
        my $parent = _base($prefix, $volume);
        push @children, $volume->{name} if defined $parent && $parent eq $base;
    }
    return @children;
}

sub _base {
    my ($prefix, $volume) = @_;
    my $origin = $volume->{origin} or return;
    return unless ($origin->{snapshot} // q{}) eq $BASE_SNAPSHOT;
    my $base = _without($prefix, $origin->{volume});
    return unless is_guest_disk($base) && $base =~ m/\A(base-.*)\z/;
    return $1;
}

sub _without {
    my ($prefix, $name) = @_;
    return unless defined $name && $name =~ m/\A\Q$prefix\E(.+)\z/;
    return $1;
}

1;
