package PVE::Storage::Custom::Storaged::Qmp;

# Makes a running QEMU read from an export once, through its monitor: so it finds out that its connection was ended, makes
# another, and learns the export's new size from that. An idle guest would do so with its next request only, and PVE asks
# QEMU for a larger disk at once.
#
# Knows nothing of PVE's names, nor of why.

use strict;
use warnings;

use Exporter qw(import);
use JSON;

use PVE::Storage::Custom::Storaged::Http qw(connect_until send_all receive now);
use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(nodes_of provoke_read);

# The longest answer: QEMU describes each of its block nodes.
my $ANSWER_MAX = 16 * 1024 * 1024;
my $READ_SIZE = 256 * 1024;
# Lines that are passed over while an answer is awaited: QEMU reports events in between.
my $EVENTS_MAX = 1000;

# QEMU's NBD nodes of this export: name and socket of each. Ends with a sentence. The monitor has one client at a time: while
# PVE asks something itself, this waits until the deadline.
sub nodes_of {
    my ($monitor, $export, $timeout) = @_;
    return @{ _with_monitor($monitor, $timeout, sub { my ($self) = @_; return [$self->_nodes_of($export)]; }) };
}

# Reads from each of them once; how many there are. Ends with a sentence.
sub provoke_read {
    my ($monitor, $export, $timeout) = @_;
    return _with_monitor($monitor, $timeout, sub {
        my ($self) = @_;
        my @nodes = $self->_nodes_of($export);
        for my $name (map { $_->{name} } @nodes) {
            my $said = $self->_execute('human-monitor-command', { 'command-line' => qq{qemu-io $name "read 0 512"} });
            # It is silent about what it has read.
            die "reading from '$name' failed: " . _printable($said) . "\n" if ref $said || $said =~ m/\S/;
        }
        return scalar @nodes;
    });
}

sub _with_monitor {
    my ($monitor, $timeout, $work) = @_;
    my $self = bless { rest => q{}, deadline => now() + $timeout }, __PACKAGE__;
    my $done = eval {
        $self->{connection} = connect_until($monitor, $self->{deadline});
        $self->_line()->{QMP} or die "it is no monitor\n";
        $self->_execute('qmp_capabilities');
        [$work->($self)];
    };
    return $done->[0] if $done;
    my $failure = $@;
    my $message = ref $failure ? $failure->{message} : $failure =~ s/\s+\z//r;
    die "QEMU's monitor at $monitor: $message\n";
}

sub _nodes_of {
    my ($self, $export) = @_;
    my $nodes = $self->_execute('query-named-block-nodes', { flat => JSON::true });
    return map { _node_of($_, $export) } ref $nodes eq 'ARRAY' ? @$nodes : ();
}

# The node, if it is the export's.
sub _node_of {
    my ($node, $export) = @_;
    return unless ref $node eq 'HASH' && ($node->{drv} // q{}) eq 'nbd';
    my ($its_export, $socket) = _address_in($node->{file} // q{});
    return unless defined $its_export && $its_export eq $export;
    my ($name) = ($node->{'node-name'} // q{}) =~ m/\A(#?[A-Za-z0-9][A-Za-z0-9._-]*)\z/ or return;
    return { name => $name, socket => $socket // q{} };
}

# Export and socket, as QEMU describes a node: by an address, or by options where it has no such.
sub _address_in {
    my ($file) = @_;
    return ($1, $2) if $file =~ m{\Anbd\+unix:///(\S*?)\?socket=(\S*)\z};
    my ($text) = $file =~ m/\Ajson:(.*)\z/s or return;
    my $options = eval { JSON->new->utf8->decode($text) };
    return unless ref $options eq 'HASH';
    my $server = ref $options->{server} eq 'HASH' ? $options->{server} : { path => $options->{'server.path'} };
    return ($options->{export}, $server->{path});
}

sub _execute {
    my ($self, $command, $arguments) = @_;
    my $question = { execute => $command, $arguments ? (arguments => $arguments) : () };
    send_all($self->{connection}, JSON->new->utf8->encode($question) . "\n", $self->{deadline});
    for (1 .. $EVENTS_MAX) {
        my $answer = $self->_line();
        return $answer->{return} if exists $answer->{return};
        die _printable(ref $answer->{error} eq 'HASH' ? $answer->{error}{desc} : 'an error') . "\n"
            if exists $answer->{error};
    }
    die "it does not answer '$command'\n";
}

sub _line {
    my ($self) = @_;
    until ($self->{rest} =~ m/\n/) {
        die "its answer is too long\n" if length $self->{rest} > $ANSWER_MAX;
        my $more = receive($self->{connection}, $READ_SIZE, $self->{deadline});
        die "it hung up\n" unless defined $more;
        $self->{rest} .= $more;
    }
    (my $line, $self->{rest}) = split m/\n/, $self->{rest}, 2;
    my $message = eval { JSON->new->utf8->decode($line) };
    die "what it says is not understood\n" unless ref $message eq 'HASH';
    return $message;
}

sub _printable {
    my ($text) = @_;
    my $said = defined $text && !ref $text ? substr $text, 0, 500 : q{};
    $said =~ s/[^\x20-\x7e]+/ /g;
    return plain('line', $said, 'what QEMU said') =~ s/\s+\z//r;
}

1;
