# Streams of whole volumes, out of one storage and into another, over real gateways.
use strict;
use warnings;
use Test::More;

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Nbd;
use Storaged::Test::FakeDaemon;
use Storaged::Test::Node qw($STORAGE);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();
my $folder = $node->folder();

sub write_file {
    my ($path, $bytes) = @_;
    open my $file, '>:raw', $path or die "$path: $!\n";
    print {$file} $bytes;
    close $file or die "$path: $!\n";
    return;
}

sub read_file {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    local $/ = undef;
    my $bytes = <$file>;
    close $file or die "$path: $!\n";
    return $bytes;
}

sub export_into {
    my ($path, $volume, $snapshot) = @_;
    open my $file, '>:raw', $path or die "$path: $!\n";
    $plugin->volume_export($section, $STORAGE, $file, $volume, 'raw+size', $snapshot, undef, 0);
    close $file or die "$path: $!\n";
    return;
}

sub import_from {
    my ($path, $volume, $allow_rename) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    return $plugin->volume_import($section, $STORAGE, $file, $volume, 'raw+size', undef, undef, 0, $allow_rename);
}

sub volids { return [map { $_->{volid} } @{ $plugin->list_images($STORAGE, $section, undef, undef, {}) }]; }

is_deeply([$plugin->volume_export_formats($section, $STORAGE, 'vm-100-disk-0', undef, undef, 0)], ['raw+size'], 'what is sent');
is_deeply([$plugin->volume_export_formats($section, $STORAGE, 'vm-100-disk-0', 'monday', undef, 0)], ['raw+size'], 'also of a snapshot');
is_deeply([$plugin->volume_import_formats($section, $STORAGE, 'vm-100-disk-0', undef, undef, 0)], ['raw+size'], 'and taken');
for my $formats (qw(volume_export_formats volume_import_formats)) {
    is_deeply([$plugin->$formats($section, $STORAGE, 'vm-100-disk-0', 'b', 'a', 0)], [], 'no differences');
    is_deeply([$plugin->$formats($section, $STORAGE, 'vm-100-disk-0', 'a', undef, 1)], [], 'no snapshots with it');
}

# More than one request, with data at the ends and nothing in between, and an end that is no whole block.
my $size = 13 * 1024 * 1024 + 3 * 1024;
my $data = 'begin' . "\0" x ($size - 5 - 3) . 'end';
substr $data, 5 * 1024 * 1024 - 70_000, 140_000, 'm' x 140_000;
write_file("$folder/in", pack('Q<', $size) . $data);
is(import_from("$folder/in", 'vm-100-disk-0', 0), 'fast:vm-100-disk-0', 'a stream becomes a volume');
is(scalar $plugin->volume_size_info($section, $STORAGE, 'vm-100-disk-0'), $size + 1024, 'of whole blocks');
export_into("$folder/out", 'vm-100-disk-0', undef);
ok(read_file("$folder/out") eq pack('Q<', $size + 1024) . $data . "\0" x 1024, 'and comes out as it went in');
my $space = $node->api()->ask('GET', '/v1/volumes/ssd.vm-100-disk-0?space=true')->{space};
cmp_ok($space->{own}, '<', 2 * 1024 * 1024, 'zeros take no space');

# Of a snapshot, and of a template.
$plugin->volume_snapshot($section, $STORAGE, 'vm-100-disk-0', 'monday');
{
    my $client = PVE::Storage::Custom::Storaged::Nbd->new($node->nbd_socket(), 'ssd.vm-100-disk-0');
    $client->write_at(0, 'BEGIN');
    $client->flush();
    $client->finish();
}
export_into("$folder/out", 'vm-100-disk-0', 'monday');
is(substr(read_file("$folder/out"), 8, 5), 'begin', 'a snapshot is sent as it was');
my $base = $plugin->create_base($STORAGE, $section, $plugin->clone_image($section, $STORAGE, 'vm-100-disk-0', 110, 'monday'));
export_into("$folder/out", $base, undef);
is(substr(read_file("$folder/out"), 8, 5), 'begin', 'a template is sent');
ok(eval { import_from("$folder/in", 'vm-100-disk-7', 0) }, 'a volume of another number');

