package PVE::Storage;

# Stands for Proxmox VE's module of this name in tests: the version of its storage API, and the configuration of all
# storages, both as a test sets them. Written from what is documented of it; PVE's own cannot be installed here.

use strict;
use warnings;

our $API_VERSION = 15;
our %SECTIONS;

sub APIVER { return $API_VERSION; }
sub APIAGE { return 6; }
sub config { return { ids => {%SECTIONS} }; }

1;
