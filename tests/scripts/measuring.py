"""A trainer without a model: a refresh a step, waited for; prints the digest of its bits.

python measuring.py LEDGER BACKEND BACKEND_OPTIONS STEPS
"""

import hashlib
import json
import sys

import numpy as np

from qsgd_core.builtin.policies import Sync
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.trainer.process import CourierProcess
from qsgd_core.schedule.trainer.scheduler import Scheduler

url, backend, options, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
Ledger(url).open_run("r", backend=backend, options=options)
config = PaidRun(run_id="r", budget_name="b", backend_options=options)
line = CourierProcess(url, "r")
scheduler = Scheduler(line, Sync(), config, tell=lambda event: None)
for step in range(steps):
    angles = np.random.default_rng(step).normal(size=(3, 2))
    work = Workload((CircuitBatch(ansatz(2, 1), angles),))
    z, source = scheduler.expectations(work, step=step, shots=8, every=1)
    digest = hashlib.sha256(b"".join(part.tobytes() for part in z)).hexdigest()
    print(step, source, digest, flush=True)
scheduler.close(finished=False)
print("done", flush=True)
