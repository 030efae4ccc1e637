package PVE::Storage::Custom::Storaged::Gateway;

# The NBD gateway of this node, one storaged-nbd for all storages that name its socket: started when it is not there, told
# to end connections, and the host's block devices over it.
#
# Knows nothing of PVE's names.

use strict;
use warnings;

use JSON;
use PVE::Tools;
use Time::HiRes qw(sleep);

use PVE::Storage::Custom::Storaged::Http qw(exchange now);
use PVE::Storage::Custom::Storaged::Nbd;
use PVE::Storage::Custom::Storaged::Plain qw(plain);

our $SOCKET_DEFAULT = '/run/storaged-pve/nbd.sock';
our $SYSTEMCTL = '/usr/bin/systemctl';
our $ATTACH = '/usr/bin/storaged-attach';
# The gateway, and what gives the host's block devices another connection after its restart.
our $UNIT = 'storaged-pve-nbd.service';
our $ATTACH_UNIT = 'storaged-pve-attach.service';
# How long a guest's requests wait for a gateway that is away before they fail, in seconds.
our $RECONNECT_DELAY = 300;
# Where block devices are, and where the kernel tells of them.
our $DEVICES = '/dev/storaged';
our $BLOCK = '/sys/class/block';

# How long a gateway may take to say who it is, in seconds.
our $ANSWER_TIMEOUT = 1;
# How long it may take to start.
our $START_TIMEOUT = 10;
# How long a change of block devices may take: the kernel asks the gateway, and that the disks.
my $ATTACH_TIMEOUT = 30;
# How long a block device may take to show its volume's new size; storaged-attach looks each three seconds.
our $GROWTH_TIMEOUT = 15;
# How long a block device that is in use may be so until it is told of: udev looks into each that was just closed.
our $IN_USE_TIMEOUT = 3;
my $LOOK_AGAIN_AFTER = 0.1;
my $CONTROL_TIMEOUT = 10;

