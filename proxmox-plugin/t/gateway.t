# The gateway is started when it is not there, and the host's block devices are made and ended. systemd and the kernel's NBD
# client are not on every machine that tests: programs of our own note what they were asked for.
use strict;
use warnings;
use Test::More;
use Time::HiRes;

use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Gateway;
use Storaged::Test::FakeDaemon;
use Storaged::Test::Node qw($STORAGE program);

my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
my $node = Storaged::Test::Node->start();
my $section = $node->section();
my $folder = $node->folder();
my $asked = "$folder/asked";

sub script {
    my ($name, $text) = @_;
    open my $file, '>', "$folder/$name" or die "$name: $!\n";
    print {$file} "#!/bin/sh\necho \"$name \$*\" >> $asked\n$text\n";
    close $file or die "$name: $!\n";
    chmod oct 755, "$folder/$name" or die "$name: $!\n";
    return "$folder/$name";
}

sub asked {
    open my $file, '<', $asked or return [];
    chomp(my @lines = <$file>);
    close $file or die "$asked: $!\n";
    unlink $asked;
    return \@lines;
}

no warnings 'once';
local $PVE::Storage::Custom::Storaged::Gateway::DEVICES = "$folder/devices";
local $PVE::Storage::Custom::Storaged::Gateway::BLOCK = "$folder/block";
# A machine that tests may have much else to do.
local $PVE::Storage::Custom::Storaged::Gateway::START_TIMEOUT = 60;
local $PVE::Storage::Custom::Storaged::Gateway::ANSWER_TIMEOUT = 30;
local $PVE::Storage::Custom::Storaged::Gateway::SYSTEMCTL = script('systemctl', 'exit 0');
local $PVE::Storage::Custom::Storaged::Gateway::ATTACH = script('attach', <<"END");
case "\$3" in
    map) mkdir -p $folder/devices; ln -sfn /dev/nbd7 "$folder/devices/\$4"; echo "$folder/devices/\$4" ;;
    unmap) rm "$folder/devices/\$4" ;;
esac
END

my $disk = $plugin->alloc_image($STORAGE, $section, 100, 'raw', undef, 1024);
my @of = ($STORAGE, $section, $disk);

# A volume that another node has made, and of which this one hears while it asks.
{
    my $times = 0;
    my $fake = Storaged::Test::FakeDaemon->start("$folder/fake.sock", sub {
        my ($connection) = @_;
        syswrite $connection, $times++ < 3
            ? qq(HTTP/1.1 404 Not Found\r\n\r\n{"kind":"not_found","message":"there is no volume"}) : "HTTP/1.1 200 OK\r\n\r\n{}";
    });
    my $other = $node->section('storaged-socket' => "$folder/fake.sock");
    is($plugin->activate_volume($STORAGE, $other, 'vm-100-disk-0', undef, {}), 1, 'a volume that is heard of a moment later');
}

# To activate.
is($plugin->activate_volume(@of, undef, {}, {}), 1, 'a volume is activated');
is($plugin->activate_volume(@of, undef, {}, {}), 1, 'again and again');
is(readlink("$folder/nbd.sock,file.reconnect-delay=300"), 'nbd.sock', 'the socket has the name that paths have');
is_deeply(asked(), [], 'a gateway that answers is not started');
ok(!eval { $plugin->activate_volume($STORAGE, $section, 'vm-100-disk-9', undef, {}) }, 'what is not there is not activated');
like($@, qr/\Astorage 'fast': there is no volume "ssd\.vm-100-disk-9"\n\z/, 'and told of');
ok(!eval { $plugin->activate_volume(@of, 'monday', {}) }, 'nor a snapshot that is not there');
$plugin->volume_snapshot($section, $STORAGE, $disk, 'monday');
is($plugin->activate_volume(@of, 'monday', {}), 1, 'a snapshot is activated');
is($plugin->deactivate_volume(@of, undef, {}), 1, 'a volume is deactivated');
is($plugin->deactivate_volume($STORAGE, $section, 'vm-100-disk-9', undef, {}), 1, 'also one that is not there');
is_deeply(asked(), [], 'which asks nobody, unless there is a block device');
is($plugin->deactivate_storage($STORAGE, $section, {}), 1, 'a storage is deactivated');

