"""What models there are and what each can be asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loremesh_embedding.errors import ModelNotFound, ModelTaskUnsupported


class Task(StrEnum):
    """What a model can be asked for."""

    DENSE = "dense"
    SPARSE = "sparse"
    RERANK = "rerank"


class Purpose(StrEnum):
    """What a text is for: some models embed questions and passages differently."""

    DOCUMENT = "document"
    QUERY = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: `dimension` is zero but for dense ones, `max_input_tokens` zero where unlimited or unknown."""

    id: str
    task: Task
    provider: str
    dimension: int = 0
    max_input_tokens: int = 0


class Catalogue:
    """The models that can be used, and which one is meant when a request names none."""

    def __init__(self, models: Iterable[Model], *, defaults: Mapping[Task, str]) -> None:
        """Raises ValueError for an id given twice and for a default that no model of its task has."""
        self._models: dict[str, Model] = {}
        for model in models:
            if model.id in self._models:
                raise ValueError(f"Two models have the id {model.id!r}.")
            self._models[model.id] = model
        for task, id_ in defaults.items():
            if id_ not in self._models or self._models[id_].task is not task:
                raise ValueError(f"The default {task} model {id_!r} is not among the {task} models.")
        self._defaults = dict(defaults)

    def resolve(self, id_: str, task: Task, *, field: str = "model") -> Model:
        """The model `id_`, or the task's default for an empty id; raises ModelNotFound, ModelTaskUnsupported."""
        model = self._models.get(id_ or self._defaults[task])
        if model is None:
            raise ModelNotFound(id_, field=field)
        if model.task is not task:
            raise ModelTaskUnsupported(id_, task=task, field=field)
        return model

    def is_default(self, model: Model) -> bool:
        """Whether it is used when a request names no model."""
        return self._defaults.get(model.task) == model.id

    def models(self) -> Sequence[Model]:
        """All of them, by task, each task's default first."""
        tasks = list(Task)
        return sorted(self._models.values(), key=lambda model: (tasks.index(model.task), not self.is_default(model)))
