"""QSGD on IBM's quantum computers (``ibm_*``), and on recordings of them (``fake_*``)."""
