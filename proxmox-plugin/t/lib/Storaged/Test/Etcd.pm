package Storaged::Test::Etcd;

# A real etcd of one member on loopback ports, for nodes of a cluster. Ends with this value.

use strict;
use warnings;

use File::Path qw(remove_tree);
use IO::Socket::INET;

use Storaged::Test::Node qw(find_program new_folder spawn until_true);

# A program that is installed, or that xtask has unpacked beside what cargo builds.
sub program {
    my $root = __FILE__ =~ m{\A(.*)/proxmox-plugin/t/lib/} ? $1 : '..';
    my ($built) = ($ENV{STORAGED_PROGRAMS} // "$root/target/debug") =~ m{\A(.*)/[^/]+\z};
    my $found = find_program('etcd') // "$built/etcd/usr/bin/etcd";
    my ($path) = $found =~ m/\A(.*)\z/;
    die "there is no etcd: apt install etcd-server\n" unless -x $path;
    return $path;
}

sub start {
    my ($class) = @_;
    my $folder = new_folder();
    my @held = map { IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "no port: $!\n" } 1 .. 2;
    my ($client, $peer) = map { 'http://127.0.0.1:' . ($_->sockport =~ m/\A([0-9]+)\z/)[0] } @held;
    close $_ for @held;
    my $self = bless { folder => $folder, owner => $$, endpoint => $client }, $class;
    $self->{pid} = spawn(
        "$folder/etcd.log", program(), '--data-dir', "$folder/data", '--name', 'one', '--listen-client-urls', $client,
        '--advertise-client-urls', $client, '--listen-peer-urls', $peer, '--initial-advertise-peer-urls', $peer,
        '--initial-cluster', "one=$peer", '--heartbeat-interval', 50, '--election-timeout', 500,
    );
    my ($port) = $client =~ m/([0-9]+)\z/;
    until_true('etcd to answer', sub { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port); });
    return $self;
}

sub endpoint { my ($self) = @_; return $self->{endpoint}; }

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local ($@, $?);
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    remove_tree($self->{folder});
    return;
}

1;
