"""The AWS double's process: Braket, S3 and STS on 127.0.0.1, for the unmodified clients.

``python aws_server.py`` prints ``{"port": N}`` and serves until its standard input ends. Under
``/_double/`` it takes orders from tests. Faults are ``{"operation", "kind", "times"}``; a kind is
an error code of the service, or ``reset_before``, ``reset_after``, ``html_before``, ``html_after``,
``late`` (done at once, answered after ``seconds``), and for S3 ``NoSuchKey``, ``AccessDenied``,
``cut``, ``empty``, ``short``.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from aws_account import STATUS_CODES, Account, ServiceError

KEY_ID = "DOUBLE0KEY0ID"
"""The one access key that is accepted."""
MAX_BODY = 64 * 2**20
SIGNATURE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
MESSAGES = {
    "AccessDeniedException": "User: arn:aws:iam::123456789012:user/me is not authorized.",
    "ServiceQuotaExceededException": "Too many tasks at the same time.",
    "ThrottlingException": "Rate exceeded",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}


class Reset(Exception):
    """Close the connection without an answer."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.account = Account()
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60
    late_s = 0.0

    def log_message(self, *_: object) -> None:
        """Say nothing: the ledger holds what tests want to know."""

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        self.late_s = 0.0
        try:
            with self.server.lock:
                status, kind, answer = self.route(body)
        except Reset:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if self.late_s:
            time.sleep(min(self.late_s, 30.0))
        try:
            self.answer(status, kind, answer)
        except OSError:  # the client was killed meanwhile
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        name, _, code = kind.partition(" ")
        self.send_header("Content-Type", name)
        if code == "short":
            self.send_header("Content-Length", str(len(body) + 100))
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
            if code:
                self.send_header("x-amzn-ErrorType", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- routing ----------------------------------------------------------------------------------

    def route(self, body: bytes) -> tuple[int, str, bytes]:
        path = urlsplit(self.path).path
        if path.startswith("/_double/"):
            return _json(200, self.order(path.removeprefix("/_double/"), json.loads(body or b"{}")))
        signed = SIGNATURE.search(self.headers.get("Authorization", ""))
        if signed is None and self.command == "GET":
            return self.s3(path)  # for tests that look at a result
        if signed is None:
            return _error("UnrecognizedClientException")
        key, region, service = signed.groups()
        settings = self.server.account.settings
        if settings["outage"] == "reset":
            raise Reset
        if settings["outage"] is not None:
            return int(settings["outage"]), "text/html", HTML
        if settings["revoked"]:
            key = ""
        if service in ("s3", "sts") and key != KEY_ID:
            return _xml(403, "InvalidClientTokenId", "The security token is invalid.", service)
        if service == "s3":
            return self.s3(path)
        if service == "sts":
            return self.sts(body)
        if key != KEY_ID:
            return _error("UnrecognizedClientException")
        return self.braket(path, body, region)

    def braket(self, path: str, body: bytes, region: str) -> tuple[int, str, bytes]:
        account = self.server.account
        data = json.loads(body) if body else {}
        operation, call = self.operation(path, data, region)
        fault = account.fault(operation)
        kind = fault["kind"] if fault else None
        if kind in STATUS_CODES:
            return _error(kind, fault.get("message") if fault else None)
        if kind == "reset_before":
            raise Reset
        if kind == "html_before":
            return 200, "text/html", HTML
        try:
            answer = call()
        except ServiceError as error:
            return error.status, f"application/json {error.code}", json.dumps(error.body).encode()
        if kind == "reset_after":
            raise Reset
        if kind == "html_after":
            return 200, "text/html", HTML
        if fault is not None and kind == "late":
            self.late_s = fault["seconds"]
        return _json(201 if operation.startswith("Create") else 200, answer)

    def operation(
        self, path: str, data: dict[str, Any], region: str
    ) -> tuple[str, Callable[[], dict[str, Any]]]:
        account = self.server.account
        head, _, rest = path.strip("/").partition("/")
        arn = unquote(rest)
        if head == "device":
            return "GetDevice", lambda: account.get_device(arn, region)
        if head == "devices":
            return "SearchDevices", lambda: account.search_devices(region)
        if head == "quantum-tasks":
            return "SearchQuantumTasks", lambda: account.search_tasks(data, region)
        if head == "quantum-task" and not rest:
            return "CreateQuantumTask", lambda: account.create_task(data, region)
        if head == "quantum-task" and arn.endswith("/cancel"):
            return "CancelQuantumTask", lambda: account.cancel_task(arn.removesuffix("/cancel"))
        if head == "quantum-task":
            return "GetQuantumTask", lambda: account.get_task(arn)
        if head == "spending-limit" and not rest:
            return "CreateSpendingLimit", lambda: account.create_limit(data, region)
        if head == "spending-limit":
            return "DeleteSpendingLimit", lambda: account.delete_limit(arn.removesuffix("/delete"))
        raise ValueError(f"The double has no route {self.command} {self.path}.")

    def s3(self, path: str) -> tuple[int, str, bytes]:
        account = self.server.account
        bucket, _, key = unquote(path).strip("/").partition("/")
        if self.command == "PUT" and not key:
            account.requests["CreateBucket"] = account.requests.get("CreateBucket", 0) + 1
            if bucket in account.buckets:
                return _xml(409, "BucketAlreadyOwnedByYou", "It is yours.")
            account.buckets[bucket] = ""
            return 200, "application/xml", b""
        fault = account.fault("GetObject")
        kind = fault["kind"] if fault else None
        found = account.objects.get((bucket, key))
        if kind == "reset_before":
            raise Reset
        if kind in ("AccessDenied", "InternalError"):
            return _xml(403 if kind == "AccessDenied" else 500, kind, "Access Denied")
        if found is None or kind == "NoSuchKey":
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        if kind == "html_before":
            return 200, "text/html", HTML
        if kind == "cut":
            found = found[: len(found) // 2]
        if kind == "empty":
            found = b""
        return 200, f"application/json {'short' if kind == 'short' else ''}".strip(), found

    def sts(self, body: bytes) -> tuple[int, str, bytes]:
        self.server.account.fault("GetCallerIdentity")
        if parse_qs(body.decode()).get("Action") != ["GetCallerIdentity"]:
            raise ValueError("The double's STS knows GetCallerIdentity only.")
        number = self.server.account.settings["number"]
        text = (
            '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<GetCallerIdentityResult><Arn>arn:aws:iam::{number}:user/me</Arn><UserId>ME</UserId>"
            f"<Account>{number}</Account></GetCallerIdentityResult>"
            "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
            "</GetCallerIdentityResponse>"
        )
        return 200, "text/xml", text.encode()

    # --- orders from tests ------------------------------------------------------------------------

    def order(self, what: str, data: dict[str, Any]) -> dict[str, Any]:
        server = self.server
        account = server.account
        if what == "reset":
            server.account = Account()
        elif what == "fault":
            account.faults.append({"times": 1, **data})
        elif what == "outcome":
            account.outcomes.append(data)
        elif what == "settings":
            account.settings.update(data)
        elif what == "release":
            account.release()
        elif what == "delete":
            account.delete(data["arn"])
        elif what == "device":
            account.devices[data.pop("arn")].update(data)
        elif what == "ledger":
            return account.ledger()
        elif what == "action":
            return dict(account.tasks[data["arn"]]["_action"])
        else:
            raise ValueError(f"The double takes no order {what!r}.")
        return {}


def _json(status: int, answer: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(answer).encode()


def _error(code: str, message: str | None = None) -> tuple[int, str, bytes]:
    text = message or MESSAGES.get(code, f"This is a {code}.")
    return STATUS_CODES[code], f"application/json {code}", json.dumps({"message": text}).encode()


def _xml(status: int, code: str, message: str, service: str = "s3") -> tuple[int, str, bytes]:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if service == "sts":
        text = f"<ErrorResponse>{text}<RequestId>1</RequestId></ErrorResponse>"
    return status, "application/xml", text.encode()


def main() -> None:
    server = Server()
    threading.Thread(target=_until_orphaned, daemon=True).start()
    sys.stdout.write(json.dumps({"port": server.server_port}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


def _until_orphaned() -> None:
    """End with the process that started it: its end of the pipe closes."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
