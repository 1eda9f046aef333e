#!/bin/bash
# The first process inside user-mode-linux: a root file system that is the machine's, with nothing of it written to.
# GUEST_COMMAND is a shell command in base64, GUEST_MODULES the modules to load, GUEST_PATH the search path.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts
for folder in /run /tmp /var/tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p /run/netns /run/modules/lib/modules
# The modules stand in a folder of their own, as /lib/modules is the machine's: the kernel is told how to find them.
cp -r "/usr/lib/uml/modules/$(uname -r)" /run/modules/lib/modules/
depmod -b /run/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modules "$@"\n' >/run/modules/modprobe
chmod +x /run/modules/modprobe
echo /run/modules/modprobe >/proc/sys/kernel/modprobe
for module in ${GUEST_MODULES//,/ }; do /run/modules/modprobe "$module" || echo "no module $module"; done
ip link set lo up
hostname guest
bash -c "$(base64 -d <<<"$GUEST_COMMAND")" </dev/null
echo "guest exit status $?"
sync
halt -f -p 2>/dev/null || echo o >/proc/sysrq-trigger
sleep 10
