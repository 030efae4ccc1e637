# storaged asked over the network: by its authority's certificate and a token, at the first address that answers.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::SSL;
use IO::Socket::SSL::Utils;
use Test::More;
use Time::HiRes qw(time);

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Api;
use PVE::Storage::Custom::Storaged::Tls qw(parse_endpoint);
use Storaged::Test::Node qw($STORAGE new_folder);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start_member(3, qq{admin_listen = ["https://127.0.0.1:0"]\n});
$node->api()->ask('POST', '/v1/pools', body => { name => 'ssd', copies => 2, groups => 8 });
my $folder = new_folder();
local $PVE::Storage::Custom::Storaged::Api::TOKEN_FOLDER = $folder;

sub put { my ($path, $text) = @_; open my $file, '>', $path or die "$path: $!\n"; print {$file} $text; close $file or die "$path: $!\n"; return; }

my $authority = $node->api()->ask('GET', '/v1/authority');
my ($address) = $authority->{addresses}[0] =~ m{\A(https://127\.0\.0\.1:[0-9]+)\z};
ok($address, 'storaged says where it listens');
put("$folder/ca.pem", $authority->{certificate});
# Where nobody listens.
my $held = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "no port: $!\n";
my ($port) = $held->sockport =~ m/\A([0-9]+)\z/;
my $nobody = "https://127.0.0.1:$port";

sub section {
    my (%more) = @_;
    return $node->section('storaged-socket' => '/nowhere/admin.sock', 'storaged-endpoint' => $address, 'storaged-ca' => "$folder/ca.pem", %more);
}

sub fails {
    my ($what, $pattern, $section) = @_;
    ok(!eval { $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 4); 1 }, "$what fails");
    like($@, qr/\Astorage 'fast': $pattern.*\n\z/, "$what fails with a sentence");
    return;
}

fails('asking without a token', 'over the network the admin API wants a token', section());
for my $role (qw(viewer operator)) {
    my $made = $node->api()->ask('POST', '/v1/access-tokens', body => { name => "pve $role", role => $role });
    $plugin->on_update_hook($STORAGE, section(), 'storaged-token' => $made->{token});
    is_deeply([($plugin->status($STORAGE, section(), {}))[3]], [1], "a $role sees how full it is");
    fails('making a volume as a viewer', "the token [0-9a-f]{16} is for a viewer", section()) if $role eq 'viewer';
}

# All that is not done with a gateway.
my $section = section();
is($plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 1024), 'vm-100-disk-0', 'a volume is made');
$plugin->volume_snapshot($section, $STORAGE, 'vm-100-disk-0', 'monday');
is_deeply([sort keys %{ $plugin->volume_snapshot_info($section, $STORAGE, 'vm-100-disk-0') }], ['monday'], 'and has a snapshot');
is(scalar @{ $plugin->list_images($STORAGE, $section, undef, undef, {}) }, 1, 'and is listed');
is(scalar @{ $node->api()->ask('GET', '/v1/volumes')->{volumes} }, 1, 'and is there');
$plugin->update_volume_attribute($section, $STORAGE, 'vm-100-disk-0', 'notes', 'x' x 8000);
is($plugin->volume_snapshot_delete($section, $STORAGE, 'vm-100-disk-0', 'monday'), undef, 'its snapshot is deleted');
$plugin->free_image($STORAGE, $section, 'vm-100-disk-0', 0, 'raw');
is(scalar @{ $plugin->list_images($STORAGE, $section, undef, undef, {}) }, 0, 'and it is freed');
{
    my $api = PVE::Storage::Custom::Storaged::Api->new($STORAGE, $section);
    $api->ask('POST', '/v1/volumes', body => { name => "many.$_", size => 4096, pool => 'ssd' }) for 1 .. 200;
    is(scalar @{ $api->volumes() }, 200, 'an answer of many records of TLS comes whole');
}

# The first that answers.
close $held;
is(eval { $plugin->alloc_image($STORAGE, section('storaged-endpoint' => "$nobody,$address"), 100, 'raw', undef, 4) }, 'vm-100-disk-0', 'the next address is asked')
    or diag($@);
fails('asking where nobody is', "storaged does not answer: nobody answers at $nobody .*Is storaged running there\\?", section('storaged-endpoint' => $nobody));
{
    # A host that takes connections and says nothing.
    my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 8) or die "no port: $!\n";
    my ($silent_port) = $silent->sockport =~ m/\A([0-9]+)\z/;
    my $both = section('storaged-endpoint' => "https://127.0.0.1:$silent_port,$address", 'storaged-status-timeout' => 10);
    ok(($plugin->status($STORAGE, $both, {}))[3], 'one that says nothing leaves time for the next');
    my $begun = time;
    ok(!eval { ($plugin->status($STORAGE, section('storaged-endpoint' => "https://127.0.0.1:$silent_port", 'storaged-status-timeout' => 1), {}))[3] },
        'one that says nothing is not there');
    cmp_ok(time - $begun, '<', 30, 'and that is known in time');
}

# Who is not believed.
put("$folder/other.pem", '');
fails('no certificate to know it by', '.*cannot be asked|.*not believed', section('storaged-ca' => "$folder/other.pem"));
fails('no file to know it by', 'storaged does not answer: the certificate .* cannot be read', section('storaged-ca' => "$folder/none.pem"));
{
    my ($mine, $key) = IO::Socket::SSL::Utils::CERT_create(CA => 1, subject => { commonName => 'somebody' });
    put("$folder/stranger.pem", IO::Socket::SSL::Utils::PEM_cert2string($mine));
    fails('another authority', '.*is not believed: .*certificate verify failed', section('storaged-ca' => "$folder/stranger.pem"));
}
(my $by_name = $address) =~ s/127\.0\.0\.1/127.0.0.2/;
fails('another name than the certificate has', '.*', section('storaged-endpoint' => $by_name));

# What is no address.
for my $wrong ('http://127.0.0.1:1', 'https://127.0.0.1', 'https://a b:1', 'https://a:1/x', "https://a:1\n", 'https://-a:1') {
    ok(!eval { PVE::Storage::Custom::Storaged::Api->new($STORAGE, section('storaged-endpoint' => $wrong)); 1 }, 'what is no address is refused');
}
is_deeply([parse_endpoint('https://[2001:db8::1]:7480')], ['2001:db8::1', '7480'], 'an address of colons');
my $pattern = $plugin->properties()->{'storaged-endpoint'}{pattern};
like("$address,https://[::1]:7480", qr/\A(?:$pattern)\z/, 'what storage.cfg may say');
unlike("$address,", qr/\A(?:$pattern)\z/, 'and what not');

done_testing();
