# A disk becomes a vhost-user-blk device and a disk again: what the configuration says, what is asked of qm and systemd
# (programs of our own stand for them: neither is on a machine that tests), and a real QEMU with a real vhost-blk.
use strict;
use warnings;
use Test::More;
use FindBin;
use JSON;

use PVE::Storage;
use PVE::Storage::Custom::StoragedPlugin;
use PVE::Storage::Custom::Storaged::Vhost
    qw(read_config disks_of device_args enabled_args disabled_args shared_memory memory_of drive_volume boot_order boot_before);
use Storaged::Test::Node qw(program spawn until_true);
use Storaged::Test::Qemu;

# -- what the configuration says

my $memory = '-object memory-backend-memfd,id=storaged-memory,size=2048M,share=on -machine memory-backend=storaged-memory';
my $device = '-chardev socket,id=storaged-scsi1,path=/run/storaged-vhost/ssd.vm-100-disk-1.sock,reconnect-ms=1000'
    . ' -device vhost-user-blk-pci,id=storaged-scsi1-device,chardev=storaged-scsi1';

my $config = read_config("boot: order=scsi0;net0\nmemory: 2048\nscsi0: fast:vm-100-disk-0,size=1M\nargs: -cpu x,+y\nname: a b \n");
is_deeply($config, { boot => 'order=scsi0;net0', memory => '2048', scsi0 => 'fast:vm-100-disk-0,size=1M', args => '-cpu x,+y', name => 'a b' },
    'what qm prints is read');
is(memory_of({}), 512, "PVE's default");
is(memory_of({ memory => 'current=4096' }), 4096, 'memory with a name');
ok(!eval { memory_of({ memory => 'much' }) }, 'no memory');

is(shared_memory($config), $memory, 'a plain guest gets memory that is shared');
is(shared_memory({ numa => 1, hugepages => 2 }), undef, 'huge pages are shared already');
is(shared_memory({ virtiofs0 => 'dirid=x' }), undef, 'so is the memory of a guest with virtiofs');
ok(!eval { shared_memory({ numa => 1 }); 1 } && $@ =~ /numa 0/, 'numa alone is refused, with what to do');
ok(!eval { shared_memory({ hugepages => 2 }); 1 } && $@ =~ /numa 1/, 'huge pages alone, too');

is(drive_volume($_), 'fast:vm-100-disk-1', "the volume of $_")
    for 'fast:vm-100-disk-1', 'fast:vm-100-disk-1,size=1M', 'size=1M,file=fast:vm-100-disk-1', 'discard=on,fast:vm-100-disk-1';
is(drive_volume($_), undef, "$_ has none") for 'none,media=cdrom', '/dev/sda';

my $args = enabled_args($config, 'scsi1', 'ssd.vm-100-disk-1');
is($args, "-cpu x,+y $memory $device", 'the device comes behind what is there');
is_deeply(disks_of($args), { scsi1 => 'ssd.vm-100-disk-1' }, 'and is found again');
my $two = enabled_args({ %$config, args => $args }, 'virtio2', 'ssd.vm-100-disk-2');
is(() = $two =~ m/memory-backend-memfd/g, 1, 'the memory is shared once');
is_deeply(disks_of($two), { scsi1 => 'ssd.vm-100-disk-1', virtio2 => 'ssd.vm-100-disk-2' }, 'of two disks');
ok(!eval { enabled_args({ args => $two }, 'virtio2', 'x'); 1 }, 'not twice');
like(enabled_args({ boot => 'order=scsi1;net0' }, 'scsi1', 'v'), qr/,bootindex=99\z/, 'the disk to boot from stays it');
unlike(enabled_args({ boot => 'order=scsi10' }, 'scsi1', 'v'), qr/bootindex/, 'another is not');
is_deeply([boot_order('order=scsi0;net0')], ['scsi0', 'net0'], 'an order to boot is read');
is_deeply([boot_order($_)], [], 'none is none') for undef, 'cdn', 'order=';
is(boot_before('order=scsi1;net0', 'order=net0', 'scsi1'), 'order=scsi1;net0', 'one that PVE took a disk out of is back');
is(boot_before('order=scsi1;net0', 'order=net1', 'scsi1'), undef, 'unless it was changed');
is(boot_before('order=net0', 'order=net0', 'scsi1'), undef, 'or never had the disk');
my $one = disabled_args($two, 'scsi1');
is_deeply(disks_of($one), { virtio2 => 'ssd.vm-100-disk-2' }, 'one less');
like($one, qr/memory-backend-memfd/, 'the other needs the memory');
is(disabled_args($one, 'virtio2'), '-cpu x,+y', 'at the end all is as it was');
is(disabled_args(enabled_args({}, 'scsi1', 'v'), 'scsi1'), q{}, 'or nothing');
ok(!eval { disabled_args('-cpu x', 'scsi1') }, 'what is none is not taken away');
is_deeply(disks_of('-chardev socket,id=other,path=/run/storaged-vhost/x.sock,y'), {}, "others' devices are not ours");
ok(!eval { device_args('scsi1', '../x'); 1 }, 'no such path');

