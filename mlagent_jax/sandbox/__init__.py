"""Running scripts that nobody has read: one job, one fresh place, one typed result.

    open_sandbox            chooses a backend for this host
      BubblewrapSandbox     the default: isolates
      ProcessSandbox        the fallback: only limits
    CachedSandbox           on top of either: no job runs twice
    sandbox_worker          what runs inside: a zygote that forks, and a supervisor for every job

What bubblewrap's isolation promises: a script has no network, no capabilities and no neighbours; it sees the
interpreter, its workspace and its task's public data, and changes the workspace alone; its time, memory,
processes, files and output are limited; nothing that it starts outlives it, and its files are read only after
all of it is dead. What it does not promise: protection from faults of the kernel, from side channels such as
timing, or a fair share of processor and disk bandwidth.
"""
