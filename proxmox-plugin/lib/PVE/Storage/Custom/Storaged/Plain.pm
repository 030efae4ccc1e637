package PVE::Storage::Custom::Storaged::Plain;

# What came from outside (answers, files, requests) as plain values: checked by a pattern, and by that untainted. Every
# such value passes here before it is put into a path, a command, a request or an answer to PVE.
#
# Knows nothing of storages, sockets or commands.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(plain);

# Perl's integers go up to 2**63 - 1 where PVE counts bytes: 18 digits are always below that.
my %PATTERN_OF = (
    integer => qr/\A(0|[1-9][0-9]{0,17})\z/,
    vmid => qr/\A([1-9][0-9]{2,8})\z/,
    name => qr/\A([A-Za-z0-9][A-Za-z0-9._-]{0,127})\z/,
    export => qr/\A([A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:\@[A-Za-z0-9][A-Za-z0-9._-]{0,127})?)\z/,
    storage => qr/\A([A-Za-z][A-Za-z0-9._-]{0,99})\z/,
    path => qr{\A((?:/[A-Za-z0-9._\@+-]+)+)\z},
    endpoint => qr{\A(https://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5})\z},
    token => qr/\A([\x21-\x7e]{1,4096})\z/,
    line => qr/\A([\x20-\x7e]{0,4096})/,
    text => qr/\A(.*)\z/s,
    bytes => qr/\A(.*)\z/s,
);

# The value, untainted, or the end: "the size in storaged's answer is not an integer". A path may not climb.
sub plain {
    my ($kind, $value, $what) = @_;
    my $pattern = $PATTERN_OF{$kind} or die "there is no kind of value '$kind'\n";
    if (defined $value && $value =~ $pattern) {
        my $checked = $1;
        return $checked if $kind ne 'path' || $checked !~ m{/\.\.?(?:/|\z)};
    }
    my $shown = defined $value ? substr $value, 0, 80 : 'nothing';
    $shown =~ s/[^\x20-\x7e]/?/g;
    die "$what is not of the kind '$kind': $shown\n";
}

1;
