"""The trusted server inside the sandbox: it imports the scientific stack once and forks for every job.

It runs inside the sandbox as a package of its own, `sandbox_worker`, on the standard library alone: nothing
else of this project can be seen there. Its parts import each other relatively, because the host imports it
as well (`protocol` is spoken at both ends).
"""
