"""CrewAI's `agents.yaml` and `tasks.yaml` as a crew. Nothing is constructed but texts: no tags, anchors, aliases."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import yaml
from loremesh_kit.text import clean
from yaml import events

from loremesh_crew.domain.definitions import (
    Crew,
    CrewAgent,
    CrewTask,
    Guardrail,
    HumanInput,
    MemorySettings,
    Process,
    ToolUse,
)
from loremesh_crew.errors import YamlInvalid

_AGENTS, _TASKS = "agents_yaml", "tasks_yaml"
_MAX_DEPTH = 8
_MAX_PARTS = 20_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_YES = frozenset({"true", "yes", "on"})
_NO = frozenset({"false", "no", "off"})
# What CrewAI has for its one process, and what is always so here: nothing of a crew changes without them.
_IGNORED_OF_AGENTS = frozenset(
    {
        *("cache", "callbacks", "step_callback", "function_calling_llm", "use_system_prompt"),
        *("respect_context_window", "max_retry_limit", "code_execution_mode", "inject_date", "date_format"),
    }
)
_IGNORED_OF_TASKS = frozenset(
    {
        *("name", "async_execution", "callback", "create_directory", "markdown", "security_config"),
        "allow_crewai_trigger_context",
    }
)


@dataclass(frozen=True, slots=True)
class _Scalar:
    text: str
    line: int
    # Written without quotes, so that it may be no text.
    plain: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    items: "list[_Node]"
    line: int


@dataclass(frozen=True, slots=True)
class _Mapping:
    items: "dict[str, tuple[int, _Node]]"
    line: int


_Node = _Scalar | _Sequence | _Mapping


def read(*, agents: str, tasks: str, crew_id: str = "", name: str = "", process: Process = Process.SEQUENTIAL) -> Crew:
    """A crew of the texts of the two files; raises YamlInvalid, which names the file and the line.

    What it holds is not checked further: not its lengths, and not whether what it names is there.
    """
    members = [_agent(*each) for each in _entries(agents, _AGENTS)]
    seconds = {agent.name: limit for agent, limit in members if limit}
    work = [_task(*each) for each in _entries(tasks, _TASKS)]
    return Crew(
        id=crew_id,
        name=name,
        agents=tuple(agent for agent, _ in members),
        tasks=tuple(replace(task, timeout=seconds.get(task.agent, task.timeout)) for task in work),
        process=process,
    )


def _agent(name: str, fields: "_Fields") -> tuple[CrewAgent, float | None]:
    """An agent, and how many seconds it may work at a task."""
    memory = fields.boolean("memory", default=None)
    agent = CrewAgent(
        name=name,
        role=fields.text("role"),
        goal=fields.text("goal"),
        backstory=fields.text("backstory"),
        model=fields.text("llm"),
        temperature=fields.number("temperature"),
        tools=tuple(ToolUse(name=each) for each in fields.texts("tools")),
        memory=None if memory is None else MemorySettings(recall=memory, extract=memory),
        allow_delegation=bool(fields.boolean("allow_delegation", default=False)),
        max_iter=fields.whole("max_iter") or 0,
        max_rpm=fields.whole("max_rpm") or 0,
        verbose=bool(fields.boolean("verbose", default=False)),
        max_output_tokens=fields.whole("max_tokens"),
    )
    limit = fields.number("max_execution_time")
    fields.refuse_others(_IGNORED_OF_AGENTS)
    return agent, limit


def _task(name: str, fields: "_Fields") -> CrewTask:
    criteria = [*fields.texts("guardrails"), *filter(None, [fields.text("guardrail")])]
    rounds = fields.whole("guardrail_max_retries")
    task = CrewTask(
        name=name,
        description=fields.text("description"),
        expected_output=fields.text("expected_output"),
        agent=fields.text("agent"),
        depends_on=tuple(dict.fromkeys(fields.texts("context"))),
        tools=tuple(ToolUse(name=each) for each in fields.texts("tools")),
        human_input=HumanInput() if fields.boolean("human_input", default=False) else None,
        guardrails=tuple(Guardrail(criterion=each) for each in criteria),
        output_file=_file_name(fields.text("output_file")),
    )
    fields.refuse_others(_IGNORED_OF_TASKS)
    return task if rounds is None else replace(task, max_guardrail_rounds=rounds)


def _file_name(path: str) -> str:
    """The last part of a path, of the characters that a file's name may have here."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")


