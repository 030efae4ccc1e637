package Storaged::Test::Node;

# A real storaged with its disks in a folder of its own, and a real storaged-nbd over it: a node by itself with three disks,
# or one of a cluster. Both end with this value.

use strict;
use warnings;

use Exporter qw(import);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use JSON;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

use PVE::Storage::Custom::Storaged::Api;
use PVE::Storage::Custom::Storaged::Http;
use PVE::Storage::Custom::Storaged::Nbd;
use PVE::Storage::Custom::Storaged::Plain qw(plain);

our @EXPORT_OK = qw(program find_program new_folder until_true spawn $STORAGE);

# What the storage is called in tests.
our $STORAGE = 'fast';
# How long something that happens in another process may take, in seconds.
my $PATIENCE = 60;
my $LOOK_AGAIN_AFTER = 0.02;

# Not what whoever runs the tests has: tests run in taint mode, too.
$ENV{PATH} = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
delete @ENV{qw(IFS CDPATH ENV BASH_ENV PERL5LIB)};

# A program of storaged's own.
sub program {
    my ($name) = @_;
    my ($root) = __FILE__ =~ m{\A(.*)/proxmox-plugin/t/lib/} ? $1 : '..';
    my $folder = $ENV{STORAGED_PROGRAMS} // "$root/target/debug";
    my ($path) = "$folder/$name" =~ m/\A(.*)\z/;
    die "$path is not built: cargo build --package $name\n" unless -x $path;
    return $path;
}

# A program of others, or nothing.
sub find_program {
    my ($name) = @_;
    my ($path) = grep { -x } map { "$_/$name" } split m/:/, $ENV{PATH};
    return $path;
}

# A folder that goes with the test. Near the root: the path of a socket has at most 107 bytes.
sub new_folder {
    my $folder = plain('path', tempdir('storaged-pve-XXXXXXXX', DIR => '/var/tmp', CLEANUP => 0), 'a folder');
    return $folder;
}

# Waits until it is true; ends with what was waited for.
sub until_true {
    my ($what, $look, $patience) = @_;
    my $deadline = time + ($patience // $PATIENCE);
    while (time < $deadline) {
        my $found = $look->();
        return $found if $found;
        sleep $LOOK_AGAIN_AFTER;
    }
    die "waited in vain for $what\n";
}

# Starts a program; what it says goes into a file. Its process number.
sub spawn {
    my ($log, @command) = @_;
    my $pid = fork // die "fork: $!\n";
    return $pid if $pid;
    open STDIN, '<', '/dev/null' or POSIX::_exit(126);
    open STDOUT, '>>', $log or POSIX::_exit(126);
    open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
    exec { $command[0] } @command or POSIX::_exit(127);
}

# A node by itself, with a pool.
sub start {
    my ($class) = @_;
    my $self = $class->start_member(3, q{});
    $self->api()->ask('POST', '/v1/pools', body => { name => 'ssd', copies => 2, groups => 8 });
    return $self;
}

# A node with so many disks, whose configuration says more. There is no pool yet.
sub start_member {
    my ($class, $disks, $configuration) = @_;
    my $self = bless { folder => new_folder(), owner => $$, disks => $disks }, $class;
    open my $file, '>', "$self->{folder}/storaged.toml" or die "storaged.toml: $!\n";
    print {$file} qq{memory = "128M"\ndisk_log = "4M"\n$configuration};
    close $file or die "storaged.toml: $!\n";
    $self->start_storaged();
    $self->start_gateway();
    return $self;
}

sub folder { my ($self) = @_; return $self->{folder}; }
sub admin_socket { my ($self) = @_; return "$self->{folder}/admin.sock"; }
sub nbd_socket { my ($self) = @_; return "$self->{folder}/nbd.sock"; }
sub pid { my ($self, $name) = @_; return $self->{pids}{$name}; }

# A section of storage.cfg, as PVE has read it.
sub section {
    my ($self, %more) = @_;
    return {
        type => 'storaged',
        content => { images => 1, rootdir => 1 },
        shared => 1,
        'storaged-pool' => 'ssd',
        'storaged-socket' => $self->admin_socket(),
        'storaged-nbd-socket' => $self->nbd_socket(),
        # A machine that tests may have much else to do.
        'storaged-status-timeout' => 10,
        %more,
    };
}

# The admin API, asked by the test itself.
sub api {
    my ($self) = @_;
    return PVE::Storage::Custom::Storaged::Api->new('test', $self->section());
}

sub start_storaged {
    my ($self) = @_;
    my $folder = $self->{folder};
    my @arguments = ('--config', "$folder/storaged.toml", '--work-dir', $folder, '--disks', $self->{disks});
    $self->_start('storaged', @arguments);
    $self->_until('storaged', 'storaged to answer', sub {
        my ($answer) = $self->api()->try_to('GET', '/v1/status', timeout => 2);
        return $answer && $answer->{disks_up} >= $self->{disks};
    });
    return;
}

sub start_gateway {
    my ($self, $socket) = @_;
    my $folder = $self->{folder};
    $self->_start(
        'storaged-nbd', '--storaged', "$folder/storaged.sock", '--listen', "unix:$folder/nbd.sock", '--shared',
        '--control', "unix:$folder/control.sock",
    );
    $self->_until('storaged-nbd', 'storaged-nbd to answer', sub {
        return PVE::Storage::Custom::Storaged::Nbd::answers($self->nbd_socket(), 1);
    });
    return;
}

sub _start {
    my ($self, $name, @arguments) = @_;
    $self->{pids}{$name} = spawn("$self->{folder}/$name.log", program($name), @arguments);
    return;
}

# Waits for something that one of the programs does, and ends at once if that has ended.
sub _until {
    my ($self, $name, $what, $look) = @_;
    my $ok = eval {
        until_true($what, sub {
            die "$name ended\n" if waitpid($self->{pids}{$name}, WNOHANG) != 0;
            return $look->();
        });
    };
    return $ok if $ok;
    my $cause = $@ =~ s/\s+\z//r;
    open my $log, '<', "$self->{folder}/$name.log" or die "$cause\n";
    my $said = do { local $/ = undef; <$log> };
    die "$cause; $name said:\n" . substr($said, -2000);
}

# Ends one of the programs as a crash would.
sub crash {
    my ($self, $name) = @_;
    my $pid = delete $self->{pids}{$name} or return;
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return;
}

sub freeze { my ($self, $name) = @_; kill 'STOP', $self->{pids}{$name}; return; }
sub thaw { my ($self, $name) = @_; kill 'CONT', $self->{pids}{$name}; return; }

sub DESTROY {
    my ($self) = @_;
    # A process that was forked from the test's has a copy of this.
    return if $self->{owner} != $$;
    local ($@, $?);
    $self->crash($_) for qw(storaged-nbd storaged);
    remove_tree($self->{folder});
    return;
}

1;
