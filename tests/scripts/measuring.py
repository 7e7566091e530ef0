"""A trainer without a model: measures one workload a step and prints its bits' digest.

python measuring.py LEDGER BACKEND BACKEND_OPTIONS STEPS
"""

import hashlib
import json
import sys

import numpy as np

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.ledger import Ledger
from qsgd_core.schedule.measure import Measurements

url, backend, options, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
measurements = Measurements(Ledger(url), run="r", backend=backend, options=options, budget="b")
for step in range(steps):
    angles = np.random.default_rng(step).normal(size=(3, 2))
    work = Workload((CircuitBatch(ansatz(2, 1), angles),))
    result = measurements.measure(work, shots=8, seed=step, step=step)
    values = b"".join(part.values.tobytes() for part in result.parts)
    print(step, hashlib.sha256(values).hexdigest(), flush=True)
measurements.close()
print("done", flush=True)
