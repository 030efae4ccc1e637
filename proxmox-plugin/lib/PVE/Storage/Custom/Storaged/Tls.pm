package PVE::Storage::Custom::Storaged::Tls;

# A connection over TLS to a storaged on another host, with a deadline. Whoever answers there must show a certificate that
# the cluster's authority signed for the name he was asked by.
#
# Knows nothing of HTTP or tokens. IO::Socket::SSL is loaded with the first such connection: nodes that have a storaged of
# their own do not need it.

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR EWOULDBLOCK);
use Exporter qw(import);
use IO::Select;
use IO::Socket::IP;
use Socket qw(SOCK_STREAM SOL_SOCKET SO_ERROR);

use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(connect_tls waits_for parse_endpoint);

# (host, port) of https://HOST:PORT; a host of colons is in brackets.
sub parse_endpoint {
    my ($endpoint) = @_;
    my ($host, $port) = plain('endpoint', $endpoint, 'an address of storaged-endpoint') =~ m{\Ahttps://(.+):([0-9]+)\z};
    return ($host =~ s/\A\[(.*)\]\z/$1/r, $port);
}

# A connection that does not block. Ends with a hash of kind and message; nothing was asked then.
sub connect_tls {
    my ($endpoint, $authority, $clock, $deadline) = @_;
    my ($host, $port) = parse_endpoint($endpoint);
    eval { require IO::Socket::SSL; 1 } or _fail('IO::Socket::SSL is not there: apt install libio-socket-ssl-perl');
    -r $authority or _fail("the certificate of its cluster's authority cannot be read from $authority ($!):"
        . ' `storagectl access authority` on one of its nodes prints it');
    my $socket = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port, Type => SOCK_STREAM, Blocking => 0)
        or _fail("nobody answers at $endpoint ($@)");
    until ($socket->connect) {
        my $cause = $!;
        last if $socket->connected;
        _fail("nobody answers at $endpoint ($cause)") unless $cause == EINPROGRESS || $cause == EWOULDBLOCK || $cause == EINTR;
        _wait($socket, 'can_write', $clock, $deadline) or _fail("nobody answers at $endpoint in time");
    }
    my $address_or_name = $host =~ m/[:]|\A[0-9.]+\z/ ? {} : { SSL_hostname => $host };
    my $secured = IO::Socket::SSL->start_SSL(
        $socket,
        SSL_startHandshake => 0,
        SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_PEER(),
        SSL_ca_file => $authority,
        SSL_verifycn_scheme => 'http',
        SSL_verifycn_name => $host,
        %$address_or_name,
    ) or _fail("$endpoint cannot be asked: " . _cause());
    until ($secured->connect_SSL) {
        my $what = waits_for($secured) or _fail("$endpoint is not believed: " . _cause());
        _wait($secured, $what, $clock, $deadline) or _fail("$endpoint does not agree on keys in time");
    }
    return $secured;
}

# What has to happen before a connection goes on: can_read or can_write; nothing if it does not.
sub waits_for {
    my ($socket) = @_;
    return unless $socket->isa('IO::Socket::SSL');
    my $wants = $IO::Socket::SSL::SSL_ERROR;
    return 'can_read' if $wants == IO::Socket::SSL::SSL_WANT_READ();
    return 'can_write' if $wants == IO::Socket::SSL::SSL_WANT_WRITE();
    return;
}

sub _wait {
    my ($socket, $what, $clock, $deadline) = @_;
    while ((my $left = $deadline - $clock->()) > 0) {
        return 1 if IO::Select->new($socket)->$what($left);
        return 0 unless $! == EINTR;
    }
    return 0;
}

sub _cause {
    my $cause = "$IO::Socket::SSL::SSL_ERROR" =~ s/[^\x20-\x7e]+/ /gr;
    return substr $cause, 0, 200;
}

# A failure is a hash here, as in Http.pm.
sub _fail {
    my ($message) = @_;
    die { kind => 'away', message => $message =~ s/\s+\z//r };
}

1;
