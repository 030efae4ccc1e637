package PVE::Storage::Custom::Storaged::Http;

# One question over HTTP/1.1, on a unix socket or over TLS, with a deadline that holds for all of it: connecting, asking, the answer.
# Each question has a connection of its own, because PVE's daemons fork.
#
# Knows nothing of what is asked, nor of JSON.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EINPROGRESS EWOULDBLOCK);
use Exporter qw(import);
use IO::Select;
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

use PVE::Storage::Custom::Storaged::Plain qw(plain);
use PVE::Storage::Custom::Storaged::Tls qw(connect_tls waits_for);

our @EXPORT_OK = qw(exchange connect_until send_all receive now);

# The longest answer: of 100 000 volumes with notes.
my $BODY_MAX = 256 * 1024 * 1024;
# The longest head of an answer.
my $HEAD_MAX = 64 * 1024;
# Read at once, in bytes.
my $READ_SIZE = 256 * 1024;
# Between two attempts to connect to a socket whose queue is full, in seconds.
my $CONNECT_AGAIN_AFTER = 0.02;

# Seconds of a clock that nobody sets.
sub now {
    return clock_gettime(CLOCK_MONOTONIC);
}

# Asks and gives (status, body). Ends with a hash: kind (away: nobody listens, nothing was done; slow, broken: it may have
# been done) and message. Arguments: socket, or endpoint and authority (a file); method, path, body (bytes, or nothing),
# headers (list of lines), deadline, and a deadline for connecting, if that is an earlier one.
sub exchange {
    my (%question) = @_;
    my $deadline = $question{deadline};
    my $connected_by = $question{connected_by} // $deadline;
    my $socket = defined $question{endpoint}
        ? connect_tls($question{endpoint}, $question{authority}, \&now, $connected_by)
        : connect_until($question{socket}, $connected_by);
    my $body = $question{body};
    my @head = ("$question{method} $question{path} HTTP/1.1", 'Host: localhost', 'Connection: close');
    push @head, @{ $question{headers} // [] };
    push @head, 'Content-Type: application/json', 'Content-Length: ' . length $body if defined $body;
    send_all($socket, join("\r\n", @head, q{}, q{}) . ($body // q{}), $deadline);
    my ($status, $fields, $rest) = _head($socket, $deadline);
    return ($status, _body($socket, $fields, $rest, $deadline));
}

# A connection that does not block; waits while the queue of whoever listens is full.
sub connect_until {
    my ($path, $deadline) = @_;
    my $plain_path = eval { plain('path', $path, 'the path of a socket') } or _fail('away', $@ =~ s/\n\z//r);
    while (1) {
        my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $plain_path, Blocking => 0);
        return $socket if $socket;
        my $cause = $!;
        my $is_full = $cause == EAGAIN || $cause == EWOULDBLOCK || $cause == EINPROGRESS || $cause == EINTR;
        _fail('away', "nobody answers at $path ($cause)") unless $is_full;
        _fail('away', "$path takes no more connections") if now() > $deadline;
        sleep $CONNECT_AGAIN_AFTER;
    }
    return;
}

# Sends all of it until the deadline.
sub send_all {
    my ($socket, $bytes, $deadline) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $sent = 0;
    while ($sent < length $bytes) {
        my $count = syswrite $socket, $bytes, length($bytes) - $sent, $sent;
        if (defined $count) {
            $sent += $count;
        } elsif ($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR) {
            _wait_for($socket, waits_for($socket) // 'can_write', $deadline);
        } else {
            _fail('broken', "the connection broke while a request was sent ($!)");
        }
    }
    return;
}

# Some bytes, at most so many; nothing at the end.
sub receive {
    my ($socket, $size, $deadline) = @_;
    while (1) {
        my $bytes;
        my $count = sysread $socket, $bytes, $size;
        if (defined $count) {
            return if $count == 0;
            return plain('bytes', $bytes, 'what was read');
        }
        _fail('broken', "the connection broke while an answer was read ($!)")
            unless $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
        _wait_for($socket, waits_for($socket) // 'can_read', $deadline);
    }
    return;
}

sub _wait_for {
    my ($socket, $what, $deadline) = @_;
    my $left = $deadline - now();
    return if $left > 0 && IO::Select->new($socket)->$what($left);
    _fail('slow', 'there was no answer in time') unless $left > 0 && $! == EINTR;
    return;
}

# The status, the fields of the head by their names in small letters, and what came behind the head.
sub _head {
    my ($socket, $deadline) = @_;
    my $read = q{};
    until ($read =~ m/\r\n\r\n/) {
        _fail('broken', 'the answer has a head without an end') if length $read > $HEAD_MAX;
        my $more = receive($socket, $READ_SIZE, $deadline);
        _fail('broken', 'the answer broke off') unless defined $more;
        $read .= $more;
    }
    my ($head, $rest) = split m/\r\n\r\n/, $read, 2;
    my ($first, @lines) = split m/\r\n/, $head;
    my ($status) = ($first // q{}) =~ m{\AHTTP/1\.[01] ([1-5][0-9]{2})(?: |\z)}
        or _fail('broken', 'the answer is not HTTP');
    my %fields = map { m/\A([A-Za-z0-9-]+):[ \t]*(.*?)[ \t]*\z/ ? (lc $1, $2) : () } @lines;
    return ($status, \%fields, $rest);
}

sub _body {
    my ($socket, $fields, $rest, $deadline) = @_;
    my $more = sub {
        _fail('broken', 'the answer is too long') if length $rest > $BODY_MAX;
        my $read = receive($socket, $READ_SIZE, $deadline);
        $rest .= $read if defined $read;
        return defined $read;
    };
    if (lc($fields->{'transfer-encoding'} // q{}) eq 'chunked') {
        return _chunks(\$rest, $more);
    }
    my $length = $fields->{'content-length'};
    if (!defined $length) {
        1 while $more->();
        return $rest;
    }
    _fail('broken', 'the answer has a length that is none') if $length !~ m/\A[0-9]{1,12}\z/;
    _fail('broken', 'the answer is too long') if $length > $BODY_MAX;
    while (length $rest < $length) {
        $more->() or _fail('broken', 'the answer broke off');
    }
    return substr $rest, 0, $length;
}

sub _chunks {
    my ($rest, $more) = @_;
    my $body = q{};
    my $need = sub { $more->() or _fail('broken', 'the answer broke off'); return; };
    while (1) {
        $need->() until $$rest =~ m/\r\n/;
        $$rest =~ s/\A([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?\r\n// or _fail('broken', 'the answer has a chunk that is none');
        my $size = hex $1;
        return $body if $size == 0;
        _fail('broken', 'the answer is too long') if length($body) + $size > $BODY_MAX;
        $need->() while length $$rest < $size + 2;
        $body .= substr $$rest, 0, $size;
        substr($$rest, $size, 2) eq "\r\n" or _fail('broken', 'the answer has a chunk without an end');
        $$rest = substr $$rest, $size + 2;
    }
    return;
}

# A failure is a hash here, for whoever asked to make a sentence of it: Perl adds no place to it.
sub _fail {
    my ($kind, $message) = @_;
    die { kind => $kind, message => $message };
}

1;
