"""Containers of Docker engines as workers:

settings     what the user can configure
engine       a Docker engine; every call has a deadline
policy       how a container is isolated and limited
owner        who a container belongs to, and whether its owner is alive
channel      a container's standard streams
container    a container with the warm worker in it, as seen from the host
pool         assigns containers to jobs, and keeps some ready
reaper       removes containers whose owner is dead
checks       whether an engine supports what is asked of it
"""
