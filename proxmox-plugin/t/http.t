# Whatever the daemon does, a question ends in time, and with a sentence that names the storage.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Api;
use Storaged::Test::FakeDaemon;
use Storaged::Test::Node qw(new_folder);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $folder = new_folder();
my $socket = "$folder/admin.sock";
our $section = {
    type => 'storaged', 'storaged-pool' => 'ssd', 'storaged-socket' => $socket, 'storaged-nbd-socket' => "$folder/nbd.sock",
    # A machine that tests may have much else to do.
    'storaged-status-timeout' => 10,
};
local $PVE::Storage::Custom::Storaged::Api::TOKEN_FOLDER = $folder;
my $api = PVE::Storage::Custom::Storaged::Api->new('fast', $section);

sub answers { my ($bytes) = @_; return Storaged::Test::FakeDaemon->start($socket, sub { syswrite $_[0], $bytes; }); }

sub ask { return eval { $api->ask('GET', '/v1/pools/ssd', timeout => 30) }; }

# Good answers, however they come.
my $json = '{"total":10,"available":4}';
my %good = (
    'with a length' => "HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n$json",
    'with more than its length' => "HTTP/1.1 200 OK\r\nContent-Length:26\r\n\r\n$json and more",
    'without a length' => "HTTP/1.1 200 OK\r\n\r\n$json",
    'in chunks' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"tot\r\n15;x=y\r\nal\":10,\"available\":4}\r\n0\r\n\r\n",
);
for my $how (sort keys %good) {
    my $daemon = answers($good{$how});
    is_deeply(ask(), { total => 10, available => 4 }, "an answer $how");
}
{
    my $daemon = Storaged::Test::FakeDaemon->start($socket, sub {
        for my $byte (split //, $good{'in chunks'}) { syswrite $_[0], $byte; }
    });
    is_deeply(ask(), { total => 10, available => 4 }, 'an answer byte by byte');
    is_deeply([$plugin->status('fast', $section, {})], [10, 4, 6, 1], 'and the state that is in it');
}
{
    my $daemon = answers("HTTP/1.1 204 No Content\r\n\r\n");
    is_deeply(ask(), {}, 'an answer without a body');
}

# Bad ones.
my %bad = (
    'that is nothing' => q{},
    'that breaks off in its head' => "HTTP/1.1 200 OK\r\nContent-Le",
    'that breaks off in its body' => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"total\":",
    'that breaks off in a chunk' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{\"tot",
    'with a chunk that is none' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    'with a length that is none' => "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    'that is too long' => "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
    'with a chunk that is too long' => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    'that is not HTTP' => "220 mail.example ESMTP\r\n\r\n",
    'that is not JSON' => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    'that is a list' => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    'without an end of its head' => "HTTP/1.1 200 OK\r\n" . "x: y\r\n" x 20_000,
);
for my $how (sort keys %bad) {
    my $daemon = answers($bad{$how});
    is(ask(), undef, "an answer $how is none");
    like($@, qr/\Astorage 'fast': storaged gave no answer: [^.]*\n\z/, "an answer $how is told of");
    ok(!eval { $api->ask('POST', '/v1/volumes', body => {}, timeout => 30); 1 }, "an answer $how to a change is none");
    like($@, qr/\Astorage 'fast': storaged gave no answer: .* not known\n\z/, "and leaves in doubt what was done");
    is_deeply([$plugin->status('fast', $section, {})], [], "with an answer $how the storage is inactive");
}

# Errors are what storaged says, in one line.
my %errors = (
    "HTTP/1.1 404 Not Found\r\n\r\n{\"kind\":\"not_found\",\"message\":\"there is no pool \\\"ssd\\\"\"}"
        => qr/\Astorage 'fast': there is no pool "ssd"\n\z/,
    "HTTP/1.1 500 Oh\r\n\r\noh" => qr/\Astorage 'fast': storaged answered with status 500\n\z/,
    "HTTP/1.1 503 Oh\r\n\r\n{\"kind\":\"x\",\"message\":\"a\\nb\\u001b[2J\\u00fc\"}" => qr/\Astorage 'fast': a b \[2J \n\z/,
    "HTTP/1.1 503 Oh\r\n\r\n{\"kind\":\"x\",\"message\":{}}" => qr/\Astorage 'fast': storaged answered with status 503\n\z/,
);
for my $answer (sort keys %errors) {
    my $daemon = answers($answer);
    is(ask(), undef, 'an error is no answer');
    like($@, $errors{$answer}, 'and is told of in a line');
}

# Numbers that would make nodes vanish from PVE.
for (['1e30', '1', [0, 0, 0, 1]], ['9223372036854775807', '5', [0, 0, 0, 1]], ['null', 'null', [0, 0, 0, 1]],
    ['10', '20', [10, 10, 0, 1]], ['-5', '"x"', [0, 0, 0, 1]], ['999999999999999999', '7', [999999999999999999, 7, 999999999999999992, 1]]) {
    my ($total, $available, $expected) = @$_;
    my $daemon = answers("HTTP/1.1 200 OK\r\n\r\n{\"total\":$total,\"available\":$available}");
    is_deeply([$plugin->status('fast', $section, {})], $expected, "a pool of $total with $available");
}

# A volume with a name that is none is not shown.
{
    my $names = join ',', map { qq({"name":"$_","size":4096,"created_ms":1700000000000}) }
        'ssd.vm-100-disk-0', 'ssd.vm-100-disk-0; rm -rf /', '../ssd.vm-100-disk-1', 'ssd.vm-100-disk-1\n';
    my $daemon = answers("HTTP/1.1 200 OK\r\n\r\n{\"volumes\":[$names]}");
    is_deeply([map { $_->{volid} } @{ $plugin->list_images('fast', $section, undef, undef, {}) }], ['fast:vm-100-disk-0'],
        'only names of disks are listed');
}

# Others came in the way: asked again, and not for ever.
{
    my $daemon = answers("HTTP/1.1 409 Conflict\r\n\r\n{\"kind\":\"conflict\",\"message\":\"others changed it\"}");
    is(ask(), undef, 'a conflict that does not end is an error');
    like($@, qr/others changed it/, 'and told of');
}

# The token.
{
    my $daemon = Storaged::Test::FakeDaemon->start($socket, sub {
        my ($connection, $asked) = @_;
        my ($token) = $asked =~ m/^Authorization: Bearer (\S+)\r$/m;
        syswrite $connection, "HTTP/1.1 200 OK\r\n\r\n" . ($token ? qq({"token":"$token"}) : '{}');
    });
    is_deeply(ask(), {}, 'no token is sent where there is none');
    open my $file, '>', "$folder/fast.storaged.token" or die "token: $!\n";
    print {$file} "sesame\n";
    close $file or die "token: $!\n";
    is_deeply(ask(), { token => 'sesame' }, 'a token is sent');
}

# A daemon that hangs, that nobody runs, that is no socket: PVE asks all three one after the other.
sub state_in_time {
    my ($what, $reason) = @_;
    my $started = time;
    my $cache = {};
    my %default = %$section;
    delete $default{'storaged-status-timeout'};
    local $section = \%default;
    ok(!eval { $plugin->check_connection('fast', $section) }, "$what is no connection");
    like($@, qr/\Astorage 'fast': $reason.*\n\z/, "$what is told of");
    ok(!eval { $plugin->activate_storage('fast', $section, $cache); 1 }, "$what is not activated");
    is_deeply([$plugin->status('fast', $section, $cache)], [], "$what is inactive");
    return time - $started;
}
{
    my $daemon = Storaged::Test::FakeDaemon->start($socket, sub { sleep 60; });
    # It hangs for a minute. How much less than that PVE waits is two seconds on a machine that has nothing else to do.
    cmp_ok(state_in_time('what hangs', 'storaged gave no answer'), '<', 30, 'what hangs does not hang PVE');
}
state_in_time('what is not there', 'storaged does not answer: nobody answers');
{
    open my $file, '>', $socket or die "$socket: $!\n";
    close $file or die "$socket: $!\n";
    state_in_time('what is no socket', 'storaged does not answer');
    unlink $socket;
}
ok(!eval { PVE::Storage::Custom::Storaged::Api->new('fast', { %$section, 'storaged-socket' => '/x/../y' }) }, 'no such path');

unlink "$folder/fast.storaged.token";
rmdir $folder;
done_testing();
