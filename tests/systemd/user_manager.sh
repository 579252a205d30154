#!/bin/bash
# A real `systemd --user` manager on a machine whose init is something else: private mount, pid and cgroup namespaces.
#
#   user_manager.sh HOME COMMAND...    as root; COMMAND runs beside the manager, and its exit code is returned
#
# Everything that was started ends with the namespace. Exit code 77: there can be no manager here, and why.
set -u

cannot() {
  echo "no user manager: $1" >&2
  exit 77
}

if [ "${INSIDE:-}" = "" ]; then
  [ -x /lib/systemd/systemd ] || cannot 'systemd is not installed'
  [ "$(id -u)" = 0 ] || cannot 'needs root'
  hierarchy=/sys/fs/cgroup/unified
  [ -d $hierarchy ] || hierarchy=/sys/fs/cgroup
  before=$(sed -n 's/^0:://p' /proc/self/cgroup)
  group=$hierarchy/motoolsd-test.$$
  mkdir $group 2>/dev/null || cannot 'cgroups cannot be made'
  leave() {
    # Processes of the namespace end a moment after it.
    echo $$ >"$hierarchy$before/cgroup.procs" 2>/dev/null || echo $$ >$hierarchy/cgroup.procs
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      find $group -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  }
  trap leave EXIT
  echo $$ >$group/cgroup.procs 2>/dev/null || cannot 'cgroups cannot be entered'
  INSIDE=1 unshare --fork --kill-child --pid --mount --propagation private --mount-proc --cgroup "$0" "$@"
  exit $?
fi

home=$1
shift
user=$(id -u)
runtime=/run/user/$user
mount -t tmpfs -o mode=755 tmpfs /run || cannot '/run cannot be mounted'
mkdir -p /run/systemd/system /run/systemd/unit-root $runtime && chmod 700 $runtime
umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup || cannot 'cgroup2 cannot be mounted'
mkdir -p /sys/fs/cgroup/user/init && echo $$ >/sys/fs/cgroup/user/init/cgroup.procs || cannot 'no cgroup can be had'

session=(env -i HOME="$home" USER=root LOGNAME=root PATH="$PATH" TMPDIR="${TMPDIR:-/tmp}" XDG_RUNTIME_DIR=$runtime
  DBUS_SESSION_BUS_ADDRESS=unix:path=$runtime/bus)
"${session[@]}" /lib/systemd/systemd --user --log-target=null &
manager=$!
for _ in $(seq 100); do
  "${session[@]}" systemctl --user is-system-running >/dev/null 2>&1 && break
  kill -0 $manager 2>/dev/null || cannot 'it ended at its start'
  sleep 0.1
done
"${session[@]}" systemctl --user is-system-running >/dev/null 2>&1 || cannot 'it did not come up in ten seconds'
"${session[@]}" "$@"
code=$?
"${session[@]}" systemctl --user exit 2>/dev/null
exit $code
