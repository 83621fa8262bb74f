"""What runs are made with."""

from dataclasses import dataclass

from loremesh_agent.engine.preparing import Preparing
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.ports import Metronome, ModelProvider, Models, Recollection, RunWork, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What runs are made with."""

    work: RunWork
    preparing: Preparing
    provider: ModelProvider
    models: Models
    tools: Tools
    quoting: Quoting
    recollection: Recollection
    metronome: Metronome
    group_seconds: float
