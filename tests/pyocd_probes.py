"""A plug-in of pyocd: probes behind sockets, listed as those behind USB are. Not imported by tests, but by pyocd.

LISTED_PROBES: words of NAME=HOST:PORT=BOARD, where BOARD is the id of a board that the probe is part of, or empty."""

import os

from pyocd.board.board_ids import BOARD_ID_TO_INFO
from pyocd.core.plugin import Plugin
from pyocd.probe.tcp_client_probe import TCPClientProbe


class ListedProbe(TCPClientProbe):
    def __init__(self, name: str, address: str, board: str) -> None:
        super().__init__(address)
        self._name, self._board = name, board

    @classmethod
    def get_all_connected_probes(cls, unique_id=None, is_explicit=False):
        return [cls(*word.split("=")) for word in os.environ["LISTED_PROBES"].split()]

    @classmethod
    def get_probe_with_id(cls, unique_id, is_explicit=False):
        return next((probe for probe in cls.get_all_connected_probes() if probe.unique_id == unique_id), None)

    @property
    def unique_id(self):
        return self._name

    @property
    def associated_board_info(self):
        return BOARD_ID_TO_INFO.get(self._board)


class ListedProbes(Plugin):
    def load(self):
        return ListedProbe

    @property
    def name(self):
        return "listed"
