from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec, PerturbationSpec

QSGD_HOOK_API = 1


@hookimpl
def qsgd_register_backends():
    yield BackendSpec(
        prefix="good",
        kind="simulator",
        names=("goodsim",),
        patterns=("good_*",),
        devices=("small", "large"),
        factory="qsgd_good.backend:GoodSimulator",
    )
    yield BackendSpec(
        prefix="goodsdk",
        kind="simulator",
        names=("goodsdk",),
        factory="qsgd_good.needs_sdk:Simulator",
    )


@hookimpl
def qsgd_register_perturbations(settings):
    return [PerturbationSpec(name="wave", factory="qsgd_good.backend:Wave")]
