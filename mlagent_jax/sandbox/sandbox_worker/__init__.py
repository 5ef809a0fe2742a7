"""The trusted server inside the sandbox. It imports the scientific stack once and forks for every job.

Inside the sandbox it is installed as the top-level package `sandbox_worker` and uses the standard library alone;
nothing else of this project is visible there. Its modules use relative imports because the host imports the package
too: both ends speak `protocol`.
"""
