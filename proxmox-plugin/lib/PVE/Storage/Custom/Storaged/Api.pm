package PVE::Storage::Custom::Storaged::Api;

# The admin API of this node's storaged, or of one that is asked over the network, as one storage sees it: questions, answers, and what went wrong as a sentence that
# names the storage. What the paths and words are is in crates/admin-api of storaged's sources.
#
# Knows no names of PVE, and keeps no connection.

use strict;
use warnings;

use JSON;
use Time::HiRes qw(sleep);

use PVE::Storage::Custom::Storaged::Http qw(exchange now);
use PVE::Storage::Custom::Storaged::Names qw(prefix_of);
use PVE::Storage::Custom::Storaged::Plain qw(plain);

our $SOCKET_DEFAULT = '/var/lib/storaged/admin.sock';
# What the cluster is known by over the network. PVE copies what is in /etc/pve to all nodes.
our $AUTHORITY_DEFAULT = '/etc/pve/storaged-ca.pem';
# The most addresses of a storage.
my $ENDPOINTS_MAX = 16;
# Which address of a storage answered last: it is asked first, by this process.
my %answered;
# Where tokens are. Only root may look there, on every node of the cluster.
our $TOKEN_FOLDER = '/etc/pve/priv/storage';
# How long a question may take, in seconds, if nothing else is said: half of what PVE's locks on storages allow.
our $PATIENCE = 30;
# How long a change is tried again while the volume is still being closed, in seconds. A gateway takes some milliseconds,
# in which the volume is in use, or its owner leaves while it is asked to hold still.
our $CLOSING_PATIENCE = 5;
# How long what is not there is asked for again, in seconds: a node hears of what was made on another one a moment later.
our $HEARSAY_PATIENCE = 2;
# Between two attempts.
my $TRY_AGAIN_AFTER = 0.1;
# How often a change is tried again that others came in the way of.
my $CONFLICTS_MAX = 5;

