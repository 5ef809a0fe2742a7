"""Reading collectives from HLO: text that is counted by hand, and programs with explicit collectives."""

import json
import subprocess
import sys

import pytest

from mlagent_jax.planner.collectives import Collective, read_collectives

# Eight devices; written by hand in the form of XLA's output. Bytes: f32[8,128] is 4096, bf16[16,128] is 4096.
HLO = """HloModule test, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%inner_body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[], f32[8,128]{1,0}) parameter(0)
  %v = f32[8,128]{1,0} get-tuple-element(%p), index=1
  %all-reduce.7 = f32[8,128]{1,0} all-reduce(%v), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  ROOT %t = (s32[], f32[8,128]{1,0}) tuple(%i, %all-reduce.7)
}

%inner_test (p: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %all-gather-start = (bf16[2,128]{1,0}, bf16[16,128]{1,0}) all-gather-start(%s), replica_groups=[1,8]<=[8]
  %all-gather-done = bf16[16,128]{1,0} all-gather-done(%all-gather-start)
  ROOT %while.2 = (s32[], f32[8,128]{1,0}) while(%p), condition=%inner_test, body=%inner_body
}

%outer_test (p: (s32[], f32[8,128])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%scattering (q: f32[64,128]) -> f32[8,128] {
  ROOT %reduce-scatter.1 = f32[8,128]{1,0} reduce-scatter(%q), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %fusion = f32[8,128]{1,0} fusion(%a), kind=kCustom, calls=%scattering
  %alone = f32[8,128]{1,0} all-reduce(%a), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  %shift = f32[8,128]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,2},{3,4}}
  %named = f32[8,128]{1,0} all-reduce(%a), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  ROOT %w = f32[8,128] while(%t), condition=%outer_test, body=%outer_body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_counts_bytes_and_hosts_by_hand():
    found = {(c.kind, c.group): c for c in read_collectives(HLO, devices=8, chips_per_host=4)}
    assert found == {
        # 3 outer iterations: 7/8 of 4096 bytes each.
        ("all-gather", 8): Collective("all-gather", 8, 2, 3, 3 * 3584.0),
        # 3 x 5 iterations over pairs such as (0, 4), on both hosts: 2 x 1/2 of 4096 bytes.
        ("all-reduce", 2): Collective("all-reduce", 2, 2, 15, 15 * 4096.0),
        # Over the second axis of a 2 x 4 mesh, each within a host: 2 x 3/4 of 4096.
        ("all-reduce", 4): Collective("all-reduce", 4, 1, 1, 6144.0),
        # The operand is four times the result.
        ("reduce-scatter", 4): Collective("reduce-scatter", 4, 1, 1, 3 * 4096.0),
        ("collective-permute", 8): Collective("collective-permute", 8, 2, 1, 4096.0),
    }


PROGRAM = """
import json, sys
from mlagent_jax.planner.targets import find_target, prepare, target_devices
prepare()
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mlagent_jax.planner.compilation import compile_program
from mlagent_jax.planner.programs import Program, Work

def local(x):  # [128, 256] on each of the devices
    def turn(carry, _):
        whole = jax.lax.all_gather(jnp.sin(carry), "d", axis=0, tiled=True)
        return jax.lax.psum_scatter(whole * whole, "d", scatter_dimension=0, tiled=True), None
    x, _ = jax.lax.scan(turn, x, None, length=5)
    return jax.lax.psum(x, "d")

for name in sys.argv[1:]:
    target = find_target(name)
    mesh = jax.make_mesh((target.chips,), ("d",), axis_types=(AxisType.Auto,), devices=target_devices(target))
    function = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("d"), out_specs=P()))
    shape = (128 * target.chips, 256)
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P("d")))
    compiled = compile_program(Program("p", function, (x,), {"x": x}, mesh.size, Work()), target)
    print(json.dumps([target.chips, [[c.kind, c.count, c.group, c.received] for c in compiled.collectives]]))
"""


@pytest.mark.usefixtures("compilers")
def test_explicit_collectives():
    command = [sys.executable, "-c", PROGRAM, "h100-8", "v5e-16"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    (_, on_gpus), (_, on_tpus) = (json.loads(line) for line in lines)
    shard = 128 * 256 * 4
    assert {kind: rest for kind, *rest in on_gpus} == {
        "all-gather": [5, 8, 5 * shard * 7],
        "reduce-scatter": [5, 8, 5 * shard * 7],
        "all-reduce": [1, 8, 2 * shard * 7 / 8],
    }
    # For such small arrays the TPU's compiler replaces a reduce-scatter by an all-reduce and a slice.
    assert {kind: rest for kind, *rest in on_tpus} == {
        "all-gather": [5, 16, 5 * shard * 15],
        "all-reduce": [6, 16, 5 * 2 * shard * 15 + 2 * shard * 15 / 16],
    }
