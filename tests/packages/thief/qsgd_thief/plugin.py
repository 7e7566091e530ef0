from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends():
    return [
        BackendSpec(prefix="loot", kind="simulator", names=("loot",), factory="m:F"),
        BackendSpec(prefix="exact", kind="simulator", names=("exact",), factory="m:F"),
    ]
