"""The process in which engines stand loaded: it runs them, and times them in turns, while a host compares them.

It holds the device as a job does, and ends with the session of its host. Every request names all that it needs by
SHA-256, so that one that is asked again, of a new process, has the same answer.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any, Callable, Mapping, Tuple

from halp_trt.device.agent.arrays import packed, unpacked
from halp_trt.device.agent.place import Place
from halp_trt.device.agent.worker import check_target, end_with_parent, fault_of, own_link
from halp_trt.device.agent.works import Work, open_work
from halp_trt.device.cores import pin_to_one_core
from halp_trt.device.faults import LinkError, UsageError
from halp_trt.device.loop import Launch, Processor, as_launches, take_turns

__all__ = ["Stage", "stand"]

_MOST_LOADED = 4
"""Engines that stay loaded beside those of a request."""

Answer = Tuple[Mapping[str, Any], bytes]


def stand(place: Place, words: Mapping[str, Any]) -> None:
    """Answers the parent until it goes away; the first answer says whether the device is held."""
    end_with_parent()
    link = own_link()
    is_held = place.lock.take(dict(words))
    link.send({"is_held": is_held})
    if not is_held:
        return
    stage = Stage(place)
    try:
        while True:
            request, blob = link.receive()
            try:
                answer, data = stage.answer(request, blob)
            except LinkError:
                raise
            except Exception as error:  # whatever a library raises is told
                answer, data = {"fault": fault_of(error)}, b""
            link.send(answer, data)
    except LinkError:
        return


class Stage:
    """Engines of one runtime, loaded as they are asked for."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._work: Work | None = None
        self._asked: Any = None
        self._sessions: OrderedDict[str, Any] = OrderedDict()
        self._launches: dict[tuple[str, str], Launch] = {}
        self._processor = Processor()
        self._verbs: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
            "look": self._look, "run": self._run, "bind": self._bind, "turns": self._turns, "profile": self._profile,
            "conditions": self._conditions,
        }  # fmt: skip

    def answer(self, request: dict[str, Any], blob: bytes) -> Answer:
        """The answer to a request.

        Raises:
            HalpError: an engine does not load, or refuses its inputs.
            TargetMismatchError: the device is another target by now.
        """
        asked = [request["work"], request["runtime"], request["target"]]
        if self._asked != asked:
            self._sessions.clear()
            self._launches.clear()
            self._work = open_work(request["work"], request["runtime"], self._place.root)
            target = request["target"]
            check_target(self._work.target(target["precision"], target.get("batch_size", 1)), target)
            self._asked = asked
        verb = self._verbs.get(str(request.get("do")))
        if verb is None:
            raise UsageError(f"engines cannot {str(request.get('do'))[:40]!r}; see halp-trt device --help")
        return verb(request, blob)

    def _session(self, key: str) -> Any:
        """The loaded engine of that SHA-256."""
        assert self._work is not None, "a request has named it"
        if key in self._sessions:
            self._sessions.move_to_end(key)
        else:
            self._sessions[key] = self._work.load(self._place.model(key).read_bytes(), self._asked[2])
            while len(self._sessions) > _MOST_LOADED:
                gone, _ = self._sessions.popitem(last=False)
                self._launches = {named: one for named, one in self._launches.items() if named[0] != gone}
        return self._sessions[key]

    def _inputs(self, head: list[Any], key: str) -> dict[str, Any]:
        return unpacked(head, self._place.model(key).read_bytes())

    def _launch(self, engine: str, head: list[Any], inputs: str) -> Launch:
        """An engine bound to inputs that lie in the folder."""
        session = self._session(engine)
        if (engine, inputs) not in self._launches:
            bound = session.bind(self._inputs(head, inputs))
            self._launches[engine, inputs] = as_launches({"one": bound}, self._processor)["one"]
        return self._launches[engine, inputs]

    def _look(self, request: dict[str, Any], _: bytes) -> Answer:
        assert self._work is not None, "a request has named it"
        session = self._session(request["engine"])
        return {
            "input_shapes": {name: list(shape) for name, shape in session.input_shapes.items()},
            "input_types": dict(getattr(session, "input_types", {})),
            "output_names": list(session.output_names),
            "shown": self._work.shown(session),
        }, b""

    def _run(self, request: dict[str, Any], blob: bytes) -> Answer:
        head, data = packed(self._session(request["engine"]).run(unpacked(request["inputs"], blob)))
        return {"outputs": head}, data

    def _bind(self, request: dict[str, Any], _: bytes) -> Answer:
        launch = self._launch(request["engine"], request["head"], request["inputs"])
        return {
            "num_executions": launch.num_executions,
            "uses_graph": launch.uses_graph,
            "num_in_flight": launch.device.num_in_flight,
            "is_processor": launch.device is self._processor,
        }, b""

    def _turns(self, request: dict[str, Any], _: bytes) -> Answer:
        launches = {name: self._launch(*one) for name, one in request["launches"]}
        is_here = any(launch.device is self._processor for launch in launches.values())
        with pin_to_one_core() if is_here else nullcontext():
            taken = take_turns(
                launches,
                num_rounds=request["num_rounds"],
                num_warmup=request["num_warmup"],
                rotate=request["rotate"],
            )
        samples = {name: [[one.elapsed_us, one.enqueue_us] for one in found] for name, found in taken.items()}
        return {"samples": samples}, b""

    def _profile(self, request: dict[str, Any], blob: bytes) -> Answer:
        session = self._session(request["engine"])
        medians_us = session.profile(unpacked(request["inputs"], blob), request["num_runs"])
        return {"medians_us": list(medians_us.items())}, b""

    def _conditions(self, request: dict[str, Any], _: bytes) -> Answer:
        reading = self._launch(request["engine"], request["head"], request["inputs"]).device.conditions()
        return {"reading": None if reading is None else reading._asdict()}, b""