# To start the gateway.
$node->crash('storaged-nbd');
{
    local $PVE::Storage::Custom::Storaged::Gateway::SYSTEMCTL = script('failing', "echo 'Unit not found.' >&2; exit 5");
    ok(!eval { $plugin->activate_volume(@of, undef, {}) }, 'a gateway that cannot be started');
    like($@, qr/\Astorage 'fast': the NBD gateway does not answer at \S+; see systemctl status storaged-pve-nbd.service \(Unit not found\.\)\n\z/,
        'is told of with what systemd says');
    is_deeply(asked(), ['failing start storaged-pve-nbd.service'], 'it was asked for');
}
{
    # It comes a while after it was asked for.
    my ($nbd, $socket) = (program('storaged-nbd'), $node->nbd_socket());
    local $PVE::Storage::Custom::Storaged::Gateway::SYSTEMCTL = script('slow',
        "(sleep 0.5; exec $nbd --storaged $folder/storaged.sock --listen unix:$socket --shared) >/dev/null 2>&1 &\necho \$! > $folder/pid");
    is($plugin->activate_volume(@of, undef, {}), 1, 'a gateway is started and waited for');
    is_deeply(asked(), ['slow start storaged-pve-nbd.service'], 'once');
    open my $file, '<', "$folder/pid" or die "pid: $!\n";
    my ($pid) = <$file> =~ m/\A([0-9]+)$/;
    close $file or die "pid: $!\n";
    # It is the program itself that the shell became.
    kill 'KILL', $pid;
    Storaged::Test::Node::until_true('the gateway to end', sub { return !PVE::Storage::Custom::Storaged::Nbd::answers($socket, 1); });
}
{
    my $fake = Storaged::Test::FakeDaemon->start($node->nbd_socket(), sub { syswrite $_[0], 'SSH-2.0-OpenSSH'; }, 1);
    local $PVE::Storage::Custom::Storaged::Gateway::START_TIMEOUT = 1;
    ok(!eval { $plugin->activate_volume(@of, undef, {}) }, 'what is no gateway is not taken for one');
}
unlink $node->nbd_socket();
$node->start_gateway();
asked();

# Block devices.
my $socket = $node->nbd_socket();
is($plugin->map_volume(@of, undef, {}), "$folder/devices/ssd.vm-100-disk-0", 'a volume becomes a block device');
is_deeply(asked(), ['systemctl start storaged-pve-attach.service', "attach --gateway unix:$socket map ssd.vm-100-disk-0"], 'at our gateway');
is($plugin->map_volume(@of, 'monday'), "$folder/devices/ssd.vm-100-disk-0\@monday", 'a snapshot, too');
is($plugin->map_volume(@of), "$folder/devices/ssd.vm-100-disk-0", 'a second time');
asked();
is($plugin->unmap_volume(@of, 'monday'), 1, 'a block device ends');
is($plugin->deactivate_volume(@of, undef, {}), 1, 'a volume is deactivated');
is_deeply(asked(), [map { "attach --gateway unix:$socket unmap ssd.vm-100-disk-0$_" } '@monday', q{}], 'its block device ends, too');
is($plugin->unmap_volume(@of), 1, 'no block device is none');
is_deeply(asked(), [], 'and nobody is asked');
{
    $plugin->map_volume(@of);
    local $PVE::Storage::Custom::Storaged::Gateway::ATTACH = script('busy', "echo '/dev/nbd7 is in use on this host' >&2; exit 1");
    local $PVE::Storage::Custom::Storaged::Gateway::IN_USE_TIMEOUT = 0.3;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_; };
    is($plugin->deactivate_volume(@of, undef, {}), 1, 'a block device that is used stays');
    like("@warnings", qr/is in use on this host/, 'and PVE is told');
    ok(!eval { $plugin->free_image(@of, 0, 'raw'); 1 }, 'its volume is not freed');
    like($@, qr/\Astorage 'fast': ssd\.vm-100-disk-0: .*is in use on this host\n\z/, 'with the reason');
    ok(!eval { $plugin->map_volume(@of); 1 }, 'what cannot be mapped');
    like($@, qr/\Astorage 'fast': ssd\.vm-100-disk-0: .*\n\z/, 'is told of');
    local $PVE::Storage::Custom::Storaged::Gateway::ATTACH = script('odd', 'echo "/dev/x; reboot"');
    ok(!eval { $plugin->map_volume(@of); 1 }, 'a path that is none is not taken for one');
}

