"""Running scripts that nobody has read: one job, one fresh place, one typed result.

    open_sandbox            chooses a backend for this host
      BubblewrapSandbox     the default: isolates
      DockerSandbox         isolates, in containers of one or several engines (`containers`)
      RaySandbox            either of these on the nodes of a cluster
      ProcessSandbox        the fallback: only limits
    GuardedSandbox          on top of any: a sandbox that keeps failing stops the run
    CachedSandbox           on top of that: no job runs twice
    sandbox_worker          what runs inside: a zygote that forks, and a supervisor for every job
    doctor                  which guarantees hold on this host

What is promised, what is not, and which test shows it: THREATS.md.
"""
