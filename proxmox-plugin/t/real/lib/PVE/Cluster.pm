package PVE::Cluster;

# Stands for Proxmox VE's cluster file system where its real PVE::Storage runs in a test: files are in a folder, locks are
# nobody's.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(cfs_register_file cfs_read_file cfs_write_file cfs_lock_file);
# Where the files are. A test says.
our $FOLDER;

my %known;

sub cfs_register_file {
    my ($name, $parse, $write) = @_;
    $known{$name} = [$parse, $write];
    return;
}

sub cfs_read_file {
    my ($name) = @_;
    my $text = q{};
    if (open my $file, '<', "$FOLDER/$name") {
        local $/ = undef;
        ($text) = (<$file> // q{}) =~ m/\A(.*)\z/s;
        close $file or die "$name: $!\n";
    }
    return $known{$name}[0]->($name, $text);
}

sub cfs_write_file {
    my ($name, $data) = @_;
    my $text = $known{$name}[1]->($name, $data);
    open my $file, '>', "$FOLDER/$name" or die "$name: $!\n";
    print {$file} $text or die "$name: $!\n";
    close $file or die "$name: $!\n";
    return;
}

sub cfs_lock_file { my ($name, $timeout, $work, @arguments) = @_; return scalar eval { $work->(@arguments) }; }
sub cfs_lock_storage { my ($storeid, $timeout, $work, @arguments) = @_; return scalar eval { $work->(@arguments) }; }
sub get_nodelist { return ['node1']; }
sub get_vmlist { return { ids => {} }; }
sub get_clinfo { return {}; }
sub check_cfs_quorum { return 1; }

1;
