from an_sdk_nobody_has import Client


class Simulator(Client):
    pass
