"""A client and a daemon that talk in any order, with the bytes cut anywhere."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from motoolsd.wire.entries import DatasetRow
from motoolsd.wire.fields import Page
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, ListEntries
from motoolsd.wire.messages import PROTOCOL, Found, Hello, Lookup, Reply
from motoolsd.wire.session import ClientSession, Refused, ServerSession, encode_reply

STEPS = ("ask", "answer", "carry to the daemon", "carry to the client")


class Conversation:
    """Two sessions, the bytes between them, and what either side said and heard."""

    def __init__(self, client: ClientSession, *, seed: int) -> None:
        """Greet. What happens afterwards is all in the seed."""
        self._client = client
        self._server = ServerSession()
        self._random = Random(seed)
        self._to_client = bytearray()
        self._to_server = client.hello(Hello(protocol=PROTOCOL, version="0.1.0"))
        self._asked: dict[int, Lookup | ListEntries] = {}
        self._open: dict[int, Lookup | ListEntries] = {}
        self.said: dict[int, list[Reply]] = defaultdict(list)
        self.heard: dict[int, list[Reply]] = defaultdict(list)
        self._carry_to_server(len(self._to_server))
        self._carry_to_client(len(self._to_client))

    def run(self) -> None:
        """Take steps at random, then let everything arrive and be answered."""
        for step in self._random.choices(STEPS, k=60):
            self._take(step)
        self._carry_to_server(len(self._to_server))
        while self._open:
            self._answer()
        self._carry_to_client(len(self._to_client))

    def _take(self, step: str) -> None:
        if step == "ask":
            self._ask()
        elif step == "answer" and self._open:
            self._answer()
        elif step == "carry to the daemon":
            self._carry_to_server(self._random.randint(0, 80))
        else:
            self._carry_to_client(self._random.randint(0, 80))

    def _ask(self) -> None:
        key = str(len(self._asked))
        kinds: list[Lookup | ListEntries] = [
            ListEntries(kind=Kind.DATASET, model_id=key),
            Lookup(kind=Kind.MODEL, keys=[key]),
        ]
        body = self._random.choice(kinds)
        number, frame = self._client.request(body)
        self._asked[number] = body
        self._to_server += frame

    def _answer(self) -> None:
        number = self._random.choice(sorted(self._open))
        reply: Reply = Found(values=[self._random.randbytes(self._random.randint(0, 40))])
        if isinstance(self._open[number], ListEntries):
            rows = [DatasetRow(dataset_hash=str(len(self.said[number])), value=b"v")]
            reply = DatasetPage(items=rows, is_last=self._random.random() < 0.5)
        if not isinstance(reply, Page) or reply.is_last:
            del self._open[number]
        self.said[number].append(reply)
        self._to_client += encode_reply(number, reply)

    def _carry_to_server(self, size: int) -> None:
        self._server.receive_data(bytes(self._to_server[:size]))
        del self._to_server[:size]
        while (event := self._server.next_event()) is not None:
            assert not isinstance(event, Refused)
            if isinstance(event.body, Hello):
                self._to_client += encode_reply(0, self._server.welcome(version="0.1.0", pid=1, started_by="command"))
                continue
            assert event.body == self._asked[event.id]
            self._open[event.id] = self._asked[event.id]

    def _carry_to_client(self, size: int) -> None:
        if part := bytes(self._to_client[:size]):  # nothing at all would mean the end
            self._client.receive_data(part)
            del self._to_client[:size]
        while (reply := self._client.next_event()) is not None:
            if reply.id:
                self.heard[reply.id].append(reply.body)
