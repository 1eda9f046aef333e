#!/bin/bash
# The first process of a guest: a root file system that is the machine's, with nothing of it written to.
# GUEST_COMMAND is a shell command in base64, GUEST_MODULES the modules to load, GUEST_MODULES_FOLDER the folder whose
# lib/modules has them (for user-mode-linux, which brings no list of them, none: they are copied).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /run
# What the guest's own /tmp and the like hide stays in sight here.
mkdir -p /run/host /run/netns
mount --bind / /run/host
for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
# The modules stand in a folder of their own, as /lib/modules is the machine's: the kernel is told how to find them.
if [ -n "$GUEST_MODULES_FOLDER" ]; then
    modules=/run/host$GUEST_MODULES_FOLDER
else
    modules=/run/modules
    mkdir -p $modules/lib/modules
    cp -r "/usr/lib/uml/modules/$(uname -r)" $modules/lib/modules/
    depmod -b $modules
fi
printf '#!/bin/sh\nexec /sbin/modprobe -d %s "$@"\n' "$modules" >/run/modprobe
chmod +x /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
for module in ${GUEST_MODULES//,/ }; do /run/modprobe "$module" || echo "no module $module"; done
ip link set lo up
hostname guest
echo "guest is up"
bash -c "$(base64 -d <<<"$GUEST_COMMAND")" </dev/null
echo "guest exit status $?"
sync
halt -f -p 2>/dev/null || echo o >/proc/sysrq-trigger
sleep 10