{
    # As udev has it open for a moment.
    $plugin->map_volume(@of);
    my $device = "$folder/devices/ssd.vm-100-disk-0";
    local $PVE::Storage::Custom::Storaged::Gateway::ATTACH = script('moment',
        "test -e $folder/moment && exec rm $device; touch $folder/moment; echo '/dev/nbd7 is in use on this host' >&2; exit 1");
    is($plugin->unmap_volume(@of), 1, 'a block device that is used for a moment only');
    ok(!-l $device, 'ends');
    $PVE::Storage::Custom::Storaged::Gateway::ATTACH = "$folder/attach";
    $plugin->map_volume(@of);
}

# A block device that grows.
mkdir $_ or die "$_: $!\n" for "$folder/block", "$folder/block/nbd7";
sub show_sectors {
    my ($count) = @_;
    open my $file, '>', "$folder/block/nbd7/size" or die "size: $!\n";
    print {$file} "$count\n";
    close $file or die "size: $!\n";
    return;
}
show_sectors(4096);
ok(eval { $plugin->volume_resize($section, $STORAGE, $disk, 2 * 1024 * 1024, 1); 1 }, 'a block device that shows the size') or diag($@);
{
    local $PVE::Storage::Custom::Storaged::Gateway::GROWTH_TIMEOUT = 0.3;
    ok(!eval { $plugin->volume_resize($section, $STORAGE, $disk, 4 * 1024 * 1024, 0); 1 }, 'a block device that does not');
    like($@, qr/\Astorage 'fast': 'vm-100-disk-0' is larger now, but .*nbd7 does not show the new size/, 'is told of');
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        Time::HiRes::sleep(0.2);
        show_sectors(16384);
        POSIX::_exit(0);
    }
    local $PVE::Storage::Custom::Storaged::Gateway::GROWTH_TIMEOUT = 60;
    ok(eval { $plugin->volume_resize($section, $STORAGE, $disk, 8 * 1024 * 1024, 0); 1 }, 'one that does after a while is waited for');
    waitpid $pid, 0;
}

# The real program, where the kernel has no NBD client: its words come to PVE.
SKIP: {
    skip 'this kernel has an NBD client', 1 if -e '/sys/module/nbd' || -e '/sys/block/nbd0';
    local $PVE::Storage::Custom::Storaged::Gateway::ATTACH = program('storaged-attach');
    ok(!eval { $plugin->map_volume(@of); 1 } && $@ =~ m/\Astorage 'fast': ssd\.vm-100-disk-0: .*NBD client/, 'what it says') or diag($@);
}

# Connections are ended by the control socket beside the gateway's.
my $gateway = PVE::Storage::Custom::Storaged::Gateway->new($STORAGE, $section);
is($gateway->disconnect('ssd.vm-100-disk-0'), 0, 'there are none to what nobody has open');
{
    my $client = PVE::Storage::Custom::Storaged::Nbd->new($socket, 'ssd.vm-100-disk-0');
    is($gateway->disconnect('ssd.vm-100-disk-0'), 1, 'there is one to what somebody has open');
    ok(!eval { $client->read_at(0, 512); 1 }, 'which has ended');
}
{
    my $older = Storaged::Test::FakeDaemon->start("$folder/control.sock",
        sub { syswrite $_[0], qq(HTTP/1.1 404 Not Found\r\n\r\n{"kind":"not_found","message":"there is nothing at /v1: see"}); });
    ok(!eval { $gateway->disconnect('ssd.vm-100-disk-0'); 1 }, 'a gateway that cannot do it');
    like($@, qr/older version\n\z/, 'is told of');
}
ok(!eval { $gateway->disconnect('x/../y'); 1 }, 'no such export');

done_testing();
