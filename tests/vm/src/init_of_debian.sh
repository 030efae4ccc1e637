#!/bin/busybox sh
# The first process of a machine that has a Debian on its first disk: loads the modules that it needs to get there, and goes
# on with that Debian's own first process.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    # What a disk or the network needs. Hosts load the rest themselves, as they do elsewhere.
    case $module in
        */nbd.ko) continue ;;
    esac
    insmod "$module" || echo "init: cannot load $module"
done < /modules/order
mount -t ext4 /dev/vda /mnt || poweroff -f
mount --move /dev /mnt/dev
mount --move /sys /mnt/sys
mount --move /proc /mnt/proc
exec switch_root /mnt /sbin/init
