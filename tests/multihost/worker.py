"""One process of a run: SFT for three steps, then two PPO updates. worker.py FOLDER PORT PROCESSES ID"""

import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1] / "ppo"))

from mlagent_jax.parallel import distributed


def main() -> None:
    folder, port, processes, process_id = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    if processes > 1:
        jax.config.update("jax_num_cpu_devices", 4)
        distributed.initialize(f"localhost:{port}", processes, process_id)

    import dataclasses

    import bandit
    import numpy as np

    from mlagent_jax.models.qwen2 import init_params
    from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, to_local
    from mlagent_jax.ppo import loop as ppo
    from mlagent_jax.sft import loop as sft
    from mlagent_jax.sft.config import SFTConfig
    from mlagent_jax.text.chat import Encoded
    from mlagent_jax.training.optimisers import OptimiserConfig
    from mlagent_jax.training.stage_checkpoints import load_params

    # Rows over four of the eight devices, each row and the parameters over two and four.
    mesh = make_mesh(MeshConfig(data=-1, fsdp=processes, sequence=processes))
    # A large eps: Adam would turn rounding noise in near-zero gradients into whole steps.
    rule = OptimiserConfig(learning_rate=1e-2, eps=1e-2)
    rng = np.random.default_rng(0)
    sequences = [
        Encoded(rng.integers(0, bandit.V, n).astype(np.int32), np.arange(n) >= 3, ((3, int(n)),))
        for n in rng.integers(5, 12, 20)
    ]
    config = SFTConfig(row_length=16, batch_rows=8, micro_rows=4, steps=3, eval_every=3, optimiser=rule)
    sft.train(config, bandit.MODEL, init_params(bandit.MODEL, 0), sequences, folder / "sft", mesh)
    params = load_params(folder / "sft", bandit.MODEL, mesh)

    config = dataclasses.replace(
        bandit.CONFIG,
        updates=2,
        batch_size=16,
        minibatch_size=16,
        critic="separate",
        kl_coefficient=0.1,
        actor_optimiser=rule,
        critic_optimiser=rule,
    )
    collector = bandit.BanditCollector() if distributed.is_main() else None
    trained = ppo.train(
        config, bandit.MODEL, params, collector, bandit.make_policy(mesh), folder / "ppo", mesh
    )

    # An error of the first process's own work reaches every process.
    try:
        distributed.on_main(lambda: 1 // 0)
    except (ZeroDivisionError, RuntimeError) as error:
        print(f"process {process_id} heard: {error!r}")
    assert distributed.broadcast({"from": process_id}) == {"from": 0}
    distributed.barrier("end")
    whole = to_local(trained, mesh)
    if distributed.is_main():
        np.savez(folder / "params.npz", *jax.tree.leaves(whole))


if __name__ == "__main__":
    main()
