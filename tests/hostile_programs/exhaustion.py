"""Programs that use up what a host has: each ends with the status of its limit."""

from __future__ import annotations

from hostile_programs.program import TRY, Hostile
from mlagent_jax.sandbox.interface import Status

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
        # None of its processes ever ends with an error, so only the time limit stops it.
        (Status.TIMEOUT,),
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
        "one array of half of all addresses",
        """
import numpy as np
np.empty(1 << 62, np.uint8)
""",
        (Status.OOM,),
        "ArrayMemoryError",
    ),
    Hostile(
        "memory in small pieces",
        """
import mmap
hoard = []
while True:
    hoard.append(mmap.mmap(-1, 64 << 10))
""",
        (Status.OOM,),
        "Cannot allocate memory",
    ),
    Hostile(
        "memory at an address of its own choice",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
place, size = ctypes.c_void_p(1 << 32), ctypes.c_size_t(100 << 30)
raise SystemExit(libc.mmap(place, size, 3, 0x32, -1, ctypes.c_long(0)) == 2**64 - 1)
""",
        (Status.OOM,),
    ),
    Hostile(
        "reserves more address space than allowed",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
raise SystemExit(libc.mmap(None, ctypes.c_size_t(100 << 30), 0, 0x22, -1, ctypes.c_long(0)) == 2**64 - 1)
""",
        (Status.OOM,),
    ),
    Hostile(
        "heap larger than allowed",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
raise SystemExit(libc.sbrk(ctypes.c_long(100 << 30)) == 2**64 - 1)
""",
        (Status.OOM,),
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
        TRY
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
        (Status.OK, Status.DISK),
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
        "claims to be out of memory",
        "raise MemoryError",
        (Status.FAILED,),
        "MemoryError",
    ),
    Hostile(
        "claims to be out of processes",
        """
print("RuntimeError: can't start new thread")
raise SystemExit(1)
""",
        (Status.FAILED,),
    ),
    Hostile(
        "claims to be out of disk",
        "raise OSError(28, 'No space left on device')",
        (Status.FAILED,),
        "No space left",
    ),
    Hostile(
        "claims to be out of time or disk by a signal",
        """
import os, signal
os.fork() or os.kill(os.getpid(), signal.SIGXCPU)
os.kill(os.getpid(), signal.SIGXFSZ)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGXFSZ)
""",
        (Status.FAILED,),
    ),
    Hostile(
        "a child's memory",
        """
import subprocess, sys
subprocess.run([sys.executable, "-c", "x = b'a' * (1 << 40)"], check=True)
""",
        (Status.OOM,),
        "CalledProcessError",
    ),
    Hostile(
        "small things without end",
        """
hoard = [None]
while True:
    hoard.append(bytes(500))
""",
        (Status.OOM,),
        "MemoryError",
    ),
    Hostile(
        "memory that it does without",
        """
try:
    x = bytearray(1 << 40)
except MemoryError:
    print("smaller, then")
""",
        (Status.OK,),
        "smaller, then",
    ),
    Hostile(
        "all events of asynchronous input and output",
        """
import ctypes
libc = ctypes.CDLL(None)
contexts, taken, size = [], 0, 8192
while size >= 16:
    context = ctypes.c_ulong(0)
    if libc.syscall(206, ctypes.c_uint(size), ctypes.byref(context)) == 0:
        contexts.append(context)
        taken += size
    else:
        size //= 2
print("events", taken, flush=True)
""",
        (Status.OK,),
        "events 0\n",
    ),
    Hostile(
        "many threads in its libraries",
        """
import threadpoolctl, numpy as np
threadpoolctl.threadpool_limits(128)
a = np.ones((500, 500))
for _ in range(20): a @ a
""",
        # When OpenBLAS is refused address space, it retries, and may or may not give up.
        (Status.OK, Status.TIMEOUT, Status.OOM),
        wall_seconds=3.0,
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
