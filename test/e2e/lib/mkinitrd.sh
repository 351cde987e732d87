#!/bin/sh
# Makes an initramfs for the guests of the tests: busybox, the modules for a virtio disk with ext4, and guest-init.sh.
#
#   mkinitrd.sh OUT KERNEL-VERSION
#
# Needs busybox-static, kmod and cpio, and the modules of that kernel in /lib/modules.
set -eu
out=${1:?where to write the initramfs}
version=${2:?the version of the kernel}
here=$(cd "$(dirname "$0")" && pwd -P)

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT INT TERM
mkdir -p "$tree/bin" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/mnt" "$tree/modules"
cp "$(command -v busybox)" "$tree/bin/busybox"
cp "$here/guest-init.sh" "$tree/init"
chmod 755 "$tree/init"

# Each module after those that it needs; a driver that is built into the kernel has no file.
for module in virtio_pci virtio_blk ext4 crc32c_generic; do
  PATH=$PATH:/usr/sbin:/sbin modprobe --set-version "$version" --show-depends "$module"
done | while read -r verb file _; do
  [ "$verb" = insmod ] || continue
  name=${file##*/}
  [ -e "$tree/modules/$name" ] && continue
  cp "$file" "$tree/modules/$name"
  echo "$name" >>"$tree/modules/order"
done

(cd "$tree" && find . | cpio --create --format=newc --quiet | gzip -1) >"$out"
