#!/bin/busybox sh
# The guest's first process: loads modules, then has another one run what comes on the second serial port. Kernel
# messages go to the first one.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
while read -r module; do
    insmod "$module" || echo "init: cannot load $module"
done < /modules/order
# Runs each line that comes on the second serial port, and says how it ended.
run_commands() {
    stty -F /dev/ttyS1 raw -echo -onlcr
    echo "@@ready"
    number=0
    while IFS= read -r line; do
        number=$((number + 1))
        ( eval "$line" ) < /dev/null
        # On a line of its own, whether or not the output ended with one.
        printf '\n@@status %d %d\n' $? $number
    done
}

# What commands leave behind becomes a child of process 1, and busybox's `read` drops the part of a line that it has
# when a child of its shell ends. So who reads is not process 1.
run_commands < /dev/ttyS1 > /dev/ttyS1 2>&1 &
wait $!
poweroff -f
