"""Two programs for a container: LEAVE leaves every trace it can, LOOK reports everything it can see.

The report of LOOK must not depend on whether LEAVE or IDLE ran before it in the same container.
"""

from __future__ import annotations

CANARY = "canary-7f3a9c1e"

LEAVE = f"""
import array, ctypes, fcntl, mmap, os, signal, socket, subprocess, sys, threading, time
canary = {CANARY!r}
keep = []

def attempt(action):
    try:
        return action()
    except Exception as error:
        return error

zygote = sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid()))
print(canary * 100)
sys.stderr.write(canary * 100)
secret = [canary + str(number) for number in range(10_000)]

for folder in ("/workspace", "/tmp", "/dev/shm", "/dev/mqueue"):
    attempt(lambda: os.setxattr(folder, "user." + canary, canary.encode()))
    attempt(lambda: os.setxattr(folder, "user.x", bytes(2000)))
    attempt(lambda: os.makedirs(f"{{folder}}/{{canary}}/deep/deeper"))
    for number in range(9):
        attempt(lambda: open(f"{{folder}}/{{canary}}{{number}}", "w").write(canary * 1000))
        attempt(lambda: os.link(f"{{folder}}/{{canary}}{{number}}", f"{{folder}}/{{number}}-link"))
        attempt(lambda: os.symlink("/", f"{{folder}}/{{canary}}/{{number}}"))
    attempt(lambda: os.mkfifo(f"{{folder}}/{{canary}}/fifo"))
    attempt(lambda: os.chmod(f"{{folder}}/{{canary}}/deep", 0))
    lock = attempt(lambda: open(f"{{folder}}/{{canary}}0", "r+"))
    attempt(lambda: fcntl.lockf(lock, fcntl.LOCK_EX))
    keep.append(lock)
    unlinked = attempt(lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
    attempt(lambda: os.write(unlinked, canary.encode() * 1000))
    listener = socket.socket(socket.AF_UNIX)
    attempt(lambda: listener.bind(f"{{folder}}/{{canary}}.sock"))
    attempt(lambda: listener.listen())
    keep.append(listener)
    descriptor = attempt(lambda: os.open(folder, os.O_RDONLY))
    # "no dump" and "no access times"
    attempt(lambda: fcntl.ioctl(descriptor, 0x40086602, array.array("l", [0x40 | 0x80])))
    attempt(lambda: os.chmod(folder, 0o2711))
    attempt(lambda: os.utime(folder, (7, 7)))
time.sleep(0.1)
for top, _, names in os.walk("/dev"):
    for name in names:
        attempt(lambda: os.utime(os.path.join(top, name)))
abstract = socket.socket(socket.AF_UNIX)
attempt(lambda: abstract.bind("\\0" + canary))
attempt(lambda: socket.send_fds(abstract, [b"x"], [0]))
for family in (socket.AF_INET, socket.AF_INET6):
    def talk():
        one, other = socket.socket(family), socket.socket(family)
        one.bind(("localhost", 0))
        one.listen()
        other.connect(one.getsockname())
        one.accept()[0].send(canary.encode() * 100)
    attempt(talk)

libc = ctypes.CDLL(None)
for make in (lambda: libc.shmget(7, 4096, 0o1666), lambda: libc.semget(7, 1, 0o1666), lambda: libc.msgget(7, 0o1666)):
    attempt(make)
for target in (1, *zygote):
    for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT):
        attempt(lambda: os.kill(target, number))
    for name in ("oom_score_adj", "comm", "coredump_filter", "timerslack_ns", "autogroup", "clear_refs"):
        attempt(lambda: open(f"/proc/{{target}}/{{name}}", "w").write("1"))
    attempt(lambda: os.setpriority(os.PRIO_PROCESS, target, 9))
    attempt(lambda: os.sched_setaffinity(target, {{0}}))
    attempt(lambda: os.setpgid(target, 0))

memory = mmap.mmap(-1, 300 << 20)
memory.write(canary.encode() * (20 << 20))
until = time.process_time() + 0.7
while time.process_time() < until:
    pass
for _ in range(9):
    subprocess.run(["/bin/true"])
for _ in range(5):
    thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
    thread.start()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        ctypes.memset(ctypes.create_string_buffer(1 << 20), 65, 1 << 20)
        time.sleep(60)
sys.stdout.flush()
os._exit(0)
"""

IDLE = "import time; time.sleep(0.1)"

