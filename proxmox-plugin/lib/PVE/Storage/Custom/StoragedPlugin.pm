package PVE::Storage::Custom::StoragedPlugin;

# The storage type "storaged" of Proxmox VE: which options it has, whether it is there and how full it is, which volumes
# there are. What is done with volumes is in the parts below Storaged/, which are base classes of this one. PVE loads every
# file of this folder, and none below it, on every node and at every start: nothing here asks anybody while it is loaded.
#
# See the documentation at the end (perldoc), and docs/operations/proxmox.md.

use strict;
use warnings;

use PVE::Storage::Plugin;
use PVE::Tools;

use PVE::Storage::Custom::Storaged::Api;
use PVE::Storage::Custom::Storaged::Attachment;
use PVE::Storage::Custom::Storaged::Lifecycle;
use PVE::Storage::Custom::Storaged::Names qw(parse_name volume_of listed_name prefix_of check_prefix);
use PVE::Storage::Custom::Storaged::Plain qw(plain);
use PVE::Storage::Custom::Storaged::Snapshots;
use PVE::Storage::Custom::Storaged::Transfer;

use parent -norequire, qw(
    PVE::Storage::Custom::Storaged::Attachment
    PVE::Storage::Custom::Storaged::Lifecycle
    PVE::Storage::Custom::Storaged::Snapshots
    PVE::Storage::Custom::Storaged::Transfer
    PVE::Storage::Plugin
);

our $VERSION = '0.1.0';

# The newest storage API that this was tested with. PVE takes an older one while its APIAGE allows, and says so.
my $API_TESTED = 15;
# How long all questions about a storage's state may take together, in seconds: PVE asks all storages one after the other.
my $STATUS_TIMEOUT = 2;
# Which part of it each step may take: PVE asks whether the storage is there, activates it, and asks how full it is.
my ($CONNECTION_PART, $STATUS_PART) = (0.4, 0.5);
# PVE's numbers end there.
my $BYTES_MAX = 2**62;

my $TOKEN = 'storaged-token';

# Otherwise each administrator had to say "shared 1".
push @PVE::Storage::Plugin::SHARED_STORAGE, 'storaged'
    unless grep { $_ eq 'storaged' } @PVE::Storage::Plugin::SHARED_STORAGE;

sub api {
    my $theirs = PVE::Storage->can('APIVER') ? PVE::Storage->APIVER() : $API_TESTED;
    return $theirs < $API_TESTED ? $theirs : $API_TESTED;
}

sub type { return 'storaged'; }

sub plugindata {
    return {
        content => [{ images => 1, rootdir => 1, none => 1 }, { images => 1 }],
        format => [{ raw => 1 }, 'raw'],
        'sensitive-properties' => { $TOKEN => 1 },
    };
}

sub properties {
    my $name = '[A-Za-z0-9][A-Za-z0-9._-]{0,127}';
    my $path = '(?:/[A-Za-z0-9._\@+-]+)+';
    my $endpoint = 'https://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}';
    return {
        'storaged-pool' => {
            description => "The pool of storaged that volumes are made in.",
            type => 'string',
            pattern => $name,
        },
        'storaged-prefix' => {
            description => "What stands before the name of each volume in storaged. The pool's name and a dot, if left"
                . " out. Two PVE clusters on one storaged need two.",
            type => 'string',
            pattern => $name,
        },
        'storaged-socket' => {
            description => "The socket of the node's storaged: its admin API.",
            type => 'string',
            pattern => $path,
            default => $PVE::Storage::Custom::Storaged::Api::SOCKET_DEFAULT,
        },
        'storaged-endpoint' => {
            description => "Addresses of storaged's admin API over the network, https://HOST:PORT, with commas between them."
                . " For nodes without a storaged of their own; whoever is asked wants storaged-token.",
            type => 'string',
            pattern => "$endpoint(?:,$endpoint){0,15}",
        },
        'storaged-ca' => {
            description => "The certificate that storaged's nodes are known by over the network"
                . " (storagectl access authority).",
            type => 'string',
            pattern => $path,
            default => $PVE::Storage::Custom::Storaged::Api::AUTHORITY_DEFAULT,
        },
        'storaged-nbd-socket' => {
            description => "The socket of the node's storaged-nbd. Its control socket is control.sock in the same folder.",
            type => 'string',
            pattern => $path,
            default => $PVE::Storage::Custom::Storaged::Gateway::SOCKET_DEFAULT,
        },
        'storaged-status-timeout' => {
            description => "How many seconds the state of the storage may take to tell.",
            type => 'integer',
            minimum => 1,
            maximum => 10,
            default => $STATUS_TIMEOUT,
        },
        $TOKEN => {
            description => "The access token that storaged is shown over the network. Kept in /etc/pve/priv/storage.",
            type => 'string',
            maxLength => 4096,
        },
    };
}

