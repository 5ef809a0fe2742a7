"""Containers of Docker engines as workers, in the order of a container's life:

settings     what the user may choose
engine       an engine by its address; every call has a deadline
policy       the walls of a container
owner        who a container belongs to, and whether that one still lives
container    a container with the warm worker in it, as seen from the host
pool         which container serves which job, and what stands ready
reaper       removes what a dead owner left
checks       whether an engine can give what is asked of it
"""
