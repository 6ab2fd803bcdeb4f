import jax
import pytest

from vitax.core.errors import UserError
from vitax.parallel.mesh import AXES, MeshSpec, build_mesh


def test_minus_one_takes_the_rest():
    assert MeshSpec(data=-1, fsdp=2, tensor=2).sizes(8) == {"replica": 1, "data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MeshSpec(data=2, fsdp=2), "does not use the 8 devices"),
        (MeshSpec(data=-1, fsdp=3), "does not use the 8 devices"),
        (MeshSpec(data=-1, fsdp=-1), "only one axis may be -1"),
        (MeshSpec(data=0), "mesh.data"),
    ],
)
def test_unused_devices_are_loud(spec, message):
    with pytest.raises(UserError, match=message):
        spec.sizes(8)


def test_mesh_uses_every_device_once_and_has_auto_axes():
    mesh = build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))
    assert mesh.axis_names == AXES
    assert sorted(d.id for d in mesh.devices.flat) == sorted(d.id for d in jax.devices())
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