sub options {
    return {
        'storaged-pool' => { fixed => 1 },
        'storaged-prefix' => { fixed => 1, optional => 1 },
        'storaged-socket' => { optional => 1 },
        'storaged-endpoint' => { optional => 1 },
        'storaged-ca' => { optional => 1 },
        'storaged-nbd-socket' => { optional => 1 },
        'storaged-status-timeout' => { optional => 1 },
        $TOKEN => { optional => 1 },
        nodes => { optional => 1 },
        shared => { optional => 1 },
        disable => { optional => 1 },
        content => { optional => 1 },
        bwlimit => { optional => 1 },
    };
}

# The admin API, as the parts of this class ask it.
sub storaged {
    my ($class, $storeid, $scfg) = @_;
    return PVE::Storage::Custom::Storaged::Api->new($storeid, $scfg);
}

# -- configuration

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;
    my $api = $class->storaged($storeid, $scfg);
    check_prefix($api->prefix());
    my $others = PVE::Storage->can('config') ? (eval { PVE::Storage::config()->{ids} } // {}) : {};
    for my $other (sort keys %$others) {
        my $section = $others->{$other};
        next if $other eq $storeid || ($section->{type} // q{}) ne $class->type();
        my $theirs = eval { $class->storaged($other, $section) } or next;
        die "storage '$storeid': storage '$other' has the prefix '" . $api->prefix() . "' already, and each would show"
            . " and delete the other's volumes: choose another storaged-prefix\n"
            if $theirs->address() eq $api->address() && $theirs->prefix() eq $api->prefix();
    }
    _keep_token($storeid, $sensitive{$TOKEN}) if exists $sensitive{$TOKEN};
    return;
}

# PVE calls this one if the API is older than 13, and the next one otherwise.
sub on_update_hook {
    my ($class, $storeid, $update, %sensitive) = @_;
    _keep_token($storeid, $sensitive{$TOKEN}) if exists $sensitive{$TOKEN};
    return;
}

sub on_update_hook_full {
    my ($class, $storeid, $scfg, $update, $deleted, $sensitive) = @_;
    my %given = %{ $sensitive // {} };
    _keep_token($storeid, undef) if grep { $_ eq $TOKEN } @{ $deleted // [] };
    _keep_token($storeid, $given{$TOKEN}) if exists $given{$TOKEN};
    return;
}

# Volumes stay.
sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;
    _keep_token($storeid, undef);
    return;
}

sub _keep_token {
    my ($storeid, $token) = @_;
    my $path = PVE::Storage::Custom::Storaged::Api::token_file($storeid);
    if (!defined $token) {
        unlink $path or $!{ENOENT} or die "storage '$storeid': $path cannot be removed: $!\n";
        return;
    }
    # Not by plain(): its message has the value.
    my ($checked) = $token =~ m/\A([\x21-\x7e]{1,4096})\z/
        or die "storage '$storeid': $TOKEN has characters that no token has\n";
    my $folder = $PVE::Storage::Custom::Storaged::Api::TOKEN_FOLDER;
    mkdir $folder, 0700 or $!{EEXIST} or die "storage '$storeid': $folder cannot be made: $!\n";
    PVE::Tools::file_set_contents($path, "$checked\n", oct 600);
    return;
}

# Which storage this is, wherever it is configured.
sub get_identity {
    my ($class, $scfg, $storeid) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my $cluster = plain('name', $api->ask('GET', '/v1/status')->{cluster}, "the cluster's identity");
    return "storaged:$cluster:" . $api->pool() . q{:} . $api->prefix();
}

# -- the storage

sub _status_timeout {
    my ($scfg, $part) = @_;
    my $all = $scfg->{'storaged-status-timeout'} // $STATUS_TIMEOUT;
    return plain('integer', $all, 'storaged-status-timeout') * $part;
}

# Ends with the reason, which PVE shows.
sub check_connection {
    my ($class, $storeid, $scfg) = @_;
    $class->storaged($storeid, $scfg)->ask('GET', '/v1/version', timeout => _status_timeout($scfg, $CONNECTION_PART));
    return 1;
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    _pool($class->storaged($storeid, $scfg), $scfg, $cache);
    return 1;
}

# What is known of the pool, once in a request of PVE's.
sub _pool {
    my ($api, $scfg, $cache) = @_;
    my $key = 'storaged-pool:' . $api->address() . q{:} . $api->pool();
    return $cache->{$key} if $cache && $cache->{$key};
    my $pool = $api->ask('GET', '/v1/pools/' . $api->pool(), timeout => _status_timeout($scfg, $STATUS_PART));
    $cache->{$key} = $pool if $cache;
    return $pool;
}

sub deactivate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    return 1;
}

# Nothing, while the storage is away: activation has said why.
sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    my $pool = eval { _pool($class->storaged($storeid, $scfg), $scfg, $cache) } or return;
    my ($total, $available) = map { _bytes($pool->{$_}) } qw(total available);
    $available = $total if $available > $total;
    return ($total, $available, $total - $available, 1);
}

