package PVE::RPCEnvironment;

# Stands for Proxmox VE's module of this name where its real PVE::Storage runs in a test: tasks are done at once.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(log_warn);

# PVE calls it as a function.
sub get { return bless {}, __PACKAGE__; }
sub get_user { return 'root@pam'; }
sub is_worker { return 1; }
sub check { return 1; }
sub check_any { return 1; }
sub log_warn { my ($text) = @_; warn "$text\n"; return; }

sub fork_worker {
    my ($self, $type, $id, $user, $work) = @_;
    return $work->();
}

1;
