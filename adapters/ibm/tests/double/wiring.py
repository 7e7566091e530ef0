"""What the double and its users have to agree on."""

from __future__ import annotations

TOKEN = "qsgd-double-api-key"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/qsgd:double-instance::"
INSTANCE = "double-instance"


def environment(port: int) -> dict[str, str]:
    """The variables that point IBM's unmodified client at the double on ``port``."""
    root = f"http://127.0.0.1:{port}"
    return {
        "QISKIT_IBM_TOKEN": TOKEN,
        "QISKIT_IBM_INSTANCE": CRN,
        "QISKIT_IBM_URL": f"{root}/experimental/api/v1",
        "IAM_URL": root,
        "GLOBAL_SEARCH_URL": root,
        "GLOBAL_CATALOG_URL": root,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
