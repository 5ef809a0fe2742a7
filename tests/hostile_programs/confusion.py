"""Programs whose output or files could confuse whoever reads them."""

from __future__ import annotations

from hostile_programs.program import Hostile
from mlagent_jax.sandbox.interface import Status

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
    Hostile(
        "names longer than any message",
        r"""
import os
for _ in range(15):
    os.mkdir(b"\xff" * 255)
    os.chdir(b"\xff" * 255)
try:
    for number in range(900):
        open(b"%03d" % number + b"\xff" * 200, "w").close()
except OSError as error:
    print(error.errno)
""",
        (Status.OK,),
    ),
    Hostile(
        "one long name",
        r"open(b'\xff' * 255, 'w').close()",
        (Status.OK,),
    ),
    Hostile(
        "two names that are shown alike",
        r"""
import os
open("x\ny", "w").close()
os.mkdir("x\\ny")
open("x\\ny/f", "w").close()
""",
        (Status.OK,),
    ),
)
