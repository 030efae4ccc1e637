# The Debian package: what is in it, that it loads from there, and that it is not removed while a storage needs it.
use strict;
use warnings;
use Test::More;
use FindBin;

use PVE::Tools;
use Storaged::Test::Node qw(new_folder find_program);

my ($root) = "$FindBin::RealBin/.." =~ m/\A(.*)\z/;
my $folder = new_folder();
my ($perl) = $^X =~ m/\A(.*)\z/;

sub run {
    my (@command) = @_;
    my (@printed, @said);
    my $ok = eval { PVE::Tools::run_command([@command], outfunc => sub { push @printed, $_[0] }, errfunc => sub { push @said, $_[0] }); 1 };
    return ($ok, @said, @printed);
}

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    local $/ = undef;
    my $text = <$file>;
    close $file or die "$path: $!\n";
    return $text;
}

my ($ok, @lines) = run($perl, "$root/package", $folder);
ok($ok, 'the package is built') or diag("@lines");
my ($package) = $lines[-1] =~ m/\A(.*)\z/;
my ($version) = slurp("$root/../Cargo.toml") =~ m/^version = "([0-9.]+)"/m;
is($package, "$folder/storaged-pve_${version}_all.deb", 'with the version of the workspace');
my $bytes = slurp($package);
run($perl, "$root/package", $folder);
ok(slurp($package) eq $bytes, 'built again it is the same');

run(find_program('dpkg-deb'), '-R', $package, "$folder/tree");
my (undef, @files) = run(find_program('find'), "$folder/tree", '-type', 'f', '-printf', "%m %P\n");
my @sources = map { s{\A\Q$root\E/lib/}{}r } glob("$root/lib/PVE/Storage/Custom/*.pm"), glob("$root/lib/PVE/Storage/Custom/Storaged/*.pm");
my @expected = (
    '644 DEBIAN/control', '755 usr/bin/pve-storaged',
    (map { "755 DEBIAN/$_" } qw(postinst prerm postrm)),
    (map { "644 usr/share/perl5/$_" } @sources),
    (map { "644 usr/lib/systemd/system/storaged-pve-$_.service" } qw(nbd attach)),
    (map { "644 usr/share/doc/storaged-pve/$_" } qw(changelog.gz copyright proxmox.md)),
    (map { "644 usr/share/man/$_.gz" } qw(man7/storaged-pve.7 man8/pve-storaged.8)),
);
is_deeply([sort @files], [sort @expected], 'what is in it');
($ok, @lines) = run($perl, '-T', "-I$folder/tree/usr/share/perl5", "-I$root/t/lib", '-we', 'use PVE::Storage::Custom::StoragedPlugin;');
ok($ok && !@lines, 'it loads from there, in taint mode and without a warning') or diag("@lines");
like(slurp("$folder/tree/DEBIAN/control"), qr/^Version: \Q$version\E$/m, 'it says its version');
for my $script (qw(postinst prerm postrm)) {
    ok((run(find_program('sh'), '-n', "$folder/tree/DEBIAN/$script"))[0], "$script is a script");
}

# Removal, with another file in place of the cluster's.
sub prerm {
    my ($action, $config) = @_;
    open my $file, '>', "$folder/storage.cfg" or die "$!\n";
    print {$file} $config;
    close $file or die "$!\n";
    my $script = slurp("$folder/tree/DEBIAN/prerm") =~ s{/etc/pve/storage[.]cfg}{$folder/storage.cfg}r;
    # Only the question whether it may be removed.
    $script =~ s{/run/systemd/system}{/nowhere}g;
    open my $out, '>', "$folder/prerm" or die "$!\n";
    print {$out} $script;
    close $out or die "$!\n";
    return run(find_program('sh'), "$folder/prerm", $action);
}
my $with = "dir: local\n\tpath /var/lib/vz\n\nstoraged: fast\n\tstoraged-pool ssd\n";
($ok, @lines) = prerm('remove', $with);
ok(!$ok, 'it is not removed while a storage needs it');
like("@lines", qr/would be lost for the whole cluster/, 'with the reason');
ok((prerm('upgrade', $with))[0], 'it is upgraded');
ok((prerm('remove', "dir: local\n\tpath /storaged: x\n"))[0], 'and removed otherwise');

File::Path::remove_tree($folder);
done_testing();
