"""Programs that try to escape: to the host, the network, other programs, or beyond their own end."""

from __future__ import annotations

from hostile_programs.program import TRY, Hostile
from mlagent_jax.sandbox.interface import Status

# What is refused of each process of the sandbox's.
_UNREADABLE = (
    "environ EACCES\nmem EACCES\nmaps EACCES\nfd EACCES\nroot EACCES\ncwd EACCES\nauxv EACCES\n"
    "attach EPERM\nreadv EPERM\npidfd_getfd EPERM\n"
)

ESCAPES = (
    Hostile(
        "daemon",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(0.7)
        open('late', 'w').write('late')
        time.sleep(60)
    os._exit(0)
os.wait()
print('left')
""",
        (Status.OK,),
        "left",
    ),
    Hostile(
        "kills all it can",
        """
import os, signal
for number in sorted(set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}):
    signal.signal(number, signal.SIG_IGN)
for pid in (1, os.getppid(), -1):
    for number in sorted(signal.Signals):
        try:
            os.kill(pid, number)
        except OSError as error:
            print(pid, error)
print('alive')
""",
        (Status.OK, Status.FAILED, Status.TIMEOUT),
        wall_seconds=2,
    ),
    Hostile(
        "kills itself",
        """
import os
os.kill(os.getpid(), 9)
""",
        (Status.FAILED,),
    ),
    Hostile(
        "no network devices",
        """
import socket
try:
    print('devices', socket.if_nameindex())
except OSError as error:
    print('devices refused')
print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])
print(open('/proc/net/route').read().count('\\n'), open('/proc/net/if_inet6').read().count('\\n'))
""",
        (Status.OK,),
        "devices refused\n['lo']\n",
    ),
    Hostile(
        "calls out",
        TRY
        + """
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(1)
        s.connect(address)

# Addresses reserved for documentation: nothing answers there, even with a network.
attempt('tcp', lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ('192.0.2.1', 80)))
attempt('udp', lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ('192.0.2.1', 53)))
attempt('tcp6', lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ('2001:db8::1', 80)))
attempt('metadata', lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ('169.254.169.254', 80)))
try:
    socket.getaddrinfo('example.org', 80)
except socket.gaierror:
    print('dns gaierror')
