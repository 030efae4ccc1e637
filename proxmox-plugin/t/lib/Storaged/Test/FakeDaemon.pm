package Storaged::Test::FakeDaemon;

# Stands for storaged where a real one cannot be made to do it on command: to hang, to break off, to say nonsense. Does the
# same with each connection, and ends with this value.

use strict;
use warnings;

use IO::Socket::UNIX;
use POSIX ();

# What it does is given the connection and what was asked so far (up to the first empty line; nothing, if it speaks first).
sub start {
    my ($class, $socket, $answer, $speaks_first) = @_;
    unlink $socket;
    my $listener = IO::Socket::UNIX->new(Local => $socket, Listen => 8) or die "$socket: $!\n";
    my $pid = fork // die "fork: $!\n";
    return bless { pid => $pid, socket => $socket, owner => $$ }, $class if $pid;
    local $SIG{PIPE} = 'IGNORE';
    while (my $connection = $listener->accept) {
        my $asked = q{};
        while (!$speaks_first && $asked !~ m/\r\n\r\n/ && sysread $connection, $asked, 65536, length $asked) { }
        $answer->($connection, $asked);
        close $connection;
    }
    POSIX::_exit(0);
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local ($@, $?);
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    unlink $self->{socket};
    return;
}

1;
