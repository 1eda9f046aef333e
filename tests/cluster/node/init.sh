#!/bin/bash
# Process 1 of a node: a user-mode-linux kernel whose root is an overlay of the machine's own (so every tool of the
# machine is here, and nothing written here reaches the machine). /etc/cluster/node.env says which node this is.
export PATH=/opt/cluster/sbin:/opt/cluster/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
. /etc/cluster/node.env

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for folder in /dev/shm /run /tmp /var/lib/cni; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
chmod 1777 /tmp /dev/shm
mkdir -p /run/netns /run/lock "$PROJECT"
mount --bind /opt/cluster/project "$PROJECT"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# What is not a Pod has one share of the CPU, and all Pods have one, as by systemd's system.slice: were each process of
# the runtime one of the root's, fifty Pods that begin would leave less than a hundredth of the CPU to those that run.
mkdir /sys/fs/cgroup/system
echo $$ > /sys/fs/cgroup/system/cgroup.procs
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
# The disk with the images: overlayfs works on it, as it does not on hostfs.
mount -o noinit_itable /dev/ubda /var/lib/containerd
mkdir -p /var/lib/containerd/kubelet
mount --bind /var/lib/containerd/kubelet /var/lib/kubelet
# kubelet refuses a cpuinfo without a frequency.
mount --bind /opt/cluster/node/cpuinfo /proc/cpuinfo
mount --make-rshared /

hostname "$NODE"
modprobe -a overlay ipvlan veth ifb bridge br_netfilter sch_fq sch_tbf sch_ingress cls_bpf cls_matchall \
  act_mirred \
  iptable_filter iptable_nat iptable_mangle ip6table_filter ip6table_mangle \
  xt_mark xt_connmark xt_conntrack xt_comment xt_multiport
# Packets that the kernel leaves to its thread must not wait for what kubelet does: here is one CPU for all.
chrt --fifo --pid 1 "$(pgrep -x ksoftirqd/0)"
ip link set lo up
ip link set vec0 name mgmt
ip address add "$MANAGEMENT_ADDRESS/24" dev mgmt
ip link set mgmt up
ip link set vec1 name ens192
ip link set ens192 up
# As any NIC has it. Each packet of its own costs a timer and a wake-up here, where the CPU is a process: without it
# the node, not a limit, decides what a Pod gets.
ethtool -K ens192 tso on > /dev/null
ip route add default via "$GATEWAY"
echo "$POD_ROUTES" | while read -r subnet node; do [ -z "$subnet" ] || ip route add "$subnet" via "$node"; done
sysctl -qw net.ipv4.ip_forward=1

# Each is restarted when it dies, as systemd would on a real node.
service() {
  local name=$1
  shift
  while true; do
    "$@" >> "/var/log/$name.log" 2>&1
    echo "$name ended with status $? and is started again" >> "/var/log/$name.log"
    sleep 1
  done
}
service agent /usr/bin/python3 -I -S /opt/cluster/node/agent.py "$MANAGEMENT_ADDRESS" &
# Collecting garbage less often costs memory, of which there is enough, and saves stalls.
export GOGC=400
service containerd containerd --config /opt/cluster/node/containerd.toml &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
service kubelet kubelet --kubeconfig /etc/kubernetes/kubelet.conf --config /opt/cluster/node/kubelet.yaml \
  --housekeeping-interval 60s --hostname-override "$NODE" --node-ip "$MANAGEMENT_ADDRESS" --root-dir /var/lib/kubelet --v=2 &
while true; do wait -n || sleep 1; done
