package Storaged::Test::Qemu;

# A real QEMU, with the monitor where Proxmox VE has it. No guest runs in it: what one would ask for is asked for by QEMU's
# own qemu-io, on the node that the guest's disk would have. Ends with this value.

use strict;
use warnings;

use IO::Socket::UNIX;
use JSON;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time);

use Storaged::Test::Node qw(find_program until_true spawn);

my $ANSWER_TIMEOUT = 60;

# Starts it with these arguments for the guest of this number.
sub start {
    my ($class, $folder, $vmid, @arguments) = @_;
    my $self = bless { monitor => "$folder/$vmid.qmp", owner => $$, log => "$folder/qemu-$vmid.log" }, $class;
    my $program = find_program('qemu-system-x86_64') // die "there is no qemu-system-x86_64: apt install qemu-system-x86\n";
    # As PVE starts it: one client at a time.
    my @monitor = ('-chardev', "socket,id=qmp,path=$self->{monitor},server=on,wait=off", '-mon', 'chardev=qmp,mode=control');
    # What its qemu-io says goes to its standard output, and must not wait there.
    my $lines = find_program('stdbuf') // die "there is no stdbuf: apt install coreutils\n";
    $self->{pid} = spawn(
        $self->{log}, $lines, '-oL', $program, qw(-machine q35 -accel tcg -m 64 -nodefaults -display none -S), @monitor, @arguments,
    );
    until_true('QEMU to start', sub {
        die 'QEMU ended: ' . $self->said() . "\n" if waitpid($self->{pid}, WNOHANG) != 0;
        return IO::Socket::UNIX->new(Peer => $self->{monitor});
    });
    return $self;
}

sub monitor { my ($self) = @_; return $self->{monitor}; }

sub said {
    my ($self) = @_;
    open my $log, '<', $self->{log} or return q{};
    local $/ = undef;
    return <$log> // q{};
}

# The arguments with which PVE 9 gives a disk to a guest: a throttle over raw over what the plugin says.
sub disk_of_pve9 {
    my ($blockdev, %more) = @_;
    my $cache = { direct => JSON::true, 'no-flush' => JSON::false };
    my $chain = {
        driver => 'throttle', 'node-name' => 'drive-scsi0', 'throttle-group' => 'throttle-drive-scsi0',
        discard => 'unmap', 'detect-zeroes' => 'on',
        file => {
            driver => 'raw', 'node-name' => 'f0123456789abcdef', cache => $cache, 'detect-zeroes' => 'on', discard => 'unmap',
            file => { %$blockdev, 'node-name' => 'e0123456789abcdef', cache => $cache, 'detect-zeroes' => 'on', discard => 'unmap', %more },
            %more,
        },
        %more,
    };
    return (
        '-object', '{"id":"throttle-drive-scsi0","qom-type":"throttle-group"}',
        '-blockdev', JSON->new->canonical->encode($chain),
        '-device', 'virtio-scsi-pci,id=scsihw0', '-device', 'scsi-hd,bus=scsihw0.0,scsi-id=0,drive=drive-scsi0,id=scsi0',
    );
}

# And those of PVE 8: the path in a -drive.
sub disk_of_pve8 {
    my ($path) = @_;
    return (
        '-drive', "file=$path,if=none,id=drive-scsi0,format=raw,cache=none,aio=io_uring,detect-zeroes=on",
        '-device', 'virtio-scsi-pci,id=scsihw0', '-device', 'scsi-hd,bus=scsihw0.0,scsi-id=0,drive=drive-scsi0,id=scsi0',
    );
}

# Asks the monitor; the answer, or the end with what it says.
sub ask {
    my ($self, $command, $arguments) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => $self->{monitor}) or die "$self->{monitor}: $!\n";
    my $deadline = time + $ANSWER_TIMEOUT;
    my $rest = q{};
    my $line = sub {
        until ($rest =~ m/\n/) {
            die "QEMU does not answer '$command'\n" unless IO::Select->new($socket)->can_read($deadline - time);
            sysread $socket, $rest, 65536, length $rest or die "QEMU ended: " . $self->said() . "\n";
        }
        $rest =~ s/\A(.*?)\n//;
        return decode_json($1);
    };
    my $question = sub {
        syswrite $socket, encode_json({ execute => $_[0], arguments => $_[1] // {} });
        while (1) {
            my $answer = $line->();
            return $answer->{return} if exists $answer->{return};
            die "$answer->{error}{desc}\n" if $answer->{error};
        }
    };
    $line->();
    $question->('qmp_capabilities');
    return $question->($command, $arguments);
}

# What qemu-io says to a command that reads or writes the guest's disk.
sub io {
    my ($self, $command) = @_;
    my $before = length $self->said();
    my $refused = $self->ask('human-monitor-command', { 'command-line' => qq{qemu-io -d scsi0 "$command"} });
    die "$command: $refused\n" if $refused =~ m/\S/;
    return until_true("the end of '$command'", sub {
        my $said = substr $self->said(), $before;
        return $said =~ m/ops\/sec\)|fail/ && $said;
    });
}

sub crash {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return;
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local ($@, $?);
    $self->crash();
    return;
}

1;
