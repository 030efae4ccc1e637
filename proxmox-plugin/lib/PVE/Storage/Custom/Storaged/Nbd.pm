package PVE::Storage::Custom::Storaged::Nbd;

# A client of the NBD gateway on a unix socket: opens one export by its name, reads, writes, flushes. For streams of whole
# volumes, one request at a time. docs/protocol/nbd.md of storaged's sources names the documents.
#
# Knows nothing of volumes' names, nor of where the data comes from or goes to.

use strict;
use warnings;

use PVE::Storage::Custom::Storaged::Http qw(connect_until send_all receive now);
use PVE::Storage::Custom::Storaged::Plain qw(plain);

my $GREETING = 'NBDMAGIC';
my $OPTION_MAGIC = 'IHAVEOPT';
my $OPTION_REPLY_MAGIC = pack 'N N', 0x0003e889, 0x045565a9;
my $REQUEST_MAGIC = 0x25609513;
my $REPLY_MAGIC = 0x67446698;
my ($OPTION_GO, $REPLY_ACK, $REPLY_INFO, $REPLY_IS_ERROR) = (7, 1, 3, 0x80000000);
my ($FIXED_NEWSTYLE, $NO_ZEROES) = (1, 2);
my ($FLAG_READ_ONLY) = (2);
my ($COMMAND_READ, $COMMAND_WRITE, $COMMAND_DISCONNECT, $COMMAND_FLUSH) = (0, 1, 2, 3);
# Replies to an option that are read before it is given up, and the longest one.
my $OPTION_REPLIES_MAX = 64;
my $OPTION_REPLY_SIZE_MAX = 8192;
my $READ_SIZE = 1024 * 1024;

# How long opening, and each request, may take, in seconds: requests wait while storage is away.
our $PATIENCE = 60;
# What is asked for at once, in bytes: every server takes 32 MiB, and a volume has objects of 4 MiB.
our $REQUEST_SIZE = 4 * 1024 * 1024;

# Whether a gateway answers there, within so many seconds.
sub answers {
    my ($socket, $timeout) = @_;
    return eval {
        my $self = { connection => connect_until($socket, now() + $timeout), rest => q{} };
        bless $self, __PACKAGE__;
        $self->_take(8, now() + $timeout) eq $GREETING;
    };
}

# Opens an export. Ends with a sentence.
sub new {
    my ($class, $socket, $export) = @_;
    my $deadline = now() + $PATIENCE;
    my $self = bless { export => plain('export', $export, 'the name of an export'), rest => q{} }, $class;
    $self->_within(sub {
        $self->{connection} = connect_until($socket, $deadline);
        $self->_open($deadline);
        return;
    });
    return $self;
}

# The export's size in bytes.
sub size { my ($self) = @_; return $self->{size}; }
sub is_read_only { my ($self) = @_; return $self->{flags} & $FLAG_READ_ONLY; }

# So many bytes from there.
sub read_at {
    my ($self, $offset, $length) = @_;
    return $self->_request($COMMAND_READ, $offset, $length, q{}, $length);
}

# Writes bytes there.
sub write_at {
    my ($self, $offset, $bytes) = @_;
    $self->_request($COMMAND_WRITE, $offset, length $bytes, $bytes, 0);
    return;
}

# Returns when all that was written is durable.
sub flush {
    my ($self) = @_;
    $self->_request($COMMAND_FLUSH, 0, 0, q{}, 0);
    return;
}

# Says goodbye, and waits until the gateway has hung up: then it has let go of the volume, or is about to.
sub finish {
    my ($self) = @_;
    my $deadline = now() + 5;
    eval {
        send_all($self->{connection}, _frame($COMMAND_DISCONNECT, 0, 0), $deadline);
        1 while defined receive($self->{connection}, $READ_SIZE, $deadline);
    };
    return;
}

sub _open {
    my ($self, $deadline) = @_;
    my ($greeting, $magic, $flags) = unpack 'a8 a8 n', $self->_take(18, $deadline);
    die "it is no NBD server\n" if $greeting ne $GREETING || $magic ne $OPTION_MAGIC;
    die "it is too old a server\n" unless $flags & $FIXED_NEWSTYLE;
    my $question = pack 'N/a* n', $self->{export}, 0;
    my $answer = pack 'N', $FIXED_NEWSTYLE | ($flags & $NO_ZEROES);
    send_all($self->{connection}, $answer . pack('a8 N N/a*', $OPTION_MAGIC, $OPTION_GO, $question), $deadline);
    for (1 .. $OPTION_REPLIES_MAX) {
        my ($reply_magic, $option, $kind, $length) = unpack 'a8 N N N', $self->_take(20, $deadline);
        die "the server's answer is not understood\n"
            if $reply_magic ne $OPTION_REPLY_MAGIC || $option != $OPTION_GO || $length > $OPTION_REPLY_SIZE_MAX;
        my $data = $self->_take($length, $deadline);
        die _refusal($kind, $data) if $kind & $REPLY_IS_ERROR;
        if ($kind == $REPLY_ACK) {
            die "the server did not say how large it is\n" unless defined $self->{size};
            return;
        }
        if ($kind == $REPLY_INFO && $length == 12 && unpack('n', $data) == 0) {
            my ($size, $export_flags) = unpack 'x2 Q> n', $data;
            $self->{size} = plain('integer', $size, 'the size of an export');
            $self->{flags} = $export_flags;
        }
    }
    die "the server does not come to an end\n";
}

sub _refusal {
    my ($kind, $data) = @_;
    $data =~ s/[^\x20-\x7e]+/ /g;
    return length $data ? "$data\n" : sprintf "it was refused (%#x)\n", $kind;
}

sub _request {
    my ($self, $command, $offset, $length, $payload, $answer_length) = @_;
    my $deadline = now() + $PATIENCE;
    return $self->_within(sub {
        send_all($self->{connection}, _frame($command, $offset, $length) . $payload, $deadline);
        my ($magic, $error) = unpack 'N N', $self->_take(16, $deadline);
        die "the server's answer is not understood\n" if $magic != $REPLY_MAGIC;
        if ($error) {
            local $! = $error;
            die "$!\n";
        }
        return $self->_take($answer_length, $deadline);
    });
}

# One request is under way at a time, so each may have the same cookie.
sub _frame {
    my ($command, $offset, $length) = @_;
    return pack 'N n n Q> Q> N', $REQUEST_MAGIC, 0, $command, 0, $offset, $length;
}

# Exactly so many bytes.
sub _take {
    my ($self, $size, $deadline) = @_;
    while (length $self->{rest} < $size) {
        my $more = receive($self->{connection}, $READ_SIZE, $deadline);
        die "the server hung up\n" unless defined $more;
        $self->{rest} .= $more;
    }
    return substr $self->{rest}, 0, $size, q{};
}

# Does it, and makes a sentence of what goes wrong.
sub _within {
    my ($self, $work) = @_;
    my $done = eval { [$work->()] };
    return $done->[0] if $done;
    my $failure = $@;
    my $message = ref $failure ? $failure->{message} : $failure =~ s/\s+\z//r;
    die "the NBD gateway does not serve '$self->{export}': $message\n";
}

1;