# A number that PVE can count with; 0 for what storaged does not know just now.
sub _bytes {
    my ($value) = @_;
    my $bytes = eval { plain('integer', $value, 'a number of bytes') } // 0;
    return $bytes < $BYTES_MAX ? int $bytes : $BYTES_MAX - 1;
}

# -- volumes

sub parse_volname {
    my ($class, $volname) = @_;
    my ($name, $vmid, $base, $base_vmid, $is_base) = parse_name($volname);
    return ('images', $name, $vmid, $base, $base_vmid, $is_base, 'raw');
}

sub list_images {
    my ($class, $storeid, $scfg, $vmid, $vollist, $cache) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my %wanted = map { $_ => 1 } @{ $vollist // [] };
    my @images;
    for my $volume (@{ $api->volumes($cache) }) {
        my ($name, $base) = listed_name($api->prefix(), $volume) or next;
        my $owner = (parse_name($name))[1];
        my $volid = "$storeid:$name";
        next if $vollist ? !$wanted{$volid} : defined $vmid && $owner ne $vmid;
        push @images, {
            volid => $volid,
            format => 'raw',
            size => _bytes($volume->{size}),
            vmid => $owner,
            parent => $base,
            ctime => int(_bytes($volume->{created_ms}) / 1000),
        };
    }
    return \@images;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    my $api = $class->storaged($storeid, $scfg);
    my @timeout = defined $timeout ? (timeout => plain('integer', $timeout, 'a timeout')) : ();
    my $volume = $api->volume(volume_of($scfg, $volname), @timeout);
    my $size = plain('integer', $volume->{size}, "the size of '$volname'");
    return int $size unless wantarray;
    my $base = (listed_name($api->prefix(), $volume))[1];
    # What it takes on disks would be a question to all nodes.
    return (int $size, 'raw', undef, $base, int(_bytes($volume->{created_ms}) / 1000));
}

my %FEATURES = (
    snapshot => { current => 1, snap => 1 },
    clone => { base => 1, snap => 1 },
    copy => { current => 1, base => 1, snap => 1 },
    template => { current => 1 },
    sparseinit => { current => 1, base => 1 },
    rename => { current => 1 },
);

sub volume_has_feature {
    my ($class, $scfg, $feature, $storeid, $volname, $snapname, $running, $opts) = @_;
    my $is_base = (parse_name($volname))[4];
    my $state = defined $snapname ? 'snap' : $is_base ? 'base' : 'current';
    return 1 if $FEATURES{$feature} && $FEATURES{$feature}{$state};
    return;
}

sub storage_can_replicate {
    my ($class, $scfg, $storeid, $format) = @_;
    return 0;
}

sub get_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute) = @_;
    return unless $attribute eq 'notes' || $attribute eq 'protected';
    my $labels = $class->storaged($storeid, $scfg)->volume(volume_of($scfg, $volname))->{labels} // {};
    my $value = $labels->{"pve.$attribute"};
    return $value ? 1 : 0 if $attribute eq 'protected';
    return defined $value ? plain('text', $value, 'notes') : undef;
}

sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    die "storage '$storeid': a volume has notes and protected, and no attribute '$attribute'\n"
        unless $attribute eq 'notes' || $attribute eq 'protected';
    my $is_empty = !defined $value || $value eq q{} || ($attribute eq 'protected' && !$value);
    my $text = $is_empty ? undef : $attribute eq 'protected' ? '1' : "$value";
    my $path = '/v1/volumes/' . volume_of($scfg, $volname) . '/labels';
    $class->storaged($storeid, $scfg)->ask('PATCH', $path, body => { labels => { "pve.$attribute" => $text } });
    return;
}

1;

__END__

=head1 NAME

PVE::Storage::Custom::StoragedPlugin - storaged as a storage of Proxmox VE

=head1 SYNOPSIS

    pvesm add storaged fast --storaged-pool ssd --content images,rootdir

=head1 DESCRIPTION

Disks of virtual machines and containers as volumes of storaged, a replicated block storage that runs on the nodes
themselves or beside them. QEMU opens a disk over NBD, at the unix socket of a C<storaged-nbd> that each node runs once;
containers and TPM states have a block device of the host's kernel.

The package must be on all nodes of the cluster before the first storage of this type is added, also on those that shall
not use it: a node without it drops the section when it writes F</etc/pve/storage.cfg>.

=head1 OPTIONS

=over

=item B<storaged-pool> NAME

The pool that volumes are made in. Must be given, and stays.

=item B<storaged-prefix> NAME

What stands before the name of each volume in storaged; the pool's name and a dot if left out. It stays. Two clusters of
Proxmox VE that use one storaged need two prefixes.

=item B<storaged-socket> PATH

Where the node's storaged answers: F</var/lib/storaged/admin.sock> if left out. The same on all nodes.

=item B<storaged-endpoint> ADDRESSES

Where storaged is asked over the network, C<https://HOST:PORT>, up to 16 with commas between them: the first that answers
is asked. For nodes of Proxmox VE that have no storaged of their own; they can make, list, snapshot and delete volumes.
To start a guest a node needs a storaged-nbd, and that a storaged: keep guests to the others by B<nodes>, or by HA rules.

=item B<storaged-ca> PATH

What storaged is known by there: the certificate of its cluster's authority, which C<storagectl access authority> prints.
F</etc/pve/storaged-ca.pem> if left out, which Proxmox VE copies to all its nodes.

=item B<storaged-nbd-socket> PATH

Where the node's storaged-nbd listens: F</run/storaged-pve/nbd.sock> if left out. Its control socket is F<control.sock> in
the same folder.

=item B<storaged-status-timeout> SECONDS

How long the state of the storage may take to tell, 1 to 10; 2 if left out.

=item B<storaged-token> TOKEN

The access token that storaged is shown over the network: C<storagectl access create proxmox --role operator>. It is kept in
F</etc/pve/priv/storage>, and never in F<storage.cfg>. The node's own socket wants none.

=item B<nodes>, B<disable>, B<content>, B<shared>, B<bwlimit>

As with all storages. The type is known as shared; C<content> may be C<images>, C<rootdir> or both.

=back

=head1 NAMES

The volume C<vm-100-disk-0> is C<PREFIXvm-100-disk-0> in storaged. A template's disk C<base-100-disk-0> has a snapshot
C<base.template>, which is what its clones begin with and all that can be read of it. Snapshots have the same names in both,
except for those of Proxmox VE itself that begin with an underscore, which begin with C<pve.> in storaged.

=head1 SEE ALSO

F<docs/operations/proxmox.md> of storaged, L<pvesm(1)>.

=cut
