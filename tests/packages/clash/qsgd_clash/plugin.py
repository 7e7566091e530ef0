from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec, PerturbationSpec


@hookimpl
def qsgd_register_backends():
    return [
        BackendSpec(
            prefix="clash", kind="simulator", names=("goodsim", "good_7", "clash"), factory="m:F"
        )
    ]


@hookimpl
def qsgd_register_perturbations():
    return [PerturbationSpec(name="wave", factory="m:F")]