# That of a storage's section.
sub new {
    my ($class, $storeid, $scfg) = @_;
    my $self = {
        storage => plain('storage', $storeid, 'the name of a storage'),
        socket => plain('path', $scfg->{'storaged-nbd-socket'} // $SOCKET_DEFAULT, 'storaged-nbd-socket'),
    };
    return bless $self, $class;
}

sub address { my ($self) = @_; return $self->{socket}; }

# The address for those whom PVE gives a path. In a -drive, which guests of older machines have, QEMU takes what follows the
# comma for an option of the disk: with it, requests wait for a gateway. For all others it is a part of the socket's name, and
# the socket has that name, too.
sub path_address {
    my ($self) = @_;
    return "$self->{socket},file.reconnect-delay=$RECONNECT_DELAY";
}

# Returns when the gateway answers, at both its names; starts it, if it does not. Ends with a sentence.
sub ensure {
    my ($self) = @_;
    $self->_start();
    my $link = $self->path_address();
    my ($name) = $self->{socket} =~ m{([^/]+)\z};
    symlink $name, $link or $!{EEXIST} or die "storage '$self->{storage}': $link cannot be made: $!\n";
    return;
}

sub _start {
    my ($self) = @_;
    return if PVE::Storage::Custom::Storaged::Nbd::answers($self->{socket}, $ANSWER_TIMEOUT);
    my $deadline = now() + $START_TIMEOUT;
    eval { _run([$SYSTEMCTL, 'start', $UNIT], $START_TIMEOUT) };
    my $cause = $@ =~ s/\s+\z//r;
    while (now() < $deadline) {
        return if PVE::Storage::Custom::Storaged::Nbd::answers($self->{socket}, $ANSWER_TIMEOUT);
        last if length $cause;
        sleep $LOOK_AGAIN_AFTER;
    }
    die "storage '$self->{storage}': the NBD gateway does not answer at $self->{socket}; see systemctl status $UNIT"
        . (length $cause ? " ($cause)\n" : "\n");
}

# Ends the connections to an export, so that its clients make others and see its new size. Whether there were any.
sub disconnect {
    my ($self, $export) = @_;
    my $control = $self->{socket} =~ s{[^/]+\z}{control.sock}r;
    my ($status, $text) = eval {
        exchange(
            socket => $control,
            method => 'POST',
            path => '/v1/exports/' . plain('export', $export, 'the name of an export') . '/disconnect',
            deadline => now() + $CONTROL_TIMEOUT,
        );
    };
    if (my $failure = $@) {
        die 'the gateway: ' . (ref $failure ? "$failure->{message}\n" : $failure);
    }
    return 1 if $status < 300;
    my $answer = eval { JSON->new->utf8->decode($text) };
    my $message = ref $answer eq 'HASH' ? $answer->{message} // q{} : q{};
    # Its word for a path that it does not have, unlike that for an export which nobody has open.
    die "the gateway cannot end connections: it is of an older version\n" if $message =~ m/\Athere is nothing at /;
    return 0 if $status == 404;
    die "the gateway answered with status $status\n";
}

# Where an export's block device is or would be.
sub device {
    my ($self, $export) = @_;
    return plain('path', "$DEVICES/$export", 'the path of a block device');
}

# Makes an export a block device, or finds it; its path.
sub map_device {
    my ($self, $export) = @_;
    # Devices work without it, until the gateway is started again.
    eval { _run([$SYSTEMCTL, 'start', $ATTACH_UNIT], $START_TIMEOUT); 1 } or warn "$ATTACH_UNIT: $@";
    my @lines = $self->_attach('map', $export);
    return plain('path', $lines[-1], 'what storaged-attach printed');
}

# Ends an export's block device, if there is one and nobody uses it.
sub unmap_device {
    my ($self, $export) = @_;
    my $deadline = now() + $IN_USE_TIMEOUT;
    while (-l $self->device($export)) {
        return if eval { $self->_attach('unmap', $export); 1 };
        die $@ if $@ !~ m/in use/ || now() > $deadline;
        sleep $LOOK_AGAIN_AFTER;
    }
    return;
}

# Waits until an export's block device, if there is one, shows at least this size.
sub wait_for_growth {
    my ($self, $export, $size) = @_;
    my $device = readlink $self->device($export);
    return unless defined $device && $device =~ m{\A(?:/dev/|(?:\.\./)+)?(nbd[0-9]{1,6})\z};
    my $name = $1;
    my $deadline = now() + $GROWTH_TIMEOUT;
    while (now() < $deadline) {
        return if (_sectors("$BLOCK/$name/size") // 0) * 512 >= $size;
        sleep $LOOK_AGAIN_AFTER;
    }
    die "/dev/$name does not show the new size: see systemctl status $ATTACH_UNIT\n";
}

sub _sectors {
    my ($path) = @_;
    open my $file, '<', $path or return;
    my $line = <$file>;
    close $file or return;
    chomp $line if defined $line;
    return eval { plain('integer', $line, $path) };
}

sub _attach {
    my ($self, $verb, $export) = @_;
    my @command = ($ATTACH, '--gateway', "unix:$self->{socket}", $verb, plain('export', $export, 'the name of an export'));
    my @lines = eval { _run(\@command, $ATTACH_TIMEOUT) };
    if (my $cause = $@) {
        $cause =~ s/\s+\z//;
        die "storage '$self->{storage}': $export: $cause\n";
    }
    return @lines;
}

# The lines that a command printed; ends with what it said if it failed.
sub _run {
    my ($command, $timeout) = @_;
    my (@printed, @said);
    eval {
        PVE::Tools::run_command(
            $command,
            timeout => $timeout,
            outfunc => sub { my ($line) = @_; push @printed, $line; return; },
            errfunc => sub { my ($line) = @_; push @said, $line; return; },
        );
    };
    if (my $cause = $@) {
        my $message = @said ? join q{ }, @said : "$cause";
        $message =~ s/[^\x20-\x7e]+/ /g;
        die substr($message, 0, 1000) . "\n";
    }
    return @printed;
}

1;
