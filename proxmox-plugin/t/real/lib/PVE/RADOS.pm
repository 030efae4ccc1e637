package PVE::RADOS;

# Stands for Proxmox VE's module of this name, which its PVE::Storage loads and which no call of a test comes to.

use strict;
use warnings;

1;
