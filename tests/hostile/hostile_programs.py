"""Programs that attack, exhaust or confuse a sandbox, and what has to come of each.

All are bounded: where an attack works after all, it stops by itself and harms nothing. Files of the kernel
are opened for writing, never written; sockets to other machines are made, never answered. System calls are
named by their numbers on x86-64.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.sandbox.interface import Status


@dataclass(frozen=True)
class Hostile:
    """One program.

    statuses: how its execution may end.
    prints: what must stand in its output.
    wall_seconds: its time limit.
    prints_in_docker: if that is something else there.
    """

    name: str
    source: str
    statuses: tuple[Status, ...]
    prints: str = ""
    wall_seconds: float = 10.0
    prints_in_docker: str | None = None


# Tries each of several deeds and prints the name of what refused it.
_TRY = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def attempt(name, deed):
    try:
        result = deed()
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error))
    else:
        print(name, "SUCCEEDED", result)

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
"""

EXHAUSTION = (
    Hostile(
        "fork bomb",
        """
import os, time
for _ in range(60):
    if os.fork() == 0:
        for _ in range(4):
            os.fork()
        time.sleep(5)
        os._exit(0)
""",
        (Status.PIDS,),
    ),
    Hostile(
        "patient fork bomb",
        """
import os, time
for _ in range(10000):
    try:
        os.fork()
    except OSError:
        time.sleep(.01)
""",
        (Status.PIDS, Status.TIMEOUT, Status.OOM),
        wall_seconds=2,
    ),
    Hostile(
        "thread bomb",
        """
import threading
wait = threading.Event()
for _ in range(10000):
    threading.Thread(target=wait.wait, daemon=True).start()
""",
        (Status.PIDS,),
    ),
    Hostile(
        "memory hog",
        """
hoard = []
for _ in range(4096):
    hoard.append(bytearray(16 << 20))
""",
        (Status.OOM,),
        "MemoryError",
    ),
    Hostile(
        "one array too large",
        """
import numpy as np
np.zeros(1 << 40)
""",
        (Status.OOM,),
        "ArrayMemoryError",
    ),
    Hostile(
        "memory hog in children",
        """
import os, time
for _ in range(6):
    if os.fork() == 0:
        hoard = bytearray(300 << 20)
        time.sleep(8)
        os._exit(0)
for _ in range(6):
    os.wait()
""",
        (Status.OOM,),
    ),
    Hostile(
        "shared memory hog",
        """
import mmap, os, time
for _ in range(12):
    area = mmap.mmap(-1, 256 << 20)
    if os.fork() == 0:
        for page in range(0, 256 << 20, 4096):
            area[page] = 1
        time.sleep(8)
        os._exit(0)
    area.close()
for _ in range(12):
    os.wait()
""",
        (Status.OOM,),
    ),
    Hostile(
        "memory that no process maps",
        _TRY
        + "attempt('memfd', lambda: os.memfd_create('x'))\n"
        + "attempt('shm', lambda: open('/dev/shm/x', 'wb').write(bytes(16 << 20)))\n"
        + "attempt('shmget', lambda: call(29, 0, ctypes.c_size_t(64 << 20), 0o1600))\n",
        (Status.OK,),
        "memfd EPERM\nshm ENOSPC\nshmget EPERM\n",
        prints_in_docker="memfd EPERM\nshm EFBIG\nshmget EPERM\n",  # as large as one file may be
    ),
    Hostile("disk filler", "open('big', 'wb').write(bytes(64 << 20))", (Status.DISK,), "[Errno 2"),
    Hostile(
        "disk filler in pieces",
        """
for i in range(64):
    open(f'{i}', 'wb').write(bytes(1 << 20))
""",
        (Status.DISK,),
        "No space left",
    ),
    Hostile(
        "disk filler in the temporary folder",
        """
import tempfile
for i in range(64):
    open(f'{tempfile.gettempdir()}/{i}', 'wb').write(bytes(1 << 20))
""",
        (Status.DISK,),
        "No space left",
    ),
    Hostile(
        "numpy on a full disk",
        """
import numpy as np
open('fill', 'wb').write(bytes(7 << 20))
np.zeros(1 << 20).tofile('big')
""",
        (Status.DISK,),
    ),
    Hostile(
        "inode filler",
        """
import os
os.mkdir('x')
for i in range(1_000_000):
    open(f'x/{i}', 'w').close()
""",
        (Status.DISK,),
        "No space left",
    ),
    Hostile(
        "sparse files",
        """
for i in range(20):
    with open(f'{i}', 'wb') as file:
        file.truncate(8 << 20)
""",
        (Status.OUTPUT_LIMIT,),
    ),
    Hostile(
        "folders without end",
        """
import os
for _ in range(190):
    os.mkdir('d' * 100)
    os.chdir('d' * 100)
""",
        (Status.OUTPUT_LIMIT, Status.DISK),
    ),
    Hostile(
        "output without end",
        """
while True:
    print('x' * 1000)
""",
        (Status.TIMEOUT,),
        "xxx",
        1.0,
    ),
    Hostile(
        "errors without end",
        """
import sys
while True:
    sys.stderr.write('e' * 100_000)
""",
        (Status.TIMEOUT,),
        "eee",
        1.0,
    ),
    Hostile("endless loop", "while True: pass", (Status.TIMEOUT,), "", 1.0),
    Hostile("sleeper", "import time; time.sleep(3600)", (Status.TIMEOUT,), "", 1.0),
    Hostile("waits for input", "input()", (Status.FAILED,), "EOFError"),
    Hostile(
        "deaf to signals",
        """
import signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
print('deaf')
while True: time.sleep(1)
""",
        (Status.TIMEOUT,),
        "deaf",
        1.0,
    ),
    Hostile(
        "stops itself",
        """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
""",
        (Status.TIMEOUT,),
        "",
        1.0,
    ),
    Hostile(
        "many threads in its libraries",
        """
import threadpoolctl, numpy as np
threadpoolctl.threadpool_limits(128)
a = np.ones((500, 500))
for _ in range(20): a @ a
""",
        # Out of memory, OpenBLAS may wait for more without end.
        (Status.OK, Status.PIDS, Status.OOM, Status.FAILED, Status.TIMEOUT),
    ),
    Hostile(
        "stack overflow",
        """
import ctypes
ctypes.string_at(0)
""",
        (Status.FAILED,),
    ),
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
print(socket.if_nameindex())
""",
        (Status.FAILED, Status.OK),
    ),
    Hostile(
        "calls out",
        _TRY
        + """
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(1)
        s.connect(address)

# Addresses reserved for documentation: nothing answers there even where a network is.
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
        "tcp ENETUNREACH\nudp ENETUNREACH\ntcp6 ENETUNREACH\nmetadata ENETUNREACH\ndns gaierror\n",
    ),
    Hostile(
        "odd sockets",
        _TRY
        + """
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt('alg', lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
attempt('vsock', lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
""",
        (Status.OK,),
        "raw EPERM\npacket EAFNOSUPPORT\nnetlink EAFNOSUPPORT\nalg EAFNOSUPPORT\nvsock EAFNOSUPPORT\n",
    ),
    Hostile(
        "unix sockets of others",
        "print(open('/proc/net/unix').read().count('\\n'))",
        (Status.OK,),
    ),
    Hostile(
        "writes outside",
        _TRY
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
        _TRY
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
        _TRY
        + """
print(sorted(name for name in os.listdir('/proc') if name.isdigit()) == ['1', str(os.getpid())])
for name in ('environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'auxv'):
    path = f'/proc/1/{name}'
    attempt(name, lambda: os.listdir(path) if name in ('fd', 'root', 'cwd') else open(path, 'rb').read(1))
attempt('attach', lambda: call(101, 16, 1, 0, 0))
attempt('readv', lambda: call(310, 1, 0, 0, 0, 0, 0))
attempt('pidfd_getfd', lambda: call(438, 0, 0, 0))
""",
        (Status.OK,),
        "True\nenviron EACCES\nmem EACCES\nmaps EACCES\nfd EACCES\n"
        "root EACCES\ncwd EACCES\nauxv EACCES\n"
        "attach EPERM\nreadv EPERM\npidfd_getfd EPERM\n",
    ),
    Hostile(
        "new namespaces and mounts",
        _TRY
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
        _TRY + "attempt('x32', lambda: call(0x40000000 + 39))\n",
        (Status.OK, Status.FAILED),
        "x32 ENOSYS\n",
        prints_in_docker="",  # killed
    ),
    Hostile(
        "weakens its supervisor",
        _TRY
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
        _TRY
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

CONFUSION = (
    Hostile(
        "bytes that are no text",
        r"""
import sys
sys.stdout.buffer.write(b'\xff\xfe A\x00B \x1b[31mred\x1b[0m \x1b]0;title\x07 ')
sys.stdout.buffer.write(b'\xe2\x80\xaeX\rnext \xc3\xa9\n')
""",
        (Status.OK,),
        "\\xff\\xfe AB red  X\nnext é\n",
    ),
    Hostile(
        "replaces its output",
        """
import os, sys
sys.stdout = sys.stderr = None
os.close(1)
os.close(2)
1 / 0
""",
        (Status.FAILED,),
    ),
    Hostile(
        "deletes all it can",
        """
import os, shutil
shutil.rmtree('/tmp', ignore_errors=True)
shutil.rmtree('.', ignore_errors=True)
print(os.listdir('.'))
""",
        (Status.OK,),
    ),
    Hostile(
        "links instead of files",
        """
import os
os.symlink('/etc/passwd', 'submission.csv')
os.symlink('/dev/zero', 'zero')
os.symlink('/', 'root')
os.symlink('.', 'loop')
""",
        (Status.OK,),
    ),
    Hostile(
        "planted start-up files",
        """
for name in ('sitecustomize.py', 'usercustomize.py', 'evil.pth', 'numpy.py'):
    open(name, 'w').write('raise SystemExit(9)')
""",
        (Status.OK,),
    ),
    Hostile(
        "attacks the one that runs it",
        """
import sys, gc
for module in list(sys.modules.values()):
    if 'sandbox_worker' in str(getattr(module, '__file__', '')):
        print('FOUND', module)
for thing in gc.get_objects():
    if type(thing).__name__ == 'socket':
        print('SOCKET', thing.fileno())
        thing.send(b'x' * 64)
""",
        (Status.OK, Status.FAILED),
    ),
    Hostile(
        "writes to every descriptor",
        r"""
import os
for number in range(3, 256):
    try:
        os.write(number, b'\0' * 4096)
        print('WROTE', number)
    except OSError:
        pass
""",
        (Status.OK,),
    ),
    Hostile(
        "odd names",
        r"""
open('new\nline', 'w').close()
open(b'\xff\xfe', 'w').close()
open('\u202etxt.exe', 'w').close()
""",
        (Status.OK,),
    ),
)
