#!/bin/busybox sh
# The only program of a test's guest. It boots until the disk has seen as many boots as the kernel's command line says
# (atoll.boots=N), each time checks what the boot before left, and leaves something new. What it says to the test are
# the lines that begin with GUEST:.
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 1 >/proc/sys/kernel/printk
while read -r module; do insmod "/modules/$module"; done </modules/order

die() {
  echo "GUEST: failed: $*"
  poweroff -f
}

tries=0
while [ ! -b /dev/vda ]; do
  tries=$((tries + 1))
  [ $tries -le 100 ] || die "no disk"
  sleep 0.1
done
mount -t ext4 /dev/vda /mnt || die "no file system"

boots=$(cat /mnt/boots 2>/dev/null || echo 0)
if [ "$boots" -gt 0 ]; then
  (cd /mnt && sha256sum -c sum >/dev/null 2>&1) || die "boot $boots left something else"
  echo "GUEST: found $boots $(cut -c1-64 /mnt/sum)"
fi
boots=$((boots + 1))
dd if=/dev/urandom of=/mnt/data bs=64k count=64 2>/dev/null
(cd /mnt && sha256sum data >sum)
echo $boots >/mnt/boots
sync
# Read back from the disk, not from the cache.
echo 3 >/proc/sys/vm/drop_caches
(cd /mnt && sha256sum -c sum >/dev/null 2>&1) || die "does not read what it wrote"
echo "GUEST: wrote $boots $(cut -c1-64 /mnt/sum)"

wanted=$(sed -n 's/.*atoll\.boots=\([0-9]*\).*/\1/p' /proc/cmdline)
# Without unmounting: the next boot replays the journal.
if [ "$boots" -lt "$wanted" ]; then
  echo "GUEST: reboots"
  reboot -f
fi
umount /mnt
echo "GUEST: powers off"
poweroff -f
