package PVE::Tools;

# Stands for Proxmox VE's module of this name in tests: the two functions that the plugin calls.

use strict;
use warnings;

use IO::Select;
use IPC::Open3;
use Symbol qw(gensym);
use Time::HiRes qw(time);

# Runs a command (a list of words), gives its lines to outfunc and errfunc, and ends unless it exits with 0 in time.
sub run_command {
    my ($command, %options) = @_;
    die "a command is a list of words\n" unless ref $command eq 'ARRAY';
    my $pid = open3(my $in, my $out, my $err = gensym, @$command);
    close $in;
    my %text = ($out => q{}, $err => q{});
    my $deadline = time + ($options{timeout} // 60);
    my $select = IO::Select->new($out, $err);
    while ($select->count) {
        my @ready = $select->can_read($deadline - time);
        if (!@ready) {
            kill 'KILL', $pid;
            waitpid $pid, 0;
            die "command '@$command' failed: got timeout\n";
        }
        for my $handle (@ready) {
            sysread($handle, $text{$handle}, 65536, length $text{$handle}) or $select->remove($handle);
        }
    }
    waitpid $pid, 0;
    my $status = $?;
    for ([$out, 'outfunc'], [$err, 'errfunc']) {
        my ($handle, $name) = @$_;
        $options{$name} and $options{$name}->($_) for split m/\n/, $text{$handle};
    }
    die "command '@$command' failed: exit code " . ($status >> 8) . "\n" if $status;
    return 0;
}

sub file_set_contents {
    my ($path, $data, $mode) = @_;
    my $next = "$path.tmp.$$";
    sysopen my $file, $next, 0x241, $mode // oct 644 or die "$next: $!\n";
    print {$file} $data or die "$next: $!\n";
    close $file or die "$next: $!\n";
    rename $next, $path or die "$path: $!\n";
    return;
}

1;
