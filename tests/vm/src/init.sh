#!/bin/busybox sh
# The guest's first and only process: loads modules, then runs each line that comes on the second serial
# port in a shell and says how it ended. Kernel messages go to the first one.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
while read -r module; do
    insmod "$module" || echo "init: cannot load $module"
done < /modules/order
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo -onlcr
echo "@@ready"
number=0
while IFS= read -r line; do
    number=$((number + 1))
    ( eval "$line" ) < /dev/null
    # On a line of its own, whether or not the output ended with one.
    printf '\n@@status %d %d\n' $? $number
done
poweroff -f