# -- the command, with a storaged

my $node = Storaged::Test::Node->start();
my $folder = $node->folder();
my $section = $node->section();
my $plugin = 'PVE::Storage::Custom::StoragedPlugin';
$plugin->alloc_image('fast', $section, 100, 'raw', undef, 1024) for 0 .. 1;
local %PVE::Storage::SECTIONS = (fast => $section, local => { type => 'dir' });

# Stands for qm as far as the command uses it: settings are lines of a file.
sub script {
    my ($name, $text) = @_;
    mkdir "$folder/bin";
    open my $file, '>', "$folder/bin/$name" or die "$name: $!\n";
    print {$file} $text;
    close $file or die "$name: $!\n";
    chmod oct 755, "$folder/bin/$name" or die "$name: $!\n";
    return;
}
script('qm', <<"END");
#!/usr/bin/perl
use strict;
my (\$verb, \$vmid, \@words) = \@ARGV;
my \$path = '$folder/100.conf';
sub lines { open my \$file, '<', \$path or die; return <\$file>; }
if (\$verb eq 'config') { print lines(); }
elsif (\$verb eq 'status') { print -e '$folder/running' ? "status: running\\n" : "status: stopped\\n"; }
elsif (\$verb eq 'listsnapshot') { print "\`-> monday\\n" if -e '$folder/snapshots'; print "  \`-> current\\n"; }
elsif (\$verb eq 'set') {
    if (-e '$folder/broken') { print STDERR "can't lock file\\n"; exit 255; }
    my %config = map { chomp; split m/: /, \$_, 2 } lines();
    my (%given, \@delete);
    while (my (\$option, \$value) = splice \@words, 0, 2) { \$option eq '--delete' ? push(\@delete, split m/,/, \$value) : (\$given{\$option =~ s/^--//r} = \$value); }
    for my \$key (\@delete) { \$config{boot} and \$config{boot} =~ s/\$key;?//; my \$was = delete \$config{\$key}; \$config{unused0} = \$was =~ s/,.*//r if \$key =~ m/^scsi/; }
    \%config = (\%config, \%given);
    for my \$value (values \%given) { my (\$volume) = split m/,/, \$value; delete \$config{unused0} if (\$config{unused0} // '') eq \$volume; }
    open my \$file, '>', \$path or die;
    print {\$file} "\$_: \$config{\$_}\\n" for sort keys \%config;
}
END
script('pvesm', "#!/bin/sh\necho $folder/hook\n");
script('systemctl', "#!/bin/sh\necho \"\$*\" >> $folder/asked\n");
$ENV{PATH} = "$folder/bin:/usr/bin:/bin";
my ($bin) = "$FindBin::RealBin/../bin/pve-storaged" =~ m/\A(.*)\z/;
require $bin;

sub put { my ($text) = @_; open my $file, '>', "$folder/100.conf" or die; print {$file} $text; close $file or die; return; }
sub text { my ($name) = @_; open my $file, '<', "$folder/$name" or return q{}; local $/ = undef; my $text = <$file>; close $file or die; return $text; }
sub touch { my ($name) = @_; open my $file, '>', "$folder/$name" or die; close $file or die; return; }
sub noted { return $node->api()->volume('ssd.vm-100-disk-1')->{labels}{'pve.vhost'}; }

# What it prints is for people.
sub quietly {
    my ($work) = @_;
    open my $out, '>&', \*STDOUT or die "$!\n";
    open STDOUT, '>', '/dev/null' or die "$!\n";
    my $done = eval { $work->(); 1 };
    my $cause = $@;
    open STDOUT, '>&', $out or die "$!\n";
    die $cause unless $done;
    return 1;
}
my %options = (snippets => 'local');
sub make_device { my ($disk) = @_; return quietly(sub { main::enable(100, $disk // 'scsi1', { %options }) }); }
sub make_disk { return quietly(sub { main::disable(100, 'scsi1', { %options }) }); }

my $before = "boot: order=scsi1;net0\nmemory: 2048\nname: test\nscsi0: fast:vm-100-disk-0,size=1M\nscsi1: fast:vm-100-disk-1,discard=on,size=1M\n";
{
    put($before);
    for my $case (['running', qr/runs: stop it/], ['snapshots', qr/has snapshots/]) {
        touch($case->[0]);
        ok(!eval { make_device(); 1 }, "refused: $case->[0]");
        like($@, $case->[1], 'with the reason');
        unlink "$folder/$case->[0]";
    }
    ok(!eval { make_device('scsi7'); 1 } && $@ =~ m/has no scsi7/, 'a disk that is not there');
    put("$before" . "hookscript: local:snippets/mine.sh\n");
    ok(!eval { make_device(); 1 } && $@ =~ m/has a hookscript/, "another's hookscript is not overwritten");
    put($before);
    touch('broken');
    ok(!eval { make_device(); 1 } && $@ =~ m/can't lock file/, 'PVE refuses');
    is(noted(), undef, 'then nothing is left behind');
    unlink "$folder/broken";
    {
        local $options{'dry-run'} = 1;
        ok(make_device(), 'a dry run');
        is(text('100.conf'), $before, 'changes nothing');
    }
    ok(make_device(), 'a disk becomes a device');
    is(text('100.conf'), "args: $memory $device,bootindex=99\nboot: order=net0\nhookscript: local:snippets/storaged-vhost\nmemory: 2048\nname: test\n"
        . "scsi0: fast:vm-100-disk-0,size=1M\nunused0: fast:vm-100-disk-1\n", 'as the configuration says');
    is(noted(), 'scsi1=fast:vm-100-disk-1,discard=on,size=1M', 'what it was is known');
    like(text('hook'), qr{exec /usr/bin/pve-storaged hook "\$\@"}, 'the hookscript is there');
    main::hook(100, $_) for qw(pre-start post-start pre-stop post-stop);
    my $unit = 'storaged-vhost-blk@ssd.vm-100-disk-1';
    is(text('asked'), "start $unit.service\nstop $unit.service $unit.socket\n", 'its vhost-blk starts and stops with the guest');
    {
        local $ENV{PVE_MIGRATED_FROM} = 'node2';
        ok(!eval { main::hook(100, 'pre-start'); 1 } && $@ =~ m/does not migrate live/, 'it does not migrate live');
    }
    my $enabled = text('100.conf');
    put($enabled =~ s/memory: 2048/memory: 4096/r);
    ok(!eval { main::hook(100, 'pre-start'); 1 } && $@ =~ m/another size/, 'nor start with other memory');
    put($enabled);
    ok(make_disk(), 'and a disk again');
    is(text('100.conf'), $before, 'with all that it had');
    is(noted(), undef, 'of which nothing is left');
}

# -- a real QEMU with what the configuration says

my $sockets = "$folder/vhost";
mkdir $sockets;
my $volume = 'ssd.vm-100-disk-1';
my $pid = spawn("$folder/vhost-blk.log", program('vhost-blk'), '--storaged', "unix:$folder/storaged.sock", '--volume', $volume,
    '--socket', "$sockets/$volume.sock");
until_true('vhost-blk to listen', sub { return -S "$sockets/$volume.sock"; });
my @qemu_args = split m/ /, enabled_args({ memory => 64 }, 'scsi1', $volume) =~ s{/run/storaged-vhost}{$sockets}r;
{
    my $qemu = eval { Storaged::Test::Qemu->start($folder, 100, @qemu_args) };
    my $cause = $@;
    SKIP: {
        skip 'this QEMU has no reconnect-ms', 1 if !$qemu && $cause =~ m/reconnect-ms/;
        ok($qemu, 'QEMU takes the arguments') or diag($cause);
        my ($chardev) = grep { $_->{label} eq 'storaged-scsi1' } @{ $qemu->ask('query-chardev') };
        ok($chardev->{'frontend-open'}, 'the device has its socket');
        my $said = $qemu->ask('human-monitor-command', { 'command-line' => 'info qtree' });
        like($said, qr/dev: vhost-user-blk-pci, id "storaged-scsi1-device"/, 'and is there');
        my ($shared) = grep { $_->{id} && $_->{id} eq 'storaged-memory' } @{ $qemu->ask('query-memdev') };
        ok($shared && $shared->{share}, 'the memory is shared');
    }
}
kill 'KILL', $pid;
waitpid $pid, 0;

done_testing();
