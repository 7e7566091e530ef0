"""The double's HTTP side: which address is what, and how a fault looks on the wire."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from faults import HTML, Fault
from quantum import documents, recorded
from service import FINAL, Service
from wiring import CRN, INSTANCE

API = "/experimental/api/v1"
CONTROL = "/__qsgd__/"
_JWT_KEY = "no secret: the client does not verify it, it only reads iat and exp"


class Refused(Exception):
    """An answer other than 200, in the form IBM's errors have."""

    def __init__(self, status: int, code: int | str, message: str) -> None:
        self.status = status
        self.body = {"errors": [{"code": code, "message": message}], "trace": "double"}
        super().__init__(message)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms each otherwise
    server: Server

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        if parts.path.startswith(CONTROL):
            self._control(parts.path.removeprefix(CONTROL), body)
            return
        try:
            self._answer(method, body)
        finally:
            self.server.count_down()

    def _answer(self, method: str, body: bytes) -> None:
        parts = urlsplit(self.path)
        what, act = self._route(method, parts.path.removeprefix(API).strip("/").split("/"))
        service = self.server.service
        service.count(what)
        if what == "submit":
            service.posts += 1
        fault = service.faults.take(what) or service.outage()
        if fault and not fault.after and fault.kind not in ("cut", "stall"):
            self._show(fault, "")
            return
        if fault and fault.kind == "stall" and not fault.after:
            time.sleep(min(fault.seconds, 30.0))
        try:
            if what not in ("token", "search", "catalog"):
                self._authorise()
            status, answer = act(body, parse_qs(parts.query))
        except Refused as refused:
            status, answer = refused.status, refused.body
        if fault and fault.kind == "stall" and fault.after:
            time.sleep(min(fault.seconds, 30.0))
        if fault and fault.kind != "stall":
            self._show(fault, answer if isinstance(answer, str) else json.dumps(answer))
        else:
            self._send(status, answer)

    def _show(self, fault: Fault, right: str) -> None:
        if fault.kind == "reset":
            linger = struct.pack("ii", 1, 0)  # RST, not FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        status, answer = {
            "status": (fault.status, fault.body or {"errors": [{"code": fault.status}]}),
            "html": (200, HTML),
            "empty": (200, ""),
            "cut": (200, right[: len(right) // 2]),
        }[fault.kind]
        self._send(status, answer, fault.headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        data = b"" if status == 204 else text.encode()
        kind = "text/html" if text.startswith("<!DOCTYPE") else "application/json"
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client was killed meanwhile
            self.close_connection = True

    def _control(self, what: str, body: bytes) -> None:
        service = self.server.service
        given = json.loads(body) if body else None
        if what == "jobs":
            self._send(200, service.ledger())
            return
        if what == "faults":
            service.faults.set(given)
        elif what == "settings":
            service.set(given)
        elif what == "release":
            service.release()
        elif what == "delete":
            service.delete(given["id"])
        elif what == "reset":
            service.reset()
        elif what == "stop":
            threading.Thread(target=self.server.shutdown, daemon=True).start()
        else:
            self._send(404, {"error": what})
            return
        self._send(200, {})

    def _authorise(self) -> None:
        given = self.headers.get("Authorization", "")
        if given.lower().startswith("apikey"):
            self.server.service.key_leaks += 1
        if self.server.service.settings.revoked:
            raise Refused(401, 1200, "You are not authorised: the token was revoked")
        try:
            jwt.decode(given.removeprefix("Bearer "), _JWT_KEY, algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            raise Refused(401, 1200, f"You are not authorised: {error}") from error
        if self.headers.get("Service-CRN") != CRN:
            raise Refused(403, 1201, "This instance is not yours")

    def _route(self, method: str, path: list[str]) -> tuple[str, Callable[..., tuple[int, Any]]]:
        match method, path:
            case "POST", ["identity", "token"]:
                return "token", self._token
            case "POST", ["v3", "resources", "search"]:
                return "search", self._search
            case "GET", ["instances", "usage"]:
                return "usage", lambda *_: (200, self.server.service.usage())
            case "GET", ["backends"]:
                return "backends", self._backends
            case "GET", ["backends", name, what]:
                return what, lambda *_: self._device(name, what)
            case "POST", ["jobs"]:
                return "submit", self._submit
            case "GET", ["jobs"]:
                return "list", self._list
            case "GET", ["jobs", job_id]:
                return "job", lambda *_: (200, self.server.service.poll(self._job(job_id)))
            case "GET", ["jobs", job_id, "results"]:
                return "results", lambda *_: self._results(job_id)
            case "GET", ["jobs", job_id, "metrics"]:
                return "metrics", lambda *_: self._metrics(job_id)
            case "POST", ["jobs", job_id, "cancel"]:
                return "cancel", lambda *_: self._cancel(job_id)
            case "GET", [entry]:
                return "catalog", lambda *_: self._catalog(entry)
        return "unknown", lambda *_: (404, {"errors": [{"code": 404, "message": self.path}]})

    def _token(self, body: bytes, query: Any) -> tuple[int, Any]:
        settings = self.server.service.settings
        given = parse_qs(body.decode()).get("apikey", [""])[0]
        if settings.revoked or given not in settings.keys:
            return 400, {
                "errorCode": "BXNIM0415E",
                "errorMessage": "Provided API key could not be found.",
            }
        issued = int(time.time())
        expires = issued + settings.token_s
        token = jwt.encode({"iat": issued, "exp": expires}, _JWT_KEY, algorithm="HS256")
        return 200, {
            "access_token": token,
            "refresh_token": "not used",
            "token_type": "Bearer",
            "expires_in": settings.token_s,
            "expiration": expires,
        }

    def _search(self, body: bytes, query: Any) -> tuple[int, Any]:
        item = {
            "crn": CRN,
            "name": INSTANCE,
            "service_plan_unique_id": "plan-open",
            "tags": [],
            "doc": {"extensions": {"allocations": 1}},
        }
        return 200, {"items": [item], "limit": 100}

    def _catalog(self, entry: str) -> tuple[int, Any]:
        settings = self.server.service.settings
        return 200, {
            "id": entry,
            "overview_ui": {"en": {"display_name": settings.plan}},
            "metadata": {"pricing": {"type": settings.pricing}},
        }

    def _backends(self, body: bytes, query: Any) -> tuple[int, Any]:
        devices = [
            {
                "name": name,
                "status": {"name": "online" if device["online"] else "offline"},
                "queue_length": device["queue_length"],
                "qubits": recorded(name).num_qubits,
            }
            for name, device in self.server.service.settings.devices.items()
        ]
        return 200, {"devices": devices}

    def _device(self, name: str, what: str) -> tuple[int, Any]:
        device = self.server.service.settings.devices.get(name)
        if device is None:
            raise Refused(404, 1216, f"Backend {name} not found")
        configuration, properties = documents(name)
        return 200, {
            "configuration": configuration,
            "properties": properties,
            "status": {
                "state": device["online"],
                "status": "active" if device["online"] else "offline",
                "length_queue": device["queue_length"],
                "backend_version": configuration["backend_version"],
            },
        }[what]

    def _submit(self, body: bytes, query: Any) -> tuple[int, Any]:
        payload = json.loads(body)
        if payload.get("backend") not in self.server.service.settings.devices:
            raise Refused(404, 1216, f"Backend {payload.get('backend')} not found")
        try:
            job = self.server.service.accept(payload)
            if self.server.service.settings.duplicates > 0:
                self.server.service.settings.duplicates -= 1
                self.server.service.accept(payload)
        except ValueError as error:
            raise Refused(400, 1211, str(error)) from error
        return 200, {"id": job.id, "backend": job.backend, "private": False}

    def _list(self, body: bytes, query: dict[str, list[str]]) -> tuple[int, Any]:
        jobs = self.server.service.listed(query.get("tags", []))
        limit, offset = int(query.get("limit", ["10"])[0]), int(query.get("offset", ["0"])[0])
        shown = [job.record() for job in jobs[offset : offset + limit]]
        return 200, {"jobs": shown, "count": len(jobs), "limit": limit, "offset": offset}

    def _job(self, job_id: str) -> Any:
        job = self.server.service.jobs.get(job_id)
        if job is None or job.deleted:
            raise Refused(404, 1291, f"Job {job_id} not found")
        return job

    def _results(self, job_id: str) -> tuple[int, Any]:
        job = self._job(job_id)
        if job.status not in FINAL:
            raise Refused(404, 1292, f"Job {job_id} has no result yet")
        return 200, job.result

    def _metrics(self, job_id: str) -> tuple[int, Any]:
        job = self._job(job_id)
        return 200, {
            "timestamps": {"created": job.created, "running": job.running},
            "usage": self.server.service.usage_of(job),
        }

    def _cancel(self, job_id: str) -> tuple[int, Any]:
        if not self.server.service.cancel(self._job(job_id)):
            raise Refused(409, 1293, f"Job {job_id} is in a final state already")
        return 204, ""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, service: Service, max_requests: int) -> None:
        self.service = service
        self._left = max_requests
        self._count = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def count_down(self) -> None:
        """One more request was served; the last one stops the server."""
        with self._count:
            self._left -= 1
            if self._left == 0:
                threading.Thread(target=self.shutdown, daemon=True).start()


def serve(
    *,
    port: int,
    devices: list[str],
    noise: bool,
    seed: int,
    max_seconds: float,
    max_requests: int,
    ready: Callable[[int], None],
) -> None:
    """Serve until stopped or until a bound is reached; ``ready`` is called with the port."""
    server = Server(port, Service(devices=devices, noise=noise, seed=seed), max_requests)
    stop = threading.Timer(max_seconds, server.shutdown)
    stop.daemon = True
    stop.start()
    ready(server.server_address[1])
    with server:
        server.serve_forever(poll_interval=0.05)
