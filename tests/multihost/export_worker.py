"""One process of an export and of loading it again. export_worker.py FOLDER PORT PROCESSES ID"""

import sys
from pathlib import Path

import jax

from mlagent_jax.parallel import distributed


def main() -> None:
    folder, port, processes, process_id = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    jax.config.update("jax_num_cpu_devices", 2)
    distributed.initialize(f"localhost:{port}", processes, process_id)

    import numpy as np

    from mlagent_jax.models.config import Qwen2Config
    from mlagent_jax.models.hf import load_hf, save, save_hf
    from mlagent_jax.models.hf.checkpoint import StoredTensor
    from mlagent_jax.models.qwen2 import init_params
    from mlagent_jax.models.sharding import param_shardings
    from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, put, to_local

    config = Qwen2Config(64, 32, 48, 2, 4, 2)
    mesh = make_mesh(MeshConfig(fsdp=processes, tensor=2))
    given = init_params(config, 0)
    params = put(given, param_shardings(config, mesh))
    save_hf(folder / "hf", config, params, max_shard_bytes=10_000)

    read = []
    original = StoredTensor.read

    def counted(self, index):
        part = original(self, index)
        read.append(part.size)
        return part

    StoredTensor.read = counted
    _, loaded = load_hf(folder / "hf", mesh)
    for ours, expected in zip(jax.tree.leaves(to_local(loaded, mesh)), jax.tree.leaves(given), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert all(a.sharding == b.sharding for a, b in zip(*map(jax.tree.leaves, (loaded, params)), strict=True))
    print(f"read {sum(read)} of {config.num_parameters}")

    # The first process's disk is full: every process hears of it, and none is left waiting.
    def full(path, specs, tensors):
        raise OSError(28, "No space left on device")

    save.write_shard = full
    try:
        save_hf(folder / "hf", config, params, max_shard_bytes=10_000)
    except (OSError, RuntimeError) as error:
        print(f"process {process_id} heard: {error}")
    distributed.barrier("end")


if __name__ == "__main__":
    main()
