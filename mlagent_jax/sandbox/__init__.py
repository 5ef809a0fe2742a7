"""Runs untrusted scripts: one job in one fresh environment gives one typed result.

    open_sandbox            chooses a backend for this host
      BubblewrapSandbox     the default: isolates
      DockerSandbox         isolates, in containers of one or several engines (`containers`)
      RaySandbox            either of these on the nodes of a cluster
      ProcessSandbox        the fallback: limits resources, but does not isolate
    GuardedSandbox          wraps any backend: a sandbox that keeps failing stops the run
    CachedSandbox           wraps that: no job runs twice
    sandbox_worker          what runs inside: a process that forks, and a supervisor for every job
    doctor                  tests which guarantees hold on this host

THREATS.md says what is promised, what is not, and which test shows it.
"""
