from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends(settings, account):
    return [BackendSpec(prefix="newarg", kind="simulator", factory="m:F", names=(account,))]
