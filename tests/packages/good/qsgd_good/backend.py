from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.jobs import Result
from qsgd_core.perturbation import Perturbation


class GoodSimulator(Simulator):
    capabilities = Capabilities(exact=True)

    def __init__(self, name, options):
        self.name = name

    def run(self, work, *, shots, seed):
        return Result(parts=())


class Wave(Perturbation):
    def __init__(self, depth, options):
        self.depth = depth

    def plan(self, theta, grad, *, step):
        return []

    def decode(self, z):
        return z