class _Fields:
    """The fields of an agent or a task, read one by one."""

    def __init__(self, of: _Mapping, *, file: str) -> None:
        self._items = of.items
        self._file = file
        self._read: set[str] = set()

    def text(self, key: str) -> str:
        node = self._take(key)
        if node is None:
            return ""
        if not isinstance(node, _Scalar):
            self._refuse(f"{key!r} is to be text.", node)
        return clean(node.text).strip()

    def texts(self, key: str) -> list[str]:
        node = self._take(key)
        if node is None:
            return []
        items = node.items if isinstance(node, _Sequence) else ()
        found = [clean(each.text).strip() for each in items if isinstance(each, _Scalar) and not _is_nothing(each)]
        if not isinstance(node, _Sequence) or len(found) < len(items):
            self._refuse(f"{key!r} is to be a list of texts.", node)
        return found

    def boolean(self, key: str, *, default: bool | None) -> bool | None:
        node = self._take(key)
        if node is None:
            return default
        word = node.text.lower() if isinstance(node, _Scalar) and node.plain else ""
        if word not in _YES | _NO:
            self._refuse(f"{key!r} is to be true or false.", node)
        return word in _YES

    def whole(self, key: str) -> int | None:
        digits = self._number(key, r"[0-9]{1,9}", "a whole number, of nine digits at most.")
        return None if digits is None else int(digits)

    def number(self, key: str) -> float | None:
        digits = self._number(key, r"[0-9]{1,9}(\.[0-9]{1,9})?", "a number, zero or above.")
        return None if digits is None else float(digits)

    def _number(self, key: str, form: str, words: str) -> str | None:
        node = self._take(key)
        if node is None:
            return None
        if not isinstance(node, _Scalar) or not node.plain or not re.fullmatch(form, node.text):
            self._refuse(f"{key!r} is to be {words}", node)
        return node.text

    def refuse_others(self, ignored: frozenset[str]) -> None:
        for key, (line, _) in self._items.items():
            if key not in ignored and key not in self._read:
                _refuse(f"the key {key[:100]!r} means nothing here.", self._file, line)

    def _take(self, key: str) -> _Node | None:
        self._read.add(key)
        _, node = self._items.get(key, (0, None))
        return None if isinstance(node, _Scalar) and _is_nothing(node) else node

    def _refuse(self, problem: str, node: _Node) -> NoReturn:
        _refuse(problem, self._file, node.line)


def _is_nothing(node: _Scalar) -> bool:
    return node.plain and node.text in _NOTHING


def _entries(text: str, file: str) -> Iterator[tuple[str, _Fields]]:
    root = _Reader(text, file).root()
    if not isinstance(root, _Mapping):
        _refuse("it is to hold names, and under each its fields.", file, root.line)
    for name, (line, node) in root.items.items():
        if not _NAME.fullmatch(name):
            problem = f"the name {name[:100]!r} is to be of letters, digits, '-' and '_', at most 64."
            _refuse(problem, file, line)
        if not isinstance(node, _Mapping):
            _refuse(f"under {name!r} there are to be its fields.", file, line)
        yield name, _Fields(node, file=file)


class _Reader:
    """Reads events, never objects, and stops at the first that is not taken."""

    def __init__(self, text: str, file: str) -> None:
        self._text = clean(text)
        self._events: Iterator[Any] = iter(yaml.parse(self._text, Loader=yaml.CSafeLoader))
        self._file = file
        self._parts = 0

    def root(self) -> _Node:
        self._next()
        start = self._next()
        if isinstance(start, events.StreamEndEvent):
            _refuse("it is empty.", self._file, 1)
        if start.tags:
            _refuse("a %TAG is not taken.", self._file, _line(start))
        node = self._node(self._next(), 1)
        self._next()
        if not isinstance(after := self._next(), events.StreamEndEvent):
            _refuse("there is more than one document.", self._file, _line(after))
        return node

    def _next(self) -> Any:
        try:
            return next(self._events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            is_tab = mark is not None and self._text[mark.index : mark.index + 1] == "\t"
            problem = "a tab stands where YAML takes spaces." if is_tab else "it is no YAML from here on."
            _refuse(problem, self._file, mark.line + 1 if mark else 0)
        except yaml.YAMLError:
            _refuse("it has characters that YAML does not take.", self._file, 0)

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        self._parts += 1
        if self._parts > _MAX_PARTS:
            _refuse(f"it has more than {_MAX_PARTS} parts.", self._file, line)
        if depth > _MAX_DEPTH:
            _refuse(f"it is nested deeper than {_MAX_DEPTH} levels.", self._file, line)
        if isinstance(event, events.AliasEvent) or event.anchor is not None:
            _refuse("anchors and aliases are not taken.", self._file, line)
        if event.tag is not None:
            _refuse("tags are not taken.", self._file, line)
        if isinstance(event, events.ScalarEvent):
            return _Scalar(event.value, line, plain=event.style in (None, ""))
        if isinstance(event, events.SequenceStartEvent):
            items = []
            while not isinstance(inner := self._next(), events.SequenceEndEvent):
                items.append(self._node(inner, depth + 1))
            return _Sequence(items, line)
        return _Mapping(self._pairs(depth), line)

    def _pairs(self, depth: int) -> dict[str, tuple[int, _Node]]:
        pairs: dict[str, tuple[int, _Node]] = {}
        while not isinstance(event := self._next(), events.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, _Scalar):
                _refuse("a key is to be text.", self._file, key.line)
            name = clean(key.text)
            if name == "<<" and key.plain:
                _refuse("merge keys are not taken.", self._file, key.line)
            if name in pairs:
                _refuse(f"the key {name[:100]!r} is there twice.", self._file, key.line)
            pairs[name] = key.line, self._node(self._next(), depth + 1)
        return pairs


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _refuse(problem: str, file: str, line: int) -> NoReturn:
    raise YamlInvalid(f"in line {line}, {problem}" if line else problem, field=file, line=line) from None