""",
        (Status.OK,),
        "tcp EAFNOSUPPORT\nudp EAFNOSUPPORT\ntcp6 EAFNOSUPPORT\nmetadata EAFNOSUPPORT\ndns gaierror\n",
    ),
    Hostile(
        "odd sockets",
        TRY
        + """
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt('alg', lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
attempt('vsock', lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
""",
        (Status.OK,),
        "raw EAFNOSUPPORT\npacket EAFNOSUPPORT\nnetlink EAFNOSUPPORT\nalg EAFNOSUPPORT\nvsock EAFNOSUPPORT\n",
    ),
    Hostile(
        "unix sockets of others",
        """
import socket
def known():
    return [line.split()[-1] for line in open('/proc/net/unix').readlines()[1:] if '@' in line or '/' in line]
print('others', known())
ours = socket.socket(socket.AF_UNIX)
ours.bind('\\0ours')
print('ours', known())
""",
        (Status.OK,),
        "others []\nours ['@ours']\n",
    ),
    Hostile(
        "writes outside",
        TRY
        + """
import sys
ours = ('/x', '/dev/x', '/sandbox/x', '/job/x', 'data/x', 'data/train.csv')
for path in (*ours, '/usr/x', '/etc/x', sys.prefix + '/x', sys.base_prefix + '/x'):
    attempt('write', lambda: open(path, 'a'))
attempt('chmod', lambda: os.chmod('data/train.csv', 0o777))
attempt('unlink', lambda: os.unlink('data/train.csv'))
attempt('rename', lambda: os.rename('data', 'elsewhere'))
""",
        (Status.OK,),
        "chmod EROFS\nunlink EROFS\nrename EBUSY\n",
    ),
    Hostile(
        "kernel settings",
        TRY
        + """
settings = ('kernel/core_pattern', 'vm/drop_caches', 'user/max_user_namespaces', 'net/ipv4/ip_forward')
others = ('sysrq-trigger', '1/oom_score_adj', '1/mem', 'kcore')
for path in (*(f'sys/{name}' for name in settings), *others):
    try:
        os.close(os.open(f'/proc/{path}', os.O_WRONLY))
        print(path, 'OPENED')
    except OSError:
        pass
print('sys', os.path.exists('/sys'))
""",
        (Status.OK,),
        "sys False\n",
        prints_in_docker="sys True\n",  # read-only
    ),
    Hostile(
        "other processes",
        TRY
        + """
others = sorted(int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid())
print(others[0], len(others))
for pid in others:
    for name in ('environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'auxv'):
        path = f'/proc/{pid}/{name}'
        attempt(name, lambda: os.listdir(path) if name in ('fd', 'root', 'cwd') else open(path, 'rb').read(1))
    attempt('attach', lambda: call(101, 16, pid, 0, 0))
    attempt('readv', lambda: call(310, pid, 0, 0, 0, 0, 0))
    attempt('pidfd_getfd', lambda: call(438, 0, 0, 0))
""",
        (Status.OK,),
        f"1 1\n{_UNREADABLE}",
        # The second process is the zygote, from which scripts are forked.
        prints_in_docker=f"1 2\n{_UNREADABLE}{_UNREADABLE}",
    ),
    Hostile(
        "new namespaces and mounts",
        TRY
        + """
attempt('user', lambda: call(272, 0x10000000))
attempt('mount namespace', lambda: call(272, 0x20000))
attempt('clone', lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
attempt('clone3', lambda: call(435, 0, 0))
attempt('mount', lambda: call(165, b'x', b'/tmp', b'tmpfs', 0, 0))
attempt('umount', lambda: call(166, b'/proc', 2))
attempt('chroot', lambda: os.chroot('/tmp'))
attempt('setns', lambda: call(308, os.open('/proc/self/ns/mnt', os.O_RDONLY), 0))
attempt('mknod', lambda: os.mknod('device', 0o20666, os.makedev(1, 1)))
attempt('setuid', lambda: os.setuid(0))
""",
        (Status.OK,),
        "user EPERM\nmount namespace EPERM\nclone EPERM\nclone3 ENOSYS\nmount EPERM\numount EPERM\n"
        "chroot EPERM\nsetns EPERM\nmknod EPERM\nsetuid EINVAL\n",
        prints_in_docker="user EPERM\nmount namespace EPERM\nclone EPERM\nclone3 ENOSYS\nmount EPERM\n"
        "umount EPERM\nchroot EPERM\nsetns EPERM\nmknod EPERM\nsetuid EPERM\n",
    ),
    Hostile(
        "second table of system calls",
        TRY + "attempt('x32', lambda: call(0x40000000 + 39))\n",
        (Status.OK, Status.FAILED),
        "x32 ENOSYS\n",
        prints_in_docker="",  # killed
    ),
    Hostile(
        "weakens its supervisor",
        TRY
        + """
import resource
attempt('limits', lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
attempt('priorities', lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt('scheduler', lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
attempt('affinity', lambda: os.sched_setaffinity(1, {0}))
attempt('disk', lambda: call(251, 1, 1, 3 << 13))
attempt('queue', lambda: call(240, b'/queue', os.O_CREAT | os.O_RDWR, 0o600, None) and None)
print('own', os.sched_setaffinity(0, os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_CORE))
""",
        (Status.OK,),
        "limits EPERM\npriority EPERM\npriorities EPERM\nscheduler EPERM\naffinity EPERM\ndisk EPERM\n"
        "queue EPERM\nown None (0, 0)\n",
    ),
    Hostile(
        "kernel features",
        TRY
        + """
calls = {'keyctl': 250, 'add_key': 248, 'bpf': 321, 'perf': 298, 'io_uring': 425, 'userfaultfd': 323}
for name, number in calls.items():
    attempt(name, lambda: call(number, 0, 0, 0, 0, 0))
""",
        (Status.OK,),
        "keyctl EPERM\nadd_key EPERM\nbpf EPERM\nperf EPERM\nio_uring EPERM\nuserfaultfd EPERM\n",
    ),
    Hostile(
        "privileges",
        """
for line in open('/proc/self/status'):
    if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:')):
        print(line.split())
import os, resource
print(sorted(os.listdir('/proc/self/fd')), resource.getrlimit(resource.RLIMIT_CORE))
""",
        (Status.OK,),
        "".join(f"['Cap{kind}:', '0000000000000000']\n" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
        + "['NoNewPrivs:', '1']\n['Seccomp:', '2']\n['0', '1', '2', '3'] (0, 0)\n",
    ),
    Hostile(
        "raises its own limits",
        """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2)
        print('RAISED')
    except (ValueError, OSError):
        print('refused')
""",
        (Status.OK,),
        "refused\nrefused\nrefused\n",
    ),
)