LOOK = f"""
import array, ctypes, fcntl, gc, hashlib, json, os, re, resource, signal, sys, time
begun = time.time()
canary = re.compile(b{CANARY[:-1] + "[" + CANARY[-1] + "]"!r})  # a pattern that does not match its own source
me = os.getpid()
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != me)
seen = {{"processes": len(pids), "pid": me - pids[-1]}}

def attempt(key, look):
    try:
        seen[key] = look()
    except Exception as error:
        seen[key] = repr(error)

def note_status(key, path):
    status = os.stat(path)
    seen[key] = [status.st_mode, status.st_nlink, status.st_size, status.st_ino]
    for name in ("st_atime", "st_mtime", "st_ctime"):
        seen[f"{{key}} {{name}}"] = begun - getattr(status, name) < 30
    attempt(f"{{key}} attributes", lambda: os.listxattr(path))

class Entry(ctypes.Structure):
    _fields_ = [("inode", ctypes.c_uint64), ("position", ctypes.c_int64), ("size", ctypes.c_ushort),
                ("kind", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Entry)
libc.readdir.argtypes = [ctypes.c_void_p]
def entries(folder):
    stream, found = libc.opendir(folder.encode()), []
    while entry := libc.readdir(stream):
        found.append([entry.contents.name.decode(), entry.contents.inode, entry.contents.position])
    # The inode of the parent does not count.
    return [[name, 0 if name == ".." else inode, position] for name, inode, position in found]

for folder in ("/workspace", "/tmp", "/dev/shm", "/dev/mqueue"):
    note_status(folder, folder)
    space = os.statvfs(folder)
    if folder != "/dev/mqueue":
        seen[folder + " space"] = [space.f_blocks, space.f_bfree, space.f_files, space.f_ffree]
        attempt(folder + " new file", lambda: (open(folder + "/new", "w").close(), os.stat(folder + "/new").st_ino)[1])
    attempt(folder + " entries", lambda: entries(folder))
    def flags():
        found = array.array("l", [0])
        fcntl.ioctl(os.open(folder, os.O_RDONLY), 0x80086601, found)
        return found[0]
    attempt(folder + " flags", flags)
for top, folders, names in os.walk("/dev"):
    for name in names:
        path = os.path.join(top, name)
        if not os.path.islink(path) and not top.startswith(("/dev/shm", "/dev/mqueue")):
            for kind in ("st_atime", "st_mtime", "st_ctime"):
                attempt(f"{{path}} {{kind}}", lambda: begun - getattr(os.stat(path), kind) < 1.5)

def read(key, path):
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 20)
    except OSError as error:
        seen[key] = str(error.errno)
        return
    if canary.search(content):
        seen["canary"] = seen.get("canary", []) + [path]
    lines = content.splitlines()
    if len(lines) < 200:
        for number, line in enumerate(lines):
            name = line.split(b":")[0][:40].decode("latin1") if b":" in line else number
            seen[f"{{key}}:{{name}}"] = line.decode("latin1")
    else:
        seen[key] = hashlib.sha256(content).hexdigest()

for place in ("/proc", "/sys"):
    for top, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not (name.isdigit() or name.endswith("self")) or top != "/proc"]
        for name in names:
            path = os.path.join(top, name)
            if name not in ("kmsg", "kcore", "kpagecount", "kpageflags", "kpagecgroup", "kallsyms"):
                read(path, path)
def is_asleep(pid):
    return "S (sleeping)" in open(f"/proc/{{pid}}/status").read()
# The zygote may still be waiting for a processor to go to sleep. How often it sleeps is compared.
while not all(map(is_asleep, pids[1:])) and time.time() < begun + 5:
    time.sleep(0.01)
for number, pid in enumerate([*pids, me]):
    for top, folders, names in os.walk(f"/proc/{{pid}}"):
        folders[:] = [name for name in folders if name not in ("fd", "fdinfo", "map_files", "ns", "cwd", "root")]
        for name in names:
            if name not in ("pagemap", "mem", "clear_refs", "auxv"):
                path = os.path.join(top, name)
                read(path.replace(str(pid), f"<{{number}}>"), path)

for name in dir(resource):
    if name.startswith("RLIMIT_"):
        attempt(name, lambda: resource.getrlimit(getattr(resource, name)))
seen["environment"] = dict(os.environ)
seen["handlers"] = [str(signal.getsignal(number)).split(" at ")[0] for number in sorted(signal.valid_signals())]
seen["blocked"] = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
seen["pending"] = sorted(map(int, signal.sigpending()))
seen["scheduling"] = [os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]
seen["mask"], seen["modules"] = os.umask(0), sorted(sys.modules)
seen["children"] = list(resource.getrusage(resource.RUSAGE_CHILDREN))
def search():
    found = 0
    with open("/proc/self/mem", "rb", 0) as memory:
        for line in open("/proc/self/maps"):
            if " r" in line and "[v" not in line:
                first, last = (int(part, 16) for part in line.split()[0].split("-"))
                try:
                    memory.seek(first)
                    found += len(canary.findall(memory.read(last - first)))
                except (OSError, ValueError):
                    pass
    return found
seen["canaries in memory"] = search()
print(json.dumps(seen))
"""