# A name that is taken.
ok(!eval { import_from("$folder/in", 'vm-100-disk-0', 0) }, 'a name that is taken is refused');
like($@, qr/\Astorage 'fast': there is a volume .*\n\z/, 'with a sentence');
is(import_from("$folder/in", 'vm-100-disk-0', 1), 'fast:vm-100-disk-1', 'unless another one will do');
ok(!eval { import_from("$folder/in", 'base-100-disk-3', 0) }, 'a template is not made by a stream');

# Streams that break.
my $before = volids();
write_file("$folder/broken", pack('Q<', $size) . substr $data, 0, 6 * 1024 * 1024);
ok(!eval { import_from("$folder/broken", 'vm-100-disk-9', 0) }, 'a stream that breaks off is no volume');
like($@, qr/\Athe stream ended too early\n\z/, 'which is said');
write_file("$folder/broken", 'abc');
ok(!eval { import_from("$folder/broken", 'vm-100-disk-9', 0) }, 'nor is one without a size');
write_file("$folder/broken", "\xff" x 20);
ok(!eval { import_from("$folder/broken", 'vm-100-disk-9', 0) }, 'nor one of a size that is none');
is_deeply(volids(), $before, 'nothing is left of them');
open my $full, '>:raw', '/dev/full' or die "/dev/full: $!\n";
ok(!eval { $plugin->volume_export($section, $STORAGE, $full, 'vm-100-disk-0', 'raw+size', undef, undef, 0); 1 }, 'a full disk ends an export');
like($@, qr/\Athe stream cannot be written: .*\n\z/, 'with a sentence');
for my $wrong (['qcow2+size', undef, 0], ['raw+size', 'a', 0], ['raw+size', undef, 1]) {
    my ($format, $base_snapshot, $with) = @$wrong;
    ok(!eval { $plugin->volume_export($section, $STORAGE, $full, 'vm-100-disk-0', $format, undef, $base_snapshot, $with); 1 }, 'not sent');
    like($@, qr/\Astorage 'fast': .*\n\z/, 'with a sentence');
}

# What the gateway refuses.
ok(!eval { PVE::Storage::Custom::Storaged::Nbd->new($node->nbd_socket(), 'ssd.vm-999-disk-0') }, 'what is not there is not opened');
like($@, qr/\Athe NBD gateway does not serve 'ssd\.vm-999-disk-0': .*there is no.*\n\z/, 'and the gateway says why');
{
    my $client = PVE::Storage::Custom::Storaged::Nbd->new($node->nbd_socket(), 'ssd.vm-100-disk-0');
    ok(!eval { $client->read_at($client->size(), 4096); 1 }, 'nothing is read beyond the end');
    is(length $client->read_at(0, 10), 10, 'and the connection is as good as before');
    $node->crash('storaged-nbd');
    ok(!eval { $client->read_at(0, 10); 1 }, 'a gateway that dies is told of');
    like($@, qr/\Athe NBD gateway does not serve .*\n\z/, 'in a sentence');
}

# A client says goodbye before it goes, and the server hangs up: what ends otherwise might be a client that died, and a real
# gateway cannot be asked which it was.
{
    my $said = "$folder/said";
    my $server = Storaged::Test::FakeDaemon->start("$folder/fake.sock", sub {
        my ($connection) = @_;
        my $take = sub { my $bytes = q{}; sysread $connection, $bytes, $_[0] - length $bytes, length $bytes or last while length $bytes < $_[0]; return $bytes; };
        syswrite $connection, 'NBDMAGICIHAVEOPT' . pack 'n', 3;
        my ($length) = unpack 'x12 N', substr $take->(4 + 16), 4;
        $take->($length);
        my $reply = sub { return pack('N N N N N/a*', 0x0003e889, 0x045565a9, 7, @_); };
        syswrite $connection, $reply->(3, pack 'n Q> n', 0, 4096, 1) . $reply->(1, q{});
        my ($magic, undef, $command) = unpack 'N n n', $take->(28);
        write_file($said, sprintf '%x %d', $magic, $command);
    }, 1);
    my $client = PVE::Storage::Custom::Storaged::Nbd->new("$folder/fake.sock", 'x');
    is($client->size(), 4096, 'a server is opened');
    $client->finish();
    is(-e $said ? read_file($said) : 'nothing', '25609513 2', 'and told of the end, which is waited for');
}

done_testing();