# For a storage of this name and section.
sub new {
    my ($class, $storeid, $scfg) = @_;
    my $self = {
        storage => plain('storage', $storeid, 'the name of a storage'),
        socket => plain('path', $scfg->{'storaged-socket'} // $SOCKET_DEFAULT, 'storaged-socket'),
        pool => plain('name', $scfg->{'storaged-pool'}, 'storaged-pool'),
        prefix => prefix_of($scfg),
        endpoints => [endpoints_of($scfg)],
        authority => plain('path', $scfg->{'storaged-ca'} // $AUTHORITY_DEFAULT, 'storaged-ca'),
    };
    return bless $self, $class;
}

# The addresses over the network that a section names; none: the node's own socket is asked.
sub endpoints_of {
    my ($scfg) = @_;
    my @endpoints = map { plain('endpoint', $_, 'an address of storaged-endpoint') } split m/,/, $scfg->{'storaged-endpoint'} // q{};
    die "storaged-endpoint has at most $ENDPOINTS_MAX addresses\n" if @endpoints > $ENDPOINTS_MAX;
    return @endpoints;
}

# Which daemon this asks.
sub address { my ($self) = @_; return @{ $self->{endpoints} } ? join q{,}, @{ $self->{endpoints} } : $self->{socket}; }
sub pool { my ($self) = @_; return $self->{pool}; }
sub prefix { my ($self) = @_; return $self->{prefix}; }

# The answer, or the end with a sentence. Options: body (a value that becomes JSON), timeout (seconds), closing (try for a
# while: somebody may be closing the volume just now), late (try for a while: it may have been made on another node).
sub ask {
    my ($self, $method, $path, %options) = @_;
    my ($answer, $failure) = $self->try_to($method, $path, %options);
    die $self->sentence($failure) if $failure;
    return $answer;
}

# The answer, or (nothing, what went wrong): a hash of kind and message.
sub try_to {
    my ($self, $method, $path, %options) = @_;
    my $closing_until = now() + ($options{closing} ? $CLOSING_PATIENCE : 0);
    my $late_until = now() + ($options{late} ? $HEARSAY_PATIENCE : 0);
    my $conflicts = 0;
    while (1) {
        my ($answer, $failure) = $self->_once($method, $path, %options);
        return ($answer, undef) unless $failure;
        my $again = $failure->{kind} =~ m/\A(?:in_use|unavailable)\z/ ? now() < $closing_until
            : $failure->{kind} eq 'not_found' ? now() < $late_until
            : $failure->{kind} eq 'conflict' ? $conflicts++ < $CONFLICTS_MAX
            : 0;
        return (undef, $failure) unless $again;
        sleep $TRY_AGAIN_AFTER;
    }
    return;
}

# A failure as what PVE shows.
sub sentence {
    my ($self, $failure) = @_;
    my $about = "storage '$self->{storage}'";
    my $where = @{ $self->{endpoints} } ? 'there' : 'on this node';
    return "$about: storaged does not answer: $failure->{message}. Is storaged running $where?\n"
        if $failure->{kind} eq 'away';
    if ($failure->{kind} eq 'slow' || $failure->{kind} eq 'broken') {
        my $doubt = $failure->{is_change} ? '. Whether it did what was asked is not known' : q{};
        return "$about: storaged gave no answer: $failure->{message}$doubt\n";
    }
    return "$about: $failure->{message}\n";
}

sub _once {
    my ($self, $method, $path, %options) = @_;
    my @headers = ('Accept: application/json');
    my $token = $self->_token();
    push @headers, "Authorization: Bearer $token" if defined $token;
    my $body = exists $options{body} ? JSON->new->utf8->canonical->encode($options{body}) : undef;
    my %question = (
        method => $method, path => $path, headers => \@headers, body => $body,
        deadline => now() + ($options{timeout} // $PATIENCE),
    );
    my ($status, $text, $failed) = @{ $self->{endpoints} } ? $self->_over_network(%question) : _asked(socket => $self->{socket}, %question);
    return (undef, { %$failed, is_change => $method ne 'GET' }) if $failed;
    return ({}, undef) if $status == 204;
    my $answer = eval { JSON->new->utf8->decode($text) };
    return ($answer, undef) if $status < 300 && ref $answer eq 'HASH';
    return (undef, { %{ _failure($status, $answer) }, is_change => $method ne 'GET' });
}

# (status, text), or (nothing, nothing, what went wrong).
sub _asked {
    my (%question) = @_;
    my ($status, $text) = eval { exchange(%question) };
    my $failure = $@ or return ($status, $text);
    return (undef, undef, ref $failure ? $failure : { kind => 'broken', message => $failure =~ s/\s+\z//r });
}

# The same, of the first address that answers. Whoever could not be reached was asked nothing, so the next one may be asked.
sub _over_network {
    my ($self, %question) = @_;
    my $last = $answered{ $self->address() };
    my @endpoints = sort { (defined $last && $b eq $last) <=> (defined $last && $a eq $last) } @{ $self->{endpoints} };
    my @failures;
    while (defined(my $endpoint = shift @endpoints)) {
        my $left = $question{deadline} - now();
        my ($status, $text, $failed) = _asked(
            %question,
            endpoint => $endpoint,
            authority => $self->{authority},
            # So that there is time left for the others.
            connected_by => now() + $left / (1 + @endpoints),
        );
        $answered{ $self->address() } = $endpoint if defined $status;
        return ($status, $text, $failed) unless $failed && $failed->{kind} eq 'away';
        push @failures, $failed->{message};
    }
    return (undef, undef, { kind => 'away', message => join '; ', @failures });
}

# What an answer says that is no success.
sub _failure {
    my ($status, $answer) = @_;
    return { kind => 'broken', message => 'the answer is not understood' } if $status < 300;
    my ($kind, $message) = ref $answer eq 'HASH' ? @$answer{qw(kind message)} : ();
    my $known = eval { plain('name', $kind, 'a kind of error') } // 'unknown';
    return { kind => $known, message => "storaged answered with status $status" }
        unless defined $message && !ref $message && length $message;
    return { kind => $known, message => _one_line($message) };
}

sub _one_line {
    my ($message) = @_;
    $message =~ s/[^\x20-\x7e]+/ /g;
    return plain('line', substr($message, 0, 1000), 'a message of storaged');
}

sub token_file {
    my ($storeid) = @_;
    return "$TOKEN_FOLDER/" . plain('storage', $storeid, 'the name of a storage') . '.storaged.token';
}

# The token, if there is one. Read for each question: the file is on every node, and may change.
sub _token {
    my ($self) = @_;
    open my $file, '<', token_file($self->{storage}) or return;
    my $line = <$file>;
    close $file or return;
    return unless defined $line;
    $line =~ s/\s+\z//;
    return plain('token', $line, "the token of storage '$self->{storage}'");
}

# All volumes of the pool, as storaged tells of them. Kept in PVE's cache, if one is given, for as long as that lives.
sub volumes {
    my ($self, $cache) = @_;
    my $key = 'storaged:' . $self->address() . ":$self->{pool}";
    return $cache->{$key} if $cache && $cache->{$key};
    my $answer = $self->ask('GET', "/v1/volumes?pool=$self->{pool}");
    my $volumes = $answer->{volumes};
    die "storage '$self->{storage}': storaged's list of volumes is not understood\n" if ref $volumes ne 'ARRAY';
    $cache->{$key} = $volumes if $cache;
    return $volumes;
}

# What storaged tells of a volume, by its name there; the end if there is none.
sub volume {
    my ($self, $name, %options) = @_;
    return $self->ask('GET', "/v1/volumes/$name", %options);
}

1;
