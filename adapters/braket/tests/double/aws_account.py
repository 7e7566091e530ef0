"""The state of the AWS double: devices, tasks, objects, spending limits, faults, and a ledger.

Time is counted in requests: a task moves on when it is asked for, a search sees a task after so
many searches (or seconds). Nothing here sleeps. What is invented, because AWS documents none of it:
how long a client token is remembered (for ever), when a limit counts queued tasks (at once), what a
failed task costs (what it ran).
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import aws_devices
import aws_physics
from aws_devices import OPENQASM, PROGRAM_SET, region_of

ACCOUNT = "123456789012"
MAX_TASKS = 20_000
TASK_FEE_USD = 0.30
ENDED = ("COMPLETED", "FAILED", "CANCELLED")

STATUS_CODES = {
    "AccessDeniedException": 403,
    "ConflictException": 409,
    "DeviceOfflineException": 424,
    "DeviceRetiredException": 410,
    "InternalServiceException": 500,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 402,
    "ThrottlingException": 429,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}


class ServiceError(Exception):
    """An answer of Braket's that is an error."""

    def __init__(self, code: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS_CODES[code]
        self.body = {"message": message, **more}


class Account:
    """Everything one AWS account has on the double. Not thread safe: the server holds a lock."""

    def __init__(self) -> None:
        self.devices = aws_devices.catalogue()
        self.tasks: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.objects: dict[tuple[str, str], bytes] = {}
        self.buckets: dict[str, str] = {}
        self.limits: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, int] = {}
        self.faults: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.searches = 0
        self.settings: dict[str, Any] = {
            "queued_polls": 0, "search_lag": 0, "search_lag_s": 0.0, "seed": 0, "page": 100,
            "number": ACCOUNT, "outage": None, "revoked": False,
            "shots_pending": False, "duplicates": 0,
        }  # fmt: skip

    # --- faults -----------------------------------------------------------------------------------

    def fault(self, operation: str) -> dict[str, Any] | None:
        """The next fault for an operation; each is used up after ``times``."""
        self.requests[operation] = self.requests.get(operation, 0) + 1
        for fault in self.faults:
            if fault["operation"] == operation and fault["times"] > 0:
                fault["times"] -= 1
                return fault
        return None

    # --- devices ----------------------------------------------------------------------------------

    def get_device(self, arn: str, region: str) -> dict[str, Any]:
        if arn not in self.devices or region_of(arn) not in ("", region):
            raise ServiceError("ResourceNotFoundException", f"Device {arn} not found.")
        return aws_devices.as_answer(self.devices[arn])

    def search_devices(self, region: str) -> dict[str, Any]:
        here = [d for a, d in self.devices.items() if region_of(a) in ("", region)]
        return {"devices": [aws_devices.as_summary(d) for d in here]}

    # --- tasks ------------------------------------------------------------------------------------

    def create_task(self, body: dict[str, Any], region: str) -> dict[str, Any]:
        if (known := self.tokens.get(body["clientToken"])) is not None:
            return {"quantumTaskArn": known}
        device = self.devices.get(body["deviceArn"])
        if device is None or region_of(body["deviceArn"]) not in ("", region):
            raise ServiceError("ValidationException", "deviceArn is not in this region.")
        if device["deviceStatus"] == "OFFLINE":
            raise ServiceError("DeviceOfflineException", "Device is offline.")
        if device["deviceStatus"] == "RETIRED":
            raise ServiceError("DeviceRetiredException", "Device is retired.")
        action = json.loads(body["action"])
        kind = action["braketSchemaHeader"]["name"]
        executables = self._validate(device, action, kind, body["shots"])
        cost = self._price(device, body["shots"])
        self._check_limits(device["deviceArn"], cost)
        if len(self.tasks) >= MAX_TASKS:
            raise ServiceError("ServiceQuotaExceededException", "The double is full.")
        arn = self._make(body, action, executables, cost, region)
        self.tokens[body["clientToken"]] = arn
        if self.settings["duplicates"] > 0:
            self.settings["duplicates"] -= 1
            second = self._make(body, action, executables, cost, region)
            self.tasks[second]["_by_itself"] = True
        return {"quantumTaskArn": arn}

    def _make(
        self, body: dict[str, Any], action: Any, executables: int, cost: float, region: str
    ) -> str:
        name = str(uuid.uuid4())
        arn = f"arn:aws:braket:{region}:{ACCOUNT}:quantum-task/{name}"
        self.tasks[arn] = {
            "quantumTaskArn": arn,
            "status": "CREATED",
            "deviceArn": body["deviceArn"],
            "deviceParameters": "{}",
            "shots": body["shots"],
            "outputS3Bucket": body["outputS3Bucket"],
            "outputS3Directory": f"{body['outputS3KeyPrefix']}/{name}",
            "createdAt": time.time(),
            "tags": body.get("tags", {}),
            "actionMetadata": {
                "actionType": action["braketSchemaHeader"]["name"],
                "executableCount": executables,
            },
            "_action": action,
            "_cost": cost,
            "_paid": 0.0,
            "_polls": 0,
            "_born": self.searches,
            "_fate": self.outcomes.pop(0) if self.outcomes else {"status": "COMPLETED"},
            "_polls_to_run": self.settings["queued_polls"],
        }
        return arn

    def delete(self, arn: str) -> None:
        """Forget a task: it is neither listed nor answered for; it was paid for all the same."""
        self.tasks[arn]["_deleted"] = True

    def get_task(self, arn: str) -> dict[str, Any]:
        task = self._task(arn)
        self._advance(task)
        answer = {k: v for k, v in task.items() if not k.startswith("_")}
        if self.settings["shots_pending"]:
            answer.pop("numSuccessfulShots", None)
        if task["status"] == "QUEUED":
            waiting = task["_polls_to_run"] - task["_polls"]
            answer["queueInfo"] = {"queue": "QUANTUM_TASKS_QUEUE", "position": str(waiting + 1),
                                   "queuePriority": "Normal"}  # fmt: skip
        return _dated(answer)

    def cancel_task(self, arn: str) -> dict[str, Any]:
        task = self._task(arn)
        if task["status"] in (*ENDED, "CANCELLING"):
            raise ServiceError("ConflictException", f"Task is {task['status']}.")
        task["status"] = "CANCELLING"
        return {"quantumTaskArn": arn, "cancellationStatus": "CANCELLING"}

    def search_tasks(self, body: dict[str, Any], region: str) -> dict[str, Any]:
        self.searches += 1
        known = {"quantumTaskArn", "deviceArn", "jobArn", "status", "createdAt"}
        for wanted in body["filters"]:
            if wanted["name"] not in known:
                raise ServiceError("ValidationException", f"Unknown filter {wanted['name']}.")
        found = [
            task
            for arn, task in self.tasks.items()
            if region_of(arn) == region
            and not task.get("_deleted")
            and self.searches - task["_born"] > self.settings["search_lag"]
            and time.time() - task["createdAt"] >= self.settings["search_lag_s"]
            and all(task.get(f["name"]) in f["values"] for f in body["filters"])
        ]
        start = int(body.get("nextToken") or 0)
        stop = start + min(body.get("maxResults", 100), self.settings["page"])
        keys = ("quantumTaskArn", "status", "deviceArn", "shots", "outputS3Bucket",
                "outputS3Directory", "createdAt", "endedAt", "tags")  # fmt: skip
        page = [_dated({k: t[k] for k in keys if k in t}) for t in found[start:stop]]
        return {"quantumTasks": page} | ({"nextToken": str(stop)} if stop < len(found) else {})

    def release(self) -> None:
        """Let the tasks that wait in the queue run when they are next asked for."""
        for task in self.tasks.values():
            task["_polls_to_run"] = 0

    def _task(self, arn: str) -> dict[str, Any]:
        if arn not in self.tasks or self.tasks[arn].get("_deleted"):
            raise ServiceError("ResourceNotFoundException", f"Task {arn} not found.")
        return self.tasks[arn]

    def _validate(
        self, device: dict[str, Any], action: dict[str, Any], kind: str, shots: int
    ) -> int:
        properties = device["deviceCapabilities"]
        if kind not in properties["action"]:
            raise ServiceError("ValidationException", f"The device does not take {kind}.")
        fewest, most = properties["service"]["shotsRange"]
        if kind == OPENQASM:
            if not fewest <= shots <= most:
                raise ServiceError("ValidationException", "shots is out of range.")
            return 1
        limits = properties["action"][PROGRAM_SET]
        counts = [
            len(next(iter(p["inputs"].values()))) if p.get("inputs") else 1
            for p in action["programs"]
        ]
        total = sum(counts)
        if total > limits["maximumExecutables"]:
            raise ServiceError(
                "ValidationException",
                f"The program set has {total} executables; {limits['maximumExecutables']} allowed.",
                reason="ProgramSetValidationFailed",
                programSetValidationFailures=[{"programIndex": 0, "errors": ["too many inputs"]}],
            )
        if shots % total or not fewest <= shots // total <= most:
            raise ServiceError("ValidationException", "shots per executable is out of range.")
        if not limits.get("minimumTotalShots", 1) <= shots <= limits["maximumTotalShots"]:
            raise ServiceError("ValidationException", "Total shots is out of range.")
        return total

    def _advance(self, task: dict[str, Any]) -> None:
        """One request's worth of life."""
        if task["status"] in ENDED:
            return
        if task["status"] == "CANCELLING":
            self._end(task, "CANCELLED", shots=0)
            return
        task["_polls"] += 1
        if task["_polls"] <= task["_polls_to_run"]:
            task["status"] = "QUEUED"
            return
        fate = task["_fate"]
        if fate["status"] == "COMPLETED":
            self._run(task, fate.get("failures", 0))
            self._end(task, "COMPLETED", shots=task["shots"])
        else:
            task["failureReason"] = fate.get("reason", "The device failed.")
            self._end(task, fate["status"], shots=fate.get("shots", 0))

    def _end(self, task: dict[str, Any], status: str, *, shots: int) -> None:
        task["status"] = status
        task["endedAt"] = time.time()
        task["numSuccessfulShots"] = shots
        device = self.devices[task["deviceArn"]]
        task["_paid"] = self._price(device, shots) if shots else 0.0

    def _run(self, task: dict[str, Any], failures: int) -> None:
        self.settings["seed"] += 1
        text = aws_physics.run(
            task["_action"],
            shots=task["shots"],
            seed=self.settings["seed"],
            failures=failures,
            task=task["quantumTaskArn"],
            device=task["deviceArn"],
        )
        key = f"{task['outputS3Directory']}/results.json"
        self.objects[task["outputS3Bucket"], key] = text.encode()

    # --- money ------------------------------------------------------------------------------------

    def _price(self, device: dict[str, Any], shots: int) -> float:
        cost = device["deviceCapabilities"]["service"]["deviceCost"]
        if cost["unit"] == "minute":
            return float(cost["price"]) * 3 / 60
        return TASK_FEE_USD + shots * float(cost["price"])

    def _check_limits(self, arn: str, cost: float) -> None:
        for limit in self.limits.values():
            if limit["deviceArn"] != arn or not limit["start"] <= time.time() <= limit["end"]:
                continue
            spent = sum(
                t["_paid"] if t["status"] in ENDED else t["_cost"]
                for t in self.tasks.values()
                if t["deviceArn"] == arn and t["createdAt"] >= limit["start"]
            )
            if spent + cost > limit["usd"]:
                raise ServiceError("ValidationException", "The spending limit would be exceeded.")

    def create_limit(self, body: dict[str, Any], region: str) -> dict[str, Any]:
        arn = f"arn:aws:braket:{region}:{ACCOUNT}:spending-limit/{uuid.uuid4()}"
        period = body["timePeriod"]
        self.limits[arn] = {
            "deviceArn": body["deviceArn"],
            "usd": float(body["spendingLimit"]),
            "start": period["startAt"],
            "end": period["endAt"],
        }
        return {"spendingLimitArn": arn}

    def delete_limit(self, arn: str) -> dict[str, Any]:
        if self.limits.pop(arn, None) is None:
            raise ServiceError("ResourceNotFoundException", "No such limit.")
        return {}

    # --- the ledger -------------------------------------------------------------------------------

    def ledger(self) -> dict[str, Any]:
        """What was asked for and what is paid, for tests."""
        tasks = [
            {
                "arn": t["quantumTaskArn"],
                "device": t["deviceArn"],
                "status": t["status"],
                "shots": t["shots"],
                "executables": t["actionMetadata"]["executableCount"],
                "tag": t["tags"].get("qsgd-tag"),
                "by_itself": t.get("_by_itself", False),
                "paid": t["_paid"],
                "result": f"/{t['outputS3Bucket']}/{t['outputS3Directory']}/results.json",
            }
            for t in self.tasks.values()
        ]
        paid = [t for t in tasks if t["paid"] > 0]
        tags = Counter(t["tag"] for t in paid if not t["by_itself"])
        return {
            "asked": len(tasks),
            "paid": len(paid),
            "paid_usd": round(sum(t["paid"] for t in paid), 9),
            "paid_twice": sorted(str(tag) for tag, n in tags.items() if n > 1),
            "requests": self.requests,
            "limits": self.limits,
            "tasks": tasks,
        }


def _dated(answer: dict[str, Any]) -> dict[str, Any]:
    for key in ("createdAt", "endedAt"):
        if key in answer:
            moment = datetime.fromtimestamp(answer[key], UTC)
            answer[key] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return answer
